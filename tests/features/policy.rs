//! Policies on the wire (amqp-behaviour 6.1, 6.2): which one applies, what it does to what exists, and what is refused.

use leveret::broker::policy::{ApplyTo, Policy, PolicyKind};
use leveret::server::{AdminError, Change};
use serde_json::{Value, json};

use crate::client::{Arguments, Broker, bind, declare, exchange, publish, text};

fn policy(name: &str, pattern: &str, priority: i64, definition: Value) -> Policy {
    let Value::Object(definition) = definition else {
        panic!("a definition is an object")
    };
    Policy {
        vhost: "/".into(),
        name: name.into(),
        kind: PolicyKind::User,
        pattern: pattern.to_owned(),
        apply_to: ApplyTo::All,
        priority,
        definition,
    }
}

fn set(broker: &Broker, policy: Policy) -> Change {
    broker.tell(async |handle| handle.set_policy(policy).await.unwrap())
}

fn clear(broker: &Broker, kind: PolicyKind, name: &str) {
    broker.tell(async |handle| handle.clear_policy(kind, "/", name).await.unwrap());
}

/// The names of the policies of a queue, and what they make together.
fn seen(broker: &Broker, queue: &str) -> (Option<String>, Option<String>, Value) {
    match broker.server().handle().queue_policy("/", queue) {
        Some(policy) => (
            policy.policy.as_ref().map(|name| name.to_string()),
            policy.operator_policy.as_ref().map(|name| name.to_string()),
            Value::Object(policy.definition.clone()),
        ),
        None => (None, None, Value::Null),
    }
}

/// Proves: POL-001
#[test]
fn the_best_policy_applies_to_what_exists_and_what_comes() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.ok(declare("a.before", "durable"));
    assert_eq!(
        set(&broker, policy("low", "^a", 1, json!({"max-length": 10}))),
        Change::Created
    );
    set(&broker, policy("high", "after$", 2, json!({"max-length": 20})));
    let queues_only = Policy {
        apply_to: ApplyTo::Exchanges,
        ..policy("exchanges", "", 9, json!({"alternate-exchange": "x"}))
    };
    set(&broker, queues_only);
    channel.ok(declare("a.after", "durable"));
    channel.ok(declare("b", "durable"));
    let name = |queue| seen(&broker, queue).0;
    assert_eq!(name("a.before").as_deref(), Some("low"));
    assert_eq!(name("a.after").as_deref(), Some("high"));
    assert_eq!(name("b"), None);
    assert_eq!(
        set(&broker, policy("low", "^a", 3, json!({"max-length": 11}))),
        Change::Updated
    );
    assert_eq!(
        seen(&broker, "a.after"),
        (Some("low".to_owned()), None, json!({"max-length": 11}))
    );
    clear(&broker, PolicyKind::User, "low");
    assert_eq!(seen(&broker, "a.before").0, None);
    assert_eq!(seen(&broker, "a.after").0.as_deref(), Some("high"));
    broker.restart();
    assert_eq!(
        seen(&broker, "a.after"),
        (Some("high".to_owned()), None, json!({"max-length": 20}))
    );
}

/// Proves: POL-002
#[test]
fn a_policy_that_the_queue_type_does_not_know_is_passed_over() {
    let broker = Broker::start();
    set(
        &broker,
        policy("quorum", "", 9, json!({"delivery-limit": 3, "max-length": 1})),
    );
    set(&broker, policy("classic", "", 1, json!({"max-length": 2})));
    broker.channel().ok(declare("q", "durable"));
    assert_eq!(seen(&broker, "q").0.as_deref(), Some("classic"));
}

/// Proves: POL-004
#[test]
fn an_operators_policy_is_laid_over_a_users() {
    let broker = Broker::start();
    let operator = Policy {
        kind: PolicyKind::Operator,
        ..policy("o", "", 0, json!({"max-length": 5, "expires": 100_000}))
    };
    set(&broker, operator);
    broker.channel().ok(declare("q", "durable"));
    assert_eq!(
        seen(&broker, "q"),
        (
            None,
            Some("o".to_owned()),
            json!({"max-length": 5, "expires": 100_000})
        )
    );
    set(
        &broker,
        policy("u", "", 0, json!({"max-length": 9, "message-ttl": 7000})),
    );
    assert_eq!(
        seen(&broker, "q"),
        (
            Some("u".to_owned()),
            Some("o".to_owned()),
            json!({"max-length": 5, "expires": 100_000, "message-ttl": 7000})
        )
    );
    clear(&broker, PolicyKind::Operator, "o");
    assert_eq!(
        seen(&broker, "q").2,
        json!({"max-length": 9, "message-ttl": 7000})
    );
}

/// Proves: POL-006
#[test]
fn bad_definitions_are_refused_and_change_nothing() {
    let broker = Broker::start();
    for (definition, problem) in [
        (
            json!({"message-ttl": "abc"}),
            "<<\"abc\">> is not a valid message TTL",
        ),
        (
            json!({"foo": 1}),
            "[{<<\"foo\">>,1}] are not recognised policy settings",
        ),
        (json!({}), "no policy provided"),
        (
            json!({"ha-mode": "all"}),
            "[{<<\"ha-mode\">>,<<\"all\">>}] are not recognised policy settings",
        ),
    ] {
        let bad = policy("p", "", 0, definition);
        let error = broker.tell(async |handle| handle.set_policy(bad).await.unwrap_err());
        assert_eq!(
            error,
            AdminError::Invalid(format!("Validation failed\n\n{problem}"))
        );
    }
    let handle = broker.server().handle();
    assert!(handle.policies(PolicyKind::User, None).is_empty());
    // Mirroring of RabbitMQ 3 is let in when the operator says so, and does nothing.
    let lenient = Broker::start_with(|options| options.permits.classic_queue_mirroring = true);
    lenient.channel().ok(declare("q", "durable"));
    set(
        &lenient,
        policy("ha", "", 0, json!({"ha-mode": "all", "max-length": 3})),
    );
    assert_eq!(seen(&lenient, "q").2, json!({"max-length": 3}));
}

/// The argument wins over the policy, the policy over nothing (amqp-behaviour 3.5, 6.1).
#[test]
fn an_alternate_exchange_comes_and_goes_with_its_policy() {
    let broker = Broker::start();
    let channel = broker.channel();
    for queue in ["by-policy", "by-argument"] {
        channel.queue(queue);
        channel.ok(exchange(queue, "fanout", ""));
        channel.ok(bind(queue, queue, ""));
    }
    channel.ok(exchange("plain", "direct", ""));
    let argued = exchange("argued", "direct", "").args([("alternate-exchange", text("by-argument"))]);
    channel.ok(argued);
    let send = |body: &str| {
        channel.publish("plain", "nowhere", body);
        channel.publish("argued", "nowhere", body);
    };
    let taken = || (channel.drain("by-policy"), channel.drain("by-argument"));
    let bodies = |bodies: &[&str]| bodies.iter().map(|body| (*body).to_owned()).collect::<Vec<_>>();
    send("before");
    assert_eq!(taken(), (bodies(&[]), bodies(&["before"])));
    set(
        &broker,
        policy(
            "ae",
            "^(plain|argued|later)$",
            0,
            json!({"alternate-exchange": "by-policy"}),
        ),
    );
    send("with");
    channel.ok(exchange("later", "direct", ""));
    channel.send(publish("later", "nowhere", "later"));
    assert_eq!(taken(), (bodies(&["with", "later"]), bodies(&["with"])));
    clear(&broker, PolicyKind::User, "ae");
    send("after");
    assert_eq!(taken(), (bodies(&[]), bodies(&["after"])));
}
