//! Messages that came back to their queue: the counts of their deliveries and the time they wait for. One small record
//! each, written with the group that learns of it and erased with the message, so that neither a limit nor a wait begins
//! anew after a restart.

use crate::broker::{
    ids::{QueueId, Seq, Timestamp},
    queue::Returned,
};
use crate::storage::{
    Recovered, StoreError,
    codec::{Cursor, is_sealed, seal},
    group::Group,
    keys,
    ledger::{Ledger, QueueLedger},
    rocks::{Family, Rocks},
};

const VERSION: u8 = 1;
const CHECKSUM_AT: usize = 1;

/// `[version u8][crc32c u32][acquired u16][failed u16][due u64]`.
fn encode(returned: &Returned) -> Vec<u8> {
    let mut out = vec![VERSION, 0, 0, 0, 0];
    out.extend_from_slice(&returned.acquired.to_le_bytes());
    out.extend_from_slice(&returned.failed.to_le_bytes());
    out.extend_from_slice(&returned.due.0.to_le_bytes());
    seal(&mut out, CHECKSUM_AT);
    out
}

fn decode(lane: u8, seq: u64, value: &[u8]) -> Option<Returned> {
    if !is_sealed(value, CHECKSUM_AT) {
        return None;
    }
    let mut cursor = Cursor::new(value);
    if cursor.u8()? != VERSION {
        return None;
    }
    cursor.u32()?;
    let returned = Returned {
        lane,
        seq: Seq(seq),
        acquired: cursor.u16()?,
        failed: cursor.u16()?,
        due: Timestamp(cursor.u64()?),
    };
    cursor.is_empty().then_some(returned)
}

impl Group {
    /// A message came back; a queue that is gone remembers nothing.
    pub(super) fn returned(&mut self, id: QueueId, returned: &Returned, ledger: &mut Ledger, rocks: &Rocks) {
        let Some(queue) = ledger.queues.get_mut(&id) else {
            return;
        };
        let (lane, seq) = (returned.lane, returned.seq.0);
        queue.returned.insert((lane, seq));
        let key = keys::returned(id, lane, seq);
        self.batch
            .put_cf(rocks.family(Family::Meta), key, encode(returned));
    }

    /// The message is gone, and what was known of its deliveries with it.
    pub(super) fn forget_returned(
        &mut self,
        id: QueueId,
        queue: &mut QueueLedger,
        lane: u8,
        seq: u64,
        rocks: &Rocks,
    ) {
        if queue.returned.remove(&(lane, seq)) {
            let key = keys::returned(id, lane, seq);
            self.batch.delete_cf(rocks.family(Family::Meta), key);
        }
    }

    /// All messages of a range are gone; `until` is exclusive.
    pub(super) fn forget_returned_range(
        &mut self,
        id: QueueId,
        queue: &mut QueueLedger,
        (lane, from, until): (u8, u64, u64),
        rocks: &Rocks,
    ) {
        let gone: Vec<(u8, u64)> = queue
            .returned
            .range((lane, from)..(lane, until))
            .copied()
            .collect();
        for (lane, seq) in gone {
            self.forget_returned(id, queue, lane, seq, rocks);
        }
    }

    /// The queue is gone.
    pub(super) fn forget_all_returned(&mut self, id: QueueId, queue: &mut QueueLedger, rocks: &Rocks) {
        for (lane, seq) in std::mem::take(&mut queue.returned) {
            let key = keys::returned(id, lane, seq);
            self.batch.delete_cf(rocks.family(Family::Meta), key);
        }
    }
}

/// Reads the records of a start.
///
/// # Errors
/// When one is damaged, or the disk fails.
pub(super) fn recover(
    rocks: &Rocks,
    ledger: &mut Ledger,
    recovered: &mut Recovered,
) -> Result<(), StoreError> {
    let mut by_queue: ahash::AHashMap<QueueId, Vec<Returned>> = ahash::AHashMap::new();
    let mut rows = rocks.db().raw_iterator_cf(rocks.family(Family::Meta));
    rows.seek(keys::RETURNED);
    while let (Some(key), Some(value)) = (rows.key(), rows.value()) {
        let Some(place) = key.strip_prefix(keys::RETURNED) else {
            break;
        };
        let damaged = || rocks.corrupt("the record of a returned message is damaged");
        let (id, lane, seq) = keys::parse_page(place).ok_or_else(damaged)?;
        let returned = decode(lane, seq, value).ok_or_else(damaged)?;
        if let Some(queue) = ledger.queues.get_mut(&id) {
            queue.returned.insert((lane, seq));
            by_queue.entry(id).or_default().push(returned);
        }
        rows.next();
    }
    rows.status().map_err(|error| rocks.error(&error))?;
    for queue in &mut recovered.queues {
        queue.returned = by_queue.remove(&queue.id).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_every_damage_is_refused() {
        let returned = Returned {
            lane: 3,
            seq: Seq(77),
            acquired: 5,
            failed: 2,
            due: Timestamp(1_700_000_000_123),
        };
        let mut value = encode(&returned);
        assert_eq!(decode(3, 77, &value), Some(returned));
        for bit in 0..value.len() * 8 {
            value[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(3, 77, &value), None, "bit {bit}");
            value[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
