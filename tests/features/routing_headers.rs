//! Headers exchanges.

use crate::client::{
    Arguments, Broker, Channel, Value, access_request, array, bind, publish, table, text, unbind,
};

/// Whether a binding with these arguments matches a message with these headers.
fn matches<const A: usize, const H: usize>(
    channel: &Channel,
    arguments: [(&str, Value); A],
    headers: [(&str, Value); H],
) -> bool {
    channel.ok(bind("q", "amq.headers", "ignored").args(arguments.clone()));
    channel.send(publish("amq.headers", "k", "x").headers(headers));
    channel.ok(access_request());
    channel.ok(unbind("q", "amq.headers", "ignored").args(arguments));
    !channel.drain("q").is_empty()
}

fn channel(broker: &Broker) -> Channel {
    let channel = broker.channel();
    channel.queue("q");
    channel
}

fn x_match(word: &str) -> (&'static str, Value) {
    ("x-match", text(word))
}

/// Proves: RTE-009
#[test]
fn all_wants_every_argument_and_any_wants_one() {
    let broker = Broker::start();
    let channel = channel(&broker);
    let (a, b) = (("a", text("1")), ("b", Value::from(2)));
    let all = || [x_match("all"), a.clone(), b.clone()];
    let any = || [x_match("any"), a.clone(), b.clone()];
    assert!(matches(
        &channel,
        all(),
        [a.clone(), b.clone(), ("c", true.into())]
    ));
    assert!(!matches(&channel, all(), [a.clone()]));
    assert!(!matches(&channel, all(), [a.clone(), ("b", 3.into())]));
    assert!(matches(&channel, any(), [a.clone()]));
    assert!(matches(&channel, any(), [("a", text("other")), b.clone()]));
    assert!(!matches(&channel, any(), [("a", text("other"))]));
    assert!(!matches(&channel, any(), [("A", text("1"))]));
}

/// Proves: RTE-010
#[test]
fn without_x_match_it_is_all_and_without_arguments_all_is_everything_and_any_is_nothing() {
    let broker = Broker::start();
    let channel = channel(&broker);
    assert!(matches(
        &channel,
        [("a", 1.into()), ("b", 1.into())],
        [("a", 1.into()), ("b", 1.into())]
    ));
    assert!(!matches(
        &channel,
        [("a", 1.into()), ("b", 1.into())],
        [("a", 1.into())]
    ));
    assert!(matches(&channel, [], [("a", 1.into())]));
    assert!(matches(&channel, [x_match("all")], []));
    assert!(!matches(&channel, [x_match("any")], [("a", 1.into())]));
    // Also without the headers property at all.
    channel.ok(bind("q", "amq.match", ""));
    channel.publish("amq.match", "k", "bare");
    assert_eq!(channel.drain("q"), ["bare"]);
}

/// Proves: RTE-011
#[test]
fn arguments_that_start_with_x_count_only_in_the_with_x_forms() {
    let broker = Broker::start();
    let channel = channel(&broker);
    let arguments = |word| [x_match(word), ("x-a", Value::from(1)), ("b", Value::from(2))];
    assert!(matches(&channel, arguments("all"), [("b", 2.into())]));
    assert!(!matches(&channel, arguments("all-with-x"), [("b", 2.into())]));
    assert!(matches(
        &channel,
        arguments("all-with-x"),
        [("b", 2.into()), ("x-a", 1.into())]
    ));
    assert!(!matches(&channel, arguments("any"), [("x-a", 1.into())]));
    assert!(matches(&channel, arguments("any-with-x"), [("x-a", 1.into())]));
}

/// Proves: RTE-012
#[test]
fn a_void_argument_asks_for_presence() {
    let broker = Broker::start();
    let channel = channel(&broker);
    assert!(matches(&channel, [("a", Value::Void)], [("a", 7.into())]));
    assert!(matches(&channel, [("a", Value::Void)], [("a", Value::Void)]));
    assert!(!matches(&channel, [("a", Value::Void)], [("b", 7.into())]));
    assert!(!matches(&channel, [("a", 7.into())], [("a", Value::Void)]));
}

/// Proves: RTE-013
#[test]
fn values_are_compared_by_what_they_mean() {
    let broker = Broker::start();
    let channel = channel(&broker);
    let same = |left: Value, right: Value| matches(&channel, [("a", left)], [("a", right)]);
    let bytes = |value: &str| Value::ByteArray(value.as_bytes().into());
    let widths = [
        Value::ShortShortInt(5),
        Value::ShortShortUInt(5),
        Value::ShortInt(5),
        Value::ShortUInt(5),
        Value::LongInt(5),
        Value::LongUInt(5),
        Value::LongLongInt(5),
    ];
    for left in &widths {
        for right in &widths {
            assert!(same(left.clone(), right.clone()), "{left:?} {right:?}");
        }
    }
    assert!(!same(1.into(), Value::Double(1.0)));
    assert!(!same(true.into(), 1.into()));
    assert!(!same(5.into(), text("5")));
    assert!(same(Value::Double(0.5), Value::Double(0.5)));
    assert!(same(text("bytes"), bytes("bytes")));
    assert!(same(bytes("bytes"), text("bytes")));
    assert!(!same(text("bytes"), text("Bytes")));
    assert!(same(array([1.into(), text("x")]), array([1.into(), text("x")])));
    assert!(!same(array([1.into(), text("x")]), array([text("x"), 1.into()])));
    let nested = |value: i32| Value::FieldTable(table([("k", value.into())]));
    assert!(same(nested(1), nested(1)));
    assert!(!same(nested(1), nested(2)));
}

/// Proves: RTE-014
#[test]
fn an_x_match_that_is_no_word_of_the_four_is_refused() {
    let broker = Broker::start();
    let channel = channel(&broker);
    channel.refuses(
        bind("q", "amq.headers", "").args([x_match("foo")]),
        406,
        "PRECONDITION_FAILED - Invalid x-match field value <<\"foo\">>; expected all, any, all-with-x, or any-with-x",
    );
    channel.refuses(
        bind("q", "amq.headers", "").args([("x-match", 1.into())]),
        406,
        "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr",
    );
    // Other types of exchange do not look at it.
    channel.ok(bind("q", "amq.direct", "k").args([x_match("foo")]));
}
