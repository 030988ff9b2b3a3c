//! Until when deliveries of a channel must be settled (amqp-behaviour 4.11). No delivery carries a time: those with a
//! timeout of their own are noted in runs, a few hundred at most for each consumer; for the timeout that holds for all, a
//! mark now and then says which tags are how old.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::broker::{
    ids::{QueueId, Timestamp},
    queue::ConsumerId,
};

/// Who got a delivery: a consumer of a queue, or basic.get.
pub type Holder = (QueueId, Option<ConsumerId>);

/// A run's deadline is late by no more than this part of the timeout, so that a consumer has no more runs than this.
const RUNS: u64 = 256;
/// Marks that a channel keeps at most.
const MARKS: u64 = 32;
/// Marks that a channel keeps at most to tell ages by.
const AGES: usize = 64;
/// Deliveries taken back whose late acks are forgiven.
const FORGIVEN_MAX: usize = 16_384;

#[derive(Default)]
pub(super) struct AckTimeouts {
    /// Tags, first and last, of one holder that are due together; others may lie between.
    runs: BTreeMap<(Timestamp, Holder), (u64, u64)>,
    /// Tags whose time was set anew.
    extended: BTreeMap<u64, Timestamp>,
    /// Tags below were delivered before that time, ascending.
    marks: VecDeque<(Timestamp, u64)>,
    /// The same, for whoever asks how old deliveries are: close together when recent, further apart when old.
    ages: VecDeque<(Timestamp, u64)>,
    /// Tags taken back because their time was over.
    forgiven: BTreeSet<u64>,
}

impl AckTimeouts {
    /// The tags from `first` to `last` that `holder` got now are due in `timeout_ms`; gives when. `oldest` is the lowest
    /// outstanding.
    pub(super) fn note(
        &mut self,
        holder: Holder,
        (first, last): (u64, u64),
        timeout_ms: u64,
        now: Timestamp,
        oldest: u64,
    ) -> Timestamp {
        let grain = (timeout_ms / RUNS).max(1);
        let due = Timestamp(now.after(timeout_ms).0.div_ceil(grain).saturating_mul(grain));
        self.runs
            .entry((due, holder))
            .and_modify(|(_, end)| *end = last)
            .or_insert((first, last));
        while let Some(run) = self.runs.first_entry()
            && run.get().1 < oldest
        {
            run.remove();
        }
        due
    }

    #[cfg(test)]
    pub(super) fn run_count(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn extend(&mut self, tag: u64, until: Timestamp) {
        self.extended.insert(tag, until);
    }

    /// How many tags were extended; the caller bounds it with [`Self::retain_extended`].
    pub(super) fn extended_len(&self) -> usize {
        self.extended.len()
    }

    pub(super) fn retain_extended(&mut self, keep: impl Fn(u64) -> bool) {
        self.extended.retain(|tag, _| keep(*tag));
    }

    /// When a tag that was extended is due.
    pub(super) fn extension(&self, tag: u64) -> Option<Timestamp> {
        self.extended.get(&tag).copied()
    }

    /// When the next run or extension is due; `oldest` is the lowest tag outstanding.
    pub(super) fn next_due(&self, oldest: u64) -> Timestamp {
        let run = self.runs.iter().find(|(_, (_, last))| *last >= oldest);
        let run = run.map_or(Timestamp::NONE, |((due, _), _)| *due);
        let extended = self.extended.range(oldest..).map(|(_, due)| *due);
        extended.fold(run, Timestamp::earlier)
    }

    /// Takes out the runs that are due: holder, first and last tag.
    pub(super) fn take_due_runs(&mut self, now: Timestamp) -> Vec<(Holder, u64, u64)> {
        let mut due = Vec::new();
        while let Some(run) = self.runs.first_entry()
            && run.key().0 <= now
        {
            let holder = run.key().1;
            let (first, last) = run.remove();
            due.push((holder, first, last));
        }
        due
    }

    /// Takes out the tags whose extension is over.
    pub(super) fn take_due_extensions(&mut self, now: Timestamp) -> Vec<u64> {
        let due: Vec<u64> = self
            .extended
            .iter()
            .filter_map(|(tag, due)| (*due <= now).then_some(*tag))
            .collect();
        for tag in &due {
            self.extended.remove(tag);
        }
        due
    }

    /// Tags below `next` have been given out by now.
    pub(super) fn mark(&mut self, now: Timestamp, next: u64, timeout_ms: u64) {
        let spaced = self
            .marks
            .back()
            .is_none_or(|(at, _)| at.after(timeout_ms / MARKS) <= now);
        if spaced {
            self.marks.push_back((now, next));
        }
    }

    /// Tags below `next` have been given out by now, and those below `oldest` are settled.
    pub(super) fn note_age(&mut self, now: Timestamp, next: u64, oldest: u64) {
        let mut latest = self.ages.iter().rev().map(|(_, next)| *next);
        // The first mark of a number is the latest time for the tags below it, the last one the earliest for the others.
        if (latest.next(), latest.next()) == (Some(next), Some(next)) {
            self.ages.pop_back();
        }
        self.ages.push_back((now, next));
        while self.ages.get(1).is_some_and(|(_, next)| *next <= oldest) {
            self.ages.pop_front();
        }
        if self.ages.len() > AGES {
            // The one that is missed least: its neighbours are close, for its age.
            let times: Vec<u64> = self.ages.iter().map(|(at, _)| at.0).collect();
            let gap = |around: &[u64]| match around {
                [before, at, after] => (after - before).saturating_mul(1 << 16) / (now.0 - at + 1),
                _ => u64::MAX,
            };
            let gaps = times.windows(3).map(gap).enumerate();
            if let Some((at, _)) = gaps.min_by_key(|(_, gap)| *gap) {
                self.ages.remove(at + 1);
            }
        }
    }

    /// Between which marks a tag was given out.
    pub(super) fn handed_out(&self, tag: u64) -> (Timestamp, Timestamp) {
        let between = |marks: &VecDeque<(Timestamp, u64)>| {
            let at = marks.partition_point(|(_, next)| *next <= tag);
            let mark = |at: Option<usize>| {
                at.and_then(|at| marks.get(at))
                    .map_or(Timestamp::NONE, |(at, _)| *at)
            };
            (mark(at.checked_sub(1)), mark(Some(at)))
        };
        let (marked, aged) = (between(&self.marks), between(&self.ages));
        (Timestamp(marked.0.0.max(aged.0.0)), marked.1.earlier(aged.1))
    }

    pub(super) fn clear_marks(&mut self) {
        self.marks.clear();
    }

    /// Tags below this are older than the timeout.
    pub(super) fn older_than(&mut self, timeout_ms: u64, now: Timestamp) -> u64 {
        let mut older = 0;
        while let Some((at, tag)) = self.marks.front().copied()
            && at.after(timeout_ms) <= now
        {
            older = tag;
            if self
                .marks
                .get(1)
                .is_some_and(|(at, _)| at.after(timeout_ms) <= now)
            {
                self.marks.pop_front();
            } else {
                break;
            }
        }
        older
    }

    /// The tag's delivery is taken back: a late ack means nothing.
    pub(super) fn forgive(&mut self, tag: u64) {
        if self.forgiven.len() >= FORGIVEN_MAX {
            self.forgiven.pop_first();
        }
        self.forgiven.insert(tag);
    }

    /// Whether a late ack of this tag is forgiven; once.
    pub(super) fn is_forgiven(&mut self, tag: u64) -> bool {
        self.forgiven.remove(&tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_to_a_quarter_of_them_and_cost_a_few_marks() {
        let mut timeouts = AckTimeouts::default();
        // A delivery each second, nothing settled, for three hours; a mark every five seconds.
        let seconds = 3 * 3600;
        for second in (5..=seconds).step_by(5) {
            timeouts.note_age(Timestamp(second * 1000), second + 1, 1);
        }
        assert!(timeouts.ages.len() <= AGES);
        for second in 6..=seconds {
            let (from, until) = timeouts.handed_out(second);
            let told = format!("{second}: {from:?} {until:?}");
            assert!(from.0 <= second * 1000 && second * 1000 <= until.0, "{told}");
            let age = seconds * 1000 - from.0;
            assert!(until.0 - from.0 <= 5000 + age / 4, "{told}");
        }
        // What follows a long silence is not old.
        for now in 1..=100 {
            timeouts.note_age(Timestamp((seconds + 5 * now) * 1000), seconds + 1, 1);
        }
        timeouts.note_age(Timestamp((seconds + 505) * 1000), seconds + 2, 1);
        let (from, until) = timeouts.handed_out(seconds + 1);
        assert_eq!(until.0 - from.0, 5000);
        // What is settled is forgotten.
        timeouts.note_age(Timestamp((seconds + 510) * 1000), seconds + 2, seconds + 2);
        assert!(timeouts.ages.len() <= 2);
    }
}
