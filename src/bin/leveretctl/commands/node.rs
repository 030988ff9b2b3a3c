//! The node itself: its beginning, its end, and its listeners.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    call::Call,
    client::nothing,
    command::{Spec, switch, value},
    failure::{Failure, exit},
    output::Output,
    program::tools::{BOTH, CTL, UPGRADE},
};

const GROUP: &str = "Nodes";

pub(super) static COMMANDS: [Spec; 15] = [
    Spec {
        name: "await_startup",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[],
        about: "Waits for the broker to start",
        run: await_startup,
    },
    Spec {
        name: "await_online_nodes",
        tools: CTL,
        group: GROUP,
        args: "<count>",
        options: &[],
        about: "Waits for so many nodes: there is one",
        run: await_online_nodes,
    },
    Spec {
        name: "wait",
        tools: BOTH,
        group: GROUP,
        args: "[<pidfile>]",
        options: &[value("pid", "pid", "the process to wait for").short('P')],
        about: "Waits for the broker to start; the file or pid only has to be named",
        run: await_startup,
    },
    Spec {
        name: "stop",
        tools: CTL,
        group: GROUP,
        args: "[<pidfile>]",
        options: &[switch(
            "idempotent",
            "a broker that does not run is stopped already",
        )],
        about: "Stops the broker",
        run: stop,
    },
    Spec {
        name: "shutdown",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "Stops the broker and waits until it is gone",
        run: shutdown,
    },
    Spec {
        name: "stop_app",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "Closes all clients and takes no more; the process stays",
        run: stop_app,
    },
    Spec {
        name: "start_app",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "Takes clients again after stop_app",
        run: start_app,
    },
    Spec {
        name: "reset",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "Deletes everything: vhosts, queues, messages, users, policies; after stop_app only",
        run: reset,
    },
    Spec {
        name: "force_reset",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "As reset",
        run: reset,
    },
    Spec {
        name: "suspend_listeners",
        tools: CTL,
        group: "Operations",
        args: "",
        options: &[],
        about: "Suspends client connection listeners so that no new client connections are accepted",
        run: suspend,
    },
    Spec {
        name: "resume_listeners",
        tools: CTL,
        group: "Operations",
        args: "",
        options: &[],
        about: "Resumes client connection listeners making them accept client connections again",
        run: resume,
    },
    Spec {
        name: "drain",
        tools: UPGRADE,
        group: "Upgrade",
        args: "",
        options: &[],
        about: "Puts the node into maintenance mode: clients are closed and refused",
        run: drain,
    },
    Spec {
        name: "revive",
        tools: UPGRADE,
        group: "Upgrade",
        args: "",
        options: &[],
        about: "Ends maintenance mode",
        run: revive,
    },
    Spec {
        name: "post_upgrade",
        tools: UPGRADE,
        group: "Upgrade",
        args: "",
        options: &[crate::command::switch("all", "accepted for RabbitMQ's sake")],
        about: "Nothing is left to be done after an upgrade: says so",
        run: post_upgrade,
    },
    Spec {
        name: "force_boot",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "A node here waits for no other: does nothing",
        run: done,
    },
];

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

fn await_startup(call: &mut Call) -> Result<Output, Failure> {
    let limit = call.timeout().unwrap_or(300);
    let began = Instant::now();
    loop {
        let last = match call.client.get("/leveret/ping") {
            Ok(pong) if pong.get("running").and_then(Value::as_bool) == Some(true) => {
                return Ok(Output::Silent);
            }
            Ok(_) => None,
            Err(failure) if failure.code == exit::NO_PERMISSION => return Err(failure),
            Err(failure) => Some(failure),
        };
        if began.elapsed() >= Duration::from_secs(limit) {
            return Err(last.unwrap_or_else(|| {
                Failure::new(
                    exit::SOFTWARE,
                    format!("timeout: the broker did not start within {limit} seconds"),
                )
            }));
        }
        thread::sleep(PAUSE);
    }
}

fn await_online_nodes(call: &mut Call) -> Result<Output, Failure> {
    let count: u64 = call
        .arg("count")
        .parse()
        .map_err(|_no_number| Failure::argument(exit::DATA, "Bad argument: count is not a number"))?;
    call.banner(format!(
        "Will wait for at least {count} nodes to join the cluster ..."
    ));
    if count > 1 {
        return Err(Failure::unavailable(
            "this broker runs on one node and does not cluster yet",
        ));
    }
    call.client.get("/leveret/ping")?;
    Ok(Output::Done { node: call.node() })
}

fn stop(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!("Stopping and halting node {node} ..."));
    match call.client.post("/leveret/stop", &nothing()) {
        Err(failure) if failure.unreachable && call.switch("idempotent") => {
            return Ok(Output::sentence(format!("Node {node} is no longer running")));
        }
        done => done?,
    };
    if call.has("pidfile") {
        wait_for_end(call);
    }
    Ok(Output::Done { node })
}

fn shutdown(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!("Shutting down node {node} ..."));
    call.client.post("/leveret/stop", &nothing())?;
    wait_for_end(call);
    Ok(Output::Done { node })
}

/// The broker answers until its clients are gone and its store is closed. Its own bound for that is seconds.
fn wait_for_end(call: &Call) {
    while call.client.get("/leveret/ping").is_ok() {
        thread::sleep(PAUSE);
    }
}

/// Posts, and says what it does before.
fn order(call: &mut Call, banner: &str, path: &str) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(banner.replace("NODE", &node));
    call.client.post(path, &nothing())?;
    Ok(Output::Done { node })
}

fn stop_app(call: &mut Call) -> Result<Output, Failure> {
    order(
        call,
        "Stopping rabbit application on node NODE ...",
        "/leveret/app/stop",
    )
}

fn start_app(call: &mut Call) -> Result<Output, Failure> {
    order(call, "Starting node NODE ...", "/leveret/app/start")
}

fn reset(call: &mut Call) -> Result<Output, Failure> {
    let pong = call.client.get("/leveret/ping")?;
    if pong.get("running").and_then(Value::as_bool) == Some(true) {
        return Err(Failure::misplaced(
            "this command requires the 'rabbit' app to be stopped on the target node. Stop it with 'rabbitmqctl stop_app'.",
        ));
    }
    order(call, "Resetting node NODE ...", "/leveret/app/reset")
}

fn suspend(call: &mut Call) -> Result<Output, Failure> {
    let text = "Will suspend client connection listeners on node NODE. The node will no longer accept client connections!";
    order(call, text, "/leveret/listeners/suspend")
}

fn resume(call: &mut Call) -> Result<Output, Failure> {
    let text =
        "Will resume client connection listeners on node NODE. The node will now accept client connections";
    order(call, text, "/leveret/listeners/resume")
}

fn drain(call: &mut Call) -> Result<Output, Failure> {
    let text = "Will put node NODE into maintenance mode. The node will no longer serve any client traffic!";
    order(call, text, "/leveret/app/stop")
}

fn revive(call: &mut Call) -> Result<Output, Failure> {
    let text = "Will put node NODE back into regular operating mode. The node will again serve client traffic and host primary queue replicas.";
    order(call, text, "/leveret/app/start")
}

fn post_upgrade(call: &mut Call) -> Result<Output, Failure> {
    call.client.get("/leveret/ping")?;
    Ok(Output::sentence("There is nothing to do after an upgrade"))
}

fn done(call: &mut Call) -> Result<Output, Failure> {
    Ok(Output::Done { node: call.node() })
}
