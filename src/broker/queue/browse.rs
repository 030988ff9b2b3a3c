//! Looking into a queue without consuming, and taking chosen messages out of it wherever they stand. For operators: nothing
//! here is on the way of a message.

use crate::broker::{
    ids::{Seq, Timestamp},
    queue::{Entry, Place, Port, QueueState, Returned, lanes::Lane},
};

/// So many times the messages asked for may be named that only the store has: finding them is what costs, and one read
/// brings many.
const KNOWN_TIMES: usize = 16;

/// A part of one level of what waits. Parts come in the order of levels (highest first) and places.
pub struct Glimpse {
    pub lane: u8,
    /// The places of the part; the last one is exclusive.
    pub from: Seq,
    pub until: Seq,
    /// Messages in memory, ascending, each with the time at which its wait for another attempt ends; [`Timestamp::NONE`]
    /// when it does not wait.
    pub here: Vec<(Entry, Timestamp)>,
    /// All others that stand here are in the store, for whoever looks to read.
    pub on_disk: bool,
    /// What is known of those in the store that came back, ascending. Where not all of the part is `on_disk`, only these
    /// are to be read.
    pub known: Vec<Returned>,
    /// Messages up to here were handed out before.
    pub delivered: Seq,
    /// Where the next part begins; `None` at the end.
    pub next: Option<Place>,
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
    /// Up to `limit` messages in memory from a place on, and what waits in the store between them. The place of level 255 and
    /// number 0 is the beginning.
    pub fn look(&self, from: Place, limit: usize) -> Glimpse {
        let mut place = from;
        loop {
            let levels: Vec<&Lane> = self
                .lanes
                .iter()
                .filter(|lane| lane.level <= place.lane)
                .take(2)
                .collect();
            let below = levels.get(1).map(|lane| Place {
                seq: Seq(0),
                lane: lane.level,
            });
            let Some(lane) = levels.first() else {
                return self.part(&Lane::default(), (Seq(0), Seq(0)), false, limit, None);
            };
            let first = if lane.level == place.lane {
                place.seq
            } else {
                Seq(0)
            };
            let gap = lane.gap.as_ref().map(|gap| (gap.from(), gap.until()));
            let (until, on_disk) = match gap.filter(|(begin, end)| begin < end && first < *end) {
                Some((begin, _)) if first < begin => (begin, false),
                Some((_, end)) => (end, true),
                None => (Seq(u64::MAX), false),
            };
            let next = match until {
                Seq(u64::MAX) => below,
                seq => Some(Place {
                    seq,
                    lane: lane.level,
                }),
            };
            let part = self.part(lane, (first, until), on_disk, limit, next);
            match part.next {
                Some(next) if !on_disk && part.here.is_empty() && part.known.is_empty() => place = next,
                _ => return part,
            }
        }
    }

    /// What stands between two places of a level, or the first of it if it is much.
    fn part(
        &self,
        lane: &Lane,
        (from, mut until): (Seq, Seq),
        on_disk: bool,
        limit: usize,
        mut next: Option<Place>,
    ) -> Glimpse {
        let mut here = self.in_memory(lane, from, until, limit);
        if let Some((last, _)) = here.last().filter(|_| here.len() >= limit) {
            until = last.seq.next();
        }
        let known_max = limit.saturating_mul(KNOWN_TIMES);
        let known = self.returns.known(lane.level, from, until, known_max);
        if let Some(last) = known.last().filter(|_| known.len() >= known_max) {
            until = last.seq.next();
            here.retain(|(entry, _)| entry.seq < until);
        }
        if known.len() >= known_max || here.len() >= limit {
            next = Some(Place {
                seq: until,
                lane: lane.level,
            });
        }
        Glimpse {
            lane: lane.level,
            from,
            until,
            here,
            on_disk,
            known,
            delivered: lane.delivered,
            next,
        }
    }

    /// Messages of a level that are in memory, ascending, with the times until which they wait.
    fn in_memory(&self, lane: &Lane, from: Seq, until: Seq, limit: usize) -> Vec<(Entry, Timestamp)> {
        let ready = lane.ready.between(from, until, limit).into_iter();
        let mut found: Vec<_> = ready.map(|entry| (entry, Timestamp::NONE)).collect();
        let returned = self.returns.iter();
        found.extend(
            returned
                .filter(|(entry, _)| entry.lane == lane.level && (from..until).contains(&entry.seq))
                .map(|(entry, due)| (entry.clone(), due)),
        );
        found.sort_by_key(|(entry, _)| entry.seq);
        found.truncate(limit);
        found
    }

    /// The message that is next, if it is in memory.
    pub fn head(&self) -> Option<&Entry> {
        let lane = self.lanes.iter().find(|lane| !lane.is_empty());
        self.returns.front().or_else(|| lane?.peek())
    }

    /// Takes out a message that is ready, or waits for another attempt at the time `due`. `bytes` is the length of its body,
    /// as whoever looked saw it. Log what is stored, then [`Self::dispatch`].
    pub fn withdraw(&mut self, place: Place, due: Timestamp, bytes: u64) -> Withdrawn {
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
        if due.is_some() && self.returns.take_away((due, place.seq)) {
            self.ready_bytes = self.ready_bytes.saturating_sub(bytes);
            self.forget(place.seq);
            return Withdrawn::OnDisk;
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
