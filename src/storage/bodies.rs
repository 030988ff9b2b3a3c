//! Bodies that stand apart from their pages: large ones, and those several queues share. The committer alone owns their
//! counts, which are exact because all targets of a message are in one group.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{ReadOptions, WriteBatch};

use crate::broker::message::LargeBody;
use crate::storage::{
    StoreError,
    codec::Cursor,
    keys,
    page::BodyRef,
    rocks::{Family, Rocks},
};

/// A body is cut into values of this size.
pub(super) const PIECE_BYTES: usize = 256 * 1024;
/// Bodies above this are written ahead of their group, so that the group's batch stays small.
pub(super) const AHEAD_MIN_BYTES: u64 = 1 << 20;
/// Ids are reserved in blocks of this many.
pub(super) const ID_BLOCK: u64 = 1_000;
/// Counts kept in memory; all are on disk as well.
const CACHED_COUNTS: usize = 100_000;

/// The count row: references left, and the body's length, which tells the number of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) left: u32,
    pub(super) len: u64,
}

impl Count {
    pub(super) fn encode(self) -> [u8; 12] {
        let mut value = [0; 12];
        let (left, len) = value.split_at_mut(4);
        left.copy_from_slice(&self.left.to_le_bytes());
        len.copy_from_slice(&self.len.to_le_bytes());
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(value);
        let count = Self {
            left: cursor.u32()?,
            len: cursor.u64()?,
        };
        cursor.is_empty().then_some(count)
    }
}

/// Ids and counts.
pub(super) struct Bodies {
    next_id: u64,
    reserved_until: u64,
    counts: HashMap<u64, Count, ahash::RandomState>,
    /// Changed in the group being built.
    changed: Vec<u64>,
}

impl Bodies {
    /// `next_id` is the first id that was never reserved.
    pub(super) fn new(next_id: u64) -> Self {
        Self {
            next_id,
            reserved_until: next_id,
            counts: HashMap::default(),
            changed: Vec::new(),
        }
    }

    /// A new body with this many references. The caller writes the pieces.
    pub(super) fn add(&mut self, len: u64, references: u32) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.counts.insert(
            id,
            Count {
                left: references,
                len,
            },
        );
        self.changed.push(id);
        id
    }

    /// When the ids run into a new block: the number to store before any piece of it is.
    pub(super) fn reserve(&mut self) -> Option<u64> {
        if self.next_id <= self.reserved_until {
            return None;
        }
        self.reserved_until = self.next_id + ID_BLOCK;
        Some(self.reserved_until)
    }

    /// One reference is gone.
    pub(super) fn release(&mut self, rocks: &Rocks, id: u64) -> Result<(), StoreError> {
        let count = match self.counts.get_mut(&id) {
            Some(count) => count,
            None => {
                let stored = match rocks.get(Family::BodyCount, keys::body(id)) {
                    // Damage keeps the body; it must not end the store.
                    Err(StoreError::Corrupt { what, .. }) => {
                        tracing::warn!(
                            body = id,
                            what,
                            "a body's reference count cannot be read; leveret check tells what is damaged"
                        );
                        None
                    }
                    stored => stored?,
                };
                let Some(count) = stored.as_deref().and_then(Count::decode) else {
                    // Its pieces stay until the next start sweeps them; nobody can read them any more.
                    tracing::warn!(
                        body = id,
                        "a stored body has no reference count; the next start sweeps it away"
                    );
                    return Ok(());
                };
                self.counts.entry(id).or_insert(count)
            }
        };
        count.left = count.left.saturating_sub(1);
        self.changed.push(id);
        Ok(())
    }

    /// Puts the changed counts into the batch; bodies without references go. Gives the bytes that went.
    pub(super) fn write_counts(&mut self, rocks: &Rocks, batch: &mut WriteBatch) -> u64 {
        let mut freed = 0;
        self.changed.sort_unstable();
        self.changed.dedup();
        for id in self.changed.drain(..) {
            let Some(count) = self.counts.get(&id).copied() else {
                continue;
            };
            let key = keys::body(id);
            if count.left > 0 {
                batch.put_cf(rocks.family(Family::BodyCount), key, count.encode());
                continue;
            }
            self.counts.remove(&id);
            batch.delete_cf(rocks.family(Family::BodyCount), key);
            for piece in 0..pieces(count.len) {
                batch.single_delete_cf(rocks.family(Family::Body), keys::body_piece(id, piece));
            }
            freed += count.len;
        }
        if self.counts.len() > CACHED_COUNTS {
            self.counts.clear();
        }
        freed
    }
}

pub(super) fn pieces(len: u64) -> u32 {
    u32::try_from(len.div_ceil(PIECE_BYTES as u64)).unwrap_or(u32::MAX)
}

/// Calls `each` with every piece of a body that came in chunks of any size.
pub(super) fn each_piece<E>(
    chunks: &[Bytes],
    mut each: impl FnMut(u32, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let mut number = 0;
    for chunk in chunks {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(rest.len().min(PIECE_BYTES - piece.len()));
            piece.extend_from_slice(part);
            rest = behind;
            if piece.len() == PIECE_BYTES {
                each(number, &piece)?;
                number += 1;
                piece.clear();
            }
        }
    }
    if piece.is_empty() {
        Ok(())
    } else {
        each(number, &piece)
    }
}

/// A large body that has to be on disk before the group that refers to it.
pub(super) struct AheadBody {
    pub(super) id: u64,
    pub(super) body: Arc<LargeBody>,
}

/// Reads a body as `options` (a snapshot) sees it. `None` when a piece is missing or the length does not fit.
pub(super) fn read(
    rocks: &Rocks,
    body: BodyRef,
    options: &ReadOptions,
) -> Result<Option<Vec<Bytes>>, rocksdb::Error> {
    let mut chunks = Vec::new();
    let mut left = body.len;
    for piece in 0..pieces(body.len) {
        let key = keys::body_piece(body.id, piece);
        let Some(value) = rocks
            .db()
            .get_pinned_cf_opt(rocks.family(Family::Body), key, options)?
        else {
            return Ok(None);
        };
        left = match left.checked_sub(value.len() as u64) {
            Some(left) if !value.is_empty() => left,
            _ => return Ok(None),
        };
        chunks.push(Bytes::copy_from_slice(&value));
    }
    Ok((left == 0).then_some(chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_the_body_whatever_the_chunks() {
        for chunk_len in [1_000, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            let body: Vec<u8> = (0..=250).cycle().take(2 * PIECE_BYTES + 5_000).collect();
            let chunks: Vec<_> = body.chunks(chunk_len).map(Bytes::copy_from_slice).collect();
            let mut joined = Vec::new();
            let mut numbers = Vec::new();
            each_piece(&chunks, |number, piece| {
                numbers.push(number);
                joined.extend_from_slice(piece);
                Ok::<_, ()>(())
            })
            .unwrap();
            assert_eq!(numbers.len(), pieces(body.len() as u64) as usize);
            assert!(numbers.is_sorted());
            assert_eq!(joined, body);
        }
    }

    #[test]
    fn a_count_reads_back_or_is_refused() {
        let count = Count {
            left: 7,
            len: 1 << 40,
        };
        assert_eq!(Count::decode(&count.encode()), Some(count));
        assert_eq!(Count::decode(&count.encode()[..11]), None);
    }
}
