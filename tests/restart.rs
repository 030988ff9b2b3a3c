//! What survives: the real program, a real client, kill -9.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};

struct Broker {
    process: Child,
    uri: String,
}

impl Broker {
    fn start(data_dir: &Path) -> Self {
        let mut process = command(data_dir).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut address = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
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
}

/// A failed test leaves no broker behind either.
impl Drop for Broker {
    fn drop(&mut self) {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        assert!(killed.is_ok() || std::thread::panicking(), "{killed:?}");
    }
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
    command.arg("--data-dir").arg(data_dir);
    command.args([
        "--amqp-listen",
        "127.0.0.1:0",
        "--http-listen",
        "none",
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
