//! What a queue remembers and decides. No I/O, no clock, no task: the caller (server/queue_cell.rs) holds the
//! lock, writes the operations that a call asks for to the store's log, and answers reads.

pub mod arguments;
mod browse;
mod consumers;
pub mod dead_letter;
mod deduplication;
mod expiry;
mod fetching;
mod lanes;
mod limits;
mod paging;
mod port;
mod ready;
mod removed;
pub mod retry;
mod returns;
mod schedule;
pub mod settings;
pub mod timeout;
mod waiting;

use std::sync::Arc;

use smallvec::SmallVec;

use self::{
    arguments::QueueKind,
    consumers::Consumers,
    dead_letter::{DeadLetter, Reason},
    deduplication::Keys,
    expiry::Expiry,
    lanes::Lanes,
    returns::Returns,
    schedule::Schedule,
    settings::QueueSettings,
};
use crate::broker::{
    ids::{QueueId, Seq, Timestamp},
    message::Message,
};

pub(in crate::broker) use self::deduplication::KEY;
pub use self::{
    browse::{Glimpse, Withdrawn},
    consumers::{ConsumerId, ConsumerOptions},
    expiry::Deadlines,
    paging::{PagedIn, RESIDENT_BYTES, ReadFrom},
    port::Port,
    removed::Removed,
    returns::{Return, Returned, with_counts},
    schedule::{ScheduleLoaded, ScheduleRead, Turn},
};

/// What a delivery costs beside its body while it is not settled: its place in a ledger, and its names and properties.
const UNACKED_BYTES: u64 = 200;

/// A message in its place in one queue.
#[derive(Clone)]
pub struct Entry {
    pub seq: Seq,
    /// Its priority level, 0 in a queue without priorities.
    pub lane: u8,
    pub message: Message,
    /// It was handed out before and came back.
    pub redelivered: bool,
    /// The store keeps it: its removal must be logged.
    pub stored: bool,
    /// When its time here ends.
    pub expires_at: Timestamp,
    /// How often it was handed out and came back; counted only where it matters.
    pub acquired: u16,
    /// How many of these were failures.
    pub failed: u16,
}

impl Entry {
    pub fn place(&self) -> Place {
        Place {
            seq: self.seq,
            lane: self.lane,
        }
    }
}

/// Where a message stands in its queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    pub seq: Seq,
    pub lane: u8,
}

/// One message on its way to one consumer.
pub struct Delivery {
    pub entry: Entry,
    /// Ready messages left behind it; only `basic.get` tells its client.
    pub remaining: u64,
    /// Its port gave leave for it by [`Port::reserve`].
    pub reserved: bool,
}

impl Delivery {
    fn new(entry: Entry, remaining: u64) -> Self {
        Self {
            entry,
            remaining,
            reserved: false,
        }
    }
}

/// One queue.
pub struct QueueState<P> {
    id: QueueId,
    /// Declared durable and not exclusive: persistent messages go to the store.
    durable: bool,
    /// Beyond its memory: the store takes every new message until all are back in memory.
    spilling: bool,
    /// The store had no message that does not outlive the broker above this place.
    spilled: Seq,
    /// How often messages that had waited went to the store's log and are not known to be on disk, and the first of them.
    settling: (u32, Seq),
    settings: QueueSettings,
    /// The settings limit the length: that of the next message decides, or that of the queue after a hand-out.
    limited: bool,
    next_seq: Seq,
    lanes: Lanes,
    returns: Returns,
    /// Bodies of ready messages, wherever they are.
    ready_bytes: u64,
    /// Every stored message up to here is on disk.
    committed: Seq,
    unacked: u64,
    unacked_bytes: u64,
    /// Nothing more is handed out while what is handed out takes more memory than this.
    unacked_limit: u64,
    consumers: Consumers<P>,
    /// It ever had a consumer: auto-delete needs one to have been.
    had_consumer: bool,
    deleted: bool,
    /// Highest place ever handed out, for the redelivered flag after a restart.
    delivered: Seq,
    delivered_logged: Seq,
    resident_limit: usize,
    /// Left the queue for its dead-letter exchange; the caller takes them after every change.
    dead: Vec<DeadLetter>,
    /// Dead letters that may not be lost and have not arrived, and their bodies.
    dying: (u64, u64),
    /// Nothing while no message has a deadline.
    expiry: Option<Expiry>,
    /// Reads that expiry needs beside those of consumers; the caller takes them after every change.
    reads: Vec<ReadFrom>,
    /// Messages that wait for their time, in a holding queue.
    schedule: Option<Box<Schedule>>,
    /// When the queue was last used, for its own expiry.
    used_at: Timestamp,
    /// In a queue that takes no message twice.
    keys: Option<Box<Keys>>,
}

/// Everything a restart gives back about a queue's messages.
pub struct Recovered {
    /// Priority levels that hold messages, each with the place below which it holds none.
    pub lanes: Vec<(u8, Seq)>,
    pub next_seq: Seq,
    pub messages: u64,
    pub bytes: u64,
    pub delivered_through: Seq,
    pub deadlines: Deadlines,
    /// What is known of messages that came back.
    pub returned: Vec<Returned>,
    /// Messages that wait for their time, and their bodies.
    pub scheduled: (u64, u64),
}

impl Recovered {
    /// A queue that never held a message.
    pub const EMPTY: Self = Self {
        lanes: Vec::new(),
        next_seq: Seq(1),
        messages: 0,
        bytes: 0,
        delivered_through: Seq(0),
        deadlines: Deadlines::InOrder(Timestamp::NONE),
        returned: Vec::new(),
        scheduled: (0, 0),
    };
}

/// What a purge or a deletion removed.
#[derive(Default)]
pub struct Purged {
    /// Ready messages dropped.
    pub messages: u64,
    /// Those of them that were in memory and stored.
    pub removed: Removed,
    /// Those that only the store holds: level, from, until (exclusive).
    pub ranges: SmallVec<[(u8, Seq, Seq); 1]>,
    /// How many they are, and their bodies.
    pub range_messages: u64,
    pub range_bytes: u64,
}

impl<P: Port> QueueState<P> {
    pub fn new(id: QueueId, durable: bool) -> Self {
        Self {
            id,
            durable,
            spilling: false,
            spilled: Seq(0),
            settling: (0, Seq(0)),
            settings: QueueSettings::default(),
            limited: false,
            next_seq: Seq(1),
            lanes: Lanes::new(),
            returns: Returns::default(),
            ready_bytes: 0,
            committed: Seq(0),
            unacked: 0,
            unacked_bytes: 0,
            unacked_limit: u64::MAX,
            consumers: Consumers::default(),
            had_consumer: false,
            deleted: false,
            delivered: Seq(0),
            delivered_logged: Seq(0),
            resident_limit: RESIDENT_BYTES,
            dead: Vec::new(),
            dying: (0, 0),
            expiry: None,
            reads: Vec::new(),
            schedule: None,
            used_at: Timestamp::NONE,
            keys: None,
        }
    }

    /// A queue as the store recovered it: nothing in memory, everything to be read when asked for.
    pub fn recovered(id: QueueId, row: &Recovered) -> Self {
        let mut state = Self::new(id, true);
        state.next_seq = row.next_seq;
        state.committed = Seq(row.next_seq.0.saturating_sub(1));
        state.delivered = row.delivered_through;
        if row.scheduled.0 > 0 {
            let (count, bytes) = row.scheduled;
            state.schedule = Some(Box::new(Schedule::recovered(count, bytes)));
        }
        if row.messages > 0 {
            state.lanes = Lanes::recovered(row);
            state.ready_bytes = row.bytes;
            state.recover_deadlines(row.deadlines);
            state.returns.recall(&row.returned);
        }
        state
    }

    /// Gives the queue priority levels 0 to `max`, higher ones first (amqp-behaviour 4.8). Once, before its first
    /// message.
    pub fn set_max_priority(&mut self, max: u8) {
        self.lanes.set_max(max);
    }

    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Messages waiting for a consumer, wherever they are.
    pub fn ready_count(&self) -> u64 {
        self.lanes.len() + self.returns.len()
    }

    /// Messages handed out and neither acked nor returned.
    pub fn unacked_count(&self) -> u64 {
        self.unacked
    }

    /// Memory its messages take, waiting or handed out.
    pub fn memory_bytes(&self) -> u64 {
        (self.lanes.bytes() + self.returns.waiting_bytes() + self.schedule_bytes()) as u64
            + self.unacked_bytes
    }

    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// Every consumer with its port and its unacked deliveries, in no order.
    pub fn consumers(&self) -> impl Iterator<Item = (ConsumerId, &ConsumerOptions, &P, u64)> {
        self.consumers.iter()
    }

    /// Bytes of the bodies handed out and not settled.
    pub fn unacked_bytes(&self) -> u64 {
        self.unacked_bytes
    }

    /// Memory of what is handed out and not settled.
    #[inline]
    pub fn unacked_memory(&self) -> u64 {
        self.unacked_bytes + self.unacked * UNACKED_BYTES
    }

    /// How much memory messages may take that are handed out, before consumers must settle some to get more. What was handed
    /// out stays with them. Call [`Self::dispatch`] next.
    pub fn set_unacked_limit(&mut self, bytes: u64) {
        self.unacked_limit = bytes;
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Whether a message of this kind is the store's business here.
    #[inline]
    pub fn stores(&self, message: &Message) -> bool {
        self.spilling || self.outlives(message)
    }

    /// Whether a message of this kind is still here after a restart.
    #[inline]
    pub(super) fn outlives(&self, message: &Message) -> bool {
        self.durable && (message.persistent() || self.settings.kind == QueueKind::Quorum)
    }

    /// Whether the message may stay for ever: neither it nor the queue says how long.
    #[inline]
    pub fn keeps_for_ever(&self, message: &Message) -> bool {
        self.settings.message_ttl_ms.is_none() && self.settings.holds.is_none() && !message.has_expiration()
    }

    /// The place the next message will take; `None` once the queue is deleted. Its deadline follows from
    /// [`Self::lifetime_ms`].
    #[inline]
    pub fn enqueue(&mut self, message: Message, expires_at: Timestamp) -> Option<Place> {
        if self.deleted {
            return None;
        }
        let seq = self.next_seq;
        self.next_seq = seq.next();
        let stored = self.stores(&message);
        let lane = self.lanes.level(&message);
        let bytes = message.body_len();
        self.ready_bytes += bytes;
        let place = Place { seq, lane };
        if let Some(keys) = &mut self.keys {
            keys.enter(&message, seq);
        }
        if expires_at.is_some() || self.expiry.is_some() {
            let alone = self.ready_count() == 0 && self.unacked == 0;
            self.joined(place, expires_at, u32::try_from(bytes).unwrap_or(u32::MAX), alone);
        }
        self.lanes.at(lane).ready.push_tail(Entry {
            seq,
            lane,
            redelivered: message.was_delivered_before(),
            message,
            stored,
            expires_at,
            acquired: 0,
            failed: 0,
        });
        Some(place)
    }

    /// Hands ready messages to consumers that can take them. `removed` receives stored messages that left by being
    /// delivered without acknowledgement. Returns where to read next when messages wait on disk.
    ///
    /// In a queue for which time matters, what expired before `now` is not handed out, and what expires now only if
    /// somebody can take it.
    pub fn dispatch(&mut self, now: Timestamp, removed: &mut Removed) -> Option<ReadFrom> {
        self.page_out();
        if self.returns.is_waiting() {
            self.end_waits(now, removed);
        }
        if self.expiry.is_some() {
            self.expire(now, removed);
        }
        while self.unacked_memory() <= self.unacked_limit && self.has_ready() {
            let Some(mut run) = self.consumers.begin() else {
                break;
            };
            while run.takes_more()
                && let Some(entry) = self.pop_ready()
            {
                self.delivered = self.delivered.max(entry.seq);
                if run.acks {
                    self.unacked += 1;
                    self.unacked_bytes += entry.message.body_len();
                } else {
                    self.forget(entry.seq);
                    removed.note(&entry);
                }
                run.give(entry);
            }
            let nothing = run.is_empty();
            self.consumers.end(run);
            if nothing {
                break;
            }
        }
        self.consumers.flush();
        if self.expiry.is_some() {
            self.expire(now.after(1), removed);
        }
        let too_long = self.limited && !self.drop_excess(removed);
        if self.consumers.len() > 0 || too_long {
            self.read_ahead()
        } else {
            None
        }
    }

    /// `basic.get`: the oldest ready message. `Err` when it must be read from disk first.
    pub fn get(&mut self, no_ack: bool, removed: &mut Removed) -> Result<Option<Delivery>, ReadFrom> {
        if !self.has_ready()
            && let Some(read) = self.read_now()
        {
            return Err(read);
        }
        let Some(entry) = self.pop_ready() else {
            return Ok(None);
        };
        self.delivered = self.delivered.max(entry.seq);
        if no_ack {
            self.forget(entry.seq);
            removed.note(&entry);
        } else {
            self.unacked += 1;
            self.unacked_bytes += entry.message.body_len();
        }
        Ok(Some(Delivery::new(entry, self.ready_count())))
    }

    /// A delivery was acknowledged (or rejected for good). True when its removal must be logged.
    pub fn ack(&mut self, consumer: Option<ConsumerId>, stored: bool, bytes: u64) -> bool {
        self.settle(consumer, bytes);
        stored && !self.deleted
    }

    /// A delivery was rejected for good: it is dead-lettered, or removed.
    pub fn reject(&mut self, consumer: Option<ConsumerId>, entry: Entry, removed: &mut Removed) {
        self.settle(consumer, entry.message.body_len());
        if !self.deleted {
            self.discard(entry, Reason::Rejected, removed);
        }
    }

    /// A message leaves the queue without having been consumed.
    fn discard(&mut self, entry: Entry, reason: Reason, removed: &mut Removed) {
        self.forget(entry.seq);
        let reason = self.settings.holds.map_or(reason, |_| Reason::Due);
        match &self.settings.dead_letter {
            Some(route) => {
                if route.at_least_once {
                    self.dying.0 += 1;
                    self.dying.1 += entry.message.body_len();
                }
                self.dead.push(DeadLetter {
                    stored: entry.stored.then(|| entry.place()),
                    seq: entry.seq,
                    message: entry.message,
                    reason,
                    route: Arc::clone(route),
                    due: Timestamp::NONE,
                });
            }
            None => removed.note(&entry),
        }
    }

    /// A dead letter that may not be lost, with so many bytes of body, is where it should go.
    pub fn dead_letter_left(&mut self, bytes: u64) {
        let (count, sum) = self.dying;
        self.dying = (count.saturating_sub(1), sum.saturating_sub(bytes));
    }

    /// Dead letters that may not be lost and still wait here until their targets have them, and their bodies.
    pub fn dead_letters_waiting(&self) -> (u64, u64) {
        self.dying
    }

    /// What died since the last call, in order.
    pub fn take_dead_letters(&mut self) -> Option<Vec<DeadLetter>> {
        (!self.dead.is_empty()).then(|| std::mem::take(&mut self.dead))
    }

    #[inline]
    fn settle(&mut self, consumer: Option<ConsumerId>, bytes: u64) {
        self.unacked = self.unacked.saturating_sub(1);
        self.unacked_bytes = self.unacked_bytes.saturating_sub(bytes);
        if let Some(consumer) = consumer {
            self.consumers.credit(consumer);
        }
    }

    /// Adds a consumer; deliveries begin with the next [`Self::dispatch`]. `None` when exclusive use forbids it
    /// (amqp-behaviour 2.4, consume step 5).
    pub fn consume(&mut self, options: ConsumerOptions, port: P) -> Option<ConsumerId> {
        if self.consumers.refuses(options) {
            return None;
        }
        self.had_consumer = true;
        Some(self.consumers.add(options, port))
    }

    /// Removes a consumer; what it holds unacked stays with its channel. True when an auto-delete queue should go.
    pub fn cancel(&mut self, consumer: ConsumerId) -> bool {
        self.consumers.remove(consumer) && self.consumers.len() == 0 && self.had_consumer
    }

    /// Tells all consumers that there is nothing more to come from this queue.
    pub fn cancel_consumers(&mut self) {
        self.consumers.cancel_all();
    }

    /// What a stalled consumer waited for is there: room on its connection, or its channel's leave.
    pub fn resume(&mut self, consumer: ConsumerId) {
        self.consumers.resume(consumer);
    }

    /// Only one consumer is to be served at a time (amqp-behaviour 4.9); one of a higher priority takes its place when it
    /// `yields`. To be set before the first one.
    pub fn set_single_active(&mut self, yields: bool) {
        self.consumers.set_single(yields);
    }

    /// The consumer that is served while the others wait, in a queue that serves one at a time.
    pub fn active_consumer(&self) -> Option<ConsumerId> {
        self.consumers.active()
    }

    /// Drops all ready messages, not those handed out.
    pub fn purge(&mut self) -> Purged {
        let mut purged = Purged {
            messages: self.ready_count(),
            range_messages: self.lanes.disk_count,
            range_bytes: self.lanes.disk_bytes,
            ..Purged::default()
        };
        self.expiry_cleared(&mut purged);
        purged.ranges = self.lanes.clear(&mut purged.removed);
        self.returns.clear(&mut purged.removed);
        self.ready_bytes = 0;
        if let Some(keys) = &mut self.keys {
            keys.clear();
        }
        purged
    }

    /// The queue is deleted: consumers are told, messages dropped, later publishes ignored.
    pub fn delete(&mut self) -> u64 {
        let messages = self.ready_count();
        self.deleted = true;
        self.expiry_cleared(&mut Purged::default());
        self.lanes = Lanes::new();
        self.returns = Returns::default();
        (self.schedule, self.keys) = (None, None);
        self.ready_bytes = 0;
        self.dead.clear();
        self.consumers.cancel_all();
        messages
    }

    /// The highest place handed out, when the store should learn of it: it rose since the last call.
    pub fn take_delivered(&mut self) -> Option<Seq> {
        let risen = self.durable && self.delivered > self.delivered_logged;
        self.delivered_logged = self.delivered;
        risen.then_some(self.delivered)
    }

    #[inline]
    fn has_ready(&mut self) -> bool {
        self.returns.has_front() || self.lanes.has_ready()
    }

    #[inline]
    fn pop_ready(&mut self) -> Option<Entry> {
        let entry = match self.returns.pop_front() {
            Some(entry) => entry,
            None => self.lanes.pop()?,
        };
        self.ready_bytes = self.ready_bytes.saturating_sub(entry.message.body_len());
        if self.expiry.is_some() {
            self.left(&entry);
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
