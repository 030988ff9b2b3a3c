//! Random sequences of operations over TCP against a simple model of the specification: queues of all kinds with length
//! limits, dead letters, priorities, a single active consumer, transactions, restarts. One connection, three channels,
//! and after every operation an answer is waited for, so that what must come is known exactly: replies, deliveries,
//! counts, confirms, returns, cancels, closes, deaths. Only whose turn it is among equal consumers is left open.
//!
//! A failure is shrunk to a small script and printed with its seed. `SEED=7` runs that seed; `make model` runs
//! for hours. Each case has a broker and a directory of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../client/mod.rs"]
mod client;

mod driver;
mod operation;
mod spec;

use std::{env, panic, sync::Mutex};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::{driver::Driver, operation::Op};

/// In CI: some seconds.
const CASES: u32 = 40;
const STEPS: usize = 60;
const SEED: u64 = 20;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number"))
    })
}

/// Runs a script; gives what went wrong, with the operations done until then.
fn run(script: &[Op]) -> Result<(), String> {
    let done = Mutex::new(Vec::new());
    let run = panic::AssertUnwindSafe(|| {
        let mut driver = Driver::new();
        for operation in script {
            done.lock().unwrap().push(operation.clone());
            driver.step(operation);
        }
    });
    panic::catch_unwind(run).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let script: Vec<String> = done
            .into_inner()
            .unwrap()
            .iter()
            .map(|done| format!("  {done:?}"))
            .collect();
        format!("{}\nafter\n{}", text.unwrap_or_default(), script.join("\n"))
    })
}

#[test]
fn the_broker_does_what_the_specification_says() {
    // The same every time in CI; who runs it for long wants others.
    let seed = number("SEED").unwrap_or_else(|| number("MODEL_CASES").map_or(SEED, |_| rand::random()));
    println!("SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: number("MODEL_CASES").map_or(CASES, |cases| cases.try_into().unwrap()),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    // While a failing script is shrunk, its panics would fill the screen.
    let loud = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let outcome = runner.run(&operation::script(STEPS), |script| {
        run(&script).map_err(TestCaseError::fail)
    });
    panic::set_hook(loud);
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, _)) => panic!("SEED={seed}\n{reason}"),
        Err(TestError::Abort(reason)) => panic!("SEED={seed}: {reason}"),
    }
}
