//! One group: takes operations in the order of the log and turns them into one batch. First pass here: publishes are
//! kept, acks are applied to what is kept or to the ledger. The second pass (`pack`) writes pages and rows.

use std::collections::VecDeque;

use rocksdb::WriteBatch;
use smallvec::SmallVec;

use crate::broker::{
    confirm::ConfirmToken,
    definition::Definition,
    ids::{QueueId, Seq},
    message::Message,
};
use crate::storage::{
    DefinitionKey, Op, StoreError, Target,
    bodies::{AheadBody, Bodies},
    keys,
    ledger::{Ledger, NO_GROUP, QueueLedger},
    page::{BodyRef, PageWriter},
    page_meta::MetaEntry,
    records,
    rocks::{Family, Rocks},
    schedule, spill,
    waiting::Waiting,
};

/// The committer's workbench. Its memory is used for group after group.
pub(super) struct Group {
    pub(super) batch: WriteBatch,
    pub(super) waiting: Waiting,
    /// Large bodies that must be written before the batch.
    pub(super) ahead: Vec<AheadBody>,
    /// Somebody waits for something this batch holds.
    pub(super) sync: bool,
    /// Queues that got messages, with the highest seq.
    pub(super) committed: Vec<(QueueId, Seq)>,
    pub(super) counts: GroupCounts,
    pub(super) bodies: Bodies,
    pub(super) slots: Vec<Slot>,
    pub(super) queues: Vec<GroupQueue>,
    /// The queue of the last op and its place, which the next op mostly shares.
    last: Option<(QueueId, usize)>,
    spare: Vec<Vec<Pending>>,
    pub(super) page: PageWriter,
    pub(super) metas: Vec<MetaEntry>,
    pub(super) scratch: Vec<u8>,
}

/// What one group amounted to.
#[derive(Clone, Copy, Default)]
pub(super) struct GroupCounts {
    pub(super) ops: u64,
    /// Bytes of the ops as the log counted them.
    pub(super) op_bytes: usize,
    pub(super) messages: u64,
    pub(super) holes: u64,
    /// Bytes on disk that nothing refers to any more.
    pub(super) deleted_bytes: u64,
    /// Those of them that were pages whose last message was acked.
    pub(super) erased_bytes: u64,
}

/// A message of this group.
pub(super) struct Slot {
    pub(super) message: Message,
    /// Targets that did not ack it yet.
    pub(super) live: u32,
    pub(super) waits: bool,
    /// Decided by the second pass.
    pub(super) body: Option<BodyRef>,
}

/// What a group does to one queue.
pub(super) struct GroupQueue {
    pub(super) id: QueueId,
    pub(super) highest: u64,
    /// The row has to be written.
    pub(super) changed: bool,
    /// As in the ledger.
    pub(super) holds: bool,
    pub(super) lanes: SmallVec<[GroupLane; 1]>,
}

/// What a group does to one lane.
pub(super) struct GroupLane {
    pub(super) lane: u8,
    /// Ascending by seq.
    pub(super) entries: Vec<Pending>,
    /// First seqs of stored pages with new acks.
    pub(super) touched: Vec<u64>,
}

/// A message on its way into a page.
pub(super) struct Pending {
    pub(super) seq: u64,
    pub(super) slot: u32,
    /// Acked before it was written: it never will be.
    pub(super) hole: bool,
    /// Milliseconds since 1970; 0 is never.
    pub(super) expires_at: u64,
}

impl Group {
    pub(super) fn new(bodies: Bodies) -> Self {
        Self {
            batch: WriteBatch::default(),
            waiting: Waiting::default(),
            ahead: Vec::new(),
            sync: false,
            committed: Vec::new(),
            counts: GroupCounts::default(),
            bodies,
            slots: Vec::new(),
            queues: Vec::new(),
            last: None,
            spare: Vec::new(),
            page: PageWriter::default(),
            metas: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes ops from the front until `max_bytes`, at least one, and leaves the batch ready to be written. All of
    /// them together are `expected_bytes`.
    ///
    /// # Errors
    /// When the disk fails under a read that an op needs.
    pub(super) fn build(
        &mut self,
        ops: &mut VecDeque<Op>,
        max_bytes: usize,
        expected_bytes: usize,
        ledger: &mut Ledger,
        rocks: &Rocks,
    ) -> Result<(), StoreError> {
        self.counts = GroupCounts::default();
        self.sync = false;
        self.committed.clear();
        // Pages, rows and keys come to a little more than the ops.
        let expected = expected_bytes.min(max_bytes);
        self.batch = WriteBatch::with_capacity_bytes(expected + expected / 16 + 1024);
        while let Some(bytes) = ops.front().map(Op::pending_bytes) {
            if self.counts.ops > 0 && self.counts.op_bytes + bytes > max_bytes {
                break;
            }
            self.counts.ops += 1;
            self.counts.op_bytes += bytes;
            if let Some(op) = ops.pop_front() {
                self.apply(op, ledger, rocks)?;
            }
        }
        self.sync |= self.waiting.has_dones();
        self.pack(ledger, rocks);
        Ok(())
    }

    /// Lets go of the messages once the group is written.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.ahead.clear();
    }

    fn apply(&mut self, op: Op, ledger: &mut Ledger, rocks: &Rocks) -> Result<(), StoreError> {
        match op {
            Op::Publish {
                message,
                targets,
                confirm,
            } => self.publish(message, &targets, confirm, ledger, rocks),
            Op::Ack { queue, lane, seqs } => self.ack(queue, lane, &seqs, ledger, rocks)?,
            Op::Define { definition, done } => {
                self.define(&definition, ledger, rocks);
                self.waiting.done(done);
            }
            Op::Undefine { key, done } => {
                self.batch
                    .delete_cf(rocks.family(Family::Meta), keys::of_definition_key(&key));
                if let DefinitionKey::Queue { id, .. } = key {
                    self.remove_queue(id, ledger, rocks)?;
                }
                self.waiting.done(done);
            }
            Op::Purge {
                queue,
                ranges,
                count,
                bytes,
            } => {
                self.purge(queue, &ranges, (count, bytes), ledger, rocks)?;
            }
            Op::Unschedule { queue, turn, bytes } => self.unschedule(queue, turn, bytes, ledger, rocks),
            Op::Returned { queue, returned } => self.returned(queue, &returned, ledger, rocks),
            Op::Spill { queue, beside } => spill::begin(queue, beside, ledger),
            Op::Forget { queue } => self.remove_queue(queue, ledger, rocks)?,
            Op::Delivered { queue, through } => self.delivered(queue, through, ledger),
            Op::Tx { ops, done } => {
                for op in ops {
                    self.apply(op, ledger, rocks)?;
                }
                self.waiting.done(done);
            }
            Op::Barrier { done } => self.waiting.done(Some(done)),
            Op::ReserveQueueIds { until } => {
                self.batch.put_cf(
                    rocks.family(Family::Meta),
                    keys::NEXT_QUEUE_ID,
                    until.to_le_bytes(),
                );
            }
        }
        Ok(())
    }

    fn publish(
        &mut self,
        message: Message,
        targets: &[Target],
        confirm: Option<ConfirmToken>,
        ledger: &mut Ledger,
        rocks: &Rocks,
    ) {
        let slot = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let mut live = 0;
        for target in targets {
            // A queue that is gone needs nothing stored; the publish counts as consumed.
            let Some(at) = self.queue(target.queue, ledger) else {
                continue;
            };
            let mut holds = false;
            if let Some(group) = self.queues.get_mut(at) {
                group.highest = group.highest.max(target.seq.0);
                holds = group.holds;
            }
            if holds && let Some(queue) = ledger.queues.get_mut(&target.queue) {
                self.schedule(at, target, &message, queue, rocks);
                self.sync |= confirm.is_some();
                continue;
            }
            let at = if message.persistent() {
                at
            } else {
                self.transient(at, target, ledger)
            };
            let lane = self.lane(at, target.lane);
            debug_assert!(
                lane.entries.last().is_none_or(|last| last.seq < target.seq.0),
                "seqs of a lane are logged in ascending order"
            );
            lane.entries.push(Pending {
                seq: target.seq.0,
                slot,
                hole: false,
                expires_at: target.expires_at.0,
            });
            live += 1;
        }
        let waits = confirm.is_some();
        if let Some(token) = confirm {
            self.waiting.confirm(token);
        }
        if live > 0 {
            self.slots.push(Slot {
                message,
                live,
                waits,
                body: None,
            });
        }
    }

    fn ack(
        &mut self,
        id: QueueId,
        lane: u8,
        seqs: &[Seq],
        ledger: &mut Ledger,
        rocks: &Rocks,
    ) -> Result<(), StoreError> {
        let Some(at) = self.queue(id, ledger) else {
            return Ok(());
        };
        let Some(queue) = ledger.queues.get_mut(&id) else {
            return Ok(());
        };
        let transient = queue.transient;
        let mut elsewhere: SmallVec<[Seq; 4]> = SmallVec::new();
        for seq in seqs {
            if !queue.returned.is_empty() {
                self.forget_returned(id, queue, lane, seq.0, rocks);
            }
            let found =
                self.drop_pending(at, lane, seq.0) || self.ack_stored(at, queue, lane, seq.0, rocks)?;
            if !found && transient.is_some() {
                elsewhere.push(*seq);
            }
        }
        match transient {
            Some(transient) if !elsewhere.is_empty() => self.ack(transient, lane, &elsewhere, ledger, rocks),
            _ => Ok(()),
        }
    }

    /// Turns a message of this group into a hole. `false` when it is not of this group.
    pub(super) fn drop_pending(&mut self, at: usize, lane: u8, seq: u64) -> bool {
        let lanes = self.queues.get_mut(at).map(|queue| &mut queue.lanes);
        let Some(lane) = lanes
            .into_iter()
            .flatten()
            .find(|candidate| candidate.lane == lane)
        else {
            return false;
        };
        if lane.entries.first().is_none_or(|first| seq < first.seq) {
            return false;
        }
        let Ok(place) = lane.entries.binary_search_by_key(&seq, |entry| entry.seq) else {
            return false;
        };
        if let Some(entry) = lane.entries.get_mut(place).filter(|entry| !entry.hole) {
            entry.hole = true;
            self.counts.holes += 1;
            if let Some(slot) = self.slots.get_mut(entry.slot as usize) {
                slot.live -= 1;
            }
        }
        true
    }

    /// Takes a stored message out of its page; `false` when it is not there.
    pub(super) fn ack_stored(
        &mut self,
        at: usize,
        queue: &mut QueueLedger,
        lane: u8,
        seq: u64,
        rocks: &Rocks,
    ) -> Result<bool, StoreError> {
        let Some(stored) = queue.lane_mut(lane) else {
            return Ok(false);
        };
        let Some((place, page)) = stored
            .find(seq)
            .and_then(|place| Some((place, stored.page_mut(place)?)))
        else {
            return Ok(false);
        };
        let touched_before = page.touched;
        let Some(gone) = page.index(seq).and_then(|index| page.ack(index)) else {
            return Ok(false);
        };
        let (first, is_empty) = (page.first(), page.live() == 0);
        queue.messages = queue.messages.saturating_sub(1);
        queue.bytes = queue.bytes.saturating_sub(gone.size);
        if is_empty {
            self.remove_page(at, queue, lane, place, rocks);
        } else if !touched_before {
            self.lane(at, lane).touched.push(first);
        }
        if let Some(group) = self.queues.get_mut(at) {
            group.changed = true;
        }
        if let Some(body) = gone.body {
            self.bodies.release(rocks, body)?;
        }
        Ok(true)
    }

    /// Erases a page and what belongs to it; its entries are accounted for already.
    pub(super) fn remove_page(
        &mut self,
        at: usize,
        queue: &mut QueueLedger,
        lane: u8,
        place: usize,
        rocks: &Rocks,
    ) {
        let Some(id) = self.queues.get(at).map(|queue| queue.id) else {
            return;
        };
        let Some(page) = queue.lane_mut(lane).and_then(|lane| lane.remove(place)) else {
            return;
        };
        let key = keys::page(id, lane, page.first());
        self.batch.single_delete_cf(rocks.family(Family::Page), key);
        if page.has_ack_row {
            self.batch.delete_cf(rocks.family(Family::Ack), key);
        }
        self.counts.deleted_bytes += page.disk_bytes();
        self.counts.erased_bytes += page.disk_bytes();
    }

    /// What was handed out is flagged after a crash, even if nothing else is written; but an empty queue's row has nothing
    /// to flag, and costs nothing.
    fn delivered(&mut self, id: QueueId, through: Seq, ledger: &mut Ledger) {
        let Some(at) = self.queue(id, ledger) else { return };
        let Some(queue) = ledger.queues.get_mut(&id) else {
            return;
        };
        if queue.delivered < through.0 {
            queue.delivered = through.0;
            if let Some(group) = self.queues.get_mut(at).filter(|_| queue.messages > 0) {
                group.changed = true;
            }
        }
    }

    fn define(&mut self, definition: &Definition, ledger: &mut Ledger, rocks: &Rocks) {
        let value = records::encode_definition(definition);
        self.batch
            .put_cf(rocks.family(Family::Meta), keys::of_definition(definition), value);
        if let Definition::Queue(queue) = definition {
            let stored = ledger.queues.entry(queue.id).or_insert_with(QueueLedger::new);
            stored.holds = schedule::holds(queue);
            if let Some(group) = self
                .queue(queue.id, ledger)
                .and_then(|at| self.queues.get_mut(at))
            {
                group.changed = true;
                group.holds = schedule::holds(queue);
            }
        }
    }

    /// The place of a stored queue in this group; `None` for one that is not stored.
    pub(super) fn queue(&mut self, id: QueueId, ledger: &mut Ledger) -> Option<usize> {
        if let Some((last, at)) = self.last
            && last == id
        {
            return Some(at);
        }
        let queue = ledger.queues.get_mut(&id)?;
        if queue.group == NO_GROUP {
            queue.group = u32::try_from(self.queues.len()).unwrap_or(NO_GROUP);
            self.queues.push(GroupQueue {
                id,
                highest: 0,
                changed: false,
                holds: queue.holds,
                lanes: SmallVec::new(),
            });
        }
        let at = queue.group as usize;
        self.last = Some((id, at));
        Some(at)
    }

    /// The lane of a queue of this group.
    pub(super) fn lane(&mut self, at: usize, lane: u8) -> &mut GroupLane {
        #[expect(
            clippy::indexing_slicing,
            reason = "places come from `queue` and stay until the group is packed"
        )]
        let lanes = &mut self.queues[at].lanes;
        let place = lanes
            .iter()
            .position(|candidate| candidate.lane == lane)
            .unwrap_or(lanes.len());
        if place == lanes.len() {
            let entries = self.spare.pop().unwrap_or_default();
            lanes.push(GroupLane {
                lane,
                entries,
                touched: Vec::new(),
            });
        }
        #[expect(clippy::indexing_slicing, reason = "the position was found or just pushed")]
        &mut lanes[place]
    }

    /// Forgets the queue's place: later ops of this group must not find it.
    pub(super) fn forget_last(&mut self) {
        self.last = None;
    }

    /// Keeps the memory of a packed lane for the next group.
    pub(super) fn recycle(&mut self, mut lane: GroupLane) {
        const KEPT_ENTRIES: usize = 64 * 1024;
        const KEPT_LANES: usize = 1024;
        if lane.entries.capacity() <= KEPT_ENTRIES && self.spare.len() < KEPT_LANES {
            lane.entries.clear();
            self.spare.push(lane.entries);
        }
    }
}
