//! One queue in the running broker: its state behind a lock, and what must happen whenever the state changes.
//!
//! Lock order: topology, then queues ascending by id, then a channel's ledger, then an outbox. The store's log is
//! appended to under the queue's lock, so that operations stand in the log in the queue's own order.

use std::{
    cmp::Ordering as Order,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::broker::{
    definition::{Name, QueueDefinition},
    ids::{QueueId, Seq},
    queue::{
        ConsumerId, Entry, PagedIn, Place, Purged, QueueState, ReadFrom, Recovered, Removed, arguments,
        settings::QueueSettings,
    },
};
use crate::server::{consumer_port::ConsumerPort, registry::Vhost, relay::Relay};
use crate::storage::{Loaded, Op, ReadRequest, Store, Target};

/// How much one read asks the store for.
const READ_BYTES: usize = 1024 * 1024;

/// Which connection an exclusive queue belongs to.
pub(super) type ConnectionId = u64;

/// What a queue reaches beyond itself.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) store: Store,
    /// Takes its dead letters.
    pub(super) relay: Arc<Relay>,
    /// Where they are routed; gone when the broker stops.
    pub(super) vhost: Weak<Vhost>,
}

pub(super) struct QueueCell {
    pub(super) definition: QueueDefinition,
    /// An exclusive queue's owner.
    pub(super) owner: Option<ConnectionId>,
    state: Mutex<QueueState<ConsumerPort>>,
    around: Surroundings,
    /// Highest place known to be on disk; read by the state when it pages.
    committed: AtomicU64,
    /// Commits matter to the state now.
    paged: AtomicBool,
    /// Wakes basic.get calls that wait for a read.
    pub(super) loaded: Notify,
    this: Weak<Self>,
}

/// A queue as routing and ledgers hold it; ordered by id, which is the order of locking.
#[derive(Clone)]
pub(super) struct QueueHandle(pub(super) Arc<QueueCell>);

impl std::ops::Deref for QueueHandle {
    type Target = QueueCell;

    fn deref(&self) -> &QueueCell {
        &self.0
    }
}

impl PartialEq for QueueHandle {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for QueueHandle {}

impl PartialOrd for QueueHandle {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for QueueHandle {
    fn cmp(&self, other: &Self) -> Order {
        self.id().cmp(&other.id())
    }
}

/// The state with the lock held; every change ends with [`QueueGuard::dispatch`].
pub(super) struct QueueGuard<'a> {
    cell: &'a QueueCell,
    pub(super) state: MutexGuard<'a, QueueState<ConsumerPort>>,
}

impl QueueCell {
    pub(super) fn declared(
        definition: QueueDefinition,
        owner: Option<ConnectionId>,
        around: Surroundings,
    ) -> QueueHandle {
        let mut state = QueueState::new(definition.id, definition.durable);
        state.set_max_priority(arguments::max_priority(&definition.arguments));
        Self::with_state(definition, owner, around, state)
    }

    /// A queue that the store kept.
    pub(super) fn recovered(
        definition: QueueDefinition,
        around: Surroundings,
        row: &Recovered,
    ) -> QueueHandle {
        let mut state = QueueState::recovered(definition.id, row);
        state.set_max_priority(arguments::max_priority(&definition.arguments));
        Self::with_state(definition, None, around, state)
    }

    fn with_state(
        definition: QueueDefinition,
        owner: Option<ConnectionId>,
        around: Surroundings,
        mut state: QueueState<ConsumerPort>,
    ) -> QueueHandle {
        state.apply_settings(QueueSettings::new(&definition.arguments));
        QueueHandle(Arc::new_cyclic(|this| Self {
            definition,
            owner,
            committed: AtomicU64::new(0),
            paged: AtomicBool::new(state.is_paged()),
            state: Mutex::new(state),
            around,
            loaded: Notify::new(),
            this: Weak::clone(this),
        }))
    }

    pub(super) fn id(&self) -> QueueId {
        self.definition.id
    }

    pub(super) fn name(&self) -> &Name {
        &self.definition.name
    }

    pub(super) fn weak(&self) -> Weak<Self> {
        Weak::clone(&self.this)
    }

    /// Where it was declared; `None` while the broker stops.
    pub(super) fn vhost(&self) -> Option<Arc<Vhost>> {
        self.around.vhost.upgrade()
    }

    pub(super) fn lock(&self) -> QueueGuard<'_> {
        QueueGuard {
            cell: self,
            state: self.state.lock(),
        }
    }

    /// A consumer's connection has room again.
    pub(super) fn resume(&self) {
        let mut queue = self.lock();
        queue.state.resume();
        queue.dispatch();
    }

    /// The committer wrote the queue's messages up to `through`.
    pub(super) fn committed(&self, through: Seq) {
        self.committed.fetch_max(through.0, Ordering::Release);
        if self.paged.load(Ordering::Acquire) {
            self.lock().state.committed(through);
        }
    }

    /// A reader thread's answer.
    pub(super) fn loaded(&self, loaded: Loaded) {
        let mut queue = self.lock();
        queue.state.paged_in(PagedIn {
            lane: loaded.lane,
            from: loaded.from,
            entries: loaded.entries,
            next: loaded.next,
        });
        queue.dispatch();
        drop(queue);
        self.loaded.notify_waiters();
    }

    /// A read failed: only this queue suffers.
    pub(super) fn read_failed(&self) {
        self.lock().state.read_failed();
    }

    /// Asks the store for messages.
    pub(super) fn read(&self, read: ReadFrom) {
        if !read.pending {
            self.around.store.read(ReadRequest {
                queue: read.queue,
                lane: read.lane,
                from: read.from,
                until: read.until,
                max_bytes: READ_BYTES,
                settled: false,
            });
        }
    }

    /// Logs what a purge removed.
    pub(super) fn log_purged(&self, purged: &mut Purged) {
        let queue = self.id();
        let mut ops = self.acks(std::mem::take(&mut purged.removed));
        if !purged.ranges.is_empty() {
            ops.push(Op::Purge {
                queue,
                ranges: std::mem::take(&mut purged.ranges),
                count: purged.range_messages,
                bytes: purged.range_bytes,
            });
        }
        self.around.store.log(&mut ops);
    }
}

impl QueueCell {
    /// The operations that tell the store of messages gone.
    fn acks(&self, removed: Removed) -> Vec<Op> {
        let queue = self.id();
        removed
            .into_lanes()
            .map(|(lane, seqs)| Op::Ack { queue, lane, seqs })
            .collect()
    }
}

impl QueueGuard<'_> {
    /// The operations that tell the store of messages gone.
    pub(super) fn acks(&self, removed: Removed) -> impl Iterator<Item = Op> {
        let queue = self.cell.id();
        removed
            .into_lanes()
            .map(move |(lane, seqs)| Op::Ack { queue, lane, seqs })
    }

    /// Where the store shall keep a message that took this place.
    pub(super) fn target(&self, place: Place) -> Target {
        Target {
            queue: self.cell.id(),
            lane: place.lane,
            seq: place.seq,
        }
    }

    /// Hands out what can be handed out and logs what left the queue by that.
    pub(super) fn dispatch(&mut self) {
        let mut removed = Removed::new();
        let read = self.state.dispatch(&mut removed);
        self.log_removed(removed);
        self.relay_dead_letters();
        if let Some(through) = self.state.take_delivered() {
            // What was handed out is flagged as redelivered after a crash; the row takes it along with its next write.
            self.cell.around.store.log(&mut vec![Op::Delivered {
                queue: self.cell.id(),
                through,
            }]);
        }
        if let Some(read) = read {
            self.cell.read(read);
        }
        let paged = self.state.is_paged();
        if paged != self.cell.paged.swap(paged, Ordering::AcqRel) && paged {
            // Commits before this moment were only noted.
            let through = Seq(self.cell.committed.load(Ordering::Acquire));
            self.state.committed(through);
        }
    }

    /// Hands over what died. Whatever changed the state has logged what it stored by now.
    fn relay_dead_letters(&mut self) {
        if let Some(dead) = self.state.take_dead_letters()
            && let Some(cell) = self.cell.this.upgrade()
        {
            self.cell.around.relay.push(&QueueHandle(cell), dead);
        }
    }

    /// Logs stored messages as gone.
    pub(super) fn log_removed(&self, removed: Removed) {
        if !removed.is_empty() {
            self.cell.around.store.log(&mut self.cell.acks(removed));
        }
    }

    /// Settles a delivery for good, unconsumed.
    pub(super) fn reject(&mut self, consumer: Option<ConsumerId>, entry: Entry) {
        let mut removed = Removed::new();
        self.state.reject(consumer, entry, &mut removed);
        self.log_removed(removed);
    }

    /// Settles deliveries for good.
    pub(super) fn ack(&mut self, settled: &mut Vec<(Option<ConsumerId>, Entry)>) {
        let mut removed = Removed::new();
        for (consumer, entry) in settled.drain(..) {
            if self.state.ack(consumer, entry.stored, entry.message.body_len()) {
                removed.push(entry.place());
            }
        }
        self.log_removed(removed);
    }
}
