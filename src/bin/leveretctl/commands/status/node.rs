//! `status`: the report about the node.

use serde_json::{Map, Value, json};

use super::{RUNTIME, Report, Told, alarm_lines, amount, listener_lines, memory, percent};
use crate::{call::Call, commands::RABBITMQ_VERSION, failure::Failure, output::Output};

pub(super) fn status(call: &mut Call) -> Result<Output, Failure> {
    let unit = call.option("unit").unwrap_or("gb").to_lowercase();
    amount(0, &unit)?;
    let told = Told::ask(call)?;
    call.banner(format!("Status of node {} ...", told.node()));
    let (kinds, total) = memory(call, told.node())?;
    if call.shape.format.is_json() {
        return Ok(Output::Report {
            text: String::new(),
            json: status_json(&told, &kinds, total),
        });
    }
    let mut report = Report(String::new());
    identity(&mut report, &told);
    alarms_and_memory(&mut report, &told, &kinds, total, &unit)?;
    resources(&mut report, &told, &unit)?;
    report.section("Listeners", &listener_lines(&told, false));
    Ok(Output::Document(report.0))
}

/// What it is and where it lives.
fn identity(report: &mut Report, told: &Told) {
    report.section(
        "Runtime",
        &[
            format!("OS PID: {}", told.number("pid")),
            "OS: Linux".to_owned(),
            format!("Uptime (seconds): {}", told.number("uptime")),
            format!("Is under maintenance?: {}", !told.flag("running")),
            format!("RabbitMQ version: {RABBITMQ_VERSION}"),
            "RabbitMQ release series support status: supported".to_owned(),
            format!("Leveret version: {}", told.text("version")),
            format!("Node name: {}", told.node()),
            format!("Erlang configuration: {RUNTIME}"),
            format!("Threads: {} used", told.number("threads")),
        ],
    );
    report.section(
        "Plugins",
        &[
            "Enabled plugins:".to_owned(),
            String::new(),
            " * built in (see rabbitmq-plugins list)".to_owned(),
        ],
    );
    report.section(
        "Data directory",
        &[format!("Node data directory: {}", told.text("data_directory"))],
    );
    let listed = |key: &str| -> Vec<String> {
        let rows = told.rows(key);
        rows.iter()
            .map(|row| format!(" * {}", row.as_str().unwrap_or_default()))
            .collect()
    };
    report.section("Config files", &listed("config_files"));
    report.section("Log file(s)", &listed("log_files"));
}

fn alarms_and_memory(
    report: &mut Report,
    told: &Told,
    kinds: &[(String, u64)],
    total: u64,
    unit: &str,
) -> Result<(), Failure> {
    report.section("Alarms", &alarm_lines(told));
    let setting = told.0.get("memory_watermark").cloned().unwrap_or_default();
    let setting = match (
        setting.get("relative"),
        setting.get("absolute").and_then(Value::as_u64),
    ) {
        (Some(share), _) => format!("{share} of available memory"),
        (None, bytes) => amount(bytes.unwrap_or(0), unit)?,
    };
    let mut lines = vec![
        format!("Total memory used: {}", amount(total, unit)?),
        "Calculation strategy: rss".to_owned(),
        format!(
            "Memory high watermark setting: {setting}, computed to: {}",
            amount(told.number("memory_limit"), unit)?
        ),
        String::new(),
    ];
    for (kind, bytes) in kinds {
        lines.push(format!(
            "{kind}: {} ({} %)",
            amount(*bytes, unit)?,
            percent(*bytes, total)
        ));
    }
    report.section("Memory", &lines);
    Ok(())
}

fn resources(report: &mut Report, told: &Told, unit: &str) -> Result<(), Failure> {
    report.section(
        "File Descriptors",
        &[
            format!(
                "Total: {}, limit: {}",
                told.number("open_files"),
                told.number("open_files_max")
            ),
            format!(
                "Sockets: {}, limit: {}",
                told.number("connections"),
                told.number("open_files_max")
            ),
        ],
    );
    report.section(
        "Free Disk Space",
        &[
            format!(
                "Low free disk space watermark: {}",
                amount(told.number("disk_free_limit"), unit)?
            ),
            format!("Free disk space: {}", amount(told.number("disk_free"), unit)?),
        ],
    );
    report.section(
        "Totals",
        &[
            format!("Connection count: {}", told.number("connections")),
            format!("Queue count: {}", told.number("queues")),
            format!("Virtual host count: {}", told.number("vhosts")),
        ],
    );
    Ok(())
}

fn status_json(told: &Told, kinds: &[(String, u64)], total: u64) -> Value {
    let mut memory: Map<String, Value> = kinds
        .iter()
        .map(|(kind, bytes)| (kind.clone(), (*bytes).into()))
        .collect();
    memory.insert("strategy".to_owned(), "rss".into());
    memory.insert(
        "total".to_owned(),
        json!({"rss": total, "allocated": total, "erlang": total}),
    );
    json!({
        "active_plugins": [],
        "alarms": told.alarms(),
        "config_files": told.rows("config_files"),
        "crypto_lib_version": "",
        "data_directory": told.text("data_directory"),
        "disk_free": told.number("disk_free"),
        "disk_free_limit": told.number("disk_free_limit"),
        "enabled_plugin_file": "",
        "erlang_version": RUNTIME,
        "file_descriptors": {
            "sockets_limit": told.number("open_files_max"),
            "sockets_used": told.number("connections"),
            "total_limit": told.number("open_files_max"),
            "total_used": told.number("open_files"),
        },
        "is_under_maintenance": !told.flag("running"),
        "listeners": told.rows("listeners"),
        "log_files": told.rows("log_files"),
        "memory": memory,
        "net_ticktime": 60,
        "os": "Linux",
        "pid": told.number("pid"),
        "processes": {"limit": 1_048_576, "used": told.number("threads")},
        "product_name": "Leveret",
        "product_version": told.text("version"),
        "rabbitmq_version": RABBITMQ_VERSION,
        "raft_data_directory": told.text("data_directory"),
        "release_series_support_status": "supported",
        "run_queue": 0,
        "tags": [],
        "totals": {
            "connection_count": told.number("connections"),
            "queue_count": told.number("queues"),
            "virtual_host_count": told.number("vhosts"),
        },
        "uptime": told.number("uptime"),
        "vm_memory_calculation_strategy": "rss",
        "vm_memory_high_watermark_limit": told.number("memory_limit"),
        "vm_memory_high_watermark_setting": told.0.get("memory_watermark").cloned().unwrap_or_default(),
    })
}
