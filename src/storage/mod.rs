//! What survives a restart. The broker logs operations; one committer thread packs them into groups, one
//! RocksDB batch and at most one sync each, and then releases the confirms. No sockets, no async runtime.
//!
//! The walk of a persistent message: `oplog` takes it, `writer` picks it up with all that waits, `group` keeps it and
//! applies acks, `pack` writes what is left into a `page` and the queue's `row`, `disk` syncs, `waiting` tells the
//! publisher. Back: `reader` fetches pages, `ledger` knows what is gone of them, `recovery` reads the rows.

mod admin_records;
mod backup;
mod bodies;
mod check;
mod codec;
mod disk;
mod error;
mod format;
mod group;
mod keys;
mod ledger;
mod lock;
mod log_room;
mod mark;
mod memtable;
mod oplog;
mod ops;
mod options;
mod pack;
mod page;
mod page_meta;
mod progress;
mod purge;
mod reader;
mod reclaim;
mod records;
mod recovering;
mod recovery;
mod returned;
mod rocks;
mod row;
mod salvage;
mod schedule;
mod spill;
mod stats;
mod torn;
mod waiting;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::broker::{
    ids::QueueId,
    message::Message,
    queue::{ScheduleRead, Turn},
};

pub use backup::{give_to_owner, restore};
pub use check::{CheckReport, check};
pub use error::{StoreError, StoreFailure};
pub use format::{Outlook, outlook};
pub use lock::holder;
pub use ops::{DefinitionKey, Done, Loaded, Op, ReadRequest, Recovered, RecoveredQueue, StoreEvents, Target};
pub use options::StoreOptions;
pub use salvage::{Loss, Salvaged, loss, salvage};
pub use stats::{Buckets, GROUP_SIZE_BOUNDS, GROUP_TIME_BOUNDS, StoreStats, SyncTimes};

use disk::Disk;
use group::Group;
use ledger::Ledger;
use lock::DirLock;
use oplog::{Ending, OpLog};
use progress::Progress;
use reader::ReadQueue;
use rocks::Rocks;
use stats::Counters;
use writer::Committer;

/// Queue ids are reserved in blocks of this many.
const QUEUE_ID_BLOCK: u64 = 1_000;

/// The durable store of one data directory. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    engine: Mutex<Engine>,
}

/// What the store's threads share with those who log.
struct Shared {
    options: StoreOptions,
    log: OpLog,
    progress: Progress,
    reads: ReadQueue,
    ledger: Mutex<Ledger>,
    queue_ids: Mutex<QueueIds>,
    counters: Counters,
}

/// The next queue id, and the end of the reserved block.
struct QueueIds {
    next: u64,
    reserved_until: u64,
}

/// What is opened once and closed once.
#[derive(Default)]
struct Engine {
    rocks: Option<Arc<Rocks>>,
    lock: Option<DirLock>,
    /// Until `start`.
    parts: Option<(Disk, Group)>,
    threads: Vec<JoinHandle<()>>,
}

impl Store {
    /// Opens or creates the store and reads the definitions and one row per queue. Nothing is written for the broker
    /// before [`Store::start`].
    ///
    /// # Errors
    /// When another process holds the directory, it cannot be written, or what is in it is damaged, cut short or of
    /// another format; the error names the file or directory.
    pub fn open(options: StoreOptions) -> Result<(Self, Recovered), StoreError> {
        let mut opened = recovery::open(&options)?;
        let mut orphans = recovery::take_orphans(&mut opened.recovered);
        let disk = Disk::new(opened.rocks.clone(), opened.mark)?;
        let next = opened.next_queue_id;
        let shared = Shared {
            options,
            log: OpLog::default(),
            progress: Progress::default(),
            reads: ReadQueue::default(),
            ledger: Mutex::new(opened.ledger),
            queue_ids: Mutex::new(QueueIds {
                next,
                reserved_until: next,
            }),
            counters: Counters::default(),
        };
        shared.log.log(&mut orphans);
        let engine = Engine {
            rocks: Some(opened.rocks),
            lock: Some(opened.lock),
            parts: Some((disk, Group::new(opened.bodies))),
            threads: Vec::new(),
        };
        let inner = Inner {
            shared: Arc::new(shared),
            engine: Mutex::new(engine),
        };
        Ok((
            Self {
                inner: Arc::new(inner),
            },
            opened.recovered,
        ))
    }

    /// Starts the committer and the readers. Once; ops logged before wait for it.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(&self, events: Arc<dyn StoreEvents>) -> Result<(), StoreError> {
        let mut engine = self.inner.engine.lock();
        let (Some((disk, group)), Some(rocks)) = (engine.parts.take(), engine.rocks.clone()) else {
            return Ok(());
        };
        let shared = &self.inner.shared;
        let committer = Committer::new(shared.clone(), rocks.clone(), events.clone(), disk, group);
        engine
            .threads
            .push(self.spawn("store-commit", move || committer.run())?);
        for _ in 0..shared.options.reader_threads.max(1) {
            let (shared, rocks, events) = (shared.clone(), rocks.clone(), events.clone());
            engine
                .threads
                .push(self.spawn("store-read", move || reader::run(&shared, &rocks, &events))?);
        }
        Ok(())
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|error| StoreError::from_io(&self.inner.shared.options.data_dir, error))
    }

    /// Appends the ops, in order and together, and leaves the vec empty. One short lock, never I/O: made to be
    /// called under a queue's lock.
    pub fn log(&self, ops: &mut Vec<Op>) {
        self.inner.shared.log.log(ops);
    }

    /// Asks for messages of a queue; the answer comes by [`StoreEvents::loaded`] or `read_failed`. It shows everything
    /// logged before this call.
    pub fn read(&self, request: ReadRequest) {
        let shared = &self.inner.shared;
        shared
            .reads
            .push(reader::Request::Pages(request), shared.log.hurry());
    }

    /// Asks for what is due next in a holding queue; the answer comes by [`StoreEvents::schedule_loaded`] or
    /// `read_failed`. It shows everything logged before this call.
    pub fn read_schedule(&self, request: ScheduleRead) {
        let shared = &self.inner.shared;
        shared
            .reads
            .push(reader::Request::Schedule(request), shared.log.hurry());
    }

    /// At most so many waiting messages of a holding queue from a turn on, as the disk has them now. Waits for the disk.
    ///
    /// # Errors
    /// When a message is damaged, the disk fails or the store is closed.
    pub fn scheduled_page(
        &self,
        queue: QueueId,
        from: Turn,
        at_most: usize,
    ) -> Result<Vec<(Turn, Message)>, StoreError> {
        match self.inner.engine.lock().rocks.clone() {
            Some(rocks) => schedule::page(queue, from, at_most, &rocks),
            None => Ok(Vec::new()),
        }
    }

    /// As [`Store::read`], on the calling thread, which may wait for the disk: for whoever looks and does not take.
    ///
    /// # Errors
    /// When the store is closed, or what is read is damaged.
    pub fn look(&self, request: &ReadRequest) -> Result<Loaded, StoreError> {
        let rocks = self.inner.engine.lock().rocks.clone();
        let rocks = rocks.ok_or_else(|| StoreError::Io {
            path: self.inner.shared.options.data_dir.clone(),
            what: "the store is closed".to_owned(),
        })?;
        reader::read(request, &self.inner.shared, &rocks)
    }

    /// What a queue will have after a restart, as far as it is committed by now: messages, and the bytes of their bodies.
    pub fn kept(&self, queue: QueueId) -> (u64, u64) {
        let ledger = self.inner.shared.ledger.lock();
        let queue = ledger.queues.get(&queue);
        queue.map_or((0, 0), |queue| (queue.messages, queue.bytes))
    }

    /// Bytes of ops logged and not yet written, for backpressure.
    pub fn pending_bytes(&self) -> usize {
        self.inner.shared.log.pending_bytes()
    }

    /// A number no queue ever had. Never waits: the reservation is logged before any use of the number can be.
    pub fn next_queue_id(&self) -> QueueId {
        let shared = &self.inner.shared;
        let mut ids = shared.queue_ids.lock();
        if ids.next == ids.reserved_until {
            ids.reserved_until += QUEUE_ID_BLOCK;
            shared.log.log(&mut vec![Op::ReserveQueueIds {
                until: ids.reserved_until,
            }]);
        }
        ids.next += 1;
        QueueId(ids.next - 1)
    }

    /// Counters, and a few numbers of RocksDB.
    pub fn stats(&self) -> StoreStats {
        let mut stats = self.inner.shared.counters.snapshot();
        stats.pending_bytes = self.pending_bytes() as u64;
        if let Some(rocks) = self.inner.engine.lock().rocks.clone() {
            stats.read(&rocks);
        }
        stats
    }

    /// Copies the store, as it is at one moment, into a directory that does not exist yet; the store goes on meanwhile. The
    /// copy holds everything confirmed before the call and can be started like any data directory.
    ///
    /// # Errors
    /// When the directory exists or the disk fails.
    pub fn backup(&self, target: &std::path::Path) -> Result<(), StoreError> {
        let rocks = self.inner.engine.lock().rocks.clone();
        let rocks = rocks.ok_or_else(|| StoreError::Io {
            path: target.to_path_buf(),
            what: "the store is closed".to_owned(),
        })?;
        backup::take(&rocks, target)
    }

    /// Writes and syncs what was logged, stops the threads, closes the database and gives the directory back.
    /// Returns when that is done; a second call finds nothing to do. Not for the store's own threads.
    pub fn close(&self) {
        self.inner.end(Ending::Drain);
    }

    /// Stops as if the process had been killed: what was logged and not written is lost.
    #[cfg(test)]
    fn abandon(&self) {
        self.inner.end(Ending::Abandon);
    }
}

impl Inner {
    fn end(&self, ending: Ending) {
        let mut engine = self.engine.lock();
        self.shared.log.end(ending);
        let mut threads = std::mem::take(&mut engine.threads).into_iter();
        let committer = threads.next();
        // Readers may wait for the committer, so it goes first.
        for (index, thread) in committer.into_iter().chain(threads).enumerate() {
            if thread.thread().id() == thread::current().id() {
                continue;
            }
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked; the next start recovers what was confirmed");
            }
            if index == 0 {
                self.shared.reads.end();
            }
        }
        self.shared.reads.end();
        engine.parts = None;
        engine.rocks = None;
        // Last: the next owner must find the database closed.
        engine.lock = None;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end(Ending::Drain);
    }
}
