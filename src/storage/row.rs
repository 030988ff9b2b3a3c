//! The queue's row: all a restart has to read of a queue. Written in the same batch as what it counts, so it is exact.

use crate::storage::codec::{Cursor, is_sealed, seal};

const VERSION: u8 = 2;
/// Without deadlines.
const VERSION_1: u8 = 1;
const CHECKSUM_AT: usize = 4;
const HAS_BODIES: u8 = 1;

/// What is stored of a queue beside its pages.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Row {
    pub(super) next_seq: u64,
    pub(super) messages: u64,
    /// Of bodies.
    pub(super) bytes: u64,
    /// Messages up to this seq were handed out when the row was written.
    pub(super) delivered: u64,
    /// Deadlines of its messages: 0 none, [`MIXED`] in any order, otherwise ascending by seq up to this one.
    pub(super) deadlines: u64,
    /// An entry by reference was stored at some time: removing unseen pages has to look into them.
    pub(super) has_bodies: bool,
    /// Lanes with live pages, ascending.
    pub(super) lanes: Vec<RowLane>,
}

/// Deadlines do not ascend with the seqs: a restart has to look at every message to know which is the next.
pub(super) const MIXED: u64 = u64::MAX;

/// The low end of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowLane {
    pub(super) lane: u8,
    /// First seq, and so the key, of the lowest live page.
    pub(super) head_page: u64,
    /// Every seq below is gone; inside the head page or its beginning.
    pub(super) low: u64,
}

impl Row {
    /// `[version u8][flags u8][lanes u16][crc32c u32][next_seq, messages, bytes, delivered, deadlines u64]`, then
    /// per lane
    /// `[lane u8][head_page u64][low u64]`. The checksum covers all but itself.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(VERSION);
        out.push(if self.has_bodies { HAS_BODIES } else { 0 });
        // A lane is a u8, so their number fits.
        out.extend_from_slice(&u16::try_from(self.lanes.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for number in [
            self.next_seq,
            self.messages,
            self.bytes,
            self.delivered,
            self.deadlines,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for lane in &self.lanes {
            out.push(lane.lane);
            out.extend_from_slice(&lane.head_page.to_le_bytes());
            out.extend_from_slice(&lane.low.to_le_bytes());
        }
        seal(out, CHECKSUM_AT);
    }

    /// `None` for anything [`Row::encode`] did not write.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        if !is_sealed(value, CHECKSUM_AT) {
            return None;
        }
        let mut cursor = Cursor::new(value);
        let version = cursor.u8()?;
        if version != VERSION && version != VERSION_1 {
            return None;
        }
        let flags = cursor.u8()?;
        let lanes = cursor.u16()?;
        cursor.u32()?;
        let mut row = Self {
            next_seq: cursor.u64()?,
            messages: cursor.u64()?,
            bytes: cursor.u64()?,
            delivered: cursor.u64()?,
            deadlines: if version == VERSION_1 { 0 } else { cursor.u64()? },
            has_bodies: flags & HAS_BODIES != 0,
            lanes: Vec::new(),
        };
        for _ in 0..lanes {
            row.lanes.push(RowLane {
                lane: cursor.u8()?,
                head_page: cursor.u64()?,
                low: cursor.u64()?,
            });
        }
        cursor.is_empty().then_some(row)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows() -> impl Strategy<Value = Row> {
        let lane = (any::<u8>(), any::<u64>(), any::<u64>()).prop_map(|(lane, head_page, low)| RowLane {
            lane,
            head_page,
            low,
        });
        (
            any::<[u64; 5]>(),
            any::<bool>(),
            prop::collection::vec(lane, 0..4),
        )
            .prop_map(
                |([next_seq, messages, bytes, delivered, deadlines], has_bodies, lanes)| Row {
                    next_seq,
                    messages,
                    bytes,
                    delivered,
                    deadlines,
                    has_bodies,
                    lanes,
                },
            )
    }

    #[test]
    fn a_row_of_the_first_version_has_no_deadlines() {
        let row = Row {
            next_seq: 5,
            messages: 4,
            ..Row::default()
        };
        let mut value = Vec::new();
        row.encode(&mut value);
        value[0] = VERSION_1;
        value.drain(40..48);
        seal(&mut value, CHECKSUM_AT);
        assert_eq!(Row::decode(&value), Some(row));
    }

    proptest! {
        #[test]
        fn a_row_reads_back_and_every_damage_is_refused(row in rows()) {
            let mut value = Vec::new();
            row.encode(&mut value);
            prop_assert_eq!(Row::decode(&value), Some(row));
            for cut in 0..value.len() {
                prop_assert_eq!(Row::decode(&value[..cut]), None);
            }
            for bit in 0..value.len() * 8 {
                value[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(Row::decode(&value), None, "bit {}", bit);
                value[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
