//! Messages that wait for their time.

use crate::client::{
    Arguments, Broker, Event, Value, bind, bind_exchange, confirm_select, declare, delete, exchange, publish,
    reject, text,
};

#[test]
fn a_publish_may_ask_its_queues_to_wait() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.ok(confirm_select());
    channel.send(publish("", "q", "later").headers([("x-opt-delivery-delay", 120.into())]));
    channel.send(publish("", "q", "sooner").headers([("x-opt-delivery-delay", 40.into())]));
    channel.send(publish("", "q", "now").headers([("x-opt-delivery-delay", 0.into())]));
    channel.send(publish("", "q", "past").headers([("x-opt-delivery-time", Value::Timestamp(1))]));
    assert!(channel.confirms(4).iter().all(|(_, acked)| *acked));
    assert_eq!(channel.count("q").0, 2);
    channel.consume("q", "t", "no-ack");
    assert_eq!(channel.deliveries(4), ["now", "past", "sooner", "later"]);
}

#[test]
fn what_is_due_at_the_same_time_keeps_its_order() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    channel.ok(confirm_select());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let due = i64::try_from(now.as_millis()).unwrap() + 150;
    for number in 0..200 {
        let message = publish("", "q", number.to_string()).persistent();
        channel.send(message.headers([("x-opt-delivery-time", Value::LongLongInt(due))]));
    }
    channel.consume("q", "t", "no-ack");
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let mut got = Vec::new();
    while got.len() < 200 {
        if let crate::client::Event::Delivery(message) = channel.next() {
            got.push(message.text());
        }
    }
    assert_eq!(got, expected);
}

#[test]
fn waiting_messages_survive_a_restart_and_go_with_their_queue() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    channel.declare(declare("gone", "durable"));
    channel.ok(confirm_select());
    for queue in ["q", "gone"] {
        let message = publish("", queue, "waits").persistent();
        channel.send(message.headers([("x-opt-delivery-delay", 400.into())]));
    }
    channel.confirms(2);
    channel.ok(delete("gone", ""));
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    channel.consume("q", "t", "no-ack");
    assert_eq!(channel.deliveries(1), ["waits"]);
    assert!(!channel.exists("gone"));
}

#[test]
fn a_time_to_live_begins_when_the_wait_is_over() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("dead");
    channel.declare(declare("q", "").args([
        ("x-message-ttl", 20.into()),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ]));
    channel.send(publish("", "q", "waits").headers([("x-opt-delivery-delay", 60.into())]));
    channel.consume("dead", "t", "no-ack");
    assert_eq!(channel.delivery().header("x-first-death-queue"), Some(&text("q")));
}

/// Proves: RTE-031
#[test]
fn an_exchange_that_delays_routes_when_the_time_has_come() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("e", "x-delayed-message", "durable").args([("x-delayed-type", text("topic"))]));
    channel.queue("q");
    channel.consume("q", "t", "no-ack");
    // Nothing is bound yet: only what is due later arrives.
    channel.publish("e", "a.key", "lost");
    channel.send(publish("e", "a.key", "later").headers([("x-delay", 80.into())]));
    channel.send(publish("e", "other", "unbound").headers([("x-delay", 10.into())]));
    channel.ok(bind("q", "e", "a.*"));
    channel.send(publish("e", "a.key", "now").headers([("x-delay", (-5).into())]));
    channel.send(publish("e", "a.key", "sooner").headers([("x-delay", text("40"))]));
    channel.send(
        publish("e", "a.key", "told back")
            .headers([("x-delay", 60.into())])
            .mandatory(),
    );
    let mut got = Vec::new();
    let mut returned = Vec::new();
    while got.len() < 4 {
        match channel.next() {
            Event::Delivery(message) => got.push(message),
            Event::Returned(message) => returned.push(message.text()),
            other => panic!("{other:?}"),
        }
    }
    let bodies: Vec<String> = got.iter().map(crate::client::Message::text).collect();
    assert_eq!(bodies, ["now", "sooner", "told back", "later"]);
    assert_eq!(got[1].header("x-delay"), Some(&Value::LongInt(-40)));
    assert_eq!((&*got[3].exchange, &*got[3].key), ("e", "a.key"));
    assert_eq!(returned, ["told back"]);
}

#[test]
fn an_exchange_that_delays_needs_a_type() {
    let broker = Broker::start();
    let channel = broker.channel();
    let text_406 =
        "PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type";
    channel.refuses(exchange("e", "x-delayed-message", ""), 406, text_406);
    for kind in ["nothing", "x-delayed-message"] {
        let request = exchange("e", "x-delayed-message", "").args([("x-delayed-type", text(kind))]);
        channel.refuses(request, 406, text_406);
    }
}

#[test]
fn an_exchange_further_on_delays_as_well() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("later", "x-delayed-message", "durable").args([("x-delayed-type", text("fanout"))]));
    channel.ok(exchange("first", "fanout", "durable"));
    channel.ok(bind_exchange("later", "first", ""));
    channel.queue("at once");
    channel.queue("delayed");
    channel.ok(bind("at once", "first", ""));
    channel.ok(bind("delayed", "later", ""));
    channel.consume("at once", "a", "no-ack");
    channel.consume("delayed", "d", "no-ack");
    channel.send(publish("first", "", "m").headers([("x-delay", 120.into())]));
    let at_once = channel.delivery();
    assert_eq!(at_once.header("x-delay"), Some(&120.into()));
    let delayed = channel.delivery();
    assert_eq!(delayed.header("x-delay"), Some(&Value::LongInt(-120)));
    // Without the header nothing waits, and the route may be remembered.
    for _ in 0..2 {
        channel.publish("first", "", "plain");
        assert_eq!(channel.deliveries(2), ["plain", "plain"]);
    }
}

#[test]
fn a_dead_letter_waits_in_an_exchange_that_delays() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("later", "x-delayed-message", "durable").args([("x-delayed-type", text("fanout"))]));
    channel.queue("dead");
    channel.ok(bind("dead", "later", ""));
    channel.declare(declare("q", "").args([("x-dead-letter-exchange", text("later"))]));
    channel.consume("dead", "t", "no-ack");
    channel.send(publish("", "q", "m").headers([("x-delay", 120.into())]));
    channel.send(publish("", "q", "now"));
    let tags: Vec<u64> = (0..2).map(|_| channel.get("q").unwrap().tag).collect();
    channel.send(reject(tags[0], false));
    channel.send(reject(tags[1], false));
    assert_eq!(channel.deliveries(1), ["now"]);
    let late = channel.delivery();
    assert_eq!(late.header("x-delay"), Some(&Value::LongInt(-120)));
    assert_eq!(late.header("x-first-death-queue"), Some(&text("q")));
}
