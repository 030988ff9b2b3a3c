//! The messages of one priority level that wait in memory, oldest first.
//!
//! While part of the level is only on disk (the gap), `head` lies before it and `tail` behind it; otherwise all
//! is in `head`. Returned messages stand apart, because they come back in any order and to any place.

use std::collections::{BTreeMap, VecDeque};

use crate::broker::{
    ids::{Seq, Timestamp},
    message::Message,
    queue::{Entry, Removed},
};

#[derive(Default)]
pub(super) struct Ready {
    head: VecDeque<Entry>,
    tail: VecDeque<Entry>,
    returned: BTreeMap<Seq, Entry>,
    /// Transient messages inside the gap: the store does not have them. Ascending.
    stranded: VecDeque<Entry>,
    split: bool,
    head_bytes: usize,
    tail_bytes: usize,
    /// Places whose message was taken out of the middle; the front of each list is never one.
    hollow: usize,
    /// What stands in hollow places.
    blank: Option<Message>,
}

/// The deadline of a hollow place.
const HOLLOW: Timestamp = Timestamp(u64::MAX);

#[inline]
fn is_hollow(entry: &Entry) -> bool {
    entry.expires_at == HOLLOW
}

/// Where a place stands in a list that ascends. Places are spread evenly, more or less, so the search begins where it would
/// be if they were, and mostly ends near: a plain binary search of a long list misses the cache at every step.
fn position(list: &VecDeque<Entry>, seq: Seq) -> Option<usize> {
    let (first, last) = (list.front()?.seq.0, list.back()?.seq.0);
    let into = u128::from(seq.0.checked_sub(first)?);
    let spread = u128::from(last.saturating_sub(first)).max(1);
    let steps = u128::from(u64::try_from(list.len()).ok()?.saturating_sub(1));
    let guess = usize::try_from(into * steps / spread).ok()?;
    let is_behind = |at: usize| list.get(at).is_none_or(|entry| entry.seq > seq);
    let mut step = 8;
    let (mut low, mut high);
    if is_behind(guess) {
        high = guess.min(list.len());
        while let Some(at) = high.checked_sub(step).filter(|at| is_behind(*at)) {
            high = at;
            step *= 2;
        }
        low = high.saturating_sub(step);
    } else {
        low = guess;
        while !is_behind(low + step) {
            low += step;
            step *= 2;
        }
        high = list.len().min(low + step);
    }
    // The last place that is not behind it.
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if is_behind(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    list.get(low).filter(|entry| entry.seq == seq).map(|_| low)
}

/// What an entry costs beside its message.
const ENTRY_BYTES: usize = 64;

#[inline]
fn cost(entry: &Entry) -> usize {
    entry.message.memory_bytes() + ENTRY_BYTES
}

impl Ready {
    pub(super) fn len(&self) -> u64 {
        (self.head.len() + self.tail.len() + self.returned.len() + self.stranded.len() - self.hollow) as u64
    }

    pub(super) fn bytes(&self) -> usize {
        self.head_bytes + self.tail_bytes
    }

    pub(super) fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    /// A new message, behind all others.
    #[inline]
    pub(super) fn push_tail(&mut self, entry: Entry) {
        if self.split {
            self.tail_bytes += cost(&entry);
            self.tail.push_back(entry);
        } else {
            self.push_head(entry);
        }
    }

    #[inline]
    fn push_head(&mut self, entry: Entry) {
        self.head_bytes += cost(&entry);
        self.head.push_back(entry);
    }

    /// A message that was handed out returns to its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.returned.insert(entry.seq, entry);
    }

    /// Whether [`Self::pop`] would give a message.
    #[inline]
    pub(super) fn can_pop(&self, gap_from: Option<Seq>) -> bool {
        !self.head.is_empty()
            || self
                .returned
                .first_key_value()
                .is_some_and(|(&seq, _)| gap_from.is_none_or(|gap| seq < gap))
    }

    /// The message [`Self::pop`] would give.
    pub(super) fn peek(&self, gap_from: Option<Seq>) -> Option<&Entry> {
        let front = self.head.front();
        let returned = self.returned.first_key_value().map(|(_, entry)| entry);
        match returned {
            Some(entry)
                if front.is_none_or(|front| entry.seq < front.seq)
                    && gap_from.is_none_or(|gap| entry.seq < gap) =>
            {
                returned
            }
            _ => front,
        }
    }

    /// All messages in memory.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let lists = self.head.iter().chain(&self.tail).chain(&self.stranded);
        lists
            .filter(|entry| !is_hollow(entry))
            .chain(self.returned.values())
    }

    /// Messages in memory from one place to another (exclusive), ascending, at most so many.
    pub(super) fn between(&self, from: Seq, until: Seq, limit: usize) -> Vec<Entry> {
        let mut found: Vec<Entry> = Vec::new();
        for list in [&self.head, &self.tail, &self.stranded] {
            let first = list.partition_point(|entry| entry.seq < from);
            let there = list.range(first..).take_while(|entry| entry.seq < until);
            found.extend(there.filter(|entry| !is_hollow(entry)).take(limit).cloned());
        }
        let returned = self.returned.range(from..until);
        found.extend(returned.take(limit).map(|(_, entry)| entry.clone()));
        found.sort_by_key(|entry| entry.seq);
        found.truncate(limit);
        found
    }

    /// Takes out the message of a place, wherever it stands in memory.
    pub(super) fn take(&mut self, seq: Seq) -> Option<Entry> {
        if let Some(entry) = self.returned.remove(&seq) {
            return Some(entry);
        }
        let blank = Message::clone(self.blank.get_or_insert_with(Message::blank));
        let head = self.head.front().is_some_and(|front| front.seq <= seq)
            && self.head.back().is_some_and(|back| back.seq >= seq);
        let in_tail = self.tail.front().is_some_and(|front| front.seq <= seq);
        let (list, bytes) = if head {
            (&mut self.head, Some(&mut self.head_bytes))
        } else if in_tail {
            (&mut self.tail, Some(&mut self.tail_bytes))
        } else {
            (&mut self.stranded, None)
        };
        let at = position(list, seq)?;
        let place = list.get_mut(at).filter(|entry| !is_hollow(entry))?;
        let hollow = Entry {
            message: blank,
            stored: false,
            expires_at: HOLLOW,
            ..*place
        };
        let taken = std::mem::replace(place, hollow);
        if let Some(bytes) = bytes {
            *bytes = *bytes + cost(place) - cost(&taken);
        }
        self.hollow += 1;
        self.tidy();
        Some(taken)
    }

    /// Hollow places leave at the fronts; when they are most of a list, they are squeezed out.
    fn tidy(&mut self) {
        if self.hollow == 0 {
            return;
        }
        // Of all lists together: a squeeze goes over all of them, and must free half of what it goes over.
        let places = self.head.len() + self.tail.len() + self.stranded.len();
        let squeeze = self.hollow > 64 && self.hollow > places / 2;
        let lists = [
            (&mut self.head, Some(&mut self.head_bytes)),
            (&mut self.tail, Some(&mut self.tail_bytes)),
            (&mut self.stranded, None),
        ];
        for (list, bytes) in lists {
            let mut gone = 0;
            while list.front().is_some_and(is_hollow) {
                gone += list.pop_front().as_ref().map_or(0, cost);
                self.hollow -= 1;
            }
            if squeeze {
                let hollow = &mut self.hollow;
                list.retain(|entry| {
                    let keep = !is_hollow(entry);
                    if !keep {
                        gone += cost(entry);
                        *hollow -= 1;
                    }
                    keep
                });
            }
            if let Some(bytes) = bytes {
                *bytes -= gone;
            }
        }
    }

    /// The oldest message, unless an older one is on disk (`gap_from` is the oldest place there).
    #[inline]
    pub(super) fn pop(&mut self, gap_from: Option<Seq>) -> Option<Entry> {
        if !self.returned.is_empty()
            && let Some((&seq, _)) = self.returned.first_key_value()
            && let front = self.head.front().map(|entry| entry.seq)
            && front.is_none_or(|front| seq < front)
            && gap_from.is_none_or(|gap| seq < gap)
        {
            return self.returned.pop_first().map(|(_, entry)| entry);
        }
        let entry = self.head.pop_front()?;
        self.head_bytes -= cost(&entry);
        if self.hollow > 0 {
            self.tidy();
        }
        Some(entry)
    }

    /// Splits the messages: what exceeds `keep` bytes at the front moves behind a gap that begins there. Returns the
    /// first place behind the head; `None` when there is nothing to move.
    pub(super) fn split_off(&mut self, keep: usize) -> Option<Seq> {
        debug_assert!(!self.split, "one gap at a time");
        let mut kept = 0;
        let at = self.head.iter().position(|entry| {
            kept += cost(entry);
            kept > keep
        });
        // The first stays, whatever its size: a front that is always empty would be read again and again.
        let at = at.map_or(self.head.len(), |at| at.max(1));
        if at >= self.head.len() {
            return None;
        }
        self.tail = self.head.split_off(at);
        self.tail_bytes = self.tail.iter().map(cost).sum();
        self.head_bytes -= self.tail_bytes;
        self.split = true;
        self.tidy();
        let first = self.tail.front().map(|entry| entry.seq);
        // All of the tail may have been hollow.
        self.split = first.is_some();
        first
    }

    /// As [`Self::split_off`], but nothing stays in front of the gap.
    pub(super) fn split_whole(&mut self) -> Option<Seq> {
        debug_assert!(!self.split, "one gap at a time");
        self.tail = std::mem::take(&mut self.head);
        self.tail_bytes = std::mem::take(&mut self.head_bytes);
        let first = self.tail.front().map(|entry| entry.seq);
        self.split = first.is_some();
        first
    }

    /// There is no message in memory; all there is lies on disk.
    pub(super) fn all_on_disk() -> Self {
        Self {
            split: true,
            ..Self::default()
        }
    }

    /// Takes from the tail's front what the store holds for certain (up to `committed`): those messages leave
    /// memory, transient ones are set aside. Calls `left` for each stored one.
    pub(super) fn absorb(&mut self, committed: Seq, mut left: impl FnMut(&Entry)) -> Option<Seq> {
        let mut last = None;
        while let Some(front) = self.tail.front() {
            if front.stored && front.seq > committed {
                break;
            }
            let Some(entry) = self.tail.pop_front() else { break };
            self.tail_bytes -= cost(&entry);
            last = Some(entry.seq);
            self.tidy();
            if entry.stored {
                left(&entry);
            } else {
                self.stranded.push_back(entry);
            }
        }
        last
    }

    /// Takes from the head's back what the store holds for certain, down to `keep` bytes and `least` messages. Calls `left`
    /// for each, and gives the first place that left.
    pub(super) fn trim_head(
        &mut self,
        (keep, least): (usize, usize),
        committed: Seq,
        mut left: impl FnMut(&Entry),
    ) -> Option<Seq> {
        let mut first = None;
        while self.head_bytes > keep
            && self.head.len() > least
            && let Some(back) = self.head.back()
            && back.stored
            && back.seq <= committed
            && let Some(entry) = self.head.pop_back()
        {
            self.head_bytes -= cost(&entry);
            first = Some(entry.seq);
            left(&entry);
        }
        first
    }

    /// The store has the newest message, as far as it came in turn.
    pub(super) fn ends_stored(&self) -> bool {
        let newest = self.tail.back().or(self.head.back());
        newest.is_some_and(|entry| entry.stored)
    }

    /// Messages of the tail that the store does not have.
    pub(super) fn unstored(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.tail
            .iter_mut()
            .filter(|entry| !entry.stored && !is_hollow(entry))
    }

    /// Messages read back, ascending; everything before `through` (exclusive) is now in memory.
    pub(super) fn page_in(&mut self, entries: impl Iterator<Item = Entry>, through: Seq) {
        for entry in entries {
            self.take_stranded(entry.seq);
            self.push_head(entry);
        }
        self.take_stranded(through);
    }

    fn take_stranded(&mut self, before: Seq) {
        while self.stranded.front().is_some_and(|entry| entry.seq < before) {
            if let Some(entry) = self.stranded.pop_front() {
                self.push_head(entry);
                self.tidy();
            }
        }
    }

    /// The gap is closed: head and tail are one again.
    pub(super) fn join(&mut self) {
        self.head_bytes += self.tail_bytes;
        self.tail_bytes = 0;
        self.head.append(&mut self.stranded);
        self.head.append(&mut self.tail);
        self.split = false;
        self.tidy();
    }

    /// Drops everything; notes the places of stored messages.
    pub(super) fn clear(&mut self, removed: &mut Removed) {
        let gone = std::mem::take(self);
        gone.head
            .iter()
            .chain(&gone.tail)
            .chain(gone.returned.values())
            .for_each(|entry| removed.note(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_where_a_binary_search_finds_it() {
        let entry = |seq: u64| Entry {
            seq: Seq(seq),
            lane: 0,
            message: Message::blank(),
            redelivered: false,
            stored: false,
            expires_at: Timestamp::NONE,
            acquired: 0,
            failed: 0,
        };
        // Evenly, with holes here and there, and with all of them at one end.
        let spreads: [fn(u64) -> u64; 4] = [
            |at| at,
            |at| at + at / 7,
            |at| at * at,
            |at| 1000 - 1000 / (at + 1),
        ];
        for spread in spreads {
            for len in [1, 2, 9, 300] {
                let mut list: VecDeque<Entry> = (0..len).map(|at| entry(5 + spread(at))).collect();
                list.make_contiguous().sort_by_key(|entry| entry.seq);
                let mut list: Vec<Entry> = list.into();
                list.dedup_by_key(|entry| entry.seq);
                let list = VecDeque::from(list);
                for seq in (0..1100).chain([90_000, u64::MAX]).map(Seq) {
                    let found = list.binary_search_by_key(&seq, |entry| entry.seq).ok();
                    assert_eq!(position(&list, seq), found, "{seq:?} of {len}");
                }
            }
        }
    }
}
