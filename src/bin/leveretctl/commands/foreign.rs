//! Commands of RabbitMQ's tools about what this broker does not have: an Erlang machine, peers, TLS. Who calls them learns
//! what there is instead; those that scripts run without looking at the answer succeed.

use serde_json::Map;

use crate::{
    call::Call,
    command::{Run, Spec},
    failure::Failure,
    output::Output,
    program::{
        Program,
        tools::{CTL, DIAGNOSTICS},
    },
};

const fn spec(
    name: &'static str,
    tools: &'static [Program],
    args: &'static str,
    about: &'static str,
    run: Run,
) -> Spec {
    Spec {
        name,
        tools,
        group: "Of RabbitMQ only",
        args,
        options: &[],
        about,
        run,
    }
}

const COOKIE: &str = "There is no Erlang cookie: the control socket is for root and the broker's user";
const STUCK: &str =
    "There are no Erlang processes that could be stuck; leveretctl doctor looks for what is wrong";
const TLS: &str = "No listener uses TLS";
const PEERS: &str = "There is one node: nothing to discover";
const SHELL: &str = "There is no Erlang shell: leveretctl top, explain and doctor look into a broker";
const THREADS: &str = "There is no Erlang machine: leveretctl top shows what the broker does";
const TERMS: &str = "Erlang terms are not evaluated here";
const TABLES: &str = "There is no Mnesia, and it has no tables";
const MACHINE: &str = "Ask the machine: ip address, getent hosts, resolvectl";
const PEEK: &str = "Positions here are not RabbitMQ's: leveretctl peek QUEUE shows what waits";

pub(super) static COMMANDS: [Spec; 16] = [
    spec("erlang_cookie_hash", DIAGNOSTICS, "", COOKIE, tell),
    spec("erlang_cookie_sources", DIAGNOSTICS, "", COOKIE, tell),
    spec("maybe_stuck", DIAGNOSTICS, "", STUCK, tell),
    spec("certificates", DIAGNOSTICS, "", TLS, tell),
    spec("discover_peers", DIAGNOSTICS, "", PEERS, tell),
    spec("observer", DIAGNOSTICS, "", SHELL, refuse),
    spec("remote_shell", DIAGNOSTICS, "", SHELL, refuse),
    spec("runtime_thread_stats", DIAGNOSTICS, "", THREADS, refuse),
    spec("command_line_arguments", DIAGNOSTICS, "", THREADS, refuse),
    spec("schema_info", DIAGNOSTICS, "[<column>...]", TABLES, refuse),
    spec("list_network_interfaces", DIAGNOSTICS, "", MACHINE, refuse),
    spec("resolve_hostname", DIAGNOSTICS, "<hostname>", MACHINE, refuse),
    spec("resolver_info", DIAGNOSTICS, "", MACHINE, refuse),
    spec("exec", CTL, "[<expression>...]", TERMS, refuse),
    spec("eval_file", CTL, "<file>", TERMS, refuse),
    spec("peek", QUEUE_TOOL, "<queue> <position>", PEEK, refuse),
];

/// Without our own name, which has a `peek` of its own.
const QUEUE_TOOL: &[Program] = &[Program::Queues];

fn tell(call: &mut Call) -> Result<Output, Failure> {
    Ok(Output::Sentence(call.spec.about.to_owned(), Map::new()))
}

fn refuse(call: &mut Call) -> Result<Output, Failure> {
    Err(Failure::unavailable(call.spec.about))
}
