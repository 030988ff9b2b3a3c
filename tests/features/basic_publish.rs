//! Publishing, returns and basic.get.

use crate::client::{Broker, Event, access_request, bind, confirm_select, declare, get, publish, qos, text};

/// Proves: BAS-015
#[test]
fn publishing_to_a_missing_exchange_closes_the_channel_and_what_follows_is_lost() {
    let broker = Broker::start();
    let connection = broker.connect();
    let (channel, other) = (connection.channel(), connection.channel());
    channel.queue("q");
    channel.publish("", "q", "before");
    channel.send(publish("none", "k", "x"));
    channel.publish("", "q", "after");
    let close = channel.closed();
    assert_eq!(
        (close.code, &*close.text),
        (404, "NOT_FOUND - no exchange 'none' in vhost '/'")
    );
    assert_eq!((close.class, close.method), (60, 40));
    assert_eq!(other.drain("q"), ["before"]);
}

/// Proves: BAS-016
#[test]
fn immediate_is_not_implemented() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.fails(
        publish("", "q", "x").immediate(),
        540,
        "NOT_IMPLEMENTED - immediate=true",
    );
}

/// Proves: BAS-017
#[test]
fn an_unroutable_mandatory_message_comes_back_whole_and_before_its_confirm() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(confirm_select());
    let message = publish("amq.direct", "nowhere", "content")
        .mandatory()
        .headers([("h", text("v"))])
        .with(|properties| properties.with_message_id("id".into()).with_priority(3));
    channel.send(message);
    let Event::Returned(returned) = channel.next() else {
        panic!("the return comes first");
    };
    assert_eq!(returned.reply, (312, "NO_ROUTE".to_owned()));
    assert_eq!(
        (&*returned.exchange, &*returned.key, &*returned.text()),
        ("amq.direct", "nowhere", "content")
    );
    assert_eq!(returned.header("h"), Some(&text("v")));
    assert_eq!(returned.properties.message_id().as_ref().unwrap().as_str(), "id");
    assert_eq!(returned.properties.priority(), &Some(3));
    assert_eq!(channel.confirm(), (1, true));
    // To the default exchange as well; and one that is not mandatory vanishes.
    channel.send(publish("", "nowhere", "x").mandatory());
    channel.publish("", "nowhere", "y");
    assert!(matches!(channel.next(), Event::Returned(returned) if returned.text() == "x"));
    let rest = channel.waiting();
    assert!(
        !rest.iter().any(|event| matches!(event, Event::Returned(_))),
        "{rest:?}"
    );
}

/// Proves: BAS-018
#[test]
fn a_routed_mandatory_message_does_not_come_back_even_if_the_queue_drops_it() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.send(publish("", "q", "kept").mandatory());
    channel.nothing();
    use crate::client::Arguments;
    channel.declare(declare("none", "").args([("x-max-length", 0.into())]));
    channel.send(publish("", "none", "dropped").mandatory());
    channel.nothing();
    assert_eq!(channel.count("none").0, 0);
}

/// Proves: BAS-019
#[test]
fn an_expiration_is_a_decimal_number_and_nothing_else() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    let expiring =
        |value: &str| publish("", "q", "x").with(|properties| properties.with_expiration(value.into()));
    for (value, detail) in [
        ("abc", "no_integer"),
        ("", "no_integer"),
        (" 5", "no_integer"),
        ("10s", "{leftover_string,\"s\"}"),
        ("1.5", "{leftover_string,\".5\"}"),
        ("-1", "{value_negative,-1}"),
        ("315360000001", "{value_too_large,315360000001}"),
    ] {
        let text = format!("PRECONDITION_FAILED - invalid expiration '{value}': {detail}");
        channel.refuses(expiring(value), 406, &text);
    }
    for value in ["60000", "315360000000", "+60000"] {
        channel.send(expiring(value));
        let got = channel.get("q").unwrap();
        assert_eq!(got.properties.expiration().as_ref().unwrap().as_str(), value);
    }
}

/// Proves: BAS-020
#[test]
fn get_gives_a_message_and_how_many_remain() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    assert!(channel.get("q").is_none());
    channel.ok(bind("q", "amq.topic", "#"));
    for body in ["1", "2", "3"] {
        channel.publish("amq.topic", "the.key", body);
    }
    let first = channel.get("q").unwrap();
    assert_eq!(
        (first.text(), first.remaining, first.redelivered),
        ("1".into(), 2, false)
    );
    assert_eq!((&*first.exchange, &*first.key), ("amq.topic", "the.key"));
    assert_eq!(channel.got(get("q", "no-ack")).unwrap().remaining, 1);
    assert_eq!(channel.get("q").unwrap().remaining, 0);
    assert!(channel.get("q").is_none());
}

/// Proves: BAS-021
#[test]
fn get_knows_no_prefetch_and_shares_the_tags() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.fill("q", &["1", "2", "3", "4"]);
    channel.ok(qos(1, false));
    channel.consume("q", "t", "");
    assert_eq!(channel.delivery().tag, 1);
    assert_eq!(
        (channel.get("q").unwrap().tag, channel.get("q").unwrap().tag),
        (2, 3)
    );
    channel.send(crate::client::ack(2, ""));
    channel.nothing();
    channel.send(crate::client::ack(1, ""));
    let last = channel.delivery();
    assert_eq!((last.tag, last.text()), (4, "4".into()));
}

/// Proves: BAS-038, FRM-021
#[test]
fn bodies_of_every_size_come_back_as_they_were() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    channel.consume("q", "t", "no-ack");
    let frame = 131_072 - 8;
    for size in [
        0,
        1,
        100,
        4095,
        4096,
        4097,
        frame - 1,
        frame,
        frame + 1,
        3 * frame,
        5_000_000,
    ] {
        let body: Vec<u8> = (0..size).map(|at: usize| (at % 251).to_le_bytes()[0]).collect();
        channel.send(publish("", "q", &body));
        assert!(channel.delivery().body == body, "{size} octets, transient");
        channel.send(publish("", "q", &body).persistent());
        assert!(channel.delivery().body == body, "{size} octets, persistent");
        channel.send(publish("", "none", &body).mandatory());
        assert!(
            matches!(channel.next(), Event::Returned(returned) if returned.body == body),
            "{size} octets"
        );
    }
}

/// Proves: FRM-020
#[test]
fn a_body_larger_than_the_limit_closes_the_channel() {
    let broker = Broker::start_with(|options| options.limits.max_message_bytes = 1000);
    let channel = broker.channel();
    channel.queue("q");
    channel.send(publish("", "q", vec![b'x'; 1000]));
    channel.refuses(
        publish("", "q", vec![b'x'; 1001]),
        406,
        "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000",
    );
    assert_eq!(channel.count("q").0, 1);
    // Before anything else about the publish is looked at.
    channel.refuses(
        publish("none", "q", vec![b'x'; 2000]),
        406,
        "PRECONDITION_FAILED - message size 2000 is larger than configured max size 1000",
    );
}

/// A queue receives what other channels publish while it is consumed, closed and opened again: nothing is lost and
/// nothing comes twice.
#[test]
fn consumers_that_come_and_go_lose_nothing() {
    let broker = Broker::start();
    let publisher = broker.channel();
    publisher.queue("q");
    let bodies: Vec<String> = (0..300).map(|number| format!("{number:03}")).collect();
    let mut seen = Vec::new();
    for chunk in bodies.chunks(30) {
        let consumer = broker.channel();
        consumer.ok(qos(7, false));
        consumer.consume("q", "t", "");
        for body in chunk {
            publisher.publish("", "q", body);
        }
        publisher.ok(access_request());
        for _ in 0..15 {
            let delivery = consumer.delivery();
            consumer.send(crate::client::ack(delivery.tag, ""));
            seen.push(delivery.text());
        }
        consumer.close();
    }
    seen.extend(publisher.drain("q"));
    seen.sort();
    assert_eq!(seen, bodies);
}

/// Such a message alone is more than a queue keeps in memory, and its store has nothing to read back.
#[test]
fn the_largest_transient_messages_come_out_of_a_durable_queue() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    let body = "x".repeat(16 << 20);
    for _ in 0..2 {
        channel.publish("", "q", &body);
    }
    assert_eq!(channel.get("q").unwrap().body.len(), body.len());
    channel.consume("q", "t", "no-ack");
    assert_eq!(channel.delivery().body.len(), body.len());
}
