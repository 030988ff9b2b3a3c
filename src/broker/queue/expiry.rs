//! Messages whose time ends, and the queue's own (amqp-behaviour 4.2, 4.5). A message leaves on time wherever it stands.
//!
//! Usually deadlines ascend with the messages' places, because one time to live holds for all: then the front of each
//! level is all there is to look at. Otherwise an index of deadlines is kept, of what is on disk too; what was on
//! disk before the index was needed is read once for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::broker::{
    ids::{Seq, Timestamp},
    message::Message,
    queue::{Entry, PagedIn, Place, Port, Purged, QueueState, ReadFrom, Reason, Removed, fetching::Fetching},
};

/// The store is told of messages that expired there when they are so many, or the first of them is so old. A restart
/// before finds them expired by their deadlines; so all that waiting costs is room, and it lets one write to a page
/// stand for many messages.
const LATE_MAX: usize = 64 * 1024;
const LATE_MS: u64 = 120_000;
/// With so many deadlines, those that nobody hears of when they pass are looked at on this grid: waking costs more than a
/// message. Who takes a message always looks first.
const MANY: usize = 1024;
const GRID_MS: u64 = 1000;

/// The deadlines of a queue's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadlines {
    /// In the order of the messages, none earlier than that of the one before; this is the last one.
    /// [`Timestamp::NONE`] when no message has one.
    InOrder(Timestamp),
    /// In any order, so that each message has to be looked at to know which is next.
    Mixed,
}

/// What a queue keeps once a message with a deadline has come.
pub(super) enum Expiry {
    InOrder { last: Timestamp },
    Indexed(Box<Index>),
}

/// Where a message with a deadline stands, and the bytes of its body.
type Marked = (u8, u32);

#[derive(Default)]
pub(super) struct Index {
    /// Messages by deadline. Some may be handed out or gone by now: whoever takes one looks whether it is there.
    by_deadline: BTreeMap<(Timestamp, Seq), Marked>,
    /// Parts of the store not looked at yet: level, from, until.
    unread: VecDeque<(u8, Seq, Seq)>,
    /// The part being read.
    reading: Option<(u8, Seq, Seq)>,
    /// Expired on disk and being read to be dead-lettered.
    fetching: Fetching,
    /// Taken out on disk: a read of the level that was asked for earlier, or that overtakes the store's log, may still
    /// bring them back.
    gone: BTreeSet<(u8, Seq)>,
    /// Whatever was on disk with an earlier deadline, and is not unread, has left.
    expired_through: Timestamp,
    /// Expired on disk, and the store does not know.
    late: Removed,
    late_count: usize,
    /// When the first of them expired.
    late_since: Timestamp,
}

impl Index {
    /// Whether it is not known yet what stands in this place on disk.
    fn is_unread(&self, lane: u8, seq: Seq) -> bool {
        let mut parts = self.reading.iter().chain(&self.unread);
        parts.any(|(level, from, until)| *level == lane && (*from..*until).contains(&seq))
    }

    /// Deadlines may have been found that have passed already.
    fn found_late(&mut self) {
        if let Some(((deadline, _), _)) = self.by_deadline.first_key_value() {
            self.expired_through = self.expired_through.min(*deadline);
        }
    }

    /// A message on disk expired, of which the store hears later.
    fn leave_late(&mut self, place: Place, now: Timestamp) {
        if self.late_count == 0 {
            self.late_since = now;
        }
        self.late_count += 1;
        self.late.push(place);
    }

    /// When the store must be told.
    fn late_until(&self) -> Timestamp {
        if self.late_count == 0 {
            Timestamp::NONE
        } else {
            self.late_since.after(LATE_MS)
        }
    }

    /// What the store must be told.
    fn take_late(&mut self) -> Removed {
        self.late_count = 0;
        let mut late = std::mem::take(&mut self.late);
        late.sort();
        late
    }

    /// Forgets what no read can bring any more.
    fn passed(&mut self, lane: u8, from: Option<Seq>) {
        while let Some(&place) = self.gone.range((lane, Seq(0))..=(lane, Seq(u64::MAX))).next()
            && from.is_none_or(|from| place.1 < from)
        {
            self.gone.remove(&place);
        }
    }
}

fn size(message: &Message) -> u32 {
    u32::try_from(message.body_len()).unwrap_or(u32::MAX)
}

impl<P: Port> QueueState<P> {
    /// As a restart found the deadlines of the stored messages.
    pub(super) fn recover_deadlines(&mut self, deadlines: Deadlines) {
        match deadlines {
            Deadlines::InOrder(last) if !last.is_some() => {}
            Deadlines::InOrder(last) => self.expiry = Some(Expiry::InOrder { last }),
            Deadlines::Mixed => self.build_index(),
        }
    }

    /// Whether time matters to this queue: somebody has to tell it.
    pub fn is_timed(&self) -> bool {
        self.expiry.is_some()
            || self.settings.expires_ms.is_some()
            || self.returns.is_waiting()
            || self.schedule.is_some()
    }

    /// How long a message may stay; `None` is for ever.
    pub fn lifetime_ms(&self, message: &Message) -> Option<u64> {
        if self.settings.holds.is_some() {
            // It begins when the message comes to its queue.
            return None;
        }
        let own = if message.has_expiration() {
            message.expiration_ms()
        } else {
            None
        };
        match (own, self.settings.message_ttl_ms) {
            (Some(own), Some(ttl)) => Some(own.min(ttl)),
            (own, ttl) => own.or(ttl),
        }
    }

    /// A message joined the ready ones at the end. Without deadlines in the queue this is not called.
    pub(super) fn joined(&mut self, place: Place, deadline: Timestamp, bytes: u32, alone: bool) {
        match &mut self.expiry {
            Some(Expiry::Indexed(_)) => {}
            Some(Expiry::InOrder { last }) if alone || deadline >= *last => *last = deadline,
            None if alone => self.expiry = Some(Expiry::InOrder { last: deadline }),
            _ => self.build_index(),
        }
        if let Some(Expiry::Indexed(index)) = &mut self.expiry
            && deadline.is_some()
        {
            index
                .by_deadline
                .insert((deadline, place.seq), (place.lane, bytes));
        }
    }

    /// A message that was handed out is ready again.
    pub(super) fn rejoined(&mut self, entry: &Entry) {
        if let Some(Expiry::Indexed(index)) = &mut self.expiry
            && entry.expires_at.is_some()
        {
            let mark = (entry.lane, size(&entry.message));
            index.by_deadline.insert((entry.expires_at, entry.seq), mark);
        }
    }

    /// A message is not ready any more.
    pub(super) fn left(&mut self, entry: &Entry) {
        if let Some(Expiry::Indexed(index)) = &mut self.expiry {
            index.by_deadline.remove(&(entry.expires_at, entry.seq));
        }
    }

    /// A message that only the store holds is taken out: a read under way must not bring it back. False when it was taken
    /// out before.
    pub(super) fn gone_from_disk(&mut self, place: Place) -> bool {
        match &self.expiry {
            None => self.expiry = Some(Expiry::Indexed(Box::default())),
            Some(Expiry::InOrder { .. }) => self.build_index(),
            Some(Expiry::Indexed(_)) => {}
        }
        match &mut self.expiry {
            Some(Expiry::Indexed(index)) => index.gone.insert((place.lane, place.seq)),
            _ => false,
        }
    }

    /// Deadlines are out of order from now on: all messages in memory are noted, those on disk will be read.
    fn build_index(&mut self) {
        let mut index = Index::default();
        for lane in self.lanes.iter_mut() {
            for entry in lane.ready.iter().filter(|entry| entry.expires_at.is_some()) {
                index
                    .by_deadline
                    .insert((entry.expires_at, entry.seq), (entry.lane, size(&entry.message)));
            }
            if let Some(gap) = &lane.gap
                && gap.from() < gap.until()
            {
                index.unread.push_back((lane.level, gap.from(), gap.until()));
            }
        }
        self.expiry = Some(Expiry::Indexed(Box::new(index)));
    }

    /// Removes messages whose deadline lies before `limit`; asks for reads it needs for that.
    pub(super) fn expire(&mut self, limit: Timestamp, removed: &mut Removed) {
        self.release_fetched(removed);
        for entry in self.returns.take_expired(limit) {
            self.ready_bytes = self.ready_bytes.saturating_sub(entry.message.body_len());
            self.discard(entry, Reason::Expired, removed);
        }
        match &self.expiry {
            None => {}
            Some(Expiry::InOrder { .. }) => self.expire_in_order(limit, removed),
            Some(Expiry::Indexed(_)) => {
                self.expire_indexed(limit, removed);
                self.read_for_index();
            }
        }
    }

    /// Dead-letters what was read for it, in the order of the deadlines.
    fn release_fetched(&mut self, removed: &mut Removed) {
        while let Some(Expiry::Indexed(index)) = &mut self.expiry
            && let Some(entry) = index.fetching.pop()
        {
            self.discard(entry, Reason::Expired, removed);
        }
    }

    fn expire_in_order(&mut self, limit: Timestamp, removed: &mut Removed) {
        let mut expired = Vec::new();
        for lane in self.lanes.iter_mut() {
            while lane.has_ready()
                && lane
                    .peek()
                    .is_some_and(|entry| entry.expires_at.is_some() && entry.expires_at < limit)
            {
                expired.extend(lane.pop());
            }
            if !lane.has_ready()
                && let Some(read) = lane.read_unless_reading(self.id)
            {
                self.reads.push(read);
            }
        }
        for entry in expired {
            self.ready_bytes = self.ready_bytes.saturating_sub(entry.message.body_len());
            self.discard(entry, Reason::Expired, removed);
        }
        if self.ready_count() == 0 && self.unacked == 0 {
            self.expiry = None;
        }
    }

    fn expire_indexed(&mut self, limit: Timestamp, removed: &mut Removed) {
        while let Some(Expiry::Indexed(index)) = &mut self.expiry
            && let Some(first) = index.by_deadline.first_entry()
            && first.key().0 < limit
        {
            let ((deadline, seq), &(level, bytes)) = (*first.key(), first.get());
            let lane = self.lanes.at(level);
            let on_disk = lane.gap.as_ref().is_some_and(|gap| gap.holds(seq));
            first.remove();
            if let Some(entry) = lane.ready.take(seq) {
                self.ready_bytes = self.ready_bytes.saturating_sub(entry.message.body_len());
                if index.fetching.is_empty() {
                    self.discard(entry, Reason::Expired, removed);
                } else {
                    index.fetching.add_behind(deadline, entry, bytes);
                }
            } else if on_disk && !index.gone.contains(&(level, seq)) {
                self.ready_bytes = self.ready_bytes.saturating_sub(bytes.into());
                self.lanes.disk_count = self.lanes.disk_count.saturating_sub(1);
                self.lanes.disk_bytes = self.lanes.disk_bytes.saturating_sub(bytes.into());
                if self.settings.dead_letter.is_some() {
                    index.gone.insert((level, seq));
                    index.fetching.add((deadline, seq), level, bytes);
                } else {
                    if let Some(keys) = &mut self.keys {
                        keys.forget(seq);
                    }
                    if index.is_unread(level, seq) {
                        // The read of that part would find it again.
                        index.gone.insert((level, seq));
                    }
                    index.leave_late(Place { seq, lane: level }, limit);
                }
            }
        }
        let empty = self.ready_count() == 0 && self.unacked == 0 && !self.lanes.is_paged();
        let Some(Expiry::Indexed(index)) = &mut self.expiry else {
            return;
        };
        while let Some((lane, from, until)) = index.fetching.next_read() {
            self.reads.push(ReadFrom {
                queue: self.id,
                lane,
                from,
                until,
                pending: false,
            });
        }
        index.expired_through = index.expired_through.max(limit);
        let over = empty && index.fetching.is_empty() && index.reading.is_none();
        let long_ago = index.late_until().is_some() && index.late_until() <= limit;
        if index.late_count >= LATE_MAX || long_ago || over {
            removed.merge(index.take_late());
        }
        if over {
            self.expiry = None;
        }
    }

    /// Goes on looking at what was on disk before there was an index.
    fn read_for_index(&mut self) {
        if let Some(Expiry::Indexed(index)) = &mut self.expiry
            && index.reading.is_none()
            && let Some((lane, from, until)) = index.unread.pop_front()
        {
            index.reading = Some((lane, from, until));
            self.reads.push(ReadFrom {
                queue: self.id,
                lane,
                from,
                until,
                pending: false,
            });
        }
    }

    /// Takes an answer of the store that was asked for here, and gives back any other.
    pub(super) fn expiry_paged_in(&mut self, paged: PagedIn) -> Option<PagedIn> {
        let Some(Expiry::Indexed(index)) = &mut self.expiry else {
            return Some(paged);
        };
        let paged = index.fetching.answered(paged)?;
        if index.reading != Some((paged.lane, paged.from, paged.until)) {
            return Some(paged);
        }
        index.reading = None;
        if let Some(next) = paged.next
            && next < paged.until
        {
            index.unread.push_front((paged.lane, next, paged.until));
        }
        let mut deadlines = paged.deadlines.iter().peekable();
        for (seq, message) in &paged.entries {
            while deadlines.next_if(|(other, _)| other < seq).is_some() {}
            if let Some((_, deadline)) = deadlines.next_if(|(other, _)| other == seq)
                && !index.gone.contains(&(paged.lane, *seq))
            {
                index
                    .by_deadline
                    .insert((*deadline, *seq), (paged.lane, size(message)));
            }
        }
        index.found_late();
        None
    }

    /// Drops from an answer for a level what has left meanwhile, and notes deadlines that were not known.
    pub(super) fn drop_expired(&mut self, paged: &mut PagedIn) {
        let Some(Expiry::Indexed(index)) = &mut self.expiry else {
            return;
        };
        let lane = paged.lane;
        let mut deadlines = paged.deadlines.iter().peekable();
        paged.entries.retain(|(seq, message)| {
            while deadlines.next_if(|(other, _)| other < seq).is_some() {}
            if index.gone.contains(&(lane, *seq)) {
                return false;
            }
            let Some((_, deadline)) = deadlines.next_if(|(other, _)| other == seq) else {
                return true;
            };
            if index.is_unread(lane, *seq) {
                index.by_deadline.insert((*deadline, *seq), (lane, size(message)));
                return true;
            }
            *deadline >= index.expired_through
        });
        index.found_late();
    }

    /// The level was read up to here, or is in memory as a whole.
    pub(super) fn read_through(&mut self, level: u8) {
        let from = self.lanes.at(level).gap.as_ref().map(super::paging::Gap::from);
        if let Some(Expiry::Indexed(index)) = &mut self.expiry {
            index.passed(level, from);
        }
    }

    /// Reads failed: what they were for is asked for again.
    pub(super) fn expiry_read_failed(&mut self) {
        if let Some(Expiry::Indexed(index)) = &mut self.expiry {
            if let Some(part) = index.reading.take() {
                index.unread.push_front(part);
            }
            index.fetching.failed();
        }
    }

    /// All messages go; of those that left before, the store is told now. To be called before the levels are cleared.
    pub(super) fn expiry_cleared(&mut self, purged: &mut Purged) {
        let mut fetching = Fetching::default();
        if let Some(Expiry::Indexed(index)) = &mut self.expiry {
            purged.removed.merge(index.take_late());
            fetching = std::mem::take(&mut index.fetching);
        }
        for (lane, seq, bytes, entry) in fetching.into_all() {
            // They had left already, but the ranges that a purge names cover those that are stored.
            let stored = entry.as_ref().is_none_or(|entry| entry.stored);
            let gap = self.lanes.at(lane).gap.as_ref();
            if stored && gap.is_some_and(|gap| gap.holds(seq)) {
                purged.range_messages += 1;
                purged.range_bytes += u64::from(bytes);
            } else if entry.is_none() {
                purged.removed.push(Place { seq, lane });
            }
            if let Some(entry) = entry {
                self.discard(entry, Reason::Expired, &mut purged.removed);
            }
        }
        // What is handed out may come back, in any order.
        self.expiry = match self.expiry.take() {
            Some(_) if self.unacked > 0 => Some(Expiry::Indexed(Box::default())),
            _ => None,
        };
        self.reads.clear();
    }

    /// The queue is used now: its own time begins anew.
    pub fn touch(&mut self, now: Timestamp) {
        self.used_at = now;
    }

    /// When the queue expires, [`Timestamp::NONE`] while it has consumers or does not.
    fn unused_deadline(&self) -> Timestamp {
        match self.settings.expires_ms {
            Some(ms) if self.consumers.len() == 0 && !self.deleted => self.used_at.after(ms),
            _ => Timestamp::NONE,
        }
    }

    /// Nobody used the queue for as long as it may be unused.
    pub fn is_unused(&self, now: Timestamp) -> bool {
        let deadline = self.unused_deadline();
        deadline.is_some() && deadline <= now
    }

    /// When something expires next; [`Timestamp::NONE`] for never, as far as is known.
    pub fn next_deadline(&mut self) -> Timestamp {
        let heard = self.settings.dead_letter.is_some() || self.limited;
        let messages = match &self.expiry {
            None => Timestamp::NONE,
            Some(Expiry::Indexed(index)) => match index.by_deadline.first_key_value() {
                Some((&(deadline, _), _)) if index.by_deadline.len() < MANY || heard => deadline,
                Some((&(deadline, _), _)) => Timestamp(deadline.0.next_multiple_of(GRID_MS)),
                None => Timestamp::NONE,
            }
            .earlier(index.late_until()),
            Some(Expiry::InOrder { .. }) => self
                .lanes
                .iter_mut()
                .filter_map(|lane| {
                    let waits = lane.has_ready();
                    waits.then(|| lane.peek().map(|entry| entry.expires_at)).flatten()
                })
                .fold(Timestamp::NONE, Timestamp::earlier),
        };
        messages
            .earlier(self.returns.next_deadline())
            .earlier(self.returns.next_due())
            .earlier(self.schedule_wake())
            .earlier(self.unused_deadline())
    }

    /// Reads that expiry needs; the caller asks the store for them.
    pub fn take_reads(&mut self) -> Option<Vec<ReadFrom>> {
        (!self.reads.is_empty()).then(|| std::mem::take(&mut self.reads))
    }
}
