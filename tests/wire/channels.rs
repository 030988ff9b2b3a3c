//! Channels: opened, misused, closed and opened again.

use crate::{
    broker::{Canary, check_connection_closes, row, shared, unique},
    bytes::{
        ACCESS_REQUEST, ACCESS_REQUEST_OK, Args, BASIC_ACK, BASIC_CONSUME, BASIC_CONSUME_OK, BASIC_DELIVER,
        BASIC_GET, BASIC_GET_OK, BASIC_PUBLISH, BASIC_QOS, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_FLOW,
        CHANNEL_FLOW_OK, CHANNEL_OPEN, CHANNEL_OPEN_OK, CONFIRM_SELECT, CONNECTION_OPEN_OK, EXCHANGE_DECLARE,
        NO_PROPERTIES, QUEUE_BIND, QUEUE_DECLARE, QUEUE_DELETE, TX_SELECT, body, header, method, publish,
        publish_method,
    },
    peer::{Close, Peer, close_args, open, queue_declare, tune_ok},
};

/// A passive declare of a queue that is not there: 404.
fn miss(channel: u16) -> Vec<u8> {
    method(channel, QUEUE_DECLARE, queue_declare("not there", 1))
}

fn missed() -> Close {
    Close {
        code: 404,
        text: "NOT_FOUND - no queue 'not there' in vhost '/'".to_owned(),
        id: QUEUE_DECLARE,
    }
}

/// Proves: CHN-001, CHN-005, CON-039, H24
#[test]
fn channels_open_close_and_open_again_under_any_number() {
    let mut peer = Peer::open(shared());
    for number in [1, 2047, 2048, 60_000, 65_535] {
        for _ in 0..3 {
            peer.open_channel(number);
            let queue = peer.exclusive_queue(number);
            assert!(queue.starts_with("amq.gen-"));
            assert_eq!(
                peer.call(number, CHANNEL_CLOSE, close_args(), CHANNEL_CLOSE_OK),
                b""
            );
        }
    }
}

/// Proves: CON-038, H24
#[test]
fn one_channel_too_many_closes_with_530_and_the_counts() {
    let mut canary = Canary::new(shared());
    let mut peer = Peer::connect(shared());
    peer.log_in(&[], b"PLAIN", b"\0guest\0guest");
    peer.tune();
    peer.send(&tune_ok(3, 131_072, 0));
    peer.send(&open("/"));
    peer.expect(0, CONNECTION_OPEN_OK);
    // The number is no matter, the count is; a closed channel counts no more.
    for number in [9, 700, 5] {
        peer.open_channel(number);
    }
    peer.call(5, CHANNEL_CLOSE, close_args(), CHANNEL_CLOSE_OK);
    peer.open_channel(6);
    peer.method(7, CHANNEL_OPEN, Args::new().str(""));
    let text = "NOT_ALLOWED - number of channels opened (3) has reached the negotiated channel_max (3)";
    let close = peer.expect_connection_close();
    assert_eq!(
        close,
        Close {
            code: 530,
            text: text.to_owned(),
            id: (0, 0)
        }
    );
    canary.sings();
}

/// Proves: CHN-002, CHN-003, H23
#[test]
fn channels_that_are_not_open_or_already_are_close_with_504() {
    let expected_open = "CHANNEL_ERROR - expected 'channel.open'";
    let open = method(1, CHANNEL_OPEN, Args::new().str(""));
    check_connection_closes(vec![
        row(miss(2), 504, expected_open, QUEUE_DECLARE),
        row(publish_method(2, "", "q", 0), 504, expected_open, BASIC_PUBLISH),
        row(
            method(2, CHANNEL_CLOSE, close_args()),
            504,
            expected_open,
            CHANNEL_CLOSE,
        ),
        row(
            method(65_535, BASIC_ACK, Args::new().longlong(1).octet(0)),
            504,
            expected_open,
            BASIC_ACK,
        ),
        row(
            open,
            504,
            "CHANNEL_ERROR - second 'channel.open' seen",
            CHANNEL_OPEN,
        ),
    ]);
}

/// Proves: CHN-004, CHN-008, CHN-007, H33
#[test]
fn after_our_close_a_channel_listens_for_the_answer_only() {
    let mut canary = Canary::new(shared());
    let mut peer = Peer::with_channel(shared());
    peer.open_channel(2);
    let queue = peer.exclusive_queue(2);
    peer.send(&miss(1));
    assert_eq!(peer.expect_unanswered_channel_close(1), missed());
    // All of this is read over: methods, contents, bodies without a method, even methods that cannot be read.
    let nonsense = [
        publish(1, "", &queue, b"not to be seen"),
        body(1, b"lost"),
        header(1, 7, NO_PROPERTIES),
        miss(1),
        method(1, (60, 999), []),
        method(1, QUEUE_DECLARE, b"\0"),
        method(1, BASIC_ACK, Args::new().longlong(77).octet(0)),
        method(1, TX_SELECT, []),
    ];
    peer.send(&nonsense.concat().repeat(100));
    assert_eq!(peer.get(2, &queue), None, "the other channel goes on");
    // Both sides closing at once is no error.
    peer.call(1, CHANNEL_CLOSE, close_args(), CHANNEL_CLOSE_OK);
    peer.send(&miss(1));
    peer.method(1, CHANNEL_CLOSE_OK, Args::new());
    peer.open_channel(1);
    canary.sings();
    // Opening it before the answer is.
    peer.send(&miss(1));
    assert_eq!(peer.expect_unanswered_channel_close(1), missed());
    peer.method(1, CHANNEL_OPEN, Args::new().str(""));
    let text = "CHANNEL_ERROR - second 'channel.open' seen".to_owned();
    assert_eq!(
        peer.expect_connection_close(),
        Close {
            code: 504,
            text,
            id: CHANNEL_OPEN
        }
    );
    canary.sings();
}

/// Proves: CHN-007
#[test]
fn what_was_sent_behind_the_error_in_the_same_breath_is_read_over() {
    let mut peer = Peer::with_channel(shared());
    peer.open_channel(2);
    let queue = peer.exclusive_queue(2);
    peer.send(
        &[
            publish(1, "", &queue, b"before"),
            publish(1, "no exchange", "", b"wrong"),
            publish(1, "", &queue, b"behind"),
            publish(2, "", &queue, b"neighbour"),
        ]
        .concat(),
    );
    let close = peer.expect_channel_close(1);
    assert_eq!((close.code, close.id), (404, BASIC_PUBLISH));
    assert_eq!(close.text, "NOT_FOUND - no exchange 'no exchange' in vhost '/'");
    assert_eq!(peer.get(2, &queue).unwrap().body, b"before");
    assert_eq!(peer.get(2, &queue).unwrap().body, b"neighbour");
    assert_eq!(peer.get(2, &queue), None);
}

/// Proves: CHN-006, H40
#[test]
fn flow_on_is_answered_and_flow_off_is_not_implemented() {
    let mut peer = Peer::with_channel(shared());
    assert_eq!(
        peer.call(1, CHANNEL_FLOW, Args::new().octet(1), CHANNEL_FLOW_OK),
        [1]
    );
    let off = method(1, CHANNEL_FLOW, Args::new().octet(0));
    check_connection_closes(vec![row(
        off,
        540,
        "NOT_IMPLEMENTED - active=false",
        CHANNEL_FLOW,
    )]);
}

/// Proves: CHN-009
#[test]
fn a_closed_channel_gives_back_its_unacked_and_forgets_its_consumers() {
    let mut peer = Peer::with_channel(shared());
    peer.open_channel(2);
    let queue = unique("held");
    peer.declare(1, &queue, 0);
    let consume = Args::new().short(0).str(&queue).str("c").octet(0).long(0);
    peer.call(1, BASIC_CONSUME, consume, BASIC_CONSUME_OK);
    for content in [b"a", b"b"] {
        peer.send(&publish(2, "", &queue, content));
        let args = peer.expect(1, BASIC_DELIVER);
        assert_eq!(peer.content(1, args).body, content);
    }
    assert_eq!(peer.declare(2, &queue, 1), (queue.clone(), 0, 1));
    // Closed by an error, it gives back at once and not with the answer.
    peer.send(&miss(1));
    assert_eq!(peer.expect_unanswered_channel_close(1), missed());
    assert_eq!(peer.declare(2, &queue, 1), (queue.clone(), 2, 0));
    for content in [b"a", b"b"] {
        peer.method(2, BASIC_GET, Args::new().short(0).str(&queue).octet(0));
        let args = peer.expect(2, BASIC_GET_OK);
        let message = peer.content(2, args);
        assert_eq!(
            (&message.body[..], message.args[8]),
            (&content[..], 1),
            "redelivered, in the old order"
        );
    }
    // Closed by the client as well.
    peer.open_channel(3);
    peer.call(2, CHANNEL_CLOSE, close_args(), CHANNEL_CLOSE_OK);
    assert_eq!(peer.declare(3, &queue, 1), (queue.clone(), 2, 0));
    peer.call(
        3,
        QUEUE_DELETE,
        Args::new().short(0).str(&queue).octet(0),
        (50, 41),
    );
}

/// Proves: CHN-010
#[test]
fn access_request_gets_ticket_1() {
    let mut peer = Peer::with_channel(shared());
    let args = Args::new().str("/data").octet(0b11111);
    assert_eq!(peer.call(1, ACCESS_REQUEST, args, ACCESS_REQUEST_OK), [0, 1]);
}

/// Proves: CHN-011
#[test]
fn a_close_names_the_method_that_failed() {
    let mut peer = Peer::with_channel(shared());
    let none = "not there";
    let rows: Vec<((u16, u16), Args, u16)> = vec![
        (QUEUE_DECLARE, queue_declare(none, 1), 404),
        (
            QUEUE_BIND,
            Args::new()
                .short(0)
                .str(none)
                .str("amq.direct")
                .str("")
                .octet(0)
                .long(0),
            404,
        ),
        (
            EXCHANGE_DECLARE,
            Args::new()
                .short(0)
                .str("amq.direct")
                .str("fanout")
                .octet(2)
                .long(0),
            406,
        ),
        (
            BASIC_CONSUME,
            Args::new().short(0).str(none).str("").octet(0).long(0),
            404,
        ),
        (BASIC_GET, Args::new().short(0).str(none).octet(0), 404),
        (BASIC_ACK, Args::new().longlong(5).octet(0), 406),
        ((60, 90), Args::new().longlong(5).octet(0), 406),
        ((60, 120), Args::new().longlong(5).octet(0), 406),
        ((90, 20), Args::new(), 406),
        ((90, 30), Args::new(), 406),
        ((50, 30), Args::new().short(0).str(none).octet(0), 404),
    ];
    for (id, args, code) in rows {
        peer.method(1, id, args);
        let close = peer.expect_channel_close(1);
        assert_eq!((close.id, close.code), (id, code), "{}", close.text);
        peer.open_channel(1);
    }
    // Without an answer being wished for, an error is told all the same.
    peer.method(
        1,
        QUEUE_BIND,
        Args::new()
            .short(0)
            .str(none)
            .str("amq.direct")
            .str("")
            .octet(1)
            .long(0),
    );
    assert_eq!(peer.expect_channel_close(1).id, QUEUE_BIND);
}

/// Proves: CHN-007
#[test]
fn many_requests_without_waiting_are_answered_in_order() {
    let mut peer = Peer::with_channel(shared());
    let requests = [
        method(1, CONFIRM_SELECT, [0]),
        method(1, BASIC_QOS, Args::new().long(0).short(10).octet(0)),
        method(1, QUEUE_DECLARE, queue_declare("", 0b100)),
        method(1, CHANNEL_FLOW, [1]),
        method(1, CHANNEL_CLOSE, close_args()),
        method(1, CHANNEL_OPEN, Args::new().str("")),
        miss(1),
    ];
    peer.send(&requests.concat());
    for id in [
        (85, 11),
        (60, 11),
        (50, 11),
        CHANNEL_FLOW_OK,
        CHANNEL_CLOSE_OK,
        CHANNEL_OPEN_OK,
    ] {
        peer.expect(1, id);
    }
    assert_eq!(peer.expect_channel_close(1), missed());
}
