//! `cluster_status`: the report about all nodes, of which there is one.

use serde_json::{Map, Value, json};

use super::{RUNTIME, Report, Told, alarm_lines, listener_lines};
use crate::{call::Call, commands::RABBITMQ_VERSION, failure::Failure, output::Output};

pub(super) fn cluster_status(call: &mut Call) -> Result<Output, Failure> {
    let told = Told::ask(call)?;
    let node = told.node().to_owned();
    call.banner(format!("Cluster status of node {node} ..."));
    let flags = call.client.list("/feature-flags")?;
    let maintenance = if told.flag("running") {
        "not under maintenance"
    } else {
        "under maintenance"
    };
    Ok(if call.shape.format.is_json() {
        Output::Report {
            text: String::new(),
            json: as_json(&told, &flags, maintenance),
        }
    } else {
        Output::Document(as_text(&told, &flags, maintenance))
    })
}

fn as_json(told: &Told, flags: &[Value], maintenance: &str) -> Value {
    let node = told.node().to_owned();
    let by_node = |value: Value| -> Value {
        let mut object = Map::new();
        object.insert(node.clone(), value);
        Value::Object(object)
    };
    json!({
        "alarms": told.alarms(),
        "cluster_name": told.text("cluster_name"),
        "cluster_tags": [],
        "cpu_cores": by_node(told.number("processors").into()),
        "disk_nodes": [node],
        "feature_flags": flags,
        "listeners": by_node(told.rows("listeners").into()),
        "maintenance_status": by_node(maintenance.into()),
        "partitions": {},
        "ram_nodes": [],
        "running_nodes": [node],
        "versions": by_node(json!({
            "erlang_version": RUNTIME,
            "rabbitmq_name": "Leveret",
            "rabbitmq_version": RABBITMQ_VERSION,
        })),
    })
}

fn as_text(told: &Told, flags: &[Value], maintenance: &str) -> String {
    let node = told.node().to_owned();
    let mut report = Report(String::new());
    report.section(
        "Basics",
        &[
            format!("Cluster name: {}", told.text("cluster_name")),
            format!(
                "Total CPU cores available cluster-wide: {}",
                told.number("processors")
            ),
        ],
    );
    report.section("Disk Nodes", std::slice::from_ref(&node));
    report.section("Running Nodes", std::slice::from_ref(&node));
    let version = format!("{node}: RabbitMQ {RABBITMQ_VERSION} on {RUNTIME}");
    report.section("Versions", &[version]);
    report.section(
        "CPU Cores",
        &[format!(
            "Node: {node}, available CPU cores: {}",
            told.number("processors")
        )],
    );
    report.section(
        "Maintenance status",
        &[format!("Node: {node}, status: {maintenance}")],
    );
    report.section("Alarms", &alarm_lines(told));
    report.section("Network Partitions", &["(none)".to_owned()]);
    report.section("Listeners", &listener_lines(told, true));
    let line = |flag: &Value| {
        let text = |key: &str| flag.get(key).and_then(Value::as_str).unwrap_or_default();
        format!("Flag: {}, state: {}", text("name"), text("state"))
    };
    report.section("Feature flags", &flags.iter().map(line).collect::<Vec<_>>());
    report.0
}
