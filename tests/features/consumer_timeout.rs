//! Consumers that do not settle in time.

use std::time::Duration;

use crate::client::{Arguments, Broker, Event, Login, Method, Value, ack, consume, declare, publish, text};

fn text_of(ms: i64) -> String {
    format!(
        "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: {ms} ms. This \
         timeout value can be configured, see consumers doc guide to learn more"
    )
}

/// Proves: TMO-001
#[test]
fn a_channel_that_holds_a_delivery_too_long_is_closed() {
    let broker = Broker::start_with(|options| {
        options.limits.consumer_timeout = Some(Duration::from_millis(200));
    });
    let channel = broker.channel();
    channel.queue("q");
    channel.queue("other");
    channel.fill("q", &["a", "b"]);
    channel.consume("q", "t", "");
    // What is settled does not matter.
    channel.send(ack(channel.delivery().tag, ""));
    channel.delivery();
    let close = channel.closed();
    assert_eq!((close.code, &*close.text), (406, &*text_of(200)));
    assert_eq!(broker.channel().count("q").0, 1, "it went back");
}

#[test]
fn queues_and_consumers_have_timeouts_of_their_own() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "").args([("x-consumer-timeout", 100.into())]));
    channel.fill("q", &["a"]);
    channel.consume("q", "t", "");
    channel.delivery();
    assert_eq!(channel.closed().text, text_of(100));
    let channel = broker.channel();
    // The consumer's word counts before the queue's: 0 is for ever.
    channel.ok(consume("q", "slow", "").args([("x-consumer-timeout", 0.into())]));
    channel.delivery();
    assert!(channel.next_within(Duration::from_millis(300)).is_none());
    channel.close();
    let channel = broker.channel();
    channel.get("q").unwrap();
    assert_eq!(channel.closed().text, text_of(100));
}

#[test]
fn on_request_only_the_message_goes_back_and_a_late_ack_is_forgiven() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable").args([
        ("x-consumer-timeout", 100.into()),
        ("x-consumer-timeout-action", text("requeue")),
    ]));
    channel.fill("q", &["a"]);
    channel.consume("q", "t", "");
    let first = channel.delivery();
    let second = channel.delivery();
    assert_eq!((&*second.text(), second.redelivered), ("a", true));
    channel.send(ack(first.tag, ""));
    channel.send(ack(second.tag, ""));
    assert_eq!(channel.count("q").0, 0);
    channel.refuses(
        ack(first.tag, ""),
        406,
        "PRECONDITION_FAILED - unknown delivery tag 1",
    );
}

#[test]
fn a_consumer_may_ask_for_more_time() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable").args([
        ("x-consumer-timeout", 250.into()),
        ("x-consumer-timeout-action", text("requeue")),
    ]));
    channel.fill("q", &["a"]);
    channel.consume("q", "t", "");
    let tag = channel.delivery().tag;
    channel.send(publish("amq.settle", "", "").headers([
        ("x-delivery-tag", Value::LongLongInt(i64::try_from(tag).unwrap())),
        ("x-op", text("extend")),
        ("x-timeout", 60_000.into()),
    ]));
    assert!(channel.next_within(Duration::from_millis(600)).is_none());
    channel.send(ack(tag, ""));
    assert_eq!(channel.count("q").0, 0);
}

/// Proves: QQ-010
#[test]
fn a_quorum_queue_lets_go_of_the_consumer() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable").args([
        ("x-queue-type", text("quorum")),
        ("x-consumer-timeout", 100.into()),
    ]));
    channel.fill("q", &["a"]);
    channel.consume("q", "t", "");
    channel.delivery();
    match channel.next() {
        Event::Method(Method::Basic(amq_protocol::protocol::basic::AMQPMethod::Cancel(cancel))) => {
            assert_eq!(cancel.consumer_tag.as_str(), "t");
        }
        other => panic!("{other:?}"),
    }
    let again = channel.get("q").unwrap();
    assert_eq!(again.header("x-delivery-count"), None, "it is no failure");
    assert_eq!(again.header("x-acquired-count"), Some(&Value::LongLongInt(1)));
    // A client that is not told of cancellations loses its channel; so does basic.get.
    assert_eq!(channel.closed().text, text_of(100));
    let deaf = broker.connect_as(&Login {
        capabilities: &[],
        ..Login::default()
    });
    let channel = deaf.channel();
    channel.consume("q", "t", "");
    channel.delivery();
    assert_eq!(channel.closed().text, text_of(-1));
}
