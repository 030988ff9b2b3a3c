//! The one node there is (management-api 4.2, 4.3).

use serde_json::{Map, Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    list::{plain, single},
    overview::{self, CHURN, ERLANG_VERSION, RABBITMQ_VERSION},
    process::Process,
    route::{Level, Route, get},
    samples,
};
use crate::server::{Subject, now_ms};
use crate::storage::StoreStats;

pub(super) static ROUTES: [Route; 8] = [
    get("/nodes", Level::Monitor, list_all, "All nodes: this one"),
    get("/nodes/{node}", Level::Monitor, show, "One node"),
    get(
        "/nodes/{node}/memory",
        Level::Monitor,
        memory,
        "Where memory went, bytes",
    ),
    get(
        "/nodes/{node}/memory/relative",
        Level::Monitor,
        memory_relative,
        "Where memory went, percent",
    ),
    get(
        "/nodes/{node}/memory/ets",
        Level::Monitor,
        ets,
        "There are no ETS tables here",
    ),
    get(
        "/nodes/{node}/memory/ets/relative",
        Level::Monitor,
        ets,
        "There are no ETS tables here",
    ),
    get(
        "/nodes/{node}/memory/ets/{filter}",
        Level::Monitor,
        ets,
        "There are no ETS tables here",
    ),
    get(
        "/nodes/{node}/memory/ets/{filter}/relative",
        Level::Monitor,
        ets,
        "There are no ETS tables here",
    ),
];

/// Tasks have no limit; what is shown instead.
const TASKS_MAX: u64 = 1_048_576;

fn list_all(call: &Call) -> Result<Answer, ApiError> {
    let node = render(call)?;
    Ok(plain(call, &[node], Clone::clone))
}

/// The path's node must be this one.
pub(super) fn check_node(call: &Call) -> Result<(), ApiError> {
    if call.name("node") == call.handle.node_name() {
        Ok(())
    } else {
        Err(ApiError::not_found())
    }
}

fn show(call: &Call) -> Result<Answer, ApiError> {
    check_node(call)?;
    let mut node = render(call)?;
    if let Value::Object(node) = &mut node {
        if call.query.is_true("memory") {
            node.insert("memory".to_owned(), breakdown(call));
        }
        if call.query.is_true("binary") {
            node.insert("binary".to_owned(), json!({}));
        }
    }
    Ok(single(call, node))
}

fn memory(call: &Call) -> Result<Answer, ApiError> {
    check_node(call)?;
    Ok(Answer::json(json!({"memory": breakdown(call)})))
}

/// Kinds of memory that strict clients want all of. What we know is filled in, the rest is 0.
const KINDS: [&str; 25] = [
    "connection_readers",
    "connection_writers",
    "connection_channels",
    "connection_other",
    "queue_procs",
    "quorum_queue_procs",
    "quorum_queue_dlx_procs",
    "stream_queue_procs",
    "stream_queue_replica_reader_procs",
    "stream_queue_coordinator_procs",
    "plugins",
    "metadata_store",
    "other_proc",
    "metrics",
    "mgmt_db",
    "mnesia",
    "quorum_ets",
    "metadata_store_ets",
    "other_ets",
    "binary",
    "msg_index",
    "code",
    "atom",
    "allocated_unused",
    "reserved_unallocated",
];

fn kinds(call: &Call) -> (Map<String, Value>, u64) {
    let process = Process::now(&call.settings.data_dir);
    let store = call.handle.store_stats();
    let mut kinds: Map<String, Value> = KINDS.iter().map(|kind| ((*kind).to_owned(), 0.into())).collect();
    let sent: usize = call
        .handle
        .connections()
        .iter()
        .map(|row| row.pending_octets)
        .sum();
    kinds.insert("connection_writers".to_owned(), sent.into());
    kinds.insert("binary".to_owned(), store.pending_bytes.into());
    kinds.insert("msg_index".to_owned(), store.memtable_bytes.into());
    let known = store.pending_bytes + store.memtable_bytes + sent as u64;
    kinds.insert(
        "other_system".to_owned(),
        process.resident_bytes.saturating_sub(known).into(),
    );
    (kinds, process.resident_bytes)
}

fn breakdown(call: &Call) -> Value {
    let (mut kinds, resident) = kinds(call);
    kinds.insert("strategy".to_owned(), "rss".into());
    kinds.insert(
        "total".to_owned(),
        json!({"rss": resident, "allocated": resident, "erlang": resident}),
    );
    Value::Object(kinds)
}

fn memory_relative(call: &Call) -> Result<Answer, ApiError> {
    check_node(call)?;
    let (kinds, resident) = kinds(call);
    let mut kinds: Map<String, Value> = kinds
        .into_iter()
        .map(|(kind, bytes)| {
            let percent = bytes.as_u64().unwrap_or(0) * 100 / resident.max(1);
            (kind, percent.into())
        })
        .collect();
    kinds.insert("total".to_owned(), 100.into());
    Ok(Answer::json(json!({"memory": kinds})))
}

fn ets(call: &Call) -> Result<Answer, ApiError> {
    check_node(call)?;
    Ok(Answer::json(json!({"ets_tables_memory": "no_tables"})))
}

fn render(call: &Call) -> Result<Value, ApiError> {
    let handle = &call.handle;
    let range = call.ranges()?.node_stats;
    let process = Process::now(&call.settings.data_dir);
    let store = handle.store_stats();
    let alarms = handle.alarms();
    let mut node = json!({
        "name": handle.node_name(),
        "type": "disc",
        "running": true,
        "being_drained": handle.is_stopping(),
        "uptime": now_ms().saturating_sub(handle.started_at()),
        "run_queue": 0,
        "processors": process.processors,
        "os_pid": std::process::id().to_string(),
        "fd_total": process.open_files_max,
        "proc_total": TASKS_MAX,
        "sockets_total": process.open_files_max,
        "mem_limit": alarms.memory_limit,
        "mem_alarm": alarms.raised.memory,
        "mem_calculation_strategy": "rss",
        "disk_free_limit": alarms.disk_free_limit,
        "disk_free_alarm": alarms.raised.disk,
        "rates_mode": "basic",
        "enabled_plugins": ["rabbitmq_management", "rabbitmq_prometheus"],
        "applications": [{
            "name": "leveret",
            "description": "Leveret",
            "version": env!("CARGO_PKG_VERSION"),
        }],
        "auth_mechanisms": mechanisms(),
        "exchange_types": overview::exchange_types(),
        "contexts": overview::contexts(call),
        "partitions": [],
        "config_files": [],
        "log_files": [],
        "db_dir": call.settings.data_dir.display().to_string(),
        "net_ticktime": 60,
        "rabbitmq_version": RABBITMQ_VERSION,
        "erlang_version": ERLANG_VERSION,
        "cluster_links": [],
        "ra_open_file_metrics": {},
        "metrics_gc_queue_length": garbage(),
    });
    if let Value::Object(object) = &mut node {
        gauges(object, &process, &store, handle.connection_count() as u64);
        object.extend(samples::with_details(
            handle,
            &Subject::Churn,
            &CHURN,
            &handle.churn(),
            range,
        ));
    }
    Ok(node)
}

/// Numbers with details, those that only Erlang has as 0.
fn gauges(object: &mut Map<String, Value>, process: &Process, store: &StoreStats, sockets: u64) {
    let gauges = [
        ("proc_used", process.threads),
        ("sockets_used", sockets),
        ("fd_used", process.open_files),
        ("mem_used", process.resident_bytes),
        ("disk_free", process.disk_free_bytes),
        ("context_switches", process.context_switches),
        ("gc_num", 0),
        ("gc_bytes_reclaimed", 0),
        ("io_sync_count", store.syncs),
        ("io_write_bytes", store.bytes),
        ("io_write_count", store.groups),
        ("io_read_count", store.pages_read),
        ("io_read_bytes", 0),
        ("io_seek_count", 0),
        ("io_reopen_count", 0),
        ("mnesia_ram_tx_count", 0),
        ("mnesia_disk_tx_count", 0),
        ("msg_store_read_count", 0),
        ("msg_store_write_count", store.messages),
        ("queue_index_read_count", 0),
        ("queue_index_write_count", 0),
    ];
    for (name, value) in gauges {
        object.insert(name.to_owned(), value.into());
        object.insert(format!("{name}_details"), json!({"rate": 0.0}));
    }
}

fn mechanisms() -> Value {
    json!([
        {"name": "PLAIN", "description": "SASL PLAIN authentication mechanism", "enabled": true},
        {"name": "AMQPLAIN", "description": "QPid AMQPLAIN mechanism", "enabled": true},
    ])
}

fn garbage() -> Value {
    json!({
        "connection_closed": 0,
        "channel_closed": 0,
        "consumer_deleted": 0,
        "exchange_deleted": 0,
        "queue_deleted": 0,
        "vhost_deleted": 0,
        "node_node_deleted": 0,
        "channel_consumer_deleted": 0,
    })
}
