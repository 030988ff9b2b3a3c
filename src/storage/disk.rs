//! The committer's hand on the disk: writes batches, knows what is synced, and waits out a full disk (storage-design B11).

use std::sync::Arc;
use std::time::{Duration, Instant};

use rocksdb::{WriteBatch, WriteOptions};

use crate::storage::{
    StoreError, StoreEvents,
    error::is_full,
    keys,
    log_room::LogRoom,
    mark::Mark,
    rocks::{Family, Rocks, write_options},
};

/// Below this much free space a batch is copied before it is written, to be written again when the disk was full.
const TIGHT_BYTES: u64 = 1 << 30;
const FREE_CHECK_EVERY: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How often RocksDB is asked whether its work in the background failed, and for how long behind the last write.
const BACKGROUND_EVERY: Duration = Duration::from_secs(1);
const BACKGROUND_FOR: Duration = Duration::from_secs(10);
const MARK_EVERY: Duration = Duration::from_secs(1);
const MARK_IDLE: Duration = Duration::from_millis(50);

pub(super) struct Disk {
    rocks: Arc<Rocks>,
    /// Counts batches, so that one can be recognised after a failed write.
    batch_number: u64,
    synced_write: WriteOptions,
    unsynced_write: WriteOptions,
    /// When the oldest write that nobody synced was done.
    unsynced_since: Option<Instant>,
    /// The last sequence known to be synced, and when that was learned.
    synced: (u64, Instant),
    mark: Mark,
    marked_at: Instant,
    /// The disk had no room for the mark: not before then.
    mark_not_before: Instant,
    /// Free space as last looked at, and when.
    free: (u64, Instant),
    room: LogRoom,
    /// How often RocksDB had failed in the background as last looked at, and when that was.
    failures: (u64, Instant),
    wrote_at: Instant,
}

impl Disk {
    pub(super) fn new(rocks: Arc<Rocks>, mark: Mark) -> Result<Self, StoreError> {
        let number = rocks.get(Family::Default, keys::BATCH)?;
        let batch_number = number
            .as_deref()
            .and_then(|value| value.try_into().ok())
            .map_or(0, u64::from_le_bytes);
        drop(number);
        let now = Instant::now();
        let free = free_bytes(&rocks);
        Ok(Self {
            batch_number,
            synced_write: write_options(true),
            unsynced_write: write_options(false),
            unsynced_since: None,
            synced: (mark.sequence(), now),
            mark,
            marked_at: now,
            mark_not_before: now,
            free: (free, now),
            room: LogRoom::new(rocks.path()),
            failures: (0, now),
            wrote_at: now,
            rocks,
        })
    }

    /// Writes the batch as a whole. A full disk is waited out, as long as `keep_waiting` says so.
    pub(super) fn write(
        &mut self,
        mut batch: WriteBatch,
        sync: bool,
        events: &dyn StoreEvents,
        keep_waiting: &dyn Fn(Duration) -> bool,
    ) -> Result<(), StoreError> {
        self.batch_number += 1;
        let number = self.batch_number.to_le_bytes();
        batch.put_cf(self.rocks.family(Family::Default), keys::BATCH, number);
        let bytes = batch.size_in_bytes();
        let copy = self.is_tight().then(|| batch.data().to_vec());
        let options = if sync {
            &self.synced_write
        } else {
            &self.unsynced_write
        };
        match (self.rocks.db().write_opt(batch, options), copy) {
            (Ok(()), _) => {}
            (Err(error), Some(copy)) if is_full(&error) => {
                tracing::error!(%error, "the disk is full: commits wait until there is room, 64 MiB at least");
                events.full(true);
                self.write_when_room(&copy, keep_waiting)?;
                events.full(false);
                tracing::info!("the disk has room again: commits go on");
            }
            (Err(error), _) => return Err(self.rocks.error(&error)),
        }
        self.room.wrote(bytes, sync);
        self.wrote_at = Instant::now();
        if sync {
            self.now_synced();
        } else {
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Tries a small write each second. Once one succeeds, all memtables are flushed, which starts a new log; then
    /// the batch's number tells whether the failed write was applied all the same.
    fn write_when_room(
        &mut self,
        batch: &[u8],
        keep_waiting: &dyn Fn(Duration) -> bool,
    ) -> Result<(), StoreError> {
        loop {
            if !keep_waiting(RETRY_EVERY) {
                return Err(StoreError::Full {
                    path: self.rocks.path().to_path_buf(),
                    what: "closed while the disk was full; what waited was not stored".to_owned(),
                });
            }
            match self.try_again(batch) {
                Ok(()) => return Ok(()),
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(self.rocks.error(&error)),
            }
        }
    }

    fn try_again(&self, batch: &[u8]) -> Result<(), rocksdb::Error> {
        self.rocks.put_synced(Family::Default, keys::PROBE, &[])?;
        self.rocks.flush_all()?;
        let stored = self
            .rocks
            .db()
            .get_pinned_cf(self.rocks.family(Family::Default), keys::BATCH)?;
        if stored.as_deref() == Some(self.batch_number.to_le_bytes().as_slice()) {
            return Ok(());
        }
        self.rocks
            .db()
            .write_opt(WriteBatch::from_data(batch), &self.synced_write)
    }

    /// Syncs what was written unsynced for at least `age`, and records from time to time how far the disk is.
    pub(super) fn tend(&mut self, age: Duration) -> Result<(), StoreError> {
        if self.unsynced_since.is_some_and(|since| since.elapsed() >= age) {
            self.sync()?;
        }
        if self.room.is_low() && !self.is_tight() {
            self.room.make();
        }
        if self.next_look().is_some_and(|due| Instant::now() >= due) {
            self.look_behind()?;
        }
        if self.next_mark().is_none_or(|due| Instant::now() < due) {
            return Ok(());
        }
        match self.mark.raise(self.synced.0) {
            Ok(()) => self.marked_at = Instant::now(),
            // An old mark is no harm, and the next batch will find the disk full as well.
            Err(StoreError::Full { .. }) => self.mark_not_before = Instant::now() + RETRY_EVERY,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// When [`Disk::tend`] has something to do next.
    pub(super) fn next_tend(&self, age: Duration) -> Option<Instant> {
        let sync = self.unsynced_since.map(|since| since + age);
        sync.into_iter()
            .chain(self.next_mark())
            .chain(self.next_look())
            .min()
    }

    /// A memtable that cannot be flushed or a table that cannot be compacted (fault F11): RocksDB tells only the next write,
    /// which may be long in coming, so it is tried. A full disk is left to that write, which waits for room.
    fn look_behind(&mut self) -> Result<(), StoreError> {
        let failures = self.rocks.sum("rocksdb.background-errors");
        let risen = failures > self.failures.0;
        self.failures = (failures, Instant::now());
        if !risen {
            return Ok(());
        }
        match self.rocks.put_synced(Family::Default, keys::PROBE, &[]) {
            Ok(()) => tracing::warn!(failures, "the store failed in the background and got over it"),
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "the disk is full: tables wait for room; free some");
            }
            Err(error) => return Err(self.rocks.error(&error)),
        }
        Ok(())
    }

    /// When RocksDB has to be asked next; never while nothing is written.
    fn next_look(&self) -> Option<Instant> {
        let looked_at = self.failures.1;
        (looked_at < self.wrote_at + BACKGROUND_FOR).then(|| looked_at + BACKGROUND_EVERY)
    }

    /// When the mark has to be raised: once a second under load, soon when idle.
    fn next_mark(&self) -> Option<Instant> {
        let (sequence, since) = self.synced;
        let due = (since + MARK_IDLE)
            .min(self.marked_at + MARK_EVERY)
            .max(self.mark_not_before);
        (sequence > self.mark.sequence()).then_some(due)
    }

    /// The last act: everything into table files, and the mark raised to the end.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        self.rocks.flush_all().map_err(|error| self.rocks.error(&error))?;
        self.mark.raise(self.synced.0)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.rocks
            .db()
            .flush_wal(true)
            .map_err(|error| self.rocks.error(&error))?;
        self.now_synced();
        Ok(())
    }

    fn now_synced(&mut self) {
        self.unsynced_since = None;
        self.synced = (self.rocks.db().latest_sequence_number(), Instant::now());
    }

    fn is_tight(&mut self) -> bool {
        if self.free.1.elapsed() >= FREE_CHECK_EVERY {
            self.free = (free_bytes(&self.rocks), Instant::now());
        }
        self.free.0 < TIGHT_BYTES
    }
}

/// Free bytes of the file system; 0, which means caution, when it does not tell.
fn free_bytes(rocks: &Rocks) -> u64 {
    rustix::fs::statvfs(rocks.path()).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}
