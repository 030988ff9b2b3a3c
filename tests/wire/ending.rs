//! How connections end, and what channel 0 takes.

use std::time::Duration;

use crate::{
    broker::{Broker, Canary, check_connection_closes, row, shared, unique},
    bytes::{
        Args, BASIC_CONSUME, BASIC_CONSUME_OK, BASIC_QOS, CHANNEL_OPEN, CONNECTION_CLOSE,
        CONNECTION_CLOSE_OK, CONNECTION_OPEN, CONNECTION_START_OK, CONNECTION_TUNE_OK,
        CONNECTION_UPDATE_SECRET, CONNECTION_UPDATE_SECRET_OK, QUEUE_DECLARE, frame, method, publish,
    },
    peer::{Close, Peer, close_args, open, queue_declare, start_ok, tune_ok},
};

/// Proves: CON-045, CON-046, H10, H23
#[test]
fn channel_0_takes_nothing_but_its_own_methods_at_their_time() {
    let wrong = |bytes: Vec<u8>, id| {
        row(
            bytes,
            504,
            "CHANNEL_ERROR - unexpected method in connection state running",
            id,
        )
    };
    check_connection_closes(vec![
        wrong(open("/"), CONNECTION_OPEN),
        wrong(start_ok(&[], b"PLAIN", b"\0guest\0guest"), CONNECTION_START_OK),
        wrong(tune_ok(2047, 131_072, 0), CONNECTION_TUNE_OK),
        wrong(method(0, CONNECTION_CLOSE_OK, []), CONNECTION_CLOSE_OK),
        wrong(method(0, (10, 21), Args::new().longstr(b"secure-ok")), (10, 21)),
        wrong(method(0, (10, 60), Args::new().str("blocked")), (10, 60)),
        wrong(method(0, CHANNEL_OPEN, Args::new().str("")), CHANNEL_OPEN),
        wrong(
            method(0, BASIC_QOS, Args::new().long(0).short(1).octet(0)),
            BASIC_QOS,
        ),
        wrong(method(0, QUEUE_DECLARE, queue_declare("q", 0)), QUEUE_DECLARE),
        wrong(publish(0, "", "q", b"x"), (60, 40)),
    ]);
}

/// Proves: CON-047
#[test]
fn exclusive_queues_are_gone_when_close_is_answered() {
    let mut keeper = Peer::with_channel(shared());
    for _ in 0..20 {
        let mut peer = Peer::with_channel(shared());
        let queue = unique("mine");
        peer.declare(1, &queue, 0b100);
        peer.close();
        // Anybody may have the name now.
        keeper.declare(1, &queue, 0b1000);
        keeper.call(1, (50, 40), Args::new().short(0).str(&queue).octet(0), (50, 41));
    }
}

/// Proves: CON-048, H33
#[test]
fn after_the_clients_close_only_another_close_is_answered() {
    let mut canary = Canary::new(shared());
    let mut peer = Peer::with_channel(shared());
    let queue = unique("unseen");
    let close = method(0, CONNECTION_CLOSE, close_args());
    peer.send(
        &[
            close.clone(),
            method(1, QUEUE_DECLARE, queue_declare(&queue, 0)),
            method(0, (60, 999), []),
            frame(3, 5, b"a body of nothing"),
            close.clone(),
        ]
        .concat(),
    );
    peer.expect(0, CONNECTION_CLOSE_OK);
    peer.expect(0, CONNECTION_CLOSE_OK);
    peer.send(&close);
    peer.expect(0, CONNECTION_CLOSE_OK);
    peer.end();
    peer.expect_end();
    let mut keeper = Peer::with_channel(shared());
    keeper.method(1, QUEUE_DECLARE, queue_declare(&queue, 1));
    assert_eq!(keeper.expect_channel_close(1).code, 404);
    canary.sings();
}

/// Proves: CON-047
#[test]
fn what_came_before_the_close_is_done() {
    let mut keeper = Peer::with_channel(shared());
    let queue = keeper.exclusive_queue(1);
    let mut peer = Peer::with_channel(shared());
    let mut bytes: Vec<u8> = (0..50_u8).flat_map(|at| publish(1, "", &queue, &[at])).collect();
    bytes.extend(method(0, CONNECTION_CLOSE, close_args()));
    peer.send(&bytes);
    peer.expect(0, CONNECTION_CLOSE_OK);
    for at in 0..50_u8 {
        assert_eq!(keeper.get(1, &queue).unwrap().body, [at]);
    }
}

/// Proves: CON-049, H33
#[test]
fn our_close_waits_for_the_answer_and_reads_over_the_rest() {
    let mut canary = Canary::new(shared());
    let mistake = method(0, BASIC_QOS, Args::new().long(0).short(1).octet(0));
    // Answered late, after much that nobody listens to.
    let mut peer = Peer::with_channel(shared());
    let queue = unique("unseen");
    peer.send(&mistake);
    assert_eq!(peer.expect(0, CONNECTION_CLOSE)[..2], 504_u16.to_be_bytes());
    let ignored = [
        method(1, QUEUE_DECLARE, queue_declare(&queue, 0)),
        publish(1, "", &queue, &[0; 1000]),
        method(9, (60, 999), b"junk"),
    ];
    peer.send(&ignored.concat().repeat(200));
    peer.send(&method(0, CONNECTION_CLOSE_OK, []));
    peer.expect_end();
    let mut keeper = Peer::with_channel(shared());
    keeper.method(1, QUEUE_DECLARE, queue_declare(&queue, 1));
    assert_eq!(keeper.expect_channel_close(1).code, 404);
    // Answered by a close: both are content.
    let mut peer = Peer::with_channel(shared());
    peer.send(&mistake);
    peer.expect(0, CONNECTION_CLOSE);
    peer.method(0, CONNECTION_CLOSE, close_args());
    peer.expect(0, CONNECTION_CLOSE_OK);
    peer.expect_end();
    // Never answered: patience is the heartbeat interval, here a second.
    let mut peer = Peer::open_with(shared(), 1, &[]);
    peer.send(&mistake);
    peer.expect(0, CONNECTION_CLOSE);
    peer.expect_end();
    canary.sings();
}

/// Proves: CON-049, H20
#[test]
fn a_client_that_broke_the_framing_may_finish_its_sentence() {
    let mut canary = Canary::new(shared());
    let mut peer = Peer::with_channel(shared());
    peer.send(b"\x01\x00\x01\x00\x00\x00\x05\x00\x0a\x00\x0b\x00X");
    // More than the sockets' buffers hold: were it not read, the close could not be either.
    for _ in 0..50 {
        if peer.try_send(&[0x41; 100_000]).is_err() {
            break;
        }
    }
    assert_eq!(peer.expect_connection_close().code, 501);
    canary.sings();
}

/// Proves: CON-052
#[test]
fn a_new_secret_is_acknowledged() {
    let mut peer = Peer::with_channel(shared());
    let args = Args::new().longstr(b"new secret").str("rotation");
    assert_eq!(
        peer.call(0, CONNECTION_UPDATE_SECRET, args, CONNECTION_UPDATE_SECRET_OK),
        b""
    );
    peer.exclusive_queue(1);
}

/// Proves: CON-054
#[test]
fn long_texts_are_cut_to_a_short_string_of_whole_characters() {
    for name in [
        "q".repeat(255),
        "ü".repeat(127),
        format!("a{}", "\u{1F407}".repeat(63)),
    ] {
        let mut peer = Peer::with_channel(shared());
        peer.method(1, QUEUE_DECLARE, queue_declare(&name, 1));
        let close = peer.expect_channel_close(1);
        assert!(
            close.text.len() <= 255 && close.text.starts_with("NOT_FOUND - no queue '"),
            "{close:?}"
        );
        assert!(close.text.ends_with("..."), "{close:?}");
    }
}

/// Proves: CON-050
#[test]
fn a_broker_that_stops_says_so_with_320() {
    let mut broker = Broker::start(|_| ());
    let mut peer = Peer::with_channel(broker.address());
    let mut shy = Peer::connect(broker.address());
    shy.log_in(&[], b"PLAIN", b"\0guest\0guest");
    shy.tune();
    broker.stop("broker forced connection closure with reason 'shutdown'");
    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'".to_owned();
    assert_eq!(
        peer.expect_connection_close(),
        Close {
            code: 320,
            text,
            id: (0, 0)
        }
    );
    assert_eq!(shy.rest(), b"", "who is not in yet is not greeted either");
}

/// Proves: CON-048, I13
#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let broker = Broker::start(|options| options.limits.handshake_timeout = Duration::from_secs(5));
    let mut keeper = Canary::new(broker.address());
    let queues = broker.counts().queues;
    for at in 0..30 {
        let mut peer = Peer::with_channel(broker.address());
        let queue = peer.exclusive_queue(1);
        let consume = Args::new().short(0).str(&queue).str("").octet(0).long(0);
        peer.call(1, BASIC_CONSUME, consume, BASIC_CONSUME_OK);
        peer.send(&publish(1, "", &queue, &[at; 1000]));
        if at % 2 == 0 {
            peer.end();
        }
    }
    broker.await_counts(|counts| {
        (counts.connections, counts.queues, counts.messages_unacked) == (1, queues, 0)
    });
    keeper.sings();
}
