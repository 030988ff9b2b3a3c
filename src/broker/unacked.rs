//! A channel's deliveries awaiting ack: which tag stands for which message of which queue.

use std::collections::VecDeque;

use crate::broker::{
    ack_timeouts::{AckTimeouts, Holder},
    error::BrokerError,
    ids::Timestamp,
    queue::{ConsumerId, Entry},
};

/// A delivery that its consumer has not settled.
pub struct UnackedDelivery<Q> {
    pub queue: Q,
    /// `None` for basic.get, which takes no consumer's credit.
    pub consumer: Option<ConsumerId>,
    pub entry: Entry,
}

/// One channel's ledger. Tags come from 1 and count every delivery, also those that need no ack.
pub struct Unacked<Q> {
    next_tag: u64,
    /// Ascending by tag; settled ones stay as `None` until they reach the front.
    slots: VecDeque<(u64, Option<UnackedDelivery<Q>>)>,
    outstanding: usize,
    /// `basic.qos` with global on; hardly any channel has it.
    limit: Option<Box<ChannelLimit<Q>>>,
    /// Until when deliveries must be settled; nothing before somebody asks.
    timeouts: Option<Box<AckTimeouts>>,
}

/// How much all consumers of a channel may hold together (amqp-behaviour 2.4).
struct ChannelLimit<Q> {
    max: u64,
    /// Deliveries to consumers that are not settled. Those of basic.get do not count.
    held: u64,
    /// Leave given, and the delivery not entered yet.
    reserved: u64,
    /// Consumers that were refused leave. Each is here once: it stays out of its queue's line until it is resumed.
    waiting: Vec<(Q, ConsumerId)>,
}

impl<Q> ChannelLimit<Q> {
    fn is_reached(&self) -> bool {
        self.held + self.reserved >= self.max
    }

    fn settled(&mut self, delivery: &UnackedDelivery<Q>) {
        if delivery.consumer.is_some() {
            self.held = self.held.saturating_sub(1);
        }
    }
}

impl<Q> Default for Unacked<Q> {
    fn default() -> Self {
        Self {
            next_tag: 1,
            slots: VecDeque::new(),
            outstanding: 0,
            limit: None,
            timeouts: None,
        }
    }
}

impl<Q> Unacked<Q> {
    /// The tag of the next delivery that needs no ack.
    pub fn skip(&mut self) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        tag
    }

    /// Enters a delivery and gives its tag. `reserved` when leave was given for it.
    pub fn add(&mut self, delivery: UnackedDelivery<Q>, reserved: bool) -> u64 {
        let tag = self.skip();
        if let Some(limit) = &mut self.limit {
            limit.reserved = limit.reserved.saturating_sub(u64::from(reserved));
            limit.held += u64::from(delivery.consumer.is_some());
        }
        self.slots.push_back((tag, Some(delivery)));
        self.outstanding += 1;
        tag
    }

    /// Deliveries not settled.
    pub fn len(&self) -> usize {
        self.outstanding
    }

    pub fn is_empty(&self) -> bool {
        self.outstanding == 0
    }

    /// Limits what all consumers of the channel hold together, what they hold already included; 0 ends the limit. Gives
    /// the consumers to resume.
    #[must_use]
    pub fn set_limit(&mut self, max: u16) -> Vec<(Q, ConsumerId)> {
        let waiting = self.limit.take().map(|limit| limit.waiting).unwrap_or_default();
        if max > 0 {
            let outstanding = self.slots.iter().filter_map(|(_, delivery)| delivery.as_ref());
            let held = outstanding.filter(|delivery| delivery.consumer.is_some()).count();
            self.limit = Some(Box::new(ChannelLimit {
                max: max.into(),
                held: held as u64,
                reserved: 0,
                waiting: Vec::new(),
            }));
        }
        waiting
    }

    /// A limit for all consumers together is on.
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Leave for one more delivery. When the limit is reached the consumer is noted, for
    /// [`Self::take_resumable`] to name it.
    pub fn reserve(&mut self, waiter: impl FnOnce() -> Option<(Q, ConsumerId)>) -> bool {
        let Some(limit) = &mut self.limit else {
            return true;
        };
        if limit.is_reached() {
            limit.waiting.extend(waiter());
            return false;
        }
        limit.reserved += 1;
        true
    }

    /// After deliveries were settled: the consumers that waited for it.
    #[must_use]
    pub fn take_resumable(&mut self) -> Vec<(Q, ConsumerId)> {
        match &mut self.limit {
            Some(limit) if !limit.is_reached() => std::mem::take(&mut limit.waiting),
            _ => Vec::new(),
        }
    }

    /// Takes out what an ack, nack or reject settles, in tag order. Tag 0 with `multiple` is everything
    /// (amqp-behaviour 2.4).
    ///
    /// # Errors
    /// [`BrokerError::UnknownDeliveryTag`]; also for `multiple` when the tag itself is not outstanding.
    pub fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        mut settled: impl FnMut(u64, UnackedDelivery<Q>),
    ) -> Result<(), BrokerError> {
        if tag == 0 && multiple {
            self.outstanding = 0;
            for (tag, delivery) in self.slots.drain(..) {
                if let Some(delivery) = delivery {
                    if let Some(limit) = &mut self.limit {
                        limit.settled(&delivery);
                    }
                    settled(tag, delivery);
                }
            }
            return Ok(());
        }
        let Ok(at) = self.slots.binary_search_by_key(&tag, |(tag, _)| *tag) else {
            return self.settle_late(tag, multiple, settled);
        };
        let Some((_, slot)) = self.slots.get_mut(at) else {
            return Err(BrokerError::UnknownDeliveryTag(tag));
        };
        if slot.is_none() {
            return self.settle_late(tag, multiple, settled);
        }
        if multiple {
            for (tag, delivery) in self.slots.drain(..=at) {
                if let Some(delivery) = delivery {
                    self.outstanding -= 1;
                    if let Some(limit) = &mut self.limit {
                        limit.settled(&delivery);
                    }
                    settled(tag, delivery);
                }
            }
        } else if let Some(delivery) = slot.take() {
            self.outstanding -= 1;
            if let Some(limit) = &mut self.limit {
                limit.settled(&delivery);
            }
            settled(tag, delivery);
        }
        self.tidy();
        Ok(())
    }

    /// A tag that is not outstanding: that is forgiven when its delivery was taken back.
    #[cold]
    fn settle_late(
        &mut self,
        tag: u64,
        multiple: bool,
        mut settled: impl FnMut(u64, UnackedDelivery<Q>),
    ) -> Result<(), BrokerError> {
        let timeouts = self.timeouts.as_mut();
        if !timeouts.is_some_and(|timeouts| timeouts.is_forgiven(tag)) {
            return Err(BrokerError::UnknownDeliveryTag(tag));
        }
        while multiple
            && let Some(first) = self.oldest().filter(|first| *first < tag)
            && let Some(delivery) = self.take(first)
        {
            settled(first, delivery);
        }
        Ok(())
    }

    /// The tag of the next delivery.
    pub fn next_tag(&self) -> u64 {
        self.next_tag
    }

    /// The lowest tag that is outstanding.
    fn oldest(&self) -> Option<u64> {
        let mut slots = self.slots.iter();
        slots
            .find(|(_, delivery)| delivery.is_some())
            .map(|(tag, _)| *tag)
    }

    /// An outstanding delivery.
    ///
    /// # Errors
    /// [`BrokerError::UnknownDeliveryTag`].
    pub fn get(&self, tag: u64) -> Result<&UnackedDelivery<Q>, BrokerError> {
        let at = self.slots.binary_search_by_key(&tag, |(tag, _)| *tag).ok();
        let slot = at.and_then(|at| self.slots.get(at));
        slot.and_then(|(_, delivery)| delivery.as_ref())
            .ok_or(BrokerError::UnknownDeliveryTag(tag))
    }

    /// Everything outstanding, in tag order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &UnackedDelivery<Q>)> {
        let slots = self.slots.iter();
        slots.filter_map(|(tag, delivery)| Some((*tag, delivery.as_ref()?)))
    }

    /// Called now and then, so that it can be told how old deliveries are.
    pub fn note_age(&mut self, now: Timestamp) {
        let next = self.next_tag;
        match (self.oldest(), &mut self.timeouts) {
            (Some(oldest), timeouts) => timeouts.get_or_insert_default().note_age(now, next, oldest),
            (None, Some(timeouts)) => timeouts.note_age(now, next, next),
            (None, None) => {}
        }
    }

    /// Between which times a delivery was handed out, as far as marks were set; [`Timestamp::NONE`] where none was.
    pub fn handed_out(&self, tag: u64) -> (Timestamp, Timestamp) {
        let timeouts = self.timeouts.as_ref();
        timeouts.map_or((Timestamp::NONE, Timestamp::NONE), |timeouts| {
            timeouts.handed_out(tag)
        })
    }

    /// Takes one delivery out.
    pub fn take(&mut self, tag: u64) -> Option<UnackedDelivery<Q>> {
        self.get(tag).ok()?;
        let mut taken = None;
        self.settle(tag, false, |_, delivery| taken = Some(delivery))
            .ok()?;
        taken
    }

    /// What the holder got from the tag `first` on is due in so many milliseconds; gives when.
    pub fn note_timeout(&mut self, holder: Holder, first: u64, timeout_ms: u64, now: Timestamp) -> Timestamp {
        let (last, oldest) = (self.next_tag - 1, self.oldest().unwrap_or(self.next_tag));
        let timeouts = self.timeouts.get_or_insert_default();
        timeouts.note(holder, (first, last), timeout_ms, now, oldest)
    }

    /// An outstanding delivery is due at this time, whatever its timeout was. Gives when the first of all is.
    ///
    /// # Errors
    /// [`BrokerError::UnknownDeliveryTag`].
    pub fn extend(&mut self, tag: u64, until: Timestamp) -> Result<Timestamp, BrokerError> {
        self.get(tag)?;
        let mut timeouts = self.timeouts.take().unwrap_or_default();
        timeouts.extend(tag, until);
        if timeouts.extended_len() > 64 + 2 * self.outstanding {
            timeouts.retain_extended(|tag| self.get(tag).is_ok());
        }
        self.timeouts = Some(timeouts);
        Ok(self.next_due())
    }

    /// When the first delivery with a timeout of its own is due.
    pub fn next_due(&self) -> Timestamp {
        match (&self.timeouts, self.oldest()) {
            (Some(timeouts), Some(oldest)) => timeouts.next_due(oldest),
            _ => Timestamp::NONE,
        }
    }

    /// Called now and then for the timeout that holds for all. True when a delivery may be older, for
    /// [`Self::overdue`] to find.
    pub fn mark(&mut self, now: Timestamp, timeout_ms: u64) -> bool {
        let Some(oldest) = self.oldest() else {
            if let Some(timeouts) = &mut self.timeouts {
                timeouts.clear_marks();
            }
            return false;
        };
        let timeouts = self.timeouts.get_or_insert_default();
        timeouts.mark(now, self.next_tag, timeout_ms);
        timeouts.older_than(timeout_ms, now) > oldest
    }

    /// The outstanding deliveries whose time is over, ascending. `default_ms` holds for those for which `has_own` is
    /// false; `None` is for ever.
    pub fn overdue(
        &mut self,
        now: Timestamp,
        default_ms: Option<u64>,
        holder: impl Fn(&UnackedDelivery<Q>) -> Holder,
        has_own: impl Fn(&UnackedDelivery<Q>) -> bool,
    ) -> Vec<u64> {
        let Some(mut timeouts) = self.timeouts.take() else {
            return Vec::new();
        };
        let mut overdue = timeouts.take_due_extensions(now);
        overdue.retain(|tag| self.get(*tag).is_ok());
        for (of, first, last) in timeouts.take_due_runs(now) {
            overdue.extend(self.between(first, last).filter_map(|(tag, delivery)| {
                (holder(delivery) == of && timeouts.extension(tag).is_none()).then_some(tag)
            }));
        }
        if let Some(default_ms) = default_ms {
            let older = timeouts.older_than(default_ms, now);
            let old = self.between(0, older.saturating_sub(1));
            let old = old.filter(|(_, delivery)| !has_own(delivery));
            overdue.extend(
                old.map(|(tag, _)| tag)
                    .filter(|tag| timeouts.extension(*tag).is_none()),
            );
        }
        self.timeouts = Some(timeouts);
        overdue.sort_unstable();
        overdue.dedup();
        overdue
    }

    /// Outstanding deliveries from one tag to another.
    fn between(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, &UnackedDelivery<Q>)> {
        let from = self.slots.partition_point(|(tag, _)| *tag < first);
        let slots = self.slots.iter().skip(from);
        slots
            .take_while(move |(tag, _)| *tag <= last)
            .filter_map(|(tag, delivery)| Some((*tag, delivery.as_ref()?)))
    }

    /// Takes back a delivery whose time is over; a late ack of it is forgiven.
    pub fn take_overdue(&mut self, tag: u64) -> Option<UnackedDelivery<Q>> {
        let taken = self.take(tag)?;
        self.timeouts.get_or_insert_default().forgive(tag);
        Some(taken)
    }

    /// A settled delivery is outstanding again under its tag: its transaction was rolled back.
    pub fn restore(&mut self, tag: u64, delivery: UnackedDelivery<Q>) {
        if let Some(limit) = &mut self.limit {
            limit.held += u64::from(delivery.consumer.is_some());
        }
        match self.slots.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => {
                if let Some((_, slot)) = self.slots.get_mut(at) {
                    *slot = Some(delivery);
                }
            }
            Err(at) => self.slots.insert(at, (tag, Some(delivery))),
        }
        self.outstanding += 1;
    }

    /// Everything outstanding, in tag order: the channel closes or recovers.
    pub fn take_all(&mut self) -> Vec<UnackedDelivery<Q>> {
        self.outstanding = 0;
        if let Some(limit) = &mut self.limit {
            limit.held = 0;
        }
        self.slots
            .drain(..)
            .filter_map(|(_, delivery)| delivery)
            .collect()
    }

    /// Settled slots leave at the front; when one old delivery holds up many settled ones, they are squeezed out.
    fn tidy(&mut self) {
        while self.slots.front().is_some_and(|(_, delivery)| delivery.is_none()) {
            self.slots.pop_front();
        }
        if self.slots.len() > 64 && self.slots.len() > 4 * self.outstanding {
            self.slots.retain(|(_, delivery)| delivery.is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{
        ids::{Seq, Timestamp},
        message::{Message, MessageParts},
    };

    fn delivery(seq: u64) -> UnackedDelivery<()> {
        let parts = MessageParts {
            exchange: b"",
            routing_key: b"q",
            properties: &[0, 0],
            persistent: false,
            priority: 0,
        };
        let message = Message::new(&parts, b"", &mut Vec::new());
        UnackedDelivery {
            queue: (),
            consumer: None,
            entry: Entry {
                seq: Seq(seq),
                lane: 0,
                message,
                redelivered: false,
                stored: false,
                expires_at: Timestamp::NONE,
                acquired: 0,
                failed: 0,
            },
        }
    }

    fn settle(ledger: &mut Unacked<()>, tag: u64, multiple: bool) -> Result<Vec<u64>, BrokerError> {
        let mut seqs = Vec::new();
        ledger.settle(tag, multiple, |_, delivery| seqs.push(delivery.entry.seq.0))?;
        Ok(seqs)
    }

    #[test]
    fn tags_are_settled_once_and_only_when_outstanding() {
        let mut ledger = Unacked::default();
        for seq in 1..=5 {
            ledger.add(delivery(seq), false);
        }
        assert_eq!(ledger.skip(), 6);
        ledger.add(delivery(7), false);
        assert_eq!(settle(&mut ledger, 2, false), Ok(vec![2]));
        assert_eq!(
            settle(&mut ledger, 2, false),
            Err(BrokerError::UnknownDeliveryTag(2))
        );
        assert_eq!(
            settle(&mut ledger, 2, true),
            Err(BrokerError::UnknownDeliveryTag(2)),
            "its own tag is gone"
        );
        assert_eq!(
            settle(&mut ledger, 6, false),
            Err(BrokerError::UnknownDeliveryTag(6)),
            "needed no ack"
        );
        assert_eq!(settle(&mut ledger, 4, true), Ok(vec![1, 3, 4]));
        assert_eq!(
            settle(&mut ledger, 0, false),
            Err(BrokerError::UnknownDeliveryTag(0))
        );
        assert_eq!(settle(&mut ledger, 0, true), Ok(vec![5, 7]));
        assert_eq!(
            settle(&mut ledger, 0, true),
            Ok(vec![]),
            "none outstanding is fine"
        );
    }

    #[test]
    fn one_old_delivery_does_not_keep_the_room_of_later_ones() {
        let mut ledger = Unacked::default();
        ledger.add(delivery(0), false);
        for seq in 1..10_000 {
            let tag = ledger.add(delivery(seq), false);
            settle(&mut ledger, tag, false).unwrap();
        }
        assert!(ledger.slots.len() < 100, "{} slots", ledger.slots.len());
        assert_eq!(ledger.len(), 1);
        assert_eq!(settle(&mut ledger, 1, false), Ok(vec![0]));
    }

    #[test]
    fn a_channels_limit_counts_what_its_consumers_hold() {
        let held = |seq| UnackedDelivery {
            consumer: Some(ConsumerId(1)),
            ..delivery(seq)
        };
        let waiter = || Some(((), ConsumerId(1)));
        let mut ledger = Unacked::default();
        ledger.add(held(1), false);
        ledger.add(delivery(2), false);
        assert!(ledger.set_limit(2).is_empty());
        assert!(ledger.reserve(waiter), "one is held, basic.get does not count");
        assert!(!ledger.reserve(waiter), "the other place is given away");
        let tag = ledger.add(held(3), true);
        assert!(!ledger.reserve(waiter), "and taken");
        assert!(ledger.take_resumable().is_empty());
        assert_eq!(settle(&mut ledger, 2, false), Ok(vec![2]));
        assert!(
            ledger.take_resumable().is_empty(),
            "what basic.get got makes no room"
        );
        assert_eq!(settle(&mut ledger, tag, false), Ok(vec![3]));
        assert_eq!(ledger.take_resumable().len(), 2);
        assert!(ledger.reserve(waiter));
        assert!(!ledger.reserve(waiter));
        assert_eq!(ledger.set_limit(0).len(), 1, "without a limit nobody waits");
        assert!(ledger.reserve(waiter));
    }

    const QUEUE: crate::broker::ids::QueueId = crate::broker::ids::QueueId(1);

    fn overdue(ledger: &mut Unacked<()>, now: u64, default_ms: Option<u64>) -> Vec<u64> {
        let holder = |delivery: &UnackedDelivery<()>| (QUEUE, delivery.consumer);
        ledger.overdue(Timestamp(now), default_ms, holder, |delivery| {
            delivery.consumer.is_some()
        })
    }

    #[test]
    fn each_consumer_has_its_own_time() {
        let mut ledger = Unacked::default();
        let (slow, fast) = (Some(ConsumerId(1)), Some(ConsumerId(2)));
        let held = |consumer| UnackedDelivery {
            consumer,
            ..delivery(1)
        };
        let mut note = |consumer, timeout_ms, now| {
            let tag = ledger.add(held(consumer), false);
            ledger.note_timeout((QUEUE, consumer), tag, timeout_ms, Timestamp(now));
            tag
        };
        let (a, b, c) = (note(slow, 100, 0), note(fast, 10, 0), note(slow, 100, 5));
        assert_eq!(ledger.next_due(), Timestamp(10));
        assert!(overdue(&mut ledger, 9, None).is_empty());
        assert_eq!(overdue(&mut ledger, 50, None), [b]);
        assert!(ledger.take_overdue(b).is_some());
        ledger.extend(a, Timestamp(500)).unwrap();
        assert_eq!(overdue(&mut ledger, 200, None), [c]);
        assert!(overdue(&mut ledger, 499, None).is_empty());
        assert_eq!(overdue(&mut ledger, 500, None), [a]);
        assert_eq!(
            settle(&mut ledger, b, false),
            Ok(vec![]),
            "a late ack is forgiven"
        );
        assert!(settle(&mut ledger, b, false).is_err(), "once");
    }

    #[test]
    fn a_late_ack_of_several_settles_those_below() {
        let mut ledger = Unacked::default();
        for seq in 1..=3 {
            ledger.add(delivery(seq), false);
        }
        ledger.take_overdue(2).unwrap();
        assert_eq!(settle(&mut ledger, 2, true), Ok(vec![1]));
        assert_eq!(settle(&mut ledger, 3, true), Ok(vec![3]));
    }

    #[test]
    fn marks_tell_what_is_old_without_a_time_on_each() {
        let mut ledger = Unacked::default();
        assert!(!ledger.mark(Timestamp(1), 100), "nothing is held");
        let first = ledger.add(delivery(1), false);
        assert!(!ledger.mark(Timestamp(10), 100));
        let second = ledger.add(delivery(2), false);
        assert!(!ledger.mark(Timestamp(50), 100));
        assert!(!ledger.mark(Timestamp(109), 100));
        assert!(ledger.mark(Timestamp(110), 100));
        assert_eq!(overdue(&mut ledger, 110, Some(100)), [first]);
        assert_eq!(settle(&mut ledger, first, false), Ok(vec![1]));
        assert!(!ledger.mark(Timestamp(140), 100));
        assert!(ledger.mark(Timestamp(150), 100));
        assert_eq!(overdue(&mut ledger, 150, Some(100)), [second]);
    }

    #[test]
    fn a_run_of_many_deliveries_is_noted_once() {
        let mut ledger = Unacked::default();
        for now in 0..100_000 {
            let tag = ledger.add(delivery(1), false);
            ledger.note_timeout((QUEUE, None), tag, 10_000, Timestamp(now / 10));
        }
        let timeouts = ledger.timeouts.as_ref().unwrap();
        assert!(timeouts.run_count() <= 258, "{} runs", timeouts.run_count());
    }
}
