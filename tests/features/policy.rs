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

/// The smaller number holds; of words the argument's, but on a quorum queue the policy's.
///
/// Proves: POL-003
#[test]
fn a_policy_and_an_argument_meet_key_by_key() {
    let broker = Broker::start();
    let channel = broker.channel();
    for queue in ["by-argument", "by-policy"] {
        channel.queue(queue);
        channel.ok(exchange(queue, "fanout", ""));
        channel.ok(bind(queue, queue, ""));
    }
    let both = json!({"max-length": 2, "overflow": "drop-head", "dead-letter-exchange": "by-policy"});
    let mut limits = policy("p", "^(argued|plain|quorum)$", 0, both);
    limits.apply_to = ApplyTo::Queues;
    set(&broker, limits);
    channel.ok(declare("plain", "durable"));
    let argued = |queue: &str, kind: &str, length: i32| {
        declare(queue, "durable").args([
            ("x-queue-type", text(kind)),
            ("x-max-length", length.into()),
            ("x-overflow", text("reject-publish")),
            ("x-dead-letter-exchange", text("by-argument")),
        ])
    };
    channel.ok(argued("argued", "classic", 1));
    channel.ok(argued("quorum", "quorum", 5));
    let bodies = |bodies: &[&str]| bodies.iter().map(|body| (*body).to_owned()).collect::<Vec<_>>();
    // Two by the policy, the oldest dropped to the policy's exchange.
    channel.fill("plain", &["1", "2", "3"]);
    assert_eq!(channel.drain("plain"), bodies(&["2", "3"]));
    eventually(|| channel.count("by-policy").0 == 1);
    assert_eq!(channel.drain("by-policy"), bodies(&["1"]));
    // One by the argument, the newest refused by the argument.
    channel.fill("argued", &["1", "2"]);
    assert_eq!(channel.drain("argued"), bodies(&["1"]));
    // A quorum queue drops its head as the policy says, to the argument's exchange.
    channel.fill("quorum", &["1", "2", "3"]);
    eventually(|| channel.count("by-argument").0 == 1);
    assert_eq!(channel.drain("by-argument"), bodies(&["1"]));
}

/// Proves: POL-005
#[test]
fn what_a_policy_says_holds_at_once_for_messages_that_wait() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(declare("q", "durable"));
    channel.queue("dead");
    channel.fill("q", &["1", "2", "3", "4"]);
    set(&broker, policy("p", "^q$", 0, json!({"max-length": 2})));
    assert_eq!(channel.count("q").0, 2);
    let dead_lettering =
        json!({"dead-letter-exchange": "", "dead-letter-routing-key": "dead", "message-ttl": 1});
    set(&broker, policy("p", "^q$", 0, dead_lettering));
    channel.fill("q", &["5"]);
    eventually(|| channel.count("dead").0 >= 1);
    clear(&broker, PolicyKind::User, "p");
    channel.drain("q");
    channel.fill("q", &["stays"]);
    assert_eq!(channel.drain("q"), ["stays"]);
    set(&broker, policy("p", "^q$", 0, json!({"expires": 1})));
    eventually(|| !channel.exists("q"));
}

/// Waits for what time brings.
fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "it never happened");
        std::thread::yield_now();
    }
}

/// Proves: RTE-021
#[test]
fn an_alternate_exchange_of_the_argument_goes_before_the_policys() {
    let broker = Broker::start();
    let channel = broker.channel();
    for (queue, alternate) in [("by argument", "first"), ("by policy", "second")] {
        channel.ok(exchange(alternate, "fanout", ""));
        channel.queue(queue);
        channel.ok(bind(queue, alternate, ""));
    }
    channel.ok(exchange("both", "direct", "").args([("alternate-exchange", text("first"))]));
    channel.ok(exchange("neither", "direct", ""));
    set(
        &broker,
        policy("p", "both|neither", 0, json!({"alternate-exchange": "second"})),
    );
    channel.publish("both", "", "argument");
    channel.publish("neither", "", "policy");
    assert_eq!(channel.drain("by argument"), ["argument"]);
    assert_eq!(channel.drain("by policy"), ["policy"]);
    clear(&broker, PolicyKind::User, "p");
    channel.publish("both", "", "argument");
    channel.publish("neither", "", "nowhere");
    assert_eq!(channel.drain("by argument"), ["argument"]);
    assert_eq!(channel.drain("by policy"), [""; 0]);
}
