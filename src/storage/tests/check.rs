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
