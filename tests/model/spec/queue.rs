//! One queue: what waits in it and in which order, and who may have it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

use crate::operation::{Overflow, QUEUES, QueueKind};

/// A queue's number; the same name declared again is another queue.
pub(crate) type Instance = u64;

/// Why a message died, and how often for that reason in that queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) queue: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) count: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The body: no two publishes have the same.
    pub(crate) id: u64,
    pub(crate) exchange: &'static str,
    pub(crate) key: &'static str,
    pub(super) persistent: bool,
    pub(super) priority: Option<u8>,
    /// `None` after a restart for what was not handed out: it may be marked to be safe.
    pub(crate) redelivered: Option<bool>,
    /// The latest first.
    pub(crate) deaths: VecDeque<Death>,
    /// Failed deliveries, where they are counted.
    pub(crate) failed: u16,
}

impl Message {
    /// As it is published to where its dead letters go.
    pub(super) fn die(&mut self, queue: &'static str, reason: &'static str) {
        let before = self
            .deaths
            .iter()
            .position(|death| death.queue == queue && death.reason == reason);
        let count = before
            .and_then(|at| self.deaths.remove(at))
            .map_or(1, |death| death.count + 1);
        self.deaths.push_front(Death { queue, reason, count });
        (self.redelivered, self.failed) = (Some(false), 0);
    }

    /// It came from there without being rejected since.
    pub(super) fn is_cycle(&self, queue: &str) -> bool {
        let until = self.deaths.iter().position(|death| death.queue == queue);
        until.is_some_and(|until| {
            self.deaths
                .iter()
                .take(until + 1)
                .all(|death| death.reason != "rejected")
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    /// A tag used again is another consumer.
    pub(super) id: u64,
    pub(crate) channel: usize,
    pub(crate) tag: &'static str,
    pub(crate) no_ack: bool,
    pub(super) exclusive: bool,
    prefetch: usize,
    pub(super) priority: i32,
    pub(super) unacked: usize,
}

impl Consumer {
    pub(crate) fn new(
        channel: usize,
        tag: &'static str,
        no_ack: bool,
        exclusive: bool,
        prefetch: u16,
        priority: i32,
    ) -> Self {
        Self {
            id: 0,
            channel,
            tag,
            no_ack,
            exclusive,
            prefetch: prefetch.into(),
            priority,
            unacked: 0,
        }
    }

    /// How many more it would take.
    fn credit(&self) -> usize {
        if self.no_ack || self.prefetch == 0 {
            usize::MAX
        } else {
            self.prefetch.saturating_sub(self.unacked)
        }
    }
}

/// Where a message waits: those that came back to a quorum queue first, then the highest level, then by arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    waits: bool,
    level: Reverse<u8>,
    number: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(super) instance: Instance,
    /// Its place in [`QUEUES`].
    pub(super) index: usize,
    pub(super) flags: &'static str,
    pub(crate) ready: BTreeMap<Place, Message>,
    next_number: u64,
    pub(crate) consumers: Vec<Consumer>,
    /// The single active consumer.
    active: Option<u64>,
    /// Nobody knows the order of what waits, until all of it is gone: dead letters of several queues met, or a restart
    /// came after messages were returned.
    pub(super) any_order: bool,
}

impl Queue {
    pub(super) fn new(instance: Instance, index: usize, flags: &'static str) -> Self {
        Self {
            instance,
            index,
            flags,
            ready: BTreeMap::new(),
            next_number: 0,
            consumers: Vec::new(),
            active: None,
            any_order: false,
        }
    }

    pub(super) fn kind(&self) -> &'static QueueKind {
        &QUEUES[self.index]
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// How many messages its consumers would take now.
    fn appetite(&self) -> usize {
        let takers = self.consumers.iter().filter(|consumer| self.serves(consumer));
        takers.fold(0, |sum: usize, consumer| sum.saturating_add(consumer.credit()))
    }

    /// Whether a message more is too many for it.
    pub(super) fn refuses(&self) -> bool {
        let waiting = self.ready.len() - self.ready.len().min(self.appetite());
        let kind = self.kind();
        kind.overflow != Overflow::DropHead && kind.max_length.is_some_and(|max| waiting + 1 > max)
    }

    pub(super) fn put(&mut self, message: Message) {
        let kind = self.kind();
        let level = match (kind.quorum, message.priority) {
            (Some(_), priority) => priority.unwrap_or(4),
            (None, priority) => priority.unwrap_or(0).min(kind.max_priority),
        };
        let place = Place {
            waits: true,
            level: Reverse(level),
            number: self.number(),
        };
        self.ready.insert(place, message);
    }

    /// What it drops because it is too long, in order: consumers are served first.
    pub(super) fn drop_excess(&mut self) -> Vec<Message> {
        let kind = self.kind();
        let Some(max) = kind.max_length.filter(|_| kind.overflow == Overflow::DropHead) else {
            return Vec::new();
        };
        let served = self.appetite().min(self.ready.len());
        let excess = (self.ready.len() - served).saturating_sub(max);
        let places: Vec<Place> = self.ready.keys().skip(served).take(excess).copied().collect();
        places
            .iter()
            .filter_map(|place| self.ready.remove(place))
            .collect()
    }

    /// Takes the message with this id out, which must be the next one.
    pub(super) fn take(&mut self, id: u64) -> Result<(Place, Message), String> {
        let place = if self.any_order {
            self.place(id)
        } else {
            self.ready.keys().next().copied()
        };
        let Some(place) = place else {
            return Err(format!("message {id} was not ready"));
        };
        let message = self.ready.remove(&place).unwrap();
        if message.id != id {
            return Err(format!("message {id} came before {}", message.id));
        }
        self.any_order &= !self.ready.is_empty();
        Ok((place, message))
    }

    pub(super) fn place(&self, id: u64) -> Option<Place> {
        let mut ready = self.ready.iter();
        ready
            .find(|(_, message)| message.id == id)
            .map(|(place, _)| *place)
    }

    /// A delivery comes back.
    pub(super) fn put_back(&mut self, mut place: Place, mut message: Message) {
        message.redelivered = Some(true);
        if self.kind().quorum.is_some() {
            place = Place {
                waits: false,
                level: Reverse(0),
                number: self.number(),
            };
        }
        self.ready.insert(place, message);
    }

    /// After a restart: what is not durable is gone.
    pub(super) fn restart(&mut self) {
        let quorum = self.kind().quorum.is_some();
        self.ready.retain(|_, message| message.persistent || quorum);
        // What was handed out stays marked. What was not may be marked as well, where it stands before something that was.
        for message in self.ready.values_mut() {
            message.redelivered = message.redelivered.filter(|redelivered| *redelivered);
        }
        self.any_order |= quorum && !self.ready.is_empty();
    }
}

/// Consumers.
impl Queue {
    /// It has a turn, whatever its credit.
    fn serves(&self, consumer: &Consumer) -> bool {
        !self.kind().single || (self.active == Some(consumer.id) && !self.gives_way())
    }

    pub(super) fn can_take(&self, consumer: &Consumer) -> bool {
        self.serves(consumer) && consumer.credit() > 0
    }

    /// The highest priority, then the first to come.
    fn next_active(&self) -> Option<&Consumer> {
        self.consumers
            .iter()
            .max_by_key(|consumer| (consumer.priority, Reverse(consumer.id)))
    }

    /// The active consumer of a quorum queue stops for one of a higher priority.
    fn gives_way(&self) -> bool {
        let active = self
            .consumers
            .iter()
            .find(|consumer| Some(consumer.id) == self.active);
        let best = self.next_active();
        self.kind().quorum.is_some()
            && active.is_some_and(|active| best.is_some_and(|best| best.priority > active.priority))
    }

    /// Whoever should be active is.
    fn choose_active(&mut self) {
        let active = self
            .consumers
            .iter()
            .find(|consumer| Some(consumer.id) == self.active);
        if active.is_none_or(|active| self.gives_way() && active.unacked == 0) {
            self.active = self.next_active().map(|next| next.id);
        }
    }

    pub(super) fn add_consumer(&mut self, mut consumer: Consumer) -> bool {
        let kind = self.kind();
        consumer.exclusive &= kind.quorum.is_none();
        let alone = self.consumers.iter().any(|other| other.exclusive);
        if alone || (consumer.exclusive && (kind.single || !self.consumers.is_empty())) {
            return false;
        }
        self.consumers.push(consumer);
        self.choose_active();
        true
    }

    /// Removes consumers; true when these were the last ones.
    pub(super) fn remove_consumers(&mut self, which: impl Fn(&Consumer) -> bool) -> bool {
        let before = self.consumers.len();
        // One after the other: whoever is next may go too.
        while let Some(at) = self.consumers.iter().position(&which) {
            self.consumers.remove(at);
            self.choose_active();
        }
        before > 0 && self.consumers.is_empty()
    }

    /// A delivery of this consumer was settled.
    pub(super) fn credit(&mut self, id: Option<u64>) {
        if let Some(consumer) = self.consumers.iter_mut().find(|consumer| Some(consumer.id) == id) {
            consumer.unacked -= 1;
            self.choose_active();
        }
    }
}
