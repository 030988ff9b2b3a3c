//! Quorum-type queues on one node: what they refuse, how messages come back, how dead letters are kept.

use crate::client::{
    Arguments, Broker, Value, bind, confirm_select, consume, declare, delete, exchange, nack, publish,
    recover, reject, text,
};

fn quorum() -> (&'static str, Value) {
    ("x-queue-type", text("quorum"))
}

/// Proves: QQ-001, QQ-013
#[test]
fn flags_and_arguments_that_do_not_fit_are_refused() {
    let broker = Broker::start();
    let channel = broker.channel();
    for (flags, property) in [
        ("durable auto-delete", "auto-delete"),
        ("durable exclusive", "exclusive-owner"),
        ("", "non-durable"),
    ] {
        channel.refuses(
            declare("q", flags).args([quorum()]),
            406,
            &format!("PRECONDITION_FAILED - invalid property '{property}' for queue 'q' in vhost '/'"),
        );
    }
    channel.refuses(
        declare("", "durable").args([quorum()]),
        406,
        "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue",
    );
    channel.refuses(
        declare("q", "durable").args([quorum(), ("x-max-priority", 5.into())]),
        406,
        "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type \
         rabbit_quorum_queue",
    );
}

/// Proves: QQ-002
#[test]
fn a_deletion_has_no_conditions() {
    let broker = Broker::start();
    for flag in ["if-unused", "if-empty"] {
        let channel = broker.channel();
        channel.declare(declare("q", "durable").args([quorum()]));
        channel.fails(
            delete("q", flag),
            540,
            &format!(
                "NOT_IMPLEMENTED - cannot delete queue 'q' in vhost '/'. queue.delete operations with {flag} flag set \
                 are not supported by quorum queues"
            ),
        );
    }
    broker.channel().ok(delete("q", ""));
}

/// Proves: QQ-004, QQ-005, QQ-006
#[test]
fn failures_are_counted_told_and_limited() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("dead");
    channel.consume("dead", "dead", "no-ack");
    channel.declare(declare("q", "durable").args([
        quorum(),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ]));
    channel.publish("", "q", "poison");
    let other = broker.channel();
    other.consume("q", "t", "");
    let first = other.delivery();
    assert!(!first.redelivered);
    assert_eq!(first.header("x-acquired-count"), None);
    other.send(nack(first.tag, "requeue"));
    let second = other.delivery();
    assert!(second.redelivered);
    assert_eq!(second.header("x-acquired-count"), Some(&Value::LongLongInt(1)));
    assert_eq!(second.header("x-delivery-count"), None, "a nack is no failure");
    other.ok(recover(true));
    let mut tag = other.delivery().tag;
    for failed in 1..=20 {
        other.send(reject(tag, true));
        let again = other.delivery();
        assert_eq!(
            again.header("x-delivery-count"),
            Some(&Value::LongLongInt(failed))
        );
        tag = again.tag;
    }
    other.send(reject(tag, true));
    let dead = channel.delivery();
    assert_eq!(dead.header("x-first-death-reason"), Some(&text("delivery_limit")));
}

/// Proves: QQ-007
#[test]
fn what_came_back_goes_first() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable").args([quorum()]));
    channel.fill("q", &["1", "2", "3"]);
    let tags: Vec<u64> = (0..2).map(|_| channel.get("q").unwrap().tag).collect();
    channel.send(nack(tags[1], "requeue"));
    channel.send(nack(tags[0], "requeue"));
    assert_eq!(channel.drain("q"), ["2", "1", "3"]);
}

/// Proves: QQ-008
#[test]
fn priorities_need_no_declaration() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable").args([quorum()]));
    for (body, priority) in [("3", Some(3)), ("none", None), ("200", Some(200)), ("5", Some(5))] {
        let message = publish("", "q", body);
        channel.send(match priority {
            Some(priority) => message.with(|properties| properties.with_priority(priority)),
            None => message,
        });
    }
    channel.ok(crate::client::access_request());
    assert_eq!(channel.drain("q"), ["200", "5", "none", "3"]);
}

/// Proves: QQ-011
#[test]
fn a_full_queue_nacks() {
    let broker = Broker::start();
    let channel = broker.channel();
    let limit = [
        quorum(),
        ("x-max-length", 1.into()),
        ("x-overflow", text("reject-publish")),
    ];
    channel.declare(declare("q", "durable").args(limit));
    channel.ok(confirm_select());
    channel.publish("", "q", "1");
    assert_eq!(channel.confirm(), (1, true));
    channel.publish("", "q", "2");
    assert_eq!(channel.confirm(), (2, false));
}

/// Proves: QQ-012
#[test]
fn a_dead_letter_without_a_target_is_kept_until_there_is_one() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable").args([
        quorum(),
        ("x-overflow", text("reject-publish")),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-dead-letter-exchange", text("later")),
    ]));
    channel.ok(confirm_select());
    channel.publish("", "q", "kept");
    assert_eq!(channel.confirm(), (1, true));
    channel.consuming(consume("q", "t", ""));
    channel.send(reject(channel.delivery().tag, false));
    channel.ok(crate::client::access_request());
    drop(channel);
    // The queue still has it, whatever happens to the broker.
    broker.restart();
    let channel = broker.channel();
    channel.ok(exchange("later", "fanout", "durable"));
    channel.declare(declare("dead", "durable"));
    channel.ok(bind("dead", "later", ""));
    channel.send(reject(channel.get("q").unwrap().tag, false));
    channel.consume("dead", "t", "no-ack");
    assert_eq!(channel.deliveries(1), ["kept"]);
}

/// Proves: QQ-015
#[test]
fn transient_messages_survive() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable").args([quorum()]));
    channel.ok(confirm_select());
    channel.publish("", "q", "transient");
    assert_eq!(channel.confirm(), (1, true));
    drop(channel);
    broker.restart();
    let left = broker.channel().get("q").unwrap();
    assert_eq!(left.text(), "transient");
    assert_eq!(left.properties.delivery_mode(), &None);
}

#[test]
fn a_purge_takes_dead_letters_that_wait_for_a_target() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable").args([
        ("x-queue-type", text("quorum")),
        ("x-overflow", text("reject-publish")),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-dead-letter-exchange", text("nowhere")),
    ]));
    channel.fill("q", &["dies", "waits"]);
    channel.send(reject(channel.get("q").unwrap().tag, false));
    let purged = channel.ok(crate::client::purge("q"));
    assert_eq!(crate::client::removed(&purged), 2);
    drop(channel);
    broker.restart();
    assert_eq!(broker.channel().count("q").0, 0);
}
