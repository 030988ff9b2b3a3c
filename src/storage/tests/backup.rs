//! A copy taken while the store serves.

use std::fs;

use super::{Bench, check::check};
use crate::storage::{StoreError, restore};

#[test]
fn a_backup_under_load_holds_what_was_confirmed_before_it() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    for seq in 1..=200 {
        bench.publish_confirmed(&[(queue, seq)], &[1; 300], seq);
    }
    bench.told.wait_for_confirm(200);
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("backup");
    for seq in 201..=400 {
        bench.publish(&[(queue, seq)], &[2; 300]);
    }
    bench.store.backup(&copy).unwrap();
    assert!(
        bench.store.backup(&copy).is_err(),
        "an older backup is never written over"
    );
    bench.ack(queue, &[1, 2, 3]);
    bench.store.close();

    let restored = tempfile::tempdir().unwrap();
    // A restore that was cut off, and a disk's own folder, are no store.
    fs::create_dir_all(restored.path().join("db.part/x")).unwrap();
    fs::create_dir(restored.path().join("lost+found")).unwrap();
    assert_eq!(restore(&copy, restored.path(), false).unwrap(), None);
    let error = restore(&copy, restored.path(), false).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    let aside = restore(&copy, restored.path(), true).unwrap().unwrap();
    assert!(aside.join("db/CURRENT").exists(), "the replaced store is kept");
    let restored = Bench::in_dir(restored);
    let seqs = restored.seqs(queue);
    assert!(seqs.len() >= 200);
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    restored.publish_confirmed(&[(queue, 401)], &[3; 300], 1);
    restored.told.wait_for_confirm(1);
    restored.store.close();
    check(restored.dir.path());
    // What was written since is no part of the store that replaces it, nor is the mark of how far that was synced.
    let aside = restore(&copy, restored.dir.path(), true).unwrap().unwrap();
    check(restored.dir.path());
    check(&aside);
}

#[test]
fn nothing_is_restored_under_a_running_broker() {
    let bench = Bench::new();
    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("backup");
    bench.store.backup(&copy).unwrap();
    let error = restore(&copy, bench.dir.path(), true).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    bench.store.close();
}

#[test]
fn what_is_no_backup_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let error = restore(place.path(), &place.path().join("data"), false).unwrap_err();
    assert!(matches!(error, StoreError::NoBackup { .. }), "{error}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}
