//! Gives disk space back. Pages of a drained queue leave so few tombstones that RocksDB sees no reason to compact; so we
//! count what we delete and then compact once (storage-design B10).

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::storage::{
    Shared,
    rocks::{Family, Rocks},
    stats::add,
};

const FAMILIES: [Family; 2] = [Family::Page, Family::Body];

/// Bytes of table and blob files of the families that hold messages.
pub(super) fn family_bytes(rocks: &Rocks) -> u64 {
    let of = |family| {
        rocks.property(family, "rocksdb.total-sst-files-size")
            + rocks.property(family, "rocksdb.live-blob-file-size")
    };
    FAMILIES.into_iter().map(of).sum()
}

/// Bytes of their table files, which a compaction rewrites.
pub(super) fn table_bytes(rocks: &Rocks) -> u64 {
    let of = |family| rocks.property(family, "rocksdb.total-sst-files-size");
    FAMILIES.into_iter().map(of).sum()
}

/// Starts a thread that compacts both families; `None` when there is no thread to be had, then the next deletes try.
pub(super) fn spawn(rocks: Arc<Rocks>, shared: Arc<Shared>) -> Option<JoinHandle<()>> {
    let work = move || {
        let start = Instant::now();
        let before = family_bytes(&rocks);
        // All of them: a family that is not written out keeps the log of all.
        if let Err(error) = rocks.flush_all() {
            tracing::warn!(%error, "could not flush before reclaiming space; the next deletes try again");
            return;
        }
        for family in FAMILIES {
            rocks
                .db()
                .compact_range_cf(rocks.family(family), None::<&[u8]>, None::<&[u8]>);
        }
        add(&shared.counters.reclaims, 1);
        let after = family_bytes(&rocks);
        tracing::debug!(before, after, took = ?start.elapsed(), "reclaimed disk space");
    };
    thread::Builder::new()
        .name("store-reclaim".to_owned())
        .spawn(work)
        .ok()
}
