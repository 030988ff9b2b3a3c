//! The store's settings, already checked by whoever read the configuration.

use std::path::PathBuf;
use std::time::Duration;

/// What a test hangs into the committer.
#[cfg(test)]
pub(super) type StepHook = std::sync::Arc<dyn Fn(crate::storage::writer::Step) -> bool + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Holds the lock file and the database; created when missing.
    pub data_dir: PathBuf,
    /// Groups start at least this far apart while the load profits from bigger groups (each sync costs CPU).
    pub commit_interval: Duration,
    /// The most op bytes one group takes. Bigger groups only add latency.
    pub group_max_bytes: usize,
    /// Memtable of the pages family; three of them at most. Bigger means less compaction, more memory and a
    /// longer replay after a crash.
    pub page_write_buffer_bytes: usize,
    /// With so many bytes alive in it, the memtable of the pages family is written out before it is full.
    pub page_live_bytes: usize,
    /// Memtable of the family of large and shared bodies.
    pub body_write_buffer_bytes: usize,
    /// Log files are dropped, by flushing what they still hold, when together they exceed this.
    pub wal_max_bytes: u64,
    /// Cache of index blocks and pages for all families.
    pub block_cache_bytes: usize,
    /// Threads that read pages for queues which no longer hold them in memory.
    pub reader_threads: usize,
    /// A write that nobody waits for is synced after this time at the latest.
    pub unsynced_max: Duration,
    /// Deleted bytes that start a reclaim of disk space (storage-design B10).
    pub reclaim_min_bytes: u64,
    /// As many of them start it once nothing was logged for [`Self::reclaim_calm`].
    pub reclaim_calm_bytes: u64,
    /// See [`Self::reclaim_calm_bytes`].
    pub reclaim_calm: Duration,
    /// Asked at every step of a commit; `false` stops the committer as a crash would.
    #[cfg(test)]
    pub(super) on_step: Option<StepHook>,
}

impl StoreOptions {
    /// The defaults, for this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            commit_interval: Duration::from_micros(250),
            group_max_bytes: 4 << 20,
            page_write_buffer_bytes: 64 << 20,
            page_live_bytes: 24 << 20,
            body_write_buffer_bytes: 32 << 20,
            wal_max_bytes: 256 << 20,
            block_cache_bytes: 64 << 20,
            reader_threads: 2,
            unsynced_max: Duration::from_millis(100),
            reclaim_min_bytes: 256 << 20,
            reclaim_calm_bytes: 16 << 20,
            reclaim_calm: Duration::from_secs(1),
            #[cfg(test)]
            on_step: None,
        }
    }
}
