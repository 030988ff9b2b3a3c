use amq_protocol::types::{generation::gen_field_table, parsing::parse_field_table};
use bytes::Bytes;
use proptest::prelude::*;

use super::{
    strategies::{any_sorted_text_table, any_table},
    *,
};
use crate::protocol::oracle;

fn encoded(table: &FieldTable) -> Vec<u8> {
    let mut out = BytesMut::new();
    table.encode(&mut out);
    out.to_vec()
}

fn text(text: &str) -> FieldValue {
    FieldValue::LongString(Bytes::copy_from_slice(text.as_bytes()))
}

fn table_of(entries: &[(&str, FieldValue)]) -> FieldTable {
    entries
        .iter()
        .map(|(key, value)| (ShortString::from(*key), value.clone()))
        .collect()
}

/// Puts a 32-bit length before the bytes.
fn with_length(body: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(body);
    out
}

/// One value of every type, with its bytes from the tag on.
fn golden_values() -> Vec<(FieldValue, &'static [u8])> {
    vec![
        (FieldValue::Bool(true), b"t\x01"),
        (FieldValue::I8(-2), b"b\xfe"),
        (FieldValue::U8(254), b"B\xfe"),
        (FieldValue::I16(-2), b"s\xff\xfe"),
        (FieldValue::U16(0x1234), b"u\x12\x34"),
        (FieldValue::I32(-2), b"I\xff\xff\xff\xfe"),
        (FieldValue::U32(0x1234_5678), b"i\x12\x34\x56\x78"),
        (FieldValue::I64(-2), b"l\xff\xff\xff\xff\xff\xff\xff\xfe"),
        (FieldValue::F32(1.5), b"f\x3f\xc0\0\0"),
        (FieldValue::F64(-1.5), b"d\xbf\xf8\0\0\0\0\0\0"),
        (FieldValue::Decimal { scale: 2, value: 314 }, b"D\x02\0\0\x01\x3a"),
        (text("hi"), b"S\0\0\0\x02hi"),
        (
            FieldValue::Bytes(Bytes::from_static(b"\0\xff")),
            b"x\0\0\0\x02\0\xff",
        ),
        (
            FieldValue::Array(vec![FieldValue::Void, FieldValue::U8(7)]),
            b"A\0\0\0\x03VB\x07",
        ),
        (
            FieldValue::Table(table_of(&[("k", FieldValue::Void)])),
            b"F\0\0\0\x03\x01kV",
        ),
        (FieldValue::Timestamp(1 << 40), b"T\0\0\x01\0\0\0\0\0"),
        (FieldValue::Void, b"V"),
    ]
}

#[test]
fn every_type_has_the_bytes_rabbitmq_gives_it() {
    for (value, bytes) in golden_values() {
        let expected = with_length(&[b"\x01k", bytes].concat());
        let table = table_of(&[("k", value)]);
        assert_eq!(encoded(&table), expected, "{table:?}");
        assert_eq!(table.encoded_len(), expected.len(), "{table:?}");
        assert_eq!(FieldTable::parse(&expected), Ok((table, expected.len())));
    }
}

#[test]
fn values_have_more_than_one_spelling() {
    let read = |bytes: &[u8]| FieldTable::parse_body(bytes).unwrap().get("k").cloned();
    assert_eq!(read(b"\x01kL\0\0\0\0\0\0\0\x05"), Some(FieldValue::I64(5)));
    assert_eq!(read(b"\x01kt\x80"), Some(FieldValue::Bool(true)));
    assert_eq!(
        read(b"\x01kd\x7f\xf0\0\0\0\0\0\0"),
        Some(FieldValue::F64(f64::INFINITY))
    );
}

#[test]
fn other_tags_are_refused() {
    let known: Vec<u8> = golden_values()
        .iter()
        .map(|(_, bytes)| bytes[0])
        .chain([b'L'])
        .collect();
    for tag in (0..=u8::MAX).filter(|tag| !known.contains(tag)) {
        let mut body = b"\x01k".to_vec();
        body.push(tag);
        body.extend([0; 16]);
        assert_eq!(FieldTable::parse_body(&body), Err(FieldError::UnknownTag(tag)));
        assert_eq!(
            FieldTable::validate(&with_length(&body)),
            Err(FieldError::UnknownTag(tag))
        );
    }
}

#[test]
fn what_follows_a_table_is_the_callers() {
    assert_eq!(
        FieldTable::parse(b"\0\0\0\x03\x01kVrest"),
        Ok((table_of(&[("k", FieldValue::Void)]), 7))
    );
    assert_eq!(FieldTable::validate(b"\0\0\0\x03\x01kVrest"), Ok(7));
    assert_eq!(FieldTable::parse(b"\0\0\0\0"), Ok((FieldTable::new(), 4)));
    assert_eq!(FieldTable::parse_body(b""), Ok(FieldTable::new()));
}

#[test]
fn every_cut_is_refused() {
    for (value, _) in golden_values() {
        let bytes = encoded(&table_of(&[("key", value)]));
        for cut in 0..bytes.len() {
            assert_eq!(
                FieldTable::parse(&bytes[..cut]),
                Err(FieldError::Truncated),
                "{cut} of {bytes:?}"
            );
            assert_eq!(
                FieldTable::validate(&bytes[..cut]),
                Err(FieldError::Truncated),
                "{cut} of {bytes:?}"
            );
        }
        // The same with a length that fits the cut, so that an inner value is what ends early.
        for cut in 1..bytes.len() - 4 {
            let body = &bytes[4..4 + cut];
            assert_eq!(
                FieldTable::parse_body(body),
                Err(FieldError::Truncated),
                "{body:?}"
            );
        }
    }
}

#[test]
fn a_declared_length_is_not_believed() {
    for body in [
        &b"\x01kS\xff\xff\xff\xffabc"[..],
        b"\x01kA\xff\xff\xff\xff",
        b"\x01kF\x7f\xff\xff\xff",
    ] {
        assert_eq!(FieldTable::parse_body(body), Err(FieldError::Truncated));
    }
    assert_eq!(
        FieldTable::parse(b"\xff\xff\xff\xff\x01kV"),
        Err(FieldError::Truncated)
    );
    // An inner table may not reach beyond the one around it, though the bytes are there.
    assert_eq!(
        FieldTable::parse(b"\0\0\0\x07\x01kF\0\0\0\x03\x01kV"),
        Err(FieldError::Truncated)
    );
}

/// A table that counts as `levels` levels, by tables or arrays inside each other.
fn nested(levels: usize, wrap: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let inner = (2..levels).fold(wrap(Vec::new()), |body, _| wrap(body));
    [b"\x01k", &inner[..]].concat()
}

fn in_array(body: Vec<u8>) -> Vec<u8> {
    [b"A", &with_length(&body)[..]].concat()
}

fn in_table(body: Vec<u8>) -> Vec<u8> {
    let entry = if body.is_empty() {
        body
    } else {
        [b"\x01k", &body[..]].concat()
    };
    [b"F", &with_length(&entry)[..]].concat()
}

#[test]
fn nesting_is_bounded() {
    for wrap in [in_array as fn(Vec<u8>) -> Vec<u8>, in_table] {
        let deepest = nested(MAX_DEPTH, wrap);
        let table = FieldTable::parse_body(&deepest).unwrap();
        assert_eq!(encoded(&table), with_length(&deepest));
        assert_eq!(
            FieldTable::validate(&with_length(&deepest)),
            Ok(deepest.len() + 4)
        );
        for levels in [MAX_DEPTH + 1, 15_000] {
            let body = nested(levels, wrap);
            assert_eq!(
                FieldTable::parse_body(&body),
                Err(FieldError::TooDeep),
                "{levels} levels"
            );
            assert_eq!(
                FieldTable::validate(&with_length(&body)),
                Err(FieldError::TooDeep)
            );
        }
    }
}

#[test]
fn values_are_counted_over_all_levels() {
    let voids = |count: usize| [b"\x01k", &in_array(vec![b'V'; count])[..]].concat();
    // The array is a value too.
    let most = voids(MAX_ELEMENTS - 1);
    assert!(FieldTable::parse_body(&most).is_ok());
    assert!(FieldTable::validate(&with_length(&most)).is_ok());
    let more = [&most[..], b"\x01kV"].concat();
    assert_eq!(FieldTable::parse_body(&more), Err(FieldError::TooManyElements));
    assert_eq!(
        FieldTable::validate(&with_length(&more)),
        Err(FieldError::TooManyElements)
    );
}

#[test]
fn of_two_equal_keys_the_first_counts() {
    let mut table = table_of(&[("b", text("1")), ("a", text("2")), ("b", text("3"))]);
    assert_eq!(table.get("b"), Some(&text("1")));
    assert_eq!(table.len(), 3);
    table.insert("b", text("4"));
    assert_eq!(
        table,
        table_of(&[("b", text("4")), ("a", text("2")), ("b", text("3"))])
    );
    assert_eq!(table.canonical(), table_of(&[("a", text("2")), ("b", text("4"))]));
    assert_eq!(table.remove("b"), Some(text("4")));
    assert_eq!(table, table_of(&[("a", text("2"))]));
    assert_eq!(table.remove("b"), None);
    table.insert("c", FieldValue::Void);
    assert_eq!(table, table_of(&[("a", text("2")), ("c", FieldValue::Void)]));
}

#[test]
fn keys_are_any_bytes() {
    let table = FieldTable::parse_body(b"\0V\x02\xff\0t\x01").unwrap();
    assert_eq!(table.get(""), Some(&FieldValue::Void));
    assert_eq!(table.get_bytes_key(b"\xff\0"), Some(&FieldValue::Bool(true)));
    assert_eq!(table.get("x"), None);
}

#[test]
fn a_short_string_has_at_most_255_bytes() {
    assert_eq!(
        ShortString::try_from(&[b'x'; 255][..]).unwrap().as_bytes().len(),
        255
    );
    assert_eq!(ShortString::try_from(&[b'x'; 256][..]), Err(ShortStringTooLong));
    assert_eq!(
        format!("{:?}", ShortString::try_from(&b"a\"\xff"[..]).unwrap()),
        r#""a\"\xff""#
    );
}

#[test]
#[should_panic(expected = "at most 255 bytes")]
fn a_longer_name_of_ours_is_a_mistake() {
    drop(ShortString::from("x".repeat(256).as_str()));
}

#[test]
fn equivalence_is_by_value_within_integers_and_within_floats() {
    let same = |a: &FieldValue, b: &FieldValue| {
        assert_eq!(equivalent(a, b), equivalent(b, a), "{a:?} {b:?}");
        equivalent(a, b)
    };
    let fives = [
        FieldValue::I8(5),
        FieldValue::U8(5),
        FieldValue::I16(5),
        FieldValue::U16(5),
        FieldValue::I32(5),
        FieldValue::U32(5),
        FieldValue::I64(5),
    ];
    for five in &fives {
        assert!(fives.iter().all(|other| same(five, other)));
        for other in [
            FieldValue::I64(6),
            FieldValue::F64(5.0),
            FieldValue::Timestamp(5),
            FieldValue::Decimal { scale: 0, value: 5 },
            text("5"),
            FieldValue::Bool(true),
        ] {
            assert!(!same(five, &other), "{five:?} {other:?}");
        }
    }
    assert!(same(&FieldValue::F32(0.5), &FieldValue::F64(0.5)));
    assert!(!same(&FieldValue::F32(0.1), &FieldValue::F64(0.1)));
    assert!(same(&text("a"), &text("a")));
    assert!(!same(&text("a"), &FieldValue::Bytes(Bytes::from_static(b"a"))));
    // Inside arrays and tables RabbitMQ compares terms, types included.
    assert!(!same(
        &FieldValue::Array(vec![FieldValue::I8(5)]),
        &FieldValue::Array(vec![FieldValue::I16(5)])
    ));
}

#[test]
fn types_are_called_as_in_rabbitmqs_texts() {
    let names: Vec<&str> = golden_values()
        .iter()
        .map(|(value, _)| value.type_name())
        .collect();
    assert_eq!(
        names.join(" "),
        "bool byte unsignedbyte short unsignedshort signedint unsignedint long float double decimal longstr \
         binary array table timestamp void"
    );
}

#[test]
fn values_are_shown_as_erlang_shows_them() {
    let shown: Vec<String> = golden_values()
        .iter()
        .map(|(value, _)| value.to_string())
        .collect();
    let expected = [
        "true",
        "-2",
        "254",
        "-2",
        "4660",
        "-2",
        "305419896",
        "-2",
        "1.5",
        "-1.5",
        "{2,314}",
        "hi",
        "\u{0}\u{fffd}",
        "[{void,undefined},{unsignedbyte,7}]",
        "[{<<\"k\">>,void,undefined}]",
        "1099511627776",
        "undefined",
    ];
    assert_eq!(shown, expected);
    let inside =
        |bytes| FieldValue::Array(vec![FieldValue::LongString(Bytes::from_static(bytes))]).to_string();
    assert_eq!(inside(b"a\"b"), r#"[{longstr,<<"a\"b">>}]"#);
    assert_eq!(inside(b"\x01\xff"), "[{longstr,<<1,255>>}]");
    assert_eq!(inside(b""), "[{longstr,<<>>}]");
}

#[test]
fn a_value_answers_only_for_its_own_type() {
    for (value, _) in golden_values() {
        let name = value.type_name();
        let integer = "byte unsignedbyte short unsignedshort signedint unsignedint long"
            .split(' ')
            .any(|n| n == name);
        assert_eq!(value.as_integer().is_some(), integer, "{name}");
        assert_eq!(value.as_bool().is_some(), name == "bool", "{name}");
        assert_eq!(
            value.as_str_bytes().is_some(),
            name == "longstr" || name == "binary",
            "{name}"
        );
    }
    assert_eq!(FieldValue::U32(u32::MAX).as_integer(), Some(4_294_967_295));
}

proptest! {
    #[test]
    fn any_table_reads_back(table in any_table()) {
        let bytes = encoded(&table);
        prop_assert_eq!(bytes.len(), table.encoded_len());
        prop_assert_eq!(FieldTable::validate(&bytes), Ok(bytes.len()));
        prop_assert_eq!(FieldTable::parse(&bytes), Ok((table, bytes.len())));
    }

    #[test]
    fn the_oracle_writes_and_reads_the_same(table in any_sorted_text_table()) {
        let bytes = encoded(&table);
        let theirs = oracle::table(&table);
        prop_assert_eq!(&oracle::written(|out| gen_field_table(&theirs)(out)), &bytes);
        let (rest, read) = parse_field_table(&bytes[..]).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(read, theirs);
    }

    #[test]
    fn checking_agrees_with_reading(
        table in any_table(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encoded(&table);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let read = FieldTable::parse(&bytes).map(|(_, consumed)| consumed);
        prop_assert_eq!(FieldTable::validate(&bytes), read);
    }
}
