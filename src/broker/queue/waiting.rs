//! Messages that came back and wait for another attempt. Those that are due soonest are in memory. When they would take too
//! much of it, the others are left to the store, which has them anyway: some 60 bytes each remember when they are due, and
//! they are read again when that time is near.

use std::collections::{BTreeMap, BinaryHeap};

use crate::broker::{
    ids::{Seq, Timestamp},
    queue::{Entry, PagedIn, Place, Removed, Returned},
};

/// Memory that waiting messages may take; beyond it those that are due last are left to the store.
pub(super) const WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Messages are read so long before they are due, and none that is due sooner is left to the store.
const LEAD_MS: u64 = 1000;
/// One read goes over so many places at most.
const SPAN: u64 = 2048;
/// And so many messages are looked at to find those that lie close together.
const LOOK: usize = 1024;
/// So many are looked at to find those that can be left to the store.
const SPILL_LOOK: usize = 64 * 1024;
/// What an entry costs beside its message.
const ENTRY_BYTES: usize = 128;

type Turn = (Timestamp, Seq);

#[derive(Default)]
pub(super) struct Waiting {
    /// By the time when they are to be looked at again: when they are due, or expire, whichever is first. No two have
    /// the same key: a place comes back once.
    here: BTreeMap<Turn, Entry>,
    here_bytes: usize,
    away: BTreeMap<Turn, Away>,
    away_bytes: u64,
    reading: Option<Reading>,
    /// What is due before this stays.
    near: Timestamp,
    /// With so much memory taken it is worth looking for what can go.
    spill_above: usize,
    /// Some of what should have gone was not committed.
    uncommitted: bool,
}

/// A message that only the store holds.
struct Away {
    lane: u8,
    acquired: u16,
    failed: u16,
    expires_at: Timestamp,
    bytes: u64,
}

/// A read under way.
struct Reading {
    lane: u8,
    from: Seq,
    until: Seq,
    /// Which of those it passes are wanted. Ascending.
    wanted: Vec<(Seq, Timestamp)>,
}

fn cost(entry: &Entry) -> usize {
    entry.message.memory_bytes() + ENTRY_BYTES
}

impl Waiting {
    pub(super) fn len(&self) -> u64 {
        (self.here.len() + self.away.len()) as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty() && self.away.is_empty()
    }

    /// Memory taken by those that are here.
    pub(super) fn memory_bytes(&self) -> usize {
        self.here_bytes
    }

    /// How many only the store holds, and their bodies.
    pub(super) fn away(&self) -> (u64, u64) {
        (self.away.len() as u64, self.away_bytes)
    }

    /// Those in memory, with the times until which they wait.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Entry, Timestamp)> {
        self.here.iter().map(|(turn, entry)| (entry, turn.0))
    }

    /// The first of those that only the store holds, by place, at most so many. Goes over all of them, for which memory has
    /// no order by place: only for whoever looks from outside.
    pub(super) fn away_between(&self, lane: u8, from: Seq, until: Seq, at_most: usize) -> Vec<Returned> {
        let mut first: BinaryHeap<(Seq, Timestamp)> = BinaryHeap::new();
        let away = self.away.iter().filter(|(_, away)| away.lane == lane);
        for ((due, seq), _) in away.filter(|(turn, _)| (from..until).contains(&turn.1)) {
            if first.len() < at_most {
                first.push((*seq, *due));
            } else if let Some(mut last) = first.peek_mut()
                && *seq < last.0
            {
                *last = (*seq, *due);
            }
        }
        let first = first.into_sorted_vec().into_iter();
        first
            .filter_map(|(seq, due)| {
                let away = self.away.get(&(due, seq))?;
                Some(Returned {
                    lane,
                    seq,
                    acquired: away.acquired,
                    failed: away.failed,
                    due,
                })
            })
            .collect()
    }

    /// Takes out one that only the store holds; false when it does not.
    pub(super) fn take_away(&mut self, turn: Turn) -> bool {
        let away = self.away.remove(&turn);
        self.away_bytes -= away.as_ref().map_or(0, |away| away.bytes);
        away.is_some()
    }

    /// There is more than should be; what the store has for certain may go.
    pub(super) fn is_crowded(&self) -> bool {
        self.here_bytes > WAITING_BYTES
    }

    pub(super) fn add(&mut self, due: Timestamp, entry: Entry) {
        self.here_bytes += cost(&entry);
        self.here
            .insert((due.earlier(entry.expires_at), entry.seq), entry);
    }

    fn remove(&mut self, turn: Turn) -> Option<Entry> {
        let entry = self.here.remove(&turn)?;
        self.here_bytes = self.here_bytes.saturating_sub(cost(&entry));
        Some(entry)
    }

    /// The next one whose time has come.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<Entry> {
        self.near = now.after(2 * LEAD_MS);
        let turn = *self.here.first_key_value()?.0;
        (turn.0 <= now).then(|| self.remove(turn))?
    }

    /// Takes out the message of a place, if it is in memory.
    pub(super) fn take(&mut self, place: Place) -> Option<Entry> {
        let mut here = self.here.iter();
        let turn = *here.find(|(_, entry)| entry.place() == place)?.0;
        self.remove(turn)
    }

    /// When the next one is to be looked at, or read.
    pub(super) fn next_due(&self) -> Timestamp {
        let here = self.here.first_key_value().map(|(turn, _)| turn.0);
        let away = self.away.first_key_value().filter(|_| self.may_read());
        let read = away.map(|(turn, _)| Timestamp(turn.0.0.saturating_sub(LEAD_MS).max(1)));
        let none = Timestamp::NONE;
        here.unwrap_or(none).earlier(read.unwrap_or(none))
    }

    /// Whether there is room for more, or what is away comes first in any case.
    fn may_read(&self) -> bool {
        let here = self.here.first_key_value().map(|(turn, _)| turn);
        let away = self.away.first_key_value().map(|(turn, _)| turn);
        self.reading.is_none() && (self.here_bytes <= 2 * WAITING_BYTES || here.is_none() || away < here)
    }

    /// More is committed now: what could not go before may go.
    pub(super) fn committed(&mut self, through: Seq) {
        if self.uncommitted {
            self.spill_above = 0;
            self.spill(through);
        }
    }

    /// Leaves messages to the store that are not due soon, if there are too many. It has those up to `committed`.
    pub(super) fn spill(&mut self, committed: Seq) {
        if self.here_bytes <= WAITING_BYTES.max(self.spill_above) {
            return;
        }
        let mut bytes = self.here_bytes;
        let mut leaving = Vec::new();
        self.uncommitted = false;
        for (turn, entry) in self.here.iter().rev().take(SPILL_LOOK) {
            if bytes <= WAITING_BYTES / 2 || turn.0 < self.near {
                break;
            }
            if entry.stored && entry.seq <= committed {
                bytes -= cost(entry);
                leaving.push(*turn);
            }
            self.uncommitted |= entry.stored && entry.seq > committed;
        }
        for turn in leaving {
            let Some(entry) = self.remove(turn) else { continue };
            let bytes = entry.message.body_len();
            self.away_bytes += bytes;
            let away = Away {
                lane: entry.lane,
                acquired: entry.acquired,
                failed: entry.failed,
                expires_at: entry.expires_at,
                bytes,
            };
            self.away.insert(turn, away);
        }
        // What is left must stay for now; with some more of it the next look pays.
        self.spill_above = self.here_bytes + WAITING_BYTES / 4;
    }

    /// What must be read because it is due soon: level, from, until.
    pub(super) fn read(&mut self, now: Timestamp) -> Option<(u8, Seq, Seq)> {
        if !self.may_read() {
            return None;
        }
        let soon = now.after(LEAD_MS);
        let (turn, first) = self.away.first_key_value().filter(|(turn, _)| turn.0 <= soon)?;
        let (lane, from) = (first.lane, turn.1);
        let end = Seq(from.0.saturating_add(SPAN));
        let soon = self.away.range(..=(soon, Seq(u64::MAX))).take(LOOK);
        let mut wanted: Vec<(Seq, Timestamp)> = soon
            .filter(|(turn, away)| away.lane == lane && (from..end).contains(&turn.1))
            .map(|(turn, _)| (turn.1, turn.0))
            .collect();
        wanted.sort_unstable();
        let until = wanted.last().map_or(from, |(seq, _)| *seq).next();
        self.reading = Some(Reading {
            lane,
            from,
            until,
            wanted,
        });
        Some((lane, from, until))
    }

    /// The answer to a read of [`Self::read`], or any other, which is given back. `Err` tells the bytes of bodies that
    /// turned out not to be there any more.
    pub(super) fn answered(&mut self, paged: PagedIn) -> Result<PagedIn, u64> {
        let Some(reading) = self
            .reading
            .take_if(|it| (it.lane, it.from, it.until) == (paged.lane, paged.from, paged.until))
        else {
            return Ok(paged);
        };
        let next = paged.next.unwrap_or(paged.until);
        let mut lost = 0;
        let mut entries = paged.entries.into_iter().peekable();
        for (seq, due) in reading.wanted.into_iter().filter(|(seq, _)| *seq < next) {
            while entries.next_if(|(other, _)| *other < seq).is_some() {}
            let Some(away) = self.away.remove(&(due, seq)) else {
                continue;
            };
            self.away_bytes = self.away_bytes.saturating_sub(away.bytes);
            match entries.next_if(|(other, _)| *other == seq) {
                None => lost += away.bytes,
                Some((_, message)) => self.add(
                    due,
                    Entry {
                        seq,
                        lane: away.lane,
                        message,
                        redelivered: true,
                        stored: true,
                        expires_at: away.expires_at,
                        acquired: away.acquired,
                        failed: away.failed,
                    },
                ),
            }
        }
        Err(lost)
    }

    /// A read failed; the next look asks again.
    pub(super) fn read_failed(&mut self) {
        self.reading = None;
    }

    /// Drops all; notes the places of stored ones.
    pub(super) fn clear(&mut self, removed: &mut Removed) {
        let gone = std::mem::take(self);
        gone.here.values().for_each(|entry| removed.note(entry));
        for ((_, seq), away) in gone.away {
            removed.push(Place { seq, lane: away.lane });
        }
    }
}
