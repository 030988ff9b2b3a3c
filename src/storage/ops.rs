//! The words between the broker and the store: what can be logged, what is answered, who is told.

use std::time::{Duration, SystemTime};

use smallvec::SmallVec;

use crate::broker::{
    confirm::ConfirmToken,
    definition::{BindingDefinition, Definition, Name},
    ids::{QueueId, Seq, Timestamp},
    message::Message,
    policy::PolicyKind,
    queue::{Deadlines, Returned, ScheduleLoaded, Turn},
};
use crate::storage::{StoreError, StoreFailure};

/// Told by the committer's thread when everything up to its operation is durable, or that it never will be.
/// Must neither block nor call back into the store.
pub type Done = Box<dyn FnOnce(Result<(), StoreFailure>) + Send>;

/// One queue's place for a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    pub queue: QueueId,
    /// The priority lane, 0 for a queue without priorities.
    pub lane: u8,
    /// Ascending in the log per queue and lane.
    pub seq: Seq,
    /// When the message's time in this queue ends; given back by reads.
    pub expires_at: Timestamp,
}

/// One entry of the op log. An operation logged later is in the same or a later group, never an earlier one,
/// and an operation is never split over two groups.
pub enum Op {
    /// A persistent message for durable queues.
    Publish {
        message: Message,
        targets: SmallVec<[Target; 1]>,
        confirm: Option<ConfirmToken>,
    },
    /// These messages are gone from the queue. Unknown ones are ignored.
    Ack {
        queue: QueueId,
        lane: u8,
        seqs: SmallVec<[Seq; 4]>,
    },
    /// Stores a definition, or overwrites the one of the same identity. A queue gets its row.
    Define {
        definition: Definition,
        done: Option<Done>,
    },
    /// Removes a definition; a queue goes with all its messages.
    Undefine { key: DefinitionKey, done: Option<Done> },
    /// Removes what lies in ranges of lanes (from, until exclusive), messages the queue does not hold in memory. `count`
    /// and `bytes` are what the queue believes to lie in all of them.
    Purge {
        queue: QueueId,
        ranges: SmallVec<[(u8, Seq, Seq); 1]>,
        count: u64,
        bytes: u64,
    },
    /// A queue without a definition leaves messages here while it lives; they are gone after the next start.
    ///
    /// It may stand `beside` a queue with a definition. Then it takes the transient ones of the messages logged for that
    /// queue from now on, and is read, acked, purged and deleted with it.
    Spill { queue: QueueId, beside: Option<QueueId> },
    /// Removes all messages of a queue without a definition.
    Forget { queue: QueueId },
    /// Messages up to `through` were handed out: they are redelivered after a restart. Writes the queue's row, unsynced, when it holds messages.
    Delivered { queue: QueueId, through: Seq },
    /// A message that waited in a holding queue, published with its time as deadline, waits no more. `bytes` are its
    /// body's.
    Unschedule { queue: QueueId, turn: Turn, bytes: u64 },
    /// A stored message came back: how often, and until when it waits. Forgotten with the message.
    Returned { queue: QueueId, returned: Returned },
    /// All or nothing.
    Tx { ops: Vec<Self>, done: Option<Done> },
    /// Tells when everything logged before is durable.
    Barrier { done: Done },
    /// The store's own: queue ids below this number may be in use.
    #[doc(hidden)]
    ReserveQueueIds { until: u64 },
}

/// What an [`Op::Undefine`] removes.
#[derive(Clone, Debug, PartialEq)]
pub enum DefinitionKey {
    Vhost(Name),
    Exchange {
        vhost: Name,
        name: Name,
    },
    Queue {
        vhost: Name,
        name: Name,
        id: QueueId,
    },
    /// A binding is its own identity.
    Binding(BindingDefinition),
    User(Name),
    Permission {
        user: Name,
        vhost: Name,
    },
    TopicPermission {
        user: Name,
        vhost: Name,
        exchange: Name,
    },
    Policy {
        vhost: Name,
        kind: PolicyKind,
        name: Name,
    },
    Parameter {
        vhost: Name,
        component: Name,
        name: Name,
    },
    GlobalParameter(Name),
}

/// A queue asks for messages it no longer, or not yet, holds in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadRequest {
    pub queue: QueueId,
    pub lane: u8,
    pub from: Seq,
    /// Exclusive.
    pub until: Seq,
    /// About this many bytes of messages are answered; at least one page.
    pub max_bytes: usize,
    /// Wait for all that was logged before the request. Without it the answer may lack what is not committed yet; a
    /// queue that asks only for what it knows to be committed need not wait behind a backlog of others.
    pub settled: bool,
}

/// The answer to a [`ReadRequest`].
pub struct Loaded {
    pub lane: u8,
    /// As in the request.
    pub from: Seq,
    /// As in the request.
    pub until: Seq,
    /// Ascending; without what was acked or purged by operations logged before the request.
    pub entries: Vec<(Seq, Message)>,
    /// Those of them whose time ends, and when; ascending.
    pub deadlines: Vec<(Seq, Timestamp)>,
    /// Where to go on; `None` when everything below the request's `until` was read.
    pub next: Option<Seq>,
}

/// The broker's side of the store. Called from the store's threads; must neither block nor wait for the store.
pub trait StoreEvents: Send + Sync {
    /// All persistent messages of these queues up to and including that seq are written. Once per group.
    fn committed(&self, queues: &[(QueueId, Seq)]);

    /// The answer to a read.
    fn loaded(&self, queue: QueueId, loaded: Loaded);

    /// The answer to a holding queue's read.
    fn schedule_loaded(&self, _queue: QueueId, _loaded: ScheduleLoaded) {}

    /// A read found damage or a broken disk. Only this queue suffers.
    fn read_failed(&self, queue: QueueId, error: StoreError);

    /// A write or sync failed. Nothing will be confirmed any more (storage-design B11); reads go on.
    fn failed(&self, error: StoreError);

    /// The disk has no room (`true`): commits wait and are tried again each second; `false` when they go on.
    fn full(&self, full: bool);
}

/// What a store held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    pub definitions: Vec<Definition>,
    /// One per stored queue.
    pub queues: Vec<RecoveredQueue>,
    pub took: Duration,
    /// Nothing was there: the store was created by this open.
    pub fresh: bool,
    /// When something was last made durable, by the clock of that time.
    pub last_written: Option<SystemTime>,
}

/// A queue's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredQueue {
    pub id: QueueId,
    /// Stored and not acked.
    pub messages: u64,
    /// Their bodies.
    pub bytes: u64,
    /// No message lies below; equal to `next_seq` when the queue is empty.
    pub low: Seq,
    /// What the next message gets.
    pub next_seq: Seq,
    /// What their deadlines are like.
    pub deadlines: Deadlines,
    /// Messages up to this one had been handed out: redelivered.
    pub delivered_through: Seq,
    /// The lanes that hold messages, ascending, each with its own low end.
    pub lanes: Vec<(u8, Seq)>,
    /// Messages that came back before, ascending by lane and seq.
    pub returned: Vec<Returned>,
    /// Messages that wait for their time in a holding queue, and their bodies; not among the others.
    pub scheduled: (u64, u64),
}

impl Op {
    /// Memory the op holds while it waits, for the limits of groups and of backpressure.
    pub(crate) fn pending_bytes(&self) -> usize {
        const SMALL: usize = 64;
        match self {
            Self::Publish { message, targets, .. } => SMALL + message.memory_bytes() + targets.len() * 24,
            Self::Ack { seqs, .. } => SMALL + seqs.len() * 8,
            Self::Define { .. } | Self::Undefine { .. } => SMALL * 8,
            Self::Tx { ops, .. } => SMALL + ops.iter().map(Self::pending_bytes).sum::<usize>(),
            _ => SMALL,
        }
    }

    /// How many parties wait for this op to be durable.
    pub(crate) fn waiters(&self) -> usize {
        match self {
            Self::Publish { confirm, .. } => usize::from(confirm.is_some()),
            Self::Define { done, .. } | Self::Undefine { done, .. } => usize::from(done.is_some()),
            Self::Tx { ops, done } => {
                usize::from(done.is_some()) + ops.iter().map(Self::waiters).sum::<usize>()
            }
            Self::Barrier { .. } => 1,
            Self::Ack { .. }
            | Self::Purge { .. }
            | Self::Returned { .. }
            | Self::Unschedule { .. }
            | Self::Delivered { .. }
            | Self::Spill { .. }
            | Self::Forget { .. }
            | Self::ReserveQueueIds { .. } => 0,
        }
    }

    /// Tells whoever waits that it will never be stored.
    pub(crate) fn refuse(self, failure: StoreFailure) {
        match self {
            Self::Define { done, .. } | Self::Undefine { done, .. } => {
                if let Some(done) = done {
                    done(Err(failure));
                }
            }
            Self::Tx { ops, done } => {
                for op in ops {
                    op.refuse(failure);
                }
                if let Some(done) = done {
                    done(Err(failure));
                }
            }
            Self::Barrier { done } => done(Err(failure)),
            _ => {}
        }
    }
}
