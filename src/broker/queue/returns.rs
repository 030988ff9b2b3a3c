//! What happens to a message that comes back: its old place in a classic queue, the front in a quorum queue, a count of
//! failed attempts where there is a limit to them, a wait where retries are delayed (amqp-behaviour 4.2, 4.3).

use std::collections::{BTreeMap, VecDeque};

use crate::broker::{
    ids::{Seq, Timestamp},
    message::Message,
    queue::{
        ConsumerId, Entry, PagedIn, Place, Port, QueueState, ReadFrom, Reason, Removed, arguments::QueueKind,
        settings::QueueSettings, waiting::Waiting,
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
    /// No message among these expires earlier.
    front_deadline: Timestamp,
    waiting: Waiting,
    /// What a restart knows of messages that came back before it and were not read since.
    recalled: BTreeMap<(u8, Seq), Returned>,
    /// There were such: the places of those that were read stay with the others on disk.
    recalls: bool,
    /// Those of them that were read just now.
    read: Vec<(Timestamp, Entry)>,
}

impl Returns {
    pub(super) fn len(&self) -> u64 {
        self.front.len() as u64 + self.waiting.len()
    }

    pub(super) fn has_front(&self) -> bool {
        !self.front.is_empty()
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        self.front.pop_front()
    }

    /// When the next one has waited long enough, or is to be read because it soon will have.
    pub(super) fn next_due(&self) -> Timestamp {
        self.waiting.next_due()
    }

    /// How many wait in the store only, and their bodies.
    pub(super) fn away(&self) -> (u64, u64) {
        self.waiting.away()
    }

    /// Memory of those that wait.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.memory_bytes()
    }

    /// So many wait in memory that what is committed should leave it.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.is_crowded()
    }

    /// The store has everything up to here: what waits need not be in memory.
    pub(super) fn spill(&mut self, committed: Seq) {
        self.waiting.spill(committed);
    }

    /// The store has more than before.
    pub(super) fn committed(&mut self, through: Seq) {
        self.waiting.committed(through);
    }

    pub(super) fn read_failed(&mut self) {
        self.waiting.read_failed();
    }

    /// Behind those that came back before it.
    fn add_to_front(&mut self, entry: Entry) {
        self.front_deadline = self.front_deadline.earlier(entry.expires_at);
        self.front.push_back(entry);
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What the store knows of messages that came back before a restart.
    pub(super) fn recall(&mut self, returned: &[Returned]) {
        self.recalls = !returned.is_empty();
        self.recalled = returned
            .iter()
            .map(|returned| ((returned.lane, returned.seq), *returned))
            .collect();
    }

    /// Whether what is read again from the store may be here already.
    pub(super) fn recalls(&self) -> bool {
        self.recalls
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

    /// Those in memory, in no order that matters, with the times until which they wait.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Entry, Timestamp)> {
        let front = self.front.iter().map(|entry| (entry, Timestamp::NONE));
        front.chain(self.waiting.iter())
    }

    /// The first of those ahead of all others.
    pub(super) fn front(&self) -> Option<&Entry> {
        self.front.front()
    }

    /// What is known of those of a level that only the store has, ascending; at most so many.
    pub(super) fn known(&self, lane: u8, from: Seq, until: Seq, at_most: usize) -> Vec<Returned> {
        let mut known = self.waiting.away_between(lane, from, until, at_most);
        if from < until {
            let recalled = self.recalled.range((lane, from)..(lane, until)).take(at_most);
            known.extend(recalled.map(|(_, returned)| *returned));
        }
        known.sort_unstable_by_key(|returned| returned.seq);
        known.truncate(at_most);
        known
    }

    /// Takes out one that waits in the store only; false when it does not.
    pub(super) fn take_away(&mut self, turn: (Timestamp, Seq)) -> bool {
        self.waiting.take_away(turn)
    }

    /// Takes out the message of a place.
    pub(super) fn take(&mut self, place: Place) -> Option<Entry> {
        if let Some(at) = self.front.iter().position(|entry| entry.place() == place) {
            return self.front.remove(at);
        }
        self.waiting.take(place)
    }

    /// Takes out those whose deadline lies before `limit`, but for those that wait: they are looked at when it has come.
    pub(super) fn take_expired(&mut self, limit: Timestamp) -> Vec<Entry> {
        let mut taken = Vec::new();
        if !self.front_deadline.is_some() || self.front_deadline >= limit {
            return taken;
        }
        let mut next = Timestamp::NONE;
        self.front.retain(|entry| {
            let keep = !entry.expires_at.is_some() || entry.expires_at >= limit;
            if keep {
                next = next.earlier(entry.expires_at);
            } else {
                taken.push(entry.clone());
            }
            keep
        });
        self.front_deadline = next;
        taken
    }

    /// Before this none of them expires, but for those that wait.
    pub(super) fn next_deadline(&self) -> Timestamp {
        if self.front.is_empty() {
            Timestamp::NONE
        } else {
            self.front_deadline
        }
    }

    /// Drops all; notes the places of stored ones.
    pub(super) fn clear(&mut self, removed: &mut Removed) {
        self.recalled.clear();
        self.front.drain(..).for_each(|entry| removed.note(&entry));
        self.waiting.clear(removed);
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
            self.returns.waiting.add(due, entry);
            self.returns.spill(self.on_disk());
        } else {
            self.put_back(entry);
        }
        returned
    }

    /// A message that came back can be handed out again.
    fn put_back(&mut self, entry: Entry) {
        if self.settings.kind == QueueKind::Quorum {
            self.returns.add_to_front(entry);
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
                self.returns.waiting.add(due, entry);
            } else {
                self.put_back(entry);
            }
        }
        self.returns.spill(self.on_disk());
    }

    /// Those that have waited long enough can be handed out again; asks for the read that the next ones need.
    pub(super) fn end_waits(&mut self, now: Timestamp, removed: &mut Removed) {
        while let Some(entry) = self.returns.waiting.pop(now) {
            if entry.expires_at.is_some() && entry.expires_at <= now {
                self.ready_bytes = self.ready_bytes.saturating_sub(entry.message.body_len());
                self.discard(entry, Reason::Expired, removed);
            } else {
                self.put_back(entry);
            }
        }
        if let Some((lane, from, until)) = self.returns.waiting.read(now) {
            self.reads.push(ReadFrom {
                queue: self.id,
                lane,
                from,
                until,
                pending: false,
            });
        }
    }

    /// Takes an answer of the store that was asked for by [`Self::end_waits`], and gives back any other.
    pub(super) fn waiting_paged_in(&mut self, paged: PagedIn) -> Option<PagedIn> {
        match self.returns.waiting.answered(paged) {
            Ok(paged) => Some(paged),
            Err(lost) => {
                self.ready_bytes = self.ready_bytes.saturating_sub(lost);
                None
            }
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
