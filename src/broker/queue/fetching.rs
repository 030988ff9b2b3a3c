//! Messages that expired on disk and are read to be dead-lettered, in the order of their deadlines. Those that stand close
//! together are read together: neighbours often die together, and a page is read as a whole anyway.

use std::collections::BTreeMap;

use crate::broker::{
    ids::{Seq, Timestamp},
    queue::{Entry, PagedIn},
};

/// So many from the disk are in memory or asked for at one time, and so many bytes of bodies, or one.
const MESSAGES_MAX: usize = 1024;
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Reads under way at one time.
const READS_MAX: usize = 4;
/// Two that stand no further apart than so many places are read together.
const NEAR: u64 = 256;
/// One read goes over so many places at most, on each side of the message it begins with.
const SPAN: u64 = 2048;
/// So many of those that are next are looked at to find neighbours.
const LOOK: usize = 1024;

type Turn = (Timestamp, Seq);

/// An expired message: on disk, on its way from there, or here and behind such a one.
pub(super) struct Fetch {
    pub(super) lane: u8,
    pub(super) bytes: u32,
    pub(super) entry: Option<Entry>,
    read: bool,
}

#[derive(Default)]
pub(super) struct Fetching {
    /// Not asked for yet: level, bytes. The index of deadlines gave them up for this.
    due: BTreeMap<Turn, (u8, u32)>,
    /// Asked for, or here; and what was in memory and is due after them.
    near: BTreeMap<Turn, Fetch>,
    /// Those of them that are or come from the disk.
    read: usize,
    read_bytes: u64,
    asked: Vec<Asked>,
}

/// A read under way.
struct Asked {
    lane: u8,
    from: Seq,
    until: Seq,
    /// Which of those it passes are wanted. Ascending.
    wanted: Vec<Turn>,
}

impl Fetching {
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.near.is_empty()
    }

    /// A message on disk has expired.
    pub(super) fn add(&mut self, turn: Turn, lane: u8, bytes: u32) {
        self.due.insert(turn, (lane, bytes));
    }

    /// A message in memory has expired, after others that are not here yet.
    pub(super) fn add_behind(&mut self, deadline: Timestamp, entry: Entry, bytes: u32) {
        let fetch = Fetch {
            lane: entry.lane,
            bytes,
            read: false,
            entry: Some(entry),
        };
        let seq = fetch.entry.as_ref().map_or(Seq(0), |entry| entry.seq);
        self.near.insert((deadline, seq), fetch);
    }

    fn remove(&mut self, turn: Turn) -> Option<Fetch> {
        let fetch = self.near.remove(&turn)?;
        if fetch.read {
            self.read -= 1;
            self.read_bytes -= u64::from(fetch.bytes);
        }
        Some(fetch)
    }

    /// The first of all, if it is here.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let (turn, fetch) = self.near.first_key_value()?;
        let is_first = self.due.first_key_value().is_none_or(|(due, _)| turn < due);
        let turn = (is_first && fetch.entry.is_some()).then_some(*turn)?;
        self.remove(turn)?.entry
    }

    /// What must be read next: the first one that was not asked for, with its neighbours. Level, from, until.
    pub(super) fn next_read(&mut self) -> Option<(u8, Seq, Seq)> {
        let (&first, &(lane, _)) = self.due.first_key_value()?;
        // What all others wait for is read in any case.
        let has_room = self.read < MESSAGES_MAX && self.read_bytes < BYTES_MAX;
        let awaited = self.near.first_key_value().is_none_or(|(turn, _)| first < *turn);
        if self.asked.len() >= READS_MAX || !(has_room || awaited) {
            return None;
        }
        let next = self.due.iter().take(LOOK);
        let close = next.filter(|(turn, (level, _))| *level == lane && turn.1.0.abs_diff(first.1.0) < SPAN);
        let mut close: Vec<Turn> = close.map(|(turn, _)| *turn).collect();
        close.sort_unstable_by_key(|(_, seq)| *seq);
        let is_far = |pair: &[Turn]| match pair {
            [one, other] => other.1.0 - one.1.0 > NEAR,
            _ => false,
        };
        let (mut begin, mut end) = (0, close.len());
        for (at, _) in close.windows(2).enumerate().filter(|(_, pair)| is_far(pair)) {
            if close.get(at).is_some_and(|turn| turn.1 < first.1) {
                begin = at + 1;
            } else {
                end = end.min(at + 1);
            }
        }
        let wanted = close.get(begin..end)?.to_vec();
        let (from, until) = (wanted.first()?.1, wanted.last()?.1.next());
        for turn in &wanted {
            if let Some((lane, bytes)) = self.due.remove(turn) {
                self.read += 1;
                self.read_bytes += u64::from(bytes);
                let fetch = Fetch {
                    lane,
                    bytes,
                    entry: None,
                    read: true,
                };
                self.near.insert(*turn, fetch);
            }
        }
        self.asked.push(Asked {
            lane,
            from,
            until,
            wanted,
        });
        Some((lane, from, until))
    }

    /// It was asked for, but not read.
    fn put_back(&mut self, turn: Turn) {
        if let Some(fetch) = self.remove(turn) {
            self.due.insert(turn, (fetch.lane, fetch.bytes));
        }
    }

    /// Takes the answer to a read of [`Self::next_read`], and gives back any other.
    pub(super) fn answered(&mut self, paged: PagedIn) -> Option<PagedIn> {
        let is_answer =
            |asked: &Asked| (asked.lane, asked.from, asked.until) == (paged.lane, paged.from, paged.until);
        let Some(at) = self.asked.iter().position(is_answer) else {
            return Some(paged);
        };
        let asked = self.asked.swap_remove(at);
        let next = paged.next.unwrap_or(paged.until);
        let mut entries = paged.entries.into_iter().peekable();
        for turn in asked.wanted {
            let (due, seq) = turn;
            if seq >= next {
                self.put_back(turn);
                continue;
            }
            while entries.next_if(|(other, _)| *other < seq).is_some() {}
            match (
                entries.next_if(|(other, _)| *other == seq),
                self.near.get_mut(&turn),
            ) {
                (Some((seq, message)), Some(fetch)) => {
                    fetch.entry = Some(Entry {
                        seq,
                        lane: fetch.lane,
                        redelivered: message.was_delivered_before(),
                        message,
                        stored: true,
                        expires_at: due,
                        acquired: 0,
                        failed: 0,
                    });
                }
                // It is gone; so is what waited for it.
                _ => drop(self.remove(turn)),
            }
        }
        None
    }

    /// The reads under way failed: what they were for is asked for again.
    pub(super) fn failed(&mut self) {
        for asked in std::mem::take(&mut self.asked) {
            asked.wanted.into_iter().for_each(|turn| self.put_back(turn));
        }
    }

    /// All of them: level, place, bytes, and the message if it is here.
    pub(super) fn into_all(self) -> impl Iterator<Item = (u8, Seq, u32, Option<Entry>)> {
        let due = self.due.into_iter();
        let due = due.map(|((_, seq), (lane, bytes))| (lane, seq, bytes, None));
        let near = self.near.into_iter();
        due.chain(near.map(|((_, seq), fetch)| (fetch.lane, seq, fetch.bytes, fetch.entry)))
    }
}
