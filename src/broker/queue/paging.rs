//! Deep queues in bounded memory: the middle of a queue is left to the store (storage-design B6).
//! What does not outlive the broker goes there as well while the queue is paged, and is swept at the next start.

use crate::broker::{
    ids::{QueueId, Seq, Timestamp},
    message::Message,
    queue::{Entry, Place, Port, QueueState, arguments::QueueKind, lanes::Lane, returns::Returns},
};

/// Ready messages that the store has may take this much memory before a queue leaves its middle to the store.
pub const RESIDENT_BYTES: usize = 16 * 1024 * 1024;
/// Messages that are only in memory may take so many times as much.
const UNSTORED_TIMES: usize = 4;
/// What of a queue's head stays in memory when its middle is left to the store, if its memory is not very small.
const HEAD_BYTES: usize = 2 * 1024 * 1024;
/// A consumer's read-ahead begins below this much ready memory.
const READ_AHEAD_BELOW: usize = 512 * 1024;

/// The part of a level that only the store holds: places `from <= seq < until`.
pub(super) struct Gap {
    from: Seq,
    until: Seq,
    /// The range of the read under way. The gap may grow meanwhile; what joins it later is read later.
    reading: Option<(Seq, Seq)>,
}

/// A read that the caller must ask the store for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFrom {
    pub queue: QueueId,
    pub lane: u8,
    pub from: Seq,
    pub until: Seq,
    /// Another read of the same range is under way already.
    pub pending: bool,
}

/// The store's answer to a read.
pub struct PagedIn {
    pub lane: u8,
    /// Where the read began; an answer to a read that no longer matters is ignored.
    pub from: Seq,
    /// Where the read should end, exclusive.
    pub until: Seq,
    /// Ascending.
    pub entries: Vec<(Seq, Message)>,
    /// Deadlines of those that have one, ascending.
    pub deadlines: Vec<(Seq, Timestamp)>,
    /// The first place not read yet; `None` when the whole range was.
    pub next: Option<Seq>,
}

impl Gap {
    pub(super) fn new(from: Seq, until: Seq) -> Self {
        Self {
            from,
            until,
            reading: None,
        }
    }

    pub(super) fn from(&self) -> Seq {
        self.from
    }

    pub(super) fn until(&self) -> Seq {
        self.until
    }

    /// Whether this message is on disk only.
    pub(super) fn holds(&self, seq: Seq) -> bool {
        (self.from..self.until).contains(&seq)
    }

    /// A read of all there is, for a client that waits or for a consumer that soon will.
    fn read(&mut self, queue: QueueId, lane: u8) -> ReadFrom {
        let pending = self.reading.is_some();
        self.reading.get_or_insert((self.from, self.until));
        ReadFrom {
            queue,
            lane,
            from: self.from,
            until: self.until,
            pending,
        }
    }
}

impl Lane {
    /// What must be read to see the front, unless it is being read.
    pub(super) fn read_unless_reading(&mut self, queue: QueueId) -> Option<ReadFrom> {
        let level = self.level;
        let gap = self.gap.as_mut()?;
        (gap.reading.is_none() && gap.from < gap.until).then(|| gap.read(queue, level))
    }

    /// Gives up what of the front exceeds `keep` bytes and `least` messages and came from the store; gives its number and the
    /// bytes of its bodies, as [`Self::absorb`] does. Not while a read is under way, whose answer follows what is here.
    fn trim(&mut self, (keep, least): (usize, usize), committed: Seq) -> (u64, u64) {
        let (mut count, mut bytes) = (0, 0);
        let Some(gap) = self.gap.as_mut().filter(|gap| gap.reading.is_none()) else {
            return (0, 0);
        };
        let first = self.ready.trim_head((keep, least), committed, |entry| {
            count += 1;
            bytes += entry.message.body_len();
        });
        gap.from = first.unwrap_or(gap.from);
        (count, bytes)
    }

    /// Leaves all but `keep` bytes of the front, and one message, to the store. It goes when the store has it for certain.
    fn split(&mut self, keep: usize) {
        if self.gap.is_none()
            && let Some(from) = self.ready.split_off(keep)
        {
            self.gap = Some(Gap::new(from, from));
        }
    }

    /// Leaves all of it to the store, its front too.
    fn split_whole(&mut self) {
        if self.gap.is_none()
            && let Some(from) = self.ready.split_whole()
        {
            self.gap = Some(Gap::new(from, from));
        }
    }

    /// Lets the tail's stored messages fall into the gap; gives their number and the bytes of their bodies.
    fn absorb(&mut self, committed: Seq) -> (u64, u64) {
        let (mut count, mut bytes) = (0, 0);
        let Some(gap) = self.gap.as_mut() else {
            return (0, 0);
        };
        let last = self.ready.absorb(committed, |entry| {
            count += 1;
            bytes += entry.message.body_len();
        });
        if let Some(last) = last {
            gap.until = last.next();
        }
        (count, bytes)
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

    /// The store's answer; gives what was read, as [`Self::absorb`] does.
    fn page_in(&mut self, paged: PagedIn, returns: &mut Returns) -> (u64, u64) {
        let (level, delivered) = (self.level, self.delivered);
        let acquired = |seq: Seq| u16::from(seq <= delivered);
        let (mut count, mut bytes) = (0, 0);
        let Some(gap) = self.gap.as_mut() else {
            return (0, 0);
        };
        let Some((_, read_until)) = gap.reading.filter(|(from, _)| *from == paged.from) else {
            return (0, 0);
        };
        gap.reading = None;
        let (from, until) = (gap.from, gap.until);
        let next = paged.next.unwrap_or(read_until).clamp(from, until);
        let entries = paged
            .entries
            .into_iter()
            .filter(|(seq, _)| (from..next).contains(seq));
        let mut deadlines = paged.deadlines.into_iter().peekable();
        self.ready.page_in(
            entries.filter_map(|(seq, message)| {
                while deadlines.next_if(|(other, _)| *other < seq).is_some() {}
                let deadline = deadlines.next_if(|(other, _)| *other == seq);
                count += 1;
                bytes += message.body_len();
                returns.not_recalled(Entry {
                    seq,
                    lane: level,
                    redelivered: seq <= delivered || message.was_delivered_before(),
                    message,
                    stored: true,
                    expires_at: deadline.map_or(Timestamp::NONE, |(_, deadline)| deadline),
                    acquired: acquired(seq),
                    failed: 0,
                })
            }),
            next,
        );
        gap.from = next;
        if next >= until {
            self.gap = None;
            self.ready.join();
        }
        (count, bytes)
    }
}

impl<P: Port> QueueState<P> {
    /// Leaves the middle of a queue that outgrew its memory to the store.
    pub(super) fn page_out(&mut self) {
        if self.lanes.bytes() > self.resident_limit && self.is_worth_paging() {
            // Every level has its share; one below it stays whole.
            let levels = self.lanes.count();
            let share = self.resident_limit / levels;
            let keep = (HEAD_BYTES / levels).min(share - share / 4);
            let on_disk = self.on_disk();
            let (mut count, mut bytes) = (0, 0);
            for lane in self.lanes.iter_mut().filter(|lane| lane.ready.bytes() > share) {
                lane.split(keep);
                // Deadlines of messages that were read are known, and must not be learned twice; what came back before a
                // restart was taken from among them, and must not be read twice.
                if self.expiry.is_none() && !self.returns.recalls() && lane.ready.head_bytes() > keep {
                    let (lane_count, lane_bytes) = lane.trim((keep, 1), on_disk);
                    count += lane_count;
                    bytes += lane_bytes;
                }
            }
            self.left_to_store(count, bytes);
        }
    }

    /// Leaves the front to the store too, when a single message of it is more than the queue's memory and nobody is about to
    /// take it. True when anything changed; call [`Self::take_unstored`] then as after any change.
    pub fn page_out_front(&mut self) -> bool {
        if self.lanes.bytes() <= self.resident_limit
            || self.consumers.len() > 0
            || self.expiry.is_some()
            || self.returns.recalls()
        {
            return false;
        }
        let on_disk = self.on_disk();
        let (mut count, mut bytes) = (0, 0);
        for lane in self.lanes.iter_mut() {
            lane.split_whole();
            let (lane_count, lane_bytes) = lane.trim((0, 0), on_disk);
            count += lane_count;
            bytes += lane_bytes;
        }
        self.left_to_store(count, bytes);
        true
    }

    /// So much of the lanes' fronts is the store's now; what lies behind follows.
    fn left_to_store(&mut self, count: u64, bytes: u64) {
        self.lanes.disk_count += count;
        self.lanes.disk_bytes += bytes;
        // Before the store takes everything, `take_unstored` has a say.
        if self.spilling || !self.may_spill() {
            self.absorb();
        }
    }

    /// What the store has anyway leaves memory for nothing. What it does not have must be written first, which waits while
    /// there is memory for all queues.
    fn is_worth_paging(&mut self) -> bool {
        self.spilling
            || self.resident_limit < RESIDENT_BYTES
            || self.lanes.bytes() / UNSTORED_TIMES > self.resident_limit
            || self.lanes.top().ready.ends_stored()
    }

    /// Lets stored messages that are on disk leave memory.
    fn absorb(&mut self) {
        let (mut count, mut bytes) = (0, 0);
        let on_disk = self.on_disk();
        for lane in self.lanes.iter_mut() {
            let (lane_count, lane_bytes) = lane.absorb(on_disk);
            count += lane_count;
            bytes += lane_bytes;
        }
        self.lanes.disk_count += count;
        self.lanes.disk_bytes += bytes;
    }

    /// Every stored message up to here is on disk.
    pub(super) fn on_disk(&self) -> Seq {
        match self.settling {
            (0, _) => self.committed,
            (_, first) => self.committed.min(Seq(first.0.saturating_sub(1))),
        }
    }

    /// How much memory ready messages may take from now on. Call [`Self::dispatch`] next.
    pub fn set_resident_limit(&mut self, bytes: usize) {
        self.resident_limit = bytes;
    }

    /// As [`Self::set_resident_limit`] set it.
    pub fn resident_limit(&self) -> usize {
        self.resident_limit
    }

    /// Memory of ready messages that the limit speaks of.
    pub fn resident_bytes(&self) -> usize {
        self.lanes.bytes()
    }

    /// The store wrote every stored message up to `through`.
    pub fn committed(&mut self, through: Seq) {
        self.committed = self.committed.max(through);
        self.absorb();
        self.returns.committed(self.on_disk());
    }

    /// Tells whether the queue is paged, whenever that changed. True when the store must make room for messages that do
    /// not outlive the broker, before any of them is logged.
    pub fn set_spilling(&mut self, paged: bool) -> bool {
        if self.spilling {
            self.spilled = Seq(self.next_seq.0.saturating_sub(1));
        }
        self.spilling = paged && self.may_spill();
        self.spilling
    }

    /// A quorum queue has no messages that do not outlive the broker.
    fn may_spill(&self) -> bool {
        !(self.durable && self.settings.kind == QueueKind::Quorum)
    }

    /// The queue has just begun to leave messages to the store. What it does not have of those that shall leave memory, in
    /// order, for the caller to log; they stay until [`Self::settled`].
    pub fn take_unstored(&mut self) -> Vec<(Place, Timestamp, Message)> {
        let (spilled, mut unstored) = (self.spilled, Vec::new());
        for lane in self.lanes.iter_mut() {
            let level = lane.level;
            // The store takes messages of a level in their order only.
            let tail = lane.ready.unstored().filter(|entry| entry.seq > spilled);
            unstored.extend(tail.map(|entry| {
                entry.stored = true;
                let place = Place {
                    seq: entry.seq,
                    lane: level,
                };
                (place, entry.expires_at, entry.message.clone())
            }));
        }
        if let Some(first) = unstored.iter().map(|(place, ..)| place.seq).min() {
            self.settling = match self.settling {
                (0, _) => (1, first),
                (times, before) => (times + 1, before.min(first)),
            };
        }
        unstored
    }

    /// What one [`Self::take_unstored`] gave is on disk. Once for each that gave anything.
    pub fn settled(&mut self) {
        self.settling.0 = self.settling.0.saturating_sub(1);
        self.absorb();
    }

    /// Declared durable and not exclusive: the store has its definition.
    pub fn is_durable(&self) -> bool {
        self.durable
    }

    /// True when commits matter to this queue now: it has left messages to the store, or wants to.
    pub fn is_paged(&self) -> bool {
        self.lanes.is_paged() || (self.durable && self.returns.is_crowded())
    }

    /// Where to read when consumers will soon run out of messages in memory.
    pub(super) fn read_ahead(&mut self) -> Option<ReadFrom> {
        let id = self.id;
        let lane = self.lanes.top();
        let gap = lane.gap.as_mut()?;
        if lane.ready.head_bytes() >= READ_AHEAD_BELOW.min(self.resident_limit / 4)
            || gap.reading.is_some()
            || gap.from == gap.until
        {
            return None;
        }
        Some(gap.read(id, lane.level))
    }

    /// What `basic.get` must read before it can have a message; `None` when nothing is on disk only.
    pub(super) fn read_now(&mut self) -> Option<ReadFrom> {
        let id = self.id;
        let lane = self.lanes.top();
        let gap = lane.gap.as_mut()?;
        Some(gap.read(id, lane.level))
    }

    /// The store's answer. Call [`Self::dispatch`] next.
    pub fn paged_in(&mut self, paged: PagedIn) {
        let Some(mut paged) = self
            .waiting_paged_in(paged)
            .and_then(|paged| self.expiry_paged_in(paged))
        else {
            return;
        };
        self.drop_expired(&mut paged);
        let level = paged.lane;
        let (count, bytes) = self.lanes.at(paged.lane).page_in(paged, &mut self.returns);
        self.put_recalled_back();
        self.lanes.disk_count = self.lanes.disk_count.saturating_sub(count);
        self.lanes.disk_bytes = self.lanes.disk_bytes.saturating_sub(bytes);
        self.read_through(level);
        if !self.lanes.is_paged() {
            // Whatever was damaged is not there any more.
            (self.lanes.disk_count, self.lanes.disk_bytes) = (0, 0);
        }
    }

    /// A read failed; the next demand asks again.
    pub fn read_failed(&mut self) {
        self.expiry_read_failed();
        self.schedule_read_failed();
        self.returns.read_failed();
        for lane in self.lanes.iter_mut() {
            if let Some(gap) = lane.gap.as_mut() {
                gap.reading = None;
            }
        }
    }
}
