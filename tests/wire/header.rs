//! The first eight bytes.

use std::time::Duration;

use crate::{
    broker::{Broker, Canary, shared},
    bytes::{CONNECTION_START, Fields, PROTOCOL},
    peer::Peer,
};

/// Proves: CON-001, CON-002, H2
#[test]
fn both_headers_of_0_9_get_a_start() {
    for greeting in [PROTOCOL, b"AMQP\x01\x01\x00\x09"] {
        let mut peer = Peer::connect(shared());
        peer.send(greeting);
        let payload = peer.expect(0, CONNECTION_START);
        let mut fields = Fields(&payload);
        assert_eq!((fields.octet(), fields.octet()), (0, 9), "version");
        fields.longstr();
        fields.longstr();
        assert_eq!(fields.longstr(), b"en_US");
        assert!(fields.is_empty());
    }
}

/// Proves: CON-003, CON-004, H1, H2, H11
#[test]
fn every_other_header_gets_ours_and_the_end() {
    let mut canary = Canary::new(shared());
    let rows: [&[u8]; 18] = [
        b"AMQP\x00\x00\x09\x02",
        b"AMQP\x00\x00\x0a\x00",
        b"AMQP\x01\x01\x08\x00",
        b"AMQP\x00\x00\x08\x00",
        b"AMQP\x03\x01\x00\x00",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x02\x01\x00\x00",
        b"amqp\x00\x00\x09\x01",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api HTTP/1.1\r\n\r\n",
        // A TLS ClientHello's beginning, and SSL 2's.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
        // The PROXY protocol, which no source is trusted to speak: version 1, one that never ends, version 2, a bad one.
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 5672\r\nAMQP\x00\x00\x09\x01",
        &[b'P'; 4096],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\0\x02\x01\xc0\0\x02\x02\xdc\x04\x16\x28AMQP\x00\x00\x09\x01",
        b"\r\n\r\n\0\r\nQUIT\n\xff\xff\xff\xff",
        b"\0\0\0\0\0\0\0\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for row in rows {
        let mut peer = Peer::connect(shared());
        peer.send(row);
        assert_eq!(peer.rest(), PROTOCOL, "after {row:?}");
        canary.sings();
    }
}

/// Proves: H1
#[test]
fn a_header_that_breaks_off_is_answered_when_it_can_be_told() {
    for len in 1..8 {
        let mut peer = Peer::connect(shared());
        peer.send(&PROTOCOL[..len]);
        peer.end();
        assert_eq!(peer.rest(), PROTOCOL, "after {len} bytes");
    }
    // One wrong byte is enough to know: whoever waits for us to speak first is not kept waiting.
    let mut peer = Peer::connect(shared());
    peer.send(b"\x16");
    assert_eq!(peer.rest(), PROTOCOL);
}

/// Proves: CON-005
#[test]
fn a_connection_without_a_byte_ends_without_a_byte() {
    let mut canary = Canary::new(shared());
    let mut peer = Peer::connect(shared());
    peer.end();
    assert_eq!(peer.rest(), b"");
    drop(Peer::connect(shared()));
    canary.sings();
}

/// Proves: CON-006, H3
#[test]
fn an_unfinished_handshake_is_cut_off_at_the_time_it_may_take_in_all() {
    let broker = Broker::start(|options| options.limits.handshake_timeout = Duration::from_millis(300));
    // Silence from the start, and after each step of the handshake.
    for step in 0..4 {
        let mut peer = Peer::connect(broker.address());
        match step {
            0 => {}
            1 => peer.send(&PROTOCOL[..4]),
            2 => {
                peer.send(PROTOCOL);
                peer.expect(0, CONNECTION_START);
            }
            _ => {
                peer.log_in(&[], b"PLAIN", b"\0guest\0guest");
                peer.tune();
            }
        }
        assert_eq!(peer.rest(), b"", "silence at step {step} ends without a frame");
    }
    // A byte now and then buys no time: the budget is for the whole.
    let mut peer = Peer::connect(broker.address());
    peer.send(PROTOCOL);
    peer.expect(0, CONNECTION_START);
    let start_ok = crate::peer::start_ok(&[0; 4000], b"PLAIN", b"\0guest\0guest");
    for byte in &start_ok {
        std::thread::sleep(Duration::from_millis(1));
        if peer.try_send(&[*byte]).is_err() {
            break;
        }
    }
    assert_eq!(peer.rest(), b"");
    Canary::new(broker.address()).sings();
}
