//! Recorded sessions of real client libraries, played back as they were and then damaged at random (hostile-input H34).
//!
//! `sessions/` holds what each client sent to a broker while it declared, published, consumed, settled, misbehaved and
//! closed: the interop scenarios, recorded by a proxy. `MUTATIONS=1000000` plays that many damaged ones, `SEED=7`
//! chooses the damage; a failure prints both.

use std::{
    env, fs,
    panic::{self, PanicHookInfo},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    broker::{Broker, Canary},
    bytes::{CONNECTION_OPEN_OK, END},
    peer::Peer,
};

/// How many damaged sessions an ordinary run plays.
const MUTATIONS: u64 = 600;
/// Peers that play at the same time.
const PLAYERS: u64 = 4;

/// Proves: H34
#[test]
fn no_damage_to_a_real_session_harms_the_broker() {
    let panics = count_panics_of_the_broker();
    let broker = Broker::start(|options| options.limits.failure_delay = std::time::Duration::ZERO);
    let sessions = sessions();
    for (name, bytes) in &sessions {
        let mut peer = Peer::connect(broker.address());
        peer.send(bytes);
        peer.end();
        let opened = std::iter::from_fn(|| peer.next())
            .filter(|frame| frame.id() == Some(CONNECTION_OPEN_OK))
            .count();
        assert_eq!(opened, 1, "{name} as it was recorded is a whole session");
    }
    let seed = number("SEED").unwrap_or_else(rand::random);
    let mutations = number("MUTATIONS").unwrap_or(MUTATIONS);
    println!("SEED={seed} MUTATIONS={mutations}");
    let mut canary = Canary::new(broker.address());
    thread::scope(|scope| {
        for player in 0..PLAYERS {
            let (sessions, broker) = (&sessions, &broker);
            scope.spawn(move || {
                for turn in (player..mutations).step_by(usize::try_from(PLAYERS).unwrap()) {
                    // A generator for each turn: one session's damage does not depend on how the others went.
                    let mut random = StdRng::seed_from_u64(seed.wrapping_add(turn));
                    let (_, bytes) = sessions.choose(&mut random).unwrap();
                    play(broker, &damaged(bytes, &mut random));
                }
            });
        }
    });
    canary.sings();
    broker.await_counts(|counts| counts.connections == 1);
    assert_eq!(
        panics.load(Ordering::Relaxed),
        0,
        "SEED={seed}: the broker panicked"
    );
}

/// Sends what the broker may stop reading at any byte, and reads to the end of the stream, which must come.
fn play(broker: &Broker, bytes: &[u8]) {
    let mut peer = Peer::connect(broker.address());
    if peer.try_send(bytes).is_ok() {
        peer.try_end();
    }
    peer.rest();
}

/// One to four injuries, each of a kind that transport, a broken client or malice brings about.
fn damaged(session: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = session.to_vec();
    for _ in 0..random.random_range(1..=4) {
        if bytes.len() < 16 {
            break;
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..64)).min(bytes.len());
        match random.random_range(0..9) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => {
                let noise: Vec<u8> = (at..end).map(|_| random.random()).collect();
                bytes.splice(at..at, noise);
            }
            5 => bytes.truncate(at.max(8)),
            // The extremes of lengths, counts and tags.
            6 => {
                let extreme = *[0, 1, 0x7FFF_FFFF, 0x8000_0000, u32::MAX].choose(random).unwrap();
                let field = at.min(bytes.len() - 4);
                bytes[field..field + 4].copy_from_slice(&u32::to_be_bytes(extreme));
            }
            kind => {
                let frames = frames(&bytes);
                let (Some(one), Some(other)) = (frames.choose(random), frames.choose(random)) else {
                    continue;
                };
                let frame = bytes[one.clone()].to_vec();
                if kind == 7 {
                    bytes.splice(other.start..other.start, frame);
                } else {
                    bytes.drain(one.clone());
                }
            }
        }
    }
    bytes
}

/// Where the whole frames behind the protocol header lie, as far as they can be told apart.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut frames, mut at) = (Vec::new(), 8);
    while let Some(head) = bytes.get(at..at + 7) {
        let size = u32::from_be_bytes(head[3..7].try_into().unwrap()) as usize;
        let end = at.saturating_add(size).saturating_add(8);
        if bytes.get(end - 1) != Some(&END) {
            break;
        }
        frames.push(at..end);
        at = end;
    }
    frames
}

/// The recorded sessions by name, in a fixed order.
fn sessions() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/sessions");
    let mut sessions: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    sessions.sort();
    sessions
}

/// A task that panics harms nobody else, so it has to be counted where it happens.
fn count_panics_of_the_broker() -> &'static AtomicUsize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let thread = thread::current();
        if thread
            .name()
            .is_some_and(|name| name.starts_with("tokio-r") || name.starts_with("leveret"))
        {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }
        before(info);
    }));
    &PANICS
}

fn number(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
