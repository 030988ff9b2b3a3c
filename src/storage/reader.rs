//! Reader threads: fetch pages for queues that no longer hold them in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rocksdb::{DB, ReadOptions, SnapshotWithThreadMode};

use crate::broker::{
    ids::{Seq, Timestamp},
    message::Message,
    queue::ScheduleRead,
};
use crate::storage::{
    Loaded, ReadRequest, Shared, StoreError, StoreEvents, bodies, keys,
    page::{BodyRef, Entry, Page},
    page_meta::PageMeta,
    rocks::{Family, Rocks},
    schedule, spill,
    stats::add,
};

/// Requests no reader has taken yet. Bounded by the queues, each of which has one request open.
#[derive(Default)]
pub(super) struct ReadQueue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// With the number of ops that must be written before the read.
    requests: VecDeque<(Request, u64)>,
    ended: bool,
}

/// What queues ask for.
pub(super) enum Request {
    Pages(ReadRequest),
    /// What is due next in a holding queue; it waits for what was logged before.
    Schedule(ScheduleRead),
}

impl ReadQueue {
    pub(super) fn push(&self, request: Request, after_ops: u64) {
        self.state.lock().requests.push_back((request, after_ops));
        self.wake.notify_one();
    }

    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.wake.notify_all();
    }

    fn pop(&self) -> Option<(Request, u64)> {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(request) = state.requests.pop_front() {
                return Some(request);
            }
            self.wake.wait(&mut state);
        }
    }
}

/// Serves requests until the store closes.
pub(super) fn run(shared: &Shared, rocks: &Rocks, events: &Arc<dyn StoreEvents>) {
    while let Some((request, after_ops)) = shared.reads.pop() {
        let request = match request {
            Request::Pages(request) => request,
            Request::Schedule(request) => {
                shared.progress.wait_for(after_ops);
                match schedule::read(&request, rocks) {
                    Ok(loaded) => events.schedule_loaded(request.queue, loaded),
                    Err(error) => {
                        tracing::error!(%error, queue = request.queue.0, "waiting messages could not be read; leveret check tells what is damaged");
                        events.read_failed(request.queue, error);
                    }
                }
                continue;
            }
        };
        if request.settled {
            shared.progress.wait_for(after_ops);
        }
        match read(&request, shared, rocks) {
            Ok(loaded) => events.loaded(request.queue, loaded),
            Err(error) => {
                tracing::error!(%error, queue = request.queue.0, "a queue could not be read; leveret check tells what is damaged");
                events.read_failed(request.queue, error);
            }
        }
    }
}

/// A message as read; what it lacks is fetched only when it turns out to be wanted.
enum Staged {
    Ready(Message),
    /// The record without its body.
    Elsewhere(Vec<u8>, BodyRef),
}

/// The pages of one request.
#[derive(Default)]
struct Scan {
    staged: Vec<(Seq, Staged)>,
    deadlines: Vec<(Seq, Timestamp)>,
    /// Metas of pages that may not be known yet.
    metas: Vec<PageMeta>,
    /// Where the first page seen begins, when it begins before the request.
    begins: Option<u64>,
    /// The seq behind the last page, when the request ends before its `until`.
    next: Option<u64>,
}

/// The messages of one request; those that must not outlive the broker stand in a queue beside.
pub(super) fn read(request: &ReadRequest, shared: &Shared, rocks: &Rocks) -> Result<Loaded, StoreError> {
    let mut loaded = read_one(request, shared, rocks)?;
    let transient = {
        let ledger = shared.ledger.lock();
        ledger
            .queues
            .get(&request.queue)
            .and_then(|queue| queue.transient)
    };
    if let Some(queue) = transient {
        let until = loaded.next.unwrap_or(request.until);
        let beside = read_one(
            &ReadRequest {
                queue,
                until,
                ..*request
            },
            shared,
            rocks,
        )?;
        spill::merge(&mut loaded, beside);
    }
    Ok(loaded)
}

/// The messages of one request in one stored queue.
fn read_one(request: &ReadRequest, shared: &Shared, rocks: &Rocks) -> Result<Loaded, StoreError> {
    let nothing = Loaded {
        from: request.from,
        until: request.until,
        lane: request.lane,
        entries: Vec::new(),
        deadlines: Vec::new(),
        next: None,
    };
    // The ledger runs ahead of the disk: what it says first is a bound from below, what it says last is the truth.
    let bound = {
        let ledger = shared.ledger.lock();
        let lane = ledger
            .queues
            .get(&request.queue)
            .and_then(|queue| queue.lane(request.lane));
        lane.and_then(|lane| Some((lane.head()?.head_page, lane.recovered_low())))
    };
    let Some((head_page, recovered_low)) = bound else {
        return Ok(nothing);
    };
    // A snapshot, so that page, ack row and bodies belong together.
    let snapshot = rocks.db().snapshot();
    let mut scan = scan(request, head_page, recovered_low, &snapshot, rocks)?;
    add(&shared.counters.pages_read, scan.metas.len() as u64);
    learn_and_filter(request, &mut scan, shared);
    let mut options = ReadOptions::default();
    options.set_snapshot(&snapshot);
    options.fill_cache(false);
    let mut entries = Vec::with_capacity(scan.staged.len());
    for (seq, staged) in scan.staged {
        let message = match staged {
            Staged::Ready(message) => Some(message),
            Staged::Elsewhere(record, body) => {
                let chunks = bodies::read(rocks, body, &options).map_err(|error| rocks.error(&error))?;
                chunks.and_then(|chunks| join(record, body, chunks))
            }
        };
        let message = message.ok_or_else(|| damaged(request, seq.0, "the message or its body", rocks))?;
        entries.push((seq, message));
    }
    Ok(Loaded {
        from: request.from,
        until: request.until,
        lane: request.lane,
        entries,
        deadlines: scan.deadlines,
        next: scan.next.map(Seq),
    })
}

fn scan(
    request: &ReadRequest,
    head_page: u64,
    recovered_low: u64,
    snapshot: &SnapshotWithThreadMode<'_, DB>,
    rocks: &Rocks,
) -> Result<Scan, StoreError> {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(keys::page(request.queue, request.lane, head_page));
    options.set_iterate_upper_bound(keys::page(request.queue, request.lane, request.until.0));
    options.fill_cache(false);
    let mut pages = snapshot.raw_iterator_cf_opt(rocks.family(Family::Page), options);
    // The page that holds `from` may begin before it.
    pages.seek_for_prev(keys::page(request.queue, request.lane, request.from.0));
    if !pages.valid() {
        pages.seek_to_first();
    }
    let mut scan = Scan::default();
    let mut bytes = 0;
    while let (Some(key), Some(value)) = (pages.key(), pages.value()) {
        let first = keys::parse_page(key).map_or(0, |(_, _, first)| first);
        if bytes > 0 && bytes + value.len() > request.max_bytes {
            scan.next = Some(first);
            break;
        }
        let acks = snapshot
            .get_pinned_cf(rocks.family(Family::Ack), key)
            .map_err(|error| rocks.error(&error))?;
        let page = Page::decode(value).ok_or_else(|| damaged(request, first, "the page", rocks))?;
        let meta = PageMeta::of_page(first, &page, acks.as_deref(), recovered_low)
            .ok_or_else(|| damaged(request, first, "the page or its ack row", rocks))?;
        if meta.end() > request.from.0 {
            if first < request.from.0 {
                scan.begins = Some(first);
            }
            bytes += stage(request, first, &page, &meta, &mut scan, rocks)?;
            scan.metas.push(meta);
        }
        pages.next();
    }
    pages.status().map_err(|error| rocks.error(&error))?;
    Ok(scan)
}

/// Copies the wanted messages out of a page; gives their bytes, at least 1.
fn stage(
    request: &ReadRequest,
    first: u64,
    page: &Page<'_>,
    meta: &PageMeta,
    scan: &mut Scan,
    rocks: &Rocks,
) -> Result<usize, StoreError> {
    let mut bytes = 1;
    for (index, entry) in (0_u16..).zip(&page.entries) {
        let seq = first + u64::from(index);
        let Entry::Message {
            record,
            body,
            expires_at,
        } = entry
        else {
            continue;
        };
        if meta.is_gone(index) || !(request.from.0..request.until.0).contains(&seq) {
            continue;
        }
        bytes += record.len();
        let message = match body {
            None => Message::from_record(record, None).map(Staged::Ready),
            Some(body) => {
                bytes += usize::try_from(body.len).unwrap_or(usize::MAX / 2);
                Some(Staged::Elsewhere(record.to_vec(), *body))
            }
        };
        let message = message.ok_or_else(|| damaged(request, seq, "the message", rocks))?;
        scan.staged.push((Seq(seq), message));
        if *expires_at != 0 {
            scan.deadlines.push((Seq(seq), Timestamp(*expires_at)));
        }
    }
    Ok(bytes)
}

/// Tells the ledger the pages it does not know, then drops every message the ledger knows to be gone.
fn learn_and_filter(request: &ReadRequest, scan: &mut Scan, shared: &Shared) {
    let mut ledger = shared.ledger.lock();
    let queue = ledger.queues.get_mut(&request.queue);
    let Some(lane) = queue.and_then(|queue| queue.lane_mut(request.lane)) else {
        scan.staged.clear();
        scan.next = None;
        return;
    };
    for meta in scan.metas.drain(..) {
        lane.learn(meta);
    }
    let begins = scan.begins.unwrap_or(request.from.0);
    lane.forget_unknown(begins, scan.next.unwrap_or(request.until.0));
    scan.staged.retain(|(seq, _)| {
        let page = lane.find(seq.0).and_then(|place| lane.page(place));
        page.is_some_and(|page| page.index(seq.0).is_some_and(|index| !page.is_gone(index)))
    });
}

/// Puts a message and its body together again.
fn join(mut record: Vec<u8>, body: BodyRef, chunks: Vec<bytes::Bytes>) -> Option<Message> {
    if body.large {
        return Message::from_record(&record, Some(chunks));
    }
    for chunk in &chunks {
        record.extend_from_slice(chunk);
    }
    Message::from_record(&record, None)
}

fn damaged(request: &ReadRequest, seq: u64, what: &str, rocks: &Rocks) -> StoreError {
    let (queue, lane) = (request.queue.0, request.lane);
    rocks.corrupt(format!(
        "{what} at seq {seq} of queue {queue}, lane {lane}, is not what was written"
    ))
}
