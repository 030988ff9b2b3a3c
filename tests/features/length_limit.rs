//! Queues that are full: what goes, what is refused, what the publisher is told.

use crate::client::{
    Arguments, Broker, bind, confirm_select, declare, exchange, publish, text, tx_commit, tx_select,
};

/// Proves: LEN-001, CNF-007
#[test]
fn a_full_queue_drops_its_oldest_and_confirms_them_all() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable").args([("x-max-length", 2.into())]));
    channel.ok(confirm_select());
    for body in ["1", "2", "3", "4"] {
        channel.send(publish("", "q", body).persistent());
    }
    assert!(channel.confirms(4).iter().all(|(_, acked)| *acked));
    assert_eq!(channel.drain("q"), ["3", "4"]);
}

/// Proves: LEN-002
#[test]
fn bytes_of_bodies_are_limited() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "").args([("x-max-length-bytes", 10.into())]));
    channel.fill("q", &["12345", "678", "90", "x"]);
    assert_eq!(channel.drain("q"), ["678", "90", "x"]);
    channel.fill("q", &["this is more than it may hold"]);
    assert_eq!(channel.count("q").0, 0);
}

/// Proves: LEN-004, CNF-006
#[test]
fn a_refused_message_is_nacked_though_others_took_it() {
    let broker = Broker::start();
    let channel = broker.channel();
    let limit = [("x-max-length", 1.into()), ("x-overflow", text("reject-publish"))];
    channel.declare(declare("small", "durable").args(limit));
    channel.declare(declare("large", "durable"));
    channel.ok(exchange("both", "fanout", ""));
    channel.ok(bind("small", "both", ""));
    channel.ok(bind("large", "both", ""));
    channel.ok(confirm_select());
    for body in ["1", "2"] {
        channel.send(publish("both", "", body).persistent());
    }
    assert_eq!(channel.confirms(2), [(1, true), (2, false)]);
    assert_eq!(channel.drain("small"), ["1"]);
    assert_eq!(channel.drain("large"), ["1", "2"]);
}

/// Proves: LEN-004
#[test]
fn a_refused_message_is_dead_lettered_when_asked_for() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("dead");
    channel.declare(declare("q", "").args([
        ("x-max-length", 1.into()),
        ("x-overflow", text("reject-publish-dlx")),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ]));
    channel.ok(confirm_select());
    channel.consume("dead", "t", "no-ack");
    channel.publish("", "q", "kept");
    channel.publish("", "q", "refused");
    let mut deliveries = Vec::new();
    let mut confirms = Vec::new();
    for _ in 0..3 {
        match channel.next() {
            crate::client::Event::Delivery(message) => deliveries.push(message),
            other => confirms.push(format!("{other:?}")),
        }
    }
    assert_eq!(deliveries[0].text(), "refused");
    assert_eq!(
        deliveries[0].header("x-first-death-reason"),
        Some(&text("maxlen"))
    );
    assert!(confirms[1].contains("Nack"), "{confirms:?}");
    assert_eq!(channel.drain("q"), ["kept"]);
}

/// Proves: LEN-003, LEN-006
#[test]
fn only_ready_messages_count() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "").args([("x-max-length", 1.into())]));
    channel.fill("q", &["1"]);
    channel.get("q").unwrap();
    channel.fill("q", &["2"]);
    assert_eq!(channel.drain("q"), ["2"]);
    channel.declare(declare("nothing", "").args([("x-max-length", 0.into())]));
    channel.fill("nothing", &["lost"]);
    assert_eq!(channel.count("nothing").0, 0);
    channel.consume("nothing", "t", "");
    channel.publish("", "nothing", "handed over");
    assert_eq!(channel.deliveries(1), ["handed over"]);
}

/// Proves: TX-005
#[test]
fn a_refusal_during_a_commit_closes_the_channel() {
    let broker = Broker::start();
    let channel = broker.channel();
    let limit = [("x-max-length", 1.into()), ("x-overflow", text("reject-publish"))];
    channel.declare(declare("q", "").args(limit));
    channel.ok(tx_select());
    channel.publish("", "q", "1");
    channel.publish("", "q", "2");
    channel.refuses(tx_commit(), 406, "PRECONDITION_FAILED - partial tx completion");
    assert_eq!(channel.drain("q"), ["1"]);
}
