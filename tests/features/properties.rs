//! Message properties and headers: what comes back is what was sent.

use amq_protocol::types::DecimalValue;

use crate::client::{Broker, Message, Publish, Value, array, declare, publish, table, text};

/// A message after its way through a queue.
fn through(broker: &Broker, message: Publish) -> Message {
    let channel = broker.channel();
    channel.queue("q");
    channel.send(message);
    channel.got(crate::client::get("q", "no-ack")).unwrap()
}

fn everything() -> Publish {
    publish("", "q", "body")
        .headers([("h", text("v"))])
        .with(|properties| {
            properties
                .with_content_type("text/plain".into())
                .with_content_encoding("gzip".into())
                .with_delivery_mode(2)
                .with_priority(7)
                .with_correlation_id("correlation".into())
                .with_reply_to("reply".into())
                .with_expiration("600000".into())
                .with_message_id("message".into())
                .with_timestamp(1_700_000_000)
                .with_type("kind".into())
                .with_user_id("guest".into())
                .with_app_id("app".into())
                .with_cluster_id("cluster".into())
        })
}

/// Proves: PRP-001
#[test]
fn all_properties_come_back_and_absent_ones_stay_absent() {
    let broker = Broker::start();
    let got = through(&broker, everything());
    let properties = got.properties;
    let texts = [
        (properties.content_type(), "text/plain"),
        (properties.content_encoding(), "gzip"),
        (properties.correlation_id(), "correlation"),
        (properties.reply_to(), "reply"),
        (properties.expiration(), "600000"),
        (properties.message_id(), "message"),
        (properties.kind(), "kind"),
        (properties.user_id(), "guest"),
        (properties.app_id(), "app"),
        (properties.cluster_id(), "cluster"),
    ];
    for (found, expected) in texts {
        assert_eq!(found.as_ref().map(|text| text.as_str()), Some(expected));
    }
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(properties.priority(), &Some(7));
    assert_eq!(properties.timestamp(), &Some(1_700_000_000));
    assert_eq!(properties.headers(), &Some(table([("h", text("v"))])));

    let got = through(&broker, publish("", "q", "bare"));
    assert_eq!(got.properties, crate::client::BasicProperties::default());
    let got = through(&broker, publish("", "q", "").headers([]));
    assert_eq!(
        got.properties.headers(),
        &Some(table([])),
        "an empty table is not an absent one"
    );
}

/// Proves: PRP-001
#[test]
fn properties_survive_a_restart() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    channel.ok(crate::client::confirm_select());
    channel.send(everything());
    channel.confirms(1);
    let before = channel.get("q").unwrap();
    drop(channel);
    broker.restart();
    let after = broker.channel().get("q").unwrap();
    assert_eq!(after.properties, before.properties);
    assert_eq!(after.text(), "body");
}

/// Proves: PRP-002
#[test]
fn every_type_of_field_comes_back_with_its_type() {
    let broker = Broker::start();
    let leaves = || {
        vec![
            Value::Boolean(true),
            Value::Boolean(false),
            Value::ShortShortInt(i8::MIN),
            Value::ShortShortUInt(u8::MAX),
            Value::ShortInt(i16::MIN),
            Value::ShortUInt(u16::MAX),
            Value::LongInt(i32::MIN),
            Value::LongUInt(u32::MAX),
            Value::LongLongInt(i64::MIN),
            Value::Float(-0.5),
            Value::Double(1e300),
            Value::DecimalValue(DecimalValue { scale: 2, value: 314 }),
            text("long \u{1f407} string"),
            text(""),
            Value::Timestamp(u64::MAX),
            Value::ByteArray(vec![0, 255, 128].into()),
            Value::Void,
        ]
    };
    let mut values = leaves();
    values.push(Value::FieldArray(leaves().into()));
    values.push(Value::FieldTable(table([
        ("empty table", Value::FieldTable(table([]))),
        ("empty array", array([])),
        (
            "nested",
            array([
                Value::FieldTable(table([("deep", array([1.into()]))])),
                Value::Void,
            ]),
        ),
    ])));
    for value in values {
        let got = through(&broker, publish("", "q", "").headers([("h", value.clone())]));
        assert_eq!(got.header("h"), Some(&value));
    }
}

/// Proves: PRP-005
#[test]
fn only_delivery_mode_2_is_persistent_and_each_is_echoed() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    channel.ok(crate::client::confirm_select());
    let of =
        |mode: u8| publish("", "q", mode.to_string()).with(|properties| properties.with_delivery_mode(mode));
    for mode in [0, 1, 2, 3, 255] {
        channel.send(of(mode));
    }
    channel.confirms(5);
    for mode in [0, 1, 2, 3, 255] {
        let got = channel.get("q").unwrap();
        assert_eq!(
            (got.text(), got.properties.delivery_mode()),
            (mode.to_string(), &Some(mode))
        );
    }
    drop(channel);
    broker.restart();
    assert_eq!(broker.channel().drain("q"), ["2"]);
}

/// Proves: PRP-006
#[test]
fn a_priority_above_every_level_is_echoed() {
    use crate::client::Arguments;
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("prioritised", "").args([("x-max-priority", 3.into())]));
    channel.queue("plain");
    for queue in ["prioritised", "plain"] {
        channel.send(publish("", queue, "").with(|properties| properties.with_priority(255)));
        assert_eq!(
            channel.get(queue).unwrap().properties.priority(),
            &Some(255),
            "{queue}"
        );
    }
}

/// Proves: PRM-006
#[test]
fn a_user_id_must_be_the_users_own() {
    let broker = Broker::start();
    let channel = broker.channel();
    let from = |user: &str| publish("", "q", "").with(|properties| properties.with_user_id(user.into()));
    channel.queue("q");
    channel.send(from("guest"));
    assert_eq!(
        channel
            .get("q")
            .unwrap()
            .properties
            .user_id()
            .as_ref()
            .unwrap()
            .as_str(),
        "guest"
    );
    channel.refuses(
        from("somebody"),
        406,
        "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'",
    );
}
