//! Starts that must be refused, each with one message that names the file and says what to do, and an exit code of its own;
//! and one damaged page, which must close its queue and no other (issue of bad input; faults F9 to F12).

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use leveret::protocol::method::Method;
use tempfile::TempDir;

use crate::{
    broker::Broker,
    client::{Client, Event},
    damage::declare,
    truth,
    upgrade::{leveret, text},
};

const MESSAGES: u64 = 30;
/// More than a value RocksDB keeps beside the next one: every message's page is a record of its own.
const LEN: usize = 3_000;

/// A stopped store with three queues of confirmed messages in its tables.
fn filled() -> TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let broker = start(dir.path());
    let mut client = Client::open(broker.address).expect("a client");
    fill(&mut client, ["bad", "good", "better"], MESSAGES);
    broker.terminate();
    dir
}

fn start(data: &Path) -> Broker {
    Broker::start(data, &[])
        .map_err(|refused| refused.log)
        .expect("a start")
}

/// Publishes the same numbers to each queue and waits for the confirms.
fn fill(client: &mut Client, queues: [&str; 3], messages: u64) {
    client
        .call(&Method::ConfirmSelect { nowait: false })
        .expect("confirms");
    for (publisher, queue) in (0..).zip(queues) {
        client.call(&declare(queue)).expect("a queue");
        for seq in 0..messages {
            let id = truth::id(publisher, seq, LEN);
            client.publish("", queue, &truth::properties(&id), &truth::body(&id));
            client.flush().expect("the socket");
            while !matches!(
                client.next().expect("a confirm"),
                Event::Method(Method::BasicAck { .. })
            ) {}
        }
    }
}

/// Takes what the queue has, which must be all that was published.
fn drains(address: std::net::SocketAddr, publisher: u64, queue: &str) {
    let mut client = Client::open(address).expect("a client");
    for seq in 0..MESSAGES {
        let got = client.get(queue, true).expect("an answer");
        let id = truth::id(publisher, seq, LEN);
        assert_eq!(got.map(|got| got.body), Some(truth::body(&id)), "{queue}: {id}");
    }
}

/// The start is refused with this code, in one line that has all these words.
fn refused(data: &Path, shim: &[(&str, OsString)], code: i32, words: &[&str]) {
    let Err(refused) = Broker::start(data, shim) else {
        panic!("started, where {words:?} was expected");
    };
    let lines: Vec<_> = refused
        .log
        .lines()
        .filter(|line| line.starts_with("leveret: "))
        .collect();
    assert_eq!(lines.len(), 1, "{}", refused.log);
    assert_eq!(refused.status.code(), Some(code), "{}", refused.log);
    for word in words {
        assert!(lines[0].contains(word), "no '{word}' in {}", lines[0]);
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The files of the database with this ending.
fn files(data: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(data.join("db"))
        .expect("a directory")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    files
}

fn flip(path: &Path, at: u64) {
    let mut file = File::options().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.read_exact(&mut byte).expect("a byte");
    byte[0] ^= 0x10;
    file.seek(SeekFrom::Start(at)).expect("a place");
    file.write_all(&byte).expect("a byte");
}

#[test]
fn a_store_from_the_future_is_refused_with_76() {
    let dir = filled();
    let db = dir.path().join("db");
    let options = rocksdb::Options::default();
    let names = rocksdb::DB::list_cf(&options, &db).expect("families");
    let store = rocksdb::DB::open_cf(&options, &db, names).expect("a database");
    store.put(b"format", 99_u32.to_le_bytes()).expect("a number");
    drop(store);
    let words = [&*shown(dir.path()), "store format 99", "or a newer one"];
    refused(dir.path(), &[], 76, &words);
    let dry = leveret(dir.path(), &["--dry-run"]);
    assert_eq!(dry.status.code(), Some(76), "{dry:?}");
}

#[test]
fn a_missing_file_is_named_and_refused_with_66() {
    for ending in [".sst", "CURRENT"] {
        let dir = filled();
        let file = files(dir.path(), ending).pop().expect("a file");
        fs::remove_file(&file).expect("removed");
        refused(
            dir.path(),
            &[],
            66,
            &[&shown(&file), "is missing", "restore a backup"],
        );
    }
    let dir = filled();
    fs::remove_dir_all(dir.path().join("db")).expect("removed");
    let words = [&*shown(&dir.path().join("db")), "is missing", "restore a backup"];
    refused(dir.path(), &[], 66, &words);
    let dry = leveret(dir.path(), &["--dry-run"]);
    assert_eq!(dry.status.code(), Some(66), "{dry:?}");
}

#[test]
fn a_directory_of_another_process_is_refused_with_69() {
    let dir = filled();
    let broker = start(dir.path());
    let pid = format!("pid {}", broker.pid());
    let words = [&*shown(dir.path()), &pid, "--data-dir"];
    refused(dir.path(), &[], 69, &words);
    let dry = leveret(dir.path(), &["--dry-run"]);
    assert_eq!(dry.status.code(), Some(69), "{dry:?}");
    assert!(text(&dry.stdout).contains("of this version's format"), "{dry:?}");
    // It was not harmed by all that.
    drains(broker.address, 1, "good");
    broker.kill();
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_with_77() {
    let dir = filled();
    let words = [&*shown(dir.path()), "not writable", "--data-dir"];
    refused(dir.path(), &[("SHIM_DENY", "1".into())], 77, &words);
    drains_all(dir.path());
}

#[test]
fn a_full_disk_at_the_start_is_refused_with_75() {
    // Its first write, and one in the middle of RocksDB's opening.
    for nth in [1, 4] {
        let dir = filled();
        let full = [("SHIM_FAIL", format!("any:{nth}:28").into())];
        refused(
            dir.path(),
            &full,
            75,
            &[&shown(dir.path()), "no space left", "free some space"],
        );
        drains_all(dir.path());
    }
}

fn drains_all(data: &Path) {
    let broker = start(data);
    for (publisher, queue) in (0..).zip(["bad", "good", "better"]) {
        drains(broker.address, publisher, queue);
    }
    broker.kill();
}

#[test]
fn a_damaged_log_is_refused_with_65_and_its_place() {
    let dir = filled();
    let broker = start(dir.path());
    let mut client = Client::open(broker.address).expect("a client");
    fill(&mut client, ["more", "and more", "and yet more"], 5);
    broker.kill();
    let log = files(dir.path(), ".log").pop().expect("a log");
    // The kind of the first record, as a recycled log's would be: RocksDB alone would read for ever.
    let mut file = File::options().write(true).open(&log).expect("a file");
    file.seek(SeekFrom::Start(6)).expect("a place");
    file.write_all(&[5]).expect("a byte");
    refused(
        dir.path(),
        &[],
        65,
        &[&shown(&log), "no record at byte 0", "restore a backup"],
    );
    let dry = leveret(dir.path(), &["--dry-run"]);
    assert_eq!(dry.status.code(), Some(65), "{dry:?}");
}

#[test]
fn a_damaged_page_closes_its_queue_and_no_other() {
    let dir = filled();
    let wanted = truth::body(&truth::id(0, 3, LEN));
    let (file, at) = files(dir.path(), ".blob")
        .into_iter()
        .find_map(|file| {
            let bytes = fs::read(&file).expect("a file");
            let at = bytes.windows(wanted.len()).position(|part| part == wanted)?;
            Some((file, at as u64))
        })
        .expect("the message is in a file of its own");
    flip(&file, at + 1_000);
    for _ in 0..2 {
        let mut broker = start(dir.path());
        let mut client = Client::open(broker.address).expect("a client");
        let closed = loop {
            match client.get("bad", true) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the rest of the queue is silently gone"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(closed.contains("406") && closed.contains("'bad'"), "{closed}");
        broker.says("damaged data in");
        let mut client = Client::open(broker.address).expect("a client");
        for seq in 0..3 {
            let id = truth::id(9, seq, 10);
            client.publish("", "good", &truth::properties(&id), &truth::body(&id));
        }
        client.call(&declare("good")).expect("the others serve");
        broker.kill();
    }
    let checked = leveret(dir.path(), &["check"]);
    assert_eq!(checked.status.code(), Some(65), "{checked:?}");
    let broker = start(dir.path());
    drains(broker.address, 1, "good");
    drains(broker.address, 2, "better");
    let mut client = Client::open(broker.address).expect("a client");
    let delete = Method::QueueDelete {
        queue: "bad".to_owned(),
        if_unused: false,
        if_empty: false,
        nowait: false,
    };
    let deleted = client.call(&delete).expect("an answer");
    assert!(matches!(deleted, Method::QueueDeleteOk { .. }), "{deleted:?}");
    broker.kill();
}

#[test]
fn a_start_that_takes_long_says_how_far_it_is() {
    let dir = filled();
    let slow = [("SHIM_SLOW", "1200000".into())];
    let broker = Broker::start(dir.path(), &slow)
        .map_err(|refused| refused.log)
        .expect("a start");
    let log = broker.log();
    assert!(log.contains("recovering the store: "), "{log}");
    broker.kill();
}
