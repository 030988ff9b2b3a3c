//! Health checks, for probes and monitors: quick, with an exit code that says it all.

use std::{
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use serde_json::{Map, Value, json};

use crate::{
    call::Call,
    command::{Spec, value},
    commands::status::{Told, alarm_lines},
    failure::{Failure, exit},
    output::Output,
    program::tools::{BOTH, DIAGNOSTICS, HEALTH_OF_QUEUES, UPGRADE},
};

const GROUP: &str = "Monitoring, observability and health checks";

pub(super) static COMMANDS: [Spec; 20] = [
    plain("ping", BOTH, "Checks that the broker's process answers", ping),
    plain(
        "check_running",
        DIAGNOSTICS,
        "Health check that exits with a non-zero code if the broker is not fully booted and serving",
        check_running,
    ),
    plain(
        "is_running",
        DIAGNOSTICS,
        "Whether the broker is fully booted and serving; exits with 0 in both cases",
        is_running,
    ),
    plain(
        "is_booting",
        DIAGNOSTICS,
        "Whether the broker is booting; exits with 0 in both cases",
        is_booting,
    ),
    plain("alarms", DIAGNOSTICS, "Lists resource alarms", alarms),
    plain(
        "check_alarms",
        DIAGNOSTICS,
        "Health check that exits with a non-zero code if there are resource alarms",
        check_alarms,
    ),
    plain(
        "check_local_alarms",
        DIAGNOSTICS,
        "Health check that exits with a non-zero code if there are resource alarms on this node",
        check_local_alarms,
    ),
    plain("listeners", DIAGNOSTICS, "Lists listeners", listeners),
    Spec {
        name: "check_port_connectivity",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "",
        options: &[value(
            "address",
            "address",
            "connect there instead of to this machine",
        )],
        about: "Health check that connects to all listeners",
        run: check_port_connectivity,
    },
    Spec {
        name: "check_port_listener",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "<port>",
        options: &[],
        about: "Health check that exits with a non-zero code if nobody listens on the port",
        run: check_port_listener,
    },
    Spec {
        name: "check_protocol_listener",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "<protocol>",
        options: &[],
        about: "Health check that exits with a non-zero code if there is no listener for the protocol",
        run: check_protocol_listener,
    },
    plain(
        "check_virtual_hosts",
        DIAGNOSTICS,
        "Health check of all virtual hosts",
        check_virtual_hosts,
    ),
    Spec {
        name: "check_certificate_expiration",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "",
        options: &[
            value("within", "number", "of units [default: 4]"),
            value("unit", "days|weeks|months|years", "[default: weeks]"),
        ],
        about: "Health check of certificates: there are none yet",
        run: check_certificates,
    },
    plain(
        "check_if_node_is_quorum_critical",
        HEALTH_OF_QUEUES,
        "Health check: on one node it does not apply",
        quorum_critical,
    ),
    plain(
        "check_if_node_is_mirror_sync_critical",
        HEALTH_OF_QUEUES,
        "Health check: on one node it does not apply",
        mirror_critical,
    ),
    plain(
        "check_if_cluster_has_classic_queue_mirroring_policy",
        HEALTH_OF_QUEUES,
        "Health check: there is no mirroring any more",
        no_mirroring,
    ),
    plain(
        "check_if_any_deprecated_features_are_used",
        DIAGNOSTICS,
        "Health check of deprecated features in use",
        deprecated,
    ),
    plain(
        "node_health_check",
        BOTH,
        "DEPRECATED. Checks that the broker answers",
        node_health_check,
    ),
    plain(
        "await_online_quorum_plus_one",
        UPGRADE,
        "Waits for enough nodes: on one node it does not apply",
        await_quorum,
    ),
    plain(
        "await_online_synchronized_mirror",
        UPGRADE,
        "Waits for mirrors: there are none any more",
        await_mirror,
    ),
];

/// A check without arguments.
const fn plain(
    name: &'static str,
    tools: &'static [crate::program::Program],
    about: &'static str,
    run: crate::command::Run,
) -> Spec {
    Spec {
        name,
        tools,
        group: GROUP,
        args: "",
        options: &[],
        about,
        run,
    }
}

fn fields(pairs: &[(&str, Value)]) -> Map<String, Value> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

/// A failed check: text for people, an object for machines, 69 for probes.
fn unhealthy(call: &Call, text: &str, json: &Value) -> Failure {
    if call.shape.format.is_json() {
        Failure::plain(exit::UNAVAILABLE, json.to_string())
    } else {
        Failure::unavailable(text)
    }
}

fn ping(call: &mut Call) -> Result<Output, Failure> {
    let timeout = call.timeout().unwrap_or(60).saturating_mul(1000);
    let node = call
        .option("node")
        .map_or_else(|| call.client.target.describe(), ToOwned::to_owned);
    call.banner(format!(
        "Will ping {node}. This only checks if the OS process is running and answers. Timeout: {timeout} ms."
    ));
    call.client.get("/leveret/ping").map_err(|failure| {
        if failure.code == exit::NO_PERMISSION {
            return failure;
        }
        let why = failure.text.lines().last().unwrap_or_default().to_owned();
        let text = format!("Failed to connect and authenticate to {node} in {timeout} ms\n{why}");
        Failure::new(failure.code, text)
    })?;
    Ok(Output::sentence("Ping succeeded"))
}

/// The node's name, and whether it serves clients.
fn running(call: &mut Call) -> Result<(String, bool), Failure> {
    let pong = call.client.get("/leveret/ping")?;
    let running = pong.get("running").and_then(Value::as_bool).unwrap_or(false);
    Ok((call.node(), running))
}

fn check_running(call: &mut Call) -> Result<Output, Failure> {
    let (node, running) = running(call)?;
    call.banner(format!("Checking if RabbitMQ is running on node {node} ..."));
    if running {
        return Ok(Output::sentence(format!(
            "RabbitMQ on node {node} is fully booted and running"
        )));
    }
    Err(Failure::unavailable(format!(
        "RabbitMQ on node {node} is not running or has not fully booted yet (check with is_booting)"
    )))
}

fn is_running(call: &mut Call) -> Result<Output, Failure> {
    let (node, running) = running(call)?;
    call.banner(format!("Asking node {node} for its status ..."));
    let text = if running {
        format!("RabbitMQ on node {node} is fully booted and running")
    } else {
        format!("RabbitMQ on node {node} is not running or has not fully booted yet (check with is_booting)")
    };
    Ok(Output::Sentence(text, fields(&[("result", running.into())])))
}

fn is_booting(call: &mut Call) -> Result<Output, Failure> {
    let (node, _) = running(call)?;
    call.banner(format!("Asking node {node} for its boot status ..."));
    let text = format!(
        "RabbitMQ on node {node} is fully booted (check with is_running), stopped or has not started booting yet"
    );
    Ok(Output::Sentence(text, fields(&[("result", false.into())])))
}

fn alarms(call: &mut Call) -> Result<Output, Failure> {
    let told = Told::ask(call)?;
    let node = told.node();
    call.banner(format!(
        "Asking node {node} to report any known resource alarms ..."
    ));
    let text = if told.alarms().is_empty() {
        format!("Node {node} reported no alarms, local or clusterwide")
    } else {
        alarm_lines(&told).join("\n")
    };
    let json = json!({"alarms": alarm_lines_or_none(&told), "node": node, "result": "ok"});
    Ok(Output::Report { text, json })
}

fn alarm_lines_or_none(told: &Told) -> Vec<String> {
    if told.alarms().is_empty() {
        Vec::new()
    } else {
        alarm_lines(told)
    }
}

fn checked_alarms(call: &Call, none: &str) -> Result<Output, Failure> {
    let told = Told::ask(call)?;
    let node = told.node();
    call.banner(format!(
        "Asking node {node} to report any local resource alarms ..."
    ));
    if told.alarms().is_empty() {
        return Ok(Output::Report {
            text: format!("Node {node} reported {none}"),
            json: json!({"result": "ok"}),
        });
    }
    let lines = alarm_lines(&told);
    let json = json!({
        "result": "error",
        "local": lines,
        "global": [],
        "message": format!("Node {node} reported alarms"),
    });
    Err(unhealthy(call, &lines.join("\n"), &json))
}

fn check_alarms(call: &mut Call) -> Result<Output, Failure> {
    checked_alarms(call, "no alarms, local or clusterwide")
}

fn check_local_alarms(call: &mut Call) -> Result<Output, Failure> {
    checked_alarms(call, "no local alarms")
}

fn listeners(call: &mut Call) -> Result<Output, Failure> {
    let told = Told::ask(call)?;
    let node = told.node();
    call.banner(format!("Asking node {node} to report its protocol listeners ..."));
    let line = |listener: &Value| {
        let text = |key: &str| listener.get(key).map(crate::output::cell).unwrap_or_default();
        format!(
            "Interface: {}, port: {}, protocol: {}, purpose: {}",
            text("interface"),
            text("port"),
            text("protocol"),
            text("purpose")
        )
    };
    let rows = told.rows("listeners");
    let lines: Vec<String> = rows.iter().map(line).collect();
    let json = json!({"listeners": rows, "node": node, "result": "ok"});
    Ok(Output::Report {
        text: lines.join("\n"),
        json,
    })
}

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

fn connects(host: &str, port: u16) -> bool {
    let addresses = (host, port).to_socket_addrs();
    addresses.is_ok_and(|mut addresses| {
        addresses.any(|address| TcpStream::connect_timeout(&address, CONNECT_WITHIN).is_ok())
    })
}

/// Where a listener's address is reached from here.
fn reachable(interface: &str, target: &str) -> String {
    match interface.trim_start_matches('[').trim_end_matches(']') {
        "::" | "0.0.0.0" => target.to_owned(),
        address => address.to_owned(),
    }
}

fn port_of(listener: &Value) -> u16 {
    listener
        .get("port")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(0)
}

fn check_port_connectivity(call: &mut Call) -> Result<Output, Failure> {
    let told = Told::ask(call)?;
    let node = told.node();
    call.banner(format!(
        "Testing TCP connections to all active listeners on node {node} ..."
    ));
    let rows = told.rows("listeners");
    let given = call.option("address");
    let failed: Vec<&Value> = rows
        .iter()
        .filter(|listener| {
            let interface = listener
                .get("interface")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let host = given.map_or_else(
                || reachable(interface, call.client.target.host()),
                ToOwned::to_owned,
            );
            !connects(&host, port_of(listener))
        })
        .collect();
    let ports = |rows: &mut dyn Iterator<Item = &Value>| {
        rows.map(|row| port_of(row).to_string())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if failed.is_empty() {
        return Ok(Output::Report {
            text: format!(
                "Successfully connected to ports {} on node {node}.",
                ports(&mut rows.iter())
            ),
            json: json!({"listeners": rows, "node": node, "result": "ok"}),
        });
    }
    let text = format!(
        "Connection attempts to the following listeners failed on node {node}: {}",
        ports(&mut failed.iter().copied())
    );
    let json = json!({"result": "error", "node": node, "failures": failed});
    Err(unhealthy(call, &text, &json))
}

fn check_port_listener(call: &mut Call) -> Result<Output, Failure> {
    let port = call.arg("port").to_owned();
    let wanted: u16 = port
        .parse()
        .map_err(|_no_port| Failure::argument(exit::USAGE, format!("{port} is not a port.")))?;
    let told = Told::ask(call)?;
    let node = told.node();
    call.banner(format!(
        "Asking node {node} if there's an active listener on port {port} ..."
    ));
    let rows = told.rows("listeners");
    let ports: Vec<u16> = rows.iter().map(port_of).collect();
    if ports.contains(&wanted) {
        return Ok(Output::Report {
            text: format!("A listener for port {port} is running on node {node}."),
            json: json!({"node": node, "port": port, "result": "ok"}),
        });
    }
    let listed: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let text = format!(
        "No listener for port {port} is active on node {node}. Found listeners that use the following ports: {}",
        listed.join(", ")
    );
    if call.shape.format.is_json() {
        let json = json!({"listeners": rows, "missing": port, "ports": ports, "result": "error"});
        return Err(Failure::plain(exit::UNAVAILABLE, json.to_string()));
    }
    // RabbitMQ's tool leaves the word error out here.
    Err(Failure::plain(exit::UNAVAILABLE, text))
}

/// The listener that a protocol's many names mean.
fn protocol_name(text: &str) -> &str {
    match text {
        "amqp" | "amqp091" | "amqp0-9-1" | "amqp-0-9-1" | "amqp0.9.1" => "amqp",
        "http" | "management" => "http",
        "http/prometheus" | "prometheus" => "http/prometheus",
        other => other,
    }
}

fn check_protocol_listener(call: &mut Call) -> Result<Output, Failure> {
    let protocol = call.arg("protocol").to_owned();
    let told = Told::ask(call)?;
    let node = told.node();
    call.banner(format!(
        "Asking node {node} if there's an active listener for protocol {protocol} ..."
    ));
    let rows = told.rows("listeners");
    let known: Vec<&str> = rows
        .iter()
        .filter_map(|listener| listener.get("protocol")?.as_str())
        .collect();
    if known.contains(&protocol_name(&protocol.to_lowercase())) {
        return Ok(Output::Report {
            text: format!("A listener for protocol {protocol} is running on node {node}."),
            json: json!({"node": node, "protocol": protocol, "result": "ok"}),
        });
    }
    let text = format!(
        "No listener for protocol {protocol} is active on node {node}. Found listeners for the following protocols: {}",
        known.join(", ")
    );
    let json = json!({"listeners": rows, "missing": protocol, "protocols": known, "result": "error"});
    Err(unhealthy(call, &text, &json))
}

fn check_virtual_hosts(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!("Checking if all vhosts are running on node {node} ..."));
    let vhosts = call.client.list("/vhosts?disable_stats=true")?;
    let down: Vec<&str> = vhosts
        .iter()
        .filter(|vhost| {
            let states = vhost.get("cluster_state").and_then(Value::as_object);
            states.is_some_and(|states| states.values().any(|state| state != "running"))
        })
        .filter_map(|vhost| vhost.get("name")?.as_str())
        .collect();
    if down.is_empty() {
        return Ok(Output::Report {
            text: format!("Node {node} reported all vhosts as running"),
            json: json!({"result": "ok"}),
        });
    }
    let text = format!("Some virtual hosts on node {node} are down:\n{}", down.join("\n"));
    Err(unhealthy(
        call,
        &text,
        &json!({"result": "error", "down_vhosts": down}),
    ))
}

fn check_certificates(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    let within = call.option("within").unwrap_or("4").to_owned();
    let unit = call.option("unit").unwrap_or("weeks").to_owned();
    if within.parse::<u32>().is_err() || !["days", "weeks", "months", "years"].contains(&unit.as_str()) {
        return Err(Failure::argument(
            exit::USAGE,
            "--within is a number of --unit days, weeks, months or years.",
        ));
    }
    call.banner(format!("Checking certificate expiration on node {node} ..."));
    Ok(Output::Report {
        text: format!("No certificates are expiring within {within} {unit}."),
        json: json!({"result": "ok"}),
    })
}

const ALONE: &str = "Node NODE seems to be the only one in a single node cluster, the check does not apply";

fn alone(call: &mut Call, banner: &str) -> Result<Output, Failure> {
    call.client.get("/leveret/ping")?;
    let node = call.node();
    call.banner(banner.replace("NODE", &node));
    if call.shape.format.is_json() {
        let text = "Target node seems to be the only one in a single node cluster, the check does not apply";
        return Ok(Output::Sentence(
            text.to_owned(),
            fields(&[("result", "ok".into())]),
        ));
    }
    Ok(Output::sentence(ALONE.replace("NODE", &node)))
}

fn quorum_critical(call: &mut Call) -> Result<Output, Failure> {
    alone(
        call,
        "Checking if node NODE is critical for quorum of any quorum queues ...",
    )
}

fn mirror_critical(call: &mut Call) -> Result<Output, Failure> {
    alone(
        call,
        "Checking if node NODE is critical for data safety of any classic mirrored queues ...",
    )
}

fn no_mirroring(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!(
        "Checking if cluster of node {node} has classic queue mirroring policies ..."
    ));
    call.client.get("/leveret/ping")?;
    Ok(Output::sentence(
        "Cluster reported no classic queue mirroring policies",
    ))
}

fn deprecated(call: &mut Call) -> Result<Output, Failure> {
    call.banner("Checking if any deprecated features are used ...");
    let used = call.client.list("/deprecated-features/used")?;
    if used.is_empty() {
        return Ok(Output::Report {
            text: "No deprecated features in use".to_owned(),
            json: json!({"result": "ok"}),
        });
    }
    let names: Vec<&str> = used.iter().filter_map(|row| row.get("name")?.as_str()).collect();
    let text = format!("Deprecated features in use: {}", names.join(", "));
    Err(unhealthy(
        call,
        &text,
        &json!({"result": "error", "deprecated_features": names}),
    ))
}

fn node_health_check(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!(
        "This command is DEPRECATED and will be removed in a future version.\nTimeout: 70 seconds ...\nChecking health of node {node} ..."
    ));
    let (_, running) = running(call)?;
    if running {
        return Ok(Output::sentence("Health check passed"));
    }
    Err(Failure::unavailable(format!(
        "Error: RabbitMQ on node {node} is not running"
    )))
}

fn awaited(call: &mut Call, what: &str) -> Result<Output, Failure> {
    call.client.get("/leveret/ping")?;
    let seconds = call.timeout().unwrap_or(120);
    call.banner(format!("Will wait for {what} for {seconds} seconds..."));
    Ok(Output::sentence(
        "Target node seems to be the only one in a single node cluster, the command does not apply",
    ))
}

fn await_quorum(call: &mut Call) -> Result<Output, Failure> {
    awaited(call, "a quorum + 1 of nodes to be online for all quorum queues")
}

fn await_mirror(call: &mut Call) -> Result<Output, Failure> {
    awaited(
        call,
        "a synchronised mirror be online for all classic mirrored queues",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_on_all_addresses_are_reached_where_the_broker_is() {
        assert_eq!(reachable("[::]", "host"), "host");
        assert_eq!(reachable("127.0.0.1", "host"), "127.0.0.1");
        assert_eq!(reachable("[::1]", "host"), "::1");
    }
}
