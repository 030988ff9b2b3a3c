//! The page: many messages of one queue and lane in one value. Written once, never changed; an ack row beside it
//! tells which of its messages are gone.
//!
//! `[version u8][flags u8][count u16][crc32c u32][base_time u64 ms][entries ...][end offsets u32 x count]`. The offsets
//! stand last, so that entries are copied straight into place. Entry i has seq first_seq + i:
//! `[flags u8]`, then for a message with a deadline `[expires_at u64 ms since 1970]`, then for a body by reference
//! `[body_id u64][length u64]`, then the message's record, without its body when that is by reference. A hole, which was acked before its commit, is the flags byte alone.

use crate::storage::codec::{Cursor, is_sealed, seal};

const VERSION: u8 = 2;
/// Without deadlines.
const VERSION_1: u8 = 1;
const CHECKSUM_AT: usize = 4;
const HEAD: usize = 16;
const HOLE: u8 = 1;
const BODY_ELSEWHERE: u8 = 2;
const LARGE: u8 = 4;
const EXPIRES: u8 = 8;

/// A page is closed before it passes this size; a bigger single entry is a page of its own.
pub(super) const PAGE_MAX_BYTES: usize = 64 * 1024;
/// A page is closed at this many entries.
pub(super) const PAGE_MAX_ENTRIES: usize = 4096;

/// Where a body stands that is not in the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BodyRef {
    pub(super) id: u64,
    pub(super) len: u64,
    /// The message holds it outside its record (`Message::large_body`); otherwise it only was shared by queues.
    pub(super) large: bool,
}

/// One message of a page, borrowed from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Entry<'a> {
    Hole,
    /// The record, and the body's place when it is not in the record.
    Message {
        record: &'a [u8],
        body: Option<BodyRef>,
        /// Milliseconds since 1970; 0 is never.
        expires_at: u64,
    },
}

/// Builds page after page in the same memory.
#[derive(Default)]
pub(super) struct PageWriter {
    value: Vec<u8>,
    ends: Vec<u32>,
}

impl PageWriter {
    /// Begins a page. `base_time` is the commit's wall clock time in ms, kept for what has to age over a restart.
    pub(super) fn begin(&mut self, base_time: u64) {
        self.ends.clear();
        self.value.clear();
        self.value.extend_from_slice(&[VERSION, 0, 0, 0, 0, 0, 0, 0]);
        self.value.extend_from_slice(&base_time.to_le_bytes());
    }

    /// Whether an entry with a record of this size still belongs on this page.
    pub(super) fn has_room(&self, record_len: usize) -> bool {
        const ENTRY_EXTRA: usize = 1 + 8 + 16 + 4;
        let size = self.value.len() + self.ends.len() * 4;
        self.ends.is_empty()
            || (self.ends.len() < PAGE_MAX_ENTRIES && size + record_len + ENTRY_EXTRA <= PAGE_MAX_BYTES)
    }

    pub(super) fn hole(&mut self) {
        self.value.push(HOLE);
        self.end_entry();
    }

    /// `expires_at` in milliseconds since 1970, 0 for never.
    pub(super) fn message(&mut self, record: &[u8], body: Option<BodyRef>, expires_at: u64) {
        let body_flags = match body {
            None => 0,
            Some(body) if body.large => BODY_ELSEWHERE | LARGE,
            Some(_) => BODY_ELSEWHERE,
        };
        self.value
            .push(body_flags | if expires_at == 0 { 0 } else { EXPIRES });
        if expires_at != 0 {
            self.value.extend_from_slice(&expires_at.to_le_bytes());
        }
        if let Some(body) = body {
            self.value.extend_from_slice(&body.id.to_le_bytes());
            self.value.extend_from_slice(&body.len.to_le_bytes());
        }
        self.value.extend_from_slice(record);
        self.end_entry();
    }

    fn end_entry(&mut self) {
        // A page is 64 KiB, or one entry whose record is far below 4 GiB.
        self.ends
            .push(u32::try_from(self.value.len() - HEAD).unwrap_or(u32::MAX));
    }

    /// The finished value.
    pub(super) fn finish(&mut self) -> &[u8] {
        let count = u16::try_from(self.ends.len()).unwrap_or(u16::MAX);
        if let Some(place) = self.value.get_mut(2..4) {
            place.copy_from_slice(&count.to_le_bytes());
        }
        for end in &self.ends {
            self.value.extend_from_slice(&end.to_le_bytes());
        }
        seal(&mut self.value, CHECKSUM_AT);
        &self.value
    }
}

/// A page as read, checked as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<'a> {
    pub(super) base_time: u64,
    pub(super) entries: Vec<Entry<'a>>,
}

impl<'a> Page<'a> {
    /// `None` for anything that is not exactly a page.
    pub(super) fn decode(value: &'a [u8]) -> Option<Self> {
        if !is_sealed(value, CHECKSUM_AT) {
            return None;
        }
        let mut head = Cursor::new(value);
        let version = head.u8()?;
        if !matches!(version, VERSION | VERSION_1) || head.u8()? != 0 {
            return None;
        }
        let known = if version == VERSION_1 {
            BODY_ELSEWHERE | LARGE
        } else {
            BODY_ELSEWHERE | LARGE | EXPIRES
        };
        let count = usize::from(head.u16()?);
        head.u32()?;
        let base_time = head.u64()?;
        let body = head.rest();
        let entries_len = body.len().checked_sub(count * 4)?;
        let (bytes, ends) = body.split_at_checked(entries_len)?;
        let mut ends = Cursor::new(ends);
        let mut entries = Vec::with_capacity(count);
        let mut start = 0;
        for _ in 0..count {
            let end = usize::try_from(ends.u32()?).ok()?;
            entries.push(decode_entry(bytes.get(start..end)?, known)?);
            start = end;
        }
        (start == bytes.len()).then_some(Self { base_time, entries })
    }
}

fn decode_entry(bytes: &[u8], known: u8) -> Option<Entry<'_>> {
    let mut cursor = Cursor::new(bytes);
    let flags = cursor.u8()?;
    if flags == HOLE {
        return cursor.is_empty().then_some(Entry::Hole);
    }
    if flags & !known != 0 || flags & (BODY_ELSEWHERE | LARGE) == LARGE {
        return None;
    }
    let expires_at = if flags & EXPIRES == 0 { 0 } else { cursor.u64()? };
    let body = if flags & BODY_ELSEWHERE == 0 {
        None
    } else {
        Some(BodyRef {
            id: cursor.u64()?,
            len: cursor.u64()?,
            large: flags & LARGE != 0,
        })
    };
    Some(Entry::Message {
        record: cursor.rest(),
        body,
        expires_at,
    })
}

/// The ack row: `[version u8][0 u8][count u16][crc32c u32][ceil(count / 8) bytes]`, bit i set when entry i is gone.
pub(super) fn encode_acks(out: &mut Vec<u8>, count: u16, is_acked: impl Fn(u16) -> bool) {
    out.clear();
    out.extend_from_slice(&[VERSION_1, 0]);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.resize(8 + usize::from(count.div_ceil(8)), 0);
    for index in (0..count).filter(|index| is_acked(*index)) {
        if let Some(byte) = out.get_mut(8 + usize::from(index / 8)) {
            *byte |= 1 << (index % 8);
        }
    }
    seal(out, CHECKSUM_AT);
}

/// The bitmap of an ack row for a page of `count` entries; `None` when it is damaged.
pub(super) fn decode_acks(value: &[u8], count: u16) -> Option<&[u8]> {
    if !is_sealed(value, CHECKSUM_AT) {
        return None;
    }
    let mut cursor = Cursor::new(value);
    if cursor.u8()? != VERSION_1 || cursor.u8()? != 0 || cursor.u16()? != count {
        return None;
    }
    cursor.u32()?;
    let bits = cursor.rest();
    (bits.len() == usize::from(count.div_ceil(8))).then_some(bits)
}

/// Whether bit `index` is set.
pub(super) fn bit(bits: &[u8], index: u16) -> bool {
    bits.get(usize::from(index / 8))
        .is_some_and(|byte| byte & (1 << (index % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Model {
        Hole,
        Message(Vec<u8>, Option<(u64, u64, bool)>, u64),
    }

    fn entries() -> impl Strategy<Value = Vec<Model>> {
        let reference = prop::option::of((any::<u64>(), any::<u64>(), any::<bool>()));
        let expires = prop_oneof![Just(0), any::<u64>()];
        let message = (prop::collection::vec(any::<u8>(), 0..40), reference, expires)
            .prop_map(|(record, body, expires)| Model::Message(record, body, expires));
        prop::collection::vec(prop_oneof![Just(Model::Hole), message], 0..12)
    }

    fn write(entries: &[Model], writer: &mut PageWriter) -> Vec<u8> {
        writer.begin(77);
        for entry in entries {
            match entry {
                Model::Hole => writer.hole(),
                Model::Message(record, body, expires) => {
                    let body = body.map(|(id, len, large)| BodyRef { id, len, large });
                    writer.message(record, body, *expires);
                }
            }
        }
        writer.finish().to_vec()
    }

    proptest! {
        #[test]
        fn a_page_reads_back_and_every_damage_is_refused(entries in entries()) {
            let mut value = write(&entries, &mut PageWriter::default());
            let page = Page::decode(&value).unwrap();
            prop_assert_eq!(page.base_time, 77);
            prop_assert_eq!(page.entries.len(), entries.len());
            for (found, wrote) in page.entries.iter().zip(&entries) {
                match wrote {
                    Model::Hole => prop_assert_eq!(*found, Entry::Hole),
                    Model::Message(record, body, expires) => prop_assert_eq!(*found, Entry::Message {
                        record: record.as_slice(),
                        body: body.map(|(id, len, large)| BodyRef { id, len, large }),
                        expires_at: *expires,
                    }),
                }
            }
            for cut in 0..value.len() {
                prop_assert!(Page::decode(&value[..cut]).is_none());
            }
            for bit in 0..value.len() * 8 {
                value[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(Page::decode(&value).is_none(), "bit {}", bit);
                value[bit / 8] ^= 1 << (bit % 8);
            }
        }

        #[test]
        fn an_ack_row_reads_back_and_every_damage_is_refused(acked in prop::collection::vec(any::<bool>(), 1..70)) {
            let count = u16::try_from(acked.len()).unwrap();
            let mut value = Vec::new();
            encode_acks(&mut value, count, |index| acked[usize::from(index)]);
            let bits = decode_acks(&value, count).unwrap();
            prop_assert!((0..count).all(|index| bit(bits, index) == acked[usize::from(index)]));
            prop_assert!(decode_acks(&value, count + 1).is_none());
            for bit in 0..value.len() * 8 {
                value[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(decode_acks(&value, count).is_none());
                value[bit / 8] ^= 1 << (bit % 8);
            }
        }

        #[test]
        fn a_checksum_that_fits_does_not_make_garbage_a_page(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut value = vec![VERSION, 0, 2, 0, 0, 0, 0, 0];
            value.extend_from_slice(&bytes);
            seal(&mut value, CHECKSUM_AT);
            if let Some(page) = Page::decode(&value) {
                prop_assert_eq!(page.entries.len(), 2);
            }
        }
    }

    #[test]
    fn a_page_of_the_first_version_is_read_and_had_no_deadlines() {
        let mut writer = PageWriter::default();
        writer.begin(77);
        writer.message(b"record", None, 0);
        let mut value = writer.finish().to_vec();
        value[0] = VERSION_1;
        seal(&mut value, CHECKSUM_AT);
        assert_eq!(Page::decode(&value).unwrap().entries.len(), 1);
        writer.begin(77);
        writer.message(b"record", None, 9);
        let mut value = writer.finish().to_vec();
        value[0] = VERSION_1;
        seal(&mut value, CHECKSUM_AT);
        assert_eq!(Page::decode(&value), None);
    }

    #[test]
    fn a_page_closes_at_its_size_but_takes_any_first_entry() {
        let mut writer = PageWriter::default();
        writer.begin(0);
        assert!(writer.has_room(10 * PAGE_MAX_BYTES));
        writer.message(&[0; 60_000], None, 0);
        assert!(writer.has_room(5_000));
        assert!(!writer.has_room(6_000));
        writer.begin(0);
        for _ in 0..PAGE_MAX_ENTRIES {
            assert!(writer.has_room(0));
            writer.hole();
        }
        assert!(!writer.has_room(0));
    }
}
