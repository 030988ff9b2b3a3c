//! What happens to a message that comes back: its old place in a classic queue, the front in a quorum queue, a count of
//! failed attempts where there is a limit to them, a wait where retries are delayed (amqp-behaviour 4.2, 4.3).

use std::collections::{BTreeMap, VecDeque};

use crate::broker::{
    ids::{Seq, Timestamp},
    message::Message,
    queue::{
        ConsumerId, Entry, Place, Port, QueueState, Reason, Removed, arguments::QueueKind,
        settings::QueueSettings,
    },
};
use crate::protocol::{
    field::FieldValue,
    properties::{Properties, PropertyError},
};

/// Why a message comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Return {
    /// basic.nack with requeue, or basic.recover: not now, and no fault of the message.
    Postponed,
    /// basic.reject with requeue, or its consumer went away with it: an attempt that failed.
    Failed,
    /// Its consumer asked for another attempt at this time, or when the queue's settings say: one that failed, and counted
    /// in every queue.
    RetryAt(Timestamp),
}

impl Return {
    fn is_failure(self) -> bool {
        self != Self::Postponed
    }
}

/// What the store keeps of a stored message that came back, until the message is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Returned {
    pub lane: u8,
    pub seq: Seq,
    /// As in [`Entry`].
    pub acquired: u16,
    pub failed: u16,
    /// Until when it waits; [`Timestamp::NONE`] when it does not.
    pub due: Timestamp,
}

/// Messages that came back and are not among the others.
#[derive(Default)]
pub(super) struct Returns {
    /// Ahead of all others, in the order in which they came back. Only in quorum queues.
    front: VecDeque<Entry>,
    /// Until when they wait for another attempt. No two with the same key: a place comes back once.
    waiting: BTreeMap<(Timestamp, Seq), Entry>,
    /// What a restart knows of messages that came back before it and were not read since.
    recalled: BTreeMap<(u8, Seq), Returned>,
    /// Those of them that were read just now.
    read: Vec<(Timestamp, Entry)>,
}

impl Returns {
    pub(super) fn len(&self) -> u64 {
        (self.front.len() + self.waiting.len()) as u64
    }

    pub(super) fn has_front(&self) -> bool {
        !self.front.is_empty()
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        self.front.pop_front()
    }

    /// When the next one has waited long enough.
    pub(super) fn next_due(&self) -> Timestamp {
        self.waiting
            .first_key_value()
            .map_or(Timestamp::NONE, |((due, _), _)| *due)
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What the store knows of messages that came back before a restart.
    pub(super) fn recall(&mut self, returned: &[Returned]) {
        self.recalled = returned
            .iter()
            .map(|returned| ((returned.lane, returned.seq), *returned))
            .collect();
    }

    /// Sets a message aside that came back before a restart, with its counts; gives back any other.
    #[inline]
    pub(super) fn not_recalled(&mut self, mut entry: Entry) -> Option<Entry> {
        if self.recalled.is_empty() {
            return Some(entry);
        }
        let Some(returned) = self.recalled.remove(&(entry.lane, entry.seq)) else {
            return Some(entry);
        };
        entry.redelivered = true;
        // If it was handed out once more before the restart, nobody knows.
        (entry.acquired, entry.failed) = (returned.acquired, returned.failed);
        self.read.push((returned.due, entry));
        None
    }

    /// All of them, in no order that matters.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.front.iter().chain(self.waiting.values())
    }

    /// Takes out the message of a place.
    pub(super) fn take(&mut self, place: Place) -> Option<Entry> {
        if let Some(at) = self.front.iter().position(|entry| entry.place() == place) {
            return self.front.remove(at);
        }
        let waiting = self.waiting.iter();
        let key = waiting
            .filter(|(_, entry)| entry.place() == place)
            .map(|(key, _)| *key)
            .next()?;
        self.waiting.remove(&key)
    }

    /// Takes out those whose deadline lies before `limit`.
    pub(super) fn take_expired(&mut self, limit: Timestamp) -> Vec<Entry> {
        let expired = |entry: &Entry| entry.expires_at.is_some() && entry.expires_at < limit;
        let mut taken = Vec::new();
        self.front.retain(|entry| {
            let keep = !expired(entry);
            if !keep {
                taken.push(entry.clone());
            }
            keep
        });
        self.waiting.retain(|_, entry| {
            let keep = !expired(entry);
            if !keep {
                taken.push(entry.clone());
            }
            keep
        });
        taken
    }

    /// The earliest deadline among them.
    pub(super) fn next_deadline(&self) -> Timestamp {
        let all = self.front.iter().chain(self.waiting.values());
        all.map(|entry| entry.expires_at)
            .fold(Timestamp::NONE, Timestamp::earlier)
    }

    /// Drops all; notes the places of stored ones.
    pub(super) fn clear(&mut self, removed: &mut Removed) {
        let waiting = std::mem::take(&mut self.waiting);
        self.recalled.clear();
        self.front
            .drain(..)
            .chain(waiting.into_values())
            .for_each(|entry| removed.note(&entry));
    }
}

impl<P: Port> QueueState<P> {
    /// Takes a delivery back. `removed` receives it when it has failed too often and is stored; otherwise the caller logs
    /// what is given back, if anything is.
    #[must_use]
    pub fn requeue(
        &mut self,
        consumer: Option<ConsumerId>,
        mut entry: Entry,
        why: Return,
        now: Timestamp,
        removed: &mut Removed,
    ) -> Option<Returned> {
        self.settle(consumer, entry.message.body_len());
        if self.deleted {
            return None;
        }
        entry.redelivered = true;
        let mut due = match why {
            Return::RetryAt(due) => due,
            Return::Postponed | Return::Failed => Timestamp::NONE,
        };
        let counted = self.settings.counts_returns() || matches!(why, Return::RetryAt(_));
        if counted {
            entry.acquired = entry.acquired.saturating_add(1);
            entry.failed = entry.failed.saturating_add(u16::from(why.is_failure()));
            let failed = u64::from(entry.failed);
            if why.is_failure() && self.settings.delivery_limit.is_some_and(|limit| failed > limit) {
                self.discard(entry, Reason::DeliveryLimit, removed);
                return None;
            }
        }
        if let Some(retry) = &self.settings.retry
            && !due.is_some()
            && let Some(ms) = retry.wait_ms(entry.seq, entry.failed, why)
        {
            due = now.after(ms);
        }
        self.ready_bytes += entry.message.body_len();
        let returned = (counted && entry.stored && self.outlives(&entry.message)).then_some(Returned {
            lane: entry.lane,
            seq: entry.seq,
            acquired: entry.acquired,
            failed: entry.failed,
            due,
        });
        if due.is_some() {
            self.returns.waiting.insert((due, entry.seq), entry);
        } else {
            self.put_back(entry);
        }
        returned
    }

    /// A message that came back can be handed out again.
    fn put_back(&mut self, entry: Entry) {
        if self.settings.kind == QueueKind::Quorum {
            self.returns.front.push_back(entry);
        } else {
            if self.expiry.is_some() {
                self.rejoined(&entry);
            }
            self.lanes.at(entry.lane).ready.put_back(entry);
        }
    }

    /// Messages that came back before a restart and have been read are where they were.
    pub(super) fn put_recalled_back(&mut self) {
        for (due, entry) in std::mem::take(&mut self.returns.read) {
            if due.is_some() {
                self.returns.waiting.insert((due, entry.seq), entry);
            } else {
                self.put_back(entry);
            }
        }
    }

    /// Those that have waited long enough can be handed out again.
    pub(super) fn end_waits(&mut self, now: Timestamp) {
        while let Some(first) = self.returns.waiting.first_entry()
            && first.key().0 <= now
        {
            let entry = first.remove();
            self.put_back(entry);
        }
    }
}

impl QueueSettings {
    /// Whether messages carry counts of their deliveries.
    pub fn counts_returns(&self) -> bool {
        self.kind == QueueKind::Quorum || self.delivery_limit.is_some() || self.retry.is_some()
    }
}

/// The message as a consumer gets it again: with the counts of its deliveries in the headers.
///
/// # Errors
/// When its properties cannot be read, which the publish had checked.
pub fn with_counts(message: &Message, acquired: u16, failed: u16) -> Result<Message, PropertyError> {
    let mut properties = Properties::decode(message.properties())?;
    let mut headers = properties.headers.take().unwrap_or_default();
    headers.insert("x-acquired-count", FieldValue::I64(acquired.into()));
    if failed > 0 {
        headers.insert("x-delivery-count", FieldValue::I64(failed.into()));
    }
    properties.headers = Some(headers.canonical());
    Ok(message.with_properties(&properties))
}
