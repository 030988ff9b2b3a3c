//! What the store knows of each queue beside its disk: the numbers of its row and the metas of its pages. The committer
//! changes it while it builds a group; readers take it shortly to learn pages and to filter what they read.

use std::collections::{BTreeSet, HashMap, VecDeque};

use smallvec::SmallVec;

use crate::broker::ids::QueueId;
use crate::storage::{
    page_meta::PageMeta,
    row::{MIXED, Row, RowLane},
};

/// No group builder works for the queue now.
pub(super) const NO_GROUP: u32 = u32::MAX;

/// All stored queues.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) queues: HashMap<QueueId, QueueLedger, ahash::RandomState>,
}

/// One stored queue.
#[derive(Debug)]
pub(super) struct QueueLedger {
    pub(super) next_seq: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) delivered: u64,
    /// As in [`Row`].
    pub(super) deadlines: u64,
    pub(super) has_bodies: bool,
    /// Its place in the group being built, or [`NO_GROUP`].
    pub(super) group: u32,
    pub(super) lanes: SmallVec<[LaneLedger; 1]>,
    /// Places of messages that came back and have a record of it.
    pub(super) returned: BTreeSet<(u8, u64)>,
    /// Its messages wait for their time, and are kept by it.
    pub(super) holds: bool,
    /// How many of them there are, and their bodies.
    pub(super) scheduled: (u64, u64),
    /// The queue beside it that takes its transient messages (`spill`).
    pub(super) transient: Option<QueueId>,
}

/// The pages of one lane, ascending.
#[derive(Debug)]
pub(super) struct LaneLedger {
    pub(super) lane: u8,
    pages: VecDeque<PageMeta>,
    /// Ranges of first seqs of pages that were stored before this start and not looked at since, ascending.
    /// Every page outside is in `pages`, or gone.
    unknown: Vec<(u64, u64)>,
    /// Below it everything was gone when the store was opened.
    recovered_low: u64,
}

impl QueueLedger {
    pub(super) fn new() -> Self {
        Self::recovered(&Row {
            next_seq: 1,
            ..Row::default()
        })
    }

    /// The pages of the row's lanes are there, but not known yet.
    pub(super) fn recovered(row: &Row) -> Self {
        let lanes = row.lanes.iter().map(|lane| LaneLedger {
            lane: lane.lane,
            pages: VecDeque::new(),
            unknown: vec![(lane.head_page, row.next_seq)],
            recovered_low: lane.low,
        });
        Self {
            next_seq: row.next_seq,
            messages: row.messages,
            bytes: row.bytes,
            delivered: row.delivered,
            deadlines: row.deadlines,
            has_bodies: row.has_bodies,
            group: NO_GROUP,
            lanes: lanes.collect(),
            returned: BTreeSet::new(),
            holds: false,
            scheduled: (0, 0),
            transient: None,
        }
    }

    pub(super) fn row(&self) -> Row {
        let mut lanes: Vec<_> = self.lanes.iter().filter_map(LaneLedger::head).collect();
        lanes.sort_by_key(|lane| lane.lane);
        Row {
            next_seq: self.next_seq,
            messages: self.messages,
            bytes: self.bytes,
            delivered: self.delivered,
            deadlines: self.deadlines,
            has_bodies: self.has_bodies,
            lanes,
        }
    }

    /// A message joins; its deadline is 0 when it has none.
    pub(super) fn note_deadline(&mut self, deadline: u64) {
        let last = self.deadlines;
        self.deadlines = if self.messages > 0 && (deadline < last || (last == 0 && deadline > 0)) {
            MIXED
        } else {
            deadline
        };
    }

    pub(super) fn lane(&self, lane: u8) -> Option<&LaneLedger> {
        self.lanes.iter().find(|candidate| candidate.lane == lane)
    }

    pub(super) fn lane_mut(&mut self, lane: u8) -> Option<&mut LaneLedger> {
        self.lanes.iter_mut().find(|candidate| candidate.lane == lane)
    }

    /// The lane, new when this queue never had it.
    pub(super) fn lane_or_new(&mut self, lane: u8) -> &mut LaneLedger {
        let at = self
            .lanes
            .iter()
            .position(|candidate| candidate.lane == lane)
            .unwrap_or(self.lanes.len());
        if at == self.lanes.len() {
            self.lanes.push(LaneLedger {
                lane,
                pages: VecDeque::new(),
                unknown: Vec::new(),
                recovered_low: 0,
            });
        }
        #[expect(clippy::indexing_slicing, reason = "the position was found or just pushed")]
        &mut self.lanes[at]
    }
}

impl LaneLedger {
    /// The lane's line in the row; `None` when it holds no page.
    pub(super) fn head(&self) -> Option<RowLane> {
        let unknown = self.unknown.first().map(|(start, _)| *start);
        let (head_page, low) = match (self.pages.front(), unknown) {
            (Some(page), Some(start)) if start <= page.first() => (start, start.max(self.recovered_low)),
            (Some(page), _) => (page.first(), page.low()),
            (None, Some(start)) => (start, start.max(self.recovered_low)),
            (None, None) => return None,
        };
        Some(RowLane {
            lane: self.lane,
            head_page,
            low,
        })
    }

    pub(super) fn recovered_low(&self) -> u64 {
        self.recovered_low
    }

    /// Known pages.
    pub(super) fn pages(&self) -> impl Iterator<Item = &PageMeta> {
        self.pages.iter()
    }

    pub(super) fn pages_len(&self) -> usize {
        self.pages.len()
    }

    /// A page just written; its seqs are above all others of the lane.
    pub(super) fn push(&mut self, page: PageMeta) {
        debug_assert!(
            self.pages.back().is_none_or(|last| last.end() <= page.first()),
            "seqs of a lane are logged in ascending order"
        );
        self.pages.push_back(page);
    }

    /// Where the page with this seq is in [`LaneLedger::page_mut`].
    pub(super) fn find(&self, seq: u64) -> Option<usize> {
        let at = match self.pages.front() {
            // Acks mostly come in order.
            Some(front) if seq < front.end() => 0,
            _ => self
                .pages
                .partition_point(|page| page.first() <= seq)
                .checked_sub(1)?,
        };
        self.pages.get(at)?.index(seq).map(|_| at)
    }

    pub(super) fn page(&self, at: usize) -> Option<&PageMeta> {
        self.pages.get(at)
    }

    pub(super) fn page_mut(&mut self, at: usize) -> Option<&mut PageMeta> {
        self.pages.get_mut(at)
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<PageMeta> {
        self.pages.remove(at)
    }

    /// Whether the row's low end speaks of this page, so that acks from its front need no ack row.
    pub(super) fn is_head(&self, at: usize) -> bool {
        let Some(page) = self.pages.get(at) else {
            return false;
        };
        at == 0
            && self
                .unknown
                .first()
                .is_none_or(|(start, _)| *start > page.first())
    }

    pub(super) fn is_unknown(&self, first: u64) -> bool {
        self.unknown
            .iter()
            .any(|(start, end)| (*start..*end).contains(&first))
    }

    /// The parts of `from..until` whose pages are not known.
    pub(super) fn unknown_in(&self, from: u64, until: u64) -> impl Iterator<Item = (u64, u64)> {
        let cut = move |(start, end): &(u64, u64)| ((*start).max(from), (*end).min(until));
        self.unknown.iter().map(cut).filter(|(start, end)| start < end)
    }

    /// A page read from disk, unless it is known or gone meanwhile. One without live entries is remembered too: the
    /// next ack row or removal takes it along.
    pub(super) fn learn(&mut self, page: PageMeta) {
        if !self.is_unknown(page.first()) {
            return;
        }
        self.forget_unknown(page.first(), page.end());
        let at = self.pages.partition_point(|known| known.first() < page.first());
        self.pages.insert(at, page);
    }

    /// All pages that begin in `from..until` were seen, or removed.
    pub(super) fn forget_unknown(&mut self, from: u64, until: u64) {
        let mut left = Vec::with_capacity(self.unknown.len() + 1);
        for (start, end) in self.unknown.drain(..) {
            if end <= from || until <= start {
                left.push((start, end));
                continue;
            }
            if start < from {
                left.push((start, from));
            }
            if until < end {
                left.push((until, end));
            }
        }
        self.unknown = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::page_meta::MetaEntry;

    fn page(first: u64, count: usize) -> PageMeta {
        PageMeta::new(
            first,
            &vec![
                MetaEntry {
                    size: 1,
                    body: None,
                    gone: false
                };
                count
            ],
        )
    }

    fn recovered() -> QueueLedger {
        let lanes = vec![RowLane {
            lane: 0,
            head_page: 10,
            low: 13,
        }];
        QueueLedger::recovered(&Row {
            next_seq: 50,
            messages: 37,
            lanes,
            ..Row::default()
        })
    }

    #[test]
    fn a_recovered_lane_keeps_its_low_end_until_its_pages_are_learned() {
        let mut queue = recovered();
        queue.lane_or_new(0).push(page(50, 5));
        assert_eq!(
            queue.row().lanes,
            [RowLane {
                lane: 0,
                head_page: 10,
                low: 13
            }]
        );
        let lane = queue.lane_or_new(0);
        assert_eq!(lane.find(10), None);
        assert_eq!(lane.find(52), Some(0));
        assert!(!lane.is_head(0));
        lane.learn(page(10, 10));
        assert_eq!(lane.find(12), Some(0));
        assert!(lane.is_head(0));
        assert!(lane.remove(0).is_some());
        assert_eq!(lane.head().map(|head| head.head_page), Some(20));
        lane.forget_unknown(20, 50);
        assert_eq!(
            lane.head(),
            Some(RowLane {
                lane: 0,
                head_page: 50,
                low: 50
            })
        );
    }

    #[test]
    fn a_page_is_learned_once_and_never_after_it_was_purged() {
        let mut queue = recovered();
        let lane = queue.lane_or_new(0);
        lane.learn(page(20, 5));
        lane.learn(page(20, 5));
        assert_eq!(lane.pages_len(), 1);
        lane.forget_unknown(25, 40);
        lane.learn(page(30, 5));
        assert_eq!(lane.pages_len(), 1);
        assert_eq!(lane.unknown_in(0, 100).collect::<Vec<_>>(), [(10, 20), (40, 50)]);
        assert_eq!(lane.unknown_in(15, 42).collect::<Vec<_>>(), [(15, 20), (40, 42)]);
    }

    #[test]
    fn an_empty_queue_has_no_lane_in_its_row() {
        let mut queue = QueueLedger::new();
        queue.lane_or_new(3).push(page(1, 1));
        assert_eq!(queue.row().lanes.len(), 1);
        queue.lane_or_new(3).remove(0);
        assert_eq!(
            queue.row(),
            Row {
                next_seq: 1,
                ..Row::default()
            }
        );
    }
}
