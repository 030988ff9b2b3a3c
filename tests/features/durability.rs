//! What a restart keeps: the broker is stopped and started on the same directory. Kill -9 is `tests/restart.rs`.

use crate::client::{
    Arguments, Broker, Event, ack, bind, bind_exchange, confirm_select, declare, delete, delete_exchange,
    exchange, publish, text, unbind,
};

/// Proves: QUE-020
#[test]
fn persistent_messages_in_durable_queues_stay_and_everything_else_goes() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("durable", "durable"));
    channel.declare(declare("transient", ""));
    channel.declare(declare("auto-delete", "durable auto-delete"));
    channel.ok(confirm_select());
    for (number, queue) in ["durable", "transient", "durable", "auto-delete"]
        .into_iter()
        .enumerate()
    {
        channel.send(publish("", queue, format!("{number} persistent")).persistent());
        channel.send(publish("", queue, format!("{number} transient")));
    }
    channel.confirms(8);
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    assert!(!channel.exists("transient"));
    assert_eq!(
        channel.declare(declare("durable", "durable")),
        ("durable".into(), 2, 0)
    );
    assert_eq!(channel.drain("durable"), ["0 persistent", "2 persistent"]);
    assert_eq!(channel.drain("auto-delete"), ["3 persistent"]);
}

/// Proves: QUE-020
#[test]
fn acks_survive_and_what_was_unacked_is_redelivered_in_order() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    channel.ok(confirm_select());
    for body in ["1", "2", "3", "4"] {
        channel.send(publish("", "q", body).persistent());
    }
    channel.confirms(4);
    let tags: Vec<u64> = (0..3).map(|_| channel.get("q").unwrap().tag).collect();
    channel.send(ack(tags[1], ""));
    // What was handed out is noted with the queue's next write.
    channel.send(publish("", "q", "5").persistent());
    assert_eq!(channel.confirm(), (5, true));
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    let left: Vec<(String, bool)> = std::iter::from_fn(|| channel.get("q"))
        .map(|message| (message.text(), message.redelivered))
        .collect();
    let expected = [("1", true), ("3", true), ("4", false), ("5", false)];
    assert_eq!(
        left,
        expected.map(|(body, redelivered)| (body.to_owned(), redelivered))
    );
}

#[test]
fn durable_exchanges_and_bindings_between_durable_things_stay() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("kept", "topic", "durable").args([("alternate-exchange", text("spare"))]));
    channel.ok(exchange("spare", "fanout", "durable internal"));
    channel.ok(exchange("lost", "direct", ""));
    channel.declare(declare("q", "durable").args([("x-max-length", 100.into()), ("x-note", text("kept"))]));
    channel.declare(declare("transient", ""));
    channel.ok(bind("q", "kept", "a.*"));
    channel.ok(bind("q", "amq.headers", "").args([("h", 1.into())]));
    channel.ok(bind("q", "lost", "k"));
    channel.ok(bind("transient", "kept", "b"));
    channel.ok(bind_exchange("spare", "amq.direct", "k"));
    channel.ok(bind("q", "spare", ""));
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    channel.ok(exchange("kept", "topic", "durable").args([("alternate-exchange", text("spare"))]));
    channel.refuses(
        exchange("lost", "direct", "passive"),
        404,
        "NOT_FOUND - no exchange 'lost' in vhost '/'",
    );
    channel.declare(declare("q", "durable").args([("x-max-length", 100.into())]));
    channel.publish("kept", "a.x", "topic");
    channel.publish("kept", "b", "alternate");
    channel.send(publish("amq.headers", "", "headers").headers([("h", 1.into())]));
    channel.publish("amq.direct", "k", "between exchanges");
    assert_eq!(
        channel.drain("q"),
        ["topic", "alternate", "headers", "between exchanges"]
    );
}

#[test]
fn what_was_deleted_or_unbound_stays_away() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("e", "fanout", "durable"));
    channel.ok(exchange("gone", "fanout", "durable"));
    channel.declare(declare("q", "durable"));
    channel.declare(declare("deleted", "durable"));
    channel.ok(bind("q", "e", ""));
    channel.ok(bind("q", "amq.fanout", ""));
    channel.ok(bind("deleted", "amq.fanout", ""));
    channel.ok(confirm_select());
    channel.send(publish("", "deleted", "x").persistent());
    channel.confirms(1);
    channel.ok(delete("deleted", ""));
    channel.ok(delete_exchange("gone", ""));
    channel.ok(unbind("q", "e", ""));
    // The same name again is another queue.
    channel.declare(declare("deleted", "durable"));
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    assert_eq!(channel.count("deleted").0, 0);
    channel.refuses(
        exchange("gone", "fanout", "passive"),
        404,
        "NOT_FOUND - no exchange 'gone' in vhost '/'",
    );
    channel.publish("amq.fanout", "", "bound");
    channel.send(publish("e", "", "unbound").mandatory());
    assert!(matches!(channel.next(), Event::Returned(_)));
    assert_eq!(channel.drain("q"), ["bound"]);
    assert!(channel.drain("deleted").is_empty());
}
