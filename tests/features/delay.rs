//! Messages that wait for their time.

use crate::client::{
    Arguments, Broker, Value, bind, confirm_select, declare, delete, exchange, publish, text,
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
