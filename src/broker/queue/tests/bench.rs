//! A queue with everything around it played by hand: consumers' ports, the store's disk, its pending reads.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::broker::{
    ids::{QueueId, Seq, Timestamp},
    message::{Message, MessageParts},
    queue::{
        ConsumerId, ConsumerOptions, Deadlines, Delivery, Entry, Port, QueueState, ReadFrom, Recovered,
        Removed, Return, settings::QueueSettings, tests::disk::Disk,
    },
};
use crate::protocol::field::{FieldTable, FieldValue};

/// What a queue of these tests may hold in memory.
pub(super) const LIMIT: usize = 3 * 1024 * 1024;
/// A large message's body; shared, so that a deep queue costs nothing.
static LARGE: [u8; LIMIT / 4 + 1] = [0; LIMIT / 4 + 1];

/// What the queue did to a consumer's connection since the last look.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) delivered: Vec<(ConsumerId, Entry)>,
    stalled: Vec<ConsumerId>,
    cancelled: usize,
}

/// A consumer's connection.
pub(super) struct Probe {
    pub(super) room: AtomicUsize,
    /// The queue asked to be told when there is room.
    pub(super) stalled: AtomicBool,
    id: Mutex<Option<ConsumerId>>,
    wire: Arc<Mutex<Wire>>,
}

impl Port for Probe {
    fn room(&self) -> usize {
        self.room.load(Ordering::Relaxed)
    }

    fn stall(&self, _consumer: ConsumerId) -> bool {
        self.stalled.store(true, Ordering::Relaxed);
        if let Some(id) = *self.id.lock() {
            self.wire.lock().stalled.push(id);
        }
        true
    }

    fn deliver(&self, consumer: ConsumerId, deliveries: &mut Vec<Delivery>) {
        assert!(
            deliveries.is_sorted_by(|left, right| turn(&left.entry) < turn(&right.entry)),
            "out of order within one dispatch"
        );
        *self.id.lock() = Some(consumer);
        let taken: usize = deliveries
            .iter()
            .map(|delivery| delivery.entry.message.memory_bytes())
            .sum();
        let room = self.room.load(Ordering::Relaxed);
        self.room.store(
            if room == usize::MAX {
                room
            } else {
                room.saturating_sub(taken)
            },
            Ordering::Relaxed,
        );
        self.wire
            .lock()
            .delivered
            .extend(deliveries.drain(..).map(|delivery| (consumer, delivery.entry)));
    }

    fn cancelled(&self) {
        self.wire.lock().cancelled += 1;
    }
}

/// Orders messages as one dispatch hands them out: higher levels first, then by place.
pub(super) fn turn(entry: &Entry) -> (Reverse<u8>, Seq) {
    (Reverse(entry.lane), entry.seq)
}

/// A message whose routing key is its name. The number behind a colon in the name is its priority, that behind an at sign
/// its expiration.
pub(super) fn message(name: &str, persistent: bool, large: bool) -> Message {
    let mut properties = vec![0, 0];
    if name.contains(':') {
        properties[0] |= 8;
        properties.push(priority(name));
    }
    if let Some((_, ms)) = name.split_once('@') {
        properties[0] |= 1;
        properties.push(u8::try_from(ms.len()).unwrap());
        properties.extend_from_slice(ms.as_bytes());
    }
    let parts = MessageParts {
        exchange: b"",
        routing_key: name.as_bytes(),
        properties: &properties,
        persistent,
        priority: priority(name),
    };
    if large {
        Message::with_large_body(&parts, vec![Bytes::from_static(&LARGE)], &mut Vec::new())
    } else {
        Message::new(&parts, b"", &mut Vec::new())
    }
}

fn priority(name: &str) -> u8 {
    name.split_once(':')
        .map_or(0, |(_, priority)| priority.parse().unwrap())
}

pub(super) struct Bench {
    pub(super) queue: QueueState<Arc<Probe>>,
    pub(super) disk: Disk,
    pub(super) wire: Arc<Mutex<Wire>>,
    pub(super) now: Timestamp,
    /// As the queue was after the last command.
    paged: bool,
    /// Messages that had waited in memory are on their way to the disk.
    settles: usize,
    consumers: HashMap<String, (ConsumerId, Arc<Probe>)>,
    /// Deliveries by who holds them and their name.
    held: HashMap<(String, String), Entry>,
    names: BTreeMap<Seq, String>,
    effects: Vec<String>,
}

impl Bench {
    pub(super) fn new(durable: bool) -> Self {
        let mut queue = QueueState::new(QueueId(7), durable);
        queue.resident_limit = LIMIT;
        Self {
            queue,
            disk: Disk::default(),
            wire: Arc::default(),
            now: Timestamp(1000),
            paged: false,
            settles: 0,
            consumers: HashMap::new(),
            held: HashMap::new(),
            names: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    /// What the caller does when the queue begins or ends to be paged.
    pub(super) fn note_paging(&mut self) {
        let paged = self.queue.is_paged();
        if paged == self.paged {
            return;
        }
        self.paged = paged;
        if self.queue.set_spilling(paged) {
            let unstored = self.queue.take_unstored();
            self.settles += usize::from(!unstored.is_empty());
            for (place, deadline, message) in unstored {
                let place = (place.lane, place.seq);
                if deadline.is_some() {
                    self.disk.deadlines.insert(place, deadline);
                }
                assert!(
                    self.disk.messages.insert(place, message).is_none(),
                    "stored twice"
                );
            }
        }
        let committed = self.queue.committed;
        self.queue.committed(committed);
    }

    /// The disk has what the oldest of them gave it.
    pub(super) fn settle_spilled(&mut self) {
        if self.settles > 0 {
            self.settles -= 1;
            self.queue.settled();
        }
    }

    pub(super) fn probe(&self) -> Arc<Probe> {
        Arc::new(Probe {
            room: AtomicUsize::new(usize::MAX),
            stalled: AtomicBool::new(false),
            id: Mutex::default(),
            wire: Arc::clone(&self.wire),
        })
    }

    fn enqueue(&mut self, name: &str, persistent: bool, large: bool) {
        let message = message(name, persistent, large);
        let stored = self.queue.stores(&message);
        if self.queue.refuses(&message) {
            self.dispatch();
        }
        if self.queue.refuses(&message) {
            self.queue.refused(&message);
            self.effects.push(format!("full {name}"));
            return self.buried();
        }
        let lifetime = self.queue.lifetime_ms(&message);
        let deadline = lifetime.map_or(Timestamp::NONE, |ms| self.now.after(ms));
        match self.queue.enqueue(message.clone(), deadline) {
            Some(place) => {
                if stored && deadline.is_some() {
                    self.disk.deadlines.insert((place.lane, place.seq), deadline);
                }
                self.names.insert(place.seq, name.to_owned());
                if stored {
                    self.disk.messages.insert((place.lane, place.seq), message);
                }
            }
            None => self.effects.push(format!("lost {name}")),
        }
    }

    fn recover(&mut self, words: &[&str]) {
        let (names, delivered): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| !word.contains('='));
        let mut lanes = BTreeMap::new();
        for (seq, name) in (1..).map(Seq).zip(&names) {
            self.names.insert(seq, (*name).to_owned());
            let message = message(name, true, false);
            lanes.entry(message.priority()).or_insert(seq);
            if let Some(ms) = message.expiration_ms() {
                let place = (message.priority(), seq);
                self.disk.deadlines.insert(place, self.now.after(ms));
            }
            self.disk.messages.insert((message.priority(), seq), message);
        }
        let delivered = delivered.first().and_then(|word| word.strip_prefix("delivered="));
        let row = Recovered {
            lanes: lanes.into_iter().collect(),
            next_seq: Seq(names.len() as u64 + 1),
            messages: names.len() as u64,
            delivered_through: delivered.map_or(Seq(0), |name| self.seq(name)),
            returned: std::mem::take(&mut self.disk.returned),
            deadlines: match self.disk.deadlines.is_empty() {
                true => Deadlines::InOrder(Timestamp::NONE),
                false => Deadlines::Mixed,
            },
            ..Recovered::EMPTY
        };
        self.queue = QueueState::recovered(QueueId(7), &row);
        self.queue.resident_limit = LIMIT;
    }

    fn seq(&self, name: &str) -> Seq {
        let found = self.names.iter().rev().find(|(_, known)| *known == name);
        *found.unwrap_or_else(|| panic!("no message {name}")).0
    }

    fn take_held(&mut self, holder: &str, name: &str) -> (Option<ConsumerId>, Entry) {
        let entry = self.held.remove(&(holder.to_owned(), name.to_owned()));
        let consumer = self.consumers.get(holder).map(|(id, _)| *id);
        (
            consumer,
            entry.unwrap_or_else(|| panic!("{holder} does not hold {name}")),
        )
    }

    fn erased(&mut self, removed: Removed) {
        for (_, seq) in self.disk.erase(removed) {
            self.effects.push(format!("erase {}", self.names[&seq]));
        }
    }

    fn asked(&mut self, read: ReadFrom) {
        self.disk.ask(read);
        if !read.pending {
            self.effects.push("read".to_owned());
        }
    }

    fn dispatch(&mut self) {
        let mut removed = Removed::new();
        let read = self.queue.dispatch(self.now, &mut removed);
        self.erased(removed);
        self.note_paging();
        self.look();
        self.buried();
        for read in self.queue.take_reads().unwrap_or_default() {
            self.disk.ask_beside(read);
            self.effects.push("read".to_owned());
        }
        if let Some(read) = read {
            self.asked(read);
        }
    }

    /// Notes what reached consumers, in the order in which the queue gave it out.
    fn look(&mut self) {
        let mut wire = std::mem::take(&mut *self.wire.lock());
        wire.delivered.sort_by_key(|(_, entry)| turn(entry));
        for (id, entry) in wire.delivered {
            let who = self.who(id);
            let name = self.names[&entry.seq].clone();
            let again = if entry.redelivered { " redelivered" } else { "" };
            self.effects.push(format!("deliver {who} {name}{again}"));
            self.held.insert((who, name), entry);
        }
        for id in wire.stalled {
            let who = self.who(id);
            self.effects.push(format!("stalled {who}"));
        }
        assert!(wire.cancelled <= self.consumers.len(), "told twice");
        if wire.cancelled > 0 {
            let mut names: Vec<&str> = self.consumers.keys().map(String::as_str).collect();
            names.sort_unstable();
            self.effects.push(format!("cancelled {}", names.join(" ")));
        }
    }

    /// Notes what died; the relay would have the store forget it.
    fn buried(&mut self) {
        for dead in self.queue.take_dead_letters().unwrap_or_default() {
            let name = String::from_utf8_lossy(dead.message.routing_key()).into_owned();
            self.effects.push(format!("dead {name} {}", dead.reason.word()));
            if let Some(place) = dead.stored {
                assert!(self.disk.messages.remove(&(place.lane, place.seq)).is_some());
            }
        }
    }

    /// `max-length=2 max-length-bytes=9 overflow=reject-publish dlx`, as a queue's arguments or its policy say.
    fn settings(&mut self, words: &[&str]) {
        let mut arguments = FieldTable::new();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, "dlx"));
            let name = name.replace("dlx", "dead-letter-exchange");
            let value = match value.parse() {
                Ok(number) => FieldValue::I64(number),
                Err(_) => FieldValue::LongString(Bytes::copy_from_slice(value.as_bytes())),
            };
            arguments.insert(format!("x-{name}").as_str(), value);
        }
        self.queue
            .apply_settings(QueueSettings::new(&arguments, None), self.now);
        self.dispatch();
    }

    fn reject(&mut self, holder: &str, names: &[&str]) {
        let mut removed = Removed::new();
        for name in names {
            let (consumer, entry) = self.take_held(holder, name);
            self.queue.reject(consumer, entry, &mut removed);
        }
        self.erased(removed);
        self.dispatch();
    }

    fn who(&self, id: ConsumerId) -> String {
        let found = self.consumers.iter().find(|(_, (known, _))| *known == id);
        found
            .map(|(name, _)| name.clone())
            .unwrap_or_else(|| panic!("no consumer {id:?}"))
    }

    fn consume(&mut self, name: &str, words: &[&str]) {
        let number = |key: &str| {
            words
                .iter()
                .find_map(|word| word.strip_prefix(key)?.parse::<i64>().ok())
        };
        let options = ConsumerOptions {
            no_ack: words.contains(&"no-ack"),
            prefetch: u16::try_from(number("prefetch=").unwrap_or(0)).unwrap(),
            exclusive: words.contains(&"exclusive"),
            priority: number("priority=").unwrap_or(0),
        };
        let probe = self.probe();
        match self.queue.consume(options, Arc::clone(&probe)) {
            Some(id) => {
                *probe.id.lock() = Some(id);
                self.consumers.insert(name.to_owned(), (id, probe));
            }
            None => self.effects.push(format!("refused {name}")),
        }
        self.dispatch();
    }

    fn get(&mut self, no_ack: bool) {
        let mut removed = Removed::new();
        let got = self.queue.get(no_ack, &mut removed);
        self.erased(removed);
        match got {
            Ok(Some(Delivery { entry, remaining, .. })) => {
                let name = self.names[&entry.seq].clone();
                let again = if entry.redelivered { " redelivered" } else { "" };
                self.effects.push(format!("got {name}{again} {remaining}"));
                self.held.insert(("get".to_owned(), name), entry);
            }
            Ok(None) => self.effects.push("empty".to_owned()),
            Err(read) => self.asked(read),
        }
    }

    fn purge(&mut self) {
        let mut purged = self.queue.purge();
        self.erased(std::mem::take(&mut purged.removed));
        let gone = self.disk.erase_ranges(&purged);
        if let (Some((_, first)), Some((_, last))) = (gone.first(), gone.last()) {
            let (first, last) = (&self.names[first], &self.names[last]);
            self.effects.push(format!("erase {first}..{last}"));
        }
        self.effects.push(format!("purged {}", purged.messages));
    }

    fn settle(&mut self, holder: &str, names: &[&str], requeue: bool, failed: bool) {
        let mut removed = Removed::new();
        for name in names {
            let (consumer, entry) = self.take_held(holder, name);
            if requeue {
                let why = if failed { Return::Failed } else { Return::Postponed };
                let returned = self.queue.requeue(consumer, entry, why, self.now, &mut removed);
                self.disk.returned.extend(returned);
            } else if self.queue.ack(consumer, entry.stored, entry.message.body_len()) {
                removed.push(entry.place());
            }
        }
        self.erased(removed);
        self.dispatch();
    }

    fn run(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words[..] {
            ["transient-queue"] => *self = Self::new(false),
            ["single-active", ref more @ ..] => self.queue.set_single_active(!more.is_empty()),
            ["priorities", max] => self.queue.set_max_priority(max.parse().unwrap()),
            ["recover", ref words @ ..] => self.recover(words),
            ["publish", ref names @ ..] => self.publish(names, false, false),
            ["store", ref names @ ..] => self.publish(names, true, false),
            ["store-large", ref names @ ..] => self.publish(names, true, true),
            ["consume", name, ref options @ ..] => self.consume(name, options),
            ["room", name, bytes] => self.consumers[name]
                .1
                .room
                .store(bytes.parse().unwrap(), Ordering::Relaxed),
            ["resume"] => {
                let consumers: Vec<ConsumerId> = self.consumers.values().map(|(id, _)| *id).collect();
                consumers.into_iter().for_each(|id| self.queue.resume(id));
                self.dispatch();
            }
            ["ack", holder, ref names @ ..] => self.settle(holder, names, false, false),
            ["requeue", holder, ref names @ ..] => self.settle(holder, names, true, false),
            ["get", ref options @ ..] => self.get(options.contains(&"no-ack")),
            ["cancel", name] => {
                if self.queue.cancel(self.consumers[name].0) {
                    self.effects.push("unused".to_owned());
                }
            }
            ["purge"] => self.purge(),
            ["delete"] => {
                let messages = self.queue.delete();
                self.look();
                self.effects.push(format!("deleted {messages}"));
            }
            ["commit", name] => {
                let through = self.seq(name);
                self.settle_spilled();
                self.queue.committed(through);
            }
            ["answer", ref at_most @ ..] => {
                let at_most = at_most.first().map_or(usize::MAX, |count| count.parse().unwrap());
                if let Some(paged) = self.disk.answer(at_most) {
                    self.queue.paged_in(paged);
                    self.dispatch();
                }
            }
            ["fail"] => {
                self.disk.fail();
                self.queue.read_failed();
            }
            ["delivered"] => {
                if let Some(through) = self.queue.take_delivered() {
                    self.effects.push(format!("delivered {}", self.names[&through]));
                }
            }
            ["counts"] => {
                let (ready, unacked) = (self.queue.ready_count(), self.queue.unacked_count());
                let consumers = self.queue.consumer_count();
                self.effects
                    .push(format!("ready {ready} unacked {unacked} consumers {consumers}"));
            }
            _ => self.run_rule(&words),
        }
    }

    /// Commands about rules and time.
    fn run_rule(&mut self, words: &[&str]) {
        match *words {
            ["fail-back", holder, ref names @ ..] => self.settle(holder, names, true, true),
            ["reject", holder, ref names @ ..] => self.reject(holder, names),
            ["settings", ref words @ ..] => self.settings(words),
            ["at", ms] => {
                self.now = Timestamp(1000 + ms.parse::<u64>().unwrap());
                self.dispatch();
            }
            ["next"] => {
                let next = self.queue.next_deadline();
                self.effects.push(match next.0 {
                    0 => "never".to_owned(),
                    at => format!("next {}", at - 1000),
                });
            }
            _ => panic!("no such command: {words:?}"),
        }
    }

    fn publish(&mut self, names: &[&str], persistent: bool, large: bool) {
        for name in names {
            self.enqueue(name, persistent, large);
        }
        self.dispatch();
    }
}

/// Plays a script, commands separated by `|`, and compares everything that came of it.
#[track_caller]
pub(super) fn check(script: &str, expected: &str) {
    check_on(Bench::new(true), script, expected);
}

/// The same on a queue that has been prepared.
pub(super) fn check_on(mut bench: Bench, script: &str, expected: &str) {
    for command in script.split('|') {
        bench.run(command);
    }
    let mut actual = String::new();
    for effect in &bench.effects {
        let separator = if actual.is_empty() { "" } else { " | " };
        write!(actual, "{separator}{effect}").unwrap();
    }
    let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(actual, expected, "{script}");
}
