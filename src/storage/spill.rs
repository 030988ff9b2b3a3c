//! Messages that must not outlive the broker and are here only because memory is short. They stand in queues that have no
//! definition, and a start removes such queues; so what a restart counts, and whatever else it does, knows nothing of them.
//! Those of a durable queue stand in a queue of their own beside it, under the same lanes and seqs.

use crate::broker::ids::{QueueId, Seq};
use crate::storage::{
    Loaded, StoreError, Target,
    group::Group,
    ledger::{Ledger, QueueLedger},
    rocks::Rocks,
};

/// From now on the store takes messages of this queue.
pub(super) fn begin(queue: QueueId, beside: Option<QueueId>, ledger: &mut Ledger) {
    if let Some(durable) = beside {
        // A queue that is gone leaves nothing.
        let Some(durable) = ledger.queues.get_mut(&durable) else {
            return;
        };
        durable.transient = Some(queue);
    }
    ledger.queues.entry(queue).or_insert_with(QueueLedger::new);
}

/// Two parts of one queue become one.
pub(super) fn merge(loaded: &mut Loaded, beside: Loaded) {
    if let Some(next) = beside.next {
        loaded.entries.retain(|(seq, _)| *seq < next);
        loaded.deadlines.retain(|(seq, _)| *seq < next);
        loaded.next = Some(next);
    }
    if beside.entries.is_empty() {
        return;
    }
    loaded.entries.extend(beside.entries);
    loaded.entries.sort_by_key(|(seq, _)| *seq);
    loaded.deadlines.extend(beside.deadlines);
    loaded.deadlines.sort_by_key(|(seq, _)| *seq);
}

impl Group {
    /// Where a transient message for the queue at `at` stands.
    pub(super) fn transient(&mut self, at: usize, target: &Target, ledger: &mut Ledger) -> usize {
        let beside = ledger.queues.get(&target.queue).and_then(|queue| queue.transient);
        let Some(beside) = beside.and_then(|queue| self.queue(queue, ledger)) else {
            return at;
        };
        if let Some(group) = self.queues.get_mut(beside) {
            group.highest = group.highest.max(target.seq.0);
        }
        beside
    }

    /// Purges what stands beside a queue; gives how many messages and bytes that were.
    pub(super) fn purge_transient(
        &mut self,
        id: QueueId,
        ranges: &[(u8, Seq, Seq)],
        ledger: &mut Ledger,
        rocks: &Rocks,
    ) -> Result<(u64, u64), StoreError> {
        match ledger.queues.get(&id).and_then(|queue| queue.transient) {
            Some(beside) => self.purge(beside, ranges, (0, 0), ledger, rocks),
            None => Ok((0, 0)),
        }
    }
}
