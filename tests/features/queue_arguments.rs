//! Queue arguments: which values are refused and how (amqp-behaviour 4.1). What they do is tested with their features.

use crate::client::{Arguments, Broker, Value, declare, text};

/// Ten years in milliseconds: the longest duration there is.
const YEARS: i64 = 315_360_000_000;

/// Proves: QUE-021
#[test]
fn values_of_the_wrong_type_or_range_are_refused_with_the_detail() {
    let broker = Broker::start();
    let channel = broker.channel();
    let expected_integer = "\"expected integer, got longstr\"";
    let cases: Vec<(&str, Value, &str)> = vec![
        ("x-expires", 0.into(), "{value_zero,0}"),
        ("x-expires", (-1).into(), "{value_negative,-1}"),
        ("x-expires", (YEARS + 1).into(), "{value_too_large,315360000001}"),
        ("x-expires", text("1000"), expected_integer),
        ("x-message-ttl", (-1).into(), "{value_negative,-1}"),
        (
            "x-message-ttl",
            (YEARS + 1).into(),
            "{value_too_large,315360000001}",
        ),
        ("x-message-ttl", text("1"), expected_integer),
        ("x-max-length", (-1).into(), "{value_negative,-1}"),
        ("x-max-length", text("1"), expected_integer),
        (
            "x-max-length",
            Value::Double(1.0),
            "\"expected integer, got double\"",
        ),
        ("x-max-length-bytes", (-1).into(), "{value_negative,-1}"),
        ("x-max-length-bytes", text("1"), expected_integer),
        ("x-max-priority", (-1).into(), "{value_negative,-1}"),
        ("x-max-priority", 256.into(), "{max_value_exceeded,256}"),
        ("x-max-priority", text("1"), expected_integer),
        ("x-overflow", text("drop-tail"), "invalid_overflow"),
        ("x-overflow", 1.into(), "{unacceptable_type,signedint}"),
        (
            "x-dead-letter-routing-key",
            text("k"),
            "routing_key_but_no_dlx_defined",
        ),
        (
            "x-dead-letter-routing-key",
            1.into(),
            "{unacceptable_type,signedint}",
        ),
        (
            "x-single-active-consumer",
            text("true"),
            "{unacceptable_type,longstr}",
        ),
        ("x-queue-type", text("foo"), "\"unsupported queue type 'foo'\""),
        ("x-queue-type", 1.into(), "{unacceptable_type,signedint}"),
        (
            "x-queue-leader-locator",
            text("nearest"),
            "invalid_queue_locator_arg",
        ),
        ("x-queue-version", 1.into(), "\"unsupported queue version '1'\""),
    ];
    for (name, value, detail) in cases {
        let close = channel.refusal(declare("q", "").args([(name, value.clone())]));
        assert_eq!(
            (close.code, close.text),
            (
                406,
                format!("PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost '/': {detail}")
            ),
            "{value:?}"
        );
    }
    channel.refuses(
        declare("q", "").args([("x-dead-letter-exchange", 1.into())]),
        406,
        "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'",
    );
    assert!(!channel.exists("q"));
}

/// Proves: QUE-021
#[test]
fn values_at_the_edges_are_taken_whatever_the_width_of_the_integer() {
    let broker = Broker::start();
    let channel = broker.channel();
    let cases: Vec<(&str, Value)> = vec![
        ("x-expires", YEARS.into()),
        ("x-message-ttl", 0.into()),
        ("x-message-ttl", YEARS.into()),
        ("x-max-length", 0_u8.into()),
        ("x-max-length", i64::MAX.into()),
        ("x-max-length-bytes", 0_i16.into()),
        ("x-max-priority", 0_u16.into()),
        ("x-max-priority", 255_u8.into()),
        ("x-overflow", text("drop-head")),
        ("x-overflow", text("reject-publish")),
        ("x-overflow", text("reject-publish-dlx")),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-exchange", text("missing")),
        ("x-single-active-consumer", true.into()),
        ("x-single-active-consumer", false.into()),
        ("x-queue-type", text("classic")),
        ("x-queue-type", text("")),
        ("x-queue-type", text("undefined")),
        ("x-queue-leader-locator", text("client-local")),
        ("x-queue-leader-locator", text("balanced")),
        ("x-queue-leader-locator", text("least-leaders")),
        ("x-queue-version", 2.into()),
        ("x-queue-mode", text("lazy")),
        ("x-queue-mode", text("whatever")),
        ("x-queue-master-locator", text("min-masters")),
        ("x-ha-policy", text("all")),
        ("x-unheard-of", Value::Void),
    ];
    for (at, (name, value)) in cases.into_iter().enumerate() {
        let queue = format!("q{at}");
        channel.declare(declare(&queue, "").args([(name, value.clone())]));
        channel.declare(declare(&queue, "").args([(name, value)]));
    }
}

/// Proves: QUE-022
#[test]
fn arguments_of_another_queue_type_are_refused() {
    let broker = Broker::start();
    let channel = broker.channel();
    let foreign = [
        ("x-quorum-initial-group-size", 1.into()),
        ("x-initial-cluster-size", 1.into()),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-max-in-memory-length", 1.into()),
        ("x-max-in-memory-bytes", 1.into()),
        ("x-max-age", text("1D")),
        ("x-stream-max-segment-size-bytes", 1000.into()),
        ("x-stream-filter-size-bytes", 16.into()),
    ];
    for (name, value) in foreign {
        channel.refuses(
            declare("q", "").args([(name, value)]),
            406,
            &format!(
                "PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost '/' of queue type \
                 rabbit_classic_queue"
            ),
        );
    }
}

/// Proves: PRI-002
#[test]
fn a_queue_has_at_most_256_levels() {
    let broker = Broker::start();
    let channel = broker.channel();
    for (levels, detail) in [(256, "{max_value_exceeded,256}"), (-1, "{value_negative,-1}")] {
        channel.refuses(
            declare("q", "").args([("x-max-priority", levels.into())]),
            406,
            &format!(
                "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/': {detail}"
            ),
        );
    }
    channel.declare(declare("q", "").args([("x-max-priority", 255.into())]));
}
