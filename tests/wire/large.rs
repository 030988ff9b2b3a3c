//! Large bodies from many at once: memory is shared out, and everybody gets his turn.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
};

use crate::{
    broker::Canary,
    bytes::{BASIC_ACK, body, header, publish_method},
    peer::Peer,
};

const MIB: usize = 1024 * 1024;
/// Octets of a body frame's payload.
const PART: usize = 131_064;
/// Property flags, and a delivery mode: one that is lost with the broker, and one that is not.
const MODES: [&[u8]; 2] = [&[0x10, 0, 1], &[0x10, 0, 2]];

/// The program itself, whose memory nobody else uses.
struct Program {
    process: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Program {
    fn start(memory_limit: usize) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_leveret"))
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--amqp-listen", "127.0.0.1:0"])
            .args(["--http-listen", "none", "--metrics-listen", "none"])
            .env(
                "LEVERET_ALARMS__VM_MEMORY_HIGH_WATERMARK",
                memory_limit.to_string(),
            )
            .env("LEVERET_AMQP__MAX_MESSAGE_SIZE", (64 * MIB).to_string())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut address = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, found)) = line.split_once("AMQP 0-9-1 listens on ") {
                address = Some(found.parse().unwrap());
            }
            if line.contains("Server startup complete") {
                break;
            }
        }
        // The pipe must be read on, or the broker would block on its log.
        thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            address: address.expect("the log names the listener"),
            _dir: dir,
        }
    }

    /// The most memory that was ever resident, bytes.
    fn peak_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        assert!(killed.is_ok() || thread::panicking(), "{killed:?}");
    }
}

/// A client that has begun to publish so many octets and sent none of them.
fn publisher(address: SocketAddr, queue: &str, properties: &[u8], octets: usize) -> Peer {
    let mut peer = Peer::with_channel(address);
    peer.declare(1, queue, 0b10);
    peer.select_confirms(1);
    peer.send(&publish_method(1, "", queue, 0));
    peer.send(&header(1, octets as u64, properties));
    peer
}

fn send_parts(peer: &mut Peer, octets: usize) {
    let part = body(1, &[7; PART]);
    for _ in 0..octets / PART {
        peer.send(&part);
    }
    if !octets.is_multiple_of(PART) {
        peer.send(&body(1, &[7; PART][..octets % PART]));
    }
}

/// Proves: H53, I13
#[test]
fn large_bodies_from_many_at_once_all_arrive_within_the_memory_limit() {
    const LIMIT: usize = 320 * MIB;
    const BODY: usize = 32 * MIB;
    let broker = Program::start(LIMIT);
    let mut canary = Canary::new(broker.address);
    // They announce more than there is room for and send little: that holds up nobody.
    let dripping: Vec<Peer> = (0..8)
        .map(|_| {
            let mut peer = publisher(broker.address, "drip", MODES[1], BODY);
            send_parts(&mut peer, MIB);
            peer
        })
        .collect();
    let publishers: Vec<_> = (0..20)
        .map(|at| {
            let address = broker.address;
            thread::spawn(move || {
                let queue = format!("q{at}");
                let mut peer = publisher(address, &queue, MODES[at % 2], BODY);
                send_parts(&mut peer, BODY);
                peer.expect(1, BASIC_ACK);
                queue
            })
        })
        .collect();
    let queues: Vec<String> = publishers
        .into_iter()
        .map(|publisher| publisher.join().unwrap())
        .collect();
    canary.sings();
    for queue in &queues {
        let mut peer = Peer::with_channel(broker.address);
        let message = peer.get(1, queue).expect("it was confirmed");
        assert_eq!(message.body.len(), BODY);
        assert!(message.body.iter().all(|octet| *octet == 7));
    }
    drop(dripping);
    let peak = broker.peak_bytes();
    // All bodies together are twice the limit, and come to it on top of the store's memtables, which no limit changes: some
    // 100 MiB. 380 to 510 MiB were seen.
    assert!(peak < LIMIT / 8 * 15, "{} MiB were resident", peak / MIB);
}
