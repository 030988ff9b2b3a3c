//! Consuming: qos, consume, cancel, and who gets what.

use crate::client::{
    Arguments, Broker, Event, Raw, access_request, ack, cancel, consume, declare, get, nack, qos, recover,
    reject, text,
};
use amq_protocol::protocol::{AMQPClass, basic};

/// Proves: BAS-001
#[test]
fn a_prefetch_in_octets_is_not_implemented() {
    let broker = Broker::start();
    let channel = broker.channel();
    let raw = Raw {
        class: 60,
        method: 10,
        fields: vec![0, 0, 0x10, 0, 0, 10, 0],
    };
    channel.fails(raw, 540, "NOT_IMPLEMENTED - prefetch_size!=0 (4096)");
}

/// Proves: BAS-002
#[test]
fn a_prefetch_holds_for_consumers_made_later() {
    let broker = Broker::start();
    let channel = broker.channel();
    for queue in ["unlimited", "two", "one"] {
        channel.queue(queue);
        channel.fill(queue, &["1", "2", "3"]);
    }
    channel.consume("unlimited", "unlimited", "");
    channel.ok(qos(2, false));
    channel.consume("two", "two", "");
    channel.ok(qos(1, false));
    channel.consume("one", "one", "");
    let came: Vec<Event> = channel.waiting();
    let of = |tag: &str| {
        came.iter()
            .filter(|event| matches!(event, Event::Delivery(message) if message.consumer == tag))
            .count()
    };
    assert_eq!((of("unlimited"), of("two"), of("one")), (3, 2, 1));
}

/// Proves: BAS-004
#[test]
fn a_prefetch_bounds_what_a_consumer_has_unacked_and_each_ack_brings_one_more() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.fill("q", &["1", "2", "3", "4", "5", "6", "7"]);
    channel.ok(qos(2, false));
    channel.consume("q", "t", "");
    let first = channel.delivery();
    let second = channel.delivery();
    channel.nothing();
    channel.send(ack(first.tag, ""));
    let third = channel.delivery();
    assert_eq!(third.text(), "3");
    channel.nothing();
    channel.send(ack(third.tag, "multiple"));
    assert_eq!(channel.deliveries(2), ["4", "5"]);
    channel.nothing();
    channel.send(reject(third.tag + 1, false));
    assert_eq!(channel.deliveries(1), ["6"]);
    channel.send(nack(0, "multiple"));
    assert_eq!(channel.deliveries(1), ["7"]);
    assert_eq!((first.tag, second.tag), (1, 2));

    // Each consumer has its own, and zero is no bound.
    channel.queue("r");
    channel.ok(qos(0, false));
    channel.consume("r", "all", "");
    let bodies: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    channel.fill("r", &bodies);
    assert_eq!(channel.deliveries(100), bodies);
}

/// Proves: BAS-004
#[test]
fn deliveries_without_acknowledgement_are_not_bounded() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.fill("q", &["1", "2", "3"]);
    channel.ok(qos(1, false));
    channel.consume("q", "t", "no-ack");
    assert_eq!(channel.deliveries(3), ["1", "2", "3"]);
    assert_eq!(channel.count("q"), (0, 1));
}

/// Proves: BAS-005
#[test]
fn an_empty_tag_is_replaced_by_one_of_the_brokers() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    let (one, two) = (channel.consume("q", "", ""), channel.consume("q", "", ""));
    for tag in [&one, &two] {
        let random = tag.strip_prefix("amq.ctag-").unwrap_or_else(|| panic!("{tag}"));
        assert_eq!(random.len(), 22, "{tag}");
    }
    assert_ne!(one, two);
    channel.ok(cancel(&one));
    channel.fill("q", &["x"]);
    assert_eq!(channel.delivery().consumer, two);
}

/// Proves: BAS-006
#[test]
fn a_tag_can_be_used_once_per_channel() {
    let broker = Broker::start();
    let connection = broker.connect();
    let (channel, second) = (connection.channel(), connection.channel());
    channel.queue("q");
    channel.consume("q", "t", "");
    second.consume("q", "t", "");
    channel.ok(cancel("t"));
    channel.consume("q", "t", "");
    channel.fails(
        consume("q", "t", ""),
        530,
        "NOT_ALLOWED - attempt to reuse consumer tag 't'",
    );
}

/// Proves: BAS-007
#[test]
fn a_missing_queue_cannot_be_consumed() {
    let broker = Broker::start();
    let channel = broker.channel();
    let text = "NOT_FOUND - no queue 'q' in vhost '/'";
    channel.refuses(consume("q", "t", ""), 404, text);
    channel.refuses(get("q", ""), 404, text);
}

/// Proves: BAS-008
#[test]
fn an_exclusive_consumer_is_alone() {
    let broker = Broker::start();
    let (channel, other) = (broker.channel(), broker.channel());
    let text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use";
    channel.queue("q");
    channel.consume("q", "t", "exclusive");
    other.refuses(consume("q", "u", ""), 403, text);
    other.refuses(consume("q", "u", "exclusive"), 403, text);
    // Everything else is free to all.
    other.fill("q", &["x"]);
    assert_eq!(channel.delivery().text(), "x");
    channel.ok(cancel("t"));
    other.consume("q", "u", "");
    channel.refuses(consume("q", "t", "exclusive"), 403, text);
}

/// Proves: BAS-009
#[test]
fn consume_ok_comes_before_the_first_delivery() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.fill("q", &["1", "2"]);
    channel.send(consume("q", "t", ""));
    assert!(matches!(
        channel.next(),
        Event::Method(AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_)))
    ));
    assert_eq!(channel.deliveries(2), ["1", "2"]);
}

/// Proves: BAS-010
#[test]
fn no_local_is_ignored() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.consume("q", "t", "no-local");
    channel.fill("q", &["my own"]);
    assert_eq!(channel.delivery().text(), "my own");
}

/// Proves: BAS-011
#[test]
fn cancelling_an_unknown_tag_succeeds() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(cancel("none"));
    channel.queue("q");
    channel.consume("q", "t", "");
    channel.ok(cancel("t"));
    channel.ok(cancel("t"));
}

/// Proves: BAS-012
#[test]
fn after_cancel_ok_nothing_comes_and_what_came_can_be_acked() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.consume("q", "t", "");
    channel.fill("q", &["1", "2", "3"]);
    let first = channel.delivery();
    channel.deliveries(2);
    channel.ok(cancel("t"));
    channel.fill("q", &["4"]);
    channel.nothing();
    assert_eq!(
        channel.count("q"),
        (1, 0),
        "the unacked ones stay with the channel"
    );
    channel.send(ack(first.tag, ""));
    channel.send(reject(first.tag + 1, true));
    assert_eq!(channel.count("q"), (2, 0));
    channel.close();
    channel.reopen();
    assert_eq!(channel.drain("q"), ["2", "3", "4"]);
}

/// Proves: BAS-014
#[test]
fn a_clients_cancel_ok_is_taken() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.send(AMQPClass::Basic(basic::AMQPMethod::CancelOk(basic::CancelOk {
        consumer_tag: "t".into(),
    })));
    channel.nothing();
}

/// Proves: BAS-031
#[test]
fn equal_consumers_take_turns() {
    let broker = Broker::start();
    let publisher = broker.channel();
    publisher.queue("q");
    let consumers: Vec<_> = (0..3).map(|_| broker.channel()).collect();
    for consumer in &consumers {
        consumer.consume("q", "t", "no-ack");
    }
    publisher.fill("q", &["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
    let mut turns: Vec<Vec<String>> = consumers.iter().map(|consumer| consumer.deliveries(3)).collect();
    turns.sort();
    assert_eq!(turns, [["0", "3", "6"], ["1", "4", "7"], ["2", "5", "8"]]);
}

/// Proves: BAS-031
#[test]
fn a_consumer_that_is_full_is_passed_over() {
    let broker = Broker::start();
    let publisher = broker.channel();
    publisher.queue("q");
    let (full, free) = (broker.channel(), broker.channel());
    full.ok(qos(1, false));
    full.consume("q", "t", "");
    free.consume("q", "t", "");
    publisher.fill("q", &["0", "1", "2", "3", "4"]);
    let held = full.delivery();
    full.nothing();
    let others = free.deliveries(4);
    assert!(!others.contains(&held.text()), "{others:?}");
    full.send(ack(held.tag, ""));
    full.ok(access_request());
    publisher.fill("q", &["5", "6"]);
    full.delivery();
    free.delivery();
}

/// Proves: BAS-032
#[test]
fn what_a_channel_publishes_arrives_in_order() {
    let broker = Broker::start();
    let (publisher, consumer) = (broker.channel(), broker.channel());
    publisher.declare(declare("q", "durable"));
    consumer.consume("q", "t", "");
    let bodies: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    for (at, body) in bodies.iter().enumerate() {
        let message = crate::client::publish("", "q", body);
        publisher.send(if at % 3 == 0 {
            message.persistent()
        } else {
            message
        });
    }
    assert_eq!(consumer.deliveries(500), bodies);
}

/// Proves: BAS-033
#[test]
fn delivery_tags_count_every_delivery_of_a_channel() {
    let broker = Broker::start();
    let connection = broker.connect();
    let (channel, other) = (connection.channel(), connection.channel());
    channel.queue("q");
    channel.queue("r");
    channel.consume("q", "acks", "");
    channel.consume("r", "does not", "no-ack");
    channel.fill("q", &["1"]);
    channel.fill("r", &["2"]);
    channel.fill("q", &["3"]);
    let tags: Vec<u64> = (0..3).map(|_| channel.delivery().tag).collect();
    assert_eq!(tags, [1, 2, 3]);
    channel.queue("s");
    channel.fill("s", &["4", "5", "6"]);
    assert_eq!(channel.got(get("s", "no-ack")).unwrap().tag, 4);
    assert_eq!(channel.get("s").unwrap().tag, 5);
    assert_eq!(other.get("s").unwrap().tag, 1, "each channel counts for itself");
    channel.close();
    channel.reopen();
    channel.fill("s", &["7"]);
    assert_eq!(channel.get("s").unwrap().tag, 1);
}

/// Proves: BAS-036
#[test]
fn unknown_consume_arguments_are_taken_and_a_priority_is_a_number() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.ok(consume("q", "a", "").args([
        ("x-cancel-on-ha-failover", true.into()),
        ("x-unheard-of", text("x")),
        ("x-priority", (-5).into()),
    ]));
    channel.refuses(
        consume("q", "b", "").args([("x-priority", text("high"))]),
        406,
        "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"",
    );
    channel.refuses(
        consume("q", "b", "").args([("x-stream-offset", 1.into())]),
        406,
        "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 'q' in vhost '/' of queue type \
         rabbit_classic_queue",
    );
}

/// Proves: BAS-037
#[test]
fn a_higher_consumer_priority_is_served_until_it_is_full() {
    let broker = Broker::start();
    let publisher = broker.channel();
    publisher.queue("q");
    let (low, high) = (broker.channel(), broker.channel());
    low.consume("q", "low", "");
    high.ok(qos(2, false));
    high.ok(consume("q", "high", "").args([("x-priority", 10.into())]));
    publisher.fill("q", &["1", "2", "3", "4"]);
    let first = high.delivery();
    assert_eq!((first.text(), high.delivery().text()), ("1".into(), "2".into()));
    assert_eq!(low.deliveries(2), ["3", "4"]);
    high.send(ack(first.tag, ""));
    high.ok(access_request());
    publisher.fill("q", &["5", "6"]);
    assert_eq!(high.deliveries(1), ["5"]);
    assert_eq!(low.deliveries(1), ["6"]);
    high.nothing();
}

/// Proves: BAS-030
#[test]
fn recover_requeues_what_the_channel_has() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.fill("q", &["1", "2", "3"]);
    for _ in 0..2 {
        channel.get("q").unwrap();
    }
    channel.ok(recover(true));
    let again: Vec<(String, bool)> = std::iter::from_fn(|| channel.get("q"))
        .map(|message| (message.text(), message.redelivered))
        .collect();
    assert_eq!(
        again,
        [("1".into(), true), ("2".into(), true), ("3".into(), false)]
    );
    channel.send(crate::client::recover_async(true));
    channel.nothing();
    assert_eq!(channel.count("q"), (3, 0));
    // What was delivered before the recover is no longer this channel's.
    channel.refuses(ack(1, ""), 406, "PRECONDITION_FAILED - unknown delivery tag 1");
    channel.fails(recover(false), 540, "NOT_IMPLEMENTED - requeue=false");
}

/// The answer comes first: lapin forgets at it what it was delivered and has not read.
/// Proves: BAS-030
#[test]
fn recover_is_answered_before_what_it_requeues_is_delivered_again() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.fill("q", &["1", "2"]);
    channel.consume("q", "t", "");
    assert_eq!(channel.deliveries(2), ["1", "2"]);
    channel.send(recover(true));
    let answer = channel.next();
    let expected = AMQPClass::Basic(basic::AMQPMethod::RecoverOk(basic::RecoverOk {}));
    assert!(
        matches!(&answer, Event::Method(method) if *method == expected),
        "{answer:?}"
    );
    assert_eq!(channel.deliveries(2), ["1", "2"]);
}

/// Proves: BAS-035
#[test]
fn methods_that_only_a_server_sends_or_nobody_knows_are_not_implemented() {
    let broker = Broker::start();
    let text = "COMMAND_INVALID - unimplemented method";
    for method in [
        AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(basic::ConsumeOk::default())),
        AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {})),
        AMQPClass::Basic(basic::AMQPMethod::GetEmpty(basic::GetEmpty {})),
    ] {
        broker.channel().fails(method, 503, text);
    }
    // basic.credit, an extension of RabbitMQ's 3.x years.
    let mut fields = vec![1, b't'];
    fields.extend([0, 0, 0, 10, 0]);
    let credit = Raw {
        class: 60,
        method: 200,
        fields,
    };
    let channel = broker.channel();
    channel.send(credit);
    assert_eq!(channel.connection().closed().code, 503);
}
