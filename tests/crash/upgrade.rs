//! Stores of every released format (tests/crash/stores; fill.py tells how they were made) open in this version: nothing is
//! lost, the old one is kept beside it, and a dry run says all that beforehand.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::SystemTime,
};

use tempfile::TempDir;

use crate::{broker::Broker, client::Client};

/// A copy of the store of a format.
fn unpacked(format: u32) -> TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let archive = format!("tests/crash/stores/format-{format}.tar.gz");
    let status = Command::new("tar")
        .arg("-xzf")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(archive))
        .arg("-C")
        .arg(dir.path())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "tar unpacks it");
    dir
}

/// The program's other uses: a dry run, tools for stopped stores.
pub(crate) fn leveret(data: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leveret"))
        .arg("--data-dir")
        .arg(data)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every file below a directory, with its length and the time it was last written.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let about = entry.metadata().expect("a file");
        if about.is_dir() {
            found.append(&mut tree(&entry.path()));
        }
        found.insert(entry.path(), (about.len(), about.modified().expect("a time")));
    }
    found
}

/// What fill.py published.
fn body(queue: &str, number: u64) -> Vec<u8> {
    let len = match number {
        7 => 5_000,
        13 => 90_000,
        _ => 40,
    };
    format!("{queue} {number} ").bytes().cycle().take(len).collect()
}

/// Takes all messages of a queue; `redelivered` of them come first and say so.
fn drains(client: &mut Client, queue: &str, name: &str, numbers: &[u64], redelivered: usize) {
    for (place, number) in numbers.iter().enumerate() {
        let got = client.get(queue, true).expect("an answer");
        let got = got.unwrap_or_else(|| panic!("{queue} ends before {number}"));
        assert_eq!(text(&got.body), text(&body(name, *number)), "{queue}");
        assert_eq!(got.redelivered, place < redelivered, "{queue}: {number}");
    }
    assert!(
        client.get(queue, true).expect("an answer").is_none(),
        "{queue} goes on"
    );
}

fn opens(format: u32) {
    let dir = unpacked(format);
    let before = tree(dir.path());
    let dry = leveret(dir.path(), &["--dry-run"]);
    let said = text(&dry.stdout);
    assert!(dry.status.success(), "{dry:?}");
    assert_eq!(tree(dir.path()), before, "a dry run changes nothing");
    let copy = dir.path().join(format!("format-{format}-copy"));
    if format == 3 {
        assert!(said.contains("of this version's format"), "{said}");
    } else {
        assert!(
            said.contains(&format!("of format {format}; a start keeps")),
            "{said}"
        );
        assert!(said.contains(&*copy.to_string_lossy()), "{said}");
    }

    let broker = Broker::start(dir.path(), &[])
        .map_err(|refused| refused.log)
        .expect("a start");
    let mut client = Client::open(broker.address).expect("a client");
    let all: Vec<u64> = (0..20).collect();
    // Format 1 is of a time that had no priorities.
    let by_priority: Vec<u64> = match format {
        1 => all.clone(),
        _ => (0..3)
            .rev()
            .flat_map(|level| (0..20).filter(move |number| number % 3 == level))
            .collect(),
    };
    drains(&mut client, "plain", "plain", &(4..21).collect::<Vec<_>>(), 0);
    drains(&mut client, "fan1", "fan", &all[2..], 2);
    drains(&mut client, "fan2", "fan", &all, 0);
    drains(&mut client, "priorities", "priorities", &by_priority, 0);
    if format >= 2 {
        // They live for nine and ten years from November 2026.
        drains(&mut client, "deadlines", "deadlines", &all, 0);
    }
    let log = broker.log();
    broker.terminate();
    let left = leveret::storage::check(dir.path()).expect("a store");
    assert!(left.findings.is_empty(), "{:?}", left.findings);
    // What waits for the year 2126 goes on waiting.
    assert_eq!(left.messages, if format >= 3 { 20 } else { 0 });
    if format < 3 {
        assert!(log.contains(&format!("kept in {}", copy.display())), "{log}");
        goes_back(&copy, format);
    } else {
        assert!(!copy.exists());
    }
}

/// The copy is the store as it was: its format, and all its messages.
fn goes_back(copy: &Path, format: u32) {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let data = place.path().join("data");
    let restored = leveret(&data, &["restore", &copy.to_string_lossy()]);
    assert!(restored.status.success(), "{restored:?}");
    let said = text(&restored.stderr);
    assert!(
        said.contains(&format!("a store of format {format} restored")),
        "{said}"
    );
    let exported = leveret(&data, &["export", "plain"]);
    assert_eq!(text(&exported.stdout).lines().count(), 17, "{exported:?}");
}

#[test]
fn a_store_of_format_1_opens() {
    opens(1);
}

#[test]
fn a_store_of_format_2_opens() {
    opens(2);
}

#[test]
fn a_store_of_format_3_opens() {
    opens(3);
}

#[test]
fn a_change_of_format_that_is_killed_anywhere_is_made_up_for() {
    for (point, nth) in [
        ("table-synced", 1),
        ("table-synced", 2),
        ("manifest-write", 2),
        ("manifest-synced", 3),
        ("renamed", 1),
        ("renamed", 3),
        ("wal-write", 1),
        ("wal-synced", 1),
    ] {
        let dir = unpacked(1);
        let kill = [("SHIM_KILL", format!("{point}:{nth}").into())];
        if let Ok(broker) = Broker::start(dir.path(), &kill) {
            broker.kill();
        }
        let broker =
            Broker::start(dir.path(), &[]).unwrap_or_else(|refused| panic!("{point}:{nth}: {}", refused.log));
        let mut client = Client::open(broker.address).expect("a client");
        drains(&mut client, "plain", "plain", &(4..21).collect::<Vec<_>>(), 0);
        broker.kill();
        goes_back(&dir.path().join("format-1-copy"), 1);
    }
}
