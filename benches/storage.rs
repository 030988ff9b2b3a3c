//! The store alone: from the op log to the released confirm, no sockets. Beside each row the limit of the disk itself,
//! measured in the same run: the same bytes appended to one file, with one fdatasync per group.
//!
//! `cargo bench --bench storage -- [--seconds 3] [--rounds 3] [--dir DIR]`. The directory must be on the disk to be measured.

#![expect(clippy::print_stdout, reason = "a benchmark's table is its output")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "figures for people, and indices of our own making"
)]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use leveret::broker::{
    confirm::{ConfirmSink, ConfirmToken},
    definition::{Definition, QueueDefinition},
    ids::{QueueId, Seq, Timestamp},
    message::{Message, MessageParts},
};
use leveret::protocol::field::FieldTable;
use leveret::storage::{Loaded, Op, Store, StoreError, StoreEvents, StoreOptions, Target};
use parking_lot::{Condvar, Mutex};
use smallvec::smallvec;

#[derive(Parser)]
struct Arguments {
    /// Seconds per measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Where the stores and the raw files go; a temporary directory below the target directory otherwise.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Store and raw file take turns so many times.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only rows whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Cargo passes it to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One row of the table.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    body_bytes: usize,
    producers: usize,
    /// Publishes a producer may have unconfirmed.
    window: usize,
    queues: usize,
    /// Whether a message is acked as soon as it is confirmed.
    acks: bool,
}

const LOADS: [Load; 7] = [
    Load {
        name: "1 KiB, window 1000, 4 producers",
        body_bytes: 1024,
        producers: 4,
        window: 1000,
        queues: 1,
        acks: false,
    },
    Load {
        name: "100 B, window 1000, 4 producers",
        body_bytes: 100,
        producers: 4,
        window: 1000,
        queues: 1,
        acks: false,
    },
    Load {
        name: "100 B, 100 queues, acks",
        body_bytes: 100,
        producers: 4,
        window: 1000,
        queues: 100,
        acks: true,
    },
    Load {
        name: "1 KiB, window 50, 4 producers",
        body_bytes: 1024,
        producers: 4,
        window: 50,
        queues: 1,
        acks: true,
    },
    Load {
        name: "1 KiB, window 1, 1 producer",
        body_bytes: 1024,
        producers: 1,
        window: 1,
        queues: 1,
        acks: false,
    },
    Load {
        name: "1 KiB, window 1, 100 producers",
        body_bytes: 1024,
        producers: 100,
        window: 1,
        queues: 1,
        acks: false,
    },
    Load {
        name: "10 KiB, window 200, 4 producers",
        body_bytes: 10_240,
        producers: 4,
        window: 200,
        queues: 1,
        acks: true,
    },
];

/// Threads that drive the producers; as a broker's few workers drive many connections.
const DRIVERS: usize = 2;
/// Publishes logged at once, as from one socket read.
const PER_READ: usize = 64;

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let time = Duration::from_secs_f64(arguments.seconds);
    let parent = arguments
        .dir
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    fs::create_dir_all(&parent)?;
    println!(
        "{:<32} {:>9} {:>7} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>6}",
        "load",
        "msg/s",
        "CPU us",
        "p50 ms",
        "p99 ms",
        "groups/s",
        "msg/grp",
        "raw msg/s",
        "raw sync/s",
        "ratio"
    );
    for load in LOADS.iter().filter(|load| load.name.contains(&arguments.only)) {
        // Interleaved, because a disk has moods; the round with the median ratio is shown.
        let mut rounds = Vec::new();
        for _ in 0..arguments.rounds.max(1) {
            let dir = tempfile::tempdir_in(&parent)?;
            let mut found = run(load, time, &dir.path().join("store"));
            drop(dir);
            let dir = tempfile::tempdir_in(&parent)?;
            found.raw_syncs = raw_syncs_per_second(&dir.path().join("raw"), found.group_bytes(), time)?;
            found.plain = plain_rate(load, time, &dir.path().join("plain"))?;
            rounds.push(found);
        }
        rounds.sort_by(|left, right| left.ratio().total_cmp(&right.ratio()));
        print(load, &rounds[rounds.len() / 2]);
    }
    Ok(())
}

fn print(load: &Load, found: &Found) {
    println!(
        "{:<32} {:>9.0} {:>7.2} {:>8.2} {:>8.2} {:>8.0} {:>8.1} {:>9.0} {:>10.0} {:>6.2}",
        load.name,
        found.rate(),
        found.cpu.as_secs_f64() * 1e6 / found.messages,
        found.latency.value_at_quantile(0.5) as f64 / 1e3,
        found.latency.value_at_quantile(0.99) as f64 / 1e3,
        found.syncs / found.took.as_secs_f64(),
        found.messages_per_group(),
        found.raw_syncs * found.messages_per_group(),
        found.raw_syncs,
        found.ratio(),
    );
    let all = (load.producers * load.window) as f64;
    println!(
        "{:<32} build {:.0} us, write {:.0} us, release {:.0} us per group; against {all} x raw sync/s: {:.2}; plain file {:.0} msg/s",
        "",
        found.build.as_secs_f64() * 1e6 / found.groups,
        found.write.as_secs_f64() * 1e6 / found.groups,
        found.release.as_secs_f64() * 1e6 / found.groups,
        found.rate() / (found.raw_syncs * all),
        found.plain,
    );
}

/// What one run amounted to.
struct Found {
    messages: f64,
    syncs: f64,
    groups: f64,
    payload: f64,
    took: Duration,
    cpu: Duration,
    build: Duration,
    write: Duration,
    release: Duration,
    latency: Histogram<u64>,
    /// Synced appends of a group's bytes to a file, per second.
    raw_syncs: f64,
    /// Messages per second of the same producers with a file in the store's place.
    plain: f64,
}

impl Found {
    fn ratio(&self) -> f64 {
        self.rate() / (self.raw_syncs * self.messages_per_group())
    }

    fn rate(&self) -> f64 {
        self.messages / self.took.as_secs_f64()
    }

    fn messages_per_group(&self) -> f64 {
        self.messages / self.syncs
    }

    fn group_bytes(&self) -> usize {
        (self.payload / self.syncs) as usize
    }
}

/// The broker's queues, as far as the store needs them: the seq and the log call under one lock.
struct Queues {
    log: Log,
    next_seq: Vec<Mutex<u64>>,
}

struct Nobody;

impl StoreEvents for Nobody {
    fn committed(&self, _queues: &[(QueueId, Seq)]) {}
    fn loaded(&self, _queue: QueueId, _loaded: Loaded) {}
    fn read_failed(&self, _queue: QueueId, error: StoreError) {
        panic!("{error}");
    }
    fn failed(&self, error: StoreError) {
        panic!("{error}");
    }
    fn full(&self, full: bool) {
        assert!(!full, "the disk is full");
    }
}

/// One publisher's confirms; wakes its driver.
struct Producer {
    confirmed: AtomicU64,
    driver: Arc<Driver>,
}

#[derive(Default)]
struct Driver {
    has_news: Mutex<bool>,
    wake: Condvar,
}

impl ConfirmSink for Producer {
    fn stored(&self, tags: &[u64]) {
        self.confirmed.fetch_add(tags.len() as u64, Ordering::Relaxed);
    }

    fn wake(&self) {
        let mut has_news = self.driver.has_news.lock();
        if !*has_news {
            *has_news = true;
            self.driver.wake.notify_one();
        }
    }
}

fn run(load: &Load, time: Duration, dir: &Path) -> Found {
    let (store, _) = Store::open(StoreOptions::new(dir)).expect("a fresh directory");
    store.start(Arc::new(Nobody)).expect("threads");
    let mut ops = (1..=load.queues as u64).map(define).collect();
    store.log(&mut ops);
    let queues = Queues {
        log: Log::Store(store.clone()),
        next_seq: (0..load.queues).map(|_| Mutex::new(1)).collect(),
    };
    let before = store.stats();
    let (cpu, start) = (cpu_time(), Instant::now());
    let latency = drive_for(load, time, &queues);
    let (took, cpu) = (start.elapsed(), cpu_time().saturating_sub(cpu));
    let after = store.stats();
    store.close();
    let messages = (after.confirms - before.confirms) as f64;
    Found {
        messages,
        syncs: (after.syncs - before.syncs) as f64,
        groups: (after.groups - before.groups) as f64,
        payload: messages * (load.body_bytes + 24) as f64,
        took,
        cpu,
        build: after.build_time,
        write: after.write_time,
        release: after.release_time,
        latency,
        raw_syncs: 0.0,
        plain: 0.0,
    }
}

/// All producers, for this long. Gives their latencies.
fn drive_for(load: &Load, time: Duration, queues: &Queues) -> Histogram<u64> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let drivers: Vec<_> = (0..DRIVERS)
            .map(|number| {
                let producers = (load.producers + number) / DRIVERS;
                let stop = &stop;
                scope.spawn(move || drive(load, producers, number, queues, stop))
            })
            .collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let mut all = Histogram::new(3).expect("a histogram");
        for driver in drivers {
            all.add(driver.join().expect("a driver"))
                .expect("histograms alike");
        }
        all
    })
}

/// One thread with its share of the producers, until stopped and all is confirmed.
fn drive(load: &Load, producers: usize, number: usize, queues: &Queues, stop: &AtomicBool) -> Histogram<u64> {
    let driver = Arc::new(Driver::default());
    let mut lines: Vec<_> = (0..producers).map(|_| Line::new(&driver)).collect();
    let mut latency = Histogram::new(3).expect("a histogram");
    let body = vec![b'x'; load.body_bytes];
    let mut turn = number;
    if lines.is_empty() {
        return latency;
    }
    let (mut ops, mut scratch) = (Vec::new(), Vec::new());
    loop {
        let mut idle = true;
        let stopping = stop.load(Ordering::Relaxed);
        for line in &mut lines {
            line.collect(&mut latency, load.acks, queues);
            let room = load.window - line.open.len();
            if room == 0 || stopping {
                continue;
            }
            idle = false;
            turn += DRIVERS;
            line.publish(
                room.min(PER_READ),
                turn % load.queues,
                &body,
                queues,
                &mut ops,
                &mut scratch,
            );
        }
        if stopping && lines.iter().all(|line| line.open.is_empty()) {
            return latency;
        }
        if idle {
            let mut has_news = driver.has_news.lock();
            while !*has_news {
                driver.wake.wait(&mut has_news);
            }
            *has_news = false;
        }
    }
}

/// One producer as its driver sees it.
struct Line {
    sink: Arc<Producer>,
    tag: u64,
    confirmed: u64,
    /// Sent and not confirmed: when, queue, seq.
    open: VecDeque<(Instant, usize, u64)>,
    acks: Vec<Op>,
}

impl Line {
    fn new(driver: &Arc<Driver>) -> Self {
        let sink = Arc::new(Producer {
            confirmed: AtomicU64::new(0),
            driver: driver.clone(),
        });
        Self {
            sink,
            tag: 0,
            confirmed: 0,
            open: VecDeque::new(),
            acks: Vec::new(),
        }
    }

    /// Takes in what was confirmed since.
    fn collect(&mut self, latency: &mut Histogram<u64>, ack: bool, queues: &Queues) {
        let confirmed = self.sink.confirmed.load(Ordering::Relaxed);
        if confirmed == self.confirmed {
            return;
        }
        let now = Instant::now();
        for (sent, queue, seq) in self.open.drain(..(confirmed - self.confirmed) as usize) {
            latency
                .record((now - sent).as_micros() as u64)
                .expect("a histogram that grows");
            if ack {
                let id = QueueId(queue as u64 + 1);
                self.acks.push(Op::Ack {
                    queue: id,
                    lane: 0,
                    seqs: smallvec![Seq(seq)],
                });
            }
        }
        self.confirmed = confirmed;
        queues.log.log(&mut self.acks);
    }

    fn publish(
        &mut self,
        count: usize,
        queue: usize,
        body: &[u8],
        queues: &Queues,
        ops: &mut Vec<Op>,
        scratch: &mut Vec<u8>,
    ) {
        let parts = MessageParts {
            exchange: b"",
            routing_key: b"bench",
            properties: b"\x10\x00\x02",
            persistent: true,
            priority: 0,
        };
        for _ in 0..count {
            self.tag += 1;
            let sink: Arc<dyn ConfirmSink> = self.sink.clone();
            ops.push(Op::Publish {
                message: Message::new(&parts, body, scratch),
                targets: smallvec![Target {
                    queue: QueueId(queue as u64 + 1),
                    lane: 0,
                    seq: Seq(0),
                    expires_at: Timestamp::NONE,
                }],
                confirm: Some(ConfirmToken { sink, tag: self.tag }),
            });
        }
        let now = Instant::now();
        let mut next_seq = queues.next_seq[queue].lock();
        for op in ops.iter_mut() {
            if let Op::Publish { targets, .. } = op {
                targets[0].seq = Seq(*next_seq);
                self.open.push_back((now, queue, *next_seq));
                *next_seq += 1;
            }
        }
        queues.log.log(ops);
    }
}

fn define(id: u64) -> Op {
    let definition = Definition::Queue(QueueDefinition {
        vhost: "/".into(),
        name: format!("q{id}").into(),
        id: QueueId(id),
        durable: true,
        auto_delete: false,
        arguments: FieldTable::default(),
    });
    Op::Define {
        definition,
        done: None,
    }
}

/// Appends blocks of this size to one file, each with its fdatasync.
fn raw_syncs_per_second(path: &Path, block_bytes: usize, time: Duration) -> io::Result<f64> {
    let mut file = File::create(path)?;
    let block = vec![b'x'; block_bytes];
    let start = Instant::now();
    let mut syncs = 0;
    while start.elapsed() < time {
        file.write_all(&block)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(f64::from(syncs) / start.elapsed().as_secs_f64())
}

/// Where the producers' operations go.
enum Log {
    Store(Store),
    /// What any store has to pay: the threads, and a sync per group.
    Plain(Arc<Plain>),
}

impl Log {
    fn log(&self, ops: &mut Vec<Op>) {
        match self {
            Self::Store(store) => store.log(ops),
            Self::Plain(plain) => plain.log(ops),
        }
    }
}

#[derive(Default)]
struct Plain {
    state: Mutex<PlainState>,
    wake: Condvar,
}

#[derive(Default)]
struct PlainState {
    ops: Vec<Op>,
    /// So many are worth waking the committer.
    enough: usize,
    ended: bool,
}

impl Plain {
    fn log(&self, ops: &mut Vec<Op>) {
        let mut state = self.state.lock();
        let before = state.ops.len();
        state.ops.append(ops);
        if before < state.enough && state.ops.len() >= state.enough {
            self.wake.notify_one();
        }
    }

    /// Appends the bodies of what was logged, syncs, and tells the producers: as many as were told before are waited for,
    /// but not longer than the store waits.
    fn commit(&self, mut file: File) -> io::Result<u64> {
        let (mut ops, mut bytes, mut messages) = (Vec::new(), Vec::new(), 0);
        loop {
            let until = Instant::now() + Duration::from_micros(125);
            let mut state = self.state.lock();
            state.enough = ops.len().max(1);
            ops.clear();
            while !state.ended && state.ops.len() < state.enough {
                if self.wake.wait_until(&mut state, until).timed_out() {
                    state.enough = 1;
                    if state.ops.is_empty() && !state.ended {
                        self.wake.wait(&mut state);
                    }
                }
            }
            if state.ended && state.ops.is_empty() {
                return Ok(messages);
            }
            std::mem::swap(&mut state.ops, &mut ops);
            drop(state);
            bytes.clear();
            let tokens: Vec<_> = ops
                .iter()
                .filter_map(|op| match op {
                    Op::Publish { message, confirm, .. } => {
                        bytes.extend_from_slice(message.record());
                        confirm.as_ref()
                    }
                    _ => None,
                })
                .collect();
            file.write_all(&bytes)?;
            file.sync_data()?;
            messages += tokens.len() as u64;
            tokens.iter().for_each(|token| token.sink.stored(&[token.tag]));
            tokens.iter().for_each(|token| token.sink.wake());
        }
    }
}

/// Messages per second of the load with [`Plain`] in the store's place.
fn plain_rate(load: &Load, time: Duration, path: &Path) -> io::Result<f64> {
    let plain = Arc::new(Plain::default());
    let queues = Queues {
        log: Log::Plain(Arc::clone(&plain)),
        next_seq: (0..load.queues).map(|_| Mutex::new(1)).collect(),
    };
    let file = File::create(path)?;
    thread::scope(|scope| {
        let committer = scope.spawn(|| plain.commit(file));
        let start = Instant::now();
        drive_for(load, time, &queues);
        plain.state.lock().ended = true;
        plain.wake.notify_one();
        let messages = committer.join().expect("the committer")?;
        Ok(messages as f64 / start.elapsed().as_secs_f64())
    })
}

/// CPU time of all threads of this process, the drivers included.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}
