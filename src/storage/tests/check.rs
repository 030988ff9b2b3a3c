//! A closed store must agree with itself; and one that does not is found out.

use std::path::Path;

use rocksdb::WriteBatch;

use super::{Bench, options};
use crate::storage::{
    keys,
    rocks::{Family, Rocks, write_options},
};

/// Panics when anything does not agree.
pub(super) fn check(dir: &Path) {
    let report = crate::storage::check(dir).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

/// Breaks something, given the first scheduled message's key and value.
type Change<'a> = dyn Fn(&[u8], &[u8], &Rocks, &mut WriteBatch) + 'a;

#[test]
fn what_does_not_agree_is_found() {
    let bench = Bench::new();
    let (left, right) = (bench.queue("left"), bench.queue("right"));
    bench.publish(&[(left, 1), (right, 1)], &vec![1; 70_000]);
    bench.publish(&[(left, 2)], b"x");
    bench.store.close();
    check(bench.dir.path());
    let damaged = |change: &dyn Fn(&Rocks, &mut WriteBatch)| {
        let rocks = Rocks::open(&bench.dir.path().join("db"), &options(bench.dir.path())).unwrap();
        let mut batch = WriteBatch::default();
        change(&rocks, &mut batch);
        rocks.db().write_opt(batch, &write_options(true)).unwrap();
        drop(rocks);
        crate::storage::check(bench.dir.path())
            .unwrap()
            .findings
            .join("; ")
    };
    let found = damaged(&|rocks, batch| batch.delete_cf(rocks.family(Family::Body), keys::body_piece(1, 0)));
    assert!(found.contains("body 1 has"), "{found}");
    let found = damaged(&|rocks, batch| batch.delete_cf(rocks.family(Family::Page), keys::page(right, 0, 1)));
    assert!(found.contains("the row counts"), "{found}");
    assert!(found.contains("counts 2 references, there are 1"), "{found}");
    let found = damaged(&|rocks, batch| {
        let key = keys::page(left, 0, 1);
        let mut page = rocks.get(Family::Page, key).unwrap().unwrap().to_vec();
        page[20] ^= 1;
        batch.put_cf(rocks.family(Family::Page), key, page);
    });
    assert!(found.contains("page 1 is damaged"), "{found}");
}

#[test]
fn what_waits_for_its_time_is_counted_and_checked() {
    let bench = Bench::new();
    let queue = super::schedule::holding(&bench);
    for seq in 1..=3 {
        super::schedule::publish(&bench, queue, 100 * seq, seq, super::message(b"later"));
    }
    bench.store.close();
    let report = crate::storage::check(bench.dir.path()).unwrap();
    assert_eq!(
        (report.messages, report.findings_count),
        (3, 0),
        "{:?}",
        report.findings
    );
    let damaged = |change: &Change| {
        let rocks = Rocks::open(&bench.dir.path().join("db"), &options(bench.dir.path())).unwrap();
        let mut batch = WriteBatch::default();
        let mode = rocksdb::IteratorMode::Start;
        let first = rocks
            .db()
            .iterator_cf(rocks.family(Family::Scheduled), mode)
            .next();
        let (key, value) = first.unwrap().unwrap();
        change(&key, &value, &rocks, &mut batch);
        rocks.db().write_opt(batch, &write_options(true)).unwrap();
        drop(rocks);
        crate::storage::check(bench.dir.path())
            .unwrap()
            .findings
            .join("; ")
    };
    let found = damaged(&|key, _, rocks, batch| batch.put_cf(rocks.family(Family::Scheduled), key, b"junk"));
    assert!(found.contains("is damaged"), "{found}");
    let found = damaged(&|key, _, rocks, batch| batch.delete_cf(rocks.family(Family::Scheduled), key));
    assert!(found.contains("(3, 15) waiting messages are counted"), "{found}");
    let found =
        damaged(&|_, value, rocks, batch| batch.put_cf(rocks.family(Family::Scheduled), [9; 24], value));
    assert!(found.contains("1 messages wait in queue"), "{found}");
}
