//! How RocksDB is opened and the handful of calls we make. The reasons of the options are storage-design A and C.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompactionStyle, DBCompressionType,
    DBPinnableSlice, DBRecoveryMode, Env, FlushOptions, InfoLogger, LogLevel, Options, WriteBatch,
    WriteOptions,
    statistics::{Histogram, HistogramData, StatsLevel, Ticker},
};

use crate::storage::{StoreError, StoreOptions};

/// The column families, in the order [`Rocks::open`] creates them. Few and fixed: a cold one pins the log of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Default,
    Meta,
    QueueRow,
    Page,
    Ack,
    Body,
    BodyCount,
    Scheduled,
}

const ALL: [Family; 8] = [
    Family::Default,
    Family::Meta,
    Family::QueueRow,
    Family::Page,
    Family::Ack,
    Family::Body,
    Family::BodyCount,
    Family::Scheduled,
];

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Meta => "meta",
            Self::QueueRow => "qstate",
            Self::Page => "page",
            Self::Ack => "ack",
            Self::Body => "body",
            Self::BodyCount => "bref",
            Self::Scheduled => "sched",
        }
    }

    fn options(self, store: &StoreOptions, cache: &Cache) -> Options {
        let mut options = Options::default();
        let (write_buffer, buffers) = match self {
            Self::Page => (store.page_write_buffer_bytes, 3),
            Self::Body => (store.body_write_buffer_bytes, 3),
            Self::Scheduled => (16 << 20, 6),
            // They are written out when the log is too long, in turn behind the pages; until then writers must not wait.
            Self::QueueRow | Self::Ack | Self::BodyCount => (16 << 20, 4),
            Self::Default | Self::Meta => (4 << 20, 4),
        };
        options.set_write_buffer_size(write_buffer);
        options.set_max_write_buffer_number(buffers);
        options.set_compression_type(DBCompressionType::None);
        if self == Self::Scheduled {
            // Rows come in any order of their times. Levels, which overlap with every new run then, are rewritten far more
            // often than runs of like size are merged: a third of the CPU of scheduling a message (benches/README.md).
            options.set_compaction_style(DBCompactionStyle::Universal);
            // Longer runs are fewer. A larger buffer would do the same, but that much must be free before RocksDB goes on
            // after a full disk.
            options.set_min_write_buffer_number_to_merge(2);
            // A flood of them must not slow the writers of all families down while the runs wait to be merged; who reads
            // what is due goes through that many runs at worst.
            options.set_level_zero_slowdown_writes_trigger(64);
            options.set_level_zero_stop_writes_trigger(128);
        }
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_format_version(5);
        if matches!(self, Self::Page | Self::Body) {
            table.set_block_size(16 << 10);
            // Compaction then moves keys and pointers only. GC would copy the oldest live data again and again.
            options.set_enable_blob_files(true);
            options.set_min_blob_size(2 << 10);
            options.set_blob_file_size(64 << 20);
            options.set_enable_blob_gc(false);
        }
        options.set_block_based_table_factory(&table);
        options
    }
}

/// How a database is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// Made when it is not there.
    Usual,
    AsItIs,
    /// Logs may lack what the manifest knows to be synced.
    CutShort,
}

/// The open database.
pub(super) struct Rocks {
    db: DB,
    /// Holds the statistics.
    options: Options,
    path: PathBuf,
}

impl Rocks {
    /// Opens or creates the database with all families.
    pub(super) fn open(path: &Path, store: &StoreOptions) -> Result<Self, StoreError> {
        Self::open_families(path, store, &ALL, Opening::Usual)
    }

    /// Opens a database whose logs end before what was synced, which is refused otherwise.
    pub(super) fn open_cut_short(path: &Path, store: &StoreOptions) -> Result<Self, StoreError> {
        Self::open_families(path, store, &ALL, Opening::CutShort)
    }

    /// Opens a database that has just these families, as older formats did, and creates none.
    pub(super) fn open_with(
        path: &Path,
        store: &StoreOptions,
        names: &BTreeSet<String>,
    ) -> Result<Self, StoreError> {
        let known: Vec<_> = ALL
            .into_iter()
            .filter(|family| names.contains(family.name()))
            .collect();
        Self::open_families(path, store, &known, Opening::AsItIs)
    }

    fn open_families(
        path: &Path,
        store: &StoreOptions,
        families: &[Family],
        opening: Opening,
    ) -> Result<Self, StoreError> {
        let mut options = Options::default();
        let creates = opening == Opening::Usual;
        options.create_if_missing(creates);
        options.create_missing_column_families(creates);
        options.set_max_background_jobs(2);
        // Compaction can wait, messages cannot; when it falls behind, RocksDB slows the writers and it gets its turn.
        let mut env = Env::new().map_err(|error| StoreError::from_rocks(path, &error))?;
        env.lower_thread_pool_cpu_priority();
        options.set_env(&env);
        options.set_max_total_wal_size(store.wal_max_bytes);
        options.set_db_write_buffer_size(512 << 20);
        options.set_bytes_per_sync(1 << 20);
        options.set_max_open_files(-1);
        // Point-in-time recovery would drop confirmed records behind a flipped bit without a word.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_track_and_verify_wals_in_manifest(opening != Opening::CutShort);
        options.set_paranoid_checks(true);
        options.set_recycle_log_file_num(0);
        options.set_keep_log_file_num(5);
        options.set_max_log_file_size(16 << 20);
        options.enable_statistics();
        options.set_statistics_level(StatsLevel::ExceptDetailedTimers);
        let cache = Cache::new_lru_cache(store.block_cache_bytes);
        let families = families
            .iter()
            .map(|family| ColumnFamilyDescriptor::new(family.name(), family.options(store, &cache)));
        let db = DB::open_cf_descriptors(&options, path, families)
            .map_err(|error| StoreError::from_rocks(path, &error))?;
        Ok(Self {
            db,
            options,
            path: path.to_path_buf(),
        })
    }

    pub(super) fn family(&self, family: Family) -> &ColumnFamily {
        #[expect(
            clippy::expect_used,
            reason = "open creates every family, and none is ever dropped"
        )]
        self.db.cf_handle(family.name()).expect("a family of ours")
    }

    pub(super) fn db(&self) -> &DB {
        &self.db
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn error(&self, error: &rocksdb::Error) -> StoreError {
        StoreError::from_rocks(&self.path, error)
    }

    pub(super) fn corrupt(&self, what: impl Into<String>) -> StoreError {
        StoreError::corrupt(&self.path, what)
    }

    pub(super) fn get(
        &self,
        family: Family,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<DBPinnableSlice<'_>>, StoreError> {
        self.db
            .get_pinned_cf(self.family(family), key)
            .map_err(|error| self.error(&error))
    }

    /// One synced write outside the committer's groups: at open, and to try a full disk.
    pub(super) fn put_synced(&self, family: Family, key: &[u8], value: &[u8]) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(family), key, value);
        self.db.write_opt(batch, &write_options(true))
    }

    /// Writes out all memtables, so that nothing depends on the log any more.
    pub(super) fn flush_all(&self) -> Result<(), rocksdb::Error> {
        let families = ALL.map(|family| self.family(family));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        for family in families {
            self.db.flush_cf_opt(family, &options)?;
        }
        Ok(())
    }

    /// Begins to write out a family's memtable and does not wait for it. Whatever keeps it from beginning, the next write
    /// is told as well.
    pub(super) fn begin_flush(&self, family: Family) {
        let mut options = FlushOptions::default();
        options.set_wait(false);
        if let Err(error) = self.db.flush_cf_opt(self.family(family), &options) {
            tracing::debug!(%error, "a memtable stays until it is full");
        }
    }

    /// Nothing waits to be written out, and so few tables wait to be merged that one more holds no writer up.
    pub(super) fn is_calm(&self, family: Family) -> bool {
        const FEW_TABLES: u64 = 12;
        let tables = self
            .db
            .property_value_cf(self.family(family), "rocksdb.num-files-at-level0");
        let tables = tables.ok().flatten().and_then(|value| value.parse().ok());
        self.property(family, "rocksdb.num-immutable-mem-table") == 0
            && tables.is_none_or(|tables: u64| tables < FEW_TABLES)
    }

    /// Memory of the memtable that takes pages now.
    pub(super) fn page_memtable_bytes(&self) -> u64 {
        self.property(Family::Page, "rocksdb.cur-size-active-mem-table")
    }

    /// Memory of all memtables.
    pub(super) fn memtable_bytes(&self) -> u64 {
        self.sum("rocksdb.cur-size-all-mem-tables")
    }

    /// A number RocksDB keeps of each family, over all of them.
    pub(super) fn sum(&self, name: &str) -> u64 {
        ALL.iter().map(|family| self.property(*family, name)).sum()
    }

    /// A total since the database was opened.
    pub(super) fn ticker(&self, ticker: Ticker) -> u64 {
        self.options.get_ticker_count(ticker)
    }

    pub(super) fn histogram(&self, histogram: Histogram) -> HistogramData {
        self.options.get_histogram_data(histogram)
    }

    /// A number RocksDB keeps of a family, 0 when it does not tell.
    pub(super) fn property(&self, family: Family, name: &str) -> u64 {
        self.db
            .property_int_value_cf(self.family(family), name)
            .ok()
            .flatten()
            .unwrap_or(0)
    }
}

pub(super) fn write_options(sync: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(sync);
    options.set_memtable_insert_hint_per_batch(true);
    options
}

/// The default family of a database, opened without writing a byte, not even RocksDB's own log.
pub(super) fn open_to_look(path: &Path) -> Result<DB, StoreError> {
    let mut options = Options::default();
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Error, |_, _| {}));
    // Also because it was written with it: without, RocksDB 11.8 would note in the manifest that the logs are not tracked any
    // more, which a reader cannot, and crashes.
    options.set_track_and_verify_wals_in_manifest(true);
    let family = [Family::Default.name()];
    DB::open_cf_for_read_only(&options, path, family, false)
        .map_err(|error| StoreError::from_rocks(path, &error))
}

/// How many families this version's databases have.
pub(super) fn family_count() -> usize {
    ALL.len()
}

/// Whether this version knows the family; a store of a later format may have more.
pub(super) fn is_known_family(name: &str) -> bool {
    ALL.iter().any(|family| family.name() == name)
}
