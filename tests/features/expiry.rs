//! Messages and queues whose time ends. Tests wait for what must come, never for a time to pass.

use crate::client::{
    Arguments, Broker, Event, Method, bind, confirm_select, declare, exchange, publish, reject, text,
};

fn dead_letter_to(queue: &str) -> [(&'static str, crate::client::Value); 2] {
    [
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(queue)),
    ]
}

/// Proves: TTL-001, DLX-005
#[test]
fn the_shorter_time_to_live_counts_and_the_expiration_is_written_down() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("dead");
    let [exchange, key] = dead_letter_to("dead");
    channel.declare(declare("q", "").args([exchange, key, ("x-message-ttl", 60_000.into())]));
    channel.consume("dead", "t", "no-ack");
    // Behind one that lives on.
    channel.publish("", "q", "long");
    channel.send(publish("", "q", "short").with(|properties| properties.with_expiration("20".into())));
    let dead = channel.delivery();
    assert_eq!(dead.text(), "short");
    assert!(dead.properties.expiration().is_none());
    assert_eq!(dead.header("x-first-death-reason"), Some(&text("expired")));
    assert!(format!("{:?}", dead.header("x-death")).contains("original-expiration"));
    assert_eq!(channel.count("q").0, 1);
}

/// Proves: TTL-003
#[test]
fn what_may_not_wait_is_handed_over_or_gone() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "").args([("x-message-ttl", 0.into())]));
    channel.ok(confirm_select());
    channel.send(publish("", "q", "gone").mandatory());
    assert_eq!(channel.confirm(), (1, true));
    assert_eq!(channel.count("q").0, 0);
    channel.consume("q", "t", "no-ack");
    channel.publish("", "q", "taken");
    let events = [channel.next(), channel.next()];
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::Delivery(message) if message.text() == "taken"))
    );
}

/// Proves: TTL-004
#[test]
fn a_requeued_message_keeps_its_deadline() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("dead");
    let [exchange, key] = dead_letter_to("dead");
    channel.declare(declare("q", "").args([exchange, key, ("x-message-ttl", 30.into())]));
    channel.consume("dead", "t", "no-ack");
    channel.consume("q", "u", "");
    channel.publish("", "q", "held");
    let held = channel.delivery();
    channel.publish("", "q", "probe");
    let probe = channel.delivery();
    channel.ok(crate::client::cancel("u"));
    // The second one's time ends later: when it is dead, so is the first's.
    channel.send(reject(probe.tag, true));
    assert_eq!(channel.delivery().text(), "probe");
    channel.send(reject(held.tag, true));
    assert_eq!(channel.delivery().text(), "held");
}

#[test]
fn deadlines_survive_a_restart() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("dead", "durable"));
    let [exchange, key] = dead_letter_to("dead");
    channel.declare(declare("q", "durable").args([exchange, key]));
    channel.ok(confirm_select());
    channel.send(publish("", "q", "stays").persistent());
    let mortal = publish("", "q", "goes").persistent();
    channel.send(mortal.with(|properties| properties.with_expiration("300".into())));
    channel.confirms(2);
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    channel.consume("dead", "t", "no-ack");
    assert_eq!(channel.deliveries(1), ["goes"]);
    assert_eq!(channel.drain("q"), ["stays"]);
}

/// Proves: QUE-027
#[test]
fn an_unused_queue_expires_and_its_binding_with_it() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("e", "fanout", ""));
    channel.declare(declare("q", "").args([("x-expires", 50.into())]));
    channel.ok(bind("q", "e", ""));
    channel.consume("q", "t", "");
    channel.publish("e", "", "while it is used");
    assert_eq!(channel.deliveries(1), ["while it is used"]);
    channel.ok(crate::client::cancel("t"));
    // Redeclaring is use; asking passively as well, so the test asks in another way.
    loop {
        channel.send(publish("e", "", "?").mandatory());
        channel.ok(crate::client::access_request());
        let returned = channel.waiting();
        if returned.iter().any(|event| matches!(event, Event::Returned(_))) {
            break;
        }
    }
    assert!(!channel.exists("q"));
}

/// Proves: QUE-027
#[test]
fn a_consumer_keeps_a_queue_from_expiring() {
    let broker = Broker::start();
    let (channel, other) = (broker.channel(), broker.channel());
    channel.declare(declare("used", "").args([("x-expires", 40.into())]));
    channel.consume("used", "t", "");
    other.declare(declare("unused", "").args([("x-expires", 80.into())]));
    loop {
        other.send(publish("", "unused", "?").mandatory());
        if other
            .waiting()
            .iter()
            .any(|event| matches!(event, Event::Returned(_)))
        {
            break;
        }
    }
    assert!(channel.exists("used"), "the later one is gone");
}

#[test]
fn consumers_without_messages_do_not_wake_for_them() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "").args([("x-message-ttl", 10.into())]));
    channel.consume("q", "t", "");
    channel.publish("", "q", "now");
    match channel.next() {
        Event::Delivery(message) => assert_eq!(message.text(), "now"),
        Event::Method(Method::Basic(other)) => panic!("{other:?}"),
        other => panic!("{other:?}"),
    }
}
