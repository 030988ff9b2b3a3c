//! Bindings: what they need, what makes them the same, what goes with them.

use crate::client::{
    Arguments, Broker, Event, bind, bind_exchange, delete, delete_exchange, exchange, ids, publish, text,
    unbind, unbind_exchange,
};

const DEFAULT_EXCHANGE: &str = "ACCESS_REFUSED - operation not permitted on the default exchange";

/// Proves: BND-001
#[test]
fn both_ends_must_exist_and_a_missing_exchange_is_told_first() {
    let broker = Broker::start();
    let channel = broker.channel();
    let no_source = "NOT_FOUND - no exchange 'e' in vhost '/'";
    channel.refuses(bind("q", "e", ""), 404, no_source);
    channel.refuses(
        bind("q", "amq.fanout", ""),
        404,
        "NOT_FOUND - no queue 'q' in vhost '/'",
    );
    channel.refuses(bind_exchange("d", "e", ""), 404, no_source);
    channel.refuses(
        bind_exchange("d", "amq.fanout", ""),
        404,
        "NOT_FOUND - no exchange 'd' in vhost '/'",
    );
}

/// Proves: BND-002
#[test]
fn the_same_binding_twice_is_one() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    for exchange in ["amq.direct", "amq.fanout", "amq.topic", "amq.headers"] {
        channel.ok(bind("q", exchange, "k"));
        channel.ok(bind("q", exchange, "k"));
        channel.publish(exchange, "k", "bound");
        assert_eq!(channel.drain("q"), ["bound"], "{exchange}");
        channel.ok(unbind("q", exchange, "k"));
        channel.publish(exchange, "k", "unbound");
        assert!(channel.drain("q").is_empty(), "{exchange}");
    }
}

/// Proves: BND-003
#[test]
fn arguments_belong_to_a_bindings_identity_whatever_their_order() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.ok(bind("q", "amq.direct", "k").args([("a", 1.into()), ("b", text("2"))]));
    channel.ok(bind("q", "amq.direct", "k").args([("b", text("2")), ("a", 1.into())]));
    channel.ok(bind("q", "amq.direct", "k"));
    let routed = || {
        channel.publish("amq.direct", "k", "x");
        channel.drain("q").len()
    };
    assert_eq!(routed(), 1);
    channel.ok(unbind("q", "amq.direct", "k"));
    assert_eq!(routed(), 1, "the binding with arguments is another one");
    channel.ok(unbind("q", "amq.direct", "k").args([("a", 2.into()), ("b", text("2"))]));
    assert_eq!(routed(), 1, "no binding has these arguments");
    channel.ok(unbind("q", "amq.direct", "k").args([("b", text("2")), ("a", 1.into())]));
    assert_eq!(routed(), 0);
}

/// Proves: BND-004
#[test]
fn what_is_missing_counts_as_unbound() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.ok(unbind("q", "amq.direct", "never bound"));
    channel.ok(unbind("q", "no exchange", "k"));
    channel.ok(unbind("no queue", "amq.direct", "k"));
    channel.ok(unbind_exchange("amq.fanout", "amq.direct", "k"));
    channel.ok(unbind_exchange("no exchange", "amq.direct", "k"));
    channel.ok(unbind_exchange("amq.direct", "no exchange", "k"));
}

/// Proves: BND-005
#[test]
fn nothing_binds_to_or_from_the_default_exchange() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.refuses(bind("q", "", "k"), 403, DEFAULT_EXCHANGE);
    channel.refuses(unbind("q", "", "q"), 403, DEFAULT_EXCHANGE);
    channel.refuses(bind_exchange("", "amq.direct", "k"), 403, DEFAULT_EXCHANGE);
    channel.refuses(bind_exchange("amq.direct", "", "k"), 403, DEFAULT_EXCHANGE);
    channel.refuses(unbind_exchange("", "amq.direct", "k"), 403, DEFAULT_EXCHANGE);
}

/// Proves: BND-006
#[test]
fn an_empty_queue_name_means_the_one_declared_last_and_with_an_empty_key_the_key_too() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("first");
    channel.queue("last");
    channel.ok(bind("", "amq.direct", ""));
    channel.ok(bind("", "amq.direct", "k"));
    channel.ok(bind("last", "amq.topic", ""));
    channel.publish("amq.direct", "last", "by name");
    channel.publish("amq.direct", "k", "by key");
    channel.publish("amq.direct", "", "no");
    channel.publish("amq.topic", "", "an explicit queue keeps the empty key");
    assert_eq!(
        channel.drain("last"),
        ["by name", "by key", "an explicit queue keeps the empty key"]
    );
    channel.ok(unbind("", "amq.direct", ""));
    channel.publish("amq.direct", "last", "unbound");
    assert!(channel.drain("last").is_empty());
    // A passive declaration counts, and so does a deletion not.
    channel.count("first");
    channel.ok(bind("", "amq.direct", ""));
    channel.publish("amq.direct", "first", "passive");
    assert_eq!(channel.drain("first"), ["passive"]);
    channel.ok(delete("first", ""));
    channel.refuses(
        bind("", "amq.direct", ""),
        404,
        "NOT_FOUND - no queue 'first' in vhost '/'",
    );
}

/// Proves: BND-007
#[test]
fn an_empty_queue_name_needs_a_declaration_on_this_channel() {
    let broker = Broker::start();
    let connection = broker.connect();
    let (other, channel) = (connection.channel(), connection.channel());
    other.queue("q");
    let text = "NOT_FOUND - no previously declared queue";
    channel.refuses(bind("", "amq.direct", "k"), 404, text);
    channel.refuses(unbind("", "amq.direct", "k"), 404, text);
    channel.refuses(delete("", ""), 404, text);
    channel.refuses(crate::client::purge(""), 404, text);
    channel.refuses(crate::client::get("", ""), 404, text);
    channel.refuses(crate::client::consume("", "", ""), 404, text);
}

/// Proves: BND-008
#[test]
fn both_unbind_oks_have_method_id_51() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    assert_eq!(ids(&channel.ok(unbind("q", "amq.direct", "k"))), (50, 51));
    assert_eq!(
        ids(&channel.ok(unbind_exchange("amq.fanout", "amq.direct", "k"))),
        (40, 51)
    );
}

/// Proves: BND-010
#[test]
fn bindings_go_with_their_ends_and_auto_delete_exchanges_with_their_last_binding() {
    let broker = Broker::start();
    let channel = broker.channel();
    let gone = |name: &str| {
        let text = format!("NOT_FOUND - no exchange '{name}' in vhost '/'");
        channel.refuses(exchange(name, "fanout", "passive"), 404, &text);
    };
    // a -> b -> c -> q: without q nothing is left.
    for name in ["a", "b", "c"] {
        channel.ok(exchange(name, "fanout", "auto-delete"));
    }
    channel.queue("q");
    channel.ok(bind("q", "c", ""));
    channel.ok(bind_exchange("c", "b", ""));
    channel.ok(bind_exchange("b", "a", ""));
    channel.ok(delete("q", ""));
    for name in ["a", "b", "c"] {
        gone(name);
    }
    // A queue declared again has no bindings left.
    channel.queue("q");
    channel.ok(bind("q", "amq.direct", "k"));
    channel.ok(delete("q", ""));
    channel.queue("q");
    channel.send(publish("amq.direct", "k", "").mandatory());
    assert!(matches!(channel.next(), Event::Returned(_)));
    // Nor has an exchange, in either direction.
    channel.ok(exchange("e", "fanout", ""));
    channel.ok(exchange("above", "fanout", "auto-delete"));
    channel.ok(bind("q", "e", ""));
    channel.ok(bind_exchange("e", "amq.topic", "#"));
    channel.ok(bind_exchange("e", "above", ""));
    channel.ok(delete_exchange("e", ""));
    gone("above");
    channel.ok(exchange("e", "fanout", ""));
    channel.publish("e", "", "");
    channel.publish("amq.topic", "", "");
    assert!(channel.drain("q").is_empty());
}
