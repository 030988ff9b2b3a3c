//! The second pass over a group: what is left of its messages goes into pages, acks of stored pages into ack rows, and each
//! queue's numbers into its row.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::broker::ids::{QueueId, Seq};
use crate::storage::{
    bodies::{self, AHEAD_MIN_BYTES, AheadBody},
    group::{Group, GroupLane, Pending},
    keys,
    ledger::{Ledger, NO_GROUP, QueueLedger},
    page::{self, BodyRef},
    page_meta::{MetaEntry, PageMeta},
    rocks::{Family, Rocks},
};

/// A body that several queues share is stored apart when its copies would take more than this.
const SHARED_MIN_BYTES: u64 = 4 * 1024;

impl Group {
    /// Completes the batch.
    pub(super) fn pack(&mut self, ledger: &mut Ledger, rocks: &Rocks) {
        self.forget_last();
        let now = wall_clock_ms();
        for mut group in std::mem::take(&mut self.queues) {
            let Some(queue) = ledger.queues.get_mut(&group.id) else {
                continue;
            };
            queue.group = NO_GROUP;
            if group.highest > 0 {
                queue.next_seq = queue.next_seq.max(group.highest + 1);
                self.committed.push((group.id, Seq(group.highest)));
            }
            for lane in group.lanes.drain(..) {
                group.changed |= self.pack_lane(group.id, &lane, queue, now, rocks);
                self.pack_acks(group.id, &lane, queue, rocks);
                self.recycle(lane);
            }
            if group.changed {
                let mut value = std::mem::take(&mut self.scratch);
                queue.row().encode(&mut value);
                self.batch
                    .put_cf(rocks.family(Family::QueueRow), keys::queue(group.id), &value);
                self.scratch = value;
                self.write_scheduled(group.id, queue, rocks);
            }
        }
        self.counts.deleted_bytes += self.bodies.write_counts(rocks, &mut self.batch);
    }

    /// Writes the lane's messages as pages; `true` when there were any.
    fn pack_lane(
        &mut self,
        id: QueueId,
        lane: &GroupLane,
        queue: &mut QueueLedger,
        now: u64,
        rocks: &Rocks,
    ) -> bool {
        let live = |entry: &Pending| !entry.hole;
        let (Some(first), Some(last)) = (
            lane.entries.iter().position(live),
            lane.entries.iter().rposition(live),
        ) else {
            return false;
        };
        let mut open: Option<(u64, u64)> = None;
        for entry in lane.entries.get(first..=last).unwrap_or_default() {
            let message = if entry.hole {
                None
            } else {
                self.place_body(entry.slot, rocks)
            };
            let record_len = message.map_or(0, |(len, _)| len);
            if let Some((first_seq, next)) = open
                && (entry.seq != next || !self.page.has_room(record_len))
            {
                self.close_page(id, lane.lane, first_seq, queue, rocks);
                open = None;
            }
            if open.is_none() && message.is_none() {
                continue;
            }
            let first_seq = open.map_or_else(
                || {
                    self.page.begin(now);
                    self.metas.clear();
                    entry.seq
                },
                |(first_seq, _)| first_seq,
            );
            self.write_entry(entry, message, queue);
            open = Some((first_seq, entry.seq + 1));
        }
        if let Some((first_seq, _)) = open {
            self.close_page(id, lane.lane, first_seq, queue, rocks);
        }
        true
    }

    fn write_entry(
        &mut self,
        entry: &Pending,
        message: Option<(usize, Option<BodyRef>)>,
        queue: &mut QueueLedger,
    ) {
        let slot = self.slots.get(entry.slot as usize);
        let (Some((record_len, body)), Some(slot)) = (message, slot) else {
            self.page.hole();
            self.metas.push(MetaEntry {
                size: 0,
                body: None,
                gone: true,
            });
            return;
        };
        let record = slot.message.record().get(..record_len).unwrap_or_default();
        self.page.message(record, body, entry.expires_at);
        queue.note_deadline(entry.expires_at);
        let size = slot.message.body_len();
        self.metas.push(MetaEntry {
            size,
            body: body.map(|body| body.id),
            gone: false,
        });
        self.sync |= slot.waits;
        queue.messages += 1;
        queue.bytes += size;
        queue.has_bodies |= body.is_some();
        self.counts.messages += 1;
    }

    fn close_page(&mut self, id: QueueId, lane: u8, first: u64, queue: &mut QueueLedger, rocks: &Rocks) {
        let key = keys::page(id, lane, first);
        self.batch
            .put_cf(rocks.family(Family::Page), key, self.page.finish());
        queue.lane_or_new(lane).push(PageMeta::new(first, &self.metas));
    }

    /// How much of the record goes into the page, and where the body is if not there. The first target that asks
    /// decides for all, when every ack of this group is known: then the references are counted exactly.
    fn place_body(&mut self, slot: u32, rocks: &Rocks) -> Option<(usize, Option<BodyRef>)> {
        let slot = self.slots.get_mut(slot as usize)?;
        let record = slot.message.record();
        let inline = slot.message.inline_body();
        let head_len = record.len() - inline.len();
        if slot.body.is_some() {
            return Some((head_len, slot.body));
        }
        let len = slot.message.body_len();
        let large = slot.message.large_body();
        if large.is_none() && (slot.live < 2 || len * u64::from(slot.live) <= SHARED_MIN_BYTES) {
            return Some((record.len(), None));
        }
        let id = self.bodies.add(len, slot.live);
        let family = rocks.family(Family::Body);
        match large {
            Some(body) if len > AHEAD_MIN_BYTES => {
                self.ahead.push(AheadBody {
                    id,
                    body: body.clone(),
                });
            }
            Some(body) => {
                let batch = &mut self.batch;
                let put = |piece, bytes: &[u8]| {
                    batch.put_cf(family, keys::body_piece(id, piece), bytes);
                    Ok::<_, std::convert::Infallible>(())
                };
                let Ok(()) = bodies::each_piece(&body.chunks, put);
            }
            None => {
                for (piece, bytes) in (0..).zip(inline.chunks(bodies::PIECE_BYTES)) {
                    self.batch.put_cf(family, keys::body_piece(id, piece), bytes);
                }
            }
        }
        slot.body = Some(BodyRef {
            id,
            len,
            large: large.is_some(),
        });
        Some((head_len, slot.body))
    }

    /// Stores which entries of touched pages are gone. A page at the low end of its lane whose acks came from its front
    /// needs nothing: the row tells it. Every other is written at once and never deferred, so that an ack is
    /// durable with the next confirm (hostile-input-and-faults I6).
    fn pack_acks(&mut self, id: QueueId, lane: &GroupLane, queue: &mut QueueLedger, rocks: &Rocks) {
        let Some(stored) = queue.lane_mut(lane.lane) else {
            return;
        };
        for first in &lane.touched {
            let Some(place) = stored.find(*first) else {
                continue;
            };
            let is_head = stored.is_head(place);
            let Some(page) = stored.page_mut(place) else {
                continue;
            };
            if page.out_of_order || !is_head {
                page::encode_acks(&mut self.scratch, page.count(), |index| page.is_gone(index));
                let key = keys::page(id, lane.lane, *first);
                self.batch.put_cf(rocks.family(Family::Ack), key, &self.scratch);
                page.has_ack_row = true;
            }
            page.touched = false;
            page.out_of_order = false;
        }
    }
}

/// For ages over a restart only; nothing in the store depends on it.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
