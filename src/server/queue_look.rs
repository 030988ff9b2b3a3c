//! A queue as the door shows it: what it was declared as, and its numbers at one moment.

use crate::broker::definition::QueueDefinition;
use crate::protocol::properties::RawProperties;
use crate::server::{
    Subject, Tally,
    queue_cell::{ConnectionId, Lengths, QueueHandle},
};

/// A queue that can be looked at. Cheap to clone; a list of a hundred thousand is sorted before anything is copied.
#[derive(Clone)]
pub struct QueueLook(pub(super) QueueHandle);

impl QueueLook {
    pub fn definition(&self) -> &QueueDefinition {
        &self.0.definition
    }

    pub fn lengths(&self) -> Lengths {
        self.0.lengths()
    }

    pub fn counts(&self) -> Tally {
        self.0.counters.read()
    }

    pub fn subject(&self) -> Subject {
        Subject::Queue(self.0.id())
    }

    pub fn is_exclusive(&self) -> bool {
        self.0.owner.is_some()
    }

    /// The connection it belongs to, if it is exclusive.
    pub fn owner(&self) -> Option<ConnectionId> {
        self.0.owner
    }

    /// How many of its messages, and octets of bodies, are persistent, of so many in all: those that the store has. What
    /// was published or acked just now counts when it is committed.
    pub fn persistent(&self, now: &QueueNow) -> (u64, u64) {
        let (messages, bytes) = (
            now.lengths.ready + now.lengths.unacked,
            now.ready_bytes + now.unacked_bytes,
        );
        // Most queues are empty, and not worth a look into the store.
        if messages == 0 || !self.0.definition.durable || self.is_exclusive() {
            return (0, 0);
        }
        let (kept, kept_bytes) = self.0.around.store.kept(self.0.id());
        (kept.min(messages), kept_bytes.min(bytes))
    }

    /// Everything that changes, read under one lock.
    pub fn state(&self) -> QueueNow {
        let queue = self.0.lock();
        let state = &queue.state;
        let lengths = Lengths {
            ready: state.ready_count(),
            unacked: state.unacked_count(),
        };
        let active = state.active_consumer();
        let (mut exclusive_consumer, mut single_active) = (None, None);
        for (id, options, port, _) in state.consumers() {
            let tag = || Some(String::from_utf8_lossy(&port.tag).into_owned());
            if options.exclusive {
                exclusive_consumer = tag();
            }
            if active == Some(id) {
                single_active = tag();
            }
        }
        let (resident, resident_bytes) = state.resident();
        let head_timestamp = state.head().and_then(|entry| {
            let raw = RawProperties::new(entry.message.properties());
            raw.timestamp().ok().flatten()
        });
        let (ready_bytes, unacked_bytes) = (state.ready_bytes(), state.unacked_bytes());
        QueueNow {
            lengths,
            ready_bytes,
            unacked_bytes,
            resident,
            resident_bytes,
            memory_bytes: state.memory_bytes(),
            head_timestamp,
            dead_letters: state.dead_letters_waiting(),
            consumers: state.consumer_count(),
            exclusive_consumer,
            single_active,
        }
    }
}

/// A queue's changing numbers at one moment.
#[derive(Clone, Debug)]
pub struct QueueNow {
    pub lengths: Lengths,
    /// Bodies, wherever they are.
    pub ready_bytes: u64,
    pub unacked_bytes: u64,
    /// Ready messages in memory, and their bodies.
    pub resident: u64,
    pub resident_bytes: u64,
    /// Memory its messages take.
    pub memory_bytes: u64,
    /// The timestamp property of the oldest message, seconds since 1970, when it is in memory and has one.
    pub head_timestamp: Option<u64>,
    /// Dead letters that may not be lost and wait until their targets have them, and their bodies.
    pub dead_letters: (u64, u64),
    pub consumers: usize,
    /// The tag of the consumer that excludes others.
    pub exclusive_consumer: Option<String>,
    /// The tag of the one that is served, in a queue that serves one at a time.
    pub single_active: Option<String>,
}
