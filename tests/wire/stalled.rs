//! Clients that do not take what they asked for, and alarms: others must not notice.

use std::time::Duration;

use leveret::server::Watermark;

use crate::{
    broker::{Broker, Canary},
    bytes::{
        Args, BASIC_ACK, BASIC_CONSUME, BASIC_CONSUME_OK, BASIC_DELIVER, BASIC_GET, CHANNEL_FLOW,
        CHANNEL_FLOW_OK, CONFIRM_SELECT, CONFIRM_SELECT_OK, Fields, NO_PROPERTIES, QUEUE_DECLARE, header,
        method, publish, publish_method,
    },
    peer::{Close, Peer, queue_declare},
};

/// Proves: H49, I13
#[test]
fn a_consumer_that_never_reads_holds_up_nobody() {
    let broker = Broker::start(|_| ());
    let mut canary = Canary::new(broker.address());
    let mut publisher = Peer::with_channel(broker.address());
    publisher.declare(1, "shared", 0);
    let mut stalled = Peer::with_channel(broker.address());
    let consume = Args::new().short(0).str("shared").str("").octet(0b10).long(0);
    stalled.call(1, BASIC_CONSUME, consume.clone(), BASIC_CONSUME_OK);
    publisher.select_confirms(1);
    // Much more than its socket and its outbox hold.
    let content = vec![7; 500_000];
    let total = 60;
    for _ in 0..total {
        let bytes = [
            publish_method(1, "", "shared", 0),
            header(1, content.len() as u64, NO_PROPERTIES),
            content
                .chunks(131_064)
                .flat_map(|part| crate::bytes::body(1, part))
                .collect(),
        ];
        publisher.send(&bytes.concat());
        publisher.expect(1, BASIC_ACK);
    }
    canary.sings();
    // What was not handed to it is there for others.
    let (_, ready, consumers) = publisher.declare(1, "shared", 1);
    assert!(ready > total / 2, "{ready} ready");
    assert_eq!(consumers, 1);
    let mut other = Peer::with_channel(broker.address());
    other.call(1, BASIC_CONSUME, consume, BASIC_CONSUME_OK);
    for _ in 0..ready {
        let args = other.expect(1, BASIC_DELIVER);
        assert_eq!(other.content(1, args).body.len(), content.len());
    }
    drop(stalled);
    drop(other);
    broker.await_counts(|counts| counts.connections == 2);
    canary.sings();
}

/// Proves: H50
#[test]
fn answers_that_nobody_reads_stop_the_reading() {
    let broker = Broker::start(|_| ());
    let mut canary = Canary::new(broker.address());
    let mut peer = Peer::with_channel(broker.address());
    peer.declare(1, "large", 0);
    let content = vec![1; 1_000_000];
    let parts: Vec<u8> = content
        .chunks(131_064)
        .flat_map(|part| crate::bytes::body(1, part))
        .collect();
    let large = [
        publish_method(1, "", "large", 0),
        header(1, 1_000_000, NO_PROPERTIES),
        parts,
    ]
    .concat();
    for _ in 0..40 {
        peer.send(&large);
    }
    assert_eq!(peer.get(1, "large").unwrap().body, content);
    // Hundreds of requests in one segment, each for a megabyte: only what there is room for is taken from the queue.
    let get = method(1, BASIC_GET, Args::new().short(0).str("large").octet(1));
    peer.send(&get.repeat(39));
    let mut watcher = Peer::with_channel(broker.address());
    canary.sings();
    let (_, ready, _) = watcher.declare(1, "large", 1);
    assert!(ready > 10, "only {ready} were left in the queue");
    for _ in 0..39 {
        let args = peer.expect(1, (60, 71));
        assert_eq!(peer.content(1, args).body, content);
    }
    // The same with returns.
    let nobody = [
        publish_method(1, "", "nobody", 1),
        header(1, 100_000, NO_PROPERTIES),
        crate::bytes::body(1, &content[..100_000]),
    ]
    .concat();
    for _ in 0..20 {
        peer.send(&nobody);
    }
    canary.sings();
    for _ in 0..20 {
        let args = peer.expect(1, (60, 50));
        assert_eq!(peer.content(1, args).body.len(), 100_000);
    }
}

/// Proves: H49
#[test]
fn a_socket_that_takes_nothing_for_too_long_is_cut_off() {
    let broker = Broker::start(|options| options.limits.dead_peer_timeout = Duration::from_millis(500));
    let mut canary = Canary::new(broker.address());
    let mut stalled = Peer::with_channel(broker.address());
    stalled.declare(1, "q", 0);
    let consume = Args::new().short(0).str("q").str("").octet(0b10).long(0);
    stalled.call(1, BASIC_CONSUME, consume, BASIC_CONSUME_OK);
    let mut publisher = Peer::with_channel(broker.address());
    let content = vec![0; 100_000];
    for _ in 0..200 {
        publisher.send(&publish(1, "", "q", &content));
    }
    // The canary and the publisher stay; the stalled one goes though it holds its socket open.
    broker.await_counts(|counts| counts.connections == 2);
    canary.sings();
    drop(stalled);
}

/// Proves: H49, CON-050
#[test]
fn who_takes_nothing_can_be_closed_by_an_operator() {
    let broker = Broker::start(|_| ());
    let mut stalled = Peer::with_channel(broker.address());
    stalled.declare(1, "q", 0);
    let content = vec![0; 100_000];
    for _ in 0..200 {
        stalled.send(&publish(1, "", "q", &content));
    }
    let consume = Args::new().short(0).str("q").str("").octet(0).long(0);
    stalled.call(1, BASIC_CONSUME, consume, BASIC_CONSUME_OK);
    stalled.send(&method(1, CHANNEL_FLOW, [1]));
    broker.await_counts(|counts| counts.messages_unacked > 20);
    assert_eq!(
        broker
            .handle()
            .close_connections("Closed via management plugin", |_| true),
        1
    );
    // It goes before its client reads on: what it held is given back.
    broker.await_counts(|counts| counts.messages_unacked == 0);
    let text = "CONNECTION_FORCED - Closed via management plugin".to_owned();
    assert_eq!(
        stalled.expect_connection_close(),
        Close {
            code: 320,
            text,
            id: (0, 0)
        }
    );
}

/// Proves: CON-050
#[test]
fn an_operator_closes_with_320_and_his_reason() {
    let broker = Broker::start(|_| ());
    let mut canary = Canary::new(broker.address());
    let mut peer = Peer::open_with(broker.address(), 60, &[]);
    // An answer shows that the connection is listed: open-ok comes a moment before that.
    peer.open_channel(1);
    let handle = broker.handle();
    assert_eq!(
        handle.close_connections("because", |view| view.heartbeat_s == 60),
        1
    );
    let text = "CONNECTION_FORCED - because".to_owned();
    assert_eq!(
        peer.expect_connection_close(),
        Close {
            code: 320,
            text,
            id: (0, 0)
        }
    );
    canary.sings();
}

/// Proves: H52, ALM-001, ALM-002, ALM-003, ALM-004, ALM-005
#[test]
fn an_alarm_blocks_who_publishes_and_nobody_else() {
    let broker = Broker::start(|_| ());
    let mut publisher = Peer::open_with(broker.address(), 1, &["connection.blocked"]);
    publisher.open_channel(1);
    publisher.call(1, QUEUE_DECLARE, queue_declare("q", 0), (50, 11));
    publisher.call(1, CONFIRM_SELECT, Args::new().octet(0), CONFIRM_SELECT_OK);
    let mut unaware = Peer::with_channel(broker.address());
    let mut consumer = Peer::open_with(broker.address(), 0, &["connection.blocked"]);
    consumer.open_channel(1);
    broker.alarms().set_memory_high_watermark(Watermark::Bytes(0));
    // Who opens a connection now is let in, and who does not publish is not blocked.
    let mut late = Peer::with_channel(broker.address());
    late.exclusive_queue(1);
    assert_eq!(
        publisher.call(1, CHANNEL_FLOW, Args::new().octet(1), CHANNEL_FLOW_OK),
        [1]
    );
    publisher.send(&publish(1, "", "q", b"held back"));
    let args = publisher.expect(0, (10, 60));
    assert_eq!(Fields(&args).str(), "low on memory");
    // It is read no more, so it need not beat; it still hears us beat, well past the time a silent client has.
    for _ in 0..7 {
        assert_eq!(
            publisher.next_raw().map(|frame| frame.kind),
            Some(crate::bytes::HEARTBEAT)
        );
    }
    unaware.send(&publish(1, "", "q", b"held back too"));
    consumer.call(
        1,
        BASIC_CONSUME,
        Args::new().short(0).str("q").str("c").octet(0).long(0),
        BASIC_CONSUME_OK,
    );
    assert_eq!(
        consumer.declare(1, "q", 1),
        ("q".to_owned(), 0, 1),
        "nothing was published"
    );
    broker
        .alarms()
        .set_memory_high_watermark(Watermark::Relative(1.0));
    assert_eq!(publisher.expect(0, (10, 61)), b"");
    publisher.expect(1, BASIC_ACK);
    let mut bodies = Vec::new();
    for tag in 1..=2 {
        let args = consumer.expect(1, BASIC_DELIVER);
        bodies.push(consumer.content(1, args).body);
        consumer.method(1, BASIC_ACK, Args::new().longlong(tag).octet(0));
    }
    bodies.sort();
    assert_eq!(bodies, [&b"held back"[..], b"held back too"]);
    // Who cannot be told was not told.
    assert_eq!(
        unaware.call(1, CHANNEL_FLOW, Args::new().octet(1), CHANNEL_FLOW_OK),
        [1]
    );
}

/// Proves: H52, CON-050
#[test]
fn a_blocked_connection_can_be_closed_by_an_operator() {
    let broker = Broker::start(|_| ());
    let mut publisher = Peer::open_with(broker.address(), 0, &["connection.blocked"]);
    publisher.open_channel(1);
    broker.alarms().set_memory_high_watermark(Watermark::Bytes(0));
    publisher.send(&publish(1, "", "q", b"never"));
    publisher.expect(0, (10, 60));
    assert_eq!(broker.handle().close_connections("because", |_| true), 1);
    assert_eq!(publisher.expect_connection_close().code, 320);
}

/// Proves: H12
#[test]
fn clients_that_stop_at_any_step_of_the_handshake_leave_nothing() {
    let broker = Broker::start(|options| options.limits.handshake_timeout = Duration::from_secs(2));
    let mut canary = Canary::new(broker.address());
    let session = [
        crate::bytes::PROTOCOL.to_vec(),
        crate::peer::start_ok(&[], b"PLAIN", b"\0guest\0guest"),
        crate::peer::tune_ok(2047, 131_072, 0),
        crate::peer::open("/"),
        method(1, (20, 10), Args::new().str("")),
        method(1, QUEUE_DECLARE, queue_declare("", 0b100)),
    ]
    .concat();
    let mut held = Vec::new();
    for at in 0..400 {
        let mut peer = Peer::connect(broker.address());
        peer.send(&session[..at * 7 % (session.len() + 1)]);
        if at % 4 == 0 {
            held.push(peer);
        }
    }
    canary.sings();
    drop(held);
    broker.await_counts(|counts| (counts.connections, counts.queues) == (1, 1));
    canary.sings();
}
