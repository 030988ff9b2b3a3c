//! `amq.settle`: deliveries settled by a publish on their channel.

use leveret::{broker::permission::Permission, server::UserSpec};

use crate::client::{
    Arguments, Broker, Channel, Event, Login, Publish, Value, ack, confirm_select, declare, publish, text,
    tx_commit, tx_rollback, tx_select,
};

fn settle<const N: usize>(tag: u64, op: &str, more: [(&str, Value); N]) -> Publish {
    let tag = Value::LongLongInt(i64::try_from(tag).unwrap());
    let mut order = publish("amq.settle", "", "").headers([("x-delivery-tag", tag), ("x-op", text(op))]);
    for (name, value) in more {
        order = order.header(name, value);
    }
    order
}

fn start() -> (Broker, Channel) {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    channel.ok(confirm_select());
    (broker, channel)
}

#[test]
fn a_retry_comes_back_when_asked_and_counts_as_a_failure() {
    let (_broker, channel) = start();
    channel.send(publish("", "q", "a").persistent());
    channel.send(publish("", "q", "b").persistent());
    channel.confirms(2);
    let first = channel.get("q").unwrap();
    channel.send(settle(first.tag, "retry", [("x-delay", 150.into())]));
    assert_eq!(channel.confirm(), (3, true));
    // It holds up nobody.
    let second = channel.get("q").unwrap();
    assert_eq!(second.text(), "b");
    channel.send(ack(second.tag, ""));
    assert_eq!(channel.count("q").0, 1, "it waits in the queue");
    assert!(channel.get("q").is_none());
    channel.consume("q", "t", "");
    let again = channel.delivery();
    assert_eq!((&*again.text(), again.redelivered), ("a", true));
    assert_eq!(again.header("x-delivery-count"), Some(&Value::LongLongInt(1)));
    channel.send(settle(again.tag, "retry", []));
    let third = channel.delivery();
    assert_eq!(third.header("x-delivery-count"), Some(&Value::LongLongInt(2)));
}

#[test]
fn a_limit_ends_retries() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("dead");
    channel.declare(declare("q", "durable").args([
        ("x-delivery-limit", 1.into()),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ]));
    channel.publish("", "q", "a");
    channel.consume("q", "t", "");
    for _ in 0..2 {
        let tag = channel.delivery().tag;
        channel.send(settle(tag, "retry", [("x-delay", 1.into())]));
    }
    channel.consume("dead", "d", "no-ack");
    let dead = channel.delivery();
    assert_eq!(dead.header("x-first-death-reason"), Some(&text("delivery_limit")));
}

#[test]
fn a_wait_and_a_count_survive_a_restart() {
    let (mut broker, channel) = start();
    channel.send(publish("", "q", "a").persistent());
    channel.confirms(1);
    let first = channel.get("q").unwrap();
    channel.send(settle(first.tag, "retry", [("x-delay", 700.into())]));
    assert_eq!(channel.confirm(), (2, true));
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    assert!(channel.get("q").is_none(), "it still waits");
    channel.consume("q", "t", "");
    let again = channel.delivery();
    assert_eq!(again.header("x-delivery-count"), Some(&Value::LongLongInt(1)));
    assert!(again.redelivered);
}

#[test]
fn a_rejection_takes_annotations_along() {
    let (_broker, channel) = start();
    channel.queue("dead");
    channel.declare(declare("d", "durable").args([
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ]));
    channel.send(publish("", "d", "a").headers([("mine", 1.into())]));
    channel.confirms(1);
    let tag = channel.get("d").unwrap().tag;
    let added = Value::FieldTable(crate::client::table([("why", text("no such customer"))]));
    channel.send(settle(
        tag,
        "reject",
        [("x-reason", text("poison")), ("x-annotations", added)],
    ));
    assert_eq!(channel.confirm(), (2, true));
    channel.consume("dead", "t", "no-ack");
    let dead = channel.delivery();
    assert_eq!(dead.header("why"), Some(&text("no such customer")));
    assert_eq!(dead.header("x-reason"), Some(&text("poison")));
    assert_eq!(dead.header("mine"), Some(&1.into()));
    assert_eq!(dead.header("x-first-death-reason"), Some(&text("rejected")));
}

#[test]
fn an_ack_and_a_publish_are_one_step() {
    let (mut broker, channel) = start();
    channel.declare(declare("next", "durable"));
    channel.send(publish("", "q", "job").persistent());
    channel.confirms(1);
    let tag = channel.get("q").unwrap().tag;
    let order = settle(tag, "ack-and-publish", [("x-routing-key", text("next"))]);
    channel.send(order.body("result").persistent());
    assert_eq!(channel.confirm(), (2, true));
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    assert_eq!(channel.count("q").0, 0);
    let result = channel.get("next").unwrap();
    assert_eq!(result.text(), "result");
    assert_eq!(
        result.header("x-op"),
        None,
        "what was meant for the broker stays there"
    );
}

#[test]
fn an_ack_whose_publish_cannot_be_is_none() {
    let (_broker, channel) = start();
    channel.declare(
        declare("full", "").args([("x-max-length", 0.into()), ("x-overflow", text("reject-publish"))]),
    );
    channel.send(publish("", "q", "job"));
    channel.confirms(1);
    let tag = channel.get("q").unwrap().tag;
    channel.send(settle(tag, "ack-and-publish", [("x-routing-key", text("full"))]));
    assert_eq!(channel.confirm(), (2, false));
    channel.send(settle(tag, "ack-and-publish", [("x-routing-key", text("nowhere"))]).mandatory());
    assert!(matches!(channel.next(), Event::Returned(_)));
    assert_eq!(channel.confirm(), (3, false));
    // It is still outstanding.
    channel.send(settle(tag, "retry", []));
    assert_eq!(channel.confirm(), (4, true));
    assert_eq!(channel.count("q").0, 1);
}

#[test]
fn errors_close_the_channel() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    let text_of = |what: &str| format!("PRECONDITION_FAILED - invalid message: amq.settle: {what}");
    channel.refuses(publish("amq.settle", "", ""), 406, &text_of("no headers"));
    channel.refuses(
        settle(0, "retry", []),
        406,
        &text_of("header 'x-delivery-tag' must be a delivery tag"),
    );
    channel.refuses(
        settle(1, "forget", []),
        406,
        &text_of("header 'x-op' must be one of retry, extend, reject, ack-and-publish"),
    );
    channel.refuses(
        settle(7, "retry", []),
        406,
        "PRECONDITION_FAILED - unknown delivery tag 7",
    );
    channel.fill("q", &["a"]);
    let tag = channel.get("q").unwrap().tag;
    channel.refuses(
        settle(tag, "ack-and-publish", [("x-exchange", text("nowhere"))]),
        406,
        &text_of("no exchange 'nowhere' in vhost '/'"),
    );
    assert_eq!(channel.count("q").0, 1);
}

#[test]
fn a_transaction_holds_orders_back() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.queue("next");
    channel.fill("q", &["a"]);
    let tag = channel.get("q").unwrap().tag;
    channel.ok(tx_select());
    channel.send(settle(tag, "ack-and-publish", [("x-routing-key", text("next"))]));
    channel.ok(tx_rollback());
    assert_eq!(channel.count("next").0, 0);
    channel.send(settle(tag, "ack-and-publish", [("x-routing-key", text("next"))]));
    assert_eq!(channel.count("next").0, 0);
    channel.ok(tx_commit());
    assert_eq!(channel.count("next").0, 1);
    assert_eq!(channel.count("q").0, 0);
}

#[test]
fn an_order_needs_the_rights_of_what_it_does() {
    let (broker, channel) = start();
    channel.send(publish("", "q", "a"));
    channel.confirms(1);
    broker.tell(async |handle| handle.put_user(UserSpec::new("u", "pw")).await.unwrap());
    let permit = |write: &str, read: &str| {
        let permission = Permission {
            user: "u".into(),
            vhost: "/".into(),
            configure: String::new(),
            write: write.to_owned(),
            read: read.to_owned(),
        };
        broker.tell(async move |handle| handle.set_permission(permission).await.unwrap());
    };
    permit("", "q");
    let user = broker
        .connect_as(&Login {
            user: "u",
            password: "pw",
            ..Login::default()
        })
        .channel();
    let tag = user.get("q").unwrap().tag;
    user.refuses(
        settle(tag, "ack-and-publish", [("x-exchange", text("amq.topic"))]),
        403,
        "ACCESS_REFUSED - write access to exchange 'amq.topic' in vhost '/' refused for user 'u'",
    );
    let tag = user.get("q").unwrap().tag;
    permit("", "");
    user.refuses(
        settle(tag, "retry", []),
        403,
        "ACCESS_REFUSED - read access to queue 'q' in vhost '/' refused for user 'u'",
    );
}
