//! Message properties and header tables on their way through.

use crate::{
    broker::{Canary, check_connection_closes, row, shared},
    bytes::{
        Args, BASIC_PUBLISH, bool_entry, entry, header, nested_entry, publish_method, publish_with,
        text_entry,
    },
    peer::Peer,
};

/// Publishes with these properties and gives them as they came back.
fn round_trip(peer: &mut Peer, queue: &str, properties: &[u8]) -> Vec<u8> {
    peer.send(&publish_with(1, "", queue, properties, b"body"));
    let message = peer.get(1, queue).unwrap();
    assert_eq!(message.body, b"body");
    message.properties
}

/// Proves: PRP-001, PRP-005, PRP-006
#[test]
fn all_properties_travel_as_they_are() {
    let mut peer = Peer::with_channel(shared());
    let queue = peer.exclusive_queue(1);
    let all = Args::new()
        .short(0xFFFC)
        .str("text/plain")
        .str("utf-8")
        .longstr(&text_entry("key", "value"))
        .octet(7)
        .octet(255)
        .str("correlation")
        .short_bytes(b"reply\xff")
        .str("60000")
        .str("message-id")
        .longlong(u64::MAX)
        .str("type")
        .str("guest")
        .str("app")
        .str("cluster");
    assert_eq!(round_trip(&mut peer, &queue, all.as_ref()), all.as_ref());
    // None at all, an empty table, empty strings, delivery modes that mean nothing.
    for properties in [
        Args::new().short(0),
        Args::new().short(1 << 13).longstr(b""),
        Args::new().short(0b11 << 14).str("").str(""),
        Args::new().short(1 << 12).octet(0),
        Args::new().short(1 << 12).octet(3),
        Args::new().short(1 << 12).octet(255),
        Args::new().short(1 << 11).octet(0),
        Args::new().short(1 << 9).str(&"\u{1F407}".repeat(63)),
    ] {
        assert_eq!(
            round_trip(&mut peer, &queue, properties.as_ref()),
            properties.as_ref()
        );
    }
}

/// Proves: PRP-002
#[test]
fn values_of_every_tag_travel() {
    let mut peer = Peer::with_channel(shared());
    let queue = peer.exclusive_queue(1);
    let list = [&b"I\0\0\0\x05"[..], b"V", b"t\x01", b"A\0\0\0\x01V"].concat();
    let inner = [text_entry("deep", "value"), nested_entry("list", b'A', &list)].concat();
    let entries = [
        nested_entry("a", b'A', &list),
        entry("b", b'b', &[0x80]),
        entry("c", b'B', &[0xFF]),
        entry("d", b's', &[0x80, 0]),
        entry("e", b'u', &[0xFF; 2]),
        entry("f", b'I', &[0x80, 0, 0, 0]),
        entry("g", b'i', &[0xFF; 4]),
        entry("h", b'l', &[0x80, 0, 0, 0, 0, 0, 0, 0]),
        entry("i", b'f', &1.5_f32.to_be_bytes()),
        entry("j", b'd', &f64::NEG_INFINITY.to_be_bytes()),
        entry("k", b'D', &[2, 0, 0, 1, 0]),
        entry("l", b'S', b"\0\0\0\x03\xff\0x"),
        entry("m", b'x', b"\0\0\0\x02\xfe\xff"),
        nested_entry("n", b'F', &inner),
        entry("o", b'T', &[0xFF; 8]),
        entry("p", b'V', b""),
        bool_entry("q", true),
        bool_entry("r", false),
    ]
    .concat();
    let sent = Args::new().short(1 << 13).longstr(&entries);
    assert_eq!(round_trip(&mut peer, &queue, sent.as_ref()), sent.as_ref());
    // The specification's tag for the same as `l`: it may come back as either.
    let with = |tag| Args::new().short(1 << 13).longstr(&entry("n", tag, &[0xFF; 8]));
    let came = round_trip(&mut peer, &queue, with(b'L').as_ref());
    assert!(
        came == with(b'l').as_ref() || came == with(b'L').as_ref(),
        "{came:?}"
    );
}

/// Proves: PRP-003, H31, H30
#[test]
fn properties_that_cannot_be_read_close_with_501() {
    // RabbitMQ says 541 here, after a crash of the channel; 501 names whose fault it is.
    let with =
        |properties: &Args| [publish_method(1, "", "q", 0), header(1, 0, properties.as_ref())].concat();
    let headers = |bytes: &[u8]| Args::new().short(1 << 13).longstr(bytes);
    let mut canary = Canary::new(shared());
    for properties in [
        headers(&entry("x", b'?', b"")),
        headers(&entry("x", b'U', b"\0\0")),
        headers(b"\x05x"),
        headers(&entry("x", b'S', &[0xFF; 4])),
        Args::new().short(1 << 15),
        Args::new().short(1 << 15).octet(9).raw(b"short"),
        Args::new().short(1 << 12),
        Args::new().short(1 << 6).long(1),
        Args::new().short(0xFFFC),
        Args::new().short(0).octet(0),
        // A second word of flags.
        Args::new().short(1).short(1 << 15).str("x"),
        Args::new(),
        Args::new().octet(0),
    ] {
        let mut peer = Peer::with_channel(shared());
        peer.send(&with(&properties));
        let close = peer.expect_connection_close();
        assert!(matches!(close.code, 501 | 505), "{close:?}");
        assert_eq!(close.id, BASIC_PUBLISH);
        canary.sings();
    }
    // Nesting is bounded here as in arguments.
    let mut deep = Vec::new();
    for _ in 0..65 {
        deep = nested_entry("", b'F', &deep);
    }
    let text = "FRAME_ERROR - a message's headers are not a table: a field table nests deeper than 64 levels";
    check_connection_closes(vec![row(with(&headers(&deep)), 501, text, BASIC_PUBLISH)]);
}

/// Proves: PRP-004, H30
#[test]
fn keys_that_come_twice_or_unordered_are_tolerated() {
    let mut peer = Peer::with_channel(shared());
    let queue = peer.exclusive_queue(1);
    let entries = [
        text_entry("z", "1"),
        text_entry("a", "2"),
        text_entry("z", "3"),
        bool_entry("", true),
    ]
    .concat();
    let came = round_trip(
        &mut peer,
        &queue,
        Args::new().short(1 << 13).longstr(&entries).as_ref(),
    );
    // Their order and the second one need not survive; the first of two does.
    let first = text_entry("z", "1");
    assert!(came.windows(first.len()).any(|window| window == first));
}
