//! Random operations against the store and against plain maps. After a crash the store must be as the model was after some
//! operation, not before the last one known durable, and every confirmed publish must be among those that count.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use smallvec::SmallVec;

use super::check::check;
use super::{Bench, ack, define, message, undefine};
use crate::broker::{
    confirm::{ConfirmSink, ConfirmToken},
    definition::Definition,
    ids::{QueueId, Seq, Timestamp},
};
use crate::storage::{Op, Target};

const LANES: u8 = 3;

/// One queue: what lies in it, by lane and seq.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Queue {
    messages: BTreeMap<(u8, u64), Arc<Vec<u8>>>,
}

/// What the store should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    queues: BTreeMap<QueueId, Queue>,
}

/// The run: the store, the model after each op since the last that is known durable, and what only the broker knows.
struct Run {
    bench: Bench,
    random: StdRng,
    model: Model,
    /// Model after `ops` operations.
    past: Vec<(u64, Model)>,
    ops: u64,
    names: HashMap<QueueId, String>,
    next_seq: HashMap<QueueId, u64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut run = Self {
            bench: Bench::new(),
            random: StdRng::seed_from_u64(seed),
            model: Model::default(),
            past: Vec::new(),
            ops: 0,
            names: HashMap::new(),
            next_seq: HashMap::new(),
        };
        for number in 0..4 {
            let op = run.declare(format!("q{number}"));
            run.log(vec![op]);
        }
        run
    }

    fn log(&mut self, mut ops: Vec<Op>) {
        self.ops += ops.len() as u64;
        self.bench.store.log(&mut ops);
        self.past.push((self.ops, self.model.clone()));
    }

    fn declare(&mut self, name: String) -> Op {
        let id = self.bench.store.next_queue_id();
        let op = define(&name, id);
        self.model.queues.insert(id, Queue::default());
        self.names.insert(id, name);
        self.next_seq.insert(id, 1);
        op
    }

    fn any_queue(&mut self) -> QueueId {
        *self.model.queues.keys().choose(&mut self.random).unwrap()
    }

    fn body(&mut self) -> Vec<u8> {
        let len = match self.random.random_range(0..40) {
            0 => 1_200_000,
            1 => 70_000,
            2..6 => self.random.random_range(3_000..30_000),
            6..20 => 100,
            _ => self.random.random_range(0..500),
        };
        let mut body = vec![0; len];
        self.random.fill(body.as_mut_slice());
        body
    }

    /// The tag tells at which op the publish was logged.
    fn publish(&mut self, tag: u64) -> Op {
        let count = self.random.random_range(1..=4);
        let ids = self
            .model
            .queues
            .keys()
            .copied()
            .choose_multiple(&mut self.random, count);
        let body = Arc::new(self.body());
        let mut targets: SmallVec<[Target; 1]> = SmallVec::new();
        for queue in ids {
            let lane = if self.random.random_bool(0.8) {
                0
            } else {
                self.random.random_range(0..LANES)
            };
            let next = self.next_seq.get_mut(&queue).unwrap();
            let seq = *next;
            *next += 1;
            targets.push(Target {
                queue,
                lane,
                seq: Seq(seq),
                expires_at: Timestamp::NONE,
            });
            self.model
                .queues
                .get_mut(&queue)
                .unwrap()
                .messages
                .insert((lane, seq), body.clone());
        }
        let sink: Arc<dyn ConfirmSink> = self.bench.told.clone();
        let confirm = self.random.random_bool(0.5).then_some(ConfirmToken { sink, tag });
        Op::Publish {
            message: message(&body),
            targets,
            confirm,
        }
    }

    fn ack(&mut self) -> Op {
        let id = self.any_queue();
        let count = self.random.random_range(1..30);
        let in_order = self.random.random_bool(0.5);
        let queue = self.model.queues.get_mut(&id).unwrap();
        let lane = self.random.random_range(0..LANES);
        let here = queue.messages.keys().filter(|key| key.0 == lane).map(|key| key.1);
        let mut seqs: Vec<u64> = if in_order {
            here.take(count).collect()
        } else {
            here.choose_multiple(&mut self.random, count)
        };
        for seq in &seqs {
            queue.messages.remove(&(lane, *seq));
        }
        // Some that are not there, or not there any more.
        seqs.push(self.random.random_range(0..200));
        queue.messages.remove(&(lane, seqs[seqs.len() - 1]));
        ack(id, lane, &seqs)
    }

    fn purge(&mut self) -> Op {
        let id = self.any_queue();
        let lane = self.random.random_range(0..LANES);
        let next = self.next_seq[&id];
        let (from, until) = if self.random.random_bool(0.3) {
            (0, next)
        } else {
            let from = self.random.random_range(0..next);
            (from, self.random.random_range(from..=next))
        };
        let queue = self.model.queues.get_mut(&id).unwrap();
        let inside = |key: &(u8, u64)| key.0 == lane && (from..until).contains(&key.1);
        let gone: Vec<_> = queue.messages.keys().copied().filter(inside).collect();
        let bodies = gone.iter().filter_map(|key| queue.messages.remove(key));
        let bytes = bodies.map(|body| body.len() as u64).sum();
        Op::Purge {
            queue: id,
            ranges: smallvec::smallvec![(lane, Seq(from), Seq(until))],
            count: gone.len() as u64,
            bytes,
        }
    }

    fn step(&mut self) {
        let tag = self.ops + 1;
        match self.random.random_range(0..100) {
            0..50 => {
                let op = self.publish(tag);
                self.log(vec![op]);
            }
            50..75 => {
                let op = self.ack();
                self.log(vec![op]);
            }
            75..80 => {
                let op = self.purge();
                self.log(vec![op]);
            }
            80..84 => {
                let id = self.any_queue();
                self.model.queues.remove(&id);
                let name = self.names.remove(&id).unwrap();
                self.log(vec![undefine(&name, id)]);
                let op = self.declare(name);
                self.log(vec![op]);
            }
            84..90 => {
                let ops = (0..5).map(|_| {
                    if self.random.random_bool(0.6) {
                        self.publish(tag)
                    } else {
                        self.ack()
                    }
                });
                let ops = ops.collect();
                self.log(vec![Op::Tx { ops, done: None }]);
            }
            90..95 => self.durable(),
            95..97 => {
                let id = self.any_queue();
                self.compare(id);
            }
            97 => self.reopen(),
            _ => self.crash(),
        }
    }

    fn durable(&mut self) {
        self.bench.sync();
        self.past.clear();
        self.past.push((self.ops, self.model.clone()));
    }

    fn compare(&self, id: QueueId) {
        assert_eq!(self.stored(id), self.model.queues[&id], "{id:?}");
    }

    fn stored(&self, id: QueueId) -> Queue {
        let mut queue = Queue::default();
        for lane in 0..LANES {
            for (seq, body) in self.bench.read(id, lane, 0, u64::MAX, 20_000) {
                queue.messages.insert((lane, seq), Arc::new(body));
            }
        }
        queue
    }

    fn reopen(&mut self) {
        self.durable();
        self.swap(Bench::reopen);
        assert_eq!(self.everything(), self.model);
    }

    fn crash(&mut self) {
        // Confirms are told after the write, so those known now must be in what is found.
        let confirmed = self.bench.told.confirmed();
        self.swap(Bench::crash);
        let found = self.everything();
        let Some((ops, model)) = self.past.iter().rev().find(|(_, model)| *model == found).cloned() else {
            panic!("after a crash the store holds what it never held before: {found:?}");
        };
        let highest = confirmed.iter().max().copied().unwrap_or(0);
        assert!(
            ops >= highest,
            "publish {highest} was confirmed, but only {ops} ops are there"
        );
        self.ops = ops;
        self.model = model;
        self.names.retain(|id, _| self.model.queues.contains_key(id));
        self.past.clear();
        self.past.push((self.ops, self.model.clone()));
        if self.model.queues.is_empty() {
            let op = self.declare("again".to_owned());
            self.log(vec![op]);
        }
    }

    fn swap(&mut self, how: impl FnOnce(Bench) -> Bench) {
        let placeholder = Bench::new();
        let bench = std::mem::replace(&mut self.bench, placeholder);
        self.bench = how(bench);
        for row in &self.bench.recovered.queues {
            self.next_seq.insert(row.id, row.next_seq.0);
        }
    }

    /// What the store holds after a start; its rows must count the same.
    fn everything(&self) -> Model {
        let mut model = Model::default();
        let recovered = &self.bench.recovered;
        let mut defined: Vec<_> = recovered
            .definitions
            .iter()
            .map(|definition| match definition {
                Definition::Queue(queue) => queue.id,
                other => panic!("never defined: {other:?}"),
            })
            .collect();
        defined.sort();
        let rows: Vec<_> = recovered.queues.iter().map(|row| row.id).collect();
        assert_eq!(defined, rows);
        for row in &recovered.queues {
            let queue = self.stored(row.id);
            let bytes: usize = queue.messages.values().map(|body| body.len()).sum();
            assert_eq!(
                (row.messages, row.bytes),
                (queue.messages.len() as u64, bytes as u64)
            );
            if let Some(lowest) = queue.messages.keys().map(|key| key.1).min() {
                assert!(row.low.0 <= lowest);
            }
            model.queues.insert(row.id, queue);
        }
        model
    }
}

#[test]
fn the_store_does_what_plain_maps_do() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=12).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        println!("SEED={seed}");
        let mut run = Run::new(seed);
        for _ in 0..250 {
            run.step();
        }
        run.reopen();
        run.bench.store.close();
        check(run.bench.dir.path());
    }
}
