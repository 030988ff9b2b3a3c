//! Messages that wait for their time, against a plain sorted map and a clock that is turned by hand.

use std::{collections::BTreeMap, sync::Arc};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::bench::{Probe, message};
use crate::broker::{
    ids::{QueueId, Seq, Timestamp},
    message::Message,
    queue::{
        QueueState, Recovered, ScheduleLoaded, ScheduleRead, Turn,
        settings::{Holds, QueueSettings},
    },
};

/// A holding queue, the store's side of it, and what should be there.
struct World {
    queue: QueueState<Arc<Probe>>,
    /// What the store holds, once its log is written.
    disk: BTreeMap<Turn, Message>,
    read: Option<ScheduleRead>,
    now: Timestamp,
    waiting: BTreeMap<Turn, bool>,
    random: StdRng,
}

fn holding(mut queue: QueueState<Arc<Probe>>, now: Timestamp) -> QueueState<Arc<Probe>> {
    queue.apply_settings(QueueSettings::holding(Holds::ForQueue), now);
    queue
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Timestamp(1_000_000);
        Self {
            queue: holding(QueueState::new(QueueId(7), true), now),
            disk: BTreeMap::new(),
            read: None,
            now,
            waiting: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn schedule(&mut self) {
        let delay = match self.random.random_range(0..4) {
            0 => 0,
            1 => self.random.random_range(1..100),
            2 => self.random.random_range(1..5_000),
            _ => self.random.random_range(1..1_000_000),
        };
        let stored = self.random.random_bool(0.9);
        let large = self.random.random_bool(0.3);
        let message = message("m", stored, large);
        let due = self.now.after(delay);
        let place = self.queue.schedule(message.clone(), due).unwrap();
        if stored {
            self.disk.insert((due, place.seq), message);
        }
        self.waiting.insert((due, place.seq), stored);
    }

    fn let_go(&mut self, at_most: usize) {
        if let Some(read) = self.queue.let_go(self.now, at_most) {
            assert!(self.read.is_none(), "one read at a time");
            self.read = Some(read);
        }
        for letter in self.queue.take_dead_letters().unwrap_or_default() {
            let first = self
                .waiting
                .first_key_value()
                .map(|(turn, stored)| (*turn, *stored));
            let (turn, stored) = first.unwrap();
            assert!(turn.0 <= self.now, "too early");
            assert_eq!(letter.due, turn.0, "in the order of their times");
            assert_eq!(letter.stored.map(|place| place.seq), stored.then_some(turn.1));
            self.waiting.remove(&turn);
            self.disk.remove(&turn);
        }
    }

    fn answer(&mut self, at_most: usize) {
        let Some(read) = self.read.take() else { return };
        let mut range = self.disk.range(read.from..);
        let mut entries = Vec::new();
        let mut next = None;
        for (turn, message) in range.by_ref() {
            if turn.0 >= read.until || entries.len() >= at_most {
                next = Some(*turn);
                break;
            }
            entries.push((*turn, message.clone()));
        }
        self.queue.schedule_loaded(ScheduleLoaded {
            from: read.from,
            until: read.until,
            entries,
            next,
        });
    }

    fn cancel(&mut self) {
        let count = self.waiting.len();
        if count == 0 {
            return;
        }
        let at = self.random.random_range(0..count);
        let (turn, stored) = self
            .waiting
            .iter()
            .nth(at)
            .map(|(turn, stored)| (*turn, *stored))
            .unwrap();
        let on_disk = self.disk.get(&turn).cloned();
        let (_, was_stored) = self.queue.unschedule(turn, on_disk.clone()).unwrap();
        assert_eq!(was_stored, stored);
        if self.read.is_some() {
            assert!(self.queue.unschedule(turn, on_disk).is_none(), "only once");
        }
        self.waiting.remove(&turn);
        self.disk.remove(&turn);
    }

    fn restart(&mut self) {
        let next_seq = self.queue.next_seq;
        self.waiting.retain(|_, stored| *stored);
        let bytes = self.disk.values().map(Message::body_len).sum();
        let row = Recovered {
            next_seq,
            scheduled: (self.disk.len() as u64, bytes),
            ..Recovered::EMPTY
        };
        self.queue = holding(QueueState::recovered(QueueId(7), &row), self.now);
        self.read = None;
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..50 => self.schedule(),
            50..60 => self.cancel(),
            60..75 => {
                let ms = self.random.random_range(1..3000);
                self.now = self.now.after(ms);
            }
            75..85 => {
                let at_most = self.random.random_range(0..4);
                self.let_go(at_most);
            }
            85..99 => {
                let at_most = self.random.random_range(1..6);
                self.answer(at_most);
                self.let_go(1024);
            }
            _ => self.restart(),
        }
        assert_eq!(self.queue.scheduled().0, self.waiting.len() as u64);
    }

    /// As the timers and the store would do it, until nothing is due.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.let_go(1024);
            if self.read.is_none() {
                break;
            }
            self.answer(3);
        }
        let due = self.waiting.range(..=(self.now, Seq(u64::MAX))).count();
        assert_eq!(due, 0, "everything due has gone");
        let wake = self.queue.schedule_wake();
        if let Some(((due, _), _)) = self.waiting.first_key_value() {
            assert!(
                wake.is_some() && wake <= *due,
                "the next one is not slept through"
            );
        }
    }
}

#[test]
fn messages_leave_when_due_in_order_and_once_whatever_happens() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => seed.parse().unwrap()..=seed.parse().unwrap(),
        Err(_) => 1..=40,
    };
    for seed in seeds {
        println!("SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.settle();
        world.now = world.now.after(2_000_000);
        world.settle();
        assert_eq!(world.queue.scheduled(), (0, 0));
        assert_eq!(world.queue.schedule_bytes(), 0);
    }
}

#[test]
fn what_is_far_off_takes_no_memory() {
    let mut world = World::new(1);
    world.let_go(1);
    for _ in 0..1000 {
        let place = world
            .queue
            .schedule(message("m", true, true), world.now.after(60_000));
        assert!(place.is_some());
    }
    assert_eq!(world.queue.schedule_bytes(), 0);
    assert_eq!(world.queue.scheduled().0, 1000);
    assert_eq!(world.queue.schedule_wake(), world.now.after(58_000));
}

#[test]
fn a_flood_that_is_due_soon_is_left_to_the_store() {
    let mut world = World::new(1);
    world.let_go(1);
    let due = world.now.after(1_000);
    for _ in 0..100 {
        let message = message("m", true, true);
        let place = world.queue.schedule(message.clone(), due).unwrap();
        world.disk.insert((due, place.seq), message);
        world.waiting.insert((due, place.seq), true);
        world.let_go(1);
        world.answer(1);
        let bytes = world.queue.schedule_bytes();
        assert!(bytes <= 19 * 1024 * 1024, "{bytes} bytes");
    }
    world.now = due;
    world.settle();
    assert_eq!(world.queue.scheduled(), (0, 0));
}
