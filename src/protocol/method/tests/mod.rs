use bytes::BytesMut;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::protocol::field::{FieldTable, FieldValue, ShortString};

pub(super) use self::any_field::any_field;

mod any_field;
mod hot;
mod oracle;

fn encoded(method: &Method) -> Vec<u8> {
    let mut out = BytesMut::new();
    method.encode(&mut out);
    out.to_vec()
}

/// Runs the test with several values of every method there is.
fn with_every_method(cases: u32, test: impl Fn(Method)) {
    for id in MethodId::ALL {
        let config = Config {
            cases,
            ..Config::default()
        };
        let outcome = TestRunner::new(config).run(&Method::any(*id), |method| {
            test(method);
            Ok(())
        });
        outcome.unwrap_or_else(|failure| panic!("{id}: {failure}"));
    }
}

#[test]
fn every_method_reads_back() {
    with_every_method(64, |method| {
        let bytes = encoded(&method);
        assert_eq!(Method::decode(&bytes), Ok(method.clone()));
        assert_eq!(MethodId::split(&bytes).unwrap().0, method.id());
        assert_eq!(method.id().name(), Some(method.name()));
    });
}

#[test]
fn every_cut_and_every_extra_byte_is_refused() {
    with_every_method(8, |method| {
        let id = method.id();
        let mut bytes = encoded(&method);
        for cut in 0..bytes.len() {
            let refused = Method::decode(&bytes[..cut]).unwrap_err();
            let truncated = [
                MethodError::Truncated(id),
                MethodError::Table(id, FieldError::Truncated),
            ];
            let expected = if cut < 4 {
                refused == MethodError::Short
            } else {
                truncated.contains(&refused)
            };
            assert!(expected, "cut at {cut} of {bytes:?}: {refused}");
        }
        bytes.push(0);
        assert_eq!(Method::decode(&bytes), Err(MethodError::TrailingBytes(id)));
    });
}

#[test]
fn ids_are_those_of_the_specification_and_rabbitmq() {
    let by_class: [(u16, &[u16]); 8] = [
        (10, &[10, 11, 20, 21, 30, 31, 40, 41, 50, 51, 60, 61, 70, 71]),
        (20, &[10, 11, 20, 21, 40, 41]),
        (30, &[10, 11]),
        (40, &[10, 11, 20, 21, 30, 31, 40, 51]),
        (50, &[10, 11, 20, 21, 30, 31, 40, 41, 50, 51]),
        (
            60,
            &[
                10, 11, 20, 21, 30, 31, 40, 50, 60, 70, 71, 72, 80, 90, 100, 110, 111, 120,
            ],
        ),
        (85, &[10, 11]),
        (90, &[10, 11, 20, 21, 30, 31]),
    ];
    let expected: Vec<MethodId> = by_class
        .into_iter()
        .flat_map(|(class, methods)| methods.iter().map(move |&method| MethodId { class, method }))
        .collect();
    let mut ids = MethodId::ALL.to_vec();
    ids.sort();
    assert_eq!(ids, expected);
}

#[test]
fn unknown_methods_are_named_by_number() {
    for (class, method) in [
        (0, 0),
        (10, 12),
        (60, 200),
        (60, 0),
        (61, 10),
        (40, 41),
        (u16::MAX, u16::MAX),
    ] {
        let id = MethodId { class, method };
        let payload = [class.to_be_bytes(), method.to_be_bytes()].concat();
        assert_eq!(Method::decode(&payload), Err(MethodError::Unknown(id)));
        assert_eq!(id.to_string(), format!("{class}.{method}"));
    }
    assert_eq!(MethodId::QUEUE_DECLARE.to_string(), "queue.declare");
    assert_eq!(
        MethodError::Unknown(MethodId::NONE).method_id(),
        Some(MethodId::NONE)
    );
    assert_eq!(MethodError::Short.method_id(), None);
}

#[test]
fn golden_bytes() {
    let mut arguments = FieldTable::new();
    arguments.insert("x-max-length", FieldValue::I32(5));
    let declare = Method::QueueDeclare {
        queue: "q1".into(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: true,
        arguments,
    };
    let table = b"\0\0\0\x12\x0cx-max-lengthI\0\0\0\x05";
    let cases: [(Method, Vec<u8>); 6] = [
        (declare, [&b"\0\x32\0\x0a\0\0\x02q1\x12"[..], table].concat()),
        (
            Method::ConnectionTune {
                channel_max: 2047,
                frame_max: 131_072,
                heartbeat: 60,
            },
            b"\0\x0a\0\x1e\x07\xff\0\x02\0\0\0\x3c".to_vec(),
        ),
        (Method::ExchangeUnbindOk, b"\0\x28\0\x33".to_vec()),
        (
            Method::ConnectionOpen {
                virtual_host: "/".into(),
            },
            b"\0\x0a\0\x28\x01/\0\0".to_vec(),
        ),
        (Method::ChannelOpenOk, b"\0\x14\0\x0b\0\0\0\0".to_vec()),
        (
            Method::AccessRequestOk { ticket: 1 },
            b"\0\x1e\0\x0b\0\x01".to_vec(),
        ),
    ];
    for (method, bytes) in cases {
        assert_eq!(encoded(&method), bytes, "{method:?}");
        assert_eq!(Method::decode(&bytes), Ok(method));
    }
}

#[test]
fn reserved_fields_and_undefined_bits_are_read_over() {
    let read = |bytes: &[u8]| Method::decode(bytes).unwrap();
    assert_eq!(
        read(b"\0\x0a\0\x28\x01/\x03abc\xff"),
        Method::ConnectionOpen {
            virtual_host: "/".into()
        }
    );
    assert_eq!(read(b"\0\x14\0\x0a\x02xy"), Method::ChannelOpen);
    let get = Method::BasicGet {
        queue: "q".into(),
        no_ack: false,
    };
    assert_eq!(read(b"\0\x3c\0\x46\x12\x34\x01q\xfe"), get);
}

#[test]
fn names_are_utf8_except_where_messages_carry_them() {
    let not_utf8 = |id: MethodId, before: usize| {
        let ids = u32::from(id.class) << 16 | u32::from(id.method);
        [
            &ids.to_be_bytes()[..],
            &vec![0; before],
            b"\x02\xc3\x28",
            &[0; 16],
        ]
        .concat()
    };
    for (id, before) in [
        (MethodId::CONNECTION_START_OK, 4),
        (MethodId::CONNECTION_OPEN, 0),
        (MethodId::CHANNEL_CLOSE, 2),
        (MethodId::CHANNEL_OPEN, 0),
        (MethodId::EXCHANGE_DECLARE, 2),
        (MethodId::QUEUE_DECLARE, 2),
        (MethodId::QUEUE_BIND, 4),
        (MethodId::BASIC_CONSUME, 3),
        (MethodId::BASIC_CANCEL, 0),
    ] {
        assert_eq!(
            Method::decode(&not_utf8(id, before)),
            Err(MethodError::InvalidUtf8(id)),
            "{id}"
        );
    }
}

#[test]
fn the_names_a_message_carries_are_any_bytes() {
    let raw = || ShortString::try_from(&b"\xc3\x28"[..]).unwrap();
    let (mandatory, immediate, redelivered) = (false, false, false);
    let cases = [
        Method::BasicPublish {
            exchange: raw(),
            routing_key: raw(),
            mandatory,
            immediate,
        },
        Method::BasicReturn {
            reply_code: 312,
            reply_text: raw(),
            exchange: raw(),
            routing_key: raw(),
        },
        Method::BasicDeliver {
            consumer_tag: raw(),
            delivery_tag: 1,
            redelivered,
            exchange: raw(),
            routing_key: raw(),
        },
        Method::BasicGetOk {
            delivery_tag: 1,
            redelivered,
            exchange: raw(),
            routing_key: raw(),
            message_count: 0,
        },
    ];
    for method in cases {
        assert_eq!(Method::decode(&encoded(&method)), Ok(method));
    }
}

#[test]
fn a_bad_table_says_why() {
    let bytes = b"\0\x32\0\x0a\0\0\x01q\0\0\0\0\x03\x01kU";
    let refused = Method::decode(bytes).unwrap_err();
    assert_eq!(
        refused,
        MethodError::Table(MethodId::QUEUE_DECLARE, FieldError::UnknownTag(b'U'))
    );
    assert_eq!(
        refused.to_string(),
        "queue.declare has a bad table: unknown field type U"
    );
}

#[test]
fn a_long_reply_text_loses_its_end_between_characters() {
    let close = |reply_text: String| Method::ChannelClose {
        reply_code: 404,
        reply_text,
        class_id: 0,
        method_id: 0,
    };
    let cut = Method::decode(&encoded(&close(format!("{}\u{e9}!", "x".repeat(254))))).unwrap();
    assert_eq!(cut, close("x".repeat(254)));
    let cut = Method::decode(&encoded(&close("x".repeat(300)))).unwrap();
    assert_eq!(cut, close("x".repeat(255)));
}

proptest! {
    #[test]
    fn any_bytes_are_a_method_or_refused(
        id in prop::sample::select(MethodId::ALL),
        rest in vec(any::<u8>(), 0..80),
    ) {
        if let Ok(method) = Method::decode_fields(id, &rest) {
            let bytes = encoded(&method);
            // As bytes: a float that is not a number does not equal itself.
            prop_assert_eq!(encoded(&Method::decode(&bytes).unwrap()), bytes);
        }
    }
}
