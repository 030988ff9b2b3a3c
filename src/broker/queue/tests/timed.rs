//! Random commands about time against a plain map, with a clock that is turned by hand: times to live, retries that wait,
//! limits of attempts, restarts, a store that answers late. Whatever happens, nobody gets what has expired or still waits,
//! every message that dies does so once and for the right reason, and in the end nothing is lost or left on disk.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IteratorRandom};

use super::{
    bench::{LIMIT, Probe, message},
    disk::Disk,
};
use crate::broker::{
    ids::{QueueId, Seq, Timestamp},
    queue::{
        Deadlines, Entry, Place, QueueState, Reason, Recovered, Removed, Return, Returned,
        settings::QueueSettings,
    },
};
use crate::protocol::field::{FieldTable, FieldValue};

const STEPS: usize = 300;
const RUNS: u64 = 150;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Ready,
    /// Until this time.
    Waiting(Timestamp),
    Held,
}

#[derive(Debug)]
struct Known {
    place: Place,
    deadline: Timestamp,
    stored: bool,
    state: State,
    failed: u16,
    /// What the store was told of its last return.
    noted: Option<Returned>,
}

struct World {
    queue: QueueState<std::sync::Arc<Probe>>,
    settings: QueueSettings,
    disk: Disk,
    now: Timestamp,
    random: StdRng,
    /// By its number, which is its name.
    known: BTreeMap<u64, Known>,
    held: Vec<Entry>,
    published: u64,
}

fn settings(random: &mut StdRng) -> QueueSettings {
    let mut arguments = FieldTable::new();
    let text = |text: &'static str| FieldValue::LongString(bytes::Bytes::from_static(text.as_bytes()));
    if random.random_bool(0.3) {
        arguments.insert("x-queue-type", text("quorum"));
    }
    if random.random_bool(0.5) {
        arguments.insert("x-dead-letter-exchange", text("dlx"));
    }
    if random.random_bool(0.3) {
        arguments.insert("x-message-ttl", FieldValue::I32(random.random_range(1..3000)));
    }
    if random.random_bool(0.5) {
        arguments.insert("x-delivery-limit", FieldValue::I32(random.random_range(0..4)));
    }
    if random.random_bool(0.6) {
        arguments.insert("x-delayed-retry-type", text("all"));
        arguments.insert(
            "x-delayed-retry-min",
            FieldValue::I32(random.random_range(1..8000)),
        );
    }
    QueueSettings::new(&arguments, None)
}

fn number(entry: &crate::broker::message::Message) -> u64 {
    let name = String::from_utf8_lossy(entry.routing_key()).into_owned();
    name.split('@').next().unwrap().parse().unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let settings = settings(&mut random);
        let now = Timestamp(1_000_000);
        let mut queue = QueueState::new(QueueId(7), true);
        queue.resident_limit = LIMIT;
        queue.apply_settings(settings.clone(), now);
        Self {
            queue,
            settings,
            disk: Disk::default(),
            now,
            random,
            known: BTreeMap::new(),
            held: Vec::new(),
            published: 0,
        }
    }

    fn has_expired(&self, known: &Known) -> bool {
        known.deadline.is_some() && known.deadline <= self.now
    }

    fn publish(&mut self) {
        for _ in 0..self.random.random_range(1..5) {
            self.published += 1;
            let name = match self.random.random_range(0..3) {
                0 => format!("{}@{}", self.published, self.random.random_range(0..4000)),
                _ => self.published.to_string(),
            };
            let message = message(&name, self.random.random_bool(0.8), self.random.random_bool(0.5));
            let lifetime = self.queue.lifetime_ms(&message);
            let deadline = lifetime.map_or(Timestamp::NONE, |ms| self.now.after(ms));
            let stored = self.queue.stores(&message);
            let place = self.queue.enqueue(message.clone(), deadline).unwrap();
            if stored {
                self.disk.messages.insert((place.lane, place.seq), message);
                if deadline.is_some() {
                    self.disk.deadlines.insert((place.lane, place.seq), deadline);
                }
            }
            let known = Known {
                place,
                deadline,
                stored,
                state: State::Ready,
                failed: 0,
                noted: None,
            };
            self.known.insert(self.published, known);
        }
    }

    fn get(&mut self) {
        let got = self.queue.get(false, &mut Removed::new());
        let delivery = match got {
            Ok(Some(delivery)) => delivery,
            Ok(None) => {
                let available = |known: &&Known| match known.state {
                    State::Ready => !self.has_expired(known),
                    State::Waiting(due) => due <= self.now && !self.has_expired(known),
                    State::Held => false,
                };
                let waits = self.known.values().find(available);
                assert!(
                    waits.is_none() || self.disk.is_reading(),
                    "told to be empty: {waits:?}"
                );
                return;
            }
            Err(read) => {
                if !read.pending {
                    self.disk.ask_beside(read);
                }
                return;
            }
        };
        let number = number(&delivery.entry.message);
        let known = &self.known[&number];
        assert!(!self.has_expired(known), "{number} has expired: {known:?}");
        match known.state {
            State::Ready => {}
            State::Waiting(due) => assert!(due <= self.now, "{number} is too early"),
            State::Held => panic!("{number} is handed out twice"),
        }
        assert_eq!(delivery.entry.failed, known.failed, "failures of {number}");
        let older = |other: &&Known| {
            other.state == State::Ready && other.place.seq < known.place.seq && !self.has_expired(other)
        };
        if !self.settings.counts_returns() {
            assert!(
                self.known.values().find(older).is_none(),
                "{number} is not the oldest"
            );
        }
        self.known.get_mut(&number).unwrap().state = State::Held;
        self.held.push(delivery.entry);
    }

    fn take_held(&mut self) -> Option<(u64, Entry)> {
        let at = (0..self.held.len()).choose(&mut self.random)?;
        let entry = self.held.swap_remove(at);
        Some((number(&entry.message), entry))
    }

    fn settle(&mut self) {
        let Some((number, entry)) = self.take_held() else {
            return;
        };
        let mut removed = Removed::new();
        if self.random.random_bool(0.5) {
            if self.queue.ack(None, entry.stored, entry.message.body_len()) {
                removed.push(entry.place());
            }
            self.known.remove(&number);
        } else {
            self.queue.reject(None, entry, &mut removed);
            if self.settings.dead_letter.is_none() {
                self.known.remove(&number);
            }
        }
        self.disk.erase(removed);
    }

    fn give_back(&mut self) {
        for _ in 0..self.random.random_range(1..6) {
            let Some((number, entry)) = self.take_held() else {
                return;
            };
            let why = match self.random.random_range(0..3) {
                0 => Return::Postponed,
                1 => Return::Failed,
                _ => Return::RetryAt(self.now.after(self.random.random_range(1..9000))),
            };
            let before = entry.clone();
            let mut removed = Removed::new();
            let returned = self.queue.requeue(None, entry, why, self.now, &mut removed);
            let failure = why != Return::Postponed;
            let counts = self.settings.counts_returns() || matches!(why, Return::RetryAt(_));
            let known = self.known.get_mut(&number).unwrap();
            known.failed += u16::from(failure && counts);
            let over = |limit| failure && u64::from(known.failed) > limit;
            if self.settings.delivery_limit.is_some_and(over) {
                if self.settings.dead_letter.is_none() {
                    self.known.remove(&number);
                }
                self.disk.erase(removed);
                continue;
            }
            let due = match (why, &self.settings.retry) {
                (Return::RetryAt(due), _) => Some(due),
                (_, Some(retry)) => retry
                    .wait_ms(before.seq, known.failed, why)
                    .map(|ms| self.now.after(ms)),
                _ => None,
            };
            known.state = due.map_or(State::Ready, State::Waiting);
            assert_eq!(returned.is_some(), counts && known.stored);
            known.noted = returned.or(known.noted);
        }
    }

    /// As the cell does it after every change.
    fn dispatch(&mut self) {
        let mut removed = Removed::new();
        let read = self.queue.dispatch(self.now, &mut removed);
        self.disk.erase(removed);
        self.bury(false);
        if self.settings.dead_letter.is_none() {
            let now = self.now;
            self.known.retain(|_, known| {
                known.state == State::Held || !known.deadline.is_some() || known.deadline > now
            });
        }
        for read in self
            .queue
            .take_reads()
            .unwrap_or_default()
            .into_iter()
            .chain(read)
        {
            if !read.pending {
                self.disk.ask_beside(read);
            }
        }
    }

    /// What died, and of what. A purge took out of the store whatever stood among what it removed.
    fn bury(&mut self, purged: bool) {
        for letter in self.queue.take_dead_letters().unwrap_or_default() {
            let number = number(&letter.message);
            let known = self.known.remove(&number);
            let known = known.unwrap_or_else(|| panic!("{number} died twice, or was gone"));
            match letter.reason {
                Reason::Expired => {
                    assert!(self.has_expired(&known), "{number} did not expire");
                    assert_ne!(known.state, State::Held);
                }
                Reason::DeliveryLimit => {
                    assert!(u64::from(known.failed) > self.settings.delivery_limit.unwrap())
                }
                reason => assert_eq!(reason, Reason::Rejected),
            }
            if let Some(place) = letter.stored {
                let there = self.disk.messages.remove(&(place.lane, place.seq));
                assert!(purged || there.is_some(), "{number} is not on disk");
            }
        }
    }

    fn answer(&mut self) -> bool {
        let at_most = self.random.random_range(1..8);
        let Some(paged) = self.disk.answer(at_most) else {
            return false;
        };
        self.queue.paged_in(paged);
        true
    }

    fn purge(&mut self) {
        let mut purged = self.queue.purge();
        self.disk.erase(std::mem::take(&mut purged.removed));
        self.disk.erase_ranges(&purged);
        self.bury(true);
        self.known.retain(|_, known| known.state == State::Held);
    }

    /// kill -9 once everything was written: what was handed out is back, what is not stored is lost.
    fn restart(&mut self) {
        self.held.clear();
        self.disk.fail();
        self.known.retain(|_, known| known.stored);
        for known in self.known.values_mut().filter(|known| known.state == State::Held) {
            known.state = match known.noted {
                Some(noted) if noted.due.is_some() => State::Waiting(noted.due),
                _ => State::Ready,
            };
        }
        let mut lanes = BTreeMap::new();
        for (lane, seq) in self.disk.messages.keys() {
            lanes.entry(*lane).or_insert(*seq);
        }
        let there = |known: &&Known| {
            self.disk
                .messages
                .contains_key(&(known.place.lane, known.place.seq))
        };
        let mixed = self
            .disk
            .messages
            .keys()
            .any(|place| self.disk.deadlines.contains_key(place));
        let row = Recovered {
            lanes: lanes.into_iter().collect(),
            next_seq: self.queue.next_seq,
            messages: self.disk.messages.len() as u64,
            bytes: self
                .disk
                .messages
                .values()
                .map(|message| message.body_len())
                .sum(),
            delivered_through: self.queue.delivered,
            deadlines: if mixed {
                Deadlines::Mixed
            } else {
                Deadlines::InOrder(Timestamp::NONE)
            },
            returned: self
                .known
                .values()
                .filter(there)
                .filter_map(|known| known.noted)
                .collect(),
            scheduled: (0, 0),
        };
        self.queue = QueueState::recovered(QueueId(7), &row);
        self.queue.resident_limit = LIMIT;
        self.queue.apply_settings(self.settings.clone(), self.now);
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..28 => self.publish(),
            28..50 => self.get(),
            50..56 => self.settle(),
            56..70 => self.give_back(),
            70..80 => self.now = self.now.after(self.random.random_range(0..1500)),
            80..86 => self.queue.committed(Seq(self.queue.next_seq.0 - 1)),
            86..96 => {
                self.answer();
            }
            96 => {
                self.disk.fail();
                self.queue.read_failed();
            }
            97 => self.purge(),
            _ if self.random.random_bool(0.3) => self.restart(),
            _ => {}
        }
        self.dispatch();
        self.counts();
        self.browse();
    }

    /// Whoever looks from outside sees what waits, each message once, in its state.
    fn browse(&mut self) {
        let mut seen: BTreeMap<Place, Timestamp> = BTreeMap::new();
        let mut from = Some(Place {
            lane: u8::MAX,
            seq: Seq(0),
        });
        while let Some(place) = from {
            let part = self.queue.look(place, self.random.random_range(1..5));
            from = part.next;
            let lane = part.lane;
            let here: Vec<Seq> = part.here.iter().map(|(entry, _)| entry.seq).collect();
            let mut add = |seq, due| {
                let twice = seen.insert(Place { seq, lane }, due);
                assert_eq!(twice, None, "{seq:?} is seen twice");
            };
            part.here.iter().for_each(|(entry, due)| add(entry.seq, *due));
            let known = |seq: Seq| part.known.iter().find(|known| known.seq == seq);
            for (place, _) in self.disk.messages.range((lane, part.from)..(lane, part.until)) {
                if !here.contains(&place.1) && (part.on_disk || known(place.1).is_some()) {
                    let deadline = self.disk.deadlines.get(place).copied();
                    let due = known(place.1).map_or(Timestamp::NONE, |known| known.due);
                    let due = if due.is_some() {
                        due.earlier(deadline.unwrap_or_default())
                    } else {
                        due
                    };
                    add(place.1, due);
                }
            }
        }
        for (number, known) in &self.known {
            match (known.state, seen.get(&known.place)) {
                (State::Held, found) => assert_eq!(found, None, "{number} is held"),
                _ if self.has_expired(known) => {}
                (State::Ready, found) => {
                    assert!(
                        found.is_some_and(|due| *due <= self.now),
                        "{number} is ready: {found:?}"
                    )
                }
                (State::Waiting(due), found) => {
                    let due = due.earlier(known.deadline);
                    let over = due <= self.now && found.is_some_and(|due| *due <= self.now);
                    assert!(over || found == Some(&due), "{number} waits: {found:?}");
                }
            }
        }
    }

    fn counts(&mut self) {
        let held = self
            .known
            .values()
            .filter(|known| known.state == State::Held)
            .count();
        assert_eq!(self.queue.unacked_count(), held as u64, "unacked");
        let live = self
            .known
            .values()
            .filter(|known| known.state != State::Held && !self.has_expired(known));
        let (live, ready) = (live.count() as u64, self.queue.ready_count());
        let more_to_look_at = ready > live && self.queue.next_deadline().is_some();
        assert!(
            ready == live || self.disk.is_reading() || more_to_look_at,
            "{ready} ready, {live} should be"
        );
    }

    /// Turns the clock to whatever comes next, up to `until`, with a store that answers everything.
    fn run_to(&mut self, until: Timestamp) {
        for _ in 0..100_000 {
            self.dispatch();
            if self.answer() {
                continue;
            }
            let next = self.queue.next_deadline();
            if !next.is_some() || next > until {
                break;
            }
            assert!(next > self.now, "it spins at {next:?}");
            self.now = next;
        }
        self.now = until;
        self.dispatch();
        while self.answer() {
            self.dispatch();
        }
    }

    fn ack(&mut self, number: u64, entry: &Entry) {
        let mut removed = Removed::new();
        if self.queue.ack(None, entry.stored, entry.message.body_len()) {
            removed.push(entry.place());
        }
        self.disk.erase(removed);
        self.known.remove(&number);
    }

    /// Everything that will be available is, and leaves nothing behind.
    fn end(&mut self) {
        while let Some((number, entry)) = self.take_held() {
            self.ack(number, &entry);
        }
        self.run_to(self.now.after(200_000));
        let expired = self
            .known
            .values()
            .filter(|known| self.has_expired(known))
            .count();
        assert_eq!(expired, 0, "all that expired has left");
        for _ in 0..10_000 {
            self.get();
            let Some((number, entry)) = self.take_held() else {
                if self.answer() {
                    self.dispatch();
                    continue;
                }
                break;
            };
            self.ack(number, &entry);
        }
        assert!(self.known.is_empty(), "never came: {:?}", self.known);
        self.run_to(self.now.after(200_000));
        assert_eq!(self.queue.ready_count(), 0);
        let left: Vec<_> = self.disk.messages.keys().collect();
        assert!(left.is_empty(), "left on disk: {left:?}");
    }
}

#[test]
fn time_does_what_a_plain_map_says_whatever_happens() {
    let given: Option<u64> = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(1..=RUNS, |seed| seed..=seed);
    for seed in seeds {
        println!("SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.end();
    }
}
