//! What only this broker's own tools ask for, below `/api/leveret`: the program itself, its settings and its log, and
//! answers that one question of a command line needs in one piece.

use serde_json::{Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    call::{Call, block_on},
    json as amqp_json,
    process::Process,
    route::{Level, Route, get, post, put},
};
use crate::server::{Watermark, now_ms};

/// Where in the log to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFrom {
    /// So many lines before its end.
    Last(usize),
    /// With the line of this number.
    Number(u64),
}

/// What only the program can do, because its settings, its log and its end are its own.
pub trait Operator: Send + Sync {
    /// Asks the program to end as if it had been told by a signal.
    fn stop(&self);
    /// Every setting: `key`, `value` and `origin`.
    fn settings(&self) -> Value;
    /// The filter of the log.
    fn log_level(&self) -> String;
    /// Changes it until the broker ends.
    ///
    /// # Errors
    /// What is wrong with the filter.
    fn set_log_level(&self, filter: &str) -> Result<(), String>;
    /// Lines of the log, and the number of the one that will be next.
    fn log_lines(&self, from: LogFrom) -> (Vec<String>, u64);
    /// Reads the settings again and takes over what can change while the broker runs, all or nothing. Tells what was
    /// taken over and what needs a restart.
    ///
    /// # Errors
    /// What is wrong with the settings; nothing was changed.
    fn reload(&self) -> Result<Value, String>;
}

pub(super) static ROUTES: [Route; 20] = [
    get(
        "/config/effective",
        Level::Admin,
        effective,
        "The settings in force, a line each",
    ),
    get(
        "/leveret/status",
        Level::Monitor,
        status,
        "What a status report needs, in one piece",
    ),
    get(
        "/leveret/ping",
        Level::Nobody,
        ping,
        "Whether the program answers, and whether it serves clients",
    ),
    post("/leveret/stop", Level::Admin, stop, "Ends the broker"),
    post(
        "/leveret/app/stop",
        Level::Admin,
        stop_app,
        "Closes all clients and takes no more",
    ),
    post(
        "/leveret/app/start",
        Level::Admin,
        start_app,
        "Takes clients again",
    ),
    post(
        "/leveret/app/reset",
        Level::Admin,
        reset,
        "Deletes everything; the application must be stopped",
    ),
    post(
        "/leveret/listeners/suspend",
        Level::Admin,
        suspend,
        "Refuses new clients",
    ),
    post(
        "/leveret/listeners/resume",
        Level::Admin,
        resume,
        "Takes new clients again",
    ),
    put(
        "/leveret/limits/memory",
        Level::Admin,
        limit_memory,
        "The memory that raises the alarm, until the broker ends",
    ),
    put(
        "/leveret/limits/disk",
        Level::Admin,
        limit_disk,
        "The free disk that raises the alarm, until the broker ends",
    ),
    get(
        "/leveret/log-level",
        Level::Monitor,
        log_level,
        "The log's filter",
    ),
    put(
        "/leveret/log-level",
        Level::Admin,
        set_log_level,
        "The log's filter, until the broker ends",
    ),
    get(
        "/leveret/log",
        Level::Monitor,
        log,
        "The last lines of the log (`lines`), or those from a number on (`from`), and the number of the next",
    ),
    get(
        "/leveret/environment",
        Level::Admin,
        environment,
        "Every setting, its value and its origin",
    ),
    post(
        "/leveret/reload",
        Level::Admin,
        reload,
        "Reads the settings again",
    ),
    get(
        "/leveret/tracing/{vhost}",
        Level::Monitor,
        tracing,
        "Whether the firehose of a vhost is on",
    ),
    put(
        "/leveret/tracing/{vhost}",
        Level::Admin,
        set_tracing,
        "Switches the firehose of a vhost",
    ),
    post(
        "/leveret/backup",
        Level::Admin,
        backup,
        "Copies the store into a new directory; over the control socket only",
    ),
    post(
        "/leveret/authenticate",
        Level::Admin,
        authenticate,
        "Whether this is the user's password",
    ),
];

/// In the words of RabbitMQ's tools.
pub(super) const APP_STOPPED: &str = "this command requires the 'rabbit' app to be running on the target node. \
                                      Start it with 'rabbitmqctl start_app'.";

/// Routes that answer between `stop_app` and `start_app`: those that look at the program or steer it.
pub(super) fn serves_when_stopped(path: &str) -> bool {
    path.starts_with("/leveret/")
        || path.starts_with("/health/")
        || path.starts_with("/nodes")
        || matches!(
            path,
            "/feature-flags" | "/whoami" | "/version" | "/auth" | "/overview"
        )
}

fn operator(call: &Call) -> Result<&dyn Operator, ApiError> {
    let operator = call.settings.operator.as_deref();
    operator.ok_or_else(|| ApiError::unavailable("this broker is part of another program"))
}

fn ping(call: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(json!({
        "node": call.handle.node_name(),
        "running": call.handle.is_app_running() && !call.handle.is_stopping(),
        "version": env!("CARGO_PKG_VERSION"),
    })))
}

fn status(call: &Call) -> Result<Answer, ApiError> {
    let handle = &call.handle;
    let process = Process::now(&call.settings.data_dir);
    let alarms = handle.alarms();
    let options = handle.alarm_options();
    let uptime_ms = now_ms().saturating_sub(handle.started_at());
    let listeners: Vec<Value> = call
        .settings
        .listeners
        .iter()
        .map(|(protocol, address)| {
            json!({
                "protocol": protocol,
                "interface": interface(*address),
                "port": address.port(),
                "purpose": purpose(protocol),
                "node": handle.node_name(),
            })
        })
        .collect();
    Ok(Answer::json(json!({
        "node": handle.node_name(),
        "cluster_name": handle.cluster_name(),
        "running": handle.is_app_running(),
        "version": env!("CARGO_PKG_VERSION"),
        "rabbitmq_version": super::overview::RABBITMQ_VERSION,
        "pid": std::process::id(),
        "uptime": uptime_ms / 1000,
        "processors": process.processors,
        "threads": process.threads,
        "data_directory": call.settings.data_dir.display().to_string(),
        "config_files": call.settings.config_file.iter().collect::<Vec<_>>(),
        "log_files": ["<stderr>"],
        "memory_alarm": alarms.raised.memory,
        "disk_alarm": alarms.raised.disk,
        "memory_used": process.resident_bytes,
        "memory_limit": alarms.memory_limit,
        "memory_watermark": watermark(options.memory_high_watermark),
        "disk_free": process.disk_free_bytes,
        "disk_free_limit": alarms.disk_free_limit,
        "open_files": process.open_files,
        "open_files_max": process.open_files_max,
        "connections": handle.connection_count(),
        "channels": handle.channel_count(),
        "queues": handle.queues(None).len(),
        "vhosts": handle.vhost_names().len(),
        "listeners": listeners,
    })))
}

/// As RabbitMQ's tools write an address.
fn interface(address: std::net::SocketAddr) -> String {
    match address {
        std::net::SocketAddr::V4(address) => address.ip().to_string(),
        std::net::SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

fn purpose(protocol: &str) -> &'static str {
    match protocol {
        "amqp" => "AMQP 0-9-1",
        "http" => "HTTP API",
        "http/prometheus" => "Prometheus exporter API over HTTP",
        _ => "other",
    }
}

fn watermark(watermark: Watermark) -> Value {
    match watermark {
        Watermark::Relative(share) => json!({"relative": share}),
        Watermark::Bytes(bytes) => json!({"absolute": bytes}),
    }
}

fn stop(call: &Call) -> Result<Answer, ApiError> {
    operator(call)?.stop();
    Ok(Answer::no_content())
}

fn stop_app(call: &Call) -> Result<Answer, ApiError> {
    tokio::runtime::Handle::current().block_on(call.handle.stop_app());
    Ok(Answer::no_content())
}

fn start_app(call: &Call) -> Result<Answer, ApiError> {
    call.handle.start_app().map_err(ApiError::unavailable)?;
    Ok(Answer::no_content())
}

fn reset(call: &Call) -> Result<Answer, ApiError> {
    if call.handle.is_app_running() {
        return Err(ApiError::bad_request("Mnesia is still running on this node"));
    }
    block_on(call.handle.reset())?;
    Ok(Answer::no_content())
}

fn suspend(call: &Call) -> Result<Answer, ApiError> {
    tokio::runtime::Handle::current().block_on(call.handle.suspend_listeners());
    Ok(Answer::no_content())
}

fn resume(call: &Call) -> Result<Answer, ApiError> {
    if call.handle.is_app_running() {
        call.handle.resume_listeners().map_err(ApiError::unavailable)?;
    }
    Ok(Answer::no_content())
}

/// The text under this key of the body.
fn text(call: &Call, key: &str) -> Result<String, ApiError> {
    let object = call.object()?;
    let text = amqp_json::text_field(&object, key)?;
    text.map(ToOwned::to_owned)
        .ok_or_else(|| ApiError::key_missing(key))
}

fn limit_memory(call: &Call) -> Result<Answer, ApiError> {
    let limit = text(call, "limit")?.parse().map_err(ApiError::bad_request)?;
    call.handle.set_memory_high_watermark(limit);
    Ok(Answer::no_content())
}

fn limit_disk(call: &Call) -> Result<Answer, ApiError> {
    let limit = text(call, "limit")?.parse().map_err(ApiError::bad_request)?;
    call.handle.set_disk_free_limit(limit);
    Ok(Answer::no_content())
}

fn log_level(call: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(json!({"level": operator(call)?.log_level()})))
}

fn set_log_level(call: &Call) -> Result<Answer, ApiError> {
    let level = text(call, "level")?;
    operator(call)?
        .set_log_level(&level)
        .map_err(ApiError::bad_request)?;
    Ok(Answer::no_content())
}

/// Lines of the log when nothing is said.
const LOG_LINES: usize = 50;

fn log(call: &Call) -> Result<Answer, ApiError> {
    let number = |key: &str| {
        let text = call.query.get(key);
        let parsed = text.map(|text| text.parse::<u64>());
        parsed
            .transpose()
            .map_err(|_no_number| ApiError::bad_request(format!("{key} is a number")))
    };
    let from = match (number("from")?, number("lines")?) {
        (Some(number), _) => LogFrom::Number(number),
        (None, Some(count)) => LogFrom::Last(usize::try_from(count).unwrap_or(usize::MAX)),
        (None, None) => LogFrom::Last(LOG_LINES),
    };
    let (lines, next) = operator(call)?.log_lines(from);
    Ok(Answer::json(json!({"lines": lines, "next": next})))
}

fn environment(call: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(operator(call)?.settings()))
}

/// A line for each setting, secrets left out.
fn effective(call: &Call) -> Result<Answer, ApiError> {
    let settings = operator(call)?.settings();
    let lines = settings.as_array().into_iter().flatten().filter_map(|setting| {
        let key = setting.get("key")?.as_str()?;
        Some(format!("{key} = {}\n", setting.get("value")?))
    });
    Ok(Answer::text("text/plain; charset=utf-8", lines.collect()))
}

fn reload(call: &Call) -> Result<Answer, ApiError> {
    let told = operator(call)?.reload().map_err(ApiError::bad_request)?;
    Ok(Answer::json(told))
}

fn tracing(call: &Call) -> Result<Answer, ApiError> {
    let on = call.handle.is_traced(call.vhost().unwrap_or("/"));
    let on = on.ok_or_else(|| ApiError::missing("vhost_not_found"))?;
    Ok(Answer::json(json!({"on": on})))
}

fn set_tracing(call: &Call) -> Result<Answer, ApiError> {
    let object = call.object()?;
    let on = amqp_json::flag(&object, "on", true)?;
    if call.handle.set_tracing(call.vhost().unwrap_or("/"), on) {
        Ok(Answer::no_content())
    } else {
        Err(ApiError::missing("vhost_not_found"))
    }
}

fn authenticate(call: &Call) -> Result<Answer, ApiError> {
    let (user, password) = (text(call, "user")?, text(call, "password")?);
    match call.handle.login(&user, password.as_bytes(), call.peer) {
        Ok(_) => Ok(Answer::no_content()),
        Err(_) => Err(ApiError::bad_request("invalid credentials")),
    }
}

/// Only for the operator of this machine: a user of the API must not make the broker write where it likes.
fn backup(call: &Call) -> Result<Answer, ApiError> {
    if !call.caller.local {
        return Err(ApiError::not_authorised("only over the control socket"));
    }
    let directory = text(call, "directory")?;
    call.handle
        .backup(std::path::Path::new(&directory))
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(Answer::no_content())
}
