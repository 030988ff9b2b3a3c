//! One queue in the running broker: its state behind a lock, and what must happen whenever the state changes.
//!
//! Lock order: topology, then queues ascending by id, then a channel's ledger, then an outbox. The store's log is
//! appended to under the queue's lock, so that operations stand in the log in the queue's own order.

use std::{
    cmp::Ordering as Order,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::broker::{
    definition::{Name, QueueDefinition},
    delay,
    ids::{QueueId, Timestamp},
    message::Message,
    policy::EffectivePolicy,
    queue::{
        ConsumerId, Delivery, Entry, Purged, QueueState, ReadFrom, Recovered, Removed, Return,
        arguments::{self, QueueKind},
        settings::QueueSettings,
        timeout::AckTimeout,
    },
};
use crate::protocol::properties::RawProperties;
use crate::server::{
    ack_timers::SharedAckTimeout,
    clock,
    consumer_port::ConsumerPort,
    holding,
    paging::READ_BYTES,
    registry::Vhost,
    relay::Relay,
    spans::Spans,
    stats::{Count, Counters},
    timers::Timers,
};
use crate::storage::{Op, Store, Target};

/// Messages whose time has come that leave a holding queue at once.
const DUE_MAX: usize = 1024;

/// Which connection an exclusive queue belongs to.
pub(super) type ConnectionId = u64;

/// What a queue reaches beyond itself.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) store: Store,
    /// Takes its dead letters.
    pub(super) relay: Arc<Relay>,
    /// Wakes it when something in it expires.
    pub(super) timers: Arc<Timers>,
    /// Where they are routed; gone when the broker stops.
    pub(super) vhost: Weak<Vhost>,
    /// Counts for the vhost; added to once per batch.
    pub(super) totals: Arc<Counters>,
    /// Records what enters, if spans are on.
    pub(super) spans: Option<Arc<Spans>>,
}

pub(super) struct QueueCell {
    pub(super) definition: QueueDefinition,
    /// An exclusive queue's owner.
    pub(super) owner: Option<ConnectionId>,
    state: Mutex<QueueState<ConsumerPort>>,
    pub(super) around: Surroundings,
    /// What policies say about it, for the settings and for whoever looks.
    policy: Mutex<Option<Arc<EffectivePolicy>>>,
    /// When the timer rings, in ms since 1970; 0 while it is not set. Changed under the state's lock.
    armed: AtomicU64,
    /// Highest place known to be on disk; read by the state when it pages.
    pub(super) committed: AtomicU64,
    /// How much one read asks the store for.
    pub(super) read_bytes: AtomicUsize,
    /// Commits matter to the state now.
    pub(super) paged: AtomicBool,
    /// Where its messages stand in the store that do not outlive the broker, once some did.
    pub(super) spilled: OnceLock<QueueId>,
    /// Wakes basic.get calls that wait for a read.
    pub(super) loaded: Notify,
    /// A read failed.
    pub(super) damaged: AtomicBool,
    /// How long its consumers may take; read with every hand-out.
    ack_timeout: SharedAckTimeout,
    /// What passed through it; written under its lock.
    pub(super) counters: Counters,
    /// What the counters amounted to when they were last sampled.
    pub(super) sampled: AtomicU64,
    this: Weak<Self>,
}

/// Messages of a queue, both at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lengths {
    pub ready: u64,
    pub unacked: u64,
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
    pub(super) cell: &'a QueueCell,
    pub(super) state: MutexGuard<'a, QueueState<ConsumerPort>>,
    now: Timestamp,
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
        if arguments::single_active(&definition.arguments) {
            state.set_single_active(QueueKind::of(&definition.arguments) == QueueKind::Quorum);
        }
        let settings = match holding::holds(&definition) {
            Some(holds) => QueueSettings::holding(holds),
            None => QueueSettings::new(&definition.arguments, None),
        };
        let ack_timeout = SharedAckTimeout::new(settings.ack_timeout);
        state.apply_settings(settings, clock::now());
        QueueHandle(Arc::new_cyclic(|this| Self {
            definition,
            owner,
            committed: AtomicU64::new(0),
            read_bytes: AtomicUsize::new(READ_BYTES),
            // The first change finds out, and tells the store.
            paged: AtomicBool::new(false),
            spilled: OnceLock::new(),
            state: Mutex::new(state),
            around,
            policy: Mutex::default(),
            armed: AtomicU64::new(0),
            loaded: Notify::new(),
            damaged: AtomicBool::new(false),
            ack_timeout,
            counters: Counters::default(),
            sampled: AtomicU64::new(0),
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
            now: Timestamp::NONE,
        }
    }

    /// Counts of its vhost.
    pub(super) fn totals(&self) -> &Counters {
        &self.around.totals
    }

    /// How many messages it holds.
    pub(super) fn lengths(&self) -> Lengths {
        let queue = self.lock();
        Lengths {
            ready: queue.state.ready_count(),
            unacked: queue.state.unacked_count(),
        }
    }

    /// The policies that apply to this queue are these now; limits take effect at once.
    pub(super) fn apply_policy(&self, policy: Option<&Arc<EffectivePolicy>>) {
        let settings = QueueSettings::new(&self.definition.arguments, policy.map(Arc::as_ref));
        *self.policy.lock() = policy.cloned();
        let mut queue = self.lock();
        self.ack_timeout.set(settings.ack_timeout);
        if *queue.state.settings() != settings {
            queue.state.apply_settings(settings, clock::now());
            queue.dispatch();
        }
    }

    /// How long its consumers may take to settle a delivery.
    #[inline]
    pub(super) fn ack_timeout(&self) -> AckTimeout {
        self.ack_timeout.get()
    }

    /// What policies say about this queue.
    pub(super) fn policy(&self) -> Option<Arc<EffectivePolicy>> {
        self.policy.lock().clone()
    }

    /// These consumers' connection has room again, or their channel gives leave.
    pub(super) fn resume(&self, consumers: &[ConsumerId]) {
        let mut queue = self.lock();
        for consumer in consumers {
            queue.state.resume(*consumer);
        }
        queue.dispatch();
    }

    /// The timer rang. True when the queue itself has been unused for too long.
    pub(super) fn due(&self) -> bool {
        let mut queue = self.lock();
        self.armed.store(0, Ordering::Release);
        queue.dispatch();
        let now = queue.now();
        queue.state.is_unused(now)
    }

    /// Takes a consumer away. True when an auto-delete queue should go. Once what the consumer holds went back, if it does,
    /// the queue wants a [`QueueGuard::dispatch`]: the next consumer must not get later messages before.
    pub(super) fn cancel(&self, consumer: ConsumerId) -> bool {
        let mut queue = self.lock();
        let unused = queue.state.cancel(consumer);
        if queue.state.is_timed() {
            let now = queue.now();
            queue.state.touch(now);
        }
        unused
    }

    /// Messages of it could not be read: nobody can consume from it.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// Drops all ready messages, and dead letters that wait for a target; gives how many that were.
    pub(super) fn purge(&self) -> u64 {
        let keeps_letters = self
            .lock()
            .state
            .settings()
            .dead_letter
            .as_ref()
            .is_some_and(|route| route.at_least_once);
        let letters = match self.this.upgrade() {
            Some(this) if keeps_letters => self.around.relay.forget(&QueueHandle(this)),
            _ => Vec::new(),
        };
        let mut queue = self.lock();
        let mut removed = Removed::new();
        for letter in &letters {
            queue.state.dead_letter_left(letter.message.body_len());
            if let Some(place) = letter.stored {
                removed.push(place);
            }
        }
        queue.log_removed(removed);
        let mut purged = queue.state.purge();
        self.log_purged(&mut purged);
        queue.dispatch();
        purged.messages + letters.len() as u64
    }

    /// Logs what a purge removed.
    fn log_purged(&self, purged: &mut Purged) {
        self.damaged.store(false, Ordering::Release);
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

    /// The time, asked for once while the lock is held, and only by queues for which it matters.
    fn now(&mut self) -> Timestamp {
        if !self.now.is_some() {
            self.now = clock::now();
        }
        self.now
    }

    /// Puts a message at the end; gives what the store must keep of it here.
    #[inline]
    pub(super) fn enqueue(&mut self, message: Message) -> Option<Target> {
        let stores = self.state.stores(&message);
        let expires_at = if self.state.keeps_for_ever(&message) {
            Timestamp::NONE
        } else {
            self.deadline(&message)
        };
        self.cell.counters.bump(Count::Publish, 1);
        let spans = self
            .cell
            .around
            .spans
            .as_ref()
            .map(|spans| (spans, message.clone()));
        let place = match self.state.settings().holds {
            None => self.state.enqueue(message, expires_at)?,
            Some(_) => self.state.schedule(message, expires_at)?,
        };
        if let Some((spans, message)) = spans {
            spans.enqueued(&message, self.cell, place.seq);
        }
        stores.then(|| Target {
            queue: self.cell.id(),
            lane: place.lane,
            seq: place.seq,
            expires_at,
        })
    }

    /// When a new message's time here ends.
    #[cold]
    fn deadline(&mut self, message: &Message) -> Timestamp {
        match (self.state.lifetime_ms(message), self.state.settings().holds) {
            (Some(ms), _) => self.now().after(ms),
            (None, Some(holds)) => {
                let now = self.now();
                delay::due(RawProperties::new(message.properties()), holds, now)
            }
            (None, None) => Timestamp::NONE,
        }
    }

    /// Hands out what can be handed out and logs what left the queue by that.
    pub(super) fn dispatch(&mut self) {
        let mut removed = Removed::new();
        let timed = self.state.is_timed();
        let now = if timed { self.now() } else { Timestamp::NONE };
        let read = self.state.dispatch(now, &mut removed);
        self.log_removed(removed);
        if timed {
            self.let_go();
        }
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
        if timed {
            self.read_and_arm();
        }
        self.note_paging();
    }

    /// Messages whose time has come leave a holding queue, as many as the relay takes.
    fn let_go(&mut self) {
        let now = self.now();
        let room = if self.cell.around.relay.is_behind() {
            0
        } else {
            DUE_MAX
        };
        if let Some(read) = self.state.let_go(now, room) {
            self.cell.around.store.read_schedule(read);
        }
    }

    /// Asks for what expiry needs to read, and to be woken when the next thing expires. A timer that rings early does no
    /// harm, so it is only ever set earlier.
    fn read_and_arm(&mut self) {
        for read in self.state.take_reads().unwrap_or_default() {
            self.cell.read(read);
        }
        let next = self.state.next_deadline();
        let armed = Timestamp(self.cell.armed.load(Ordering::Acquire));
        if next.is_some() && armed.earlier(next) != armed {
            self.cell.armed.store(next.0, Ordering::Release);
            self.cell.around.timers.set(self.cell.id(), armed, next);
        }
    }

    /// Somebody uses the queue or is about to take a message: what has expired leaves first, and the time the queue may be
    /// unused begins anew.
    pub(super) fn touch(&mut self) {
        if self.state.is_timed() {
            let now = self.now();
            self.state.touch(now);
            self.dispatch();
        }
    }

    /// basic.get: the oldest message that has not expired. `Err` when it must be read first.
    pub(super) fn get(&mut self, no_ack: bool) -> Result<Option<Delivery>, ReadFrom> {
        self.touch();
        let mut removed = Removed::new();
        let got = self.state.get(no_ack, &mut removed);
        self.log_removed(removed);
        got
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

    /// Takes a delivery back.
    pub(super) fn requeue(&mut self, consumer: Option<ConsumerId>, entry: Entry, why: Return) {
        if let Some(op) = self.take_back(consumer, entry, why) {
            self.cell.around.store.log(&mut vec![op]);
        }
    }

    /// Takes a delivery back; gives what the store must know of it, if anything, for the caller to log.
    #[must_use]
    pub(super) fn take_back(
        &mut self,
        consumer: Option<ConsumerId>,
        entry: Entry,
        why: Return,
    ) -> Option<Op> {
        let mut removed = Removed::new();
        let now = if self.state.settings().retry.is_some() {
            self.now()
        } else {
            Timestamp::NONE
        };
        let returned = self.state.requeue(consumer, entry, why, now, &mut removed);
        self.log_removed(removed);
        returned.map(|returned| Op::Returned {
            queue: self.cell.id(),
            returned,
        })
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
        let acked = settled.len() as u64;
        self.cell.counters.bump(Count::Ack, acked);
        self.cell.around.totals.add(Count::Ack, acked);
        let deduplicates = self.state.settings().deduplicates;
        for (consumer, entry) in settled.drain(..) {
            if deduplicates {
                self.state.forget(entry.seq);
            }
            if self.state.ack(consumer, entry.stored, entry.message.body_len()) {
                removed.push(entry.place());
            }
        }
        self.log_removed(removed);
    }
}
