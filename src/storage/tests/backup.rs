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
    restore(&copy, restored.path()).unwrap();
    let error = restore(&copy, restored.path()).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    let restored = Bench::in_dir(restored);
    let seqs = restored.seqs(queue);
    assert!(seqs.len() >= 200);
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    restored.store.close();
    check(restored.dir.path());
}

#[test]
fn what_is_no_backup_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let error = restore(place.path(), &place.path().join("data")).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}
