//! Where a message goes: default, direct and fanout exchanges, exchange-to-exchange bindings, alternate exchanges.

use crate::client::{
    Arguments, Broker, Channel, Event, access_request, bind, bind_exchange, declare, delete, exchange,
    publish, text, unbind_exchange,
};

/// A channel with queues that are bound to nothing yet.
fn with_queues(broker: &Broker, queues: &[&str]) -> Channel {
    let channel = broker.channel();
    for queue in queues {
        channel.queue(queue);
    }
    channel
}

/// Publishes a message with its key as the body.
fn send_keys(channel: &Channel, exchange: &str, keys: &[&str]) {
    for key in keys {
        channel.publish(exchange, key, key);
    }
    channel.ok(access_request());
}

/// Proves: RTE-001
#[test]
fn the_default_exchange_routes_to_the_queue_of_that_name() {
    let broker = Broker::start();
    let channel = with_queues(&broker, &["a", "a.b", "*"]);
    send_keys(&channel, "", &["a", "a.b", "*", "#", "none", "A"]);
    assert_eq!(channel.drain("a"), ["a"]);
    assert_eq!(channel.drain("a.b"), ["a.b"]);
    assert_eq!(channel.drain("*"), ["*"]);
}

/// Proves: RTE-002
#[test]
fn direct_compares_the_whole_key() {
    let broker = Broker::start();
    let channel = with_queues(&broker, &["one", "two", "empty"]);
    channel.ok(exchange("e", "direct", ""));
    channel.ok(bind("one", "e", "k"));
    channel.ok(bind("two", "e", "k"));
    channel.ok(bind("two", "e", "k.*"));
    channel.ok(bind("empty", "e", ""));
    send_keys(&channel, "e", &["k", "K", "k.x", "k.*", "", "kk"]);
    assert_eq!(channel.drain("one"), ["k"]);
    assert_eq!(channel.drain("two"), ["k", "k.*"]);
    assert_eq!(channel.drain("empty"), [""]);
}

/// Proves: RTE-003
#[test]
fn fanout_ignores_keys() {
    let broker = Broker::start();
    let channel = with_queues(&broker, &["one", "two"]);
    channel.ok(exchange("e", "fanout", ""));
    channel.ok(bind("one", "e", "k"));
    channel.ok(bind("two", "e", "other"));
    send_keys(&channel, "e", &["k", "", "x"]);
    assert_eq!(channel.drain("one"), ["k", "", "x"]);
    assert_eq!(channel.drain("two"), ["k", "", "x"]);
}

/// Proves: RTE-015
#[test]
fn several_matching_bindings_give_a_queue_one_copy() {
    let broker = Broker::start();
    let channel = with_queues(&broker, &["q"]);
    channel.ok(bind("q", "amq.topic", "a.*"));
    channel.ok(bind("q", "amq.topic", "*.b"));
    channel.ok(bind("q", "amq.topic", "#"));
    channel.ok(bind("q", "amq.fanout", "1"));
    channel.ok(bind("q", "amq.fanout", "2"));
    channel.ok(bind("q", "amq.direct", "a.b"));
    channel.ok(bind("q", "amq.direct", "a.b").args([("other", 1.into())]));
    for exchange in ["amq.topic", "amq.fanout", "amq.direct"] {
        channel.publish(exchange, "a.b", exchange);
    }
    assert_eq!(channel.drain("q"), ["amq.topic", "amq.fanout", "amq.direct"]);
}

/// Proves: RTE-016
#[test]
fn two_paths_between_exchanges_give_a_queue_one_copy() {
    let broker = Broker::start();
    let channel = with_queues(&broker, &["q"]);
    for name in ["start", "left", "right", "end"] {
        channel.ok(exchange(name, "fanout", ""));
    }
    channel.ok(bind_exchange("left", "start", ""));
    channel.ok(bind_exchange("right", "start", ""));
    channel.ok(bind_exchange("end", "left", ""));
    channel.ok(bind_exchange("end", "right", ""));
    channel.ok(bind("q", "end", ""));
    channel.ok(bind("q", "left", ""));
    channel.publish("start", "k", "once");
    assert_eq!(channel.drain("q"), ["once"]);
    channel.ok(unbind_exchange("end", "left", ""));
    channel.publish("start", "k", "still once");
    assert_eq!(channel.drain("q"), ["still once"]);
}

/// Proves: RTE-017
#[test]
fn a_cycle_of_exchanges_ends() {
    let broker = Broker::start();
    let channel = with_queues(&broker, &["q1", "q2"]);
    for name in ["a", "b", "c"] {
        channel.ok(exchange(name, "fanout", ""));
    }
    channel.ok(bind_exchange("b", "a", ""));
    channel.ok(bind_exchange("c", "b", ""));
    channel.ok(bind_exchange("a", "c", ""));
    channel.ok(bind_exchange("a", "a", ""));
    channel.ok(bind("q1", "a", ""));
    channel.ok(bind("q2", "c", ""));
    for entry in ["a", "b", "c"] {
        channel.publish(entry, "", entry);
    }
    assert_eq!(channel.drain("q1"), ["a", "b", "c"]);
    assert_eq!(channel.drain("q2"), ["a", "b", "c"]);
}

/// Proves: RTE-018
#[test]
fn an_alternate_exchange_takes_what_the_bindings_leave_and_so_on_along_a_chain() {
    let broker = Broker::start();
    let channel = with_queues(&broker, &["first", "second", "rest"]);
    channel.ok(exchange("a", "direct", "").args([("alternate-exchange", text("b"))]));
    channel.ok(exchange("b", "direct", "").args([("alternate-exchange", text("c"))]));
    channel.ok(exchange("c", "fanout", "internal").args([("alternate-exchange", text("a"))]));
    channel.ok(bind("first", "a", "1"));
    channel.ok(bind("second", "b", "1"));
    channel.ok(bind("second", "b", "2"));
    channel.ok(bind("rest", "c", ""));
    send_keys(&channel, "a", &["1", "2", "3"]);
    assert_eq!(channel.drain("first"), ["1"]);
    assert_eq!(channel.drain("second"), ["2"]);
    assert_eq!(channel.drain("rest"), ["3"]);
    // When the last one gives nothing either, the loop back to the first ends there.
    channel.ok(delete("rest", ""));
    channel.send(publish("a", "3", "3").mandatory());
    assert!(
        matches!(channel.next(), Event::Returned(message) if message.exchange == "a" && message.key == "3")
    );
}

/// Proves: RTE-019
#[test]
fn an_exchange_as_destination_counts_even_when_it_routes_nowhere() {
    let broker = Broker::start();
    let channel = with_queues(&broker, &["alternate", "below"]);
    channel.ok(exchange("a", "fanout", "").args([("alternate-exchange", text("amq.fanout"))]));
    channel.ok(bind("alternate", "amq.fanout", ""));
    channel.ok(exchange("dead-end", "direct", ""));
    channel.ok(bind_exchange("dead-end", "a", ""));
    channel.send(publish("a", "k", "lost").mandatory());
    assert!(matches!(channel.next(), Event::Returned(_)));
    assert!(channel.drain("alternate").is_empty());
    // The destination's own alternate exchange may take it.
    channel.ok(exchange("resourceful", "direct", "").args([("alternate-exchange", text("amq.topic"))]));
    channel.ok(bind("below", "amq.topic", "#"));
    channel.ok(bind_exchange("resourceful", "a", ""));
    channel.publish("a", "k", "found");
    assert_eq!(channel.drain("below"), ["found"]);
}

/// Proves: RTE-020
#[test]
fn a_missing_alternate_exchange_leaves_a_message_unroutable() {
    let broker = Broker::start();
    let channel = with_queues(&broker, &["q"]);
    channel.ok(exchange("a", "direct", "").args([("alternate-exchange", text("later"))]));
    channel.send(publish("a", "k", "1").mandatory());
    assert!(matches!(channel.next(), Event::Returned(message) if message.reply == (312, "NO_ROUTE".into())));
    // It is looked up when it is needed.
    channel.ok(exchange("later", "fanout", ""));
    channel.ok(bind("q", "later", ""));
    channel.send(publish("a", "k", "2").mandatory());
    assert_eq!(channel.drain("q"), ["2"]);
    channel.nothing();
}

/// Proves: RTE-022
#[test]
fn a_delivery_keeps_the_exchange_and_key_of_its_publish() {
    let broker = Broker::start();
    let channel = with_queues(&broker, &["q"]);
    channel.ok(exchange("a", "fanout", ""));
    channel.ok(exchange("b", "direct", "").args([("alternate-exchange", text("c"))]));
    channel.ok(exchange("c", "topic", ""));
    channel.ok(bind_exchange("b", "a", "any"));
    channel.ok(bind("q", "c", "#"));
    channel.publish("a", "the.key", "x");
    let got = channel.get("q").unwrap();
    assert_eq!((&*got.exchange, &*got.key), ("a", "the.key"));
    channel.consume("q", "t", "no-ack");
    channel.publish("a", "the.key", "y");
    let delivery = channel.delivery();
    assert_eq!((&*delivery.exchange, &*delivery.key), ("a", "the.key"));
}

/// Routes are remembered between publishes: each change of the topology must be seen by the very next one.
#[test]
fn a_changed_topology_is_seen_by_the_next_publish() {
    let broker = Broker::start();
    let publisher = broker.channel();
    let admin = broker.channel();
    admin.ok(exchange("e", "direct", ""));
    let mandatory = || publish("e", "k", "x").mandatory();
    let routed = |expected: bool| {
        publisher.send(mandatory());
        let returned = publisher
            .waiting()
            .iter()
            .filter(|event| matches!(event, Event::Returned(_)))
            .count();
        assert_eq!(returned, usize::from(!expected));
    };
    routed(false);
    admin.queue("q");
    admin.ok(bind("q", "e", "k"));
    routed(true);
    admin.ok(crate::client::unbind("q", "e", "k"));
    routed(false);
    admin.ok(bind_exchange("amq.fanout", "e", "k"));
    routed(false);
    admin.ok(bind("q", "amq.fanout", ""));
    routed(true);
    admin.ok(delete("q", ""));
    routed(false);
    admin.declare(declare("q", ""));
    admin.ok(bind("q", "e", "k"));
    routed(true);
    assert_eq!(admin.count("q").0, 1);
}
