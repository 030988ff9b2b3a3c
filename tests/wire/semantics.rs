//! What is well written and still refused.

use crate::{
    broker::{Canary, check_channel_closes, check_connection_closes, row, shared},
    bytes::{
        Args, BASIC_CONSUME, BASIC_PUBLISH, BASIC_QOS, BASIC_RECOVER, EXCHANGE_DECLARE, NO_PROPERTIES,
        QUEUE_DECLARE, entry, header, method, publish, publish_method, publish_with, text_entry,
    },
    peer::{Peer, queue_declare},
};

/// Proves: H40
#[test]
fn refusals_of_the_connection() {
    let immediate = [publish_method(1, "", "q", 2), header(1, 0, NO_PROPERTIES)].concat();
    let size = method(1, BASIC_QOS, Args::new().long(5).short(1).octet(0));
    let consume = Args::new().short(0).str("").str("twice").octet(0).long(0);
    let twice = [
        method(1, QUEUE_DECLARE, queue_declare("", 0b100)),
        method(1, BASIC_CONSUME, &consume),
        method(1, BASIC_CONSUME, &consume),
    ];
    let keep = method(1, BASIC_RECOVER, [0]);
    check_connection_closes(vec![
        row(immediate, 540, "NOT_IMPLEMENTED - immediate=true", BASIC_PUBLISH),
        row(size, 540, "NOT_IMPLEMENTED - prefetch_size!=0 (5)", BASIC_QOS),
        row(keep, 540, "NOT_IMPLEMENTED - requeue=false", BASIC_RECOVER),
        row(
            twice.concat(),
            530,
            "NOT_ALLOWED - attempt to reuse consumer tag 'twice'",
            BASIC_CONSUME,
        ),
    ]);
}

/// Proves: H40
#[test]
fn refused_publishes() {
    let with = |properties: Args| publish_with(1, "", "q", properties.as_ref(), b"x");
    let expires = |value: &str| with(Args::new().short(1 << 8).str(value));
    let cc = |value: &[u8]| with(Args::new().short(1 << 13).longstr(value));
    let text = |bytes: Vec<u8>, code: u16, text: &str, id| row(bytes, code, text, id);
    check_channel_closes(vec![
        text(
            publish(1, "missing", "", b"x"),
            404,
            "NOT_FOUND - no exchange 'missing' in vhost '/'",
            BASIC_PUBLISH,
        ),
        text(
            expires("abc"),
            406,
            "PRECONDITION_FAILED - invalid expiration 'abc': no_integer",
            BASIC_PUBLISH,
        ),
        text(
            expires("-1"),
            406,
            "PRECONDITION_FAILED - invalid expiration '-1': {value_negative,-1}",
            BASIC_PUBLISH,
        ),
        text(
            with(Args::new().short(1 << 4).str("somebody")),
            406,
            "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'",
            BASIC_PUBLISH,
        ),
        text(
            cc(&text_entry("CC", "not a list")),
            406,
            "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}",
            BASIC_PUBLISH,
        ),
    ]);
}

/// Proves: H40
#[test]
fn refused_declarations() {
    let declare = |name: &str, kind: &str| {
        let args = Args::new().short(0).str(name).str(kind).octet(0b10).long(0);
        method(1, EXCHANGE_DECLARE, args)
    };
    let text = |bytes: Vec<u8>, code: u16, text: &str, id| row(bytes, code, text, id);
    let mut canary = Canary::new(shared());
    check_channel_closes(vec![
        text(
            declare("amq.mine", "direct"),
            403,
            "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
            EXCHANGE_DECLARE,
        ),
        text(
            method(1, QUEUE_DECLARE, queue_declare("amq.mine", 0)),
            403,
            "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
            QUEUE_DECLARE,
        ),
        // 503 for the connection in RabbitMQ 3.10, 406 for the channel since; newer clients expect the newer.
        text(
            declare("x", "sideways"),
            406,
            "PRECONDITION_FAILED - unknown exchange type 'sideways'",
            EXCHANGE_DECLARE,
        ),
        text(
            declare("amq.direct", "fanout"),
            406,
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received 'fanout' \
             but current is 'direct'",
            EXCHANGE_DECLARE,
        ),
    ]);
    let mut peer = Peer::with_channel(shared());
    let wrong_type = entry("x-max-length", b'S', &[0, 0, 0, 1, b'x']);
    let args = Args::new().short(0).str("").octet(0b100).longstr(&wrong_type);
    peer.send(&method(1, QUEUE_DECLARE, args));
    let close = peer.expect_channel_close(1);
    assert_eq!((close.code, close.id), (406, QUEUE_DECLARE), "{close:?}");
    canary.sings();
}

/// Proves: H41
#[test]
fn names_of_any_text_are_names() {
    let mut peer = Peer::with_channel(shared());
    let mut canary = Canary::new(shared());
    for name in [
        "a/b",
        "../../etc/passwd",
        "nul\0inside",
        "<script>alert(1)</script>",
        "\u{202e}right to left",
        "\u{1F407}",
        "%2F",
        " ",
        ".*(a+)+$",
        &"n".repeat(255),
    ] {
        assert_eq!(peer.declare(1, name, 0b100), (name.to_owned(), 0, 0));
        peer.send(&publish(1, "", name, name.as_bytes()));
        assert_eq!(peer.get(1, name).unwrap().body, name.as_bytes());
        canary.sings();
    }
    // Line feeds and carriage returns are taken out, as RabbitMQ does.
    assert_eq!(peer.declare(1, "two\r\nlines", 0b100).0, "twolines");
}
