//! Health checks (management-api 7): 200, or 503 with a reason.

use serde_json::{Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    route::{Level, Route, get},
};

pub(super) static ROUTES: [Route; 21] = [
    get(
        "/health/checks/alarms",
        Level::Any,
        alarms,
        "No resource alarm anywhere",
    ),
    get(
        "/health/checks/local-alarms",
        Level::Any,
        alarms,
        "No resource alarm on this node",
    ),
    get(
        "/health/checks/metadata-store/initialized",
        Level::Any,
        ok,
        "Definitions are loaded",
    ),
    get(
        "/health/checks/metadata-store/initialized/with-data",
        Level::Any,
        ok,
        "Definitions are loaded",
    ),
    get(
        "/health/checks/certificate-expiration/{within}/{unit}",
        Level::Any,
        certificates,
        "No certificate expires soon",
    ),
    get(
        "/health/checks/port-listener/{port}",
        Level::Any,
        port,
        "Something listens on a port",
    ),
    get(
        "/health/checks/protocol-listener/{protocols}",
        Level::Any,
        protocols,
        "Something listens for a protocol",
    ),
    get("/health/checks/virtual-hosts", Level::Any, ok, "All vhosts run"),
    get(
        "/health/checks/node-is-quorum-critical",
        Level::Any,
        quorum_critical,
        "No queue would lose its quorum without this node",
    ),
    get(
        "/health/checks/node-is-mirror-sync-critical",
        Level::Any,
        ok,
        "There are no mirrors",
    ),
    get(
        "/health/checks/quorum-queues-without-elected-leaders/all-vhosts",
        Level::Any,
        ok,
        "Every queue has a leader",
    ),
    get(
        "/health/checks/quorum-queues-without-elected-leaders/all-vhosts/pattern/{pattern}",
        Level::Any,
        ok,
        "Every queue has a leader",
    ),
    get(
        "/health/checks/quorum-queues-without-elected-leaders/vhost/{name}",
        Level::Any,
        ok,
        "Every queue has a leader",
    ),
    get(
        "/health/checks/quorum-queues-without-elected-leaders/vhost/{name}/pattern/{pattern}",
        Level::Any,
        ok,
        "Every queue has a leader",
    ),
    get(
        "/health/checks/is-in-service",
        Level::Nobody,
        in_service,
        "The node serves clients",
    ),
    get(
        "/health/checks/below-node-connection-limit",
        Level::Nobody,
        below_limit,
        "The node takes more connections",
    ),
    get(
        "/health/checks/ready-to-serve-clients",
        Level::Nobody,
        ready,
        "The node listens for clients and takes more",
    ),
    get(
        "/health/checks/reached-target-cluster-size",
        Level::Nobody,
        cluster_size,
        "All nodes are there",
    ),
    get("/aliveness-test/{vhost}", Level::Vhost, ok, "The vhost is alive"),
    get("/healthchecks/node", Level::Any, alarms, "The node is well"),
    get(
        "/healthchecks/node/{node}",
        Level::Any,
        alarms,
        "The node is well",
    ),
];

fn ok(_: &Call) -> Result<Answer, ApiError> {
    Ok(healthy(json!({})))
}

/// 200 with these fields beside the status.
fn healthy(mut fields: Value) -> Answer {
    if let Value::Object(fields) = &mut fields {
        fields.insert("status".to_owned(), "ok".into());
    }
    Answer::json(fields)
}

fn failed(reason: &str, mut fields: Value) -> ApiError {
    if let Value::Object(fields) = &mut fields {
        fields.insert("status".to_owned(), "failed".into());
        fields.insert("reason".to_owned(), reason.into());
    }
    ApiError::unhealthy(fields)
}

fn alarms(call: &Call) -> Result<Answer, ApiError> {
    let raised = call.handle.alarms().raised;
    let node = call.handle.node_name();
    let alarms: Vec<Value> = [("memory", raised.memory), ("disk space", raised.disk)]
        .into_iter()
        .filter(|(_, raised)| *raised)
        .map(|(resource, _)| json!({"node": node, "resource": resource}))
        .collect();
    if !alarms.is_empty() {
        return Err(failed(
            "There are alarms in effect in the cluster",
            json!({"alarms": alarms}),
        ));
    }
    Ok(healthy(json!({})))
}

fn certificates(call: &Call) -> Result<Answer, ApiError> {
    if !matches!(call.name("unit"), "days" | "weeks" | "months" | "years") {
        return Err(ApiError::bad_request(
            "Time unit not recognised. Use days, weeks, months, years.",
        ));
    }
    if call.name("within").parse::<u32>().is_err() {
        return Err(ApiError::bad_request("Invalid expiration period"));
    }
    Ok(healthy(json!({})))
}

fn port(call: &Call) -> Result<Answer, ApiError> {
    let text = call.name("port");
    let wanted: u16 = text
        .parse()
        .map_err(|_no_port| ApiError::bad_request(format!("Invalid port: {text}")))?;
    let ports: Vec<u16> = call
        .settings
        .listeners
        .iter()
        .map(|(_, address)| address.port())
        .collect();
    if ports.contains(&wanted) {
        return Ok(healthy(json!({"port": wanted})));
    }
    Err(failed(
        "No active listener",
        json!({"missing": wanted, "ports": ports}),
    ))
}

/// The listener that a protocol's many names mean.
fn protocol_name(text: &str) -> &str {
    match text {
        "amqp" | "amqp091" | "amqp0-9-1" | "amqp-0-9-1" | "amqp10" | "amqp1.0" => "amqp",
        "http" | "management" => "http",
        "http/prometheus" | "prometheus" => "http/prometheus",
        other => other,
    }
}

fn protocols(call: &Call) -> Result<Answer, ApiError> {
    let wanted: Vec<&str> = call.name("protocols").split(',').map(str::trim).collect();
    let present: Vec<&str> = call
        .settings
        .listeners
        .iter()
        .map(|(protocol, _)| *protocol)
        .collect();
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|wanted| !present.contains(&protocol_name(&wanted.to_lowercase())))
        .collect();
    if missing.is_empty() {
        return Ok(healthy(json!({"protocols": present})));
    }
    Err(failed(
        "No active listener",
        json!({"missing": missing, "protocols": present}),
    ))
}

fn quorum_critical(_: &Call) -> Result<Answer, ApiError> {
    Ok(healthy(json!({"reason": "single node cluster"})))
}

fn in_service(call: &Call) -> Result<Answer, ApiError> {
    if call.handle.is_stopping() || !call.handle.is_app_running() {
        return Err(failed("the node is stopping", json!({})));
    }
    Ok(healthy(json!({})))
}

fn below_limit(call: &Call) -> Result<Answer, ApiError> {
    Ok(healthy(json!({"connections": call.handle.connection_count()})))
}

fn ready(call: &Call) -> Result<Answer, ApiError> {
    in_service(call)?;
    if !call
        .settings
        .listeners
        .iter()
        .any(|(protocol, _)| *protocol == "amqp")
    {
        return Err(failed("no AMQP listener", json!({})));
    }
    below_limit(call)
}

fn cluster_size(_: &Call) -> Result<Answer, ApiError> {
    Ok(healthy(json!({"online": 1, "target": 1})))
}
