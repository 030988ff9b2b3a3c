//! A channel's deliveries awaiting ack: which tag stands for which message of which queue.

use std::collections::VecDeque;

use crate::broker::{
    error::BrokerError,
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
}

impl<Q> Default for Unacked<Q> {
    fn default() -> Self {
        Self {
            next_tag: 1,
            slots: VecDeque::new(),
            outstanding: 0,
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

    /// Enters a delivery and gives its tag.
    pub fn add(&mut self, delivery: UnackedDelivery<Q>) -> u64 {
        let tag = self.skip();
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
                    settled(tag, delivery);
                }
            }
            return Ok(());
        }
        let unknown = BrokerError::UnknownDeliveryTag(tag);
        let Ok(at) = self.slots.binary_search_by_key(&tag, |(tag, _)| *tag) else {
            return Err(unknown);
        };
        let Some((_, slot)) = self.slots.get_mut(at) else {
            return Err(unknown);
        };
        if slot.is_none() {
            return Err(unknown);
        }
        if multiple {
            for (tag, delivery) in self.slots.drain(..=at) {
                if let Some(delivery) = delivery {
                    self.outstanding -= 1;
                    settled(tag, delivery);
                }
            }
        } else if let Some(delivery) = slot.take() {
            self.outstanding -= 1;
            settled(tag, delivery);
        }
        self.tidy();
        Ok(())
    }

    /// A settled delivery is outstanding again under its tag: its transaction was rolled back.
    pub fn restore(&mut self, tag: u64, delivery: UnackedDelivery<Q>) {
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
            ledger.add(delivery(seq));
        }
        assert_eq!(ledger.skip(), 6);
        ledger.add(delivery(7));
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
        ledger.add(delivery(0));
        for seq in 1..10_000 {
            let tag = ledger.add(delivery(seq));
            settle(&mut ledger, tag, false).unwrap();
        }
        assert!(ledger.slots.len() < 100, "{} slots", ledger.slots.len());
        assert_eq!(ledger.len(), 1);
        assert_eq!(settle(&mut ledger, 1, false), Ok(vec![0]));
    }
}
