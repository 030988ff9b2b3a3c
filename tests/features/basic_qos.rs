//! The limit of a whole channel, the single active consumer, and priority levels as a client sees them.

use crate::client::{
    Arguments, Broker, Method, Value, ack, cancel, consume, declare, publish, qos, recover, text,
};

fn yes() -> Value {
    true.into()
}

/// Proves: BAS-003
#[test]
fn a_global_prefetch_bounds_what_all_consumers_of_the_channel_hold() {
    let broker = Broker::start();
    let channel = broker.channel();
    for queue in ["a", "b"] {
        channel.queue(queue);
    }
    channel.ok(qos(3, true));
    channel.consume("a", "a", "");
    channel.consume("b", "b", "");
    let publisher = broker.channel();
    publisher.fill("a", &["1", "2"]);
    publisher.fill("b", &["3", "4"]);
    let first = channel.delivery();
    assert_eq!(first.text(), "1");
    assert_eq!(channel.deliveries(2), ["2", "3"]);
    channel.nothing();
    assert!(channel.get("b").is_some(), "basic.get does not ask the limit");
    publisher.fill("b", &["5"]);
    channel.nothing();
    channel.send(ack(first.tag, ""));
    assert_eq!(channel.deliveries(1), ["5"]);
    channel.nothing();
    // A limit taken away lets go what waits, and so does one of the other kind.
    publisher.fill("a", &["6"]);
    channel.nothing();
    channel.ok(qos(0, true));
    assert_eq!(channel.deliveries(1), ["6"]);
    channel.ok(qos(1, true));
    publisher.fill("a", &["7"]);
    channel.nothing();
    channel.ok(qos(0, false));
    assert_eq!(channel.deliveries(1), ["7"]);
}

/// Proves: BAS-003
#[test]
fn a_global_prefetch_comes_beside_that_of_each_consumer_and_counts_what_is_out() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.ok(qos(2, false));
    channel.consume("q", "t", "");
    channel.ok(qos(5, true));
    let publisher = broker.channel();
    publisher.fill("q", &["1", "2", "3", "4"]);
    let second = {
        channel.delivery();
        channel.delivery()
    };
    channel.nothing();
    // Two are out: a limit of one is full, until both are acked.
    channel.ok(qos(1, true));
    channel.send(ack(second.tag, ""));
    channel.nothing();
    channel.send(ack(0, "multiple"));
    assert_eq!(channel.deliveries(1), ["3"]);
    channel.nothing();
    channel.ok(recover(true));
    assert_eq!(channel.deliveries(1), ["3"]);
    channel.nothing();
}

/// Proves: QQ-003
#[test]
fn a_quorum_queue_does_not_know_a_global_prefetch() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(declare("q", "durable").args([("x-queue-type", text("quorum"))]));
    channel.ok(qos(1, true));
    channel.fails(
        consume("q", "t", ""),
        540,
        "NOT_IMPLEMENTED - queue 'q' in vhost '/' does not support global qos",
    );
}

fn single_active(queue: &str) -> Method {
    declare(queue, "durable").args([("x-single-active-consumer", yes())])
}

/// Proves: SAC-001
#[test]
fn one_consumer_is_active_and_the_next_in_rank_follows_with_what_came_back_first() {
    let broker = Broker::start();
    let publisher = broker.channel();
    publisher.ok(single_active("q"));
    let (first, second, third) = (broker.channel(), broker.channel(), broker.channel());
    first.consume("q", "first", "");
    second.consume("q", "second", "");
    third.ok(consume("q", "third", "").args([("x-priority", 5.into())]));
    publisher.fill("q", &["1", "2"]);
    assert_eq!(first.deliveries(2), ["1", "2"]);
    assert_eq!(publisher.count("q"), (0, 3));
    first.close();
    assert_eq!(third.deliveries(2), ["1", "2"]);
    second.nothing();
    third.ok(cancel("third"));
    publisher.fill("q", &["3"]);
    assert_eq!(second.deliveries(1), ["3"]);
    broker.channel().refuses(
        consume("q", "x", "exclusive"),
        403,
        "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use",
    );
}

/// Proves: PRI-002
#[test]
fn a_maximal_priority_fits_an_octet() {
    let broker = Broker::start();
    for (max, detail) in [(256, "{max_value_exceeded,256}"), (-1, "{value_negative,-1}")] {
        broker.channel().refuses(
            declare("q", "durable").args([("x-max-priority", Value::LongInt(max))]),
            406,
            &format!(
                "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/': {detail}"
            ),
        );
    }
}

/// Proves: PRI-001, PRI-003
#[test]
fn higher_priorities_overtake_in_the_queue() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(declare("q", "durable").args([("x-max-priority", Value::LongInt(3))]));
    for (body, priority) in [("0", None), ("2", Some(2)), ("9", Some(9)), ("3", Some(3))] {
        let mut message = publish("", "q", body);
        if let Some(priority) = priority {
            message = message.with(|properties| properties.with_priority(priority));
        }
        channel.send(message);
    }
    let top = channel.get("q").unwrap();
    assert_eq!(top.text(), "9");
    channel.ok(recover(true));
    assert_eq!(channel.drain("q"), ["9", "3", "2", "0"]);
}
