//! Queues that take no message twice.

use crate::client::{
    Arguments, Broker, Channel, ack, confirm_select, declare, get, publish, purge, reject, text, tx_commit,
    tx_select,
};

/// Publishes a message with a key; true when it was confirmed, false when refused.
fn accepts(channel: &Channel, key: &str) -> bool {
    channel.send(publish("", "q", key).headers([("x-deduplication-header", text(key))]));
    channel.confirm().1
}

fn set_up(broker: &Broker) -> Channel {
    let channel = broker.channel();
    channel.queue("twice");
    let arguments = [
        ("x-message-deduplication", true.into()),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("twice")),
    ];
    channel.declare(declare("q", "durable").args(arguments));
    channel.ok(confirm_select());
    channel
}

/// Proves: RTE-032
#[test]
fn a_key_is_refused_until_its_message_has_left() {
    let broker = Broker::start();
    let channel = set_up(&broker);
    assert!(accepts(&channel, "a") && accepts(&channel, "b") && !accepts(&channel, "a"));
    // Nobody waits for a dead letter.
    while channel.count("twice").0 == 0 {}
    let twice = channel.got(get("twice", "no-ack")).unwrap();
    assert_eq!(twice.header("x-first-death-reason"), Some(&text("maxlen")));
    for _ in 0..2 {
        channel.publish("", "q", "without a key");
        assert!(channel.confirm().1);
    }
    assert_eq!(channel.count("q").0, 4);
}

#[test]
fn an_unacked_message_holds_its_key_and_an_acked_rejected_or_purged_one_does_not() {
    let broker = Broker::start();
    let channel = set_up(&broker);
    assert!(accepts(&channel, "a"));
    let got = channel.get("q").unwrap();
    assert!(!accepts(&channel, "a"), "unacked");
    channel.send(reject(got.tag, true));
    assert!(!accepts(&channel, "a"), "requeued");
    let got = channel.get("q").unwrap();
    channel.send(ack(got.tag, ""));
    assert!(accepts(&channel, "a"), "acked");
    let got = channel.get("q").unwrap();
    channel.send(reject(got.tag, false));
    assert!(accepts(&channel, "a"), "rejected");
    channel.ok(purge("q"));
    assert!(accepts(&channel, "a"), "purged");
    channel.got(get("q", "no-ack")).unwrap();
    assert!(accepts(&channel, "a"), "taken without ack");
    channel.ok(purge("q"));
    channel.consume("q", "t", "no-ack");
    assert!(accepts_and_delivers(&channel) && accepts_and_delivers(&channel));
}

/// A consumer that needs no ack has the message before its confirm or after.
fn accepts_and_delivers(channel: &Channel) -> bool {
    channel.send(publish("", "q", "c").headers([("x-deduplication-header", text("c"))]));
    let mut events = [channel.next(), channel.next()];
    events.sort_by_key(|event| matches!(event, crate::client::Event::Delivery(_)));
    matches!(events[1], crate::client::Event::Delivery(_))
}

#[test]
fn a_transaction_with_a_duplicate_is_partial() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "").args([("x-message-deduplication", true.into())]));
    channel.ok(tx_select());
    for _ in 0..2 {
        channel.send(publish("", "q", "m").headers([("x-deduplication-header", 7.into())]));
    }
    channel.refuses(tx_commit(), 406, "PRECONDITION_FAILED - partial tx completion");
    assert_eq!(channel.drain("q"), ["m"]);
}

#[test]
fn a_key_is_free_when_its_message_expires_and_when_it_is_dropped() {
    let broker = Broker::start();
    let channel = broker.channel();
    let arguments = [
        ("x-message-deduplication", true.into()),
        ("x-max-length", 1.into()),
    ];
    channel.declare(declare("q", "").args(arguments));
    channel.ok(confirm_select());
    assert!(accepts(&channel, "a") && !accepts(&channel, "a"));
    assert!(accepts(&channel, "b") && accepts(&channel, "a"), "b pushed a out");
    channel.ok(purge("q"));
    let brief = publish("", "q", "c").headers([("x-deduplication-header", text("c"))]);
    channel.send(brief.with(|properties| properties.with_expiration("1".into())));
    assert!(channel.confirm().1);
    while channel.count("q").0 > 0 {}
    assert!(accepts(&channel, "c"));
}
