//! What survives, and what does not grow: the real program, a real client, kill -9.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_core::Stream;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};

struct Broker {
    process: Child,
    uri: String,
    /// Where the HTTP API is, if it is served.
    http: Option<SocketAddr>,
}

impl Broker {
    fn start(data_dir: &Path) -> Self {
        Self::spawn(&mut command(data_dir))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (mut address, mut http) = (None, None);
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, found)) = line.split_once("HTTP API listens on ") {
                http = found.trim().parse().ok();
            }
            if let Some((_, found)) = line.split_once("AMQP 0-9-1 listens on ") {
                address = Some(found.to_owned());
            }
            if line.contains("Server startup complete") {
                break;
            }
        }
        // The pipe must be read on, or the broker would block on its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            uri: format!(
                "amqp://guest:guest@{}/%2f",
                address.expect("the log names the listener")
            ),
            http,
        }
    }

    async fn channel(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.uri, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        (connection, channel)
    }

    fn kill(self) {
        drop(self);
    }

    /// The most memory that was ever resident, bytes.
    fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

/// A failed test leaves no broker behind either.
impl Drop for Broker {
    fn drop(&mut self) {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        assert!(killed.is_ok() || std::thread::panicking(), "{killed:?}");
    }
}

fn command(data_dir: &Path) -> Command {
    serving(data_dir, "none")
}

/// With the HTTP API there.
fn serving(data_dir: &Path, http: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
    command.arg("--data-dir").arg(data_dir);
    command.args([
        "--amqp-listen",
        "127.0.0.1:0",
        "--http-listen",
        http,
        "--metrics-listen",
        "none",
    ]);
    command
}

async fn publish(channel: &Channel, body: &str, delivery_mode: u8) {
    let properties = BasicProperties::default().with_delivery_mode(delivery_mode);
    let options = BasicPublishOptions::default();
    let confirm = channel.basic_publish("ex".into(), "key".into(), options, body.as_bytes(), properties);
    confirm.await.unwrap().await.unwrap();
}

async fn get(channel: &Channel) -> Option<(String, u64)> {
    let got = channel
        .basic_get("q".into(), BasicGetOptions::default())
        .await
        .unwrap()?;
    Some((
        String::from_utf8(got.delivery.data.clone()).unwrap(),
        got.delivery.delivery_tag,
    ))
}

#[tokio::test]
async fn what_was_confirmed_survives_kill_9_twice_in_order_and_what_was_acked_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let (_connection, channel) = broker.channel().await;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare("q".into(), durable, FieldTable::default())
        .await
        .unwrap();
    let lasting = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let kind = lapin::ExchangeKind::Topic;
    channel
        .exchange_declare("ex".into(), kind, lasting, FieldTable::default())
        .await
        .unwrap();
    let bind = QueueBindOptions::default();
    channel
        .queue_bind("q".into(), "ex".into(), "#".into(), bind, FieldTable::default())
        .await
        .unwrap();
    for body in ["a", "b", "c"] {
        publish(&channel, body, 2).await;
    }
    publish(&channel, "transient", 1).await;
    let (first, tag) = get(&channel).await.unwrap();
    assert_eq!(first, "a");
    // A later confirm proves that the ack before it is on disk, also when both came in one segment.
    let ack = channel.basic_ack(tag, BasicAckOptions::default());
    let (acked, ()) = tokio::join!(ack, publish(&channel, "d", 2));
    acked.unwrap();
    broker.kill();

    let broker = Broker::start(dir.path());
    let (_connection, channel) = broker.channel().await;
    publish(&channel, "e", 2).await;
    broker.kill();

    let broker = Broker::start(dir.path());
    let (_connection, channel) = broker.channel().await;
    for expected in ["b", "c", "d", "e"] {
        assert_eq!(
            get(&channel).await.map(|(body, _)| body).as_deref(),
            Some(expected)
        );
    }
    assert_eq!(get(&channel).await, None);
    broker.kill();
}

#[test]
fn a_second_broker_on_a_directory_says_who_has_it_and_exits_69() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let second = command(dir.path()).output().unwrap();
    broker.kill();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(69), "{text}");
    assert!(text.contains("in use by another process"), "{text}");
}

#[test]
fn a_bad_setting_names_itself_and_exits_78() {
    let dir = tempfile::tempdir().unwrap();
    let refused = command(dir.path())
        .env("LEVERET_AMQP__HEARTBEAT", "often")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{text}");
    assert!(text.contains("heartbeat"), "{text}");
}

/// Well above what RocksDB takes for itself.
const WATERMARK: u64 = 384 * 1024 * 1024;
const BODY: usize = 60_000;
/// A publisher that was not held back by then never will be.
const FAR_TOO_MANY: u64 = 4 * WATERMARK / BODY as u64;

/// Publishes one after the other with 32 unconfirmed until `done`, and a few more. Gives the numbers that were confirmed.
async fn publish_without_end(channel: Channel, first: u64, done: Arc<AtomicBool>) -> Vec<u64> {
    let mut waiting = std::collections::VecDeque::new();
    let mut confirmed = Vec::new();
    let mut more = 100;
    for number in (first..).step_by(2) {
        assert!(number < FAR_TOO_MANY, "nobody held the publishers back");
        let body = format!("{number:<BODY$}");
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let publish = channel.basic_publish("".into(), "q".into(), options, body.as_bytes(), properties);
        waiting.push_back((number, publish.await.unwrap()));
        more -= i32::from(done.load(Ordering::Relaxed));
        let window = if more > 0 { 32 } else { 0 };
        while waiting.len() > window {
            let (number, confirm) = waiting.pop_front().unwrap();
            assert!(confirm.await.unwrap().is_ack());
            confirmed.push(number);
        }
        if more <= 0 {
            break;
        }
    }
    confirmed
}

/// A consumer that settles only when it is told to.
struct Drinker {
    channel: Channel,
    consumer: lapin::Consumer,
    received: BTreeSet<u64>,
    last: u64,
    settled: u64,
}

impl Drinker {
    async fn new(channel: Channel) -> Self {
        let options = BasicConsumeOptions::default();
        let consumed = channel.basic_consume("q".into(), "drinker".into(), options, FieldTable::default());
        let consumer = consumed.await.unwrap();
        Self {
            channel,
            consumer,
            received: BTreeSet::new(),
            last: 0,
            settled: 0,
        }
    }

    async fn next(&mut self) {
        let next = std::future::poll_fn(|context| Pin::new(&mut self.consumer).poll_next(context));
        let delivery = next.await.unwrap().unwrap();
        let number = std::str::from_utf8(&delivery.data).unwrap().trim_end();
        assert!(
            self.received.insert(number.parse().unwrap()),
            "{number} came twice"
        );
        self.last = delivery.delivery_tag;
    }

    async fn settle(&mut self) {
        if self.last > self.settled {
            let all = BasicAckOptions { multiple: true };
            self.channel.basic_ack(self.last, all).await.unwrap();
            self.settled = self.last;
        }
    }
}

/// Proves: I13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_that_never_stop_are_held_back_at_the_watermark_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let watermark = WATERMARK.to_string();
    let broker =
        Broker::spawn(command(dir.path()).env("LEVERET_ALARMS__VM_MEMORY_HIGH_WATERMARK", watermark));
    let (_drinking, channel) = broker.channel().await;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare("q".into(), durable, FieldTable::default());
    declared.await.unwrap();
    let mut drinker = Drinker::new(channel).await;

    let blocked = Arc::new(AtomicBool::new(false));
    let (one, first) = broker.channel().await;
    let (_two, second) = broker.channel().await;
    let first = tokio::spawn(publish_without_end(first, 0, Arc::clone(&blocked)));
    let second = tokio::spawn(publish_without_end(second, 1, Arc::clone(&blocked)));
    let publishers = async { [first.await.unwrap(), second.await.unwrap()].concat() };
    tokio::pin!(publishers);

    // What is not settled stays in memory, until the publishers are blocked. Then everything is settled as it comes, and
    // they end well only if they are told to go on.
    let confirmed: Vec<u64> = loop {
        tokio::select! {
            () = drinker.next() => {}
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
            confirmed = &mut publishers => break confirmed,
        }
        if one.status().blocked() {
            blocked.store(true, Ordering::Relaxed);
        }
        if blocked.load(Ordering::Relaxed) {
            drinker.settle().await;
        }
    };
    while !confirmed.iter().all(|number| drinker.received.contains(number)) {
        drinker.next().await;
    }
    let peak = broker.peak_bytes();
    assert!(
        peak < WATERMARK + WATERMARK / 2,
        "{} MiB were resident",
        peak >> 20
    );
    broker.kill();
}

/// Sends a request to the HTTP API and reads the answer to its end: the status and the body. `None` when the broker is
/// gone before it has answered.
fn request(api: SocketAddr, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(api).ok()?;
    let length = body.len();
    let head = format!(
        "{method} /api{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).ok()?;
    socket.write_all(body.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// How many there are in a list.
fn total(api: SocketAddr, list: &str) -> u64 {
    let (status, body) = request(api, "GET", &format!("/{list}?page=1&page_size=1"), "").unwrap();
    assert_eq!(status, 200, "{body}");
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    page.get("total_count")
        .and_then(serde_json::Value::as_u64)
        .unwrap()
}

/// Queues of an import, enough to be found half-way.
const IMPORTED: u64 = 1500;

#[test]
fn an_import_of_definitions_that_kill_9_interrupts_is_whole_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let start = || Broker::spawn(&mut serving(dir.path(), "127.0.0.1:0"));
    let names = || (0..IMPORTED).map(|number| format!("q{number}"));
    let definitions = serde_json::json!({
        "vhosts": [{"name": "v"}],
        "users": [{"name": "imported", "password": "p", "tags": "monitoring"}],
        "permissions": [{"user": "guest", "vhost": "v", "configure": ".*", "write": ".*", "read": ".*"}],
        "policies": [{"vhost": "v", "name": "p", "pattern": ".*", "definition": {"max-length": 10}}],
        "queues": names().map(|name| serde_json::json!({"vhost": "v", "name": name})).collect::<Vec<_>>(),
        "bindings": names().map(|name| serde_json::json!({"vhost": "v", "source": "amq.direct",
            "destination": name, "destination_type": "queue", "routing_key": "key"})).collect::<Vec<_>>(),
    });
    let broker = start();
    let api = broker.http.unwrap();
    let importing =
        std::thread::spawn(move || request(api, "POST", "/definitions", &definitions.to_string()));
    while total(api, "queues") < 10 {}
    broker.kill();
    assert_eq!(
        importing.join().unwrap(),
        None,
        "it was not half-way: use more queues"
    );

    let broker = start();
    let api = broker.http.unwrap();
    assert_eq!(total(api, "queues"), IMPORTED);
    let (_, user) = request(api, "GET", "/users/imported", "").unwrap();
    assert!(user.contains("monitoring"), "{user}");
    let (_, bindings) = request(
        api,
        "GET",
        "/exchanges/v/amq.direct/bindings/source?columns=destination",
        "",
    )
    .unwrap();
    assert_eq!(bindings.matches("\"q").count() as u64, IMPORTED);
    // It is over: what is deleted now does not come back.
    assert_eq!(request(api, "DELETE", "/queues/v/q7", "").unwrap().0, 204);
    broker.kill();
    let broker = start();
    assert_eq!(total(broker.http.unwrap(), "queues"), IMPORTED - 1);
    broker.kill();
}
