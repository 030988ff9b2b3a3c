//! Deep queues in bounded memory: the middle of a durable queue is left to the store (storage-design B6).

use crate::broker::{
    ids::{QueueId, Seq},
    message::Message,
    queue::{Entry, HEAD_BYTES, Port, QueueState, READ_AHEAD_BELOW},
};

/// The part of a queue that only the store holds: places `from <= seq < until`.
pub(super) struct Gap {
    from: Seq,
    until: Seq,
    count: u64,
    bytes: u64,
    /// The range of the read under way. The gap may grow meanwhile; what joins it later is read later.
    reading: Option<(Seq, Seq)>,
}

/// A read that the caller must ask the store for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFrom {
    pub queue: QueueId,
    pub from: Seq,
    pub until: Seq,
    /// Another read of the same range is under way already.
    pub pending: bool,
}

/// The store's answer to a read.
pub struct PagedIn {
    /// Where the read began; an answer to a read that no longer matters is ignored.
    pub from: Seq,
    /// Ascending.
    pub entries: Vec<(Seq, Message)>,
    /// The first place not read yet; `None` when the whole range was.
    pub next: Option<Seq>,
}

impl Gap {
    pub(super) fn new(from: Seq, until: Seq, count: u64, bytes: u64) -> Self {
        Self {
            from,
            until,
            count,
            bytes,
            reading: None,
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn from(&self) -> Seq {
        self.from
    }

    pub(super) fn into_range(self) -> (Seq, Seq, u64, u64) {
        (self.from, self.until, self.count, self.bytes)
    }
}

impl<P: Port> QueueState<P> {
    /// Leaves the middle of a queue that outgrew its memory to the store.
    pub(super) fn page_out(&mut self) {
        if self.gap.is_none() {
            if !self.durable || self.ready.bytes() <= self.resident_limit {
                return;
            }
            let from = self.ready.split_off(HEAD_BYTES, self.next_seq);
            self.gap = Some(Gap::new(from, from, 0, 0));
        }
        self.absorb();
    }

    /// Lets the tail's stored messages fall into the gap.
    fn absorb(&mut self) {
        let Some(gap) = self.gap.as_mut() else { return };
        let last = self.ready.absorb(self.committed, |entry| {
            gap.count += 1;
            gap.bytes += entry.message.body_len();
        });
        if let Some(last) = last {
            gap.until = last.next();
        }
    }

    /// The store wrote every stored message up to `through`.
    pub fn committed(&mut self, through: Seq) {
        self.committed = self.committed.max(through);
        self.absorb();
    }

    /// True when commits matter to this queue now: it has left messages to the store.
    pub fn is_paged(&self) -> bool {
        self.gap.is_some()
    }

    /// Where to read when consumers will soon run out of messages in memory.
    pub(super) fn read_ahead(&mut self) -> Option<ReadFrom> {
        if self.ready.head_bytes() >= READ_AHEAD_BELOW {
            return None;
        }
        let id = self.id;
        let gap = self.gap.as_mut()?;
        if gap.reading.is_some() {
            return None;
        }
        if gap.from == gap.until {
            return None;
        }
        gap.reading = Some((gap.from, gap.until));
        Some(ReadFrom {
            queue: id,
            from: gap.from,
            until: gap.until,
            pending: false,
        })
    }

    /// Nothing is on disk only: what is in memory behind the gap comes next. True when the gap was closed.
    pub(super) fn close_empty_gap(&mut self) -> bool {
        let empty = self
            .gap
            .as_ref()
            .is_some_and(|gap| gap.from == gap.until && gap.reading.is_none());
        if empty {
            self.gap = None;
            self.ready.join();
        }
        empty
    }

    /// The store's answer. Call [`Self::dispatch`] next.
    pub fn paged_in(&mut self, paged: PagedIn) {
        let delivered = self.delivered;
        let Some(gap) = self.gap.as_mut() else { return };
        let Some((_, read_until)) = gap.reading.filter(|(from, _)| *from == paged.from) else {
            return;
        };
        gap.reading = None;
        let (from, until) = (gap.from, gap.until);
        let next = paged.next.unwrap_or(read_until).clamp(from, until);
        let entries = paged
            .entries
            .into_iter()
            .filter(|(seq, _)| (from..next).contains(seq));
        let mut count = 0;
        let mut bytes = 0;
        self.ready.page_in(
            entries.map(|(seq, message)| {
                count += 1;
                bytes += message.body_len();
                Entry {
                    seq,
                    message,
                    redelivered: seq <= delivered,
                    stored: true,
                }
            }),
            next,
        );
        gap.count = gap.count.saturating_sub(count);
        gap.bytes = gap.bytes.saturating_sub(bytes);
        gap.from = next;
        if next >= until {
            self.gap = None;
            self.ready.join();
        }
    }

    /// A read failed; the next demand asks again.
    pub fn read_failed(&mut self) {
        if let Some(gap) = self.gap.as_mut() {
            gap.reading = None;
        }
    }
}

impl Gap {
    /// A read for a client that waits (basic.get).
    pub(super) fn read_now(&mut self, queue: QueueId) -> ReadFrom {
        let pending = self.reading.is_some();
        self.reading.get_or_insert((self.from, self.until));
        ReadFrom {
            queue,
            from: self.from,
            until: self.until,
            pending,
        }
    }
}
