//! Random commands against a plain map of messages. After every step: the counts agree, every delivery was the oldest
//! ready message, nobody holds more than allowed, and nothing waits that could go.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IteratorRandom};

use super::bench::{Bench, LIMIT, Probe, message, turn};
use crate::broker::{
    ids::{Seq, Timestamp},
    queue::{ConsumerId, ConsumerOptions, Entry, Removed, Return},
};

const STEPS: usize = 400;
const RUNS: u64 = 300;

struct Drinker {
    options: ConsumerOptions,
    probe: Arc<Probe>,
    cancelled: bool,
}

/// What must be true of the queue.
struct Model {
    bench: Bench,
    random: StdRng,
    /// Priority levels are 0 to this one.
    max_priority: u8,
    /// Only one consumer is served at a time: this one.
    single: bool,
    active: Option<ConsumerId>,
    /// Whether a message was handed out before, by level and place.
    ready: BTreeMap<(Reverse<u8>, Seq), bool>,
    held: Vec<(Option<ConsumerId>, Entry)>,
    consumers: BTreeMap<ConsumerId, Drinker>,
    published: u64,
    gone: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bench = Bench::new(random.random_bool(0.6));
        let max_priority = [0, 0, 1, 3, 255].into_iter().choose(&mut random).unwrap_or(0);
        bench.queue.set_max_priority(max_priority);
        let single = random.random_bool(0.2);
        if single {
            bench.queue.set_single_active(false);
        }
        Self {
            bench,
            random,
            max_priority,
            single,
            active: None,
            ready: BTreeMap::new(),
            held: Vec::new(),
            consumers: BTreeMap::new(),
            published: 0,
            gone: 0,
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..35 => self.publish(),
            35..43 => self.consume(),
            43..46 => self.cancel(),
            46..62 => self.settle(false),
            62..70 => self.settle(true),
            70..76 => self.get(),
            76..85 => self.commit(),
            85..93 => self.answer(),
            93..94 => {
                self.bench.disk.fail();
                self.bench.queue.read_failed();
                self.dispatch();
            }
            94..97 => self.give_room(),
            97 => {
                let limit = [LIMIT / 64, LIMIT / 2, LIMIT]
                    .into_iter()
                    .choose(&mut self.random);
                self.bench.queue.set_resident_limit(limit.unwrap_or(LIMIT));
                self.dispatch();
            }
            98 => self.purge(),
            _ => self.dispatch(),
        }
        self.invariants();
    }

    fn publish(&mut self) {
        for _ in 0..self.random.random_range(1..6) {
            let (persistent, large) = (self.random.random_bool(0.7), self.random.random_bool(0.5));
            let priority = self.random.random_range(0..6);
            let message = message(&format!("{}:{priority}", self.published), persistent, large);
            let stored = self.bench.queue.stores(&message);
            let place = self
                .bench
                .queue
                .enqueue(message.clone(), Timestamp::NONE)
                .unwrap();
            self.published += 1;
            assert_eq!(place.lane, priority.min(self.max_priority));
            assert_eq!(place.seq, Seq(self.published), "places ascend");
            self.ready.insert((Reverse(place.lane), place.seq), false);
            if stored {
                let place = (place.lane, place.seq);
                self.bench.disk.messages.insert(place, message);
            }
        }
        self.dispatch();
    }

    fn consume(&mut self) {
        let live = self
            .consumers
            .values()
            .filter(|consumer| !consumer.cancelled)
            .count();
        let options = ConsumerOptions {
            no_ack: self.random.random_bool(0.2),
            prefetch: self.random.random_range(0..6),
            exclusive: live == 0 && self.random.random_bool(0.1),
            priority: self.random.random_range(-1..2),
        };
        let probe = self.bench.probe();
        let exclusive = self
            .consumers
            .values()
            .any(|consumer| !consumer.cancelled && consumer.options.exclusive);
        match self.bench.queue.consume(options, Arc::clone(&probe)) {
            Some(id) => {
                assert!(!exclusive, "an exclusive consumer was there");
                self.active.get_or_insert(id);
                self.consumers.insert(
                    id,
                    Drinker {
                        options,
                        probe,
                        cancelled: false,
                    },
                );
            }
            None => assert!(
                exclusive || (self.single && options.exclusive),
                "refused without a reason"
            ),
        }
        self.dispatch();
    }

    fn cancel(&mut self) {
        let live = self
            .consumers
            .iter_mut()
            .filter(|(_, consumer)| !consumer.cancelled);
        let Some((&id, consumer)) = live.choose(&mut self.random) else {
            return;
        };
        consumer.cancelled = true;
        let last = self.consumers.values().all(|consumer| consumer.cancelled);
        assert_eq!(self.bench.queue.cancel(id), last, "the last consumer says so");
        if self.active == Some(id) {
            let live = self.consumers.iter().filter(|(_, consumer)| !consumer.cancelled);
            self.active = live
                .max_by_key(|(id, consumer)| (consumer.options.priority, Reverse(**id)))
                .map(|(id, _)| *id);
        }
        self.dispatch();
    }

    fn settle(&mut self, requeue: bool) {
        let mut removed = Removed::new();
        for _ in 0..self.random.random_range(1..5) {
            if self.held.is_empty() {
                break;
            }
            let at = self.random.random_range(0..self.held.len());
            let (consumer, entry) = self.held.swap_remove(at);
            if requeue {
                self.ready.insert(turn(&entry), true);
                let why = Return::Postponed;
                let queue = &mut self.bench.queue;
                let returned = queue.requeue(consumer, entry, why, Timestamp::NONE, &mut removed);
                assert_eq!(returned, None, "a queue that counts nothing has nothing stored");
            } else {
                self.gone += 1;
                if self
                    .bench
                    .queue
                    .ack(consumer, entry.stored, entry.message.body_len())
                {
                    removed.push(entry.place());
                }
            }
        }
        self.bench.disk.erase(removed);
        self.dispatch();
    }

    fn get(&mut self) {
        let (no_ack, mut removed) = (self.random.random_bool(0.3), Removed::new());
        let got = self.bench.queue.get(no_ack, &mut removed);
        let erased = self.bench.disk.erase(removed);
        match got {
            Ok(Some(delivery)) => {
                self.delivered(None, delivery.entry, no_ack, &erased);
                assert_eq!(delivery.remaining, self.ready.len() as u64);
            }
            Ok(None) => assert!(
                self.ready.is_empty(),
                "told to be empty, but has {}",
                self.ready.len()
            ),
            Err(read) => self.bench.disk.ask(read),
        }
    }

    fn commit(&mut self) {
        if self.random.random_bool(0.5) {
            self.bench.settle_spilled();
        }
        let last = self.bench.disk.messages.keys().choose(&mut self.random);
        if let Some(&(_, through)) = last {
            self.bench.queue.committed(through);
        }
    }

    fn answer(&mut self) {
        let at_most = self.random.random_range(1..8);
        if let Some(paged) = self.bench.disk.answer(at_most) {
            self.bench.queue.paged_in(paged);
            self.dispatch();
        }
    }

    fn give_room(&mut self) {
        let bytes = if self.random.random_bool(0.5) {
            usize::MAX
        } else {
            self.random.random_range(0..2_000_000)
        };
        if let Some(consumer) = self.consumers.values().choose(&mut self.random) {
            consumer.probe.room.store(bytes, Ordering::Relaxed);
        }
        self.consumers
            .values()
            .for_each(|consumer| consumer.probe.stalled.store(false, Ordering::Relaxed));
        for id in self.consumers.keys() {
            self.bench.queue.resume(*id);
        }
        self.dispatch();
    }

    fn purge(&mut self) {
        let mut purged = self.bench.queue.purge();
        assert_eq!(purged.messages, self.ready.len() as u64);
        self.bench.disk.erase(std::mem::take(&mut purged.removed));
        self.bench.disk.erase_ranges(&purged);
        self.gone += purged.messages;
        self.ready.clear();
        let held = self.held.iter().filter(|(_, entry)| entry.stored).count();
        assert_eq!(
            self.bench.disk.messages.len(),
            held,
            "only what is handed out is left on disk"
        );
    }

    fn dispatch(&mut self) {
        let mut removed = Removed::new();
        let read = self.bench.queue.dispatch(Timestamp::NONE, &mut removed);
        self.bench.note_paging();
        let mut delivered = std::mem::take(&mut self.bench.wire.lock().delivered);
        delivered.sort_by_key(|(_, entry)| turn(entry));
        let erased = self.bench.disk.erase(removed);
        for (id, entry) in delivered {
            let consumer = &self.consumers[&id];
            assert!(!consumer.cancelled, "{id:?} was cancelled");
            assert!(
                !self.single || self.active == Some(id),
                "{id:?} is not the active one"
            );
            self.delivered(Some(id), entry, consumer.options.no_ack, &erased);
        }
        if let Some(read) = read {
            self.bench.disk.ask(read);
        }
    }

    fn delivered(&mut self, consumer: Option<ConsumerId>, entry: Entry, no_ack: bool, erased: &[(u8, Seq)]) {
        let oldest = self.ready.pop_first();
        assert_eq!(
            oldest,
            Some((turn(&entry), entry.redelivered)),
            "the oldest of the highest level goes first, marked if it was out before"
        );
        assert_eq!(
            no_ack && entry.stored,
            erased.contains(&(entry.lane, entry.seq)),
            "erased exactly when nobody will ack it"
        );
        if no_ack {
            self.gone += 1;
        } else {
            self.held.push((consumer, entry));
        }
    }

    fn invariants(&self) {
        let queue = &self.bench.queue;
        assert_eq!(queue.ready_count(), self.ready.len() as u64, "ready");
        assert_eq!(queue.unacked_count(), self.held.len() as u64, "unacked");
        assert_eq!(
            self.published,
            queue.ready_count() + queue.unacked_count() + self.gone,
            "none lost, none twice"
        );
        let mut able = false;
        for (id, consumer) in &self.consumers {
            let held = self
                .held
                .iter()
                .filter(|(holder, _)| holder == &Some(*id))
                .count();
            let prefetch = usize::from(consumer.options.prefetch);
            let limited = prefetch > 0 && !consumer.options.no_ack;
            assert!(!limited || held <= prefetch, "{id:?} holds {held} of {prefetch}");
            let room = consumer.probe.room.load(Ordering::Relaxed) > 0;
            able |= !consumer.cancelled
                && (!self.single || self.active == Some(*id))
                && room
                && (!limited || held < prefetch)
                && !consumer.probe.stalled.load(Ordering::Relaxed);
        }
        let reading = self.bench.disk.is_reading();
        assert!(
            !able || self.ready.is_empty() || reading,
            "{} messages wait for nothing",
            self.ready.len()
        );
    }
}

#[test]
fn random_commands_agree_with_a_plain_map() {
    let given: Option<u64> = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(1..=RUNS, |seed| seed..=seed);
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut model = Model::new(seed);
            (0..STEPS).for_each(|_| model.step());
        });
        if let Err(panic) = run {
            println!("SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
