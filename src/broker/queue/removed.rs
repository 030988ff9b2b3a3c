//! Stored messages that left a queue.

use smallvec::{SmallVec, smallvec};

use crate::broker::{
    ids::Seq,
    queue::{Entry, Place},
};

/// Places of stored messages that left the queue, by level; the caller logs them as acknowledged.
#[derive(Default)]
pub struct Removed {
    /// Nearly always one level, so a scan from the end finds it at once.
    lanes: SmallVec<[(u8, SmallVec<[Seq; 4]>); 1]>,
}

impl Removed {
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a message that left, when the store keeps it.
    #[inline]
    pub fn note(&mut self, entry: &Entry) {
        if entry.stored {
            self.push(entry.place());
        }
    }

    /// Notes the place of a stored message.
    pub fn push(&mut self, place: Place) {
        match self.lanes.iter_mut().rev().find(|(lane, _)| *lane == place.lane) {
            Some((_, seqs)) => seqs.push(place.seq),
            None => self.lanes.push((place.lane, smallvec![place.seq])),
        }
    }

    /// Adds what another knows.
    pub(super) fn merge(&mut self, other: Self) {
        for (lane, mut more) in other.lanes {
            match self.lanes.iter_mut().find(|(other, _)| *other == lane) {
                Some((_, seqs)) => seqs.append(&mut more),
                None => self.lanes.push((lane, more)),
            }
        }
    }

    /// Puts the places of each level in their order, so that what lies together on disk is found together.
    pub(super) fn sort(&mut self) {
        for (_, seqs) in &mut self.lanes {
            seqs.sort_unstable();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// The places level by level.
    pub fn into_lanes(self) -> impl Iterator<Item = (u8, SmallVec<[Seq; 4]>)> {
        self.lanes.into_iter()
    }
}
