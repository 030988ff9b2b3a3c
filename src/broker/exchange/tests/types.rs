//! The types beyond the core's four: what they refuse and where they send.

use super::*;
use crate::broker::message::MessageParts;

fn refused(kind: &str, arguments: &[(&str, FieldValue)]) -> String {
    exchange_with(kind, arguments).err().unwrap().to_string()
}

/// All destinations, bindings that lead to the same one counted twice.
fn hops(exchange: &Exchange<u32>, keys: &[&str], properties: &[u8], now: u64) -> Vec<u32> {
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let message = Routable {
        keys: &keys,
        properties: RawProperties::new(properties),
        now: Timestamp(now),
    };
    let mut hops = Hops::new();
    exchange.matches(&message, &mut hops);
    let queues = hops.into_iter().map(|hop| match hop {
        Hop::Queue(queue) => queue,
        Hop::Exchange(name) => panic!("unexpected exchange {name}"),
    });
    queues.collect()
}

/// Where each of many keys goes.
fn spread(exchange: &Exchange<u32>) -> Vec<u32> {
    let to = |key: u32| match &hops(exchange, &[&format!("key.{key}")], &[0, 0], 0)[..] {
        [queue] => *queue,
        others => panic!("{others:?}"),
    };
    (0..2000).map(to).collect()
}

fn share(of: u32, spread: &[u32]) -> usize {
    spread.iter().filter(|queue| **queue == of).count()
}

#[test]
fn a_consistent_hash_weight_is_a_number_from_1_to_10000() {
    let exchange = exchange("x-consistent-hash");
    let check = |key| {
        let checked = exchange.check_binding(&binding(1, key, FieldTable::default()));
        checked.map_err(|error| error.to_string())
    };
    for good in ["1", "+5", "007", "10000"] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for (bad, text) in [
        ("", "The binding key must be an integer: <<\"\">>"),
        ("abc", "The binding key must be an integer: <<\"abc\">>"),
        ("1.5", "The binding key must be an integer: <<\"1.5\">>"),
        ("0", "The binding key must be greater than 0"),
        ("-1", "The binding key must be greater than 0"),
        ("10001", "The binding key must not exceed 10000"),
        ("1000000000", "The binding key must not exceed 10000"),
        (
            "99999999999999999999999999",
            "The binding key must not exceed 10000",
        ),
    ] {
        assert_eq!(check(bad), Err(text.to_owned()), "{bad}");
    }
}

#[test]
fn consistent_hash_arguments_are_one_header_or_one_property() {
    let refused = |arguments: &[(&str, FieldValue)]| refused("x-consistent-hash", arguments);
    assert_eq!(
        refused(&[("hash-header", text("h")), ("hash-property", text("message_id"))]),
        "hash-header and hash-property are mutually exclusive"
    );
    assert_eq!(
        refused(&[("hash-property", text("app_id"))]),
        "Unsupported property: app_id"
    );
}

#[test]
fn consistent_hash_spreads_by_weight_and_moves_no_more_than_it_must() {
    let mut exchange = exchange("x-consistent-hash");
    bind(&mut exchange, 1, "10");
    bind(&mut exchange, 2, "20");
    let two = spread(&exchange);
    assert!((570..770).contains(&share(1, &two)), "{}", share(1, &two));
    bind(&mut exchange, 3, "30");
    let three = spread(&exchange);
    assert!((900..1100).contains(&share(3, &three)), "{}", share(3, &three));
    for (before, after) in two.iter().zip(&three) {
        assert!(after == before || *after == 3, "a key moved between old queues");
    }
    unbind(&mut exchange, 3, "30");
    assert_eq!(spread(&exchange), two, "and comes back");
}

#[test]
fn a_destination_has_one_share_of_the_ring() {
    let mut exchange = exchange("x-consistent-hash");
    bind(&mut exchange, 1, "1");
    bind(&mut exchange, 2, "1");
    let before = spread(&exchange);
    assert!(bind(&mut exchange, 1, "1000"), "the binding is kept");
    assert_eq!(spread(&exchange), before, "and has no effect");
    assert!(unbind(&mut exchange, 1, "1000"));
    assert_eq!(spread(&exchange), before);
    assert!(unbind(&mut exchange, 1, "1"));
    assert_eq!(share(2, &spread(&exchange)), 2000);
    assert!(unbind(&mut exchange, 2, "1"));
    assert_eq!(hops(&exchange, &["k"], &[0, 0], 0), [0; 0]);
}

#[test]
fn consistent_hash_can_go_by_a_header_or_a_property() {
    let by_header = exchange_with("x-consistent-hash", &[("hash-header", text("user"))]).unwrap();
    let by_id = exchange_with("x-consistent-hash", &[("hash-property", text("message_id"))]).unwrap();
    for mut exchange in [by_header, by_id] {
        assert!(!exchange.is_by_key(), "its routes cannot be remembered");
        for queue in 0..10 {
            bind(&mut exchange, queue, "1");
        }
        let message = |id: u32| {
            let mut properties = properties(&[("user", text(["a", "b", "c", "d"][id as usize % 4]))]);
            properties[1] |= 0x80;
            properties.extend([1, b'0' + u8::try_from(id % 4).unwrap()]);
            properties
        };
        let to = |key: &str, id| hops(&exchange, &[key], &message(id), 0);
        let mut reached: Vec<u32> = (0..100).flat_map(|id| to(&format!("k{id}"), id)).collect();
        assert_eq!(reached.len(), 100);
        reached.sort_unstable();
        reached.dedup();
        assert!(
            (2..=4).contains(&reached.len()),
            "the key plays no part: {reached:?}"
        );
        let without: Vec<u32> = (0..20)
            .flat_map(|key| hops(&exchange, &[&key.to_string()], &[0, 0], 0))
            .collect();
        assert!(without.iter().all(|queue| *queue == without[0]), "{without:?}");
    }
    assert!(exchange("x-consistent-hash").is_by_key());
}

#[test]
fn random_takes_one_binding_and_every_one_sometimes() {
    for (kind, key) in [("x-random", "any"), ("x-local-random", "")] {
        let mut exchange = exchange(kind);
        assert_eq!(hops(&exchange, &["k"], &[0, 0], 0), [0; 0]);
        assert!(!exchange.is_by_key(), "its routes cannot be remembered");
        for queue in 0..4 {
            bind(&mut exchange, queue, key);
        }
        let spread = spread(&exchange);
        assert!((0..4).all(|queue| (400..600).contains(&share(queue, &spread))));
        assert!(unbind(&mut exchange, 2, key));
        assert_eq!(share(2, &self::spread(&exchange)), 0);
    }
}

#[test]
fn local_random_binds_queues_without_a_key() {
    let exchange = exchange("x-local-random");
    let keyed = exchange.check_binding(&binding(1, "k", FieldTable::default()));
    assert_eq!(
        keyed.unwrap_err().to_string(),
        "Non empty binding 'k' key not permitted"
    );
    let mut to_exchange = binding(1, "", FieldTable::default());
    assert!(exchange.check_binding(&to_exchange).is_ok());
    to_exchange.destination = Destination::Exchange("other".into());
    let refused = exchange.check_binding(&to_exchange).unwrap_err();
    assert_eq!(refused.to_string(), "Destination not found");
}

#[test]
fn modulus_hash_sends_a_key_to_one_queue_whatever_the_order_of_binding() {
    let mut exchange = exchange("x-modulus-hash");
    let mut other = self::exchange("x-modulus-hash");
    for queue in 0..5 {
        bind(&mut exchange, queue, "");
        bind(&mut other, 4 - queue, "");
    }
    let spread = spread(&exchange);
    assert_eq!(spread, self::spread(&other));
    assert!((0..5).all(|queue| (320..480).contains(&share(queue, &spread))));
    assert!(exchange.is_by_key());
    assert!(unbind(&mut exchange, 3, ""));
    assert_eq!(share(3, &self::spread(&exchange)), 0);
}

fn message(body: &[u8], properties: &[u8]) -> Message {
    let parts = MessageParts {
        exchange: b"e",
        routing_key: b"k",
        properties,
        persistent: false,
        priority: 0,
    };
    Message::new(&parts, body, &mut Vec::new())
}

fn keeps(exchange: &Exchange<u32>, properties: &[u8]) -> bool {
    exchange.keeps(&Routable {
        keys: &[b"k"],
        properties: RawProperties::new(properties),
        now: Timestamp(0),
    })
}

#[test]
fn recent_history_keeps_the_last_messages() {
    let exchange = exchange_with(
        "x-recent-history",
        &[("x-recent-history-length", FieldValue::I8(2))],
    )
    .unwrap();
    assert!(
        !exchange.is_by_key(),
        "a remembered route would pass the history by"
    );
    assert!(keeps(&exchange, &[0, 0]));
    for body in [b"a", b"b", b"c"] {
        exchange.keep(&message(body, &[0, 0]));
    }
    let bodies: Vec<Vec<u8>> = exchange
        .kept()
        .iter()
        .map(|kept| kept.inline_body().to_vec())
        .collect();
    assert_eq!(bodies, [b"b", b"c"]);
    let no_store = |value| keeps(&exchange, &properties(&[("x-recent-history-no-store", value)]));
    assert!(!no_store(FieldValue::Bool(true)));
    assert!(no_store(FieldValue::Bool(false)));
    assert!(!keeps(&self::exchange("fanout"), &[0, 0]));
}

#[test]
fn recent_history_is_20_messages_and_bounded_in_bytes() {
    let exchange = exchange("x-recent-history");
    for _ in 0..30 {
        exchange.keep(&message(b"m", &[0, 0]));
    }
    assert_eq!(exchange.kept().len(), 20);
    let large = exchange_with(
        "x-recent-history",
        &[("x-recent-history-length", FieldValue::I64(i64::MAX))],
    );
    let large = large.unwrap();
    for _ in 0..40 {
        large.keep(&message(&[0; 1024 * 1024], &[0, 0]));
    }
    assert!(large.kept().len() < 8, "{}", large.kept().len());
    large.keep(&message(&[0; 9 * 1024 * 1024], &[0, 0]));
    assert!(
        !large.kept().is_empty(),
        "what is larger than all room pushes nothing out"
    );
}

#[test]
fn recent_history_length_is_a_positive_signed_integer() {
    for (value, shown) in [
        (FieldValue::I32(0), "0"),
        (FieldValue::I32(-3), "-3"),
        (FieldValue::U32(3), "3"),
        (text("3"), "3"),
    ] {
        assert_eq!(
            refused("x-recent-history", &[("x-recent-history-length", value)]),
            format!("Invalid argument {shown}, 'x-recent-history-length' must be a positive integer")
        );
    }
}

#[test]
fn deduplication_passes_a_key_once_until_it_is_forgotten() {
    let arguments = [
        ("x-cache-size", FieldValue::I32(10)),
        ("x-cache-ttl", FieldValue::I32(100)),
    ];
    let mut exchange = exchange_with("x-message-deduplication", &arguments).unwrap();
    bind(&mut exchange, 1, "ignored");
    assert!(!exchange.is_by_key());
    let with =
        |headers: Vec<(&str, FieldValue)>, now| hops(&exchange, &["k"], &properties(&headers), now).len();
    let key = ("x-deduplication-header", text("a"));
    let other = ("x-deduplication-header", FieldValue::I32(7));
    assert_eq!(with(vec![key.clone()], 0), 1);
    assert_eq!(with(vec![key.clone()], 99), 0);
    assert_eq!(with(vec![other.clone()], 99), 1);
    assert_eq!(
        with(vec![key.clone()], 100),
        1,
        "forgotten after the exchange's time"
    );
    assert_eq!(
        with(vec![other.clone(), ("x-cache-ttl", FieldValue::I32(5))], 300),
        1
    );
    assert_eq!(with(vec![other.clone()], 304), 0);
    assert_eq!(with(vec![other], 305), 1, "or the message's own");
    assert_eq!(with(vec![], 300) + with(vec![], 300), 2, "no key, no check");
}

#[test]
fn deduplication_arguments_are_checked() {
    let refused = |arguments: &[(&str, FieldValue)]| refused("x-message-deduplication", arguments);
    let size = "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0";
    assert_eq!(refused(&[]), size);
    assert_eq!(refused(&[("x-cache-size", FieldValue::I32(0))]), size);
    assert_eq!(refused(&[("x-cache-size", text("many"))]), size);
    let enough = ("x-cache-size", text("5"));
    assert_eq!(
        refused(&[enough.clone(), ("x-cache-ttl", FieldValue::I32(-1))]),
        "Invalid argument, 'x-cache-ttl' must be an integer greater than 0"
    );
    assert_eq!(
        refused(&[enough, ("x-cache-persistence", text("tape"))]),
        "Invalid argument, 'x-cache-persistence' must be either 'disk' or 'memory'"
    );
}

#[test]
fn every_key_of_a_message_is_tried() {
    for kind in ["direct", "topic"] {
        let mut exchange = exchange(kind);
        bind(&mut exchange, 1, "a");
        bind(&mut exchange, 2, "b");
        bind(&mut exchange, 2, "c");
        assert_eq!(hops(&exchange, &["b", "x", "a"], &[0, 0], 0), [2, 1]);
        assert_eq!(
            hops(&exchange, &["c", "b"], &[0, 0], 0),
            [2, 2],
            "the topology makes one of it"
        );
    }
}
