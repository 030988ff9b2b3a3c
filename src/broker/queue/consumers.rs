//! A queue's consumers and whose turn it is: the highest priority that can take a message, round-robin within it; or, with
//! a single active consumer, that one alone (amqp-behaviour 4.9, 4.10).

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
};

use ahash::AHashMap;

use crate::broker::queue::{Delivery, Entry, Port};

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
    /// It had no room, or its channel no credit; whoever it waits for resumes it.
    stalled: bool,
    /// Every delivery needs its channel's leave; asked together with the room.
    metered: bool,
    /// Bytes its port still takes in this dispatch; `None` until asked.
    room: Option<usize>,
    pending: Vec<Delivery>,
}

impl<P> Consumer<P> {
    #[inline]
    fn has_credit(&self) -> bool {
        self.options.no_ack || self.options.prefetch == 0 || self.unacked < u64::from(self.options.prefetch)
    }
}

pub(super) struct Consumers<P> {
    all: AHashMap<ConsumerId, Consumer<P>>,
    /// Those with credit and room, by priority, then by turn; among them some that were removed meanwhile.
    line: VecDeque<(i64, ConsumerId)>,
    /// How many of the line were removed.
    gone: usize,
    /// Only one consumer is served, the others wait for its end.
    single: Option<Single>,
    /// Bytes given in this dispatch and not handed over.
    pending_bytes: usize,
    /// Those with deliveries to hand over at the end of this dispatch.
    touched: Vec<ConsumerId>,
    next_id: u64,
    exclusive: bool,
}

/// Who is served in a queue with a single active consumer.
#[derive(Default)]
struct Single {
    active: Option<ConsumerId>,
    /// A consumer of a higher priority takes over, once the active one has nothing unacked; meanwhile nobody is served
    /// (amqp-behaviour 4.9, quorum queues).
    yields: bool,
    /// The others: the highest priority first, then by arrival.
    waiting: BTreeSet<(Reverse<i64>, ConsumerId)>,
}

impl Single {
    /// The active consumer is to give way to one of a higher priority.
    fn is_outranked<P>(&self, all: &AHashMap<ConsumerId, Consumer<P>>) -> bool {
        let active = self.active.and_then(|active| all.get(&active));
        self.yields
            && active.is_some_and(|active| {
                let first = self.waiting.first();
                first.is_some_and(|(Reverse(priority), _)| *priority > active.options.priority)
            })
    }
}

impl<P> Default for Consumers<P> {
    fn default() -> Self {
        Self {
            all: AHashMap::new(),
            line: VecDeque::new(),
            gone: 0,
            single: None,
            pending_bytes: 0,
            touched: Vec::new(),
            next_id: 1,
            exclusive: false,
        }
    }
}

/// Deliveries to the consumer whose turn it is. Alone in the line it takes as many as it can; else its turn is one.
pub(super) struct Run {
    id: ConsumerId,
    /// They need acks.
    pub(super) acks: bool,
    reserved: bool,
    deliveries: Vec<Delivery>,
    /// Bytes its port still takes.
    room: usize,
    /// How many more it may hold, and how many it got.
    credit: u64,
    given: u64,
    /// Bytes given in this dispatch and not handed over.
    bytes: usize,
}

impl Run {
    #[inline]
    pub(super) fn takes_more(&self) -> bool {
        self.given < self.credit && self.room > 0 && self.bytes <= HAND_OVER_BYTES
    }

    #[inline]
    pub(super) fn give(&mut self, entry: Entry) {
        let cost = entry.message.memory_bytes() + WIRE_BYTES;
        self.room = self.room.saturating_sub(cost);
        self.bytes += cost;
        self.given += 1;
        self.deliveries.push(Delivery {
            entry,
            remaining: 0,
            reserved: self.reserved,
        });
    }

    /// It got nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.given == 0
    }
}

/// What a delivery costs on the wire beside the message: frames, method, tag.
const WIRE_BYTES: usize = 64;
/// With so many bytes given out, rooms are asked for anew: consumers of one connection share its room, but each asks.
const HAND_OVER_BYTES: usize = 256 * 1024;

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

    #[cfg(test)]
    pub(super) fn line_len(&self) -> usize {
        self.line.len()
    }

    /// Only one consumer is to be served at a time, until one of a higher priority comes if it `yields`. To be set before
    /// the first one.
    pub(super) fn set_single(&mut self, yields: bool) {
        self.single.get_or_insert_default().yields = yields;
    }

    /// The single active consumer.
    pub(super) fn active(&self) -> Option<ConsumerId> {
        self.single.as_ref().and_then(|single| single.active)
    }

    /// How many messages those in line would take, room permitting.
    pub(super) fn appetite(&self) -> u64 {
        let in_line = self.line.iter().filter_map(|(_, id)| self.all.get(id));
        in_line.fold(0, |sum, consumer| {
            let options = consumer.options;
            let credit = if options.no_ack || options.prefetch == 0 {
                u64::MAX
            } else {
                u64::from(options.prefetch).saturating_sub(consumer.unacked)
            };
            sum.saturating_add(credit)
        })
    }

    /// Whether exclusive use keeps such a consumer out (amqp-behaviour 2.4, consume step 5).
    pub(super) fn refuses(&self, options: ConsumerOptions) -> bool {
        self.exclusive || (options.exclusive && (self.single.is_some() || self.len() > 0))
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
            metered: false,
            room: None,
            pending: Vec::new(),
        };
        self.all.insert(id, consumer);
        if let Some(single) = &mut self.single
            && *single.active.get_or_insert(id) != id
        {
            single.waiting.insert((Reverse(options.priority), id));
        }
        self.queue_up(id);
        self.give_way();
        id
    }

    /// The single active consumer is asked to stop, for one of a higher priority: it gets nothing more, and when it has
    /// settled what it holds, the other takes over.
    fn give_way(&mut self) {
        let Some(single) = &mut self.single else { return };
        let Some(active) = single.active.filter(|_| single.is_outranked(&self.all)) else {
            return;
        };
        let Some(consumer) = self.all.get_mut(&active) else {
            return;
        };
        if consumer.in_line {
            consumer.in_line = false;
            self.line.retain(|(_, id)| *id != active);
        }
        if consumer.unacked > 0 {
            return;
        }
        single
            .waiting
            .insert((Reverse(consumer.options.priority), active));
        single.active = single.waiting.pop_first().map(|(_, next)| next);
        if let Some(next) = single.active {
            self.queue_up(next);
        }
    }

    pub(super) fn remove(&mut self, id: ConsumerId) -> bool {
        let Some(consumer) = self.all.remove(&id) else {
            return false;
        };
        if consumer.in_line {
            // Its place is passed over when its turn comes; a line of mostly such places is cleared.
            self.gone += 1;
            if self.gone > 32 && self.gone > self.all.len() {
                let all = &self.all;
                self.line.retain(|(_, waiting)| all.contains_key(waiting));
                self.gone = 0;
            }
        }
        if consumer.options.exclusive {
            self.exclusive = false;
        }
        if let Some(single) = &mut self.single {
            single.waiting.remove(&(Reverse(consumer.options.priority), id));
            if single.active == Some(id) {
                single.active = single.waiting.pop_first().map(|(_, next)| next);
            }
            // The next one, or the same again, when it was to give way to the one that went.
            if let Some(active) = single.active {
                self.queue_up(active);
            }
        }
        true
    }

    pub(super) fn cancel_all(&mut self) {
        self.line.clear();
        self.gone = 0;
        self.exclusive = false;
        if let Some(single) = &mut self.single {
            *single = Single {
                yields: single.yields,
                ..Single::default()
            };
        }
        for (_, consumer) in self.all.drain() {
            consumer.port.cancelled();
        }
    }

    /// A run of deliveries to the consumer whose turn it is, if any can take a message. [`Self::end`] ends it.
    #[inline]
    pub(super) fn begin(&mut self) -> Option<Run> {
        let alone = self.line.len() == 1;
        while let Some(&(_, id)) = self.line.front() {
            let Some(consumer) = self.all.get_mut(&id) else {
                self.line.pop_front();
                self.gone = self.gone.saturating_sub(1);
                continue;
            };
            if consumer.room.is_none() {
                consumer.room = Some(consumer.port.room());
                consumer.metered = consumer.port.metered();
                self.touched.push(id);
            }
            let has_room = consumer.room > Some(0);
            if has_room && (!consumer.metered || consumer.port.reserve(id)) {
                let options = consumer.options;
                let credit = match options.prefetch {
                    _ if !alone || consumer.metered => 1,
                    limit if limit > 0 && !options.no_ack => {
                        u64::from(limit).saturating_sub(consumer.unacked)
                    }
                    _ => u64::MAX,
                };
                return Some(Run {
                    id,
                    acks: !options.no_ack,
                    reserved: consumer.metered,
                    deliveries: std::mem::take(&mut consumer.pending),
                    room: consumer.room.unwrap_or(0),
                    credit,
                    given: 0,
                    bytes: self.pending_bytes,
                });
            }
            // What it was given in this dispatch takes its room; only the port knows when it has some again.
            consumer.port.deliver(id, &mut consumer.pending);
            consumer.room = None;
            if has_room || consumer.port.stall(id) {
                consumer.stalled = true;
                consumer.in_line = false;
                self.line.pop_front();
            }
        }
        None
    }

    /// Ends the turn of the consumer at the front of the line.
    #[inline]
    pub(super) fn end(&mut self, run: Run) {
        let Some(consumer) = self.all.get_mut(&run.id) else {
            return;
        };
        consumer.room = Some(run.room);
        consumer.pending = run.deliveries;
        if run.acks {
            consumer.unacked += run.given;
        }
        self.pending_bytes = run.bytes;
        let (priority, credit) = (consumer.options.priority, consumer.has_credit());
        if self.line.len() > 1 || !credit {
            self.line.pop_front();
            consumer.in_line = credit;
            if credit {
                insert(&mut self.line, priority, run.id);
            }
        }
        if self.pending_bytes > HAND_OVER_BYTES {
            self.flush();
        }
    }

    /// Hands over what this dispatch gave out.
    pub(super) fn flush(&mut self) {
        self.pending_bytes = 0;
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
            if self.single.is_some() {
                self.give_way();
            }
        }
    }

    /// A stalled consumer tries again.
    pub(super) fn resume(&mut self, id: ConsumerId) {
        if let Some(consumer) = self.all.get_mut(&id) {
            consumer.stalled = false;
            self.queue_up(id);
        }
    }

    fn queue_up(&mut self, id: ConsumerId) {
        if self
            .single
            .as_ref()
            .is_some_and(|single| single.active != Some(id) || single.is_outranked(&self.all))
        {
            return;
        }
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
    if line.back().is_none_or(|(last, _)| *last >= priority) {
        line.push_back((priority, id));
        return;
    }
    let at = line.partition_point(|(other, _)| *other >= priority);
    line.insert(at, (priority, id));
}
