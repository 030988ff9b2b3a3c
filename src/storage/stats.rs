//! Counters of the store. Written by its threads, read by whoever shows metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rocksdb::statistics::{Histogram, Ticker};

use crate::storage::{
    reclaim,
    rocks::{Family, Rocks},
};

/// Upper bounds of the buckets of [`StoreStats::group_sizes`], in operations.
pub const GROUP_SIZE_BOUNDS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];
/// Upper bounds of the buckets of [`StoreStats::group_times`], in nanoseconds.
pub const GROUP_TIME_BOUNDS: [u64; 12] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];
const BUCKETS: usize = 12;

/// How often which value was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// By upper bound, inclusive, each without the smaller ones.
    pub counts: [u64; BUCKETS],
    /// Values above the last bound.
    pub above: u64,
    pub sum: u64,
}

/// How long the disk took to sync the log, as RocksDB keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncTimes {
    pub count: u64,
    pub total: Duration,
    pub p50: Duration,
    pub p95: Duration,
    pub p99: Duration,
    pub max: Duration,
}

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
    /// Operations per group.
    pub group_sizes: Buckets,
    /// Time from taking a group to its last confirm, nanoseconds.
    pub group_times: Buckets,
    pub sync_times: SyncTimes,
    /// Writes that took longer than a second.
    pub slow_writes: u64,
    /// Time that RocksDB held writes back because flushes or compactions lagged.
    pub stall_time: Duration,
    /// RocksDB takes no writes now.
    pub is_stopped: bool,
    /// Bytes that compactions would have to rewrite for every level to have its size.
    pub compaction_debt_bytes: u64,
    /// Pages read for queues.
    pub pages_read: u64,
    /// Blocks found in the cache, and not found.
    pub cache_hits: u64,
    pub cache_misses: u64,
    /// Bytes in the block cache now, and what it may hold.
    pub cache_bytes: u64,
    pub cache_limit_bytes: u64,
    /// Bytes written to the log, to table and blob files by flushes, and to table files by compactions. Their sum over the
    /// bytes of messages is the write amplification.
    pub log_bytes: u64,
    pub flush_bytes: u64,
    pub compaction_bytes: u64,
    pub blob_bytes: u64,
    /// Times disk space was reclaimed.
    pub reclaims: u64,
    /// Bytes of ops waiting now, the group being written included.
    pub pending_bytes: u64,
    /// Bytes of live table and blob files now.
    pub disk_bytes: u64,
    /// Bytes of memtables now.
    pub memtable_bytes: u64,
}

impl StoreStats {
    /// Adds what RocksDB knows.
    pub(super) fn read(&mut self, rocks: &Rocks) {
        self.disk_bytes = reclaim::family_bytes(rocks);
        self.memtable_bytes = rocks.memtable_bytes();
        self.is_stopped = rocks.property(Family::Page, "rocksdb.is-write-stopped") != 0;
        self.compaction_debt_bytes = rocks.sum("rocksdb.estimate-pending-compaction-bytes");
        // One cache for all families: each would tell the same.
        self.cache_bytes = rocks.property(Family::Default, "rocksdb.block-cache-usage");
        self.cache_limit_bytes = rocks.property(Family::Default, "rocksdb.block-cache-capacity");
        self.stall_time = Duration::from_micros(rocks.ticker(Ticker::StallMicros));
        self.cache_hits = rocks.ticker(Ticker::BlockCacheHit);
        self.cache_misses = rocks.ticker(Ticker::BlockCacheMiss);
        self.log_bytes = rocks.ticker(Ticker::WalFileBytes);
        self.flush_bytes = rocks.ticker(Ticker::FlushWriteBytes);
        self.compaction_bytes = rocks.ticker(Ticker::CompactWriteBytes);
        self.blob_bytes = rocks.ticker(Ticker::BlobDbBlobFileBytesWritten);
        let syncs = rocks.histogram(Histogram::WalFileSyncMicros);
        // RocksDB's figures are interpolated microseconds, and zero or more.
        let micros = |value: f64| Duration::try_from_secs_f64(value / 1e6).unwrap_or_default();
        self.sync_times = SyncTimes {
            count: syncs.count(),
            total: Duration::from_micros(syncs.sum()),
            p50: micros(syncs.median()),
            p95: micros(syncs.p95()),
            p99: micros(syncs.p99()),
            max: micros(syncs.max()),
        };
    }
}

/// Buckets being counted; only the committer adds.
#[derive(Default)]
pub(super) struct Spread {
    counts: [AtomicU64; BUCKETS],
    above: AtomicU64,
    sum: AtomicU64,
}

impl Spread {
    pub(super) fn add(&self, bounds: &[u64; BUCKETS], value: u64) {
        let place = bounds.partition_point(|bound| *bound < value);
        add(self.counts.get(place).unwrap_or(&self.above), 1);
        add(&self.sum, value);
    }

    fn snapshot(&self) -> Buckets {
        let mut buckets = Buckets {
            above: self.above.load(Ordering::Relaxed),
            sum: self.sum.load(Ordering::Relaxed),
            ..Buckets::default()
        };
        for (to, from) in buckets.counts.iter_mut().zip(&self.counts) {
            *to = from.load(Ordering::Relaxed);
        }
        buckets
    }
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
    pub(super) slow_writes: AtomicU64,
    pub(super) group_sizes: Spread,
    pub(super) group_times: Spread,
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
            group_sizes: self.group_sizes.snapshot(),
            group_times: self.group_times.snapshot(),
            pages_read: get(&self.pages_read),
            reclaims: get(&self.reclaims),
            slow_writes: get(&self.slow_writes),
            ..StoreStats::default()
        }
    }
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

pub(super) fn add_time(counter: &AtomicU64, time: Duration) {
    add(counter, nanos(time));
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let spread = Spread::default();
        for value in [1, 2, 3, 5, 5_000, 5_001] {
            spread.add(&GROUP_SIZE_BOUNDS, value);
        }
        let buckets = spread.snapshot();
        assert_eq!(buckets.counts, [1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!((buckets.above, buckets.sum), (1, 10_012));
    }
}
