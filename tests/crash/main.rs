//! Crashes, power cuts and broken disks under a real broker process, against a checker that keeps the truth outside of it.
//!
//! One seed is one run: several generations of the broker on one directory, each killed in its own way, then everything
//! is taken out and compared. `cargo test --test crash` does a few runs of each kind; `make torture` the same for hours.
//! `CRASH_SEED=...` repeats a run (its choices; threads and the disk keep their own time), `CRASH_SECONDS=...` goes on
//! with new seeds for so long. A failing run leaves its directory and its log of events, and says where.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod broker;
mod client;
mod copies;
mod damage;
mod disk;
mod load;
mod power;
mod salvage;
mod start;
mod timed;
mod truth;
mod upgrade;

use std::{
    ffi::OsString,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use crate::{broker::Broker, load::Load, truth::Truth};

/// How a generation ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// SIGKILL at any time.
    Kill,
    /// SIGKILL at the nth time of a point of the shim.
    At(&'static str, u64),
    /// SIGKILL, and what was not synced is gone.
    PowerCut,
    /// The nth sync of the log fails.
    SyncFails(u64),
    /// The nth write to the log, and every later one, fails.
    WriteFails(u64),
    /// SIGKILL, after every sync took so many microseconds longer.
    SlowDisk(u64),
}

/// Several generations on one directory.
struct Run {
    name: &'static str,
    seed: u64,
    random: StdRng,
    dir: TempDir,
    load: Load,
}

/// Runs one seed, or new ones for `CRASH_SECONDS`.
fn runs(name: &'static str, first_seed: u64, ends: impl Fn(&mut StdRng) -> Vec<End>) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let time = Duration::from_secs(number("CRASH_SECONDS").unwrap_or(0));
    let given = number("CRASH_SEED");
    let start = Instant::now();
    let mut seed = given.unwrap_or(first_seed);
    loop {
        Run::new(name, seed).go(&ends);
        if given.is_some() || start.elapsed() >= time {
            return;
        }
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
    }
}

impl Run {
    fn new(name: &'static str, seed: u64) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let truth = Truth::new(&dir.path().join("events"));
        Self {
            name,
            seed,
            random: StdRng::seed_from_u64(seed),
            dir,
            load: Load::new(truth),
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn go(mut self, ends: &impl Fn(&mut StdRng) -> Vec<End>) {
        let start = Instant::now();
        let mut ends = ends(&mut self.random);
        // The first generation lives long enough to declare what the load needs.
        ends.insert(0, End::Kill);
        let generations = ends.len();
        for (number, end) in ends.into_iter().enumerate() {
            self.generation(number, end);
        }
        self.at_the_end();
        let (findings, messages) = self.load.truth.verdict();
        let (name, seed) = (self.name, self.seed);
        println!(
            "{name}: CRASH_SEED={seed}: {generations} generations, {messages} messages, {} findings, {:.1?}",
            findings.len(),
            start.elapsed()
        );
        if !findings.is_empty() {
            let kept = self.dir.keep();
            let shown: Vec<_> = findings.iter().take(20).collect();
            panic!("{name}, CRASH_SEED={seed}, see {}: {shown:#?}", kept.display());
        }
    }

    fn generation(&mut self, number: usize, end: End) {
        let truth = &self.load.truth;
        truth.note(&format!("generation {number} will end by {end:?}"));
        let data = self.data();
        let before = power::sizes(&data);
        let synced = self.dir.path().join("synced");
        drop(fs::remove_file(&synced));
        let shim = shim(end, &synced);
        let mut broker = match Broker::start(&data, &shim) {
            Ok(broker) => broker,
            // A point may be reached before the broker listens.
            Err(refused) if refused.status.signal() == Some(9) => return truth.crashed("at its start"),
            Err(refused) => return truth.finding(format!("no start: {}", refused.log)),
        };
        let address = broker.address;
        let ready = if number == 0 {
            self.load.declare(address)
        } else {
            self.load.check_declared(address)
        };
        if let Err(error) = ready {
            truth.note(&format!("not even declared: {error}"));
        }
        let store_fails = matches!(end, End::SyncFails(_) | End::WriteFails(_));
        self.load
            .store_may_fail
            .store(store_fails, std::sync::atomic::Ordering::SeqCst);
        let lives = Duration::from_millis(self.random.random_range(200..900));
        self.load.run(address, self.seed ^ number as u64, |stop| {
            let at_most = match end {
                End::Kill | End::PowerCut | End::SlowDisk(_) => lives,
                // Some points are reached only sometimes.
                End::At(..) | End::SyncFails(_) | End::WriteFails(_) => Duration::from_secs(3),
            };
            let start = Instant::now();
            while start.elapsed() < at_most && !broker.has_ended() {
                thread::sleep(Duration::from_millis(2));
            }
            if store_fails && broker.has_ended() {
                let (status, log) = broker.wait();
                if status.code() != Some(74) || !log.contains("Input/output error") {
                    truth.finding(format!("{end:?} ended the broker with {status}: {log}"));
                }
            } else {
                broker.kill();
            }
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        if let End::PowerCut = end {
            let how = power::cut(&data, &before, &synced, &mut self.random);
            truth.note(&how);
        }
        truth.crashed("killed");
    }

    /// Nothing was lost, nothing is there twice, and the store's own books agree.
    fn at_the_end(&self) {
        let truth = &self.load.truth;
        match leveret::storage::check(&self.data()) {
            Ok(report) => report
                .findings
                .into_iter()
                .for_each(|text| truth.finding(format!("check: {text}"))),
            Err(error) => truth.finding(format!("check: {error}")),
        }
        match Broker::start(&self.data(), &[]) {
            Err(refused) => truth.finding(format!("no last start: {}", refused.log)),
            Ok(broker) => {
                if let Err(error) = self.load.drain(broker.address) {
                    truth.finding(format!("the drain failed: {error}"));
                }
                broker.kill();
            }
        }
    }
}

fn shim(end: End, synced: &Path) -> Vec<(&'static str, OsString)> {
    match end {
        End::Kill => Vec::new(),
        End::At(point, nth) => vec![("SHIM_KILL", format!("{point}:{nth}").into())],
        End::PowerCut => vec![("SHIM_SYNCED", synced.into())],
        End::SyncFails(nth) => vec![("SHIM_EIO", nth.to_string().into())],
        End::WriteFails(nth) => vec![("SHIM_FAIL", format!("wal:{nth}:5").into())],
        End::SlowDisk(micros) => vec![("SHIM_SLOW", micros.to_string().into())],
    }
}

#[test]
fn what_was_confirmed_survives_kill_9_at_any_time() {
    runs("kill -9", 1, |_| vec![End::Kill; 7]);
}

#[test]
fn what_was_confirmed_survives_death_at_every_named_point() {
    const POINTS: [(&str, u64); 9] = [
        ("wal-write", 300),
        ("wal-written", 300),
        ("wal-synced", 300),
        ("manifest-write", 3),
        ("manifest-synced", 3),
        ("mark-write", 2),
        ("table-synced", 4),
        ("renamed", 2),
        ("unlinked", 3),
    ];
    runs("named points", 2, |random| {
        POINTS
            .iter()
            .map(|(point, within)| End::At(point, random.random_range(1..=*within)))
            .collect()
    });
}

#[test]
fn what_was_confirmed_survives_a_power_cut() {
    runs("power cut", 3, |_| vec![End::PowerCut; 7]);
}

#[test]
fn a_failed_sync_confirms_nothing_and_ends_the_broker() {
    runs("failed sync", 4, |random| {
        (0..2)
            .map(|_| End::SyncFails(random.random_range(1..200)))
            .collect()
    });
}

#[test]
fn a_failed_write_confirms_nothing_and_ends_the_broker() {
    runs("failed write", 7, |random| {
        (0..2)
            .map(|_| End::WriteFails(random.random_range(1..300)))
            .collect()
    });
}

#[test]
fn a_slow_disk_only_makes_it_slow() {
    runs("slow disk", 5, |_| vec![End::SlowDisk(50_000)]);
}
