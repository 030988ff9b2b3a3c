//! Time under kill -9 (hostile-input-and-faults F24): delays, times to live with dead letters, retries with their counts.
//! Every confirmed message is in the end in exactly one place, and no confirmed attempt is forgotten.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
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
    let properties = Properties {
        delivery_mode: Some(2),
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
        declare(&mut client, "tried", table(&limited))
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
                let (key, headers, expiration) = match self.next % 3 {
                    0 => (
                        "due",
                        table(&[("x-opt-delivery-delay", FieldValue::I32(ms))]),
                        None,
                    ),
                    1 => ("short", FieldTable::default(), Some(ms)),
                    _ => ("tried", FieldTable::default(), None),
                };
                client.publish("", key, &properties(&id, headers, expiration), id.as_bytes());
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
        loop {
            let Some(received) = client.get("tried", false)? else {
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
            let order = table(&[
                (
                    "x-delivery-tag",
                    FieldValue::I64(i64::try_from(received.tag).expect("a tag")),
                ),
                ("x-op", text("retry")),
                ("x-delay", FieldValue::I32(10)),
            ]);
            client.publish("amq.settle", "", &properties("", order, None), b"");
            client.flush()?;
            if let Event::Method(Method::BasicAck { .. }) = client.next()? {
                *self.failed.entry(id).or_default() = count.max(failed) + 1;
            }
        }
    }

    /// Everything must be where it ends, once.
    fn compare(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut found: HashMap<String, Vec<&str>> = HashMap::new();
        for queue in ENDS {
            let mut client = Client::open(address)?;
            while let Some(received) = client.get(queue, true)? {
                let id = id_of(&received);
                if received.body != id.as_bytes() {
                    self.findings.push(format!("{id} has another body"));
                }
                found.entry(id).or_default().push(queue);
            }
        }
        for (id, confirmed) in &self.sent {
            let places = found.remove(id).unwrap_or_default();
            let expected = if id.parse::<u64>().expect("a number") % 3 == 0 {
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
    let longest = Duration::from_millis(u64::try_from(LONGEST_MS).expect("positive"));
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
