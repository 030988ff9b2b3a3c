//! Lists of what there is: queues, exchanges, bindings, connections, channels, consumers. Columns come in the order in which
//! they are asked for.

use serde_json::{Value, json};

use crate::{
    call::Call,
    client::segment,
    command::{Spec, switch},
    failure::{Failure, exit},
    output::{Output, Table, typed},
    program::tools::BOTH,
};

const GROUP: &str = "Monitoring, observability and health checks";

pub(super) static COMMANDS: [Spec; 7] = [
    Spec {
        name: "list_queues",
        tools: BOTH,
        group: GROUP,
        args: "[<column>...]",
        options: &[
            switch("online", "only queues on online nodes: all"),
            switch("offline", "only queues on offline nodes: none"),
            switch("local", "only queues of the target node: all"),
        ],
        about: "Lists queues and their properties",
        run: queues,
    },
    Spec {
        name: "list_exchanges",
        tools: BOTH,
        group: GROUP,
        args: "[<column>...]",
        options: &[],
        about: "Lists exchanges",
        run: exchanges,
    },
    Spec {
        name: "list_bindings",
        tools: BOTH,
        group: GROUP,
        args: "[<column>...]",
        options: &[],
        about: "Lists all bindings on a vhost",
        run: bindings,
    },
    Spec {
        name: "list_connections",
        tools: BOTH,
        group: GROUP,
        args: "[<column>...]",
        options: &[],
        about: "Lists AMQP 0-9-1 connections",
        run: connections,
    },
    Spec {
        name: "list_channels",
        tools: BOTH,
        group: GROUP,
        args: "[<column>...]",
        options: &[],
        about: "Lists all channels",
        run: channels,
    },
    Spec {
        name: "list_consumers",
        tools: BOTH,
        group: GROUP,
        args: "[<column>...]",
        options: &[],
        about: "Lists all consumers of a vhost",
        run: consumers,
    },
    Spec {
        name: "list_unresponsive_queues",
        tools: BOTH,
        group: GROUP,
        args: "[<column>...]",
        options: &[crate::command::value(
            "queue-timeout",
            "ms",
            "how long a queue may take",
        )],
        about: "Lists queues that do not answer: there is no such state here",
        run: unresponsive,
    },
];

const QUEUES: [&str; 44] = [
    "name",
    "durable",
    "auto_delete",
    "arguments",
    "policy",
    "operator_policy",
    "effective_policy_definition",
    "pid",
    "owner_pid",
    "exclusive",
    "exclusive_consumer_pid",
    "exclusive_consumer_tag",
    "messages_ready",
    "messages_unacknowledged",
    "messages",
    "messages_ready_ram",
    "messages_unacknowledged_ram",
    "messages_ram",
    "messages_persistent",
    "messages_scheduled",
    "messages_dlx",
    "message_bytes",
    "message_bytes_ready",
    "message_bytes_unacknowledged",
    "message_bytes_ram",
    "message_bytes_persistent",
    "head_message_timestamp",
    "disk_reads",
    "disk_writes",
    "consumers",
    "consumer_utilisation",
    "consumer_capacity",
    "memory",
    "state",
    "type",
    "leader",
    "members",
    "online",
    "slave_pids",
    "synchronised_slave_pids",
    "single_active_consumer_tag",
    "storage_version",
    "vhost",
    "node",
];

/// What needs no statistics: the broker answers these without touching what it counts.
const CHEAP: [&str; 13] = [
    "name",
    "durable",
    "auto_delete",
    "arguments",
    "policy",
    "operator_policy",
    "effective_policy_definition",
    "exclusive",
    "messages_ready",
    "messages_unacknowledged",
    "messages",
    "state",
    "type",
];

const EXCHANGES: [&str; 7] = [
    "name",
    "type",
    "durable",
    "auto_delete",
    "internal",
    "arguments",
    "policy",
];

const BINDINGS: [&str; 6] = [
    "source_name",
    "source_kind",
    "destination_name",
    "destination_kind",
    "routing_key",
    "arguments",
];

const CONNECTIONS: [&str; 34] = [
    "pid",
    "name",
    "port",
    "host",
    "peer_port",
    "peer_host",
    "ssl",
    "ssl_protocol",
    "ssl_key_exchange",
    "ssl_cipher",
    "ssl_hash",
    "peer_cert_subject",
    "peer_cert_issuer",
    "peer_cert_serial_number",
    "peer_cert_validity",
    "state",
    "channels",
    "protocol",
    "auth_mechanism",
    "user",
    "vhost",
    "container_id",
    "timeout",
    "frame_max",
    "channel_max",
    "client_properties",
    "recv_oct",
    "recv_cnt",
    "send_oct",
    "send_cnt",
    "send_pend",
    "connected_at",
    "user_provided_name",
    "connection_name",
];

const CHANNELS: [&str; 15] = [
    "pid",
    "connection",
    "name",
    "number",
    "user",
    "vhost",
    "transactional",
    "confirm",
    "consumer_count",
    "messages_unacknowledged",
    "messages_uncommitted",
    "acks_uncommitted",
    "messages_unconfirmed",
    "prefetch_count",
    "global_prefetch_count",
];

const CONSUMERS: [&str; 8] = [
    "queue_name",
    "channel_pid",
    "consumer_tag",
    "ack_required",
    "prefetch_count",
    "active",
    "arguments",
    "activity_status",
];

/// The columns that are asked for; commas may join them.
///
/// # Errors
/// Code 64 with the unknown ones.
pub(super) fn columns(call: &Call, known: &[&str], default: &[&str]) -> Result<Vec<String>, Failure> {
    let asked: Vec<String> = call
        .args("column")
        .into_iter()
        .flat_map(|names| names.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(ToOwned::to_owned)
        .collect();
    if asked.is_empty() {
        return Ok(default.iter().map(ToString::to_string).collect());
    }
    let unknown: Vec<&str> = asked
        .iter()
        .map(String::as_str)
        .filter(|name| !known.contains(name))
        .collect();
    if unknown.is_empty() {
        return Ok(asked);
    }
    let text = format!("Info key(s) {} are not supported", unknown.join(","));
    Err(Failure::argument(exit::USAGE, text))
}

/// Rows whose cells a function finds; what it does not find is empty.
fn table(call: &Call, columns: &[String], rows: &[Value], find: fn(&Value, &str) -> Option<Value>) -> Output {
    let json = call.shape.format.is_json();
    let row = |row: &Value| {
        let cell = |column: &String| {
            let value = find(row, column).filter(|value| !value.is_null());
            match value.unwrap_or_else(|| "".into()) {
                Value::Object(_) if !json && column == "protocol" => "".into(),
                table @ Value::Object(_) if json => typed(&table),
                other => other,
            }
        };
        columns.iter().map(cell).collect()
    };
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    Table::streamed(&names, rows.iter().map(row).collect()).into()
}

/// A list of a vhost; one that does not exist has none, as in RabbitMQ's tools.
fn in_vhost(call: &Call, what: &str, query: &str) -> Result<Vec<Value>, Failure> {
    let path = format!("/{what}/{}{query}", segment(call.vhost()));
    match call.client.list(&path) {
        Err(failure) if failure.is_missing() => Ok(Vec::new()),
        other => other,
    }
}

/// A stable name without spaces for what has no process of its own here.
pub(super) fn pid(node: &str, name: &str, part: u64) -> String {
    // FNV-1a.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("<{node}.1.{hash}.{part}>")
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn queues(call: &mut Call) -> Result<Output, Failure> {
    let columns = columns(call, &QUEUES, &["name", "messages"])?;
    call.banner(format!("Timeout: {}.0 seconds ...", call.timeout().unwrap_or(60)));
    call.banner(format!("Listing queues for vhost {} ...", call.vhost()));
    let cheap = columns.iter().all(|column| CHEAP.contains(&column.as_str()));
    let query = if cheap {
        "?disable_stats=true&enable_queue_totals=true"
    } else {
        ""
    };
    let rows = if call.switch("offline") {
        Vec::new()
    } else {
        in_vhost(call, "queues", query)?
    };
    let mut output = table(call, &columns, &rows, |row, column| match column {
        "pid" => Some(
            pid(
                text(row, "node"),
                &format!("{}/{}", text(row, "vhost"), text(row, "name")),
                0,
            )
            .into(),
        ),
        "owner_pid" => {
            let owner = row.get("owner_pid_details")?;
            Some(pid(text(row, "node"), text(owner, "name"), 0).into())
        }
        "leader" => row.get("node").cloned(),
        "slave_pids" | "synchronised_slave_pids" => None,
        "arguments" => row.get("arguments").map(declared),
        other => row.get(other).cloned(),
    });
    // Quorum queues have no owner to be exclusive to.
    if let Output::Table(found) = &mut output
        && let Some(at) = columns.iter().position(|column| column == "exclusive")
    {
        for (row, queue) in found.rows.iter_mut().zip(&rows) {
            if text(queue, "type") == "quorum"
                && let Some(cell) = row.get_mut(at)
            {
                *cell = "".into();
            }
        }
    }
    Ok(output)
}

/// Arguments without the type that the HTTP API adds to those of classic queues.
fn declared(arguments: &Value) -> Value {
    let mut arguments = arguments.clone();
    if let Value::Object(table) = &mut arguments
        && table.get("x-queue-type").and_then(Value::as_str) == Some("classic")
    {
        table.remove("x-queue-type");
    }
    arguments
}

fn exchanges(call: &mut Call) -> Result<Output, Failure> {
    let columns = columns(call, &EXCHANGES, &["name", "type"])?;
    call.banner(format!("Listing exchanges for vhost {} ...", call.vhost()));
    let rows = in_vhost(call, "exchanges", "?disable_stats=true")?;
    Ok(table(call, &columns, &rows, |row, column| {
        row.get(column).cloned()
    }))
}

fn bindings(call: &mut Call) -> Result<Output, Failure> {
    let columns = columns(call, &BINDINGS, &BINDINGS)?;
    call.banner(format!("Listing bindings for vhost {}...", call.vhost()));
    let rows = in_vhost(call, "bindings", "")?;
    Ok(table(call, &columns, &rows, |row, column| match column {
        "source_name" => row.get("source").cloned(),
        "source_kind" => Some("exchange".into()),
        "destination_name" => row.get("destination").cloned(),
        "destination_kind" => row.get("destination_type").cloned(),
        other => row.get(other).cloned(),
    }))
}

fn connections(call: &mut Call) -> Result<Output, Failure> {
    let columns = columns(call, &CONNECTIONS, &["user", "peer_host", "peer_port", "state"])?;
    call.banner("Listing connections ...");
    let rows = call.client.list("/connections")?;
    if call.shape.format.is_json() {
        return Ok(table(call, &columns, &rows, |row, column| match column {
            "protocol" => Some(json!([0, 9, 1])),
            other => connection_cell(row, other),
        }));
    }
    Ok(table(call, &columns, &rows, |row, column| match column {
        "protocol" => Some("{0,9,1}".into()),
        other => connection_cell(row, other),
    }))
}

fn connection_cell(row: &Value, column: &str) -> Option<Value> {
    match column {
        "pid" => Some(pid(text(row, "node"), text(row, "name"), 0).into()),
        "connection_name" => row.get("user_provided_name").cloned(),
        other => row.get(other).cloned(),
    }
}

fn channels(call: &mut Call) -> Result<Output, Failure> {
    let default = ["pid", "user", "consumer_count", "messages_unacknowledged"];
    let columns = columns(call, &CHANNELS, &default)?;
    call.banner("Listing channels ...");
    let rows = call.client.list("/channels")?;
    Ok(table(call, &columns, &rows, |row, column| match column {
        "pid" => Some(
            channel_pid(
                text(row, "node"),
                row,
                text(row.get("connection_details")?, "name"),
            )
            .into(),
        ),
        "connection" => Some(pid(text(row, "node"), text(row.get("connection_details")?, "name"), 0).into()),
        other => row.get(other).cloned(),
    }))
}

fn channel_pid(node: &str, row: &Value, connection: &str) -> String {
    pid(
        node,
        connection,
        row.get("number").and_then(Value::as_u64).unwrap_or(0),
    )
}

fn consumers(call: &mut Call) -> Result<Output, Failure> {
    let (default, _) = CONSUMERS.split_at(7);
    let columns = columns(call, &CONSUMERS, default)?;
    call.banner(format!("Listing consumers in vhost {} ...", call.vhost()));
    let rows = in_vhost(call, "consumers", "")?;
    Ok(table(call, &columns, &rows, |row, column| match column {
        "queue_name" => row.get("queue")?.get("name").cloned(),
        "channel_pid" => {
            let channel = row.get("channel_details")?;
            Some(channel_pid(text(channel, "node"), channel, text(channel, "connection_name")).into())
        }
        other => row.get(other).cloned(),
    }))
}

fn unresponsive(call: &mut Call) -> Result<Output, Failure> {
    let columns = columns(call, &QUEUES, &["name"])?;
    call.banner(format!(
        "Listing unresponsive queues for vhost {} ...",
        call.vhost()
    ));
    // A queue is a lock here, not a process: whoever answers at all answers for all.
    call.client.get("/leveret/ping")?;
    Ok(table(call, &columns, &[], |_, _| None))
}
