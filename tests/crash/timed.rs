//! Time under kill -9 (hostile-input-and-faults F24): delays, times to live with dead letters, also by priority and in a
//! queue that is deeper than memory, retries with their counts, in a classic queue by `amq.settle` and in a quorum queue
//! with a backoff. Every confirmed message is in the end in exactly one place, and no confirmed attempt is forgotten.

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use leveret::protocol::{
    field::{FieldTable, FieldValue},
    method::Method,
    properties::{Properties, RawProperties},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    broker::Broker,
    client::{Client, Event, Received},
};

/// Where messages end: those that were delayed, those that died.
const ENDS: [&str; 2] = ["due", "dead"];
/// Attempts that may fail.
const LIMIT: i32 = 3;
/// The longest delay or time to live.
const LONGEST_MS: i32 = 1500;
/// Messages that make a queue deeper than the 16 MiB it may hold in memory, and how long they live at most: past some of
/// the crashes.
const DEEP: u64 = 220;
const DEEP_BYTES: usize = 100 * 1024;
const DEEP_MS: i32 = 6000;
/// Kinds of messages: delayed; with a time to live; tried and settled; with priority and time to live; tried in a quorum
/// queue. The number of a message says which it is.
const KINDS: u64 = 5;
const RANKED: u64 = 3;

fn text(text: &str) -> FieldValue {
    FieldValue::LongString(Bytes::copy_from_slice(text.as_bytes()))
}

fn table(entries: &[(&str, FieldValue)]) -> FieldTable {
    let mut table = FieldTable::new();
    for (name, value) in entries {
        table.insert(*name, value.clone());
    }
    table
}

fn properties(id: &str, headers: FieldTable, expiration: Option<i32>) -> Vec<u8> {
    properties_with(id, headers, expiration, None)
}

fn properties_with(id: &str, headers: FieldTable, expiration: Option<i32>, priority: Option<u8>) -> Vec<u8> {
    let properties = Properties {
        delivery_mode: Some(2),
        priority,
        message_id: Some(id.into()),
        expiration: expiration.map(|ms| ms.to_string().as_str().into()),
        headers: Some(headers),
        ..Properties::default()
    };
    let mut out = BytesMut::new();
    properties.encode(&mut out);
    out.to_vec()
}

fn id_of(received: &Received) -> String {
    let id = RawProperties::new(&received.properties).message_id();
    String::from_utf8_lossy(id.expect("properties").unwrap_or_default()).into_owned()
}

fn count_of(received: &Received) -> i64 {
    let headers = RawProperties::new(&received.properties).headers();
    let headers = headers.expect("properties").unwrap_or_default();
    let count = headers.get("x-delivery-count").and_then(FieldValue::as_integer);
    count.unwrap_or(0)
}

fn declare(client: &mut Client, queue: &str, arguments: FieldTable) -> io::Result<()> {
    client.call(&Method::QueueDeclare {
        queue: queue.to_owned(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments,
    })?;
    Ok(())
}

/// What the clients know.
#[derive(Default)]
struct Known {
    /// By id: whether it was confirmed.
    sent: HashMap<String, bool>,
    /// Attempts that failed and whose retry was confirmed.
    failed: HashMap<String, i64>,
    findings: Vec<String>,
    next: u64,
}

impl Known {
    fn declare(address: SocketAddr) -> io::Result<()> {
        let mut client = Client::open(address)?;
        let dead = [
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text("dead")),
        ];
        for queue in ENDS {
            declare(&mut client, queue, FieldTable::default())?;
        }
        declare(&mut client, "short", table(&dead))?;
        let limited = [&dead[..], &[("x-delivery-limit", FieldValue::I32(LIMIT))]].concat();
        declare(&mut client, "tried", table(&limited))?;
        let ranked = [&dead[..], &[("x-max-priority", FieldValue::I32(5))]].concat();
        declare(&mut client, "ranked", table(&ranked))?;
        let retried = [
            ("x-queue-type", text("quorum")),
            ("x-delayed-retry-type", text("failed")),
            ("x-delayed-retry-min", FieldValue::I32(20)),
            ("x-delayed-retry-multiplier", FieldValue::I32(2)),
        ];
        declare(&mut client, "retried", table(&[&limited[..], &retried].concat()))?;
        declare(
            &mut client,
            "marks",
            table(&[("x-max-length", FieldValue::I32(1))]),
        )
    }

    /// Makes the queue with priorities deeper than memory.
    fn deepen(&mut self, address: SocketAddr, random: &mut StdRng) -> io::Result<()> {
        let mut client = Client::open(address)?;
        client.call(&Method::ConfirmSelect { nowait: false })?;
        for number in 0..DEEP {
            self.next = number * KINDS + RANKED;
            let id = self.next.to_string();
            let ms = random.random_range(DEEP_MS / 2..DEEP_MS);
            let priority = Some(random.random_range(0..5));
            let mut body = id.as_bytes().to_vec();
            body.resize(DEEP_BYTES, b' ');
            let properties = properties_with(&id, FieldTable::default(), Some(ms), priority);
            client.publish("", "ranked", &properties, &body);
            client.flush()?;
            self.sent.insert(id.clone(), false);
            if let Event::Method(Method::BasicAck { .. }) = client.next()? {
                self.sent.insert(id, true);
            }
        }
        Ok(())
    }

    /// Publishes until the broker dies.
    fn publish(&mut self, address: SocketAddr, random: &mut StdRng) -> io::Result<()> {
        let mut client = Client::open(address)?;
        client.call(&Method::ConfirmSelect { nowait: false })?;
        let mut open: Vec<(u64, String)> = Vec::new();
        let mut tag = 0;
        loop {
            while open.len() < 20 {
                self.next += 1;
                tag += 1;
                let id = self.next.to_string();
                let ms = random.random_range(0..LONGEST_MS);
                let plain = FieldTable::default();
                let mut priority = None;
                let (key, headers, expiration) = match self.next % KINDS {
                    0 => {
                        let delay = ("x-opt-delivery-delay", FieldValue::I32(ms));
                        ("due", table(&[delay]), None)
                    }
                    1 => ("short", plain, Some(ms)),
                    2 => ("tried", plain, None),
                    RANKED => {
                        priority = Some(random.random_range(0..5));
                        ("ranked", plain, Some(ms))
                    }
                    _ => ("retried", plain, None),
                };
                let properties = properties_with(&id, headers, expiration, priority);
                client.publish("", key, &properties, id.as_bytes());
                self.sent.insert(id.clone(), false);
                open.push((tag, id));
            }
            client.flush()?;
            if let Event::Method(Method::BasicAck {
                delivery_tag,
                multiple,
            }) = client.next()?
            {
                open.retain(|(tag, id)| {
                    let mine = *tag == delivery_tag || multiple && *tag < delivery_tag;
                    if mine {
                        self.sent.insert(id.clone(), true);
                    }
                    !mine
                });
            }
        }
    }

    /// Lets attempts fail until the broker dies, or until there are none left.
    fn fail(&mut self, address: SocketAddr, forever: bool) -> io::Result<()> {
        let mut client = Client::open(address)?;
        client.call(&Method::ConfirmSelect { nowait: false })?;
        let start = Instant::now();
        let mut idle = Instant::now();
        for turn in 0_u64.. {
            let queue = ["tried", "retried"][usize::try_from(turn % 2).expect("small")];
            let Some(received) = client.get(queue, false)? else {
                if !forever && idle.elapsed() > Duration::from_millis(500)
                    || start.elapsed() > Duration::from_secs(60)
                {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(2));
                continue;
            };
            idle = Instant::now();
            let (id, count) = (id_of(&received), count_of(&received));
            let failed = self.failed.get(&id).copied().unwrap_or(0);
            if count < failed {
                self.findings
                    .push(format!("{id} failed {failed} times and says {count}"));
            }
            if queue == "tried" {
                let tag = FieldValue::I64(i64::try_from(received.tag).expect("a tag"));
                let order = table(&[
                    ("x-delivery-tag", tag),
                    ("x-op", text("retry")),
                    ("x-delay", FieldValue::I32(10)),
                ]);
                client.publish("amq.settle", "", &properties("", order, None), b"");
            } else {
                client.send(&Method::BasicReject {
                    delivery_tag: received.tag,
                    requeue: true,
                });
                // What is confirmed behind it says that the attempt is counted for good.
                client.publish("", "marks", &properties("", FieldTable::default(), None), b"");
            }
            client.flush()?;
            if let Event::Method(Method::BasicAck { .. }) = client.next()? {
                let attempts = count.max(failed) + 1;
                // Past the limit the message moves to another queue instead, at its own time: what is confirmed on this
                // channel does not wait for that, and a crash between them gives the last attempt again.
                let counted = if queue == "retried" {
                    i64::from(LIMIT)
                } else {
                    attempts
                };
                self.failed.insert(id, attempts.min(counted));
            }
        }
        Ok(())
    }

    /// Everything must be where it ends, once.
    fn compare(&mut self, address: SocketAddr) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let mut found: HashMap<String, Vec<&str>> = HashMap::new();
        let start = Instant::now();
        // A slow machine may need longer than the times that were asked for.
        while start.elapsed() < PATIENCE {
            for queue in ENDS {
                let mut client = Client::open(address)?;
                while let Some(received) = client.get(queue, true)? {
                    let id = id_of(&received);
                    if received.body.trim_ascii_end() != id.as_bytes() {
                        self.findings.push(format!("{id} has another body"));
                    }
                    found.entry(id).or_default().push(queue);
                }
            }
            if self
                .sent
                .iter()
                .all(|(id, confirmed)| !confirmed || found.contains_key(id))
            {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        for (id, confirmed) in &self.sent {
            let places = found.remove(id).unwrap_or_default();
            let expected = if id.parse::<u64>().expect("a number") % KINDS == 0 {
                "due"
            } else {
                "dead"
            };
            let right = match &places[..] {
                [] => !confirmed,
                [one] => *one == expected,
                _ => false,
            };
            if !right {
                self.findings
                    .push(format!("{id}, confirmed {confirmed}, is in {places:?}"));
            }
        }
        for (id, places) in found {
            self.findings
                .push(format!("{id} was never sent and is in {places:?}"));
        }
        Ok(())
    }
}

fn generation(data: &Path, known: &mut Known, random: &mut StdRng, fails: bool) {
    let broker = Broker::start(data, &[]).unwrap_or_else(|refused| panic!("no start: {}", refused.log));
    let address = broker.address;
    if known.next == 0 {
        Known::declare(address).expect("declared");
        known.deepen(address, random).expect("deepened");
    }
    let lives = Duration::from_millis(random.random_range(200..700));
    // One of the two clients at a time: what one knows must not depend on the other.
    thread::scope(|scope| {
        scope.spawn(|| {
            // It ends when the broker dies.
            drop(if fails {
                known.fail(address, true)
            } else {
                known.publish(address, random)
            });
        });
        thread::sleep(lives);
        broker.kill();
    });
}

/// Row F24 of hostile-input-and-faults.
#[test]
fn what_waits_dies_or_is_tried_again_survives_kill_9() {
    let seed = std::env::var("CRASH_SEED").map_or(6, |seed| seed.parse().expect("a number"));
    println!("timed: CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let data = dir.path().join("data");
    let mut known = Known::default();
    for number in 0..8 {
        generation(&data, &mut known, &mut random, number % 2 == 1);
    }
    let broker = Broker::start(&data, &[]).unwrap_or_else(|refused| panic!("no start: {}", refused.log));
    let longest = Duration::from_millis(u64::try_from(LONGEST_MS.max(DEEP_MS)).expect("positive"));
    let until = Instant::now() + longest + Duration::from_millis(500);
    known.fail(broker.address, false).expect("the last attempts");
    thread::sleep(until.saturating_duration_since(Instant::now()));
    known.compare(broker.address).expect("compared");
    broker.kill();
    println!(
        "timed: {} messages, {} tried",
        known.sent.len(),
        known.failed.len()
    );
    assert!(
        known.findings.is_empty(),
        "{:#?}",
        known.findings.iter().take(20).collect::<Vec<_>>()
    );
}

/// Row F15 of hostile-input-and-faults: the time of the last write stands beside the database, so moving that is moving the
/// clock.
#[test]
fn a_clock_that_was_set_while_the_broker_was_down_is_warned_of() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let data = dir.path().join("data");
    let start = || Broker::start(&data, &[]).unwrap_or_else(|refused| panic!("no start: {}", refused.log));
    let broker = start();
    Known::declare(broker.address).expect("declared");
    assert!(!broker.log().contains("the clock is"), "{}", broker.log());
    broker.terminate();
    let now = SystemTime::now();
    for (written, warning) in [
        (now - 3 * DAY, Some("the clock is far ahead of the last write")),
        (now - DAY / 2, None),
        (now + DAY, Some("the clock is behind the last write")),
    ] {
        let mark = File::options()
            .write(true)
            .open(data.join("synced"))
            .expect("the mark");
        mark.set_modified(written).expect("its time");
        let broker = start();
        let log = broker.log();
        assert_eq!(log.contains("the clock is"), warning.is_some(), "{log}");
        assert!(log.contains(warning.unwrap_or_default()), "{log}");
        broker.terminate();
    }
}
