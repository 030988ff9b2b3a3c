//! Broken files: each copy of a store gets one damage, and the broker either refuses to start, naming a file, with an exit
//! code of its own, or serves what is whole and says what is not. It never loses a confirmed message in silence
//! (fault specification F9 to F12).

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use leveret::protocol::{field::FieldTable, method::Method};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    broker::Broker,
    client::{Client, Event},
    truth,
};

pub(crate) const QUEUES: [&str; 3] = ["a", "b", "c"];
pub(crate) const MESSAGES: u64 = 120;

/// A store with confirmed messages in tables and in the log; what each queue holds is known.
pub(crate) fn filled(dir: &Path) {
    let synced = dir.with_extension("synced");
    for half in 0..2 {
        let broker = Broker::start(dir, &[("SHIM_SYNCED", synced.clone().into())])
            .map_err(|refused| refused.log)
            .expect("a start");
        let mut client = Client::open(broker.address).expect("a client");
        client
            .call(&Method::ConfirmSelect { nowait: false })
            .expect("confirms");
        for queue in QUEUES {
            client.call(&declare(queue)).expect("a queue");
        }
        for seq in half * MESSAGES / 2..(half + 1) * MESSAGES / 2 {
            for (publisher, queue) in (0..).zip(QUEUES) {
                let len = if seq % 20 == 7 { 90_000 } else { 200 };
                let id = truth::id(publisher, seq, len);
                client.publish("", queue, &truth::properties(&id), &truth::body(&id));
                client.flush().expect("the socket");
                while !matches!(
                    client.next().expect("a confirm"),
                    Event::Method(Method::BasicAck { .. })
                ) {}
            }
        }
        if half == 0 {
            // A clean end puts everything into tables.
            broker.terminate();
        } else {
            // The last confirm is behind its sync, and the same thread raises the mark: once the mark was synced behind
            // the log, it covers all that was confirmed.
            let marked = || {
                let synced = fs::read_to_string(&synced).expect("what was synced");
                synced
                    .lines()
                    .last()
                    .is_some_and(|line| line.ends_with("/synced"))
            };
            while !marked() {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            broker.kill();
        }
    }
}

pub(crate) fn declare(queue: &str) -> Method {
    Method::QueueDeclare {
        queue: queue.to_owned(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: FieldTable::default(),
    }
}

/// All messages of a queue; `Err` with what the broker said when it cannot give them.
fn drain(broker: &Broker, publisher: u64, queue: &str) -> Result<(), String> {
    let mut client = Client::open(broker.address).map_err(|error| error.to_string())?;
    let mut expected = 0;
    loop {
        client.send(&Method::BasicGet {
            queue: queue.to_owned(),
            no_ack: true,
        });
        client.flush().map_err(|error| error.to_string())?;
        let received = match client.next().map_err(|error| error.to_string())? {
            Event::Message(received) => received,
            Event::Method(Method::BasicGetEmpty) => break,
            Event::Method(other) => return Err(format!("{other:?}")),
        };
        let len = if expected % 20 == 7 { 90_000 } else { 200 };
        let id = truth::id(publisher, expected, len);
        assert_eq!(
            received.properties,
            truth::properties(&id),
            "{queue}: {expected} is another"
        );
        assert_eq!(received.body, truth::body(&id), "{queue}: {id} has another body");
        expected += 1;
    }
    assert_eq!(expected, MESSAGES, "{queue} lost messages without a word");
    Ok(())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            // A killed broker leaves its control socket behind.
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Files whose damage must be noticed. The rest (RocksDB's own log, its options, our lock) is written anew.
fn files(data: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(data.join("db"))
        .expect("a directory")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            [".log", ".sst", ".blob"]
                .iter()
                .any(|ending| name.ends_with(ending))
                || name.starts_with("MANIFEST-")
                || name == "CURRENT"
        })
        .filter(|path| fs::metadata(path).is_ok_and(|data| data.len() > 0))
        .collect();
    files.sort();
    files
}

fn damage(path: &Path, random: &mut StdRng) -> String {
    let len = fs::metadata(path).expect("a file").len();
    let mut file = File::options().read(true).write(true).open(path).expect("a file");
    let at = random.random_range(0..len);
    let said = match random.random_range(0..5) {
        0 => {
            fs::remove_file(path).expect("a file");
            "removed".to_owned()
        }
        1 => {
            file.set_len(at).expect("a cut");
            format!("cut at {at}")
        }
        2 => {
            let end = (at + 700).min(len);
            file.seek(SeekFrom::Start(at))
                .and_then(|_| file.write_all(&vec![0; (end - at) as usize]))
                .expect("zeros");
            format!("zeros from {at} to {end}")
        }
        _ => {
            let mut byte = [0];
            file.seek(SeekFrom::Start(at)).expect("a place");
            file.read_exact(&mut byte).expect("a byte");
            byte[0] ^= 1 << random.random_range(0..8);
            file.seek(SeekFrom::Start(at))
                .and_then(|_| file.write_all(&byte))
                .expect("a byte");
            format!("bit flipped at {at}")
        }
    };
    format!(
        "{} of {len}: {said}",
        path.file_name().unwrap_or_default().to_string_lossy()
    )
}

#[test]
fn damage_is_named_or_harmless_and_never_silent() {
    let seed = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(6);
    let images = std::env::var("CRASH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(24);
    let mut random = StdRng::seed_from_u64(seed);
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let whole = place.path().join("whole");
    filled(&whole);
    let (mut refused, mut partly, mut fine) = (0, 0, 0);
    for _ in 0..images {
        let image = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        copy(&whole, image.path());
        let files = files(image.path());
        let what = damage(&files[random.random_range(0..files.len())], &mut random);
        match Broker::start(image.path(), &[]) {
            Err(answer) => {
                refused += 1;
                let text = format!("{what}: {} {}", answer.status, answer.log);
                assert!(matches!(answer.status.code(), Some(65 | 66 | 74)), "{text}");
                assert!(text.contains(&*image.path().to_string_lossy()), "{text}");
            }
            Ok(broker) => {
                let results = (0..)
                    .zip(QUEUES)
                    .map(|(number, queue)| drain(&broker, number, queue));
                let failed: Vec<_> = results.filter_map(Result::err).collect();
                if failed
                    .iter()
                    .any(|text| text.contains("end of file") || text.contains("reset"))
                {
                    // RocksDB met the damage while it compacted, and takes no more writes.
                    let (status, log) = broker.wait();
                    let text = format!("{what}: {status} {log}");
                    assert_eq!(status.code(), Some(74), "{text}");
                    assert!(text.contains(&*image.path().to_string_lossy()), "{text}");
                    refused += 1;
                    continue;
                }
                for text in &failed {
                    assert!(text.contains("541") || text.contains("406"), "{what}: {text}");
                }
                if failed.is_empty() {
                    fine += 1;
                } else {
                    partly += 1;
                }
                broker.kill();
            }
        }
    }
    println!(
        "damage: CRASH_SEED={seed}: {images} images, {refused} refused, {partly} with a closed queue, {fine} whole"
    );
}
