//! The store as a whole, on a real RocksDB in a temporary directory: what one asks of it, and what it answers.

mod backup;
mod behaviour;
mod check;
mod crash;
mod damage;
mod log_room;
mod model;
mod reclaim;
mod returned;
mod schedule;
mod spill;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use smallvec::{SmallVec, smallvec};
use tempfile::TempDir;

use crate::broker::{
    confirm::{ConfirmSink, ConfirmToken},
    definition::{Definition, QueueDefinition},
    ids::{QueueId, Seq, Timestamp},
    message::{INLINE_BODY_MAX, Message, MessageParts},
};
use crate::protocol::field::FieldTable;
use crate::storage::{
    DefinitionKey, Loaded, Op, ReadRequest, Recovered, Store, StoreError, StoreEvents, StoreFailure,
    StoreOptions, Target,
};

/// A store in a temporary directory, with a broker that only remembers what it was told.
pub(super) struct Bench {
    pub(super) dir: TempDir,
    pub(super) store: Store,
    pub(super) told: Arc<Told>,
    pub(super) recovered: Recovered,
}

/// What the store told.
#[derive(Default)]
pub(super) struct Told {
    state: Mutex<ToldState>,
    wake: Condvar,
}

#[derive(Default)]
struct ToldState {
    answers: VecDeque<(QueueId, Result<Loaded, StoreError>)>,
    committed: Vec<(QueueId, Seq)>,
    confirmed: Vec<u64>,
    failures: Vec<String>,
    full: Vec<bool>,
}

impl Told {
    fn tell(&self, change: impl FnOnce(&mut ToldState)) {
        change(&mut self.state.lock());
        self.wake.notify_all();
    }

    fn wait_until<T>(&self, ready: impl Fn(&mut ToldState) -> Option<T>) -> T {
        let mut state = self.state.lock();
        loop {
            if let Some(found) = ready(&mut state) {
                return found;
            }
            self.wake.wait(&mut state);
        }
    }

    pub(super) fn confirmed(&self) -> Vec<u64> {
        self.state.lock().confirmed.clone()
    }

    pub(super) fn wait_for_confirm(&self, tag: u64) {
        self.wait_until(|state| state.confirmed.contains(&tag).then_some(()));
    }

    /// `true` when the disk was full instead.
    pub(super) fn wait_for_confirm_or_full(&self, tag: u64) -> bool {
        self.wait_until(|state| {
            let full = state.full.last() == Some(&true);
            (full || state.confirmed.contains(&tag)).then_some(full)
        })
    }

    pub(super) fn wait_for_failure(&self) -> String {
        self.wait_until(|state| state.failures.first().cloned())
    }

    pub(super) fn wait_for_full(&self, full: bool) {
        self.wait_until(|state| (state.full.last() == Some(&full)).then_some(()));
    }
}

impl StoreEvents for Told {
    fn committed(&self, queues: &[(QueueId, Seq)]) {
        self.tell(|state| state.committed.extend_from_slice(queues));
    }

    fn loaded(&self, queue: QueueId, loaded: Loaded) {
        self.tell(|state| state.answers.push_back((queue, Ok(loaded))));
    }

    fn read_failed(&self, queue: QueueId, error: StoreError) {
        self.tell(|state| state.answers.push_back((queue, Err(error))));
    }

    fn failed(&self, error: StoreError) {
        self.tell(|state| state.failures.push(error.to_string()));
    }

    fn full(&self, full: bool) {
        self.tell(|state| state.full.push(full));
    }
}

impl ConfirmSink for Told {
    fn stored(&self, tags: &[u64]) {
        self.tell(|state| state.confirmed.extend_from_slice(tags));
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    pub(super) fn in_dir(dir: TempDir) -> Self {
        let options = options(dir.path());
        Self::with(dir, options)
    }

    pub(super) fn with(dir: TempDir, options: StoreOptions) -> Self {
        let (store, recovered) = Store::open(options).unwrap();
        let told = Arc::new(Told::default());
        store.start(told.clone()).unwrap();
        Self {
            dir,
            store,
            told,
            recovered,
        }
    }

    /// Closes cleanly and opens again.
    pub(super) fn reopen(self) -> Self {
        let Self { dir, store, .. } = self;
        store.close();
        Self::in_dir(dir)
    }

    /// Stops as a killed process would and opens again.
    pub(super) fn crash(self) -> Self {
        let Self { dir, store, .. } = self;
        store.abandon();
        Self::in_dir(dir)
    }

    pub(super) fn log(&self, op: Op) {
        self.store.log(&mut vec![op]);
    }

    /// Returns when everything logged before is durable.
    pub(super) fn sync(&self) {
        self.outcome(|done| Op::Barrier { done }).unwrap();
    }

    pub(super) fn outcome(&self, op: impl FnOnce(crate::storage::Done) -> Op) -> Result<(), StoreFailure> {
        let (sender, receiver) = mpsc::channel();
        self.log(op(Box::new(move |result| sender.send(result).unwrap())));
        receiver.recv().unwrap()
    }

    /// Declares a durable queue.
    pub(super) fn queue(&self, name: &str) -> QueueId {
        let id = self.store.next_queue_id();
        self.log(define(name, id));
        id
    }

    pub(super) fn publish(&self, targets: &[(QueueId, u64)], body: &[u8]) {
        self.log(publish(targets, message(body), None));
    }

    pub(super) fn publish_confirmed(&self, targets: &[(QueueId, u64)], body: &[u8], tag: u64) {
        let sink: Arc<dyn ConfirmSink> = self.told.clone();
        self.log(publish(targets, message(body), Some(ConfirmToken { sink, tag })));
    }

    pub(super) fn ack(&self, queue: QueueId, seqs: &[u64]) {
        self.log(ack(queue, 0, seqs));
    }

    /// One answer of a reader.
    pub(super) fn read_some(&self, request: ReadRequest) -> Result<Loaded, StoreError> {
        self.store.read(request);
        let (queue, answer) = self.told.wait_until(|state| state.answers.pop_front());
        assert_eq!(queue, request.queue);
        answer
    }

    /// All messages of a lane in the range, read in steps of `max_bytes`.
    pub(super) fn read(
        &self,
        queue: QueueId,
        lane: u8,
        from: u64,
        until: u64,
        max_bytes: usize,
    ) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        let mut from = Seq(from);
        loop {
            let request = ReadRequest {
                queue,
                lane,
                from,
                until: Seq(until),
                max_bytes,
                settled: true,
            };
            let loaded = self.read_some(request).unwrap();
            assert_eq!(loaded.lane, lane);
            found.extend(
                loaded
                    .entries
                    .iter()
                    .map(|(seq, message)| (seq.0, body_of(message))),
            );
            let Some(next) = loaded.next else { break };
            assert!(next > from, "a read makes progress");
            from = next;
        }
        assert!(found.is_sorted_by_key(|(seq, _)| *seq));
        found
    }

    pub(super) fn read_all(&self, queue: QueueId) -> Vec<(u64, Vec<u8>)> {
        self.read(queue, 0, 0, u64::MAX, 100_000)
    }

    pub(super) fn seqs(&self, queue: QueueId) -> Vec<u64> {
        self.read_all(queue).into_iter().map(|(seq, _)| seq).collect()
    }
}

/// Small memtables, and a reclaim after little: so that tests see flushes.
pub(super) fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(dir);
    options.page_write_buffer_bytes = 1 << 20;
    options.body_write_buffer_bytes = 1 << 20;
    options.block_cache_bytes = 4 << 20;
    options
}

pub(super) fn parts() -> MessageParts<'static> {
    MessageParts {
        exchange: b"ex",
        routing_key: b"key",
        properties: b"\x10\x00\x02",
        persistent: true,
        priority: 0,
    }
}

/// Large bodies come in chunks, as from frames.
pub(super) fn message(body: &[u8]) -> Message {
    if body.len() > INLINE_BODY_MAX {
        let chunks = body.chunks(100_000).map(Bytes::copy_from_slice).collect();
        return Message::with_large_body(&parts(), chunks, &mut Vec::new());
    }
    Message::new(&parts(), body, &mut Vec::new())
}

pub(super) fn body_of(message: &Message) -> Vec<u8> {
    assert_eq!(message.exchange(), b"ex");
    assert_eq!(message.routing_key(), b"key");
    assert_eq!(message.properties(), b"\x10\x00\x02");
    match message.large_body() {
        Some(body) => body.chunks.concat(),
        None => message.inline_body().to_vec(),
    }
}

pub(super) fn publish(targets: &[(QueueId, u64)], message: Message, confirm: Option<ConfirmToken>) -> Op {
    let targets = targets.iter().map(|(queue, seq)| Target {
        queue: *queue,
        lane: 0,
        seq: Seq(*seq),
        expires_at: Timestamp::NONE,
    });
    Op::Publish {
        message,
        targets: targets.collect(),
        confirm,
    }
}

pub(super) fn ack(queue: QueueId, lane: u8, seqs: &[u64]) -> Op {
    let seqs: SmallVec<[Seq; 4]> = seqs.iter().copied().map(Seq).collect();
    Op::Ack { queue, lane, seqs }
}

pub(super) fn define(name: &str, id: QueueId) -> Op {
    let definition = Definition::Queue(QueueDefinition {
        vhost: "/".into(),
        name: name.into(),
        id,
        durable: true,
        auto_delete: false,
        arguments: FieldTable::default(),
    });
    Op::Define {
        definition,
        done: None,
    }
}

pub(super) fn undefine(name: &str, id: QueueId) -> Op {
    Op::Undefine {
        key: DefinitionKey::Queue {
            vhost: "/".into(),
            name: name.into(),
            id,
        },
        done: None,
    }
}

pub(super) fn one(queue: QueueId, seq: u64) -> SmallVec<[Target; 1]> {
    smallvec![Target {
        queue,
        lane: 0,
        seq: Seq(seq),
        expires_at: Timestamp::NONE,
    }]
}
