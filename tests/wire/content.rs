//! Method, header, bodies: in that order and no other.

use crate::{
    broker::{Canary, Row, check_channel_closes, check_connection_closes, row, shared, unique},
    bytes::{
        Args, BASIC_ACK, BASIC_PUBLISH, BASIC_RECOVER, HEADER, NO_PROPERTIES, QUEUE_DECLARE_OK, body, frame,
        header, header_of, method, publish, publish_method,
    },
    peer::Peer,
};

const EXPECTED_METHOD: &str = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
const EXPECTED_HEADER: &str =
    "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead";
const EXPECTED_BODY: &str = "UNEXPECTED_FRAME - expected content body, got non content body frame instead";

/// A publish to nobody, then these frames.
fn after_publish(frames: &[Vec<u8>]) -> Vec<u8> {
    [publish_method(1, "", "nobody", 0), frames.concat()].concat()
}

fn unexpected(bytes: Vec<u8>, text: &str) -> Row {
    row(bytes, 505, text, BASIC_PUBLISH)
}

/// Proves: FRM-010, FRM-011, FRM-012, FRM-013, FRM-014, FRM-016, H21
#[test]
fn content_out_of_order_closes_with_505() {
    let (none, two) = (header(1, 0, NO_PROPERTIES), header(1, 2, NO_PROPERTIES));
    let recover = method(1, BASIC_RECOVER, Args::new().octet(1));
    let again = publish_method(1, "", "nobody", 0);
    let of_class = |class| {
        let text = format!(
            "UNEXPECTED_FRAME - expected content header for class 60, got one for class {class} instead"
        );
        row(
            after_publish(&[header_of(1, class, 0, 2, NO_PROPERTIES)]),
            505,
            text,
            BASIC_PUBLISH,
        )
    };
    check_connection_closes(vec![
        row(two.clone(), 505, EXPECTED_METHOD, (0, 0)),
        row(body(1, b"ab"), 505, EXPECTED_METHOD, (0, 0)),
        row(body(1, b""), 505, EXPECTED_METHOD, (0, 0)),
        // A channel that is not open knows no better.
        row(body(7, b"ab"), 505, EXPECTED_METHOD, (0, 0)),
        row(header(7, 2, NO_PROPERTIES), 505, EXPECTED_METHOD, (0, 0)),
        // An empty body is complete with its header.
        row(
            after_publish(&[none.clone(), body(1, b"")]),
            505,
            EXPECTED_METHOD,
            (0, 0),
        ),
        row(after_publish(&[none.clone(), none]), 505, EXPECTED_METHOD, (0, 0)),
        unexpected(after_publish(std::slice::from_ref(&again)), EXPECTED_HEADER),
        unexpected(after_publish(std::slice::from_ref(&recover)), EXPECTED_HEADER),
        unexpected(after_publish(&[body(1, b"ab")]), EXPECTED_HEADER),
        unexpected(
            after_publish(&[header_of(1, 60, 1, 2, NO_PROPERTIES)]),
            EXPECTED_HEADER,
        ),
        unexpected(
            after_publish(&[frame(HEADER, 1, &[0, 60, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2])]),
            EXPECTED_HEADER,
        ),
        of_class(50),
        of_class(0),
        of_class(90),
        unexpected(after_publish(&[two.clone(), again]), EXPECTED_BODY),
        unexpected(after_publish(&[two.clone(), recover.clone()]), EXPECTED_BODY),
        unexpected(
            after_publish(&[two.clone(), body(1, b"a"), recover]),
            EXPECTED_BODY,
        ),
        unexpected(after_publish(&[two.clone(), two]), EXPECTED_BODY),
    ]);
}

/// Proves: FRM-015, FRM-019, H28, H29
#[test]
fn bodies_larger_than_announced_or_than_anything_close_with_501() {
    let mut rows = vec![
        row(
            after_publish(&[header(1, 2, NO_PROPERTIES), body(1, b"abc")]),
            501,
            "FRAME_ERROR - content body frame exceeds remaining content size",
            BASIC_PUBLISH,
        ),
        row(
            after_publish(&[header(1, 3, NO_PROPERTIES), body(1, b"ab"), body(1, b"cd")]),
            501,
            "FRAME_ERROR - content body frame exceeds remaining content size",
            BASIC_PUBLISH,
        ),
        // Over the size from which on bodies are not copied.
        row(
            after_publish(&[
                header(1, 30_000, NO_PROPERTIES),
                body(1, &[0; 20_000]),
                body(1, &[0; 20_000]),
            ]),
            501,
            "FRAME_ERROR - content body frame exceeds remaining content size",
            BASIC_PUBLISH,
        ),
    ];
    for size in [536_870_913, 1 << 32, 1 << 63, u64::MAX] {
        let text = format!("FRAME_ERROR - content body size {size} exceeds maximum allowed size 536870912");
        rows.push(row(
            after_publish(&[header(1, size, NO_PROPERTIES)]),
            501,
            text,
            BASIC_PUBLISH,
        ));
    }
    check_connection_closes(rows);
}

/// Proves: FRM-020, H28
#[test]
fn a_message_over_the_limit_closes_the_channel_from_its_header_on() {
    // RabbitMQ gathers the body first and then says the same; nobody needs the memory for that.
    let too_large = |size: u64| {
        format!("PRECONDITION_FAILED - message size {size} is larger than configured max size 16777216")
    };
    check_channel_closes(vec![
        row(
            after_publish(&[header(1, 16_777_217, NO_PROPERTIES)]),
            406,
            too_large(16_777_217),
            BASIC_PUBLISH,
        ),
        // What has been sent of the body meanwhile is read over.
        row(
            after_publish(&[
                header(1, 1 << 29, NO_PROPERTIES),
                body(1, &[1; 100_000]),
                body(1, b"more"),
            ]),
            406,
            too_large(1 << 29),
            BASIC_PUBLISH,
        ),
    ]);
    let immediate = [
        publish_method(1, "", "nobody", 2),
        header(1, 1 << 29, NO_PROPERTIES),
    ]
    .concat();
    check_connection_closes(vec![row(
        immediate,
        540,
        "NOT_IMPLEMENTED - immediate=true",
        BASIC_PUBLISH,
    )]);
}

/// Proves: FRM-016, FRM-017, FRM-021, H29
#[test]
fn bodies_in_any_pieces_are_put_together() {
    let mut peer = Peer::with_channel(shared());
    let queue = peer.exclusive_queue(1);
    let content: Vec<u8> = (0..400_000_u32).map(|at| (at % 251) as u8).collect();
    let cuttings: [&[usize]; 6] = [
        &[400_000],
        &[1, 399_999],
        &[131_064, 131_064, 131_064, 6808],
        &[0, 0, 16_384, 0, 16_383, 0, 367_233],
        &[100_000, 100_000, 100_000, 99_999, 0, 1],
        &[200_000, 200_000],
    ];
    for cuts in cuttings {
        let mut bytes = publish_method(1, "", &queue, 0);
        bytes.extend(header(1, 400_000, NO_PROPERTIES));
        let mut at = 0;
        for cut in cuts {
            // No frame may be larger than was negotiated.
            let part = &content[at..at + cut];
            match part {
                [] => bytes.extend(body(1, &[])),
                part => part
                    .chunks(131_064)
                    .for_each(|piece| bytes.extend(body(1, piece))),
            }
            at += cut;
        }
        peer.send(&bytes);
        let message = peer.get(1, &queue).unwrap();
        assert!(message.body == content, "{cuts:?}");
        assert_eq!(message.parts, [131_064, 131_064, 131_064, 6808]);
    }
    peer.send(&publish(1, "", &queue, b""));
    assert_eq!(peer.get(1, &queue).unwrap().body, b"");
    let mut endless = publish_method(1, "", &queue, 0);
    endless.extend(header(1, 1, NO_PROPERTIES));
    endless.extend(body(1, b"").repeat(10_000));
    endless.extend(body(1, b"x"));
    peer.send(&endless);
    assert_eq!(peer.get(1, &queue).unwrap().body, b"x");
}

/// Proves: FRM-018
#[test]
fn contents_of_two_channels_interleave() {
    let mut peer = Peer::with_channel(shared());
    peer.open_channel(2);
    let queue = peer.exclusive_queue(1);
    peer.send(
        &[
            publish_method(1, "", &queue, 0),
            publish_method(2, "", &queue, 0),
            header(2, 4, NO_PROPERTIES),
            header(1, 4, NO_PROPERTIES),
            body(1, b"on"),
            body(2, b"tw"),
            method(3, (20, 10), Args::new().str("")),
            body(2, b"o!"),
            body(1, b"e!"),
        ]
        .concat(),
    );
    peer.expect(3, (20, 11));
    // The one whose last octet came first is first.
    assert_eq!(peer.get(1, &queue).unwrap().body, b"two!");
    assert_eq!(peer.get(1, &queue).unwrap().body, b"one!");
}

/// Proves: F19, H40
#[test]
fn a_publish_cut_off_at_any_byte_leaves_no_half_message() {
    let mut canary = Canary::new(shared());
    let queue = unique("cut");
    let mut keeper = Peer::with_channel(shared());
    keeper.declare(1, &queue, 0);
    let bytes = [
        publish_method(1, "", &queue, 0),
        header(1, 9, NO_PROPERTIES),
        body(1, b"half a "),
        body(1, b"me"),
    ]
    .concat();
    for cut in 0..bytes.len() {
        let mut peer = Peer::with_channel(shared());
        peer.send(&bytes[..cut]);
        peer.end();
        peer.expect_end();
    }
    assert_eq!(keeper.get(1, &queue), None);
    let mut peer = Peer::with_channel(shared());
    peer.send(&bytes);
    peer.end();
    peer.expect_end();
    assert_eq!(
        keeper.get(1, &queue).unwrap().body,
        b"half a me",
        "whole, it is a message"
    );
    keeper.call(1, (50, 40), Args::new().short(0).str(&queue).octet(0), (50, 41));
    canary.sings();
}

/// Proves: F19
#[test]
fn a_fan_out_an_ack_and_a_declare_cut_off_at_any_byte_are_done_whole_or_not_at_all() {
    let mut keeper = Peer::with_channel(shared());
    let exchange = unique("fan");
    let declare = Args::new()
        .short(0)
        .str(&exchange)
        .str("fanout")
        .octet(0b100)
        .long(0);
    keeper.call(1, (40, 10), declare, (40, 11));
    let queues: Vec<String> = (0..3).map(|_| unique("fan")).collect();
    for queue in &queues {
        keeper.declare(1, queue, 0b1000);
        let args = Args::new()
            .short(0)
            .str(queue)
            .str(&exchange)
            .str("")
            .octet(0)
            .long(0);
        keeper.call(1, (50, 20), args, (50, 21));
    }
    let fan_out = publish(1, &exchange, "", b"for all");
    let new_queue = unique("new");
    let declares = method(1, (50, 10), crate::peer::queue_declare(&new_queue, 0b1000));
    for cut in 0..fan_out.len() {
        let mut peer = Peer::with_channel(shared());
        peer.send(&fan_out[..cut]);
        peer.send_end();
    }
    for cut in 0..declares.len() {
        let mut peer = Peer::with_channel(shared());
        peer.send(&declares[..cut]);
        peer.send_end();
    }
    for queue in &queues {
        assert_eq!(keeper.get(1, queue), None);
    }
    keeper.open_channel(2);
    keeper.method(2, (50, 10), crate::peer::queue_declare(&new_queue, 1));
    assert_eq!(
        keeper.expect_channel_close(2).code,
        404,
        "no part of a declare declares"
    );
    // An ack that breaks off leaves the message, redelivered to the next.
    keeper.send(&publish(1, "", &queues[0], b"kept"));
    keeper.exclusive_queue(1);
    let ack = method(1, BASIC_ACK, Args::new().longlong(1).octet(0));
    for cut in 0..ack.len() {
        let mut peer = Peer::with_channel(shared());
        peer.method(1, (60, 70), Args::new().short(0).str(&queues[0]).octet(0));
        let args = peer.expect(1, (60, 71));
        assert_eq!(peer.content(1, args).body, b"kept");
        peer.send(&ack[..cut]);
        peer.send_end();
    }
    let (_, ready, _) = keeper.declare(1, &queues[0], 1);
    assert_eq!(ready, 1);
    for queue in &queues {
        keeper.call(1, (50, 40), Args::new().short(0).str(queue).octet(0), (50, 41));
    }
    keeper.call(
        1,
        (40, 20),
        Args::new().short(0).str(&exchange).octet(0),
        (40, 21),
    );
    keeper.method(1, (50, 10), crate::peer::queue_declare("", 0b100));
    keeper.expect(1, QUEUE_DECLARE_OK);
}
