//! Class tx: what waits for the commit, and what a rollback restores.

use crate::client::{
    Arguments, Broker, Event, Method, ack, declare, nack, publish, qos, recover, reject, text, tx_commit,
    tx_rollback, tx_select,
};

/// Proves: TX-001
#[test]
fn publishes_are_seen_from_the_commit_on_and_dropped_by_a_rollback() {
    let broker = Broker::start();
    let (channel, other) = (broker.channel(), broker.channel());
    channel.queue("q");
    other.consume("q", "t", "no-ack");
    channel.ok(tx_select());
    channel.publish("", "q", "1");
    channel.publish("", "q", "2");
    assert_eq!(channel.count("q").0, 0);
    other.nothing();
    channel.ok(tx_commit());
    assert_eq!(other.deliveries(2), ["1", "2"]);
    channel.publish("", "q", "3");
    channel.ok(tx_rollback());
    channel.publish("", "q", "4");
    channel.ok(tx_select());
    channel.ok(tx_commit());
    assert_eq!(other.deliveries(1), ["4"]);
    channel.ok(tx_commit());
    other.nothing();
}

/// Proves: TX-002
#[test]
fn acks_count_from_the_commit_on_and_a_rollback_makes_them_outstanding_again() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.fill("q", &["1", "2", "3", "4", "5"]);
    channel.ok(tx_select());
    for _ in 0..4 {
        channel.get("q").unwrap();
    }
    channel.send(ack(1, ""));
    channel.send(reject(2, true));
    channel.send(nack(3, ""));
    channel.ok(tx_rollback());
    // Nothing was requeued, and all of them can be settled once more.
    assert_eq!(channel.count("q").0, 1);
    channel.send(ack(1, ""));
    channel.send(reject(2, true));
    assert_eq!(channel.count("q").0, 1);
    channel.ok(tx_commit());
    assert_eq!(
        channel.count("q").0,
        2,
        "the rejected one returned with the commit"
    );
    channel.send(ack(4, "multiple"));
    channel.ok(tx_commit());
    channel.close();
    channel.reopen();
    assert_eq!(channel.drain("q"), ["2", "5"]);
}

/// Proves: TX-002
#[test]
fn a_tag_settled_in_a_transaction_is_no_longer_outstanding() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.fill("q", &["1"]);
    channel.ok(tx_select());
    channel.get("q").unwrap();
    channel.send(ack(1, ""));
    channel.refuses(ack(1, ""), 406, "PRECONDITION_FAILED - unknown delivery tag 1");
    assert_eq!(channel.drain("q"), ["1"], "the close discarded the ack");
}

/// Proves: TX-003
#[test]
fn commit_and_rollback_need_a_select() {
    let broker = Broker::start();
    let channel = broker.channel();
    let text = "PRECONDITION_FAILED - channel is not transactional";
    channel.refuses(tx_commit(), 406, text);
    channel.refuses(tx_rollback(), 406, text);
}

/// Proves: TX-004
#[test]
fn a_mandatory_message_returns_at_the_commit_and_before_its_answer() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(tx_select());
    channel.send(publish("", "nowhere", "x").mandatory());
    channel.nothing();
    channel.send(tx_commit());
    assert!(matches!(channel.next(), Event::Returned(message) if message.text() == "x"));
    assert!(matches!(channel.next(), Event::Method(Method::Tx(_))));
    channel.send(publish("", "nowhere", "y").mandatory());
    channel.ok(tx_rollback());
    channel.nothing();
}

/// A message is routed when it is published, not when the transaction is committed.
#[test]
fn routes_are_those_of_the_publish() {
    let broker = Broker::start();
    let (channel, admin) = (broker.channel(), broker.channel());
    channel.ok(tx_select());
    channel.publish("", "q", "too early");
    channel.nothing();
    admin.queue("q");
    channel.publish("", "q", "in time");
    channel.ok(tx_commit());
    assert_eq!(admin.drain("q"), ["in time"]);
    channel.refuses(
        publish("none", "", ""),
        404,
        "NOT_FOUND - no exchange 'none' in vhost '/'",
    );
}

/// Proves: TX-005
#[test]
fn a_queue_that_refuses_fails_the_commit() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(
        declare("full", "").args([("x-max-length", 1.into()), ("x-overflow", text("reject-publish"))]),
    );
    channel.ok(tx_select());
    channel.publish("", "full", "1");
    channel.publish("", "full", "2");
    channel.refuses(tx_commit(), 406, "PRECONDITION_FAILED - partial tx completion");
}

/// Proves: TX-007
#[test]
fn a_closed_channel_discards_what_was_not_committed() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    channel.fill("q", &["1"]);
    channel.ok(tx_select());
    channel.get("q").unwrap();
    channel.send(ack(1, ""));
    channel.publish("", "q", "2");
    channel.close();
    channel.reopen();
    assert_eq!(channel.drain("q"), ["1"]);
    channel.ok(tx_select());
    channel.send(publish("", "q", "3").persistent());
    channel.connection().cut();
    let other = broker.channel();
    while broker.server().counts().connections > 1 {
        std::thread::yield_now();
    }
    assert!(other.drain("q").is_empty());
}

/// A commit with persistent messages and acks survives a restart as a whole.
#[test]
fn a_commit_survives_a_restart() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    channel.ok(tx_select());
    for body in ["1", "2"] {
        channel.send(publish("", "q", body).persistent());
    }
    channel.ok(tx_commit());
    let got = channel.get("q").unwrap();
    channel.send(ack(got.tag, ""));
    channel.send(publish("", "q", "3").persistent());
    channel.ok(tx_commit());
    channel.send(publish("", "q", "4").persistent());
    drop((got, channel));
    broker.restart();
    assert_eq!(broker.channel().drain("q"), ["2", "3"]);
}

/// Recover does not wait for the commit, and takes only what is still unacked.
#[test]
fn recover_acts_at_once_on_what_is_unacked() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.fill("q", &["1", "2"]);
    channel.ok(tx_select());
    channel.get("q").unwrap();
    channel.get("q").unwrap();
    channel.send(ack(1, ""));
    channel.ok(recover(true));
    assert_eq!(channel.count("q").0, 1);
    channel.ok(tx_commit());
    assert_eq!(channel.drain("q"), ["2"]);
}

/// Proves: TX-006
#[test]
fn what_is_sent_during_a_commit_is_done_after_it() {
    let broker = Broker::start();
    let (channel, other) = (broker.channel(), broker.channel());
    channel.ok(declare("q", "durable"));
    channel.ok(tx_select());
    channel.publish("", "q", "in the first");
    channel.send(tx_commit());
    channel.publish("", "q", "in the second");
    // The answers come in turn: this reads the first commit's, the next one the second's.
    channel.ok(tx_commit());
    channel.ok(tx_commit());
    assert_eq!(other.count("q").0, 2);
}

/// The answer promises that what the transaction rejected is durable where its dead letters go.
#[test]
fn a_commit_is_answered_when_the_dead_letters_it_made_have_moved() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("dead", "durable"));
    let route = [
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ];
    channel.declare(declare("q", "durable").args(route));
    channel.ok(tx_select());
    for round in 1..=100 {
        channel.send(publish("", "q", "m").persistent());
        channel.ok(tx_commit());
        let got = channel.get("q").unwrap();
        channel.send(reject(got.tag, false));
        channel.ok(tx_commit());
        assert_eq!(channel.count("dead").0, round);
    }
}

/// Who consumes makes room while the commit is carried out.
#[test]
fn a_commit_counts_what_consumers_take_of_it() {
    let broker = Broker::start();
    let (channel, consumer) = (broker.channel(), broker.channel());
    let refusing = [("x-max-length", 1.into()), ("x-overflow", text("reject-publish"))];
    channel.declare(declare("full", "").args(refusing));
    consumer.ok(qos(2, false));
    consumer.consume("full", "t", "");
    channel.ok(tx_select());
    for body in ["1", "2", "3"] {
        channel.publish("", "full", body);
    }
    channel.ok(tx_commit());
    assert_eq!(consumer.deliveries(2), ["1", "2"]);
    assert_eq!(channel.count("full").0, 1);
    channel.publish("", "full", "4");
    channel.refuses(tx_commit(), 406, "PRECONDITION_FAILED - partial tx completion");
}
