//! Exchanges: declare, delete, what may differ and what may not.

use crate::client::{
    Arguments, Broker, Value, bind, bind_exchange, delete_exchange, exchange, publish, text, unbind,
};

/// Proves: EXC-001
#[test]
fn each_core_type_can_be_declared_and_declared_again() {
    let broker = Broker::start();
    let channel = broker.channel();
    for kind in ["direct", "fanout", "topic", "headers"] {
        for flags in [
            "",
            "durable",
            "auto-delete",
            "internal",
            "durable auto-delete internal",
        ] {
            let name = format!("{kind} {flags}");
            channel.ok(exchange(&name, kind, flags));
            channel.ok(exchange(&name, kind, flags));
        }
    }
}

/// Proves: EXC-002
#[test]
fn an_unknown_type_is_refused_even_for_an_exchange_that_exists() {
    let broker = Broker::start();
    let channel = broker.channel();
    let text = "PRECONDITION_FAILED - unknown exchange type 'x-none'";
    channel.refuses(exchange("e", "x-none", ""), 406, text);
    channel.ok(exchange("e", "direct", ""));
    channel.refuses(exchange("e", "x-none", ""), 406, text);
    channel.ok(exchange("e", "x-none", "passive"));
}

/// Proves: EXC-003
#[test]
fn the_default_exchange_cannot_be_declared_or_deleted() {
    let broker = Broker::start();
    let channel = broker.channel();
    let text = "ACCESS_REFUSED - operation not permitted on the default exchange";
    channel.refuses(exchange("", "direct", "durable"), 403, text);
    channel.refuses(exchange("", "direct", "passive"), 403, text);
    channel.refuses(delete_exchange("", ""), 403, text);
}

/// Proves: EXC-004
#[test]
fn names_with_the_reserved_prefix_are_only_for_what_exists() {
    let broker = Broker::start();
    let channel = broker.channel();
    let text = "ACCESS_REFUSED - exchange name 'amq.new' contains reserved prefix 'amq.*'";
    channel.refuses(exchange("amq.new", "direct", ""), 403, text);
    channel.ok(exchange("amq.direct", "direct", "durable"));
    let text = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': \
                received 'topic' but current is 'direct'";
    channel.refuses(exchange("amq.direct", "topic", "durable"), 406, text);
}

/// Proves: EXC-005
#[test]
fn a_redeclaration_must_agree_in_type_and_flags_and_the_first_difference_is_told() {
    let broker = Broker::start();
    let channel = broker.channel();
    let differs = |flags: &str, kind: &str, redeclared: &str, expected: &str| {
        channel.ok(exchange("e", "direct", flags));
        let text = format!("PRECONDITION_FAILED - inequivalent arg {expected}");
        channel.refuses(exchange("e", kind, redeclared), 406, &text);
        channel.ok(delete_exchange("e", ""));
    };
    let at = "for exchange 'e' in vhost '/'";
    differs(
        "",
        "fanout",
        "durable",
        &format!("'type' {at}: received 'fanout' but current is 'direct'"),
    );
    differs(
        "durable",
        "direct",
        "",
        &format!("'durable' {at}: received 'false' but current is 'true'"),
    );
    differs(
        "",
        "direct",
        "durable",
        &format!("'durable' {at}: received 'true' but current is 'false'"),
    );
    differs(
        "",
        "direct",
        "auto-delete internal",
        &format!("'auto_delete' {at}: received 'true' but current is 'false'"),
    );
    differs(
        "internal",
        "direct",
        "",
        &format!("'internal' {at}: received 'false' but current is 'true'"),
    );
}

/// Proves: EXC-006
#[test]
fn of_the_arguments_only_the_alternate_exchange_is_compared() {
    let broker = Broker::start();
    let channel = broker.channel();
    let plain = || exchange("e", "direct", "");
    channel.ok(plain().args([("alternate-exchange", text("a")), ("x-note", 1.into())]));
    channel.ok(plain().args([("alternate-exchange", text("a")), ("x-note", text("other"))]));
    channel.ok(plain().args([("alternate-exchange", text("a"))]));
    let at = "PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'e' in vhost '/'";
    let current = "but current is the value 'a' of type 'longstr'";
    channel.refuses(
        plain().args([("alternate-exchange", text("b"))]),
        406,
        &format!("{at}: received the value 'b' of type 'longstr' {current}"),
    );
    channel.refuses(plain(), 406, &format!("{at}: received none {current}"));
}

/// Proves: EXC-007
#[test]
fn a_passive_declaration_looks_at_the_name_only() {
    let broker = Broker::start();
    let channel = broker.channel();
    let text = "NOT_FOUND - no exchange 'e' in vhost '/'";
    channel.refuses(exchange("e", "direct", "passive"), 404, text);
    channel.ok(exchange("e", "topic", "durable"));
    channel
        .ok(exchange("e", "direct", "passive auto-delete internal").args([("alternate-exchange", 1.into())]));
}

/// Proves: EXC-008
#[test]
fn deleting_a_missing_exchange_succeeds() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(delete_exchange("none", ""));
    channel.ok(delete_exchange("none", "if-unused"));
}

/// Proves: EXC-009
#[test]
fn if_unused_means_no_binding_from_the_exchange() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("source", "fanout", ""));
    channel.ok(exchange("destination", "fanout", ""));
    channel.ok(bind_exchange("destination", "source", ""));
    let text = "PRECONDITION_FAILED - exchange 'source' in vhost '/' in use";
    channel.refuses(delete_exchange("source", "if-unused"), 406, text);
    channel.ok(delete_exchange("destination", "if-unused"));
    channel.ok(delete_exchange("source", "if-unused"));
    channel.refuses(
        exchange("source", "fanout", "passive"),
        404,
        "NOT_FOUND - no exchange 'source' in vhost '/'",
    );
}

/// Proves: EXC-010
#[test]
fn predeclared_exchanges_cannot_be_deleted() {
    let broker = Broker::start();
    let channel = broker.channel();
    for name in ["amq.direct", "amq.rabbitmq.trace", "amq.none"] {
        let text = format!("ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '/' not allowed");
        channel.refuses(delete_exchange(name, ""), 403, &text);
    }
}

/// Proves: EXC-011
#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding_from_it() {
    let broker = Broker::start();
    let channel = broker.channel();
    let missing = "NOT_FOUND - no exchange 'e' in vhost '/'";
    channel.queue("q");
    channel.ok(exchange("e", "direct", "auto-delete"));
    channel.ok(bind_exchange("e", "amq.fanout", ""));
    channel.ok(bind("q", "e", "a"));
    channel.ok(bind("q", "e", "b"));
    channel.ok(unbind("q", "e", "a"));
    channel.ok(exchange("e", "direct", "passive"));
    channel.ok(unbind("q", "e", "b"));
    channel.refuses(exchange("e", "direct", "passive"), 404, missing);
}

/// Proves: EXC-012
#[test]
fn with_nowait_only_errors_are_answered() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.send(exchange("e", "direct", "nowait"));
    channel.send(crate::client::declare("q", "nowait"));
    channel.nothing();
    channel.ok(bind("q", "e", "k"));
    channel.publish("e", "k", "routed");
    assert_eq!(channel.drain("q"), ["routed"]);
    channel.send(delete_exchange("e", "nowait"));
    channel.send(crate::client::delete("q", "nowait"));
    channel.nothing();
    assert!(!channel.exists("q"));
    channel.refuses(
        exchange("amq.x", "direct", "nowait"),
        403,
        "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'",
    );
}

/// Proves: EXC-013
#[test]
fn clients_cannot_publish_to_an_internal_exchange() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("e", "direct", "internal"));
    channel.refuses(
        publish("e", "", ""),
        403,
        "ACCESS_REFUSED - cannot publish to internal exchange 'e' in vhost '/'",
    );
}

/// Proves: EXC-014
#[test]
fn an_alternate_exchange_is_named_by_a_string() {
    let broker = Broker::start();
    let channel = broker.channel();
    let cases: [(Value, &str); 3] = [
        (1.into(), "signedint"),
        (true.into(), "bool"),
        (Value::Void, "void"),
    ];
    for (value, found) in cases {
        channel.refuses(
            exchange("e", "direct", "").args([("alternate-exchange", value)]),
            406,
            &format!(
                "PRECONDITION_FAILED - invalid type '{found}' for arg 'alternate-exchange' in exchange 'e' in vhost '/'"
            ),
        );
    }
}

/// Proves: EXC-015
#[test]
fn line_breaks_are_taken_out_of_declared_names() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("e\r\nx", "direct", ""));
    channel.ok(exchange("ex", "direct", "passive"));
    let (name, _, _) = channel.declare(crate::client::declare("q\n1", ""));
    assert_eq!(name, "q1");
    channel.ok(bind("q\r1", "e\nx", "k"));
    channel.publish("ex", "k", "there");
    assert_eq!(channel.drain("q1"), ["there"]);
    channel.ok(delete_exchange("e\rx", ""));
    channel.ok(crate::client::delete("q\n\n1", ""));
    assert!(!channel.exists("q1"));
}

/// Proves: EXC-016
#[test]
fn the_predeclared_exchanges_are_there() {
    let broker = Broker::start();
    let channel = broker.channel();
    let predeclared = [
        ("amq.direct", "direct", "durable"),
        ("amq.fanout", "fanout", "durable"),
        ("amq.topic", "topic", "durable"),
        ("amq.headers", "headers", "durable"),
        ("amq.match", "headers", "durable"),
        ("amq.rabbitmq.trace", "topic", "durable internal"),
    ];
    for (name, kind, flags) in predeclared {
        channel.ok(exchange(name, kind, flags));
    }
}
