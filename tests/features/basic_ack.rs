//! Acks, nacks, rejects and what returns to its place.

use crate::client::{Arguments, Broker, Channel, ack, cancel, declare, get, nack, qos, reject, text};

fn unknown(tag: u64) -> String {
    format!("PRECONDITION_FAILED - unknown delivery tag {tag}")
}

/// A channel on a queue `q` with messages `1` to `count`.
fn with_messages(broker: &Broker, count: usize) -> Channel {
    let channel = broker.channel();
    channel.queue("q");
    let bodies: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    channel.fill("q", &bodies.iter().map(String::as_str).collect::<Vec<_>>());
    channel
}

fn take(channel: &Channel, count: usize) {
    for _ in 0..count {
        channel.get("q").unwrap();
    }
}

/// What returns when the channel goes: the messages that were not settled.
fn left(broker: &Broker, channel: &Channel) -> Vec<String> {
    channel.close();
    channel.reopen();
    broker.channel().drain("q")
}

/// Proves: BAS-022
#[test]
fn an_ack_settles_one_or_all_up_to_it_or_all() {
    let broker = Broker::start();
    let channel = with_messages(&broker, 6);
    take(&channel, 6);
    channel.send(ack(2, ""));
    channel.send(ack(4, "multiple"));
    assert_eq!(left(&broker, &channel), ["5", "6"]);

    let channel = with_messages(&broker, 3);
    take(&channel, 2);
    channel.send(ack(0, "multiple"));
    channel.send(ack(0, "multiple"));
    assert_eq!(left(&broker, &channel), ["3"]);

    // Of all consumers and gets of the channel, and of no other.
    let channel = with_messages(&broker, 4);
    let other = channel.connection().channel();
    other.get("q").unwrap();
    channel.ok(qos(1, false));
    channel.consume("q", "a", "");
    channel.consume("q", "b", "");
    channel.deliveries(2);
    channel.get("q").unwrap();
    channel.send(ack(3, "multiple"));
    channel.ok(cancel("a"));
    channel.ok(cancel("b"));
    assert_eq!(channel.count("q"), (0, 0));
    assert_eq!(left(&broker, &channel), [""; 0]);
    assert_eq!(left(&broker, &other), ["1"]);
}

/// Proves: BAS-023
#[test]
fn a_tag_that_is_not_outstanding_is_unknown() {
    let broker = Broker::start();
    let channel = with_messages(&broker, 1);
    channel.refuses(ack(1, ""), 406, &unknown(1));
    channel.refuses(ack(0, ""), 406, &unknown(0));
    channel.refuses(nack(7, "requeue"), 406, &unknown(7));
    channel.refuses(reject(7, true), 406, &unknown(7));
    channel.refuses(reject(0, false), 406, &unknown(0));
    take(&channel, 1);
    channel.send(ack(1, ""));
    channel.refuses(ack(1, ""), 406, &unknown(1));
    assert!(channel.drain("q").is_empty());
}

/// Proves: BAS-024
#[test]
fn the_tag_of_a_multiple_ack_must_be_outstanding_itself() {
    let broker = Broker::start();
    let channel = with_messages(&broker, 3);
    take(&channel, 3);
    channel.send(ack(2, ""));
    channel.refuses(ack(2, "multiple"), 406, &unknown(2));
    assert_eq!(channel.drain("q"), ["1", "3"], "the refused one settled nothing");
    let channel = with_messages(&broker, 1);
    take(&channel, 1);
    channel.refuses(ack(9, "multiple"), 406, &unknown(9));
    channel.refuses(nack(9, "multiple"), 406, &unknown(9));
}

/// Proves: BAS-025
#[test]
fn an_ack_belongs_on_the_channel_of_the_delivery() {
    let broker = Broker::start();
    let channel = with_messages(&broker, 1);
    let other = channel.connection().channel();
    take(&channel, 1);
    other.refuses(ack(1, ""), 406, &unknown(1));
    channel.send(ack(1, ""));
    channel.nothing();
}

/// Proves: BAS-026
#[test]
fn what_needs_no_ack_cannot_be_acked() {
    let broker = Broker::start();
    let channel = with_messages(&broker, 2);
    channel.got(get("q", "no-ack")).unwrap();
    channel.refuses(ack(1, ""), 406, &unknown(1));
    channel.consume("q", "t", "no-ack");
    channel.delivery();
    channel.refuses(ack(1, ""), 406, &unknown(1));
}

/// Proves: BAS-027
#[test]
fn a_requeued_message_is_redelivered_at_its_old_place() {
    for requeue in [reject(2, true), nack(2, "requeue")] {
        let broker = Broker::start();
        let channel = with_messages(&broker, 5);
        take(&channel, 3);
        channel.send(requeue);
        let got = channel.get("q").unwrap();
        assert_eq!((got.text(), got.redelivered), ("2".into(), true));
        let next = channel.get("q").unwrap();
        assert_eq!((next.text(), next.redelivered), ("4".into(), false));
        channel.send(reject(got.tag, true));
        channel.send(reject(1, true));
        channel.send(reject(3, true));
        assert_eq!(channel.drain("q"), ["1", "2", "3", "5"]);
    }
}

/// Proves: BAS-027
#[test]
fn a_requeued_message_may_go_to_another_consumer_or_to_the_same() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.ok(qos(1, false));
    channel.consume("q", "t", "");
    channel.fill("q", &["1", "2"]);
    for round in 0..5 {
        let delivery = channel.delivery();
        assert_eq!((delivery.text(), delivery.redelivered), ("1".into(), round > 0));
        channel.send(nack(delivery.tag, "requeue"));
    }
    let held = channel.delivery();
    let other = broker.channel();
    other.consume("q", "u", "");
    assert_eq!(other.delivery().text(), "2");
    channel.ok(cancel("t"));
    channel.send(reject(held.tag, true));
    let delivery = other.delivery();
    assert_eq!((delivery.text(), delivery.redelivered), ("1".into(), true));
}

/// Proves: BAS-028
#[test]
fn several_requeued_at_once_keep_their_order() {
    let broker = Broker::start();
    let channel = with_messages(&broker, 6);
    take(&channel, 5);
    channel.send(nack(3, "multiple requeue"));
    let again: Vec<(String, bool)> = std::iter::from_fn(|| channel.get("q"))
        .map(|message| (message.text(), message.redelivered))
        .collect();
    let expected = [("1", true), ("2", true), ("3", true), ("6", false)];
    assert_eq!(
        again,
        expected.map(|(body, redelivered)| (body.to_owned(), redelivered))
    );
    channel.send(nack(0, "multiple requeue"));
    assert_eq!(channel.drain("q"), ["1", "2", "3", "4", "5", "6"]);
}

/// Proves: BAS-029
#[test]
fn a_message_rejected_for_good_is_gone_or_dead_lettered() {
    let broker = Broker::start();
    let channel = with_messages(&broker, 4);
    take(&channel, 4);
    channel.send(reject(1, false));
    channel.send(nack(2, ""));
    channel.send(nack(4, "multiple"));
    channel.nothing();
    assert_eq!(left(&broker, &channel), [""; 0]);

    channel.queue("dead");
    channel.declare(declare("letters", "").args([
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ]));
    channel.fill("letters", &["1", "2"]);
    let (first, second) = (channel.get("letters").unwrap(), channel.get("letters").unwrap());
    channel.send(reject(first.tag, false));
    channel.send(ack(second.tag, ""));
    channel.consume("dead", "t", "no-ack");
    assert_eq!(channel.delivery().text(), "1");
    channel.nothing();
}

/// Proves: CHN-009
#[test]
fn a_closed_channel_gives_back_what_it_has_and_leaves_its_consumers() {
    let broker = Broker::start();
    let channel = with_messages(&broker, 4);
    let other = channel.connection().channel();
    channel.ok(qos(1, false));
    channel.consume("q", "t", "");
    channel.delivery();
    take(&channel, 2);
    channel.close();
    assert_eq!(other.count("q"), (4, 0));
    let again: Vec<(String, bool)> = std::iter::from_fn(|| other.get("q"))
        .map(|message| (message.text(), message.redelivered))
        .collect();
    let expected = [("1", true), ("2", true), ("3", true), ("4", false)];
    assert_eq!(
        again,
        expected.map(|(body, redelivered)| (body.to_owned(), redelivered))
    );
    // The same when the whole connection goes without a word.
    let watcher = broker.channel();
    other.connection().cut();
    watcher.consume("q", "t", "");
    assert_eq!(watcher.deliveries(4), ["1", "2", "3", "4"]);
}
