//! What a quorum queue refuses, keeps and tells.

use crate::client::{
    Arguments, Broker, Method, Value, ack, cancel, confirm_select, consume, declare, delete, get, publish,
    reject, text,
};

fn quorum(queue: &str, flags: &str) -> Method {
    declare(queue, flags).args([("x-queue-type", text("quorum"))])
}

/// Proves: QQ-001
#[test]
fn it_is_durable_shared_and_named() {
    let broker = Broker::start();
    let channel = broker.channel();
    for (flags, property) in [
        ("durable auto-delete", "auto-delete"),
        ("durable exclusive", "exclusive-owner"),
        ("", "non-durable"),
    ] {
        let text = format!("PRECONDITION_FAILED - invalid property '{property}' for queue 'q' in vhost '/'");
        channel.refuses(quorum("q", flags), 406, &text);
    }
    channel.refuses(
        quorum("", "durable"),
        406,
        "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue",
    );
    channel.declare(quorum("q", "durable"));
}

/// Proves: QQ-002
#[test]
fn it_is_deleted_without_conditions() {
    for flag in ["if-unused", "if-empty"] {
        let broker = Broker::start();
        let channel = broker.channel();
        channel.declare(quorum("q", "durable"));
        channel.fails(
            delete("q", flag),
            540,
            &format!(
                "NOT_IMPLEMENTED - cannot delete queue 'q' in vhost '/'. queue.delete operations with {flag} flag \
                 set are not supported by quorum queues"
            ),
        );
    }
}

/// Proves: QQ-006
#[test]
fn a_redelivery_tells_how_often_it_was_taken_and_how_often_it_failed() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(quorum("q", "durable"));
    channel.ok(confirm_select());
    channel.publish("", "q", "x");
    assert_eq!(channel.confirm(), (1, true));
    let first = channel.get("q").unwrap();
    assert_eq!(
        (first.header("x-acquired-count"), first.header("x-delivery-count")),
        (None, None)
    );
    channel.send(reject(first.tag, true));
    let second = channel.get("q").unwrap();
    assert!(second.redelivered);
    assert_eq!(second.header("x-acquired-count"), Some(&Value::LongLongInt(1)));
    assert_eq!(second.header("x-delivery-count"), Some(&Value::LongLongInt(1)));
}

/// Proves: QQ-015
#[test]
fn its_transient_messages_survive_a_restart() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(quorum("q", "durable"));
    channel.ok(confirm_select());
    channel.send(publish("", "q", "transient"));
    channel.confirms(1);
    drop(channel);
    broker.restart();
    let got = broker.channel().got(get("q", "no-ack")).unwrap();
    assert_eq!(
        (got.text(), got.properties.delivery_mode()),
        ("transient".into(), &None)
    );
}

/// Proves: QQ-009
#[test]
fn nothing_is_got_past_a_single_active_consumer() {
    let broker = Broker::start();
    let channel = broker.channel();
    let single = |queue: &str| {
        declare(queue, "durable").args([
            ("x-queue-type", text("quorum")),
            ("x-single-active-consumer", true.into()),
        ])
    };
    channel.ok(single("q"));
    channel.fill("q", &["m"]);
    channel.refuses(
        get("q", ""),
        405,
        "RESOURCE_LOCKED - cannot obtain access to locked queue 'q' in vhost '/'. basic.get operations are not \
         supported by quorum queues with single active consumer",
    );
    let channel = broker.channel();
    // A classic one gives.
    channel.ok(declare("c", "durable").args([("x-single-active-consumer", true.into())]));
    channel.fill("c", &["m"]);
    assert!(channel.get("c").is_some());
}

/// Proves: SAC-001
#[test]
fn a_single_active_consumer_gives_way_to_one_of_a_higher_priority() {
    let broker = Broker::start();
    let (first, second) = (broker.channel(), broker.channel());
    let arguments = [
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", true.into()),
    ];
    first.declare(declare("q", "durable").args(arguments));
    first.consume("q", "low", "");
    first.publish("", "q", "1");
    let held = first.delivery();
    second.consuming(consume("q", "high", "").args([("x-priority", 5.into())]));
    first.fill("q", &["2"]);
    second.nothing();
    first.nothing();
    first.send(ack(held.tag, ""));
    assert_eq!(
        second.delivery().text(),
        "2",
        "once the other has nothing unacked"
    );
    second.ok(cancel("high"));
    first.fill("q", &["3"]);
    assert_eq!(first.delivery().text(), "3");
}
