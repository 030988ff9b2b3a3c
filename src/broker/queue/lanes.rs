//! A queue's priority levels, highest first. Level 0 is always there; the others appear with their first message, so
//! that a queue which allows 255 of them pays for those it uses (amqp-behaviour 4.8).

use smallvec::SmallVec;

use crate::broker::{
    ids::Seq,
    message::Message,
    queue::{Entry, Recovered, Removed, paging::Gap, ready::Ready},
};

/// The waiting messages of one level: those in memory, and what lies between them on disk only.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) level: u8,
    pub(super) ready: Ready,
    pub(super) gap: Option<Gap>,
    /// Highest place of this level ever handed out: what lies below was.
    pub(super) delivered: Seq,
}

impl Lane {
    fn new(level: u8) -> Self {
        Self {
            level,
            ..Self::default()
        }
    }

    /// The message [`Self::pop`] would give.
    pub(super) fn peek(&self) -> Option<&Entry> {
        self.ready.peek(self.gap.as_ref().map(Gap::from))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.gap.is_none() && self.ready.len() == 0
    }

    /// Whether its oldest message is in memory. What stands behind an empty gap comes forward for it.
    #[inline]
    pub(super) fn has_ready(&mut self) -> bool {
        self.ready.can_pop(self.gap.as_ref().map(Gap::from))
            || (self.close_empty_gap() && self.ready.can_pop(None))
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.ready.pop(self.gap.as_ref().map(Gap::from))?;
        self.delivered = self.delivered.max(entry.seq);
        Some(entry)
    }
}

pub(super) struct Lanes {
    /// By level, descending. Never empty.
    all: SmallVec<[Lane; 1]>,
    /// `x-max-priority`; 0 for a queue without priorities.
    max: u8,
    /// The level of messages without a priority, where that is not the lowest.
    normal: u8,
    /// No level before this one holds a message.
    top: usize,
    /// Messages on disk only, and their bodies, over all levels: a restart knows only the sum.
    pub(super) disk_count: u64,
    pub(super) disk_bytes: u64,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self {
            all: SmallVec::from_buf([Lane::default()]),
            max: 0,
            normal: 0,
            top: 0,
            disk_count: 0,
            disk_bytes: 0,
        }
    }

    /// As the store kept them: nothing in memory, everything to be read when asked for.
    pub(super) fn recovered(row: &Recovered) -> Self {
        let mut lanes = Self::new();
        for &(level, low) in &row.lanes {
            // Levels beyond the maximum cannot be; whatever the store says is kept all the same.
            lanes.max = lanes.max.max(level);
            let lane = lanes.at(level);
            lane.delivered = row.delivered_through;
            lane.gap = Some(Gap::new(low, row.next_seq));
            lane.ready = Ready::all_on_disk();
        }
        lanes.disk_count = row.messages;
        lanes.disk_bytes = row.bytes;
        lanes.top = 0;
        lanes
    }

    /// Sets the highest level messages may have from now on.
    pub(super) fn set_max(&mut self, max: u8) {
        self.max = self.max.max(max);
    }

    /// The levels of a quorum queue: 0 to 31, and 4 for a message that names none (amqp-behaviour 4.3).
    pub(super) fn set_quorum(&mut self) {
        self.max = 31;
        self.normal = 4;
    }

    /// The level a message belongs to.
    #[inline]
    pub(super) fn level(&self, message: &Message) -> u8 {
        if self.max == 0 {
            0
        } else if self.normal > 0 && !message.has_priority() {
            self.normal
        } else {
            message.priority().min(self.max)
        }
    }

    /// The lane of a level, made when it was never used.
    #[inline]
    pub(super) fn at(&mut self, level: u8) -> &mut Lane {
        let at = if self.all.len() == 1 && level == 0 {
            0
        } else {
            let found = self.all.binary_search_by(|lane| level.cmp(&lane.level));
            let at = found.unwrap_or_else(|at| {
                self.all.insert(at, Lane::new(level));
                at
            });
            // Whoever asks may put a message there.
            self.top = self.top.min(at);
            at
        };
        #[expect(clippy::indexing_slicing, reason = "the place was found or just made")]
        &mut self.all[at]
    }

    /// The highest level that holds a message.
    #[inline]
    pub(super) fn top(&mut self) -> &mut Lane {
        while self.top + 1 < self.all.len() && self.all.get(self.top).is_some_and(Lane::is_empty) {
            self.top += 1;
        }
        #[expect(
            clippy::indexing_slicing,
            reason = "the loop stays inside, and there is always one"
        )]
        &mut self.all[self.top]
    }

    /// The levels that were ever used, highest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.all.iter_mut()
    }

    /// Messages waiting, wherever they are.
    pub(super) fn len(&self) -> u64 {
        self.disk_count + self.all.iter().map(|lane| lane.ready.len()).sum::<u64>()
    }

    /// Memory the waiting messages take.
    pub(super) fn bytes(&self) -> usize {
        self.all.iter().map(|lane| lane.ready.bytes()).sum()
    }

    /// Levels in use.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_paged(&self) -> bool {
        self.all.iter().any(|lane| lane.gap.is_some())
    }

    /// Whether a message can be handed out from memory.
    #[inline]
    pub(super) fn has_ready(&mut self) -> bool {
        // A level may turn out to be empty when its gap, in which nothing is left, closes.
        while !self.top().has_ready() {
            let found_empty = self.top;
            self.top();
            if self.top == found_empty {
                return false;
            }
        }
        true
    }

    /// The oldest message of the highest level, unless it has to be read from disk first.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.top().pop()
    }

    /// Forgets everything. Stored messages that were in memory go to `removed`, what is on disk only is told by range.
    pub(super) fn clear(&mut self, removed: &mut Removed) -> SmallVec<[(u8, Seq, Seq); 1]> {
        let mut ranges = SmallVec::new();
        for lane in &mut self.all {
            lane.ready.clear(removed);
            if let Some(gap) = lane.gap.take() {
                ranges.push((lane.level, gap.from(), gap.until()));
            }
        }
        (self.disk_count, self.disk_bytes) = (0, 0);
        ranges
    }
}
