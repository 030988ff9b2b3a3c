//! Removing many messages at once: a range of a lane, or a whole queue. Known pages go one by one or with the range;
//! pages not looked at since the start go unread, unless their bodies stand elsewhere and have to be counted down.

use rocksdb::{ReadOptions, WriteBatch};

use crate::broker::ids::{QueueId, Seq};
use crate::storage::{
    StoreError,
    bodies::Bodies,
    group::{Group, GroupLane},
    keys,
    ledger::{LaneLedger, Ledger, QueueLedger},
    page::Page,
    page_meta::PageMeta,
    rocks::{Family, Rocks},
};

/// Up to this many pages are erased by key; more of them, or unknown ones, by range.
const BY_KEY_MAX: usize = 64;

/// What a purge removes from one lane.
struct Range {
    lane: u8,
    from: u64,
    /// Exclusive.
    until: u64,
}

impl Group {
    /// Removes the ranges. `believed` are the messages and body bytes in all of them as the queue counts them. Gives how
    /// many of both the store knew there, which are all of those that came since the start.
    pub(super) fn purge(
        &mut self,
        id: QueueId,
        ranges: &[(u8, Seq, Seq)],
        believed: (u64, u64),
        ledger: &mut Ledger,
        rocks: &Rocks,
    ) -> Result<(u64, u64), StoreError> {
        let transient = self.purge_transient(id, ranges, ledger, rocks)?;
        let Some(at) = self.queue(id, ledger) else {
            return Ok((0, 0));
        };
        let Some(queue) = ledger.queues.get_mut(&id) else {
            return Ok((0, 0));
        };
        let before = (queue.messages, queue.bytes);
        let (mut dropped, mut dropped_bytes, mut all_known) = (0, 0, true);
        for &(lane, from, until) in ranges {
            let (from, until) = (from.0, until.0);
            let range = Range { lane, from, until };
            self.forget_returned_range(id, queue, (lane, from, until), rocks);
            let (count, bytes) = self.drop_pending_range(at, &range);
            dropped += count;
            dropped_bytes += bytes;
            for seq in [from, until] {
                learn_straddling(id, lane, seq, queue, rocks)?;
            }
            self.purge_known(at, queue, &range, rocks)?;
            all_known &= !self.purge_unknown(id, queue, &range, rocks)?;
        }
        let known = (
            before.0.saturating_sub(queue.messages) + dropped,
            before.1.saturating_sub(queue.bytes) + dropped_bytes,
        );
        if !all_known {
            // What lay there is not known here: the queue's own count says it.
            let removed = believed.0.saturating_sub(transient.0 + dropped);
            let removed_bytes = believed.1.saturating_sub(transient.1 + dropped_bytes);
            queue.messages = before.0.saturating_sub(removed).min(queue.messages);
            queue.bytes = before.1.saturating_sub(removed_bytes).min(queue.bytes);
            self.counts.deleted_bytes += removed_bytes;
        }
        if let Some(group) = self.queues.get_mut(at) {
            group.changed = true;
        }
        Ok(known)
    }

    /// Removes pages of the range that nobody looked at since the start; `true` when there may have been some.
    fn purge_unknown(
        &mut self,
        id: QueueId,
        queue: &mut QueueLedger,
        range: &Range,
        rocks: &Rocks,
    ) -> Result<bool, StoreError> {
        let unknown: Vec<_> = queue
            .lane(range.lane)
            .map(|lane| lane.unknown_in(range.from, range.until).collect())
            .unwrap_or_default();
        for &(from, until) in &unknown {
            if queue.has_bodies {
                release_bodies(id, range.lane, from, until, queue, &mut self.bodies, rocks)?;
            }
            let (start, end) = (
                keys::page(id, range.lane, from),
                keys::page(id, range.lane, until),
            );
            delete_range(&mut self.batch, rocks, &start, &end);
            if let Some(lane) = queue.lane_mut(range.lane) {
                lane.forget_unknown(from, until);
            }
        }
        Ok(!unknown.is_empty())
    }

    /// The queue with all it holds.
    pub(super) fn remove_queue(
        &mut self,
        id: QueueId,
        ledger: &mut Ledger,
        rocks: &Rocks,
    ) -> Result<(), StoreError> {
        let Some(at) = self.queue(id, ledger) else {
            return Ok(());
        };
        for lane in 0..self.queues.get(at).map_or(0, |queue| queue.lanes.len()) {
            let number = self
                .queues
                .get(at)
                .and_then(|queue| queue.lanes.get(lane))
                .map(|lane| lane.lane);
            let all = Range {
                lane: number.unwrap_or(0),
                from: 0,
                until: u64::MAX,
            };
            self.drop_pending_range(at, &all);
        }
        self.forget_last();
        let Some(mut queue) = ledger.queues.remove(&id) else {
            return Ok(());
        };
        if let Some(transient) = queue.transient {
            self.remove_queue(transient, ledger, rocks)?;
        }
        self.forget_all_returned(id, &mut queue, rocks);
        self.forget_scheduled(id, &queue, rocks);
        self.counts.deleted_bytes += queue.bytes;
        self.batch
            .delete_cf(rocks.family(Family::QueueRow), keys::queue(id));
        for lane in &queue.lanes {
            for page in lane.pages() {
                release_page(page, &mut self.bodies, rocks)?;
            }
        }
        let lanes: Vec<_> = queue.lanes.iter().map(|lane| lane.lane).collect();
        if queue.has_bodies {
            for lane in lanes {
                let unknown: Vec<_> = queue
                    .lane(lane)
                    .map(|lane| lane.unknown_in(0, u64::MAX).collect())
                    .unwrap_or_default();
                for (from, until) in unknown {
                    release_bodies(id, lane, from, until, &mut queue, &mut self.bodies, rocks)?;
                }
            }
        }
        self.erase_pages(id, &queue, rocks);
        Ok(())
    }

    fn erase_pages(&mut self, id: QueueId, queue: &QueueLedger, rocks: &Rocks) {
        let known: usize = queue.lanes.iter().map(LaneLedger::pages_len).sum();
        let all_known = queue
            .lanes
            .iter()
            .all(|lane| lane.unknown_in(0, u64::MAX).next().is_none());
        if !all_known || known > BY_KEY_MAX {
            let end = keys::queue(QueueId(id.0.saturating_add(1)));
            delete_range(&mut self.batch, rocks, &keys::queue(id), &end);
            return;
        }
        for lane in &queue.lanes {
            for page in lane.pages() {
                erase_page(&mut self.batch, id, lane.lane, page, rocks);
            }
        }
    }

    /// Messages of this group in the range become holes: how many, and their body bytes.
    fn drop_pending_range(&mut self, at: usize, range: &Range) -> (u64, u64) {
        let Some(queue) = self.queues.get_mut(at) else {
            return (0, 0);
        };
        let lane: Option<&mut GroupLane> = queue.lanes.iter_mut().find(|lane| lane.lane == range.lane);
        let (mut dropped, mut bytes) = (0, 0);
        for entry in lane.into_iter().flat_map(|lane| &mut lane.entries) {
            if entry.hole || !(range.from..range.until).contains(&entry.seq) {
                continue;
            }
            entry.hole = true;
            dropped += 1;
            if let Some(slot) = self.slots.get_mut(entry.slot as usize) {
                slot.live -= 1;
                bytes += slot.message.body_len();
            }
        }
        self.counts.holes += dropped;
        (dropped, bytes)
    }

    /// Removes what lies in the range on known pages; those at the ends lose only some of their entries.
    fn purge_known(
        &mut self,
        at: usize,
        queue: &mut QueueLedger,
        range: &Range,
        rocks: &Rocks,
    ) -> Result<(), StoreError> {
        let overlaps = |page: &PageMeta| page.first() < range.until && range.from < page.end();
        let pages: Vec<(u64, u64)> = queue
            .lane(range.lane)
            .map(|lane| lane.pages().filter(|page| overlaps(page)))
            .into_iter()
            .flatten()
            .map(|page| (page.first(), page.end()))
            .collect();
        for (first, end) in pages {
            if range.from <= first && end <= range.until {
                self.purge_page(at, queue, range.lane, first, rocks)?;
                continue;
            }
            for seq in first.max(range.from)..end.min(range.until) {
                self.ack_stored(at, queue, range.lane, seq, rocks)?;
            }
        }
        Ok(())
    }

    fn purge_page(
        &mut self,
        at: usize,
        queue: &mut QueueLedger,
        lane: u8,
        first: u64,
        rocks: &Rocks,
    ) -> Result<(), StoreError> {
        let Some(stored) = queue.lane(lane) else {
            return Ok(());
        };
        let Some(place) = stored.find(first) else {
            return Ok(());
        };
        let Some(page) = stored.page(place) else {
            return Ok(());
        };
        let (mut count, mut bytes) = (0, 0);
        page.each_live(|gone| {
            count += 1;
            bytes += gone.size;
        });
        release_page(page, &mut self.bodies, rocks)?;
        queue.messages = queue.messages.saturating_sub(count);
        queue.bytes = queue.bytes.saturating_sub(bytes);
        self.remove_page(at, queue, lane, place, rocks);
        Ok(())
    }
}

fn erase_page(batch: &mut WriteBatch, id: QueueId, lane: u8, page: &PageMeta, rocks: &Rocks) {
    let key = keys::page(id, lane, page.first());
    batch.single_delete_cf(rocks.family(Family::Page), key);
    if page.has_ack_row {
        batch.delete_cf(rocks.family(Family::Ack), key);
    }
}

fn delete_range(batch: &mut WriteBatch, rocks: &Rocks, start: &[u8], end: &[u8]) {
    batch.delete_range_cf(rocks.family(Family::Page), start, end);
    batch.delete_range_cf(rocks.family(Family::Ack), start, end);
}

/// Counts down the bodies a page refers to.
fn release_page(page: &PageMeta, bodies: &mut Bodies, rocks: &Rocks) -> Result<(), StoreError> {
    let mut ids = Vec::new();
    page.each_live(|gone| ids.extend(gone.body));
    ids.into_iter().try_for_each(|body| bodies.release(rocks, body))
}

/// When a page that is not known holds both `seq` and the seq before it, learns it.
fn learn_straddling(
    id: QueueId,
    lane: u8,
    seq: u64,
    queue: &mut QueueLedger,
    rocks: &Rocks,
) -> Result<(), StoreError> {
    let Some(stored) = queue.lane_mut(lane) else {
        return Ok(());
    };
    let Some(head) = stored.head() else { return Ok(()) };
    // Its first seq is below `seq`; bounded below by the low end, or the search walks over every erased page.
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(keys::page(id, lane, head.head_page));
    options.set_iterate_upper_bound(keys::page(id, lane, seq));
    let mut pages = rocks
        .db()
        .raw_iterator_cf_opt(rocks.family(Family::Page), options);
    pages.seek_to_last();
    if let (Some(key), Some(value)) = (pages.key(), pages.value())
        && let Some((_, _, first)) = keys::parse_page(key)
        && stored.is_unknown(first)
    {
        match read_meta(id, lane, first, value, stored.recovered_low(), rocks)? {
            Some(page) if page.end() > seq => stored.learn(page),
            _ => {}
        }
    }
    tolerate(pages.status().map_err(|error| rocks.error(&error)))
}

/// Counts down the bodies of pages nobody has looked at since the start.
fn release_bodies(
    id: QueueId,
    lane: u8,
    from: u64,
    until: u64,
    queue: &mut QueueLedger,
    bodies: &mut Bodies,
    rocks: &Rocks,
) -> Result<(), StoreError> {
    let low = queue.lane(lane).map_or(0, LaneLedger::recovered_low);
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(keys::page(id, lane, from));
    options.set_iterate_upper_bound(keys::page(id, lane, until));
    options.fill_cache(false);
    let mut pages = rocks
        .db()
        .raw_iterator_cf_opt(rocks.family(Family::Page), options);
    pages.seek_to_first();
    while let (Some(key), Some(value)) = (pages.key(), pages.value()) {
        if let Some((_, _, first)) = keys::parse_page(key)
            && let Some(page) = read_meta(id, lane, first, value, low, rocks)?
        {
            release_page(&page, bodies, rocks)?;
        }
        pages.next();
    }
    tolerate(pages.status().map_err(|error| rocks.error(&error)))
}

/// The meta of a page as it lies on disk. `None` for a damaged one: it is about to be removed anyway, and its bodies stay.
fn read_meta(
    id: QueueId,
    lane: u8,
    first: u64,
    value: &[u8],
    low: u64,
    rocks: &Rocks,
) -> Result<Option<PageMeta>, StoreError> {
    let acks = rocks.get(Family::Ack, keys::page(id, lane, first))?;
    let meta = Page::decode(value).and_then(|page| PageMeta::of_page(first, &page, acks.as_deref(), low));
    if meta.is_none() {
        tracing::warn!(
            queue = id.0,
            lane,
            first,
            "a damaged page is removed unread; leveret check tells what else is damaged"
        );
    }
    Ok(meta)
}

/// Damage is no reason not to remove it: what it referred to stays until somebody looks.
fn tolerate(result: Result<(), StoreError>) -> Result<(), StoreError> {
    match result {
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::warn!(%error, "damaged pages are removed unread; leveret check tells what else is damaged");
            Ok(())
        }
        other => other,
    }
}
