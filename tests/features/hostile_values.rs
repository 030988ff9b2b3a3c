//! Header values of every type, through everything that looks at headers (hostile-input-and-faults H44).

use amq_protocol::types::{ByteArray, DecimalValue, FieldArray};

use crate::client::{
    Arguments, Broker, Channel, Value, array, bind, declare, exchange, publish, reject, table, text,
};

/// One of each, with a name of its own.
fn values() -> Vec<(&'static str, Value)> {
    vec![
        ("bool", true.into()),
        ("i8", Value::ShortShortInt(-1)),
        ("u8", Value::ShortShortUInt(255)),
        ("i16", Value::ShortInt(-300)),
        ("u16", Value::ShortUInt(65_535)),
        ("i32", Value::LongInt(i32::MIN)),
        ("u32", Value::LongUInt(u32::MAX)),
        ("i64", Value::LongLongInt(i64::MIN)),
        ("f32", Value::Float(f32::NAN)),
        ("f64", Value::Double(f64::INFINITY)),
        (
            "decimal",
            Value::DecimalValue(DecimalValue {
                scale: 255,
                value: u32::MAX,
            }),
        ),
        ("empty", text("")),
        ("text", text("\u{202e}<b>\0")),
        ("bytes", Value::ByteArray(ByteArray::from(vec![0xff, 0, 0xfe]))),
        ("timestamp", Value::Timestamp(u64::MAX)),
        ("void", Value::Void),
        ("array", array([Value::Void, array([5.into()]), text("x")])),
        ("no array", Value::FieldArray(FieldArray::default())),
        (
            "table",
            Value::FieldTable(table([("", Value::Void), ("t", Value::FieldTable(table([])))])),
        ),
    ]
}

fn with_values(exchange: &str, key: &str) -> crate::client::Publish {
    values()
        .into_iter()
        .fold(publish(exchange, key, "m"), |message, (name, value)| {
            message.header(name, value)
        })
}

/// The values in a message as text: NaN is not equal to itself.
fn seen(message: &crate::client::Message) -> Vec<String> {
    let names = values().into_iter().map(|(name, _)| name);
    names
        .map(|name| format!("{name} {:?}", message.header(name)))
        .collect()
}

fn sent() -> Vec<String> {
    let values = values().into_iter();
    values
        .map(|(name, value)| format!("{name} {:?}", Some(&value)))
        .collect()
}

/// A queue `q` whose dead letters go to `dead`.
fn set_up(channel: &Channel) {
    channel.queue("dead");
    let arguments = [
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ];
    channel.ok(declare("q", "").args(arguments));
}

/// The message is in `q`; it is rejected, and its dead letter looked at too.
fn check_arrived(channel: &Channel, kind: &str) {
    let message = channel
        .get("q")
        .unwrap_or_else(|| panic!("nothing came through {kind}"));
    assert_eq!(seen(&message), sent(), "{kind}");
    channel.send(reject(message.tag, false));
    while channel.count("dead").0 == 0 {}
    let dead = channel.got(crate::client::get("dead", "no-ack")).unwrap();
    assert_eq!(seen(&dead), sent(), "the dead letter of {kind}");
}

/// Proves: H44
#[test]
fn every_exchange_type_passes_on_what_it_does_not_understand() {
    let broker = Broker::start();
    let channel = broker.channel();
    set_up(&channel);
    for (kind, key) in [
        ("direct", "k"),
        ("fanout", ""),
        ("topic", "#"),
        ("headers", ""),
        ("x-consistent-hash", "1"),
        ("x-random", ""),
        ("x-local-random", ""),
        ("x-modulus-hash", ""),
        ("x-recent-history", ""),
        ("x-message-deduplication", ""),
        ("x-delayed-message", "k"),
    ] {
        let arguments = [("x-cache-size", 5.into()), ("x-delayed-type", text("direct"))];
        channel.ok(exchange(kind, kind, "").args(arguments));
        channel.ok(bind("q", kind, key));
        // The same again behind an exchange that has nowhere else to go.
        let front = format!("before {kind}");
        channel.ok(exchange(&front, "headers", "").args([("alternate-exchange", text(kind))]));
        for entry in [kind, &front] {
            channel.send(with_values(entry, "k"));
            check_arrived(&channel, kind);
        }
    }
}

/// Proves: H44
#[test]
fn every_value_can_be_what_an_exchange_looks_at() {
    let broker = Broker::start();
    let channel = broker.channel();
    set_up(&channel);
    for (name, value) in values() {
        let ring = format!("ring {name}");
        channel.ok(exchange(&ring, "x-consistent-hash", "").args([("hash-header", text(name))]));
        channel.ok(bind("q", &ring, "1"));
        channel.send(with_values(&ring, ""));
        check_arrived(&channel, name);
        if !matches!(value, Value::Float(_) | Value::Timestamp(_)) {
            // Not a number equals nothing, and so large a time is none in milliseconds.
            let headers = format!("headers {name}");
            channel.ok(exchange(&headers, "headers", ""));
            channel.ok(bind("q", &headers, "").args([(name, value)]));
            channel.send(with_values(&headers, ""));
            check_arrived(&channel, name);
        }
    }
    for (name, value) in values() {
        let once = format!("once {name}");
        channel.ok(exchange(&once, "x-message-deduplication", "").args([("x-cache-size", 5.into())]));
        channel.ok(bind("q", &once, ""));
        for _ in 0..2 {
            channel.send(with_values(&once, "").header("x-deduplication-header", value.clone()));
        }
        check_arrived(&channel, name);
        assert!(channel.get("q").is_none(), "{name} came twice");
        // What says nothing about a delay, or nonsense, is not delayed.
        if matches!(
            value,
            Value::LongString(_) | Value::ByteArray(_) | Value::FieldTable(_) | Value::Void
        ) {
            let late = format!("late {name}");
            channel.ok(exchange(&late, "x-delayed-message", "").args([("x-delayed-type", text("fanout"))]));
            channel.ok(bind("q", &late, ""));
            channel.send(with_values(&late, "").header("x-delay", value));
            check_arrived(&channel, name);
        }
    }
}

/// Proves: H44
#[test]
fn keys_among_values_of_all_types_are_found_and_the_others_passed_over() {
    let broker = Broker::start();
    let channel = broker.channel();
    set_up(&channel);
    let mut keys: Vec<Value> = values().into_iter().map(|(_, value)| value).collect();
    keys.push(text("q"));
    for header in ["CC", "BCC"] {
        let keys = Value::FieldArray(keys.clone().into());
        channel.send(with_values("", "nowhere").header(header, keys));
        check_arrived(&channel, header);
    }
}
