//! Routing rules of amqp-behaviour 3.3, cell by cell, and the trie against a naive matcher.

mod types;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn exchange(kind: &str) -> Exchange<u32> {
    exchange_with(kind, &[]).unwrap()
}

fn exchange_with(kind: &str, arguments: &[(&str, FieldValue)]) -> Result<Exchange<u32>, BrokerError> {
    Exchange::new(ExchangeDefinition {
        vhost: "/".into(),
        name: "e".into(),
        kind: kind.into(),
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: table(arguments),
    })
}

fn table(entries: &[(&str, FieldValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(*name, value.clone());
    }
    table
}

fn binding(queue: u32, key: &str, arguments: FieldTable) -> BindingDefinition {
    BindingDefinition {
        vhost: "/".into(),
        source: "e".into(),
        destination: Destination::Queue(queue.to_string().into()),
        routing_key: key.into(),
        arguments,
    }
}

fn bind(exchange: &mut Exchange<u32>, queue: u32, key: &str) -> bool {
    exchange.bind(binding(queue, key, FieldTable::default()), Hop::Queue(queue))
}

fn unbind(exchange: &mut Exchange<u32>, queue: u32, key: &str) -> bool {
    let definition = binding(queue, key, FieldTable::default());
    exchange
        .unbind(
            &definition.destination,
            &definition.routing_key,
            &definition.arguments,
            &Hop::Queue(queue),
        )
        .is_some()
}

fn routed(exchange: &Exchange<u32>, key: &str, properties: &[u8]) -> Vec<u32> {
    let mut hops = Hops::new();
    let message = Routable {
        keys: &[key.as_bytes()],
        properties: RawProperties::new(properties),
        now: Timestamp(0),
    };
    exchange.matches(&message, &mut hops);
    let mut queues: Vec<u32> = hops
        .into_iter()
        .map(|hop| match hop {
            Hop::Queue(queue) => queue,
            Hop::Exchange(name) => panic!("unexpected exchange {name}"),
        })
        .collect();
    queues.sort_unstable();
    queues.dedup();
    queues
}

fn topic_matches(pattern: &str, key: &str) -> bool {
    let mut topic = exchange("topic");
    bind(&mut topic, 1, pattern);
    !routed(&topic, key, &[0, 0]).is_empty()
}

#[test]
fn topic_patterns_match_as_the_table_says() {
    let table: &[(&str, &[&str], &[&str])] = &[
        ("#", &["", "a", "a.b", "."], &[]),
        ("", &[""], &[".", "a"]),
        ("*", &["a", "*"], &["", "a.b"]),
        ("*.*", &["a.b", ".", "a."], &["a", "a.b.c"]),
        ("a.#", &["a", "a.b", "a.b.c", "a."], &["", "ab"]),
        ("#.a", &["a", "x.a", "..a"], &["a.x"]),
        ("a.*.b", &["a.x.b", "a..b"], &["a.b"]),
        ("#.#", &["", "a", "a.b"], &[]),
        ("*.#", &["a", "a.b", "."], &[""]),
        ("#.*.#", &["a", "a.b.c"], &[""]),
        ("a.#.b", &["a.b", "a.x.b", "a.x.y.b"], &["a"]),
        ("a*", &["a*"], &["ab", "a"]),
        ("foo#", &["foo#"], &["foo", "foo.x"]),
    ];
    for (pattern, matching, missing) in table {
        for key in *matching {
            assert!(topic_matches(pattern, key), "{pattern:?} should match {key:?}");
        }
        for key in *missing {
            assert!(
                !topic_matches(pattern, key),
                "{pattern:?} should not match {key:?}"
            );
        }
    }
}

#[test]
fn a_topic_key_with_three_hashes_is_refused() {
    let topic = exchange("topic");
    let check = |key| topic.check_binding(&binding(1, key, FieldTable::default()));
    assert!(check("#.a.#").is_ok());
    let error = check("#.a.#.b.#").unwrap_err();
    assert_eq!(
        error.to_string(),
        "Topic binding key '#.a.#.b.#' uses 3 '#' wildcards, at most 2 are allowed"
    );
}

#[test]
fn the_same_binding_twice_is_one_and_one_unbind_removes_it() {
    for kind in ["direct", "fanout", "topic", "headers"] {
        let mut exchange = exchange(kind);
        assert!(bind(&mut exchange, 1, "k"));
        assert!(!bind(&mut exchange, 1, "k"), "{kind}");
        assert_eq!(routed(&exchange, "k", &[0, 0]), [1], "{kind}");
        assert!(unbind(&mut exchange, 1, "k"));
        assert!(!unbind(&mut exchange, 1, "k"));
        assert_eq!(routed(&exchange, "k", &[0, 0]), [0; 0], "{kind}");
    }
}

#[test]
fn bindings_that_differ_in_arguments_are_two() {
    let mut direct = exchange("direct");
    let mut arguments = FieldTable::default();
    arguments.insert("a", FieldValue::I32(1));
    assert!(bind(&mut direct, 1, "k"));
    assert!(direct.bind(binding(1, "k", arguments), Hop::Queue(1)));
    assert!(unbind(&mut direct, 1, "k"));
    assert_eq!(routed(&direct, "k", &[0, 0]), [1]);
}

#[test]
fn a_queue_that_goes_takes_all_its_bindings() {
    let mut topic = exchange("topic");
    bind(&mut topic, 1, "a.*");
    bind(&mut topic, 1, "#");
    bind(&mut topic, 2, "a.b");
    let gone = topic.unbind_all(&Destination::Queue("1".into()), &Hop::Queue(1));
    assert_eq!(gone.len(), 2);
    assert_eq!(routed(&topic, "a.b", &[0, 0]), [2]);
}

/// Raw properties holding just a headers table.
fn properties(headers: &[(&str, FieldValue)]) -> Vec<u8> {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(*name, value.clone());
    }
    let mut out = bytes::BytesMut::from(&[0x20, 0x00][..]);
    table.encode(&mut out);
    out.to_vec()
}

fn text(value: &'static str) -> FieldValue {
    FieldValue::LongString(Bytes::from_static(value.as_bytes()))
}

fn headers_match(arguments: &[(&str, FieldValue)], headers: &[(&str, FieldValue)]) -> bool {
    let mut exchange = exchange("headers");
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(*name, value.clone());
    }
    let binding = binding(1, "", table);
    exchange.check_binding(&binding).unwrap();
    exchange.bind(binding, Hop::Queue(1));
    !routed(&exchange, "any.key", &properties(headers)).is_empty()
}

#[test]
fn headers_match_as_the_rules_say() {
    let two = [("a", FieldValue::I32(1)), ("b", text("x"))];
    assert!(headers_match(&two, &two), "all is the default");
    assert!(!headers_match(&two, &two[..1]));
    assert!(headers_match(
        &[("x-match", text("any")), two[0].clone(), two[1].clone()],
        &two[..1]
    ));
    assert!(
        headers_match(&[], &[]),
        "all without arguments matches everything"
    );
    assert!(
        !headers_match(&[("x-match", text("any"))], &two),
        "any without arguments matches nothing"
    );
    assert!(
        headers_match(&[("x-a", text("1"))], &[]),
        "x- arguments are ignored"
    );
    assert!(!headers_match(
        &[("x-match", text("all-with-x")), ("x-a", text("1"))],
        &[]
    ));
    assert!(
        headers_match(&[("a", FieldValue::Void)], &[("a", text("whatever"))]),
        "void tests presence"
    );
    assert!(headers_match(
        &[("a", FieldValue::I32(5))],
        &[("a", FieldValue::I64(5))]
    ));
    assert!(!headers_match(
        &[("a", FieldValue::I32(1))],
        &[("a", FieldValue::F64(1.0))]
    ));
    assert!(!headers_match(
        &[("a", FieldValue::Bool(true))],
        &[("a", FieldValue::I32(1))]
    ));
    assert!(headers_match(
        &[("a", text("s"))],
        &[("a", FieldValue::Bytes(Bytes::from_static(b"s")))]
    ));
}

#[test]
fn a_bad_x_match_is_refused_with_rabbitmqs_text() {
    let exchange = exchange("headers");
    let mut arguments = FieldTable::default();
    arguments.insert("x-match", text("foo"));
    assert_eq!(
        exchange
            .check_binding(&binding(1, "", arguments))
            .unwrap_err()
            .to_string(),
        "Invalid x-match field value <<\"foo\">>; expected all, any, all-with-x, or any-with-x"
    );
}

/// The specification's words taken literally: slow and obviously right.
fn naive(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.first(), key.first()) {
        (None, None) => true,
        (Some(&"#"), _) => naive(&pattern[1..], key) || (!key.is_empty() && naive(pattern, &key[1..])),
        (Some(&"*"), Some(_)) => naive(&pattern[1..], &key[1..]),
        (Some(word), Some(found)) if word == found => naive(&pattern[1..], &key[1..]),
        _ => false,
    }
}

fn split(key: &str) -> Vec<&str> {
    if key.is_empty() {
        Vec::new()
    } else {
        key.split('.').collect()
    }
}

proptest! {
    #[test]
    fn the_trie_agrees_with_a_naive_matcher(
        patterns in prop::collection::vec(prop::collection::vec("[ab*#]|", 0..5), 1..12),
        keys in prop::collection::vec(prop::collection::vec("[ab]|", 0..6), 1..8),
        removed in prop::collection::vec(any::<bool>(), 12),
    ) {
        let mut topic = exchange("topic");
        let patterns: Vec<String> = patterns.iter().map(|words| words.join(".")).collect();
        for (queue, pattern) in (0_u32..).zip(&patterns) {
            bind(&mut topic, queue, pattern);
        }
        for (queue, pattern) in (0_u32..).zip(&patterns) {
            if removed[queue as usize] {
                prop_assert!(unbind(&mut topic, queue, pattern));
            }
        }
        for key in keys.iter().map(|words| words.join(".")) {
            let expected: Vec<u32> = (0_u32..).zip(&patterns)
                .filter(|(queue, pattern)| !removed[*queue as usize] && naive(&split(pattern), &split(&key)))
                .map(|(queue, _)| queue)
                .collect();
            prop_assert_eq!(routed(&topic, &key, &[0, 0]), expected, "key {:?}", key);
        }
    }
}
