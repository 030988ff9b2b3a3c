//! A log that is damaged before its end: the start is refused, and there is a way on for who accepts the loss
//! (fault specification F10).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use leveret::protocol::method::Method;

use crate::{
    broker::Broker,
    client::{Client, Event},
    damage::{MESSAGES, QUEUES, filled},
    truth,
};

/// `leveret` with a subcommand: its exit code and what it said.
fn leveret(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
    let output = command.arg("--data-dir").arg(data_dir).args(arguments).output();
    let output = output.expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

fn newest_log(data_dir: &Path) -> PathBuf {
    let files = fs::read_dir(data_dir.join("db")).expect("a directory");
    let logs = files.flatten().map(|entry| entry.path());
    logs.filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .max()
        .expect("a log")
}

/// How many messages a queue holds, which must be its first ones.
fn first_messages(broker: &Broker, publisher: u64, queue: &str) -> u64 {
    let mut client = Client::open(broker.address).expect("a client");
    for seq in 0.. {
        client.send(&Method::BasicGet {
            queue: queue.to_owned(),
            no_ack: true,
        });
        client.flush().expect("the socket");
        match client.next().expect("an answer") {
            Event::Message(received) => {
                let len = if seq % 20 == 7 { 90_000 } else { 200 };
                let id = truth::id(publisher, seq, len);
                assert_eq!(received.properties, truth::properties(&id), "{queue}: {seq}");
                assert_eq!(received.body, truth::body(&id), "{queue}: {seq}");
            }
            Event::Method(Method::BasicGetEmpty) => return seq,
            Event::Method(other) => panic!("{other:?}"),
        }
    }
    unreachable!("a queue ends")
}

/// Proves: F10
#[test]
fn a_hole_in_the_log_is_refused_and_who_accepts_the_loss_goes_on_without_what_is_behind_it() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let data = place.path().join("data");
    filled(&data);
    let log = newest_log(&data);
    let mut bytes = fs::read(&log).expect("the log");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("records") + 1;
    bytes[used / 2] ^= 1;
    fs::write(&log, &bytes).expect("the damage");
    let name = log.file_name().expect("a name").to_string_lossy().into_owned();
    let refused = Broker::start(&data, &[]).err().expect("it is refused");
    assert_eq!(refused.status.code(), Some(65), "{}", refused.log);
    for words in [&*name, "no record at byte", "salvage"] {
        assert!(refused.log.contains(words), "{}", refused.log);
    }
    // Looking changes nothing, and says what there is to lose.
    for arguments in [&["check"][..], &["salvage"]] {
        let (code, said) = leveret(&data, arguments);
        assert_eq!(code, Some(65), "{said}");
        assert!(said.contains("would be lost: ") && said.contains(&name), "{said}");
        assert_eq!(fs::read(&log).expect("the log"), bytes);
    }
    let (code, said) = leveret(&data, &["salvage", "--accept-data-loss"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("lost: ") && said.contains("before-salvage-1"),
        "{said}"
    );
    let aside = data.join("before-salvage-1").join(&name);
    assert_eq!(fs::read(aside).expect("it is kept"), bytes);
    let (code, said) = leveret(&data, &["check"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = leveret(&data, &["salvage", "--accept-data-loss"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nothing to salvage"), "{said}");
    let broker = Broker::start(&data, &[])
        .map_err(|refused| refused.log)
        .expect("a start");
    let left: Vec<u64> = (0..)
        .zip(QUEUES)
        .map(|(at, queue)| first_messages(&broker, at, queue))
        .collect();
    // What was in tables is there, and of the log what stood before the damage.
    assert!(
        left.iter().all(|left| (MESSAGES / 2..MESSAGES).contains(left)),
        "{left:?}"
    );
    assert!(left.iter().any(|left| *left > MESSAGES / 2), "{left:?}");
    broker.terminate();
    Broker::start(&data, &[])
        .map_err(|refused| refused.log)
        .expect("another start")
        .kill();
}

/// Proves: F10
#[test]
fn a_log_that_lost_its_synced_end_is_salvaged_too() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let data = place.path().join("data");
    filled(&data);
    let log = newest_log(&data);
    let bytes = fs::read(&log).expect("the log");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("records") + 1;
    fs::write(&log, &bytes[..used / 2]).expect("the damage");
    let refused = Broker::start(&data, &[]).err().expect("it is refused");
    assert_eq!(refused.status.code(), Some(65), "{}", refused.log);
    let (code, said) = leveret(&data, &["salvage", "--accept-data-loss"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("operations that were synced"), "{said}");
    let broker = Broker::start(&data, &[])
        .map_err(|refused| refused.log)
        .expect("a start");
    for (at, queue) in (0..).zip(QUEUES) {
        let left = first_messages(&broker, at, queue);
        assert!((MESSAGES / 2..MESSAGES).contains(&left), "{left}");
    }
    broker.terminate();
}
