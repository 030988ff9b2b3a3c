//! Frames that are none, and methods that cannot be read.

use crate::{
    broker::{Canary, Row, check_connection_closes, row, shared, unique},
    bytes::{
        Args, BASIC_ACK, BASIC_DELIVER, BASIC_PUBLISH, BASIC_RETURN, CHANNEL_CLOSE_OK, CHANNEL_OPEN,
        CONFIRM_SELECT, CONNECTION_OPEN, EXCHANGE_DECLARE, Fields, HEADER, HEARTBEAT, METHOD, NO_PROPERTIES,
        QUEUE_BIND, QUEUE_DECLARE, QUEUE_DECLARE_OK, QUEUE_DELETE, body, bool_entry, entry, frame, header,
        method, nested_entry, publish, publish_method,
    },
    peer::{Peer, open, queue_declare, tune_ok},
};

/// A connection that negotiated frames of 4096 octets, with channel 1 open.
fn small_frames() -> Peer {
    let mut peer = Peer::connect(shared());
    peer.log_in(&[], b"PLAIN", b"\0guest\0guest");
    peer.tune();
    peer.send(&tune_ok(2047, 4096, 0));
    peer.send(&open("/"));
    peer.expect(0, crate::bytes::CONNECTION_OPEN_OK);
    peer.open_channel(1);
    peer
}

/// Proves: FRM-001, H20
#[test]
fn frames_up_to_the_limit_and_a_little_more_are_taken() {
    for size in [4088, 4096] {
        let mut peer = small_frames();
        let queue = peer.exclusive_queue(1);
        let content = vec![1; size];
        peer.send(&publish(1, "", &queue, &content));
        assert_eq!(peer.get(1, &queue).unwrap().body, content);
    }
    let mut canary = Canary::new(shared());
    for size in [4097_u32, 1 << 20, u32::MAX] {
        // Only the head of the frame: the payload need not come.
        let mut peer = small_frames();
        peer.send(Args::new().octet(3).short(1).long(size).as_ref());
        let close = peer.expect_connection_close();
        assert_eq!((close.code, close.id), (501, (0, 0)));
        let text = format!("FRAME_ERROR - type 3, all octets = <<>>: {{frame_too_large,{size},4088}}");
        assert_eq!(close.text, text);
        canary.sings();
    }
}

/// Proves: FRM-002, FRM-003, FRM-005, H20, H26
#[test]
fn what_is_no_frame_closes_with_501() {
    let bad_end = |payload: &[u8], end: u8| {
        let mut bytes = frame(METHOD, 1, payload);
        *bytes.last_mut().unwrap() = end;
        bytes
    };
    let mut rows = vec![
        row(
            bad_end(&[0, 60, 0, 110, 1], 0),
            501,
            "FRAME_ERROR - type 1, all octets = <<0,60,0,110,1>>: {invalid_frame_end_marker,0}",
            (0, 0),
        ),
        row(
            bad_end(&[0; 17], 0xCF),
            501,
            "FRAME_ERROR - type 1, first 16 octets = <<0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0>>: \
             {invalid_frame_end_marker,207}",
            (0, 0),
        ),
        row(
            frame(HEARTBEAT, 0, b"x"),
            501,
            "FRAME_ERROR - type 8, all octets = <<\"x\">>: unknown_frame",
            (0, 0),
        ),
        row(
            frame(METHOD, 1, b""),
            501,
            "FRAME_ERROR - type 1, all octets = <<>>: unknown_frame",
            (0, 0),
        ),
        row(
            frame(METHOD, 1, &[0, 60, 0]),
            501,
            "FRAME_ERROR - type 1, all octets = <<0,60,0>>: unknown_frame",
            (0, 0),
        ),
        row(
            frame(HEADER, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            501,
            "FRAME_ERROR - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0>>: unknown_frame",
            (0, 0),
        ),
    ];
    for kind in [0, 4, 5, 6, 7, 9, 0x7F, 0xFF] {
        let text = format!("FRAME_ERROR - type {kind}, all octets = <<>>: unknown_frame");
        rows.push(row(frame(kind, 1, b""), 501, text, (0, 0)));
    }
    check_connection_closes(rows);
}

/// Proves: FRM-004, H21
#[test]
fn frames_on_channels_where_they_cannot_be_close_with_505() {
    let content_header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    check_connection_closes(vec![
        row(
            frame(HEARTBEAT, 1, b""),
            505,
            "UNEXPECTED_FRAME - type 8, all octets = <<>>",
            (0, 0),
        ),
        row(
            frame(HEARTBEAT, 7, b""),
            505,
            "UNEXPECTED_FRAME - type 8, all octets = <<>>",
            (0, 0),
        ),
        row(
            body(0, b"abc"),
            505,
            "UNEXPECTED_FRAME - type 3, all octets = <<\"abc\">>",
            (0, 0),
        ),
        row(
            frame(HEADER, 0, &content_header),
            505,
            "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,1,0,0>>",
            (0, 0),
        ),
    ]);
}

/// Proves: FRM-006, H25, H22, CHN-011
#[test]
fn methods_nobody_knows_or_only_servers_send_close_with_503() {
    // RabbitMQ drops the connection without a word for a method it does not know; a close says why, and clients take
    // both.
    let unknown = |id: (u16, u16)| {
        let text = format!("COMMAND_INVALID - unknown method {}.{}", id.0, id.1);
        row(method(1, id, []), 503, text, id)
    };
    let unimplemented = |id: (u16, u16), args: Args| {
        row(
            method(1, id, args),
            503,
            "COMMAND_INVALID - unimplemented method",
            id,
        )
    };
    let deliver = [
        method(
            1,
            BASIC_DELIVER,
            Args::new().str("t").longlong(1).octet(0).str("").str("q"),
        ),
        header(1, 1, NO_PROPERTIES),
        body(1, b"x"),
    ];
    let returned = [
        method(
            1,
            BASIC_RETURN,
            Args::new().short(312).str("NO_ROUTE").str("").str("q"),
        ),
        header(1, 0, NO_PROPERTIES),
    ];
    check_connection_closes(vec![
        unknown((60, 999)),
        unknown((60, 200)),
        unknown((0, 0)),
        unknown((70, 10)),
        unknown((10, 99)),
        unknown((65_535, 65_535)),
        unimplemented(QUEUE_DECLARE_OK, Args::new().str("q").long(0).long(0)),
        unimplemented(CHANNEL_CLOSE_OK, Args::new()),
        unimplemented((20, 11), Args::new().long(0)),
        unimplemented((40, 11), Args::new()),
        unimplemented((60, 21), Args::new().str("t")),
        unimplemented((60, 72), Args::new().str("")),
        unimplemented((85, 11), Args::new()),
        unimplemented((90, 21), Args::new()),
        row(
            deliver.concat(),
            503,
            "COMMAND_INVALID - unimplemented method",
            BASIC_DELIVER,
        ),
        row(
            returned.concat(),
            503,
            "COMMAND_INVALID - unimplemented method",
            BASIC_RETURN,
        ),
        // Methods of the connection on a channel.
        unimplemented(CONNECTION_OPEN, Args::new().str("/").str("").octet(0)),
        unimplemented((10, 51), Args::new()),
        unimplemented((10, 50), Args::new().short(200).str("bye").short(0).short(0)),
        unimplemented((10, 70), Args::new().longstr(b"secret").str("why")),
    ]);
}

/// Proves: FRM-007, H26, CHN-011
#[test]
fn methods_with_too_little_or_too_much_close_with_501() {
    // The table of hostile input says that RabbitMQ ignores bytes behind the last field; its decoder matches the whole
    // payload and refuses them, so we do.
    let cannot = |id: (u16, u16), args: Args| {
        let payload = method(1, id, &args);
        let bytes = &payload[7..payload.len() - 1];
        let (shown, rest) = bytes.split_at(bytes.len().min(16));
        assert!(rest.len() + shown.len() == bytes.len());
        let listed: Vec<String> = shown.iter().map(u8::to_string).collect();
        row(
            payload,
            501,
            format!("FRAME_ERROR - cannot decode <<{}>>", listed.join(",")),
            id,
        )
    };
    let declare = queue_declare("q", 0);
    let declare_bytes = declare.as_ref().to_vec();
    let mut rows: Vec<Row> = (0..declare_bytes.len())
        .filter(|len| *len < declare_bytes.len() - 4)
        .map(|len| cannot(QUEUE_DECLARE, Args::new().raw(&declare_bytes[..len])))
        .collect();
    rows.extend([
        cannot(QUEUE_DECLARE, declare.raw(b"\0")),
        cannot(CHANNEL_OPEN, Args::new()),
        cannot(CHANNEL_OPEN, Args::new().str("").octet(1)),
        cannot(QUEUE_DELETE, Args::new().short(0).octet(200).raw(b"short")),
        cannot(BASIC_ACK, Args::new().longlong(1)),
        cannot(BASIC_ACK, Args::new().longlong(1).octet(0).octet(0)),
        cannot(BASIC_ACK, Args::new()),
        cannot(BASIC_PUBLISH, Args::new().short(0).str("").str("q")),
        cannot(
            BASIC_PUBLISH,
            Args::new().short(0).str("").str("q").octet(0).octet(0),
        ),
        cannot(BASIC_PUBLISH, Args::new().short(0).octet(255).raw(b"q")),
        cannot(CONFIRM_SELECT, Args::new()),
        cannot((90, 10), Args::new().octet(1)),
    ]);
    check_connection_closes(rows);
}

/// Proves: FRM-008, H27
#[test]
fn names_that_are_not_utf_8_close_with_501() {
    let bad = |id: (u16, u16), args: Args| {
        row(
            method(1, id, args),
            501,
            "FRAME_ERROR - Malformed UTF-8 in shortstr",
            id,
        )
    };
    check_connection_closes(vec![
        bad(
            QUEUE_DECLARE,
            Args::new().short(0).short_bytes(b"q\xff").octet(0).long(0),
        ),
        bad(
            EXCHANGE_DECLARE,
            Args::new()
                .short(0)
                .short_bytes(b"\xc3")
                .str("direct")
                .octet(0)
                .long(0),
        ),
        bad(
            QUEUE_BIND,
            Args::new()
                .short(0)
                .str("q")
                .str("e")
                .short_bytes(b"\xed\xa0\x80")
                .octet(0)
                .long(0),
        ),
        bad(
            (60, 20),
            Args::new()
                .short(0)
                .str("q")
                .short_bytes(b"\x80")
                .octet(0)
                .long(0),
        ),
        bad(
            (20, 40),
            Args::new().short(200).short_bytes(b"\xfe").short(0).short(0),
        ),
    ]);
}

/// Proves: FRM-009, H41
#[test]
fn a_routing_key_of_any_bytes_travels_unchanged() {
    let mut peer = Peer::with_channel(shared());
    let queue = peer.exclusive_queue(1);
    let args = Args::new()
        .short(0)
        .str(&queue)
        .str("amq.fanout")
        .str("")
        .octet(0)
        .long(0);
    peer.call(1, QUEUE_BIND, args, crate::bytes::QUEUE_BIND_OK);
    for key in [
        &b"\xff\xfe\x00"[..],
        b"",
        &[0xC3; 255],
        "\u{202e}<b>\u{1F407}".as_bytes(),
        b"\r\n../..",
    ] {
        let publish = Args::new().short(0).str("amq.fanout").short_bytes(key).octet(0);
        peer.send(
            &[
                method(1, BASIC_PUBLISH, publish),
                header(1, 1, NO_PROPERTIES),
                body(1, b"x"),
            ]
            .concat(),
        );
        let message = peer.get(1, &queue).unwrap();
        let mut fields = Fields(&message.args);
        fields.longlong();
        fields.octet();
        assert_eq!(
            (fields.short_bytes(), fields.short_bytes()),
            (&b"amq.fanout"[..], key)
        );
    }
    // And comes back unchanged when nobody wanted it.
    let nobody = Args::new().short(0).str("").short_bytes(b"\xff").octet(1);
    peer.send(&[method(1, BASIC_PUBLISH, nobody), header(1, 0, NO_PROPERTIES)].concat());
    let args = peer.expect(1, BASIC_RETURN);
    let returned = peer.content(1, args);
    let mut fields = Fields(&returned.args);
    assert_eq!((fields.short(), fields.str()), (312, "NO_ROUTE".to_owned()));
    assert_eq!(
        (fields.short_bytes(), fields.short_bytes()),
        (&b""[..], &b"\xff"[..])
    );
}

fn declare_with(arguments: &[u8]) -> Vec<u8> {
    let args = Args::new().short(0).str("").octet(0b100).longstr(arguments);
    method(1, QUEUE_DECLARE, args)
}

fn nested(depth: usize, tag: u8) -> Vec<u8> {
    let mut inner: Vec<u8> = Vec::new();
    for _ in 1..depth {
        inner = match tag {
            b'F' => nested_entry("", b'F', &inner),
            // An array's elements have no key.
            _ => Args::new().octet(b'A').longstr(&inner).as_ref().to_vec(),
        };
    }
    match tag {
        b'F' => inner,
        _ => [vec![0], inner].concat(),
    }
}

/// Proves: H30, H26
#[test]
fn tables_that_cannot_be_read_or_are_meant_to_hurt_close_with_501() {
    let bad = |arguments: &[u8], text: &str| {
        row(
            declare_with(arguments),
            501,
            format!("FRAME_ERROR - {text}"),
            QUEUE_DECLARE,
        )
    };
    let ends = "a field table ends before its contents do";
    let deep = "a field table nests deeper than 64 levels";
    let many = "a field table has more than 65536 values";
    let mut rows = vec![
        bad(&entry("x", b'?', b""), "unknown field type ?"),
        bad(&entry("x", b'U', b"\0\0"), "unknown field type U"),
        bad(&entry("x", 0, b""), "unknown field type \\x00"),
        bad(&entry("x", b'S', &[0, 0, 0, 9, 1]), ends),
        bad(&entry("x", b'S', &[0xff; 4]), ends),
        bad(&entry("x", b'F', &[0xff; 4]), ends),
        bad(&entry("x", b'A', &[0, 0, 1, 0]), ends),
        bad(&entry("x", b'l', &[0]), ends),
        bad(b"\x05x", ends),
        bad(b"\x01", ends),
        // RabbitMQ has no bound; 32 would do for us, and 64 is what its reference asks of others.
        bad(&nested(65, b'F'), deep),
        bad(&nested(66, b'A'), deep),
        bad(&nested(15_000, b'F'), deep),
        bad(&nested(15_000, b'A'), deep),
        bad(&nested_entry("v", b'A', &[b'V'; 65_536]), many),
    ];
    // The table is longer than the frame.
    let beyond = Args::new().short(0).str("").octet(0).long(1000).raw(b"abc");
    rows.push(row(
        method(1, QUEUE_DECLARE, beyond),
        501,
        format!("FRAME_ERROR - {ends}"),
        QUEUE_DECLARE,
    ));
    check_connection_closes(rows);
}

/// Proves: H30
#[test]
fn odd_tables_are_taken() {
    let mut canary = Canary::new(shared());
    let mut peer = Peer::with_channel(shared());
    for arguments in [
        nested(64, b'F'),
        nested(64, b'A'),
        nested_entry("voids", b'A', &[b'V'; 60_000]),
        b"\0V".repeat(60_000),
        // Of a key that comes twice the first counts, as in RabbitMQ; the table of hostile input would have the last.
        [
            entry("x-max-length", b'I', &[0, 0, 0, 5]),
            entry("x-max-length", b't', &[1]),
        ]
        .concat(),
        [bool_entry("", true), bool_entry("", false)].concat(),
        entry("x-nan", b'd', &f64::NAN.to_be_bytes()),
        entry("x-long", b'L', &[0xff; 8]),
    ] {
        peer.send(&declare_with(&arguments));
        peer.expect(1, QUEUE_DECLARE_OK);
        canary.sings();
    }
}

/// Proves: H32
#[test]
fn a_session_cut_at_every_byte_goes_as_it_would_whole() {
    let queue = unique("split");
    let session = [
        method(1, CHANNEL_OPEN, Args::new().str("")),
        method(1, QUEUE_DECLARE, queue_declare(&queue, 0b100)),
        frame(HEARTBEAT, 0, b""),
        publish_method(1, "", &queue, 1),
        header(1, 5, NO_PROPERTIES),
        body(1, b"he"),
        body(1, b""),
        body(1, b"llo"),
        publish(1, "", &queue, b""),
    ]
    .concat();
    let drip = |chunk: usize| {
        let mut peer = Peer::open(shared());
        for part in session.chunks(chunk) {
            peer.send(part);
        }
        peer.expect(1, crate::bytes::CHANNEL_OPEN_OK);
        peer.expect(1, QUEUE_DECLARE_OK);
        assert_eq!(peer.get(1, &queue).unwrap().body, b"hello");
        assert_eq!(peer.get(1, &queue).unwrap().body, b"");
        assert_eq!(peer.get(1, &queue), None);
        peer.close();
    };
    drip(1);
    for cut in 1..session.len() {
        let mut peer = Peer::open(shared());
        peer.send(&session[..cut]);
        peer.send(&session[cut..]);
        peer.expect(1, crate::bytes::CHANNEL_OPEN_OK);
        peer.expect(1, QUEUE_DECLARE_OK);
        assert_eq!(peer.get(1, &queue).unwrap().body, b"hello", "cut at {cut}");
        peer.close();
    }
}

/// Proves: H32
#[test]
fn a_thousand_frames_in_one_segment_are_a_thousand_frames() {
    let mut peer = Peer::with_channel(shared());
    peer.select_confirms(1);
    let queue = peer.exclusive_queue(1);
    let flood: Vec<u8> = (0..1000_u32)
        .flat_map(|at| publish(1, "", &queue, &at.to_be_bytes()))
        .collect();
    peer.send(&flood);
    let mut confirmed = 0;
    while confirmed < 1000 {
        let args = peer.expect(1, BASIC_ACK);
        let mut fields = Fields(&args);
        confirmed = fields.longlong();
    }
    for at in 0..1000_u32 {
        assert_eq!(peer.get(1, &queue).unwrap().body, at.to_be_bytes());
    }
}
