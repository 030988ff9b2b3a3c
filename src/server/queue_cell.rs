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
    policy::EffectivePolicy,
    queue::{ConsumerId, Entry, PagedIn, Purged, QueueState, ReadFrom, Recovered, Removed},
};
use crate::server::consumer_port::ConsumerPort;
use crate::storage::{Loaded, Op, ReadRequest, Store};

/// How much one read asks the store for.
const READ_BYTES: usize = 1024 * 1024;

/// Which connection an exclusive queue belongs to.
pub(super) type ConnectionId = u64;

pub(super) struct QueueCell {
    pub(super) definition: QueueDefinition,
    /// An exclusive queue's owner.
    pub(super) owner: Option<ConnectionId>,
    state: Mutex<QueueState<ConsumerPort>>,
    store: Store,
    /// What policies say about it, for the settings and for whoever looks.
    policy: Mutex<Option<Arc<EffectivePolicy>>>,
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
        store: Store,
    ) -> QueueHandle {
        let state = QueueState::new(definition.id, definition.durable);
        Self::with_state(definition, owner, store, state)
    }

    /// A queue that the store kept.
    pub(super) fn recovered(definition: QueueDefinition, store: Store, row: &Recovered) -> QueueHandle {
        let state = QueueState::recovered(definition.id, row);
        Self::with_state(definition, None, store, state)
    }

    fn with_state(
        definition: QueueDefinition,
        owner: Option<ConnectionId>,
        store: Store,
        state: QueueState<ConsumerPort>,
    ) -> QueueHandle {
        QueueHandle(Arc::new_cyclic(|this| Self {
            definition,
            owner,
            committed: AtomicU64::new(0),
            paged: AtomicBool::new(state.is_paged()),
            state: Mutex::new(state),
            store,
            policy: Mutex::default(),
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

    pub(super) fn lock(&self) -> QueueGuard<'_> {
        QueueGuard {
            cell: self,
            state: self.state.lock(),
        }
    }

    /// The policies that apply to this queue are these now.
    pub(super) fn apply_policy(&self, policy: Option<&Arc<EffectivePolicy>>) {
        *self.policy.lock() = policy.cloned();
    }

    /// What policies say about this queue.
    pub(super) fn policy(&self) -> Option<Arc<EffectivePolicy>> {
        self.policy.lock().clone()
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
            self.store.read(ReadRequest {
                queue: read.queue,
                lane: 0,
                from: read.from,
                until: read.until,
                max_bytes: READ_BYTES,
                settled: false,
            });
        }
    }

    /// Logs what a purge removed.
    pub(super) fn log_purged(&self, purged: &mut Purged) {
        let (queue, lane) = (self.id(), 0);
        let mut ops = Vec::new();
        if !purged.removed.is_empty() {
            ops.push(Op::Ack {
                queue,
                lane,
                seqs: std::mem::take(&mut purged.removed),
            });
        }
        if let Some((from, until, count, bytes)) = purged.range.take() {
            ops.push(Op::Purge {
                queue,
                lane,
                from,
                until,
                count,
                bytes,
            });
        }
        self.store.log(&mut ops);
    }
}

impl QueueGuard<'_> {
    /// Hands out what can be handed out and logs what left the queue by that.
    pub(super) fn dispatch(&mut self) {
        let mut removed = Removed::new();
        let read = self.state.dispatch(&mut removed);
        self.log_removed(removed);
        if let Some(through) = self.state.take_delivered() {
            // What was handed out is flagged as redelivered after a crash; the row takes it along with its next write.
            self.cell.store.log(&mut vec![Op::Delivered {
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

    /// Logs stored messages as gone.
    pub(super) fn log_removed(&self, seqs: Removed) {
        if !seqs.is_empty() {
            let queue = self.cell.id();
            self.cell.store.log(&mut vec![Op::Ack { queue, lane: 0, seqs }]);
        }
    }

    /// Settles deliveries for good.
    pub(super) fn ack(&mut self, settled: &mut Vec<(Option<ConsumerId>, Entry)>) {
        let mut removed = Removed::new();
        for (consumer, entry) in settled.drain(..) {
            if self.state.ack(consumer, entry.stored, entry.message.body_len()) {
                removed.push(entry.seq);
            }
        }
        self.log_removed(removed);
    }
}
