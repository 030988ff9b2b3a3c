//! Messages that wait for their time, in a family of their own ordered by it: `[queue u64][due u64][seq u64]`, so that
//! what is due next is read from the front, and what is far off is touched by nobody. How many they are stands in a small
//! record beside the queue's row.

use rocksdb::ReadOptions;

use crate::broker::{
    definition::QueueDefinition,
    delay::HOLDING_PREFIX,
    ids::{QueueId, Seq, Timestamp},
    message::Message,
    queue::{ScheduleLoaded, ScheduleRead, Turn},
};
use crate::storage::{
    Recovered, StoreError, Target,
    codec::{Cursor, is_sealed, seal},
    group::Group,
    keys,
    ledger::{Ledger, QueueLedger},
    rocks::{Family, Rocks},
};

/// In `meta`: begins the keys of counts.
const COUNTS: &[u8; 10] = b"\x00scheduled";
const CHECKSUM_AT: usize = 1;
const VERSION: u8 = 1;
/// The body follows the record in pieces that are kept apart in memory.
const LARGE: u8 = 1;
/// About this much is answered to one read.
const READ_BYTES: usize = 1024 * 1024;
/// A large body's pieces in memory.
const PIECE_BYTES: usize = 128 * 1024;

/// Whether messages of this queue are kept by their time.
pub(super) fn holds(definition: &QueueDefinition) -> bool {
    definition.name.starts_with(HOLDING_PREFIX)
}

fn key(queue: QueueId, (due, seq): Turn) -> [u8; 24] {
    let mut key = [0; 24];
    for (place, number) in key.chunks_exact_mut(8).zip([queue.0, due.0, seq.0]) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    key
}

fn turn_of(key: &[u8]) -> Option<Turn> {
    let mut numbers = key.get(8..)?.chunks_exact(8).map(keys::parse_u64);
    let turn = (Timestamp(numbers.next()??), Seq(numbers.next()??));
    numbers.next().is_none().then_some(turn)
}

fn counts_key(queue: QueueId) -> Vec<u8> {
    [&COUNTS[..], &queue.0.to_be_bytes()].concat()
}

/// `[version u8][flags u8][record length u32]`, record, body when it is large.
fn encode(message: &Message) -> Vec<u8> {
    let record = message.record();
    let large = message.large_body();
    let body_len = large.map_or(0, |body| body.chunks.iter().map(bytes::Bytes::len).sum());
    let mut out = Vec::with_capacity(6 + record.len() + body_len);
    out.push(VERSION);
    out.push(if large.is_some() { LARGE } else { 0 });
    out.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(record);
    for chunk in large.iter().flat_map(|body| &body.chunks) {
        out.extend_from_slice(chunk);
    }
    out
}

fn decode(value: &[u8]) -> Option<Message> {
    let mut cursor = Cursor::new(value);
    if cursor.u8()? != VERSION {
        return None;
    }
    let large = cursor.u8()? & LARGE != 0;
    let len = usize::try_from(cursor.u32()?).ok()?;
    let record = cursor.take(len)?;
    let pieces = cursor.rest().chunks(PIECE_BYTES);
    let body = large.then(|| pieces.map(bytes::Bytes::copy_from_slice).collect());
    Message::from_record(record, body)
}

impl Group {
    /// A message for a queue that holds it until `target.expires_at`.
    pub(super) fn schedule(
        &mut self,
        at: usize,
        target: &Target,
        message: &Message,
        queue: &mut QueueLedger,
        rocks: &Rocks,
    ) {
        let key = key(target.queue, (target.expires_at, target.seq));
        self.batch
            .put_cf(rocks.family(Family::Scheduled), key, encode(message));
        queue.scheduled.0 += 1;
        queue.scheduled.1 += message.body_len();
        self.counts.messages += 1;
        if let Some(group) = self.queues.get_mut(at) {
            group.changed = true;
        }
    }

    /// The message waits no more.
    pub(super) fn unschedule(
        &mut self,
        id: QueueId,
        turn: Turn,
        bytes: u64,
        ledger: &mut Ledger,
        rocks: &Rocks,
    ) {
        let Some(at) = self.queue(id, ledger) else { return };
        let Some(queue) = ledger.queues.get_mut(&id) else {
            return;
        };
        self.batch
            .single_delete_cf(rocks.family(Family::Scheduled), key(id, turn));
        queue.scheduled.0 = queue.scheduled.0.saturating_sub(1);
        queue.scheduled.1 = queue.scheduled.1.saturating_sub(bytes);
        if let Some(group) = self.queues.get_mut(at) {
            group.changed = true;
        }
    }

    /// How many wait, beside the queue's row.
    pub(super) fn write_scheduled(&mut self, id: QueueId, queue: &QueueLedger, rocks: &Rocks) {
        if !queue.holds {
            return;
        }
        let mut value = vec![VERSION, 0, 0, 0, 0];
        value.extend_from_slice(&queue.scheduled.0.to_le_bytes());
        value.extend_from_slice(&queue.scheduled.1.to_le_bytes());
        seal(&mut value, CHECKSUM_AT);
        self.batch
            .put_cf(rocks.family(Family::Meta), counts_key(id), value);
    }

    /// The queue is gone, with all that waits in it.
    pub(super) fn forget_scheduled(&mut self, id: QueueId, queue: &QueueLedger, rocks: &Rocks) {
        if queue.holds {
            self.batch.delete_cf(rocks.family(Family::Meta), counts_key(id));
            let (from, until) = (keys::queue(id), keys::queue(QueueId(id.0.saturating_add(1))));
            self.batch
                .delete_range_cf(rocks.family(Family::Scheduled), from, until);
        }
    }
}

/// Reads the counts of a start.
///
/// # Errors
/// When one is damaged, or the disk fails.
pub(super) fn recover(
    rocks: &Rocks,
    ledger: &mut Ledger,
    recovered: &mut Recovered,
) -> Result<(), StoreError> {
    for definition in &recovered.definitions {
        if let crate::broker::definition::Definition::Queue(definition) = definition
            && holds(definition)
            && let Some(queue) = ledger.queues.get_mut(&definition.id)
        {
            queue.holds = true;
        }
    }
    for queue in &mut recovered.queues {
        let Some(held) = ledger.queues.get_mut(&queue.id).filter(|held| held.holds) else {
            continue;
        };
        let Some(value) = rocks.get(Family::Meta, counts_key(queue.id))? else {
            continue;
        };
        let mut cursor = Cursor::new(value.get(5..).unwrap_or_default());
        let counts = is_sealed(&value, CHECKSUM_AT).then(|| cursor.u64().zip(cursor.u64()));
        held.scheduled = counts
            .flatten()
            .ok_or_else(|| rocks.corrupt("the count of waiting messages is damaged"))?;
        queue.scheduled = held.scheduled;
    }
    Ok(())
}

/// Whose a stored message is, and its body's length; `None` when it is damaged.
pub(super) fn looked_at(key: &[u8], value: &[u8]) -> Option<(QueueId, u64)> {
    let queue = keys::parse_u64(key.get(..8)?)?;
    turn_of(key)?;
    Some((QueueId(queue), decode(value)?.body_len()))
}

/// Answers a holding queue's read.
///
/// # Errors
/// When a message is damaged, or the disk fails.
pub(super) fn read(request: &ScheduleRead, rocks: &Rocks) -> Result<ScheduleLoaded, StoreError> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    let next = scan(request.queue, request.from, rocks, |turn, value| {
        if turn.0 >= request.until || bytes >= READ_BYTES {
            return Ok(false);
        }
        bytes += value.len();
        entries.push((turn, decode(value).ok_or(())?));
        Ok(true)
    })?;
    Ok(ScheduleLoaded {
        from: request.from,
        until: request.until,
        entries,
        next,
    })
}

/// At most so many messages of a holding queue from a turn on, for whoever lists them.
///
/// # Errors
/// When a message is damaged, or the disk fails.
pub(super) fn page(
    queue: QueueId,
    from: Turn,
    at_most: usize,
    rocks: &Rocks,
) -> Result<Vec<(Turn, Message)>, StoreError> {
    let mut entries = Vec::new();
    scan(queue, from, rocks, |turn, value| {
        if entries.len() >= at_most {
            return Ok(false);
        }
        entries.push((turn, decode(value).ok_or(())?));
        Ok(true)
    })?;
    Ok(entries)
}

/// Calls `take` for each message in turn until it says no; gives the turn it said no to.
fn scan(
    queue: QueueId,
    from: Turn,
    rocks: &Rocks,
    mut take: impl FnMut(Turn, &[u8]) -> Result<bool, ()>,
) -> Result<Option<Turn>, StoreError> {
    let damaged = || rocks.corrupt(format!("a waiting message of queue {} is damaged", queue.0));
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(keys::queue(QueueId(queue.0.saturating_add(1))));
    options.fill_cache(false);
    let mut rows = rocks
        .db()
        .raw_iterator_cf_opt(rocks.family(Family::Scheduled), options);
    rows.seek(key(queue, from));
    while let (Some(key), Some(value)) = (rows.key(), rows.value()) {
        let turn = turn_of(key).ok_or_else(damaged)?;
        if !take(turn, value).map_err(|()| damaged())? {
            return Ok(Some(turn));
        }
        rows.next();
    }
    rows.status().map_err(|error| rocks.error(&error))?;
    Ok(None)
}
