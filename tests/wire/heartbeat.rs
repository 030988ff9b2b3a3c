//! Heartbeats both ways. Times are lower bounds of a clock that runs anyway, never upper ones.

use crate::{
    broker::{Canary, shared},
    bytes::{CHANNEL_FLOW, CHANNEL_FLOW_OK, HEARTBEAT, frame},
    peer::{Frame, Peer},
};

const BEAT: Frame = Frame {
    kind: HEARTBEAT,
    channel: 0,
    payload: Vec::new(),
};

/// Proves: CON-041, CON-029
#[test]
fn an_idle_client_hears_a_heartbeat_again_and_again() {
    let mut peer = Peer::open_with(shared(), 1, &[]);
    for _ in 0..3 {
        assert_eq!(peer.next_raw(), Some(BEAT));
        peer.send(&frame(HEARTBEAT, 0, b""));
    }
}

/// Proves: CON-042
#[test]
fn a_silent_client_is_cut_off_without_a_frame() {
    let mut canary = Canary::new(shared());
    let mut peer = Peer::open_with(shared(), 1, &[]);
    peer.expect_end();
    // Two intervals of silence are four half ones of ours, each with a heartbeat. The first may have been lost to a
    // busy machine.
    assert!(
        peer.heartbeats >= 2,
        "{} heartbeats before the end",
        peer.heartbeats
    );
    canary.sings();
}

/// Proves: CON-043
#[test]
fn any_traffic_keeps_a_client_alive() {
    let mut peer = Peer::open_with(shared(), 1, &[]);
    peer.open_channel(1);
    // One request for each of our heartbeats: over four intervals in all, and no heartbeat from the client.
    for _ in 0..8 {
        assert_eq!(peer.next_raw(), Some(BEAT));
        peer.send(&crate::bytes::method(1, CHANNEL_FLOW, [1]));
        loop {
            let answer = peer.next_raw().expect("the connection lives");
            if answer.id() == Some(CHANNEL_FLOW_OK) {
                break;
            }
            assert_eq!(answer, BEAT);
        }
    }
}

/// Proves: CON-044, CON-029
#[test]
fn without_an_interval_nobody_beats_and_nobody_dies() {
    let mut quiet = Peer::open(shared());
    // The time in which a client with an interval of one second is given up.
    Peer::open_with(shared(), 1, &[]).expect_end();
    quiet.open_channel(1);
    assert_eq!(quiet.heartbeats, 0);
}
