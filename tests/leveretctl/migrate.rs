//! `leveretctl migrate` from one Leveret to another; `interop/migrate.py` does it from Debian's RabbitMQ.

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions},
};

use crate::broker::{Broker, Ran};

async fn channel(broker: &Broker) -> Channel {
    let connection = Connection::connect(&broker.uri(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    channel
}

async fn publish(channel: &Channel, queue: &str, body: &[u8], properties: BasicProperties) {
    let options = BasicPublishOptions::default();
    let confirm = channel
        .basic_publish("".into(), queue.into(), options, body, properties)
        .await
        .unwrap();
    confirm.await.unwrap();
}

fn migrate(old: &Broker, new: &Broker, more: &[&str]) -> Ran {
    let from = format!("amqp://guest:guest@{}", old.amqp);
    let http = format!("http://guest:guest@{}", old.http);
    let words = ["migrate", "--from", &from, "--from-http", &http];
    new.run("leveretctl", &[&words[..], more].concat())
}

fn import(broker: &Broker, definitions: &str) {
    let file = broker.dir.path().join("definitions.json");
    std::fs::write(&file, definitions).unwrap();
    broker.quiet(&format!("import_definitions {}", file.display()));
}

#[test]
fn definitions_and_messages_come_over_in_order_and_as_they_were() {
    let (old, new) = (Broker::start(), Broker::start());
    import(
        &old,
        "{\"vhosts\":[{\"name\":\"/\"}],\"queues\":[
          {\"vhost\":\"/\",\"name\":\"q\",\"durable\":true,\"auto_delete\":false,\"arguments\":{}},
          {\"vhost\":\"/\",\"name\":\"else\",\"durable\":true,\"auto_delete\":false,\"arguments\":{}},
          {\"vhost\":\"/\",\"name\":\"empty\",\"durable\":true,\"auto_delete\":false,\"arguments\":{}}]}",
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let channel = channel(&old).await;
        for number in 0..50 {
            let properties = BasicProperties::default().with_delivery_mode(2);
            publish(&channel, "q", number.to_string().as_bytes(), properties).await;
        }
        // A carbon copy is not made again, and the user id is not asked about.
        let mut headers = lapin::types::FieldTable::default();
        let keys = vec![lapin::types::AMQPValue::LongString("else".into())];
        headers.insert("CC".into(), lapin::types::AMQPValue::FieldArray(keys.into()));
        let properties = BasicProperties::default()
            .with_headers(headers)
            .with_user_id("guest".into())
            .with_priority(3);
        publish(&channel, "q", b"last", properties).await;
        // Somebody had the first one already.
        let options = BasicGetOptions { no_ack: false };
        let first = channel.basic_get("q".into(), options).await.unwrap().unwrap();
        let back = BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        };
        first.nack(back).await.unwrap();
    });
    let done = migrate(&old, &new, &["--formatter", "json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let told: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(
        (&told["state"], &told["moved"]),
        (&"finished".into(), &52.into()),
        "{told}"
    );
    assert_eq!(old.quiet("list_queues -s"), "else\t0\nempty\t0\nq\t0\n");
    assert_eq!(new.quiet("list_queues -s"), "else\t1\nempty\t0\nq\t51\n");
    runtime.block_on(async {
        let channel = channel(&new).await;
        for number in 0..51 {
            let options = BasicGetOptions { no_ack: true };
            let message = channel.basic_get("q".into(), options).await.unwrap().unwrap();
            let expected = if number == 50 {
                "last".to_owned()
            } else {
                number.to_string()
            };
            assert_eq!(message.data, expected.as_bytes());
            assert_eq!(message.routing_key.as_str(), "q");
            assert_eq!(message.redelivered, number == 0, "{number}");
            if number == 50 {
                assert_eq!(message.properties.priority(), &Some(3));
                assert!(message.properties.user_id().is_some());
            }
        }
    });
    let again = migrate(&old, &new, &[]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(
        again.out.contains("finished: 0 messages of 0 queues moved"),
        "{again:?}"
    );
}

#[test]
fn what_a_full_queue_refuses_stays_where_it_is_in_its_order() {
    let (old, new) = (Broker::start(), Broker::start());
    let queue = |arguments: &str| {
        format!(
            "{{\"queues\":[{{\"vhost\":\"/\",\"name\":\"q\",\"durable\":true,\"auto_delete\":false,\"arguments\":{arguments}}}]}}"
        )
    };
    import(&old, &queue("{}"));
    import(
        &new,
        &queue("{\"x-max-length\":2,\"x-overflow\":\"reject-publish\"}"),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let channel = channel(&old).await;
        for number in 0..5 {
            publish(&channel, "q", &[number], BasicProperties::default()).await;
        }
    });
    let full = migrate(&old, &new, &["--skip-definitions"]);
    assert_eq!(full.code, 0, "{full:?}");
    assert!(
        full.out
            .contains("queue 'q' in vhost '/': the queue is full here and takes no more"),
        "{full:?}"
    );
    assert_eq!(old.quiet("list_queues -s"), "q\t3\n");
    new.quiet("purge_queue q");
    migrate(&old, &new, &["--skip-definitions"]);
    new.quiet("purge_queue q");
    runtime.block_on(async {
        let channel = channel(&old).await;
        let options = BasicGetOptions { no_ack: true };
        let message = channel.basic_get("q".into(), options).await.unwrap().unwrap();
        assert_eq!(message.data, [4]);
    });
}

#[test]
fn what_cannot_be_migrated_from_is_told() {
    let (old, new) = (Broker::start(), Broker::start());
    let from = format!("amqp://guest:guest@{}", old.amqp);
    let wrong = format!("amqp://guest:wrong@{}", old.amqp);
    for (words, code, text) in [
        (&["migrate"][..], 64, "--from amqp://user:password@host:5672"),
        (&["migrate", "--from", "http://x"], 64, "amqp://"),
        (
            &["migrate", "--from", &from, "--from-http", "http://127.0.0.1:1"],
            69,
            "switch the management plugin on there",
        ),
        (
            &["migrate", "--from", "amqp://127.0.0.1:1", "--skip-definitions"],
            0,
            "0 messages",
        ),
        (
            &["migrate", "--from", &from, "--skip-definitions", "--queue", "no"],
            69,
            "there is no queue 'no' here",
        ),
    ] {
        let ran = new.run("leveretctl", words);
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!((ran.err + &ran.out).contains(text), "{words:?}");
    }
    import(
        &new,
        "{\"queues\":[{\"vhost\":\"/\",\"name\":\"q\",\"durable\":true,\"auto_delete\":false,\"arguments\":{}}]}",
    );
    for (uri, text) in [
        ("amqp://127.0.0.1:1", "what was not moved is still there"),
        (&wrong, "403 ACCESS_REFUSED"),
    ] {
        let ran = new.run("leveretctl", &["migrate", "--from", uri, "--skip-definitions"]);
        assert_eq!(ran.code, 69, "{ran:?}");
        assert!(ran.err.contains(text), "{ran:?}");
    }
}
