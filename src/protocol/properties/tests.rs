use amq_protocol::protocol::basic::{AMQPProperties, gen_properties, parse_properties};
use proptest::{option, prelude::*};

use super::*;
use crate::protocol::{
    field::{
        FieldTable, FieldValue, ShortString,
        strategies::{any_short_string, any_sorted_text_table, any_table, any_text},
    },
    oracle,
};

fn encoded(properties: &Properties) -> Vec<u8> {
    let mut out = BytesMut::new();
    properties.encode(&mut out);
    out.to_vec()
}

fn any_properties(
    string: impl Strategy<Value = ShortString> + 'static,
    table: impl Strategy<Value = FieldTable>,
) -> impl Strategy<Value = Properties> {
    let string = string.boxed();
    let string = || option::of(string.clone());
    let first = (
        string(),
        string(),
        option::of(table),
        any::<Option<u8>>(),
        any::<Option<u8>>(),
    );
    let second = (string(), string(), string(), string(), any::<Option<u64>>());
    (first, second, (string(), string(), string(), string())).prop_map(|(first, second, third)| {
        let (content_type, content_encoding, headers, delivery_mode, priority) = first;
        let (correlation_id, reply_to, expiration, message_id, timestamp) = second;
        let (kind, user_id, app_id, cluster_id) = third;
        Properties {
            content_type,
            content_encoding,
            headers,
            delivery_mode,
            priority,
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp,
            kind,
            user_id,
            app_id,
            cluster_id,
        }
    })
}

/// All fourteen, each with a value of its own.
fn full() -> Properties {
    let mut headers = FieldTable::new();
    headers.insert("h", FieldValue::Void);
    Properties {
        content_type: Some("ct".into()),
        content_encoding: Some("ce".into()),
        headers: Some(headers),
        delivery_mode: Some(2),
        priority: Some(9),
        correlation_id: Some("ci".into()),
        reply_to: Some("rt".into()),
        expiration: Some("60000".into()),
        message_id: Some("mi".into()),
        timestamp: Some(1 << 40),
        kind: Some("ty".into()),
        user_id: Some("ui".into()),
        app_id: Some("ai".into()),
        cluster_id: Some("cl".into()),
    }
}

const FULL: &[u8] = b"\xff\xfc\x02ct\x02ce\0\0\0\x03\x01hV\x02\x09\x02ci\x02rt\x0560000\x02mi\
    \0\0\x01\0\0\0\0\0\x02ty\x02ui\x02ai\x02cl";

#[test]
fn golden_bytes() {
    let cases: [(Properties, &[u8]); 4] = [
        (Properties::default(), b"\0\0"),
        (
            Properties {
                delivery_mode: Some(2),
                ..Properties::default()
            },
            b"\x10\0\x02",
        ),
        (
            Properties {
                content_type: Some("text/plain".into()),
                delivery_mode: Some(1),
                ..Properties::default()
            },
            b"\x90\0\x0atext/plain\x01",
        ),
        (full(), FULL),
    ];
    for (properties, bytes) in cases {
        assert_eq!(encoded(&properties), bytes);
        assert_eq!(Properties::decode(bytes), Ok(properties));
        assert_eq!(RawProperties::new(bytes).validate(), Ok(()));
    }
}

#[test]
fn a_content_header_reads_back() {
    let payload = b"\0\x3c\0\0\0\0\0\x01\0\0\0\0\x10\0\x02";
    let header = ContentHeader {
        class: 60,
        weight: 0,
        body_size: 1 << 32,
        properties: b"\x10\0\x02",
    };
    assert_eq!(ContentHeader::decode(payload), Ok(header));
    let mut out = BytesMut::new();
    header.encode(&mut out);
    assert_eq!(out, payload[..]);
    for cut in 0..14 {
        assert_eq!(
            ContentHeader::decode(&payload[..cut]),
            Err(PropertyError::Truncated),
            "cut at {cut}"
        );
    }
    assert_eq!(
        ContentHeader::decode(&payload[..14]).map(|header| header.properties),
        Ok(&b"\x10\0"[..])
    );
}

#[test]
fn every_cut_and_every_extra_byte_is_refused() {
    for cut in 0..FULL.len() {
        let refused = RawProperties::new(&FULL[..cut]).validate().unwrap_err();
        let expected = [
            PropertyError::Truncated,
            PropertyError::Headers(FieldError::Truncated),
        ];
        assert!(expected.contains(&refused), "cut at {cut}: {refused}");
        assert_eq!(Properties::decode(&FULL[..cut]), Err(refused));
    }
    let extra = [FULL, b"x"].concat();
    assert_eq!(
        RawProperties::new(&extra).validate(),
        Err(PropertyError::TrailingBytes)
    );
    assert_eq!(Properties::decode(&extra), Err(PropertyError::TrailingBytes));
}

#[test]
fn a_question_needs_only_what_stands_before_its_answer() {
    // Announced are content-type, delivery-mode, priority and expiration; the bytes end in the expiration.
    let raw = RawProperties::new(b"\x99\0\x01x\x02\x05\x0312");
    assert_eq!(raw.delivery_mode(), Ok(Some(2)));
    assert_eq!(raw.priority(), Ok(Some(5)));
    assert_eq!(raw.expiration(), Err(PropertyError::Truncated));
    assert_eq!(raw.timestamp(), Ok(None));
    // A headers table is stepped over unread.
    let raw = RawProperties::new(b"\x30\0\0\0\0\x03\x01hU\x02");
    assert_eq!(raw.delivery_mode(), Ok(Some(2)));
    let unknown_tag = PropertyError::Headers(FieldError::UnknownTag(b'U'));
    assert_eq!(raw.headers(), Err(unknown_tag));
    assert_eq!(raw.validate(), Err(unknown_tag));
}

#[test]
fn flags_without_data_are_refused() {
    for flag in (2..16).map(|bit| 1_u16 << bit) {
        let bytes = flag.to_be_bytes();
        assert!(RawProperties::new(&bytes).validate().is_err(), "{flag:#x}");
        assert!(Properties::decode(&bytes).is_err(), "{flag:#x}");
    }
    assert_eq!(RawProperties::new(b"").validate(), Err(PropertyError::Truncated));
    assert_eq!(RawProperties::new(b"").flags(), 0);
    assert_eq!(
        RawProperties::new(b"\0").priority(),
        Err(PropertyError::Truncated)
    );
}

#[test]
fn the_two_lowest_bits_announce_nothing() {
    let raw = RawProperties::new(b"\x10\x03\x02");
    assert_eq!(raw.validate(), Ok(()));
    assert_eq!(raw.delivery_mode(), Ok(Some(2)));
    assert_eq!(
        Properties::decode(raw.as_bytes()).map(|read| read.delivery_mode),
        Ok(Some(2))
    );
    // The word a continuation bit would announce is not read as one; it is a byte too many.
    assert_eq!(
        RawProperties::new(b"\0\x01\0\0").validate(),
        Err(PropertyError::TrailingBytes)
    );
}

#[test]
fn headers_nest_no_deeper_than_any_table() {
    let mut value = b"V".to_vec();
    for _ in 0..15_000 {
        value = [
            b"A",
            &u32::try_from(value.len()).unwrap().to_be_bytes()[..],
            &value,
        ]
        .concat();
    }
    let body = [b"\x01h", &value[..]].concat();
    let bytes = [
        b"\x20\0",
        &u32::try_from(body.len()).unwrap().to_be_bytes()[..],
        &body,
    ]
    .concat();
    let too_deep = PropertyError::Headers(FieldError::TooDeep);
    assert_eq!(RawProperties::new(&bytes).validate(), Err(too_deep));
    assert_eq!(RawProperties::new(&bytes).headers(), Err(too_deep));
}

/// That each question about the raw bytes has the answer the decoded properties give.
fn assert_same_answers(raw: RawProperties<'_>, properties: &Properties) {
    let bytes = |string: &Option<ShortString>| string.as_ref().map(|string| string.as_bytes().to_vec());
    let read = |answer: Result<Option<&[u8]>, PropertyError>| answer.unwrap().map(<[u8]>::to_vec);
    assert_eq!(raw.has_headers(), properties.headers.is_some());
    assert_eq!(raw.has_expiration(), properties.expiration.is_some());
    assert_eq!(raw.has_user_id(), properties.user_id.is_some());
    assert_eq!(raw.has_reply_to(), properties.reply_to.is_some());
    assert_eq!(raw.headers().as_ref(), Ok(&properties.headers));
    assert_eq!(raw.delivery_mode(), Ok(properties.delivery_mode));
    assert_eq!(raw.priority(), Ok(properties.priority));
    assert_eq!(read(raw.correlation_id()), bytes(&properties.correlation_id));
    assert_eq!(read(raw.reply_to()), bytes(&properties.reply_to));
    assert_eq!(read(raw.expiration()), bytes(&properties.expiration));
    assert_eq!(read(raw.message_id()), bytes(&properties.message_id));
    assert_eq!(raw.timestamp(), Ok(properties.timestamp));
    assert_eq!(read(raw.user_id()), bytes(&properties.user_id));
}

#[test]
fn every_question_finds_its_own_property() {
    assert_same_answers(RawProperties::new(FULL), &full());
}

/// The same properties in amq-protocol's type.
fn theirs(properties: &Properties) -> AMQPProperties {
    let text = |string: &Option<ShortString>| {
        string
            .as_ref()
            .map(|string| string.to_string_lossy().into_owned())
    };
    let mut theirs = AMQPProperties::default();
    macro_rules! copy {
        ($($with:ident = $value:expr),+ $(,)?) => {
            $( if let Some(value) = $value { theirs = theirs.$with(value.into()); } )+
        };
    }
    copy! {
        with_content_type = text(&properties.content_type),
        with_content_encoding = text(&properties.content_encoding),
        with_headers = properties.headers.as_ref().map(oracle::table),
        with_delivery_mode = properties.delivery_mode,
        with_priority = properties.priority,
        with_correlation_id = text(&properties.correlation_id),
        with_reply_to = text(&properties.reply_to),
        with_expiration = text(&properties.expiration),
        with_message_id = text(&properties.message_id),
        with_timestamp = properties.timestamp,
        with_type = text(&properties.kind),
        with_user_id = text(&properties.user_id),
        with_app_id = text(&properties.app_id),
        with_cluster_id = text(&properties.cluster_id),
    }
    theirs
}

proptest! {
    #[test]
    fn any_properties_read_back(properties in any_properties(any_short_string(), any_table())) {
        let bytes = encoded(&properties);
        let raw = RawProperties::new(&bytes);
        prop_assert_eq!(raw.validate(), Ok(()));
        assert_same_answers(raw, &properties);
        prop_assert_eq!(Properties::decode(&bytes), Ok(properties));
    }

    #[test]
    fn the_oracle_writes_and_reads_the_same(
        properties in any_properties(
            any_text(6).prop_map(|text| ShortString::from(text.as_str())),
            any_sorted_text_table(),
        )
    ) {
        let bytes = encoded(&properties);
        let theirs = theirs(&properties);
        prop_assert_eq!(&oracle::written(|out| gen_properties(&theirs)(out)), &bytes);
        let (rest, read) = parse_properties(&bytes[..]).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(read, theirs);
    }

    #[test]
    fn checking_agrees_with_reading(
        properties in any_properties(any_short_string(), any_table()),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encoded(&properties);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        prop_assert_eq!(RawProperties::new(&bytes).validate(), Properties::decode(&bytes).map(drop));
    }
}
