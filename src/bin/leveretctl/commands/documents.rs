//! What is made from the tables of commands: completions for shells, and man pages. And `bench`, which is another program.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    arguments::build,
    call::Call,
    command::Spec,
    commands,
    failure::{Failure, exit},
    output::Output,
    program::{Program, tools::OURS},
};

const GROUP: &str = "Help";

pub(super) static COMMANDS: [Spec; 3] = [
    Spec {
        name: "completions",
        tools: OURS,
        group: GROUP,
        args: "<shell>",
        options: &[],
        about: "Prints completions for bash, zsh, fish, elvish or powershell",
        run: completions,
    },
    Spec {
        name: "man",
        tools: OURS,
        group: GROUP,
        args: "<directory>",
        options: &[],
        about: "Writes man pages into a directory",
        run: man,
    },
    Spec {
        name: "bench",
        tools: OURS,
        group: "Operations",
        args: "[<option>...]",
        options: &[],
        about: "Runs the load generator leveretperf, with its options",
        run: not_reached,
    },
];

fn completions(call: &mut Call) -> Result<Output, Failure> {
    let shell: clap_complete::Shell = call.arg("shell").parse().map_err(|_unknown| {
        let text = "the shell is one of bash, zsh, fish, elvish, powershell.";
        Failure::argument(exit::USAGE, text)
    })?;
    let mut program = build(call.program, commands::of(call.program));
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut program, call.program.name(), &mut text);
    Ok(Output::Document(String::from_utf8_lossy(&text).into_owned()))
}

fn man(call: &mut Call) -> Result<Output, Failure> {
    let directory = call.arg("directory").to_owned();
    let program = build(call.program, commands::of(call.program));
    fs::create_dir_all(&directory)
        .and_then(|()| clap_mangen::generate_to(program, Path::new(&directory)))
        .map_err(|error| Failure::io(&directory, &error))?;
    Ok(Output::Silent)
}

/// Becomes the load generator when it is asked for; its options are none of ours.
pub(crate) fn bench(program: Program, words: &[String]) -> Result<(), Failure> {
    let Some(("bench", options)) = words.split_first().map(|(name, rest)| (name.as_str(), rest)) else {
        return Ok(());
    };
    if program != Program::Leveretctl {
        return Ok(());
    }
    let path = beside("leveretperf");
    // Comes back only when it failed.
    let error = Command::new(&path).args(options).exec();
    Err(Failure::io(&path.display().to_string(), &error))
}

/// A program of ours: beside this one, else wherever PATH says.
pub(super) fn beside(name: &str) -> PathBuf {
    let beside = env::current_exe().ok();
    let beside = beside.and_then(|path| Some(path.parent()?.join(name)));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// `bench` is carried out before the options are parsed.
fn not_reached(_: &mut Call) -> Result<Output, Failure> {
    Err(Failure::argument(
        exit::USAGE,
        "bench is the first word of the line.",
    ))
}
