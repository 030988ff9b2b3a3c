//! Room that is made ahead in the log, as a crash and a power cut leave it.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::Bench;
use super::check::check;
use super::crash::{copy, newest_wal};
use super::options;
use crate::storage::Store;

/// Where the log's zeros begin.
fn end_of(log: &Path) -> usize {
    let bytes = fs::read(log).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// What a killed process leaves: the database that is open here would tidy up when it is closed.
fn killed(bench: &Bench) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    copy(bench.dir.path(), image.path());
    image
}

#[test]
fn room_ahead_in_the_log_is_no_end_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.unsynced_max = Duration::from_secs(3600);
    let bench = Bench::with(dir, options);
    let queue = bench.queue("q");
    // One by one, so that each is a group.
    for seq in 1..=100 {
        bench.publish_confirmed(&[(queue, seq)], &[1; 300], seq);
        bench.told.wait_for_confirm(seq);
    }
    bench.sync();
    let log = newest_wal(bench.dir.path());
    let synced = end_of(&log);
    assert!(
        fs::metadata(&log).unwrap().len() > synced as u64 + 100_000,
        "room was made"
    );
    for seq in 101..=104 {
        bench.publish(&[(queue, seq)], &[2; 300]);
        assert_eq!(bench.seqs(queue).last(), Some(&seq));
    }
    let end = end_of(&log);
    assert!(end > synced + 4 * 300);
    let image = Bench::in_dir(killed(&bench));
    assert_eq!(image.seqs(queue), (1..=104).collect::<Vec<_>>());
    image.store.close();
    check(image.dir.path());
    // A power cut gives the room back as it was.
    for cut in (synced..end).step_by(97) {
        let image = killed(&bench);
        let log = fs::File::options()
            .write(true)
            .open(newest_wal(image.path()))
            .unwrap();
        log.write_all_at(&vec![0; end - cut], cut as u64).unwrap();
        let image = Bench::in_dir(image);
        let seqs = image.seqs(queue);
        assert!(
            seqs.len() >= 100,
            "cut at {cut} of {end}, synced to {synced}: {seqs:?}"
        );
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
        image.store.close();
        check(image.dir.path());
    }
    bench.store.close();
}

#[test]
fn damage_before_the_room_in_the_log_is_refused() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    for seq in 1..=100 {
        bench.publish_confirmed(&[(queue, seq)], &[1; 300], seq);
        bench.told.wait_for_confirm(seq);
    }
    bench.sync();
    let image = killed(&bench);
    let path = newest_wal(image.path());
    let at = end_of(&path) / 2;
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = Store::open(options(image.path()))
        .err()
        .expect("a refusal")
        .to_string();
    assert!(error.contains("db"), "{error}");
    bench.store.close();
}
