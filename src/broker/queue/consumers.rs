//! A queue's consumers and whose turn it is: the highest priority that can take a message, round-robin within it.

use std::collections::VecDeque;

use ahash::AHashMap;

use crate::broker::queue::{Delivery, Port};

/// A consumer's number within its queue, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// How a consumer wants its messages.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerOptions {
    /// Deliveries need no ack.
    pub no_ack: bool,
    /// Unacked deliveries it may hold; 0 is unlimited. Without effect for `no_ack`.
    pub prefetch: u16,
    /// Nobody else may consume.
    pub exclusive: bool,
    /// `x-priority`, 0 when absent.
    pub priority: i64,
}

struct Consumer<P> {
    options: ConsumerOptions,
    port: P,
    unacked: u64,
    /// It stands in the line of those who can take a message.
    in_line: bool,
    stalled: bool,
    /// Bytes its port still takes in this dispatch; `None` until asked.
    room: Option<usize>,
    pending: Vec<Delivery>,
}

impl<P> Consumer<P> {
    fn has_credit(&self) -> bool {
        self.options.no_ack || self.options.prefetch == 0 || self.unacked < u64::from(self.options.prefetch)
    }
}

pub(super) struct Consumers<P> {
    all: AHashMap<ConsumerId, Consumer<P>>,
    /// Those with credit and room, by priority, then by turn.
    line: VecDeque<(i64, ConsumerId)>,
    /// Those with deliveries to hand over at the end of this dispatch.
    touched: Vec<ConsumerId>,
    next_id: u64,
    exclusive: bool,
}

impl<P> Default for Consumers<P> {
    fn default() -> Self {
        Self {
            all: AHashMap::new(),
            line: VecDeque::new(),
            touched: Vec::new(),
            next_id: 1,
            exclusive: false,
        }
    }
}

/// What a delivery costs on the wire beside the message: frames, method, tag.
const WIRE_BYTES: usize = 64;

impl<P: Port> Consumers<P> {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Every consumer with its port and its unacked deliveries, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConsumerId, &ConsumerOptions, &P, u64)> {
        self.all
            .iter()
            .map(|(id, consumer)| (*id, &consumer.options, &consumer.port, consumer.unacked))
    }

    pub(super) fn has_exclusive(&self) -> bool {
        self.exclusive
    }

    pub(super) fn add(&mut self, options: ConsumerOptions, port: P) -> ConsumerId {
        let id = ConsumerId(self.next_id);
        self.next_id += 1;
        self.exclusive |= options.exclusive;
        let consumer = Consumer {
            options,
            port,
            unacked: 0,
            in_line: false,
            stalled: false,
            room: None,
            pending: Vec::new(),
        };
        self.all.insert(id, consumer);
        self.queue_up(id);
        id
    }

    pub(super) fn remove(&mut self, id: ConsumerId) -> bool {
        let Some(consumer) = self.all.remove(&id) else {
            return false;
        };
        if consumer.in_line {
            self.line.retain(|(_, waiting)| *waiting != id);
        }
        if consumer.options.exclusive {
            self.exclusive = false;
        }
        true
    }

    pub(super) fn cancel_all(&mut self) {
        self.line.clear();
        self.exclusive = false;
        for (_, consumer) in self.all.drain() {
            consumer.port.cancelled();
        }
    }

    /// The consumer whose turn it is, if any can take a message. It keeps its turn until [`Self::give`].
    pub(super) fn next_available(&mut self) -> Option<ConsumerId> {
        while let Some(&(_, id)) = self.line.front() {
            let Some(consumer) = self.all.get_mut(&id) else {
                self.line.pop_front();
                continue;
            };
            if consumer.room.is_none() {
                consumer.room = Some(consumer.port.room());
                self.touched.push(id);
            }
            if consumer.room > Some(0) {
                return Some(id);
            }
            // What it was given in this dispatch takes its room; only the port knows when it has some again.
            consumer.port.deliver(id, &mut consumer.pending);
            consumer.room = None;
            if consumer.port.stall() {
                consumer.stalled = true;
                consumer.in_line = false;
                self.line.pop_front();
            }
        }
        None
    }

    pub(super) fn needs_ack(&self, id: ConsumerId) -> bool {
        self.all.get(&id).is_none_or(|consumer| !consumer.options.no_ack)
    }

    /// Gives a message to the consumer at the front of the line.
    pub(super) fn give(&mut self, id: ConsumerId, delivery: Delivery) {
        let Some(consumer) = self.all.get_mut(&id) else {
            return;
        };
        let cost = delivery.entry.message.memory_bytes() + WIRE_BYTES;
        consumer.room = consumer.room.map(|room| room.saturating_sub(cost));
        if !consumer.options.no_ack {
            consumer.unacked += 1;
        }
        consumer.pending.push(delivery);
        let (priority, credit) = (consumer.options.priority, consumer.has_credit());
        if self.line.len() == 1 && credit {
            return;
        }
        self.line.pop_front();
        consumer.in_line = false;
        if credit {
            consumer.in_line = true;
            insert(&mut self.line, priority, id);
        }
    }

    /// Hands over what this dispatch gave out.
    pub(super) fn flush(&mut self) {
        while let Some(id) = self.touched.pop() {
            if let Some(consumer) = self.all.get_mut(&id) {
                consumer.room = None;
                if !consumer.pending.is_empty() {
                    consumer.port.deliver(id, &mut consumer.pending);
                }
            }
        }
    }

    /// A delivery of this consumer was settled.
    pub(super) fn credit(&mut self, id: ConsumerId) {
        if let Some(consumer) = self.all.get_mut(&id) {
            consumer.unacked = consumer.unacked.saturating_sub(1);
            self.queue_up(id);
        }
    }

    /// Stalled consumers try again.
    pub(super) fn resume(&mut self) {
        let stalled: Vec<ConsumerId> = self
            .all
            .iter()
            .filter(|(_, consumer)| consumer.stalled)
            .map(|(id, _)| *id)
            .collect();
        for id in stalled {
            if let Some(consumer) = self.all.get_mut(&id) {
                consumer.stalled = false;
            }
            self.queue_up(id);
        }
    }

    fn queue_up(&mut self, id: ConsumerId) {
        let Some(consumer) = self.all.get_mut(&id) else {
            return;
        };
        if !consumer.in_line && !consumer.stalled && consumer.has_credit() {
            consumer.in_line = true;
            insert(&mut self.line, consumer.options.priority, id);
        }
    }
}

/// Behind all of the same or a higher priority. With one priority, the usual case, that is the end.
fn insert(line: &mut VecDeque<(i64, ConsumerId)>, priority: i64, id: ConsumerId) {
    let at = line
        .iter()
        .rposition(|(other, _)| *other >= priority)
        .map_or(0, |at| at + 1);
    line.insert(at, (priority, id));
}
