//! What the committer remembers of one stored page, so that an ack needs no read: which entries are gone, how big their
//! bodies are, which bodies stand elsewhere. 32 bytes for the usual page; the rest is allocated when needed.

use crate::broker::message::Message;
use crate::storage::page::{self, Entry, Page};

/// Entry of a page about to be remembered.
#[derive(Clone, Copy)]
pub(super) struct MetaEntry {
    /// Bytes of the body.
    pub(super) size: u64,
    /// The body's id when it stands elsewhere.
    pub(super) body: Option<u64>,
    pub(super) gone: bool,
}

/// What an entry was, told when it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gone {
    pub(super) size: u64,
    pub(super) body: Option<u64>,
}

/// One stored page.
#[derive(Debug)]
pub(super) struct PageMeta {
    first: u64,
    /// Body size of every entry, unless `detail` lists them.
    size: u32,
    count: u16,
    live: u16,
    /// So many entries from the first on are gone.
    prefix: u16,
    /// An ack row is stored beside the page.
    pub(super) has_ack_row: bool,
    /// Entries were acked since the ack row (or the queue's low end) was last written.
    pub(super) touched: bool,
    /// Some of them not from the front.
    pub(super) out_of_order: bool,
    detail: Option<Box<Detail>>,
}

#[derive(Debug, Default)]
struct Detail {
    /// Bit per entry; empty while nothing but the prefix is gone.
    gone: Vec<u64>,
    /// Per entry; empty when all are alike.
    sizes: Vec<u64>,
    /// Entry and body id, ascending by entry.
    bodies: Vec<(u16, u64)>,
}

impl PageMeta {
    /// At most `PAGE_MAX_ENTRIES` entries.
    pub(super) fn new(first: u64, entries: &[MetaEntry]) -> Self {
        let mut meta = Self {
            first,
            size: 0,
            count: u16::try_from(entries.len()).unwrap_or(u16::MAX),
            live: 0,
            prefix: 0,
            has_ack_row: false,
            touched: false,
            out_of_order: false,
            detail: None,
        };
        let present = || entries.iter().filter(|entry| !entry.gone);
        let size = present().next().map_or(0, |entry| entry.size);
        match u32::try_from(size) {
            Ok(size32) if present().all(|entry| entry.size == size) => meta.size = size32,
            _ => meta.detail_mut().sizes = entries.iter().map(|entry| entry.size).collect(),
        }
        for (index, entry) in (0..meta.count).zip(entries) {
            if entry.gone {
                meta.set_gone(index);
                continue;
            }
            meta.live += 1;
            if let Some(body) = entry.body {
                meta.detail_mut().bodies.push((index, body));
            }
        }
        meta
    }

    /// The meta of a page read from disk, with its ack row; entries below `low` are gone as well. `None` when the
    /// two do not fit or an entry is damaged.
    pub(super) fn of_page(first: u64, page: &Page<'_>, acks: Option<&[u8]>, low: u64) -> Option<Self> {
        let count = u16::try_from(page.entries.len()).ok()?;
        let bits = acks
            .map(|acks| page::decode_acks(acks, count))
            .map_or(Some(None), |bits| bits.map(Some))?;
        let mut entries = Vec::with_capacity(page.entries.len());
        for (index, entry) in (0..count).zip(&page.entries) {
            let acked = bits.is_some_and(|bits| page::bit(bits, index)) || first + u64::from(index) < low;
            entries.push(match entry {
                Entry::Hole => MetaEntry {
                    size: 0,
                    body: None,
                    gone: true,
                },
                Entry::Message { body: Some(body), .. } => MetaEntry {
                    size: body.len,
                    body: Some(body.id),
                    gone: acked,
                },
                Entry::Message {
                    record, body: None, ..
                } => MetaEntry {
                    size: Message::from_record(record, None)?.body_len(),
                    body: None,
                    gone: acked,
                },
            });
        }
        let mut meta = Self::new(first, &entries);
        meta.has_ack_row = acks.is_some();
        Some(meta)
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The seq behind the last.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    pub(super) fn live(&self) -> u16 {
        self.live
    }

    /// The lowest seq that may still be there.
    pub(super) fn low(&self) -> u64 {
        self.first + u64::from(self.prefix)
    }

    /// The entry of this seq, when the page has one.
    pub(super) fn index(&self, seq: u64) -> Option<u16> {
        let index = u16::try_from(seq.checked_sub(self.first)?).ok()?;
        (index < self.count).then_some(index)
    }

    pub(super) fn is_gone(&self, index: u16) -> bool {
        index < self.prefix || self.bit(index)
    }

    /// Takes the entry out. `None` when it was gone already.
    pub(super) fn ack(&mut self, index: u16) -> Option<Gone> {
        if index >= self.count || self.is_gone(index) {
            return None;
        }
        let gone = self.entry(index);
        self.out_of_order |= index != self.prefix;
        self.touched = true;
        self.set_gone(index);
        self.live -= 1;
        Some(gone)
    }

    /// Calls `each` for every entry that is not gone.
    pub(super) fn each_live(&self, mut each: impl FnMut(Gone)) {
        for index in (self.prefix..self.count).filter(|index| !self.bit(*index)) {
            each(self.entry(index));
        }
    }

    /// Bytes the page and its bodies take on disk, about.
    pub(super) fn disk_bytes(&self) -> u64 {
        const ENTRY: u64 = 48;
        let listed = self.detail.as_ref().map_or(&[][..], |detail| &detail.sizes);
        let bodies = if listed.is_empty() {
            u64::from(self.size) * u64::from(self.count)
        } else {
            listed.iter().sum()
        };
        bodies + ENTRY * u64::from(self.count)
    }

    fn entry(&self, index: u16) -> Gone {
        let Some(detail) = &self.detail else {
            return Gone {
                size: u64::from(self.size),
                body: None,
            };
        };
        let size = detail
            .sizes
            .get(usize::from(index))
            .copied()
            .unwrap_or(u64::from(self.size));
        let at = detail
            .bodies
            .binary_search_by_key(&index, |(entry, _)| *entry)
            .ok();
        let body = at.and_then(|at| detail.bodies.get(at)).map(|(_, id)| *id);
        Gone { size, body }
    }

    fn bit(&self, index: u16) -> bool {
        let word = self
            .detail
            .as_ref()
            .and_then(|detail| detail.gone.get(usize::from(index / 64)));
        word.is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Moves the prefix when it can, so that acks in order need no bitmap.
    fn set_gone(&mut self, index: u16) {
        if index == self.prefix {
            self.prefix += 1;
            while self.prefix < self.count && self.bit(self.prefix) {
                self.prefix += 1;
            }
            return;
        }
        let words = usize::from(self.count.div_ceil(64));
        let detail = self.detail_mut();
        detail.gone.resize(words, 0);
        if let Some(word) = detail.gone.get_mut(usize::from(index / 64)) {
            *word |= 1 << (index % 64);
        }
    }

    fn detail_mut(&mut self) -> &mut Detail {
        self.detail.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_page_costs_32_bytes() {
        assert_eq!(size_of::<PageMeta>(), 32);
    }

    proptest! {
        #[test]
        fn acks_in_any_order_give_every_entry_back_once(
            sizes in prop::collection::vec((0_u64..3, any::<bool>(), prop::option::of(0_u64..9)), 1..150),
            order in prop::collection::vec(0_u16..160, 0..400),
        ) {
            let entries: Vec<_> =
                sizes.iter().map(|(size, gone, body)| MetaEntry { size: *size, body: *body, gone: *gone }).collect();
            let mut meta = PageMeta::new(10, &entries);
            let mut model: Vec<_> =
                entries.iter().map(|entry| (!entry.gone).then_some(Gone { size: entry.size, body: entry.body })).collect();
            for index in order {
                let expected = model.get_mut(usize::from(index)).and_then(Option::take);
                prop_assert_eq!(meta.ack(index), expected);
                prop_assert_eq!(usize::from(meta.live()), model.iter().flatten().count());
                let low = model.iter().position(Option::is_some).unwrap_or(model.len());
                prop_assert_eq!(meta.low(), 10 + low as u64);
            }
            let mut left = Vec::new();
            meta.each_live(|gone| left.push(gone));
            prop_assert_eq!(left, model.into_iter().flatten().collect::<Vec<_>>());
        }
    }
}
