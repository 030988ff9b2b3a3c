//! What a start refuses, and what one damaged page may not do to the others.

use std::fs;

use rocksdb::WriteBatch;

use super::{Bench, options};
use crate::broker::ids::Seq;
use crate::storage::{
    ReadRequest, Store, StoreError, keys,
    rocks::{Family, Rocks, write_options},
};

fn closed() -> tempfile::TempDir {
    let bench = Bench::new();
    let queue = bench.queue("q");
    bench.publish_confirmed(&[(queue, 1)], b"x", 1);
    bench.told.wait_for_confirm(1);
    bench.store.close();
    bench.dir
}

fn refusal(dir: &tempfile::TempDir) -> StoreError {
    Store::open(options(dir.path())).err().expect("a refusal")
}

#[test]
fn a_directory_in_use_is_refused() {
    let bench = Bench::new();
    let error = refusal(&bench.dir);
    assert!(
        matches!(error, StoreError::Locked { pid: Some(_), .. }),
        "{error}"
    );
    bench.store.close();
    assert!(Store::open(options(bench.dir.path())).is_ok());
}

#[test]
fn a_store_from_the_future_is_refused() {
    let dir = closed();
    let rocks = Rocks::open(&dir.path().join("db"), &options(dir.path())).unwrap();
    rocks
        .put_synced(Family::Default, keys::FORMAT, &99_u32.to_le_bytes())
        .unwrap();
    drop(rocks);
    let error = refusal(&dir);
    assert!(
        matches!(
            error,
            StoreError::UnknownFormat {
                found: 99,
                supported: 3,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_store_with_families_of_the_future_is_refused_by_its_format() {
    let dir = closed();
    let path = dir.path().join("db");
    let names = rocksdb::DB::list_cf(&rocksdb::Options::default(), &path).unwrap();
    let mut db = rocksdb::DB::open_cf(&rocksdb::Options::default(), &path, names).unwrap();
    db.create_cf("tomorrow", &rocksdb::Options::default()).unwrap();
    db.put(keys::FORMAT, 7_u32.to_le_bytes()).unwrap();
    drop(db);
    let error = refusal(&dir);
    assert!(
        matches!(error, StoreError::UnknownFormat { found: 7, .. }),
        "{error}"
    );
}

#[test]
fn a_missing_database_is_never_replaced_by_an_empty_one() {
    let dir = closed();
    fs::remove_file(dir.path().join("db/CURRENT")).unwrap();
    let error = refusal(&dir);
    assert!(error.to_string().contains("CURRENT"), "{error}");
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    let error = refusal(&dir);
    assert!(
        matches!(&error, StoreError::Missing { path, .. } if path.ends_with("db")),
        "{error}"
    );
}

#[test]
fn a_damaged_row_or_definition_is_refused() {
    for family in [Family::QueueRow, Family::Meta] {
        let dir = closed();
        let rocks = Rocks::open(&dir.path().join("db"), &options(dir.path())).unwrap();
        let (key, mut value) = rocks
            .db()
            .iterator_cf(rocks.family(family), rocksdb::IteratorMode::End)
            .next()
            .unwrap()
            .unwrap();
        value[3] ^= 1;
        rocks.put_synced(family, &key, &value).unwrap();
        drop(rocks);
        let error = refusal(&dir);
        assert!(matches!(error, StoreError::Corrupt { .. }), "{family:?}: {error}");
    }
}

#[test]
fn a_damaged_page_harms_only_its_queue() {
    let bench = Bench::new();
    let (bad, good) = (bench.queue("bad"), bench.queue("good"));
    bench.publish(&[(bad, 1), (good, 1)], b"x");
    bench.store.close();
    let rocks = Rocks::open(&bench.dir.path().join("db"), &options(bench.dir.path())).unwrap();
    let key = keys::page(bad, 0, 1);
    let mut page = rocks.get(Family::Page, key).unwrap().unwrap().to_vec();
    page[20] ^= 0x10;
    let mut batch = WriteBatch::default();
    batch.put_cf(rocks.family(Family::Page), key, page);
    rocks.db().write_opt(batch, &write_options(true)).unwrap();
    drop(rocks);
    let bench = Bench::in_dir(bench.dir);
    let request = ReadRequest {
        queue: bad,
        lane: 0,
        from: Seq(1),
        until: Seq(2),
        max_bytes: 1000,
        settled: true,
    };
    let error = bench
        .read_some(request)
        .err()
        .expect("a damaged page")
        .to_string();
    assert!(error.contains(&format!("queue {}", bad.0)), "{error}");
    assert_eq!(bench.seqs(good), [1]);
    bench.publish_confirmed(&[(good, 2)], b"y", 1);
    bench.told.wait_for_confirm(1);
}
