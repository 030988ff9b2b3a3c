//! `leveretctl`: what operators say to a broker. Speaks HTTP to it, over the control socket or over TCP, and answers to
//! the names of RabbitMQ's tools as those do. Knows nothing of the broker's code, so that it stays small and starts fast.

mod arguments;
mod call;
mod client;
mod command;
mod commands;
mod failure;
mod interrupt;
#[path = "../../config/nearest.rs"]
mod nearest;
mod output;
mod program;
mod terminal;
mod usage;

use std::{io::Write, process::ExitCode};

use call::Call;
use failure::Failure;
use program::Program;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let (program, words) = Program::of(words);
    match run(program, &words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn run(program: Program, words: &[String]) -> Result<(), Failure> {
    commands::bench(program, words)?;
    if usage::answer(program, words)? {
        return Ok(());
    }
    let (spec, matches) = arguments::parse(program, words)?;
    let explain = |failure: Failure| failure.with_usage(words, &spec.usage(program));
    let mut call = Call::new(program, spec, matches).map_err(explain)?;
    let outcome = (spec.run)(&mut call).map_err(|failure| explain(call.fail(failure)))?;
    call.show(outcome)
}

/// Says what is wrong, as the tools of RabbitMQ do, and with their exit code.
fn report(failure: &Failure) -> ExitCode {
    if !failure.text.is_empty() {
        let newline = if failure.text.ends_with('\n') { "" } else { "\n" };
        // Nothing is left to try when even stderr is gone.
        drop(write!(std::io::stderr(), "{}{newline}", failure.text));
    }
    ExitCode::from(failure.code)
}
