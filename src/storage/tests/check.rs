//! Looks at a closed store from below RocksDB's keys: counts, low ends, references and checksums must agree
//! (storage-design B8.6).

use std::collections::HashMap;
use std::path::Path;

use rocksdb::IteratorMode;

use crate::broker::ids::QueueId;
use crate::storage::{
    StoreOptions,
    bodies::{Count, pieces},
    keys,
    page::Page,
    page_meta::PageMeta,
    rocks::{Family, Rocks},
    row::Row,
};

type Entries = Vec<(Box<[u8]>, Box<[u8]>)>;

fn all(rocks: &Rocks, family: Family) -> Entries {
    rocks
        .db()
        .iterator_cf(rocks.family(family), IteratorMode::Start)
        .map(Result::unwrap)
        .collect()
}

/// Panics at the first thing that does not agree.
pub(super) fn check(dir: &Path) {
    let rocks = Rocks::open(&dir.join("db"), &StoreOptions::new(dir)).unwrap();
    let rows: HashMap<QueueId, Row> = all(&rocks, Family::QueueRow)
        .iter()
        .map(|(key, value)| {
            (
                QueueId(keys::parse_u64(key).unwrap()),
                Row::decode(value).unwrap(),
            )
        })
        .collect();
    let mut acks: HashMap<_, _> = all(&rocks, Family::Ack).into_iter().collect();
    let mut found: HashMap<QueueId, (u64, u64)> = HashMap::new();
    let mut references: HashMap<u64, u32> = HashMap::new();
    for (key, value) in all(&rocks, Family::Page) {
        let (id, lane, first) = keys::parse_page(&key).unwrap();
        let row = rows
            .get(&id)
            .unwrap_or_else(|| panic!("page {first} of {id:?} has no row"));
        let head = row
            .lanes
            .iter()
            .find(|candidate| candidate.lane == lane)
            .expect("a lane with a page is in the row");
        assert!(
            first >= head.head_page,
            "{id:?}: page {first} lies below the head page {}",
            head.head_page
        );
        let page = Page::decode(&value).expect("a whole page");
        let meta = PageMeta::of_page(first, &page, acks.remove(&key).as_deref(), head.low).unwrap();
        assert!(meta.live() > 0, "{id:?}: page {first} holds nothing");
        assert!(
            meta.end() <= row.next_seq,
            "{id:?}: page {first} reaches next_seq {}",
            row.next_seq
        );
        meta.each_live(|entry| {
            let sums = found.entry(id).or_default();
            sums.0 += 1;
            sums.1 += entry.size;
            if let Some(body) = entry.body {
                *references.entry(body).or_default() += 1;
            }
        });
    }
    assert!(acks.is_empty(), "ack rows without a page: {:?}", acks.keys());
    for (id, row) in &rows {
        let sums = found.get(id).copied().unwrap_or_default();
        assert_eq!(
            (row.messages, row.bytes),
            sums,
            "{id:?}: the row counts other than what is there"
        );
    }
    check_bodies(&rocks, &references);
}

fn check_bodies(rocks: &Rocks, references: &HashMap<u64, u32>) {
    let mut left: HashMap<_, _> = all(rocks, Family::Body).into_iter().collect();
    let mut counted = HashMap::new();
    for (key, value) in all(rocks, Family::BodyCount) {
        let id = keys::parse_u64(&key).unwrap();
        let count = Count::decode(&value).unwrap();
        counted.insert(id, count.left);
        let len: u64 = (0..pieces(count.len))
            .map(|piece| {
                left.remove(keys::body_piece(id, piece).as_slice())
                    .expect("a piece")
                    .len() as u64
            })
            .sum();
        assert_eq!(len, count.len, "body {id}");
    }
    assert_eq!(&counted, references, "reference counts and references");
    assert!(left.is_empty(), "pieces nobody refers to: {:?}", left.keys());
}
