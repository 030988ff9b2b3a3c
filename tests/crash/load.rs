//! The clients: confirming publishers, a transaction after the other, one consumer per queue, and one that declares and
//! deletes. Each runs until the broker dies under it or it is told to stop, and writes down what it knows.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use leveret::protocol::{field::FieldTable, method::Method};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    client::{Client, Event},
    truth::{self, KEEP, QUEUES, Stamp, Truth},
};

const FAN: &str = "fan";
const DIRECT: &str = "places";

/// What outlives the broker's generations.
pub(crate) struct Load {
    pub(crate) truth: Truth,
    pub(crate) stop: AtomicBool,
    /// A sync is going to fail: only then may the broker say that its store did.
    pub(crate) store_may_fail: AtomicBool,
    /// The next message of each publisher.
    next: [AtomicU64; 4],
    transactions: AtomicU64,
    places: Mutex<HashMap<String, Declared>>,
}

/// A queue that comes and goes.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Declared {
    Absent,
    /// With so many messages.
    Present(u32),
    /// A request was on its way when the broker died.
    Unknown,
}

impl Load {
    pub(crate) fn new(truth: Truth) -> Self {
        Self {
            truth,
            stop: AtomicBool::new(false),
            store_may_fail: AtomicBool::new(false),
            next: Default::default(),
            transactions: AtomicU64::new(0),
            places: Mutex::default(),
        }
    }

    /// Declares what the load needs; all of it is durable.
    pub(crate) fn declare(&self, address: SocketAddr) -> io::Result<()> {
        let mut client = Client::open(address)?;
        for queue in QUEUES {
            client.call(&declare(queue, false))?;
        }
        for (name, kind) in [(FAN, "fanout"), (DIRECT, "direct")] {
            client.call(&Method::ExchangeDeclare {
                exchange: name.to_owned(),
                kind: kind.to_owned(),
                passive: false,
                durable: true,
                auto_delete: false,
                internal: false,
                nowait: false,
                arguments: FieldTable::default(),
            })?;
        }
        for queue in [1, 2, KEEP] {
            client.call(&bind(QUEUES[queue], FAN, ""))?;
        }
        Ok(())
    }

    /// Everything that was declared must be there again.
    pub(crate) fn check_declared(&self, address: SocketAddr) -> io::Result<()> {
        let mut client = Client::open(address)?;
        for queue in QUEUES {
            let answer = client.call(&declare(queue, true))?;
            if !matches!(answer, Method::QueueDeclareOk { .. }) {
                self.truth
                    .finding(format!("I10: queue {queue} is gone: {answer:?}"));
            }
        }
        Ok(())
    }

    /// Runs all clients until `until` returns. They end by themselves when the broker dies, or when it stops them.
    pub(crate) fn run(&self, address: SocketAddr, seed: u64, until: impl FnOnce(&AtomicBool)) {
        self.stop.store(false, Ordering::SeqCst);
        thread::scope(|scope| {
            for (number, window) in [(0, 1), (1, 10), (2, 100)] {
                scope.spawn(move || self.ended("publisher", self.publish(address, number, window, seed)));
            }
            scope.spawn(move || self.ended("transactions", self.transact(address, seed)));
            for queue in 0..KEEP {
                scope.spawn(move || self.ended("consumer", self.consume(address, queue, seed)));
            }
            scope.spawn(move || self.ended("declarer", self.come_and_go(address, seed)));
            until(&self.stop);
        });
    }

    /// A client's end is fine when the broker died; a broker that closes or hangs is a finding.
    fn ended(&self, who: &str, result: io::Result<()>) {
        let Err(error) = result else { return };
        self.truth.note(&format!("{who} ended: {error}"));
        if matches!(
            error.kind(),
            io::ErrorKind::Other | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ) {
            self.truth.finding(format!("{who}: {error}"));
        }
    }

    /// A store that failed says so, and the broker ends.
    fn tells_of_failure(&self, answer: &Method) -> bool {
        self.store_may_fail.load(Ordering::SeqCst)
            && matches!(answer, Method::ConnectionClose { reply_code: 541, .. })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn message(&self, publisher: usize, random: &mut StdRng) -> String {
        let seq = self.next[publisher].fetch_add(1, Ordering::SeqCst) + 1;
        let len = match random.random_range(0..1000) {
            0..4 => random.random_range(1_050_000..1_300_000),
            4..30 => random.random_range(60_000..200_000),
            30..130 => random.random_range(1_000..20_000),
            130..180 => 0,
            _ => random.random_range(1..300),
        };
        truth::id(publisher as u64, seq, len)
    }

    fn publish(&self, address: SocketAddr, number: usize, window: usize, seed: u64) -> io::Result<()> {
        let mut random = StdRng::seed_from_u64(seed ^ (number as u64) << 32);
        let mut client = Client::open(address)?;
        client.call(&Method::ConfirmSelect { nowait: false })?;
        let mut tag = 0;
        let mut open: VecDeque<(u64, String, Stamp)> = VecDeque::new();
        loop {
            let room = window - open.len();
            let batch = if self.stopped() {
                0
            } else {
                random.random_range(0..=room).min(20)
            };
            for _ in 0..batch.max(usize::from(open.is_empty() && !self.stopped())) {
                let id = self.message(number, &mut random);
                let (exchange, key, queues): (_, _, &[usize]) = match random.random_range(0..6) {
                    0 => (FAN, "", &[1, 2, KEEP]),
                    1 => ("", "keep", &[KEEP]),
                    2 | 3 => ("", "q0", &[0]),
                    4 => ("", "q1", &[1]),
                    _ => ("", "q2", &[2]),
                };
                self.truth.sent(&id, queues, None);
                let stamp = self.truth.now();
                client.publish(exchange, key, &truth::properties(&id), &truth::body(&id));
                tag += 1;
                open.push_back((tag, id, stamp));
            }
            client.flush()?;
            if open.is_empty() {
                return Ok(());
            }
            match client.next()? {
                Event::Method(Method::BasicAck {
                    delivery_tag,
                    multiple,
                }) => {
                    self.settle(&mut open, delivery_tag, multiple);
                }
                Event::Method(other) => {
                    self.truth.finding(format!("publisher {number} got {other:?}"));
                    return Ok(());
                }
                Event::Message(_) => self.truth.finding("a publisher got a message".to_owned()),
            }
        }
    }

    fn settle(&self, open: &mut VecDeque<(u64, String, Stamp)>, tag: u64, multiple: bool) {
        if !open.iter().any(|(known, ..)| *known == tag) {
            self.truth
                .finding(format!("I4: confirm {tag} is for nothing outstanding"));
        }
        open.retain(|(known, id, stamp)| {
            let mine = *known == tag || (multiple && *known < tag);
            if mine {
                self.truth.confirmed(id, *stamp);
            }
            !mine
        });
    }

    fn transact(&self, address: SocketAddr, seed: u64) -> io::Result<()> {
        const NUMBER: usize = 3;
        let mut random = StdRng::seed_from_u64(seed ^ 0x7a);
        let mut client = Client::open(address)?;
        client.call(&Method::TxSelect)?;
        while !self.stopped() {
            let transaction = self.transactions.fetch_add(1, Ordering::SeqCst);
            let stamp = self.truth.now();
            let mut ids = Vec::new();
            for _ in 0..random.random_range(1..6) {
                let id = self.message(NUMBER, &mut random);
                let queue = if random.random_bool(0.5) { 0 } else { KEEP };
                self.truth.sent(&id, &[queue], Some(transaction));
                client.publish("", QUEUES[queue], &truth::properties(&id), &truth::body(&id));
                ids.push(id);
            }
            match client.call(&Method::TxCommit)? {
                answer if self.tells_of_failure(&answer) => return Ok(()),
                Method::TxCommitOk => ids.iter().for_each(|id| self.truth.confirmed(id, stamp)),
                other => self
                    .truth
                    .finding(format!("tx.commit was answered with {other:?}")),
            }
        }
        Ok(())
    }

    /// Acks most, gives some back, keeps a few until the end of the broker.
    fn consume(&self, address: SocketAddr, queue: usize, seed: u64) -> io::Result<()> {
        const PREFETCH: u16 = 50;
        let mut random = StdRng::seed_from_u64(seed ^ 0xc0 ^ (queue as u64) << 16);
        let mut client = Client::open(address)?;
        let qos = Method::BasicQos {
            prefetch_size: 0,
            prefetch_count: PREFETCH,
            global: false,
        };
        client.call(&qos)?;
        client.call(&Method::BasicConsume {
            queue: QUEUES[queue].to_owned(),
            consumer_tag: "c".to_owned(),
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        })?;
        let mut acked: VecDeque<Vec<String>> = VecDeque::new();
        let (mut batch, mut kept) = (Vec::new(), 0);
        loop {
            let received = match client.next()? {
                Event::Message(received) => received,
                Event::Method(Method::BasicQosOk) => {
                    self.truth
                        .acks_taken(queue, &acked.pop_front().unwrap_or_default());
                    continue;
                }
                Event::Method(other) => {
                    self.truth
                        .finding(format!("consumer of {} got {other:?}", QUEUES[queue]));
                    return Ok(());
                }
            };
            let Some(id) = self.truth.delivered(queue, &received) else {
                continue;
            };
            let delivery_tag = received.tag;
            match random.random_range(0..100) {
                0 if kept < PREFETCH / 3 => kept += 1,
                1..4 => {
                    self.truth.requeued(queue, &id);
                    client.send(&Method::BasicNack {
                        delivery_tag,
                        multiple: false,
                        requeue: true,
                    });
                }
                _ => {
                    self.truth.ack_sent(queue, &id);
                    client.send(&Method::BasicAck {
                        delivery_tag,
                        multiple: false,
                    });
                    batch.push(id);
                }
            }
            if batch.len() >= 5 || random.random_bool(0.2) {
                // Its answer says that the acks before it were taken.
                client.send(&qos);
                acked.push_back(std::mem::take(&mut batch));
                client.flush()?;
            }
        }
    }

    /// Declares, binds, fills, counts and deletes the same few queues again and again.
    fn come_and_go(&self, address: SocketAddr, seed: u64) -> io::Result<()> {
        let mut random = StdRng::seed_from_u64(seed ^ 0xd3);
        let mut client = Client::open(address)?;
        client.call(&Method::ConfirmSelect { nowait: false })?;
        while !self.stopped() {
            let name = format!("place-{}", random.random_range(0..4));
            let known = self.places.lock().expect("no panic").get(&name).copied();
            let is = |state| self.places.lock().expect("no panic").insert(name.clone(), state);
            let passive =
                matches!(known, Some(Declared::Present(_) | Declared::Absent)) && random.random_bool(0.5);
            if !passive {
                is(Declared::Unknown);
            }
            let count = match client.call(&declare(&name, passive))? {
                Method::QueueDeclareOk { message_count, .. } => Some(message_count),
                Method::ChannelClose { .. } => {
                    client.send(&Method::ChannelCloseOk);
                    client.call(&Method::ChannelOpen)?;
                    client.call(&Method::ConfirmSelect { nowait: false })?;
                    None
                }
                answer if self.tells_of_failure(&answer) => return Ok(()),
                other => return Err(io::Error::other(format!("declare was answered with {other:?}"))),
            };
            match (known, count) {
                (Some(Declared::Present(expected)), Some(found)) if found == expected => {}
                (Some(Declared::Present(_)), _) => {
                    self.truth
                        .finding(format!("I10: {name} was {known:?}, found {count:?}"));
                }
                (Some(Declared::Absent), Some(found)) if found > 0 || passive => {
                    self.truth
                        .finding(format!("I9: {name} was deleted, found {count:?}"));
                }
                _ => {}
            }
            let Some(found) = count else { continue };
            is(Declared::Unknown);
            client.call(&bind(&name, DIRECT, &name))?;
            is(Declared::Unknown);
            client.publish(DIRECT, &name, &truth::properties("place"), b"place");
            client.flush()?;
            while !matches!(client.next()?, Event::Method(Method::BasicAck { .. })) {}
            is(Declared::Present(found + 1));
            if random.random_bool(0.4) {
                is(Declared::Unknown);
                let answer = client.call(&Method::QueueDelete {
                    queue: name.clone(),
                    if_unused: false,
                    if_empty: false,
                    nowait: false,
                })?;
                match answer {
                    Method::QueueDeleteOk { message_count } if message_count == found + 1 => {}
                    answer if self.tells_of_failure(&answer) => return Ok(()),
                    other => self
                        .truth
                        .finding(format!("delete of {name} was answered with {other:?}")),
                }
                is(Declared::Absent);
            }
        }
        Ok(())
    }

    /// Takes everything out of the queues, in order, and compares with the truth.
    pub(crate) fn drain(&self, address: SocketAddr) -> io::Result<()> {
        self.truth.crashed("drain");
        for (queue, name) in QUEUES.iter().enumerate() {
            let mut client = Client::open(address)?;
            let Method::QueueDeclareOk { message_count, .. } = client.call(&declare(name, true))? else {
                self.truth.finding(format!("I10: {name} is gone at the end"));
                continue;
            };
            for taken in 0..message_count {
                match client.get(name, true)? {
                    Some(received) => self.truth.drained(queue, &received),
                    None => {
                        self.truth
                            .finding(format!("I11: {name} counts {message_count} and holds {taken}"));
                        break;
                    }
                }
            }
            if client.get(name, true)?.is_some() {
                self.truth.finding(format!(
                    "I11: {name} holds more than the {message_count} it counts"
                ));
            }
        }
        Ok(())
    }
}

fn declare(queue: &str, passive: bool) -> Method {
    Method::QueueDeclare {
        queue: queue.to_owned(),
        passive,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: FieldTable::default(),
    }
}

fn bind(queue: &str, exchange: &str, key: &str) -> Method {
    Method::QueueBind {
        queue: queue.to_owned(),
        exchange: exchange.to_owned(),
        routing_key: key.to_owned(),
        nowait: false,
        arguments: FieldTable::default(),
    }
}
