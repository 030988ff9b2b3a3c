//! Carries dead letters from the queues they died in to those their dead-letter exchange gives them to. A queue never waits
//! for another: it leaves its dead letters here, under its own lock, and one task routes them in that order.
//!
//! What was stored moves in one operation of the store's log, publish and ack together, so that a crash neither loses nor
//! doubles it (hostile-input-and-faults F24). At most once is the rule: what has no target is dropped. Queues that ask for
//! at least once keep a message, in the store and in their length, until all its targets have it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};
use tokio::sync::Notify;

use crate::broker::{
    delay,
    message::Message,
    queue::{
        Place,
        dead_letter::{self, DeadLetter, Reason},
    },
};
use crate::server::{
    clock,
    holding::Holder,
    queue_cell::{QueueGuard, QueueHandle},
    registry::Vhost,
    spans::Spans,
};
use crate::storage::{Done, Op, Store, Target};

/// Publishers wait above this many bytes of dead letters.
const BACKLOG_BYTES: usize = 32 * 1024 * 1024;
/// And go on below this many.
const BACKLOG_OVER_BYTES: usize = 16 * 1024 * 1024;
/// So many dead letters are moved before others get the processor.
const STRIDE: usize = 256;
/// Dead letters that may not be lost are tried again after this.
const RETRY: Duration = Duration::from_secs(5);

pub(super) struct Relay {
    store: Store,
    /// Records what dies, if spans are on; whoever has a relay finds them here.
    pub(super) spans: Option<Arc<Spans>>,
    /// Filled under the locks of queues, which may therefore not be taken while it is held. Bounded by holding publishers
    /// back; what consumers reject they held before.
    inbox: Mutex<VecDeque<Inward>>,
    /// Those that may not be lost and that nobody takes now. Bounded by the length limits of their queues, for which they
    /// count.
    parked: Mutex<Vec<(QueueHandle, DeadLetter)>>,
    /// Taken while dead letters are moved, so that they keep their order.
    working: Mutex<Vec<u8>>,
    bytes: AtomicUsize,
    /// Wakes the task.
    wake: Notify,
    /// Wakes publishers that wait.
    room: Notify,
}

/// What the relay is given, in this order.
enum Inward {
    Dead(QueueHandle, DeadLetter),
    /// Told when the moves of all dead letters before it are durable.
    Tell(Done),
}

impl Inward {
    fn memory_bytes(&self) -> usize {
        match self {
            Self::Dead(_, letter) => letter.message.memory_bytes(),
            Self::Tell(_) => 0,
        }
    }
}

/// A dead letter on its way: what is published, where to, and what it was.
struct Move {
    message: Option<Message>,
    targets: SmallVec<[QueueHandle; 4]>,
    source: QueueHandle,
    letter: DeadLetter,
    /// It had somewhere to go, be it where it may not go again.
    routed: bool,
}

impl Relay {
    pub(super) fn new(store: Store, spans: Option<Arc<Spans>>) -> Arc<Self> {
        Arc::new(Self {
            store,
            spans,
            inbox: Mutex::default(),
            parked: Mutex::default(),
            working: Mutex::default(),
            bytes: AtomicUsize::new(0),
            wake: Notify::new(),
            room: Notify::new(),
        })
    }

    /// Takes what died in a queue. Called under the queue's lock.
    pub(super) fn push(&self, source: &QueueHandle, dead: Vec<DeadLetter>) {
        let bytes: usize = dead.iter().map(|letter| letter.message.memory_bytes()).sum();
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.inbox.lock().extend(
            dead.into_iter()
                .map(|letter| Inward::Dead(source.clone(), letter)),
        );
        self.wake.notify_one();
    }

    /// Tells when whatever was logged, and every dead letter handed over, before this call has left for good: both are
    /// durable where they are now. One that may not be lost and that nobody takes stays where it was, durably too.
    pub(super) fn tell(&self, done: Done) {
        self.inbox.lock().push_back(Inward::Tell(done));
        self.wake.notify_one();
    }

    /// Whether more should not be added now by those who can help it.
    pub(super) fn is_behind(&self) -> bool {
        self.bytes.load(Ordering::Acquire) > BACKLOG_BYTES
    }

    /// Holds a publisher while dead letters pile up.
    pub(super) async fn wait_for_room(&self) {
        if !self.is_behind() {
            return;
        }
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.bytes.load(Ordering::Acquire) <= BACKLOG_OVER_BYTES {
                return;
            }
            room.await;
        }
    }

    /// The task: moves dead letters until the program ends.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            while self.work_off(STRIDE) {
                tokio::task::yield_now().await;
            }
            if self.parked.lock().is_empty() {
                self.wake.notified().await;
            } else if tokio::time::timeout(RETRY, self.wake.notified()).await.is_err() {
                self.retry_parked();
            }
        }
    }

    /// What nobody took is tried again, unless its queue is gone.
    fn retry_parked(&self) {
        let mut parked = std::mem::take(&mut *self.parked.lock());
        parked.retain(|(source, _)| !source.lock().state.is_deleted());
        let bytes: usize = parked
            .iter()
            .map(|(_, letter)| letter.message.memory_bytes())
            .sum();
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.inbox.lock().extend(
            parked
                .into_iter()
                .map(|(source, letter)| Inward::Dead(source, letter)),
        );
    }

    /// A queue is purged: its dead letters that may not be lost and have not arrived go too. To be called without the
    /// queue's lock.
    pub(super) fn forget(&self, source: &QueueHandle) -> Vec<DeadLetter> {
        // None of them is being moved meanwhile.
        let _working = self.working.lock();
        let mut forgotten = Vec::new();
        let mut bytes = 0;
        {
            let mut inbox = self.inbox.lock();
            for item in std::mem::take(&mut *inbox) {
                match item {
                    Inward::Dead(queue, letter) if queue == *source && letter.route.at_least_once => {
                        bytes += letter.message.memory_bytes();
                        forgotten.push(letter);
                    }
                    other => inbox.push_back(other),
                }
            }
        }
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        let mut parked = self.parked.lock();
        let pending = std::mem::take(&mut *parked);
        for (queue, letter) in pending {
            if queue == *source {
                forgotten.push(letter);
            } else {
                parked.push((queue, letter));
            }
        }
        forgotten
    }

    /// Moves all there is: the broker stops.
    pub(super) fn drain(&self) {
        while self.work_off(STRIDE) {}
    }

    /// Moves at most so many; true when there may be more.
    fn work_off(&self, at_most: usize) -> bool {
        let mut scratch = self.working.lock();
        let items: Vec<Inward> = {
            let mut inbox = self.inbox.lock();
            let len = inbox.len().min(at_most);
            inbox.drain(..len).collect()
        };
        let more = items.len() == at_most;
        let bytes: usize = items.iter().map(Inward::memory_bytes).sum();
        // Runs with the same targets lock them once.
        let mut run: Vec<Move> = Vec::new();
        for item in items {
            match item {
                Inward::Dead(source, letter) => {
                    let moved = address(source, letter, self.spans.as_deref(), &mut scratch);
                    if run.last().is_some_and(|last| last.targets != moved.targets) {
                        self.deliver(std::mem::take(&mut run));
                    }
                    run.push(moved);
                }
                Inward::Tell(done) => {
                    self.deliver(std::mem::take(&mut run));
                    self.store.log(&mut vec![Op::Barrier { done }]);
                }
            }
        }
        self.deliver(run);
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before > BACKLOG_OVER_BYTES && before - bytes <= BACKLOG_OVER_BYTES {
            self.room.notify_waiters();
        }
        more
    }

    /// Puts messages into their queues, the same for all, and takes them from where they died, then lets deliveries go.
    fn deliver(&self, moves: Vec<Move>) {
        let Some(targets) = moves.first().map(|first| first.targets.clone()) else {
            return;
        };
        let mut guards: SmallVec<[QueueGuard<'_>; 4]> = targets.iter().map(|queue| queue.lock()).collect();
        let mut ops = Vec::with_capacity(moves.len());
        let mut safe: Vec<(QueueHandle, u64)> = Vec::new();
        for moved in moves {
            if moved.letter.route.at_least_once {
                let refuses =
                    |message: &Message| guards.iter().any(|guard| guard.state.refuses_meanwhile(message));
                if !moved.routed || moved.message.as_ref().is_some_and(refuses) {
                    self.parked.lock().push((moved.source, moved.letter));
                    continue;
                }
                safe.push((moved.source.clone(), moved.letter.message.body_len()));
            }
            let publish = moved.message.and_then(|message| enqueue(&mut guards, &message));
            let ack = moved
                .letter
                .stored
                .map(|place| gone(&moved.source, &moved.letter, place));
            match (publish, ack) {
                (Some(publish), Some(ack)) => ops.push(Op::Tx {
                    ops: vec![publish, ack],
                    done: None,
                }),
                (one, other) => ops.extend(one.into_iter().chain(other)),
            }
        }
        if !ops.is_empty() {
            self.store.log(&mut ops);
        }
        guards.iter_mut().for_each(QueueGuard::dispatch);
        drop(guards);
        for (source, bytes) in safe {
            source.lock().state.dead_letter_left(bytes);
        }
    }
}

/// What tells the store that a letter left the queue it died or waited in.
fn gone(source: &QueueHandle, letter: &DeadLetter, place: Place) -> Op {
    if letter.due.is_some() {
        return Op::Unschedule {
            queue: source.id(),
            turn: (letter.due, place.seq),
            bytes: letter.message.body_len(),
        };
    }
    Op::Ack {
        queue: source.id(),
        lane: place.lane,
        seqs: smallvec![place.seq],
    }
}

/// What the store must keep of a message that was put into all queues that take it. At most once: a full queue that
/// refuses it lets it go, after its own waiting messages were offered to its consumers.
fn enqueue(guards: &mut SmallVec<[QueueGuard<'_>; 4]>, message: &Message) -> Option<Op> {
    let mut targets: SmallVec<[Target; 1]> = SmallVec::new();
    for guard in guards {
        if guard.state.refuses_meanwhile(message) {
            guard.state.refused(message);
            continue;
        }
        targets.extend(guard.enqueue(message.clone()));
    }
    (!targets.is_empty()).then(|| Op::Publish {
        message: message.clone(),
        targets,
        confirm: None,
    })
}

/// Finds out what a dead letter becomes and where it goes. A missing exchange, no route or a cycle leave no targets: the
/// message is dropped (amqp-behaviour 4.7).
fn address(source: QueueHandle, letter: DeadLetter, spans: Option<&Spans>, scratch: &mut Vec<u8>) -> Move {
    if letter.reason == Reason::Due {
        return release(source, letter, spans);
    }
    let traced = spans.map(|spans| (spans, clock::now_ns()));
    let rewritten = dead_letter::rewrite(
        &letter.message,
        source.name(),
        letter.reason,
        &letter.route,
        clock::now(),
        scratch,
    );
    let mut targets = SmallVec::new();
    let mut routed = false;
    if let Ok(rewritten) = &rewritten
        && let Some(vhost) = source.vhost()
    {
        let exchange = &letter.route.exchange;
        go_from(
            &vhost,
            exchange,
            &rewritten.keys,
            &rewritten.message,
            &mut targets,
        );
        routed = !targets.is_empty();
        targets.retain(|queue| !rewritten.is_cycle(queue.name().as_bytes()));
        if let Some((spans, began)) = traced {
            spans.dead_lettered(&source, &letter, &rewritten.message, began);
        }
    }
    Move {
        message: rewritten.ok().map(|rewritten| rewritten.message),
        targets,
        source,
        letter,
        routed,
    }
}

/// Where a message goes whose delay is over: to the queue that let it wait, or where its exchange routes it now. Without
/// a target it is dropped.
fn release(source: QueueHandle, letter: DeadLetter, spans: Option<&Spans>) -> Move {
    let mut targets = SmallVec::new();
    let mut message = letter.message.clone();
    if let Some(vhost) = source.vhost() {
        match vhost.holder(&source) {
            Some(Holder::Queue(queue)) => targets.push(queue),
            Some(Holder::Exchange(exchange)) => {
                let keys: Vec<Bytes> = letter
                    .message
                    .routing_keys()
                    .into_iter()
                    .map(Bytes::copy_from_slice)
                    .collect();
                message = delay::negated(&message).unwrap_or(message);
                go_from(&vhost, exchange.as_bytes(), &keys, &message, &mut targets);
            }
            None => {}
        }
    }
    if let Some(spans) = spans {
        spans.released(&source, letter.seq, &message);
    }
    Move {
        message: Some(message),
        targets,
        source,
        letter,
        routed: true,
    }
}

/// Adds where a message goes from an exchange, be it to wait.
fn go_from(
    vhost: &Vhost,
    exchange: &[u8],
    keys: &[Bytes],
    message: &Message,
    targets: &mut SmallVec<[QueueHandle; 4]>,
) {
    let delaying =
        vhost.read(|topology| topology.route_from_within(exchange, keys, message, clock::now(), targets));
    if !delaying.is_empty() {
        targets.extend(vhost.exchange_holdings(&delaying));
        // The order of locking.
        targets.sort_unstable();
    }
}
