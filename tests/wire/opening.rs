//! Tune and open.

use crate::{
    broker::{Broker, Canary, shared, unique},
    bytes::{
        Args, CHANNEL_OPEN, CHANNEL_OPEN_OK, CONNECTION_CLOSE, CONNECTION_CLOSE_OK, CONNECTION_OPEN_OK,
        CONNECTION_START, HEARTBEAT, PROTOCOL, QUEUE_DECLARE, frame, header, method, publish,
    },
    peer::{Close, Peer, close_args, open, queue_declare, start_ok, tune_ok},
};

fn logged_in() -> Peer {
    let mut peer = Peer::connect(shared());
    peer.log_in(&[], b"PLAIN", b"\0guest\0guest");
    peer
}

/// Proves: CON-024
#[test]
fn tune_offers_rabbitmqs_defaults() {
    assert_eq!(logged_in().tune(), (2047, 131_072, 60));
}

/// Proves: CON-025, CON-026, CON-027, CON-028, H8
#[test]
fn a_tuning_out_of_bounds_ends_in_silence() {
    // The specification of RabbitMQ 4.3 wants frames of 8192 at least, older ones 4096; clients that ask for 4096
    // exist, so that is our bound.
    let mut canary = Canary::new(shared());
    let rows = [
        (2047, 0, 60),
        (2047, 1, 60),
        (2047, 4095, 60),
        (2047, 131_073, 60),
        (2047, u32::MAX, 60),
        (0, 131_072, 60),
        (2048, 131_072, 60),
        (65_535, 131_072, 60),
        (0, 0, 0),
    ];
    for (channel_max, frame_max, heartbeat) in rows {
        let mut peer = logged_in();
        peer.tune();
        peer.send(&tune_ok(channel_max, frame_max, heartbeat));
        peer.send(&open("/"));
        assert_eq!(peer.rest(), b"", "{channel_max} {frame_max}");
        canary.sings();
    }
    for (channel_max, frame_max) in [(1, 4096), (2047, 131_072), (7, 8192)] {
        let mut peer = logged_in();
        peer.tune();
        peer.send(&tune_ok(channel_max, frame_max, 0));
        peer.send(&open("/"));
        peer.expect(0, CONNECTION_OPEN_OK);
    }
}

/// Proves: CON-025, CON-028
#[test]
fn a_server_without_limits_takes_no_limit_for_an_answer() {
    let broker = Broker::start(|options| {
        options.limits.frame_max = 0;
        options.limits.channel_max = 0;
    });
    let mut peer = Peer::connect(broker.address());
    peer.log_in(&[], b"PLAIN", b"\0guest\0guest");
    assert_eq!(peer.tune(), (0, 0, 60));
    peer.send(&tune_ok(0, 0, 0));
    peer.send(&open("/"));
    peer.expect(0, CONNECTION_OPEN_OK);
    peer.open_channel(65_535);
    let queue = peer.exclusive_queue(65_535);
    let content = vec![7; 300_000];
    peer.send(&publish(65_535, "", &queue, &content));
    let message = peer.get(65_535, &queue).unwrap();
    assert_eq!(message.body, content);
}

/// Proves: CON-030
#[test]
fn our_frames_keep_to_the_negotiated_size() {
    let mut peer = logged_in();
    peer.tune();
    peer.send(&tune_ok(2047, 4096, 0));
    peer.send(&open("/"));
    peer.expect(0, CONNECTION_OPEN_OK);
    peer.open_channel(1);
    let queue = peer.exclusive_queue(1);
    let content: Vec<u8> = (0..20_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    peer.send(&crate::bytes::publish_method(1, "", &queue, 0));
    peer.send(&header(1, content.len() as u64, &[0, 0]));
    for part in content.chunks(4088) {
        peer.send(&crate::bytes::body(1, part));
    }
    let message = peer.get(1, &queue).unwrap();
    assert_eq!(message.body, content);
    assert_eq!(
        message.parts,
        [4088, 4088, 4088, 4088, 3648],
        "as large as may be, and no larger"
    );
}

/// Proves: CON-031, CON-036, H9
#[test]
fn a_vhost_that_is_not_there_is_told() {
    let mut canary = Canary::new(shared());
    let long = "v".repeat(255);
    for name in ["nowhere", "", "//", "%2F", "<b>", "../etc", "\u{202e}", &long] {
        let mut peer = logged_in();
        peer.tune();
        peer.send(&tune_ok(2047, 131_072, 0));
        peer.send(&open(name));
        let close = peer.expect_connection_close();
        assert_eq!((close.code, close.id), (530, (10, 40)));
        if name.len() < 255 {
            assert_eq!(close.text, format!("NOT_ALLOWED - vhost {name} not found"));
        } else {
            assert!(close.text.starts_with("NOT_ALLOWED - vhost vvvv") && close.text.len() <= 255);
        }
        canary.sings();
    }
    let mut peer = logged_in();
    peer.tune();
    peer.send(&tune_ok(2047, 131_072, 0));
    peer.send(&open("/"));
    assert_eq!(peer.expect(0, CONNECTION_OPEN_OK), [0], "known-hosts is empty");
}

/// Proves: CON-053
#[test]
fn everything_from_tune_ok_on_may_be_sent_ahead() {
    let mut peer = logged_in();
    let queue = unique("ahead");
    peer.send(
        &[
            tune_ok(2047, 131_072, 0),
            open("/"),
            method(1, CHANNEL_OPEN, Args::new().str("")),
            method(1, QUEUE_DECLARE, queue_declare(&queue, 0b100)),
            publish(1, "", &queue, b"early"),
        ]
        .concat(),
    );
    peer.tune();
    peer.expect(0, CONNECTION_OPEN_OK);
    peer.expect(1, CHANNEL_OPEN_OK);
    peer.expect(1, crate::bytes::QUEUE_DECLARE_OK);
    assert_eq!(peer.get(1, &queue).unwrap().body, b"early");
    // Even everything at once, from the header on.
    let mut peer = Peer::connect(shared());
    let all = [
        PROTOCOL.to_vec(),
        start_ok(&[], b"PLAIN", b"\0guest\0guest"),
        tune_ok(1, 4096, 0),
        open("/"),
    ];
    peer.send(&all.concat());
    peer.expect(0, CONNECTION_START);
    peer.tune();
    peer.expect(0, CONNECTION_OPEN_OK);
}

/// Proves: H10
#[test]
fn what_is_out_of_turn_before_login_and_tune_ends_in_silence() {
    let mut canary = Canary::new(shared());
    let start_ok = start_ok(&[], b"PLAIN", b"\0guest\0guest");
    let tune_ok = tune_ok(2047, 131_072, 0);
    let out_of_turn: [&[u8]; 8] = [
        &tune_ok,
        &open("/"),
        &method(0, CONNECTION_CLOSE, close_args()),
        &method(1, CHANNEL_OPEN, Args::new().str("")),
        &publish(1, "", "q", b"x"),
        &frame(9, 0, b""),
        &method(0, (10, 99), []),
        &frame(1, 0, b"\x00"),
    ];
    for bytes in out_of_turn {
        let mut peer = Peer::connect(shared());
        peer.send(PROTOCOL);
        peer.expect(0, CONNECTION_START);
        peer.send(bytes);
        assert_eq!(peer.rest(), b"", "instead of start-ok: {bytes:?}");
        if bytes == tune_ok {
            continue;
        }
        let mut peer = logged_in();
        peer.tune();
        peer.send(bytes);
        assert_eq!(peer.rest(), b"", "instead of tune-ok: {bytes:?}");
        canary.sings();
    }
    let mut peer = logged_in();
    peer.tune();
    peer.send(&start_ok);
    assert_eq!(peer.rest(), b"", "start-ok again");
}

/// Proves: H10
#[test]
fn what_is_out_of_turn_before_open_is_told() {
    let opening = || {
        let mut peer = logged_in();
        peer.tune();
        peer.send(&tune_ok(2047, 131_072, 0));
        peer
    };
    for (bytes, id) in [
        (tune_ok(2047, 131_072, 0), (10, 31)),
        (start_ok(&[], b"PLAIN", b"\0guest\0guest"), (10, 11)),
        (method(0, CHANNEL_OPEN, Args::new().str("")), (20, 10)),
    ] {
        let mut peer = opening();
        peer.send(&bytes);
        let text = "CHANNEL_ERROR - unexpected method in connection state opening".to_owned();
        assert_eq!(peer.expect_connection_close(), Close { code: 504, text, id });
    }
    // Who changes his mind may say so.
    let mut peer = opening();
    peer.method(0, CONNECTION_CLOSE, close_args());
    peer.expect(0, CONNECTION_CLOSE_OK);
}

/// Proves: H4
#[test]
fn large_frames_before_tune_are_refused_from_their_size() {
    let mut canary = Canary::new(shared());
    for size in [8193_u32, 131_072, 1 << 31, u32::MAX] {
        let mut peer = Peer::connect(shared());
        peer.send(PROTOCOL);
        peer.expect(0, CONNECTION_START);
        peer.send(Args::new().octet(1).short(0).long(size).raw(&[0; 100]).as_ref());
        assert_eq!(peer.rest(), b"", "{size}");
        canary.sings();
    }
    // A heartbeat is no harm, though nobody asked for one.
    let mut peer = Peer::connect(shared());
    peer.send(PROTOCOL);
    peer.expect(0, CONNECTION_START);
    peer.send(&frame(HEARTBEAT, 0, b""));
    peer.send(&start_ok(&[], b"PLAIN", b"\0guest\0guest"));
    peer.tune();
}
