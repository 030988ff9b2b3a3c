//! Looking into a queue without consuming, and taking chosen messages out of it wherever they stand. For operators: nothing
//! here is on the way of a message.

use crate::broker::{
    ids::Seq,
    queue::{Entry, Place, Port, QueueState},
};

/// A part of what waits, in the order of levels (highest first) and places.
pub enum Glimpse {
    /// Messages in memory, and where to go on; `None` at the end.
    Memory {
        entries: Vec<Entry>,
        next: Option<Place>,
    },
    /// The next messages are in the store only. Whoever looks reads them there, from `from` up to `until` (exclusive), and
    /// puts those that stand between them in memory (`beside`) in their places.
    Store {
        lane: u8,
        from: Seq,
        until: Seq,
        beside: Vec<Entry>,
        /// Messages up to here were handed out before.
        delivered: Seq,
    },
}

/// What became of a message that was to be taken out.
pub enum Withdrawn {
    /// It is out. Its removal is to be logged when it is stored.
    Entry(Box<Entry>),
    /// It is out; only the store had it, and its removal is to be logged.
    OnDisk,
    /// It does not wait here any more.
    Gone,
}

impl<P: Port> QueueState<P> {
    /// Up to `limit` ready messages from a place on. The place of level 255 and number 0 is the beginning.
    pub fn look(&self, from: Place, limit: usize) -> Glimpse {
        let mut levels = self
            .lanes
            .iter()
            .filter(|lane| lane.level <= from.lane)
            .peekable();
        while let Some(lane) = levels.next() {
            let first = if lane.level == from.lane { from.seq } else { Seq(0) };
            let gap = lane.gap.as_ref().map(|gap| (gap.from(), gap.until()));
            let gap = gap.filter(|(begin, end)| begin < end);
            if let Some((begin, end)) = gap
                && (begin..end).contains(&first)
            {
                return self.behind(lane.level, first, end, limit);
            }
            let until = match gap {
                Some((begin, _)) if first < begin => begin,
                _ => Seq(u64::MAX),
            };
            let entries = self.in_memory(lane.level, first, until, limit);
            let next = match entries.last() {
                Some(last) if entries.len() >= limit => Some((lane.level, last.seq.next())),
                _ if until < Seq(u64::MAX) => Some((lane.level, until)),
                _ => levels.peek().map(|lane| (lane.level, Seq(0))),
            };
            let next = next.map(|(lane, seq)| Place { seq, lane });
            if !entries.is_empty() || next.is_none() {
                return Glimpse::Memory { entries, next };
            }
            if let Some((begin, end)) = gap.filter(|(begin, _)| *begin == until) {
                return self.behind(lane.level, begin, end, limit);
            }
        }
        Glimpse::Memory {
            entries: Vec::new(),
            next: None,
        }
    }

    /// The part of a level that the store has.
    fn behind(&self, level: u8, from: Seq, until: Seq, limit: usize) -> Glimpse {
        let beside = self.in_memory(level, from, until, limit);
        let until = match beside.last() {
            Some(last) if beside.len() >= limit => last.seq.next(),
            _ => until,
        };
        let lane = self.lanes.iter().find(|lane| lane.level == level);
        Glimpse::Store {
            lane: level,
            from,
            until,
            beside,
            delivered: lane.map_or(Seq(0), |lane| lane.delivered),
        }
    }

    /// Messages of a level that are in memory, ascending.
    fn in_memory(&self, level: u8, from: Seq, until: Seq, limit: usize) -> Vec<Entry> {
        let lane = self.lanes.iter().find(|lane| lane.level == level);
        let mut found = lane.map_or(Vec::new(), |lane| lane.ready.between(from, until, limit));
        let returned = self.returns.iter();
        found.extend(
            returned
                .filter(|entry| entry.lane == level && (from..until).contains(&entry.seq))
                .cloned(),
        );
        found.sort_by_key(|entry| entry.seq);
        found.truncate(limit);
        found
    }

    /// Takes a ready message out. `bytes` is the length of its body, as whoever looked saw it. Log what is stored, then
    /// [`Self::dispatch`].
    pub fn withdraw(&mut self, place: Place, bytes: u64) -> Withdrawn {
        if self.deleted {
            return Withdrawn::Gone;
        }
        let lane = self.lanes.iter_mut().find(|lane| lane.level == place.lane);
        let on_disk = lane.as_ref().is_some_and(|lane| {
            let gap = lane.gap.as_ref();
            gap.is_some_and(|gap| gap.holds(place.seq))
        });
        let ready = lane.and_then(|lane| lane.ready.take(place.seq));
        if let Some(entry) = ready.or_else(|| self.returns.take(place)) {
            self.ready_bytes = self.ready_bytes.saturating_sub(entry.message.body_len());
            if self.expiry.is_some() {
                self.left(&entry);
            }
            self.forget(place.seq);
            return Withdrawn::Entry(Box::new(entry));
        }
        if on_disk && self.gone_from_disk(place) {
            self.ready_bytes = self.ready_bytes.saturating_sub(bytes);
            self.lanes.disk_count = self.lanes.disk_count.saturating_sub(1);
            self.lanes.disk_bytes = self.lanes.disk_bytes.saturating_sub(bytes);
            self.forget(place.seq);
            return Withdrawn::OnDisk;
        }
        Withdrawn::Gone
    }

    /// The place that the next message will take.
    pub fn end(&self) -> Seq {
        self.next_seq
    }

    /// Bodies of ready messages, bytes, wherever they are.
    pub fn ready_bytes(&self) -> u64 {
        self.ready_bytes
    }

    /// Ready messages in memory, and their bodies.
    pub fn resident(&self) -> (u64, u64) {
        let (away, away_bytes) = self.returns.away();
        let count = self.ready_count().saturating_sub(self.lanes.disk_count + away);
        let bytes = self
            .ready_bytes
            .saturating_sub(self.lanes.disk_bytes + away_bytes);
        (count, bytes)
    }
}
