//! `leveretperf` puts load on any AMQP 0-9-1 broker and measures it.
//!
//! The order a run meets the files: `options`, `plan`, `run` with `topology`, then a thread per connection in
//! `publisher` and `consumer`. `lap`, `frames`, `pace` and `ledger` are the pure parts underneath.

mod clock;
mod consumer;
mod course;
mod error;
mod frames;
mod lap;
mod latency;
mod ledger;
mod link;
mod options;
mod pace;
mod plan;
mod publisher;
mod report;
mod run;
mod topology;
mod uri;
mod usage;

use std::{
    io::{self, IsTerminal},
    process::{self, ExitCode},
    sync::Arc,
    thread,
};

use clap::Parser;

use crate::{clock::Clock, course::Course, error::PerfError, options::Options, plan::Plan};

/// Wrong usage, as clap has it too.
const EXIT_USAGE: u8 = 2;
/// What shells report for a program ended by Ctrl-C.
const EXIT_INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = measure(&options);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leveretperf: {error}");
            if matches!(error, PerfError::Options(_)) {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn measure(options: &Options) -> Result<(), PerfError> {
    let plan = Plan::new(options)?;
    let course = Arc::new(Course::new(Clock::start()));
    end_on_interrupt(&course)?;
    let progress = options.progress || io::stderr().is_terminal();
    let summary = run::run(&plan, &course, progress)?;
    summary.print(options.json)?;
    Ok(())
}

/// The first Ctrl-C ends the run in good order, with what was measured so far; the second ends the program.
fn end_on_interrupt(course: &Arc<Course>) -> Result<(), PerfError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let course = course.clone();
    thread::Builder::new().name("interrupt".into()).spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                if course.ended() {
                    process::exit(EXIT_INTERRUPTED);
                }
                course.end();
            }
        });
    })?;
    Ok(())
}
