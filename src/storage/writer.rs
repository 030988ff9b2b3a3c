//! The committer: one thread that takes what was logged, builds a group, writes it, and tells whoever waited. While one
//! group syncs the next fills: that is the group commit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rocksdb::WriteBatch;

use crate::storage::{
    Op, Shared, StoreError, StoreEvents, StoreFailure,
    bodies::{self, AheadBody},
    disk::Disk,
    group::Group,
    keys,
    memtable::Memtable,
    oplog::{Ending, Enough},
    reclaim,
    rocks::{Family, Rocks},
    stats::{GROUP_SIZE_BOUNDS, GROUP_TIME_BOUNDS, add, add_time, nanos},
};

/// With so many bytes waiting a group is worth its sync at once.
const LINGER_BYTES: usize = 256 * 1024;
/// When nobody waits, groups keep this multiple of the commit interval apart.
const UNHURRIED: u32 = 4;

pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) rocks: Arc<Rocks>,
    pub(super) events: Arc<dyn StoreEvents>,
    pub(super) disk: Disk,
    pub(super) group: Group,
    /// Taken from the log and not yet in a group.
    taken: VecDeque<Op>,
    taken_bytes: usize,
    started_at: Instant,
    ended_at: Instant,
    /// So many waiting parties are likely to come back soon: who was just released, and who already waits.
    expected: usize,
    failed: bool,
    memtable: Memtable,
    deleted_bytes: u64,
    reclaim: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn new(
        shared: Arc<Shared>,
        rocks: Arc<Rocks>,
        events: Arc<dyn StoreEvents>,
        disk: Disk,
        group: Group,
    ) -> Self {
        let now = Instant::now();
        let memtable = Memtable::new(rocks.clone(), shared.options.page_live_bytes);
        Self {
            shared,
            rocks,
            events,
            disk,
            group,
            taken: VecDeque::new(),
            taken_bytes: 0,
            started_at: now,
            ended_at: now,
            expected: 0,
            failed: false,
            memtable,
            deleted_bytes: 0,
            reclaim: None,
        }
    }

    /// Runs until the log ends.
    pub(super) fn run(mut self) {
        let ending = loop {
            if let Some(ending) = self.collect() {
                break ending;
            }
            if self.failed {
                self.refuse();
            } else if !self.taken.is_empty()
                && let Err(stop) = self.commit()
            {
                match stop {
                    Stop::Failed(error) => self.fail(error),
                    #[cfg(test)]
                    Stop::Abandoned => break Ending::Abandon,
                }
            }
            if !self.failed
                && let Err(error) = self.disk.tend(self.shared.options.unsynced_max)
            {
                self.fail(error);
            }
            self.reclaim_if_calm();
        };
        self.shared.progress.set_stalled(true);
        if let Some(reclaim) = self.reclaim.take()
            && reclaim.join().is_err()
        {
            tracing::error!("the thread that reclaims disk space panicked");
        }
        if ending == Ending::Drain
            && !self.failed
            && let Err(error) = self.disk.finish()
        {
            self.fail(error);
        }
    }

    /// Waits until a group is worth building and takes the log. Says when it is time to end.
    fn collect(&mut self) -> Option<Ending> {
        let log = &self.shared.log;
        if !self.taken.is_empty() {
            return log.ending().filter(|ending| *ending == Ending::Abandon);
        }
        let any = Enough { bytes: 1, waiters: 1 };
        let tend_at = if self.failed {
            None
        } else {
            let tend_at = self.disk.next_tend(self.shared.options.unsynced_max);
            tend_at.into_iter().chain(self.reclaims_at()).min()
        };
        let mut backlog = log.wait(any, tend_at);
        let interval = self.shared.options.commit_interval;
        while !backlog.is_empty && backlog.ending.is_none() {
            let (waiters, until) = if backlog.waiters == 0 {
                (1, self.started_at + interval * UNHURRIED)
            } else {
                (
                    self.expected.max(1),
                    (self.started_at + interval).max(self.ended_at + interval / 2),
                )
            };
            if backlog.bytes >= LINGER_BYTES || backlog.waiters >= waiters || Instant::now() >= until {
                break;
            }
            backlog = log.wait(
                Enough {
                    bytes: LINGER_BYTES,
                    waiters,
                },
                Some(until),
            );
        }
        match backlog.ending {
            Some(Ending::Abandon) => return Some(Ending::Abandon),
            Some(Ending::Drain) if backlog.is_empty => return Some(Ending::Drain),
            _ => {}
        }
        self.taken_bytes = log.take(&mut self.taken);
        None
    }

    /// One group, from ops to confirms.
    fn commit(&mut self) -> Result<(), Stop> {
        self.started_at = Instant::now();
        // Held apart, so that the steps below may borrow the committer.
        let shared = self.shared.clone();
        let counters = &shared.counters;
        {
            let mut ledger = self.shared.ledger.lock();
            let max = self.shared.options.group_max_bytes;
            self.group
                .build(&mut self.taken, max, self.taken_bytes, &mut ledger, &self.rocks)?;
        }
        let counts = self.group.counts;
        self.taken_bytes = self.taken_bytes.saturating_sub(counts.op_bytes);
        let built_at = Instant::now();
        add_time(&counters.build_nanos, built_at - self.started_at);
        self.step(Step::Built)?;

        self.write_ahead()?;
        let batch = std::mem::take(&mut self.group.batch);
        let mut batch_bytes = 0;
        if !batch.is_empty() {
            let bytes = batch.size_in_bytes();
            add(&counters.bytes, bytes as u64);
            self.write(batch, self.group.sync)?;
            batch_bytes = bytes;
        } else if self.group.waiting.has_dones() {
            // A barrier: what was written before it has to be durable, and this group has nothing of its own.
            self.write(WriteBatch::default(), true)?;
        }
        let written_at = Instant::now();
        add_time(&counters.write_nanos, written_at - built_at);
        add(&counters.syncs, u64::from(self.group.sync));
        self.step(Step::Written)?;

        // Counted before anybody is told, so that who was told finds it counted.
        add(&counters.groups, 1);
        add(&counters.ops, counts.ops);
        counters.group_sizes.add(&GROUP_SIZE_BOUNDS, counts.ops);
        add(&counters.messages, counts.messages);
        add(&counters.holes, counts.holes);
        // Before anybody is told: who comes back at once must not be counted twice.
        let next = shared.log.waiters();
        self.expected = self.group.waiting.len() + next;
        if !self.group.committed.is_empty() {
            self.events.committed(&self.group.committed);
        }
        add(&counters.confirms, self.group.waiting.confirms());
        self.group.waiting.stored(next == 0);
        shared.progress.advance(counts.ops);
        self.group.clear();
        shared.log.release(counts.op_bytes);
        self.ended_at = Instant::now();
        add_time(&counters.release_nanos, self.ended_at - written_at);
        counters
            .group_times
            .add(&GROUP_TIME_BOUNDS, nanos(self.ended_at - self.started_at));
        self.memtable.wrote(batch_bytes, counts.erased_bytes);
        self.reclaim_if_worth(counts.deleted_bytes);
        self.step(Step::Released)
    }

    /// Ids of bodies before their pieces, pieces before the group that refers to them. Unsynced: the log is sequential,
    /// so the group's sync covers them.
    fn write_ahead(&mut self) -> Result<(), Stop> {
        if let Some(until) = self.group.bodies.reserve() {
            let mut batch = WriteBatch::default();
            batch.put_cf(
                self.rocks.family(Family::Meta),
                keys::NEXT_BODY_ID,
                until.to_le_bytes(),
            );
            self.write(batch, false)?;
        }
        for AheadBody { id, body } in std::mem::take(&mut self.group.ahead) {
            bodies::each_piece(&body.chunks, |piece, bytes| {
                let mut batch = WriteBatch::with_capacity_bytes(bytes.len() + 64);
                batch.put_cf(
                    self.rocks.family(Family::Body),
                    keys::body_piece(id, piece),
                    bytes,
                );
                self.write(batch, false)?;
                self.step(Step::PieceWritten)
            })?;
        }
        Ok(())
    }

    fn write(&mut self, batch: WriteBatch, sync: bool) -> Result<(), StoreError> {
        let shared = &self.shared;
        let keep_waiting = |time: Duration| {
            // Readers must not wait for a full disk.
            shared.progress.set_stalled(true);
            shared.log.sleep(time)
        };
        let before = Instant::now();
        self.disk.write(batch, sync, &*self.events, &keep_waiting)?;
        shared.progress.set_stalled(false);
        let took = before.elapsed();
        if took > Duration::from_secs(1) {
            add(&shared.counters.slow_writes, 1);
            let stopped = self.rocks.property(Family::Page, "rocksdb.is-write-stopped");
            let delayed = self
                .rocks
                .property(Family::Page, "rocksdb.actual-delayed-write-rate");
            tracing::warn!(
                ?took,
                stopped,
                delayed,
                "a write to the store was slow: something else keeps the disk busy, or it is too slow (iostat -x)"
            );
        }
        Ok(())
    }

    /// The disk failed: says so once, and no confirm follows any more.
    fn fail(&mut self, error: StoreError) {
        tracing::error!(%error, "the store failed: nothing more will be confirmed");
        self.failed = true;
        self.shared.progress.set_stalled(true);
        self.group.waiting.failed(StoreFailure::Failed);
        self.group.clear();
        self.shared.log.release(self.group.counts.op_bytes);
        self.events.failed(error);
        self.refuse();
    }

    /// After a failure: ops are dropped, and those who wait are told.
    fn refuse(&mut self) {
        let mut bytes = 0;
        for op in self.taken.drain(..) {
            bytes += op.pending_bytes();
            op.refuse(StoreFailure::Failed);
        }
        self.taken_bytes = 0;
        self.shared.log.release(bytes);
    }

    fn reclaim_if_worth(&mut self, deleted: u64) {
        self.deleted_bytes += deleted;
        if self.deleted_bytes >= self.shared.options.reclaim_min_bytes
            && !self.is_reclaiming()
            && self.deleted_bytes >= reclaim::family_bytes(&self.rocks) / 2
        {
            self.reclaim();
        }
    }

    /// When what was deleted is given back though it is not much, unless something is logged before: a drained queue should
    /// not keep its disk until others have deleted enough.
    fn reclaims_at(&self) -> Option<Instant> {
        let options = &self.shared.options;
        let much = self.deleted_bytes >= options.reclaim_calm_bytes && !self.failed;
        much.then(|| self.ended_at + options.reclaim_calm)
    }

    fn reclaim_if_calm(&mut self) {
        let now = Instant::now();
        if self.reclaims_at().is_none_or(|at| now < at) {
            return;
        }
        // What stands in the tables themselves is written anew by it.
        if self.is_reclaiming() || self.deleted_bytes < reclaim::table_bytes(&self.rocks) / 4 {
            self.ended_at = now;
        } else {
            self.reclaim();
        }
    }

    fn is_reclaiming(&self) -> bool {
        self.reclaim
            .as_ref()
            .is_some_and(|running| !running.is_finished())
    }

    fn reclaim(&mut self) {
        self.deleted_bytes = 0;
        self.reclaim = reclaim::spawn(self.rocks.clone(), self.shared.clone());
    }

    /// Where tests may stop the committer as if the process had been killed.
    #[cfg(test)]
    fn step(&self, step: Step) -> Result<(), Stop> {
        match &self.shared.options.on_step {
            Some(hook) if !hook(step) => Err(Stop::Abandoned),
            _ => Ok(()),
        }
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the shape the tests' version has"
    )]
    fn step(&self, _step: Step) -> Result<(), Stop> {
        Ok(())
    }
}

/// Why a group was not finished.
enum Stop {
    Failed(StoreError),
    #[cfg(test)]
    Abandoned,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// The moments of a commit between which a crash makes a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The batch is built, nothing written.
    Built,
    /// One piece of a large body is written.
    PieceWritten,
    /// The batch is written, nobody was told.
    Written,
    /// Everybody was told.
    Released,
}
