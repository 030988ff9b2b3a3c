//! Counters of the store. Written by its threads, read by whoever shows metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A point-in-time copy of the counters. All are totals since the start unless they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Groups the committer finished, those that needed no write included.
    pub groups: u64,
    pub ops: u64,
    /// Messages put into pages, once per target queue.
    pub messages: u64,
    /// Bytes handed to RocksDB in batches.
    pub bytes: u64,
    /// Groups that were synced.
    pub syncs: u64,
    /// Messages that were acked before their commit and so never written, once per target queue.
    pub holes: u64,
    pub confirms: u64,
    /// Time spent collecting and encoding groups.
    pub build_time: Duration,
    /// Time spent in RocksDB's write call, syncs included.
    pub write_time: Duration,
    /// Time spent telling whoever waited.
    pub release_time: Duration,
    /// Pages read for queues.
    pub pages_read: u64,
    /// Times disk space was reclaimed.
    pub reclaims: u64,
    /// Bytes of ops waiting now, the group being written included.
    pub pending_bytes: u64,
    /// Bytes of live table and blob files now.
    pub disk_bytes: u64,
    /// Bytes of memtables now.
    pub memtable_bytes: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) groups: AtomicU64,
    pub(super) ops: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) holes: AtomicU64,
    pub(super) confirms: AtomicU64,
    pub(super) build_nanos: AtomicU64,
    pub(super) write_nanos: AtomicU64,
    pub(super) release_nanos: AtomicU64,
    pub(super) pages_read: AtomicU64,
    pub(super) reclaims: AtomicU64,
}

impl Counters {
    pub(super) fn snapshot(&self) -> StoreStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            groups: get(&self.groups),
            ops: get(&self.ops),
            messages: get(&self.messages),
            bytes: get(&self.bytes),
            syncs: get(&self.syncs),
            holes: get(&self.holes),
            confirms: get(&self.confirms),
            build_time: Duration::from_nanos(get(&self.build_nanos)),
            write_time: Duration::from_nanos(get(&self.write_nanos)),
            release_time: Duration::from_nanos(get(&self.release_nanos)),
            pages_read: get(&self.pages_read),
            reclaims: get(&self.reclaims),
            ..StoreStats::default()
        }
    }
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

pub(super) fn add_time(counter: &AtomicU64, time: Duration) {
    add(counter, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}
