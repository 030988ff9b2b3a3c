//! What a queue remembers and decides. No I/O, no clock, no task: the caller (server/queue_cell.rs) holds the
//! lock, writes the operations that a call asks for to the store's log, and answers reads.

pub mod arguments;
mod consumers;
mod paging;
mod ready;

use std::sync::Arc;

use smallvec::SmallVec;

use self::{consumers::Consumers, paging::Gap, ready::Ready};
use crate::broker::{
    ids::{QueueId, Seq},
    message::Message,
};

pub use self::{
    consumers::{ConsumerId, ConsumerOptions},
    paging::{PagedIn, ReadFrom},
};

/// A message in its place in one queue.
#[derive(Clone)]
pub struct Entry {
    pub seq: Seq,
    pub message: Message,
    /// It was handed out before and came back.
    pub redelivered: bool,
    /// The store keeps it: its removal must be logged.
    pub stored: bool,
}

/// One message on its way to one consumer.
pub struct Delivery {
    pub entry: Entry,
    /// Ready messages left behind it; only `basic.get` tells its client.
    pub remaining: u64,
}

/// Where a consumer's deliveries go: one per consumer, implemented by the server over the connection's outbox.
/// Called under the queue's lock, so an implementation neither blocks nor calls back into the queue.
pub trait Port: Send {
    /// Bytes it will take now. More than this may be given once, by the size of one message.
    fn room(&self) -> usize;
    /// There was no room: ask for [`QueueState::resume`] when there is. False when room came back meanwhile.
    fn stall(&self) -> bool;
    /// Takes all deliveries out of the vector, in order.
    fn deliver(&self, consumer: ConsumerId, deliveries: &mut Vec<Delivery>);
    /// The queue is gone: the consumer is cancelled by the server.
    fn cancelled(&self);
}

/// Sequence numbers of stored messages that left the queue; the caller logs them as acknowledged.
pub type Removed = SmallVec<[Seq; 4]>;

/// Ready messages may hold this much memory before a durable queue leaves its middle to the store.
pub const RESIDENT_BYTES: usize = 16 * 1024 * 1024;
/// What of a queue's head stays in memory when its middle is left to the store.
const HEAD_BYTES: usize = 2 * 1024 * 1024;
/// A consumer's read-ahead begins below this much ready memory.
const READ_AHEAD_BELOW: usize = 512 * 1024;

/// One queue.
pub struct QueueState<P> {
    id: QueueId,
    /// Declared durable and not exclusive: persistent messages go to the store.
    durable: bool,
    next_seq: Seq,
    ready: Ready,
    gap: Option<Gap>,
    /// Every stored message up to here is on disk.
    committed: Seq,
    unacked: u64,
    unacked_bytes: u64,
    consumers: Consumers<P>,
    /// It ever had a consumer: auto-delete needs one to have been.
    had_consumer: bool,
    deleted: bool,
    /// Highest place ever handed out, for the redelivered flag after a restart.
    delivered: Seq,
    delivered_logged: Seq,
    resident_limit: usize,
}

/// Everything a restart gives back about a queue's messages.
pub struct Recovered {
    pub low: Seq,
    pub next_seq: Seq,
    pub messages: u64,
    pub bytes: u64,
    pub delivered_through: Seq,
}

impl Recovered {
    /// A queue that never held a message.
    pub const EMPTY: Self = Self {
        low: Seq(1),
        next_seq: Seq(1),
        messages: 0,
        bytes: 0,
        delivered_through: Seq(0),
    };
}

/// What a purge or a deletion removed.
#[derive(Default)]
pub struct Purged {
    /// Ready messages dropped.
    pub messages: u64,
    /// Those of them that were in memory and stored.
    pub removed: Removed,
    /// Those that only the store holds: from, until (exclusive), messages, bytes.
    pub range: Option<(Seq, Seq, u64, u64)>,
}

impl<P: Port> QueueState<P> {
    pub fn new(id: QueueId, durable: bool) -> Self {
        Self {
            id,
            durable,
            next_seq: Seq(1),
            ready: Ready::default(),
            gap: None,
            committed: Seq(0),
            unacked: 0,
            unacked_bytes: 0,
            consumers: Consumers::default(),
            had_consumer: false,
            deleted: false,
            delivered: Seq(0),
            delivered_logged: Seq(0),
            resident_limit: RESIDENT_BYTES,
        }
    }

    /// A queue as the store recovered it: nothing in memory, everything to be read when asked for.
    pub fn recovered(id: QueueId, row: &Recovered) -> Self {
        let mut state = Self::new(id, true);
        state.next_seq = row.next_seq;
        state.committed = Seq(row.next_seq.0.saturating_sub(1));
        state.delivered = row.delivered_through;
        if row.messages > 0 {
            state.gap = Some(Gap::new(row.low, row.next_seq, row.messages, row.bytes));
            state.ready = Ready::all_on_disk();
        }
        state
    }

    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Messages waiting for a consumer, wherever they are.
    pub fn ready_count(&self) -> u64 {
        self.ready.len() + self.gap.as_ref().map_or(0, Gap::count)
    }

    /// Messages handed out and neither acked nor returned.
    pub fn unacked_count(&self) -> u64 {
        self.unacked
    }

    /// Memory its messages take, waiting or handed out.
    pub fn memory_bytes(&self) -> u64 {
        self.unacked_bytes.saturating_add(self.ready.bytes() as u64)
    }

    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Whether a message of this kind is the store's business here.
    pub fn stores(&self, message: &Message) -> bool {
        self.durable && message.persistent()
    }

    /// The place the next message will take; `None` once the queue is deleted.
    pub fn enqueue(&mut self, message: Message) -> Option<Seq> {
        if self.deleted {
            return None;
        }
        let seq = self.next_seq;
        self.next_seq = seq.next();
        let stored = self.stores(&message);
        self.ready.push_tail(Entry {
            seq,
            message,
            redelivered: false,
            stored,
        });
        Some(seq)
    }

    /// Hands ready messages to consumers that can take them. `removed` receives stored messages that left by being
    /// delivered without acknowledgement. Returns where to read next when messages wait on disk.
    pub fn dispatch(&mut self, removed: &mut Removed) -> Option<ReadFrom> {
        self.page_out();
        while self.has_ready() {
            let Some(consumer) = self.consumers.next_available() else {
                break;
            };
            let Some(entry) = self.pop_ready() else { break };
            self.delivered = self.delivered.max(entry.seq);
            let (acks, bytes) = (self.consumers.needs_ack(consumer), entry.message.body_len());
            if acks {
                self.unacked += 1;
                self.unacked_bytes += bytes;
            } else if entry.stored {
                removed.push(entry.seq);
            }
            self.consumers.give(consumer, Delivery { entry, remaining: 0 });
        }
        self.consumers.flush();
        if self.consumers.len() > 0 {
            self.read_ahead()
        } else {
            None
        }
    }

    /// `basic.get`: the oldest ready message. `Err` when it must be read from disk first.
    pub fn get(&mut self, no_ack: bool, removed: &mut Removed) -> Result<Option<Delivery>, ReadFrom> {
        if !self.has_ready()
            && let Some(gap) = self.gap.as_mut()
        {
            return Err(gap.read_now(self.id));
        }
        let Some(entry) = self.pop_ready() else {
            return Ok(None);
        };
        self.delivered = self.delivered.max(entry.seq);
        if no_ack {
            if entry.stored {
                removed.push(entry.seq);
            }
        } else {
            self.unacked += 1;
            self.unacked_bytes += entry.message.body_len();
        }
        Ok(Some(Delivery {
            entry,
            remaining: self.ready_count(),
        }))
    }

    /// A delivery was acknowledged (or rejected for good). True when its removal must be logged.
    pub fn ack(&mut self, consumer: Option<ConsumerId>, stored: bool, bytes: u64) -> bool {
        self.settle(consumer, bytes);
        stored && !self.deleted
    }

    /// Puts deliveries back to their old places, marked as redelivered.
    pub fn requeue(&mut self, consumer: Option<ConsumerId>, mut entry: Entry) {
        self.settle(consumer, entry.message.body_len());
        if !self.deleted {
            entry.redelivered = true;
            self.ready.put_back(entry);
        }
    }

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
        if self.consumers.has_exclusive() || (options.exclusive && self.consumers.len() > 0) {
            return None;
        }
        self.had_consumer = true;
        Some(self.consumers.add(options, port))
    }

    /// Removes a consumer; what it holds unacked stays with its channel. True when an auto-delete queue should go.
    pub fn cancel(&mut self, consumer: ConsumerId) -> bool {
        self.consumers.remove(consumer) && self.consumers.len() == 0 && self.had_consumer
    }

    /// A stalled consumer's connection has room again.
    pub fn resume(&mut self) {
        self.consumers.resume();
    }

    /// Drops all ready messages, not those handed out.
    pub fn purge(&mut self) -> Purged {
        let mut purged = Purged {
            messages: self.ready_count(),
            ..Purged::default()
        };
        purged.removed = self.ready.clear();
        if let Some(gap) = self.gap.take() {
            purged.range = Some(gap.into_range());
        }
        purged
    }

    /// The queue is deleted: consumers are told, messages dropped, later publishes ignored.
    pub fn delete(&mut self) -> u64 {
        let messages = self.ready_count();
        self.deleted = true;
        self.ready.clear();
        self.gap = None;
        self.consumers.cancel_all();
        messages
    }

    /// The highest place handed out, when the store should learn of it: it rose since the last call.
    pub fn take_delivered(&mut self) -> Option<Seq> {
        let risen = self.durable && self.delivered > self.delivered_logged;
        self.delivered_logged = self.delivered;
        risen.then_some(self.delivered)
    }

    /// Whether a message can be handed out from memory. What stands behind an empty gap comes forward for it.
    fn has_ready(&mut self) -> bool {
        if self.ready.can_pop(self.gap.as_ref().map(Gap::from)) {
            return true;
        }
        self.close_empty_gap() && self.ready.can_pop(None)
    }

    fn pop_ready(&mut self) -> Option<Entry> {
        self.ready.pop(self.gap.as_ref().map(Gap::from))
    }
}

/// The handle tests and benches use for a queue that nobody consumes over a socket.
impl<P: Port> Port for Arc<P>
where
    Self: Send,
{
    fn room(&self) -> usize {
        P::room(self)
    }

    fn stall(&self) -> bool {
        P::stall(self)
    }

    fn deliver(&self, consumer: ConsumerId, deliveries: &mut Vec<Delivery>) {
        P::deliver(self, consumer, deliveries);
    }

    fn cancelled(&self) {
        P::cancelled(self);
    }
}

#[cfg(test)]
mod tests;
