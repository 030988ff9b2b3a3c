//! One run of a command: what was asked for, the broker to ask, and how to answer.

use std::{
    cell::RefCell,
    io::{IsTerminal, Read},
};

use clap::ArgMatches;
use serde_json::Value;

use crate::{
    client::{Client, Target},
    command::Spec,
    failure::{Failure, exit},
    output::{Format, Output, Shape, eprint, print},
    program::Program,
    terminal::hidden_line,
};

pub(crate) struct Call {
    pub(crate) program: Program,
    pub(crate) spec: &'static Spec,
    pub(crate) client: Client,
    pub(crate) shape: Shape,
    matches: ArgMatches,
    node: Option<String>,
    /// Lines that wait for what becomes of the command.
    banner: RefCell<String>,
}

impl Call {
    pub(crate) fn new(program: Program, spec: &'static Spec, matches: ArgMatches) -> Result<Self, Failure> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let silent = matches.get_flag("silent");
        let headers = match text("table-headers").as_deref() {
            None | Some("true") => !matches.get_flag("no-table-headers"),
            Some("false") => false,
            Some(_) => {
                return Err(Failure::argument(
                    exit::USAGE,
                    "--table-headers is true or false.",
                ));
            }
        };
        let format = Format::parse(text("formatter").as_deref(), program)?;
        let timeout = match text("timeout").as_deref() {
            None => None,
            Some("infinity") => Some(u64::MAX),
            Some(seconds) => Some(seconds.parse().map_err(|_no_number| {
                Failure::argument(exit::USAGE, "--timeout is a number of seconds or infinity.")
            })?),
        };
        let target = Target::choose(text("url"), text("socket"), text("data-dir"))?;
        Ok(Self {
            program,
            spec,
            client: Client::new(target, timeout),
            shape: Shape {
                format,
                headers: headers && !silent,
                quiet: silent || matches.get_flag("quiet"),
            },
            matches,
            node: None,
            banner: RefCell::default(),
        })
    }

    /// A positional argument; optional ones that were not given are empty.
    pub(crate) fn arg(&self, name: &str) -> &str {
        self.matches.get_one::<String>(name).map_or("", String::as_str)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.matches.contains_id(name) && self.matches.value_source(name).is_some()
    }

    pub(crate) fn args(&self, name: &str) -> Vec<&str> {
        let values = self.matches.get_many::<String>(name);
        values.map_or_else(Vec::new, |values| values.map(String::as_str).collect())
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        self.matches.get_flag(name)
    }

    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.matches.get_one::<String>(name).map(String::as_str)
    }

    pub(crate) fn vhost(&self) -> &str {
        self.option("vhost").unwrap_or("/")
    }

    /// Seconds that were asked for.
    pub(crate) fn timeout(&self) -> Option<u64> {
        self.option("timeout").and_then(|seconds| seconds.parse().ok())
    }

    /// The name of the node that answers; asked once.
    pub(crate) fn node(&mut self) -> String {
        if self.node.is_none() {
            let pong = self.client.get("/leveret/ping");
            self.node = pong
                .ok()
                .and_then(|pong| Some(pong.get("node")?.as_str()?.to_owned()));
        }
        let asked = self.option("node").unwrap_or("leveret").to_owned();
        self.node.clone().unwrap_or(asked)
    }

    /// The line before the answer.
    pub(crate) fn banner(&self, text: impl AsRef<str>) {
        if self.shape.quiet || self.shape.format.is_for_machines() {
            return;
        }
        let mut banner = self.banner.borrow_mut();
        banner.push_str(text.as_ref());
        banner.push('\n');
    }

    /// Prints it: to stdout, where scripts for RabbitMQ's tools expect it; under our own name it stays out of pipes.
    pub(crate) fn print_banner(&self) -> Result<(), Failure> {
        let banner = self.banner.take();
        if self.program.is_compatible() {
            print(&banner)
        } else {
            eprint(&banner);
            Ok(())
        }
    }

    /// A banner is printed before a failure too, unless nothing was even begun.
    pub(crate) fn fail(&self, failure: Failure) -> Failure {
        if failure.usage || failure.unreachable {
            return failure;
        }
        match self.print_banner() {
            Ok(()) => failure,
            Err(worse) => worse,
        }
    }

    /// The argument, or a line of stdin: passwords on the command line are seen by everybody on the machine.
    pub(crate) fn secret(&self, name: &str, prompt: &str) -> Result<String, Failure> {
        if self.has(name) {
            return Ok(self.arg(name).to_owned());
        }
        let stdin = std::io::stdin();
        let failed = |error| Failure::io("stdin", &error);
        let line = if stdin.is_terminal() {
            eprint(&format!("{prompt}: "));
            let line = hidden_line().map_err(failed)?;
            line.ok_or_else(|| Failure::plain(exit::INTERRUPTED, ""))?
        } else {
            let mut line = String::new();
            stdin.read_line(&mut line).map_err(failed)?;
            line
        };
        let secret = line.trim_end_matches(['\n', '\r']);
        if secret.is_empty() {
            return Err(Failure::argument(exit::USAGE, "not enough arguments."));
        }
        Ok(secret.to_owned())
    }

    /// A file's content; `-` is stdin.
    pub(crate) fn read(path: &str) -> Result<String, Failure> {
        let mut text = String::new();
        let read = if path == "-" {
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(path)
        };
        read.map_err(|error| Failure::io(path, &error))
    }

    /// An argument that must be JSON.
    pub(crate) fn json(&self, name: &str) -> Result<Value, Failure> {
        serde_json::from_str(self.arg(name))
            .map_err(|error| Failure::unavailable(format!("JSON decoding error. Reason: {error}")))
    }

    pub(crate) fn show(&self, output: Output) -> Result<(), Failure> {
        self.print_banner()?;
        output.show(&self.shape)
    }
}
