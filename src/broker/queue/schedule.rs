//! What a holding queue holds, by the time at which it is due. The store keeps it in that order, so memory needs only what
//! is due soon: everything stored that lies before the `edge` is here, everything behind it is read when its time comes
//! near. A message that is far off costs no memory at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::broker::{
    ids::{QueueId, Seq, Timestamp},
    message::Message,
    queue::{Place, Port, QueueState, Reason, dead_letter::DeadLetter},
};

/// Messages are read so long before they are due.
const LEAD_MS: u64 = 2000;
/// Memory that messages may take here; beyond it the latest of the stored ones are left to the store.
const NEAR_MAX_BYTES: usize = 16 * 1024 * 1024;
/// What an entry costs beside its message.
const ENTRY_BYTES: usize = 96;
/// How long nothing is let go when those who take it do not keep up.
const PAUSE_MS: u64 = 10;

/// When a message is due, and its number among those of the queue.
pub type Turn = (Timestamp, Seq);

/// A message that waits in memory.
#[derive(Clone)]
struct Near {
    message: Message,
    stored: bool,
}

/// A read that the caller must ask the store for: from the first turn on, of what is due before the second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleRead {
    pub queue: QueueId,
    pub from: Turn,
    pub until: Timestamp,
}

/// The store's answer.
pub struct ScheduleLoaded {
    pub from: Turn,
    pub until: Timestamp,
    /// Ascending.
    pub entries: Vec<(Turn, Message)>,
    /// The first one that was not read, be it due later than asked for.
    pub next: Option<Turn>,
}

/// What waits for its time.
#[derive(Default)]
pub(super) struct Schedule {
    near: BTreeMap<Turn, Near>,
    near_bytes: usize,
    /// Every stored message before this turn is in `near`.
    edge: Turn,
    /// When the first stored message behind the edge is due, as far as is known.
    beyond: Timestamp,
    /// The same, of those that came since the read under way began.
    beyond_read: Timestamp,
    reading: Option<(Turn, Timestamp)>,
    /// Behind the edge and not there any more, although a read may still bring them.
    gone: BTreeSet<Turn>,
    count: u64,
    bytes: u64,
    paused_until: Timestamp,
}

fn cost(message: &Message) -> usize {
    message.memory_bytes() + ENTRY_BYTES
}

impl Schedule {
    /// As a restart finds it: all of it in the store.
    pub(super) fn recovered(count: u64, bytes: u64) -> Self {
        Self {
            count,
            bytes,
            beyond: Timestamp(u64::from(count > 0)),
            ..Self::default()
        }
    }

    fn add(&mut self, turn: Turn, message: Message, stored: bool) {
        self.count += 1;
        self.bytes += message.body_len();
        let being_read = self.reading.is_some_and(|(_, until)| turn.0 < until);
        if !stored || turn < self.edge || being_read {
            self.keep(turn, message, stored);
        } else {
            self.beyond = self.beyond.earlier(turn.0);
            self.beyond_read = self.beyond_read.earlier(turn.0);
        }
    }

    fn keep(&mut self, turn: Turn, message: Message, stored: bool) {
        let bytes = cost(&message);
        if self.near.insert(turn, Near { message, stored }).is_none() {
            self.near_bytes += bytes;
        }
    }

    fn take(&mut self, turn: Turn) -> Option<Near> {
        let near = self.near.remove(&turn)?;
        self.near_bytes -= cost(&near.message);
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(near.message.body_len());
        if turn >= self.edge && near.stored {
            self.gone.insert(turn);
        }
        Some(near)
    }

    /// Leaves the latest stored messages to the store when there are too many here.
    fn spill(&mut self) {
        if self.near_bytes <= NEAR_MAX_BYTES || self.reading.is_some() {
            return;
        }
        let mut left = Vec::new();
        let mut bytes = self.near_bytes;
        for (turn, near) in self.near.iter().rev().filter(|(_, near)| near.stored) {
            if bytes <= NEAR_MAX_BYTES / 2 {
                break;
            }
            bytes -= cost(&near.message);
            left.push(*turn);
        }
        for turn in &left {
            self.near.remove(turn);
        }
        self.near_bytes = bytes;
        if let Some(first) = left.last() {
            self.edge = *first;
            self.beyond = self.beyond.earlier(first.0);
        }
    }

    /// Moves the edge on; gives what has to be read for that.
    fn advance(&mut self, now: Timestamp) -> Option<(Turn, Timestamp)> {
        if self.reading.is_some() {
            return None;
        }
        self.spill();
        let until = now.after(LEAD_MS);
        if self.edge.0 >= until || self.near_bytes > NEAR_MAX_BYTES / 2 {
            return None;
        }
        if !self.beyond.is_some() || self.beyond >= until {
            self.edge = (until, Seq(0));
            return None;
        }
        self.reading = Some((self.edge, until));
        self.beyond_read = Timestamp::NONE;
        self.reading
    }

    fn loaded(&mut self, loaded: ScheduleLoaded) {
        if self.reading != Some((loaded.from, loaded.until)) {
            return;
        }
        self.reading = None;
        for (turn, message) in loaded.entries {
            if !self.gone.contains(&turn) {
                self.keep(turn, message, true);
            }
        }
        let end = (loaded.until, Seq(0));
        self.edge = loaded.next.map_or(end, |next| next.min(end));
        let next = loaded.next.map_or(Timestamp::NONE, |(due, _)| due);
        self.beyond = next.earlier(self.beyond_read);
        self.gone = self.gone.split_off(&self.edge);
    }

    /// When to look again.
    fn next_wake(&self) -> Timestamp {
        let first = self.near.first_key_value().map(|(turn, _)| *turn);
        let first = first.filter(|turn| self.reading.is_none() || *turn < self.edge);
        let due = first.map_or(Timestamp::NONE, |(due, _)| due.max(self.paused_until));
        let read = match self.reading {
            None if self.beyond.is_some() && self.near_bytes <= NEAR_MAX_BYTES / 2 => {
                Timestamp(self.beyond.0.saturating_sub(LEAD_MS).max(1))
            }
            _ => Timestamp::NONE,
        };
        due.earlier(read)
    }
}

impl<P: Port> QueueState<P> {
    /// Puts a message among those that wait for their time; gives its place, none once the queue is deleted.
    pub fn schedule(&mut self, message: Message, due: Timestamp) -> Option<Place> {
        if self.deleted {
            return None;
        }
        let seq = self.next_seq;
        self.next_seq = seq.next();
        let stored = self.stores(&message);
        let schedule = self.schedule.get_or_insert_default();
        schedule.add((due, seq), message, stored);
        Some(Place { seq, lane: 0 })
    }

    /// Messages that wait for their time, and their bodies.
    pub fn scheduled(&self) -> (u64, u64) {
        self.schedule
            .as_ref()
            .map_or((0, 0), |schedule| (schedule.count, schedule.bytes))
    }

    /// Lets messages go whose time has come, at most so many; asks for the read that the next ones need.
    pub fn let_go(&mut self, now: Timestamp, at_most: usize) -> Option<ScheduleRead> {
        let schedule = self.schedule.as_deref_mut()?;
        let mut read = schedule.advance(now);
        let mut left = at_most;
        while let Some((turn, _)) = schedule.near.first_key_value().map(|(turn, near)| (*turn, near))
            && turn.0 <= now
            && turn < schedule.edge
        {
            if left == 0 {
                if at_most == 0 {
                    schedule.paused_until = now.after(PAUSE_MS);
                }
                break;
            }
            left -= 1;
            if let Some(near) = schedule.take(turn)
                && let Some(route) = &self.settings.dead_letter
            {
                self.dying.0 += 1;
                self.dying.1 += near.message.body_len();
                self.dead.push(DeadLetter {
                    message: near.message,
                    reason: Reason::Due,
                    seq: turn.1,
                    route: Arc::clone(route),
                    stored: near.stored.then_some(Place { seq: turn.1, lane: 0 }),
                    due: turn.0,
                });
            }
        }
        if read.is_none() {
            read = schedule.advance(now);
        }
        let queue = self.id;
        read.map(|(from, until)| ScheduleRead { queue, from, until })
    }

    /// The store's answer to a read of [`Self::let_go`].
    pub fn schedule_loaded(&mut self, loaded: ScheduleLoaded) {
        if let Some(schedule) = &mut self.schedule {
            schedule.loaded(loaded);
        }
    }

    /// A read failed; the next demand asks again.
    pub(super) fn schedule_read_failed(&mut self) {
        if let Some(schedule) = &mut self.schedule {
            schedule.reading = None;
        }
    }

    /// When something here is due or must be read.
    pub(super) fn schedule_wake(&self) -> Timestamp {
        self.schedule
            .as_ref()
            .map_or(Timestamp::NONE, |schedule| schedule.next_wake())
    }

    pub(super) fn schedule_bytes(&self) -> usize {
        self.schedule.as_ref().map_or(0, |schedule| schedule.near_bytes)
    }

    /// Takes a waiting message out. `on_disk` is what the store found under this turn, asked for after everything that
    /// was logged before. Gives the message and whether the store keeps it; `None` when it does not wait any more.
    pub fn unschedule(&mut self, turn: Turn, on_disk: Option<Message>) -> Option<(Message, bool)> {
        let schedule = self.schedule.as_deref_mut()?;
        if let Some(near) = schedule.take(turn) {
            return Some((near.message, near.stored));
        }
        let message = on_disk.filter(|_| turn >= schedule.edge)?;
        if !schedule.gone.insert(turn) {
            return None;
        }
        if schedule.reading.is_none() {
            // What is logged from now on is what a later read sees.
            schedule.gone.remove(&turn);
        }
        schedule.count = schedule.count.saturating_sub(1);
        schedule.bytes = schedule.bytes.saturating_sub(message.body_len());
        Some((message, true))
    }

    /// Waiting messages that only memory holds, from a turn on, ascending.
    pub fn unstored_from(&self, from: Turn) -> impl Iterator<Item = (Turn, &Message)> {
        let near = self
            .schedule
            .iter()
            .flat_map(move |schedule| schedule.near.range(from..));
        near.filter(|(_, near)| !near.stored)
            .map(|(turn, near)| (*turn, &near.message))
    }
}
