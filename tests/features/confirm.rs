//! Publisher confirms.

use crate::client::{
    Arguments, Broker, Event, access_request, ack, bind, confirm_select, declare, get, publish, qos, text,
    tx_select,
};

/// Proves: CNF-001
#[test]
fn numbers_start_at_one_with_the_first_publish_after_select() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.publish("", "q", "before");
    channel.ok(confirm_select());
    channel.publish("", "q", "first");
    assert_eq!(channel.confirm(), (1, true));
    channel.ok(confirm_select());
    channel.publish("", "q", "second");
    assert_eq!(channel.confirm(), (2, true));
    // A publish that closes the channel gets neither ack nor nack; a new channel counts anew.
    channel.refuses(
        publish("none", "", ""),
        404,
        "NOT_FOUND - no exchange 'none' in vhost '/'",
    );
    channel.ok(confirm_select());
    channel.publish("", "q", "third");
    assert_eq!(channel.confirm(), (1, true));
    assert_eq!(channel.drain("q"), ["before", "first", "second", "third"]);
}

/// Proves: CNF-002
#[test]
fn a_channel_confirms_or_is_transactional() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(tx_select());
    channel.refuses(
        confirm_select(),
        406,
        "PRECONDITION_FAILED - cannot switch from tx to confirm mode",
    );
    channel.ok(confirm_select());
    channel.refuses(
        tx_select(),
        406,
        "PRECONDITION_FAILED - cannot switch from confirm to tx mode",
    );
}

/// Proves: CNF-003
#[test]
fn what_is_unroutable_is_confirmed_at_once() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(confirm_select());
    channel.publish("", "nowhere", "1");
    channel.publish("amq.fanout", "", "2");
    channel.send(publish("amq.topic", "k", "3").persistent());
    assert_eq!(channel.confirms(3), [(1, true), (2, true), (3, true)]);
}

/// Proves: CNF-004
#[test]
fn transient_and_persistent_messages_are_confirmed_in_every_mix() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("durable", "durable"));
    channel.declare(declare("transient", ""));
    channel.ok(confirm_select());
    for number in 0..60_u64 {
        let queue = if number % 2 == 0 { "durable" } else { "transient" };
        let message = publish("", queue, number.to_string());
        channel.send(if number % 3 == 0 {
            message.persistent()
        } else {
            message
        });
    }
    let confirms = channel.confirms(60);
    assert!(confirms.iter().all(|(_, acked)| *acked));
    assert_eq!(channel.count("durable").0, 30);
    drop(channel);
    // Confirmed and persistent means: it is there after a restart.
    broker.restart();
    let expected: Vec<String> = (0..60).step_by(6).map(|number| number.to_string()).collect();
    assert_eq!(broker.channel().drain("durable"), expected);
}

/// Proves: CNF-004
#[test]
fn a_message_that_was_consumed_before_it_was_synced_is_confirmed_too() {
    let broker = Broker::start();
    let (publisher, consumer) = (broker.channel(), broker.channel());
    publisher.declare(declare("q", "durable"));
    consumer.consume("q", "t", "no-ack");
    publisher.ok(confirm_select());
    for body in ["1", "2", "3"] {
        publisher.send(publish("", "q", body).persistent());
    }
    assert_eq!(consumer.deliveries(3), ["1", "2", "3"]);
    assert_eq!(publisher.confirms(3), [(1, true), (2, true), (3, true)]);
}

/// Proves: CNF-005
#[test]
fn a_message_for_several_queues_is_confirmed_once_and_is_in_all() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    for (queue, flags) in [("a", "durable"), ("b", ""), ("c", "durable")] {
        channel.declare(declare(queue, flags));
        channel.ok(bind(queue, "amq.fanout", ""));
    }
    channel.ok(confirm_select());
    channel.send(publish("amq.fanout", "", "x").persistent());
    assert_eq!(channel.confirms(1), [(1, true)]);
    for queue in ["a", "b", "c"] {
        assert_eq!(channel.count(queue).0, 1, "{queue}");
    }
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    assert_eq!(channel.drain("a"), ["x"]);
    assert_eq!(channel.drain("c"), ["x"]);
}

/// Proves: CNF-006
#[test]
fn a_queue_that_refuses_makes_it_a_nack_even_when_others_accept() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(
        declare("full", "").args([("x-max-length", 1.into()), ("x-overflow", text("reject-publish"))]),
    );
    channel.queue("open");
    channel.ok(bind("full", "amq.fanout", ""));
    channel.ok(bind("open", "amq.fanout", ""));
    channel.ok(confirm_select());
    channel.publish("", "full", "1");
    channel.publish("", "full", "2");
    channel.publish("amq.fanout", "", "3");
    channel.publish("", "open", "4");
    assert_eq!(
        channel.confirms(4),
        [(1, true), (2, false), (3, false), (4, true)]
    );
    assert_eq!(channel.drain("full"), ["1"]);
    assert_eq!(channel.drain("open"), ["3", "4"]);
}

/// Proves: CNF-007
#[test]
fn a_message_dropped_from_the_head_is_confirmed() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "").args([("x-max-length", 1.into())]));
    channel.ok(confirm_select());
    for body in ["1", "2", "3"] {
        channel.publish("", "q", body);
    }
    assert_eq!(channel.confirms(3), [(1, true), (2, true), (3, true)]);
    assert_eq!(channel.drain("q"), ["3"]);
}

/// Proves: CNF-008, CNF-009
#[test]
fn every_number_is_confirmed_once_with_its_own_outcome() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("durable", "durable"));
    channel.queue("transient");
    channel.declare(
        declare("full", "").args([("x-max-length", 0.into()), ("x-overflow", text("reject-publish"))]),
    );
    channel.ok(confirm_select());
    let mut expected = Vec::new();
    for number in 1..=400_u64 {
        let queue =
            ["durable", "transient", "full", "nowhere", "durable"][usize::try_from(number * 7 % 5).unwrap()];
        channel.send(publish("", queue, "x").persistent());
        expected.push((number, queue != "full"));
    }
    // `confirms` fails when a multiple covers what was or will be confirmed otherwise.
    assert_eq!(channel.confirms(400), expected);
    channel.nothing();
}

/// Proves: CNF-009
#[test]
fn each_channel_has_its_own_numbers() {
    let broker = Broker::start();
    let connection = broker.connect();
    let (one, two) = (connection.channel(), connection.channel());
    one.declare(declare("q", "durable"));
    one.ok(confirm_select());
    two.ok(confirm_select());
    for body in 0..50 {
        one.send(publish("", "q", body.to_string()).persistent());
        two.send(publish("", "q", body.to_string()).persistent());
        two.send(publish("", "none", ""));
    }
    assert_eq!(one.confirms(50).len(), 50);
    assert_eq!(two.confirms(100).len(), 100);
    assert_eq!(one.count("q").0, 100);
}

/// Confirms wait for nothing that consumers do.
#[test]
fn a_confirm_does_not_wait_for_consumers() {
    let broker = Broker::start();
    let (publisher, consumer) = (broker.channel(), broker.channel());
    publisher.declare(declare("q", "durable"));
    consumer.ok(qos(1, false));
    consumer.consume("q", "t", "");
    publisher.ok(confirm_select());
    for _ in 0..3 {
        publisher.send(publish("", "q", "x").persistent());
    }
    assert_eq!(publisher.confirms(3).len(), 3);
    let held = consumer.delivery();
    consumer.send(ack(held.tag, ""));
    consumer.ok(access_request());
    assert!(publisher.got(get("q", "")).is_some());
    assert!(matches!(consumer.next(), Event::Delivery(_)));
}
