//! The store as a queue under test sees it: what it holds, and the reads under way.

use std::collections::{BTreeMap, VecDeque};

use crate::broker::{
    ids::{Seq, Timestamp},
    message::Message,
    queue::{PagedIn, Purged, ReadFrom, Removed, Returned},
};

/// The store's side: what it holds, and what it was asked for.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) messages: BTreeMap<(u8, Seq), Message>,
    pub(super) deadlines: BTreeMap<(u8, Seq), Timestamp>,
    pub(super) returned: Vec<Returned>,
    /// Oldest first. A purge makes reads stale: their answers still come.
    reads: VecDeque<(ReadFrom, bool)>,
}

impl Disk {
    /// The answer to the pending read, with at most so many messages.
    pub(super) fn answer(&mut self, at_most: usize) -> Option<PagedIn> {
        let (read, _) = self.reads.pop_front()?;
        let lane = read.lane;
        let mut range = self.messages.range((lane, read.from)..(lane, read.until));
        let entries: Vec<_> = range
            .by_ref()
            .take(at_most)
            .map(|((_, seq), message)| (*seq, message.clone()))
            .collect();
        let deadlines = entries.iter().filter_map(|(seq, _): &(Seq, Message)| {
            let deadline = self.deadlines.get(&(lane, *seq))?;
            Some((*seq, *deadline))
        });
        Some(PagedIn {
            lane,
            from: read.from,
            until: read.until,
            deadlines: deadlines.collect(),
            entries,
            next: range.next().map(|((_, seq), _)| *seq),
        })
    }

    /// Notes what the queue wants to read.
    pub(super) fn ask(&mut self, read: ReadFrom) {
        let mut reads = self.reads.iter();
        let reading = reads.any(|(under_way, stale)| !stale && under_way.lane == read.lane);
        assert_eq!(
            read.pending, reading,
            "one read of a level at a time, and never forgotten"
        );
        if !read.pending {
            self.reads.push_back((read, false));
        }
    }

    /// Notes what expiry wants to read, which may be the same as a consumer's read.
    pub(super) fn ask_beside(&mut self, read: ReadFrom) {
        self.reads.push_back((read, false));
    }

    /// A read is on its way that the queue still counts on.
    pub(super) fn is_reading(&self) -> bool {
        self.reads.iter().any(|(_, stale)| !stale)
    }

    /// The reads under way fail.
    pub(super) fn fail(&mut self) {
        self.reads.clear();
    }

    /// Erases what left the queue; gives the places.
    pub(super) fn erase(&mut self, removed: Removed) -> Vec<(u8, Seq)> {
        let lanes = removed.into_lanes();
        let places: Vec<_> = lanes
            .flat_map(|(lane, seqs)| seqs.into_iter().map(move |seq| (lane, seq)))
            .collect();
        for place in &places {
            assert!(
                self.messages.remove(place).is_some(),
                "{place:?} was erased, but is not on disk"
            );
        }
        places
    }

    /// Erases what a purge names by range, which makes reads stale; gives the places.
    pub(super) fn erase_ranges(&mut self, purged: &Purged) -> Vec<(u8, Seq)> {
        let mut gone = Vec::new();
        for &(lane, from, until) in &purged.ranges {
            let range = self.messages.range((lane, from)..(lane, until));
            gone.extend(range.map(|(place, _)| *place));
        }
        for place in &gone {
            self.messages.remove(place);
        }
        let count = gone.len() as u64;
        assert_eq!(count, purged.range_messages, "purged ranges count their messages");
        self.reads.iter_mut().for_each(|(_, stale)| *stale = true);
        gone
    }
}
