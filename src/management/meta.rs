//! Small routes about the broker itself: who am I, versions, flags, logins; and those of features that are not there.

use serde_json::{Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    nodes::check_node,
    overview::RABBITMQ_VERSION,
    route::{Level, Route, delete, get, post, put},
};
use crate::server::Protocol;

pub(super) static ROUTES: [Route; 36] = [
    get("/whoami", Level::Any, whoami, "Who the credentials belong to"),
    get(
        "/version",
        Level::Nobody,
        version,
        "The version of RabbitMQ that this broker stands in for",
    ),
    get("/auth", Level::Nobody, auth, "Whether OAuth 2 is offered"),
    get(
        "/extensions",
        Level::Any,
        nothing,
        "Extensions of the user interface",
    ),
    get("/feature-flags", Level::Any, feature_flags, "Feature flags"),
    put(
        "/feature-flags/{name}/enable",
        Level::Admin,
        enable_flag,
        "Enables a feature flag",
    ),
    get("/deprecated-features", Level::Any, nothing, "Deprecated features"),
    get(
        "/deprecated-features/used",
        Level::Any,
        nothing,
        "Deprecated features in use",
    ),
    get(
        "/auth/attempts/{node}",
        Level::Monitor,
        attempts,
        "Logins by protocol",
    ),
    delete(
        "/auth/attempts/{node}",
        Level::Admin,
        reset_attempts,
        "Counts logins from 0 again",
    ),
    get(
        "/auth/attempts/{node}/source",
        Level::Monitor,
        nothing,
        "Logins by source, which are not tracked",
    ),
    delete(
        "/auth/attempts/{node}/source",
        Level::Admin,
        done,
        "Logins by source, which are not tracked",
    ),
    delete("/reset", Level::Admin, reset, "Forgets the samples of graphs"),
    delete(
        "/reset/{node}",
        Level::Admin,
        reset,
        "Forgets the samples of graphs",
    ),
    post(
        "/rebalance/queues",
        Level::Admin,
        done,
        "Nothing to rebalance on one node",
    ),
    get(
        "/shovels",
        Level::Monitor,
        nothing,
        "Shovels, which this broker does not have",
    ),
    get(
        "/shovels/{vhost}",
        Level::Monitor,
        nothing,
        "Shovels, which this broker does not have",
    ),
    get(
        "/shovels/vhost/{vhost}/{name}",
        Level::Monitor,
        absent,
        "A shovel, of which there is none",
    ),
    delete(
        "/shovels/vhost/{vhost}/{name}",
        Level::Monitor,
        absent,
        "A shovel, of which there is none",
    ),
    delete(
        "/shovels/vhost/{vhost}/{name}/restart",
        Level::Monitor,
        absent,
        "A shovel, of which there is none",
    ),
    delete(
        "/federation-links/vhost/{vhost}/{id}/{node}/restart",
        Level::Monitor,
        absent,
        "A federation link, of which there is none",
    ),
    get(
        "/federation-links",
        Level::Any,
        nothing,
        "Federation, which this broker does not have",
    ),
    get(
        "/federation-links/{vhost}",
        Level::Any,
        nothing,
        "Federation, which this broker does not have",
    ),
    get(
        "/federation-links/state/down",
        Level::Any,
        nothing,
        "Federation, which this broker does not have",
    ),
    get(
        "/federation-links/{vhost}/state/down",
        Level::Any,
        nothing,
        "Federation, which this broker does not have",
    ),
    get(
        "/stream/connections",
        Level::Any,
        nothing,
        "Stream protocol clients, of which there are none",
    ),
    get(
        "/stream/connections/{vhost}",
        Level::Any,
        nothing,
        "Stream protocol clients, of which there are none",
    ),
    get(
        "/stream/consumers",
        Level::Any,
        nothing,
        "Stream protocol clients, of which there are none",
    ),
    get(
        "/stream/consumers/{vhost}",
        Level::Any,
        nothing,
        "Stream protocol clients, of which there are none",
    ),
    get(
        "/stream/publishers",
        Level::Any,
        nothing,
        "Stream protocol clients, of which there are none",
    ),
    get(
        "/stream/publishers/{vhost}",
        Level::Any,
        nothing,
        "Stream protocol clients, of which there are none",
    ),
    get(
        "/traces",
        Level::Any,
        nothing,
        "Traces, which this broker does not write",
    ),
    get(
        "/traces/{vhost}",
        Level::Any,
        nothing,
        "Traces, which this broker does not write",
    ),
    get(
        "/trace-files",
        Level::Any,
        nothing,
        "Traces, which this broker does not write",
    ),
    post(
        "/login",
        Level::Nobody,
        login,
        "Checks a user's password, form-encoded",
    ),
    delete(
        "/login",
        Level::Nobody,
        done,
        "Nothing to forget: there are no sessions",
    ),
];

fn nothing(_: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(json!([])))
}

fn absent(_: &Call) -> Result<Answer, ApiError> {
    Err(ApiError::not_found())
}

fn done(_: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::no_content())
}

fn whoami(call: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(json!({
        "name": call.caller.name,
        "tags": call.caller.tags,
        "is_internal_user": true,
    })))
}

fn version(_: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(RABBITMQ_VERSION.into()))
}

fn auth(_: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(json!({"oauth_enabled": false})))
}

/// Flags that tools look for. `stream_queue` and `quorum_queue` would promise queue types that are not there yet.
const FLAGS: [(&str, &str); 24] = [
    (
        "classic_mirrored_queue_version",
        "Support setting version for classic mirrored queues",
    ),
    (
        "classic_queue_type_delivery_support",
        "Bug fix for classic queue deliveries",
    ),
    (
        "detailed_queues_endpoint",
        "Add a detailed queues HTTP API endpoint",
    ),
    (
        "direct_exchange_routing_v2",
        "Direct exchange routing implementation",
    ),
    ("feature_flags_v2", "Feature flags subsystem"),
    ("implicit_default_bindings", "Default bindings are now implicit"),
    ("khepri_db", "New metadata store"),
    ("listener_records_in_ets", "Store listener records in ETS"),
    ("maintenance_mode_status", "Maintenance mode status"),
    ("message_containers", "Message containers"),
    (
        "message_containers_deaths_v2",
        "Bug fix for dead letter cycle detection",
    ),
    ("quorum_queue_non_voters", "Non-voters of quorum queues"),
    ("rabbitmq_4.0.0", "Allows rolling upgrades from 3.13.x to 4.0.x"),
    ("rabbitmq_4.1.0", "Allows rolling upgrades to 4.1.x"),
    ("rabbitmq_4.2.0", "Allows rolling upgrades to 4.2.x"),
    ("rabbitmq_4.3.0", "Allows rolling upgrades to 4.3.x"),
    ("restart_streams", "Restarting streams"),
    ("stream_filtering", "Stream filtering"),
    (
        "stream_sac_coordinator_unblock_group",
        "Bug fix for single active consumers of streams",
    ),
    (
        "stream_single_active_consumer",
        "Single active consumer for streams",
    ),
    ("stream_update_config_command", "Streams can be updated"),
    ("tracking_records_in_ets", "Store tracking records in ETS"),
    (
        "user_limits",
        "Configure connection and channel limits for a user",
    ),
    (
        "virtual_host_metadata",
        "Virtual host metadata (description, tags, etc.)",
    ),
];

fn feature_flags(_: &Call) -> Result<Answer, ApiError> {
    let flags: Vec<Value> = FLAGS
        .iter()
        .map(|(name, about)| {
            json!({
                "name": name,
                "desc": about,
                "doc_url": "",
                "state": "enabled",
                "stability": "required",
                "require_level": "hard",
                "provided_by": "rabbit",
                "callbacks": [],
            })
        })
        .collect();
    Ok(Answer::json(flags.into()))
}

fn enable_flag(call: &Call) -> Result<Answer, ApiError> {
    let name = call.name("name");
    if name == "all" || FLAGS.iter().any(|(known, _)| *known == name) {
        Ok(Answer::no_content())
    } else {
        Err(ApiError::bad_request("unsupported"))
    }
}

fn attempts(call: &Call) -> Result<Answer, ApiError> {
    check_node(call)?;
    let row = |name: &str, protocol| {
        let (succeeded, failed) = call.handle.auth_attempts(protocol);
        json!({
            "protocol": name,
            "auth_attempts": succeeded + failed,
            "auth_attempts_succeeded": succeeded,
            "auth_attempts_failed": failed,
        })
    };
    Ok(Answer::json(json!([
        row("amqp091", Protocol::Amqp),
        row("http", Protocol::Http)
    ])))
}

fn reset_attempts(call: &Call) -> Result<Answer, ApiError> {
    check_node(call)?;
    call.handle.reset_auth_attempts();
    Ok(Answer::no_content())
}

fn reset(call: &Call) -> Result<Answer, ApiError> {
    if !call.name("node").is_empty() {
        check_node(call)?;
    }
    call.handle.reset_histories();
    Ok(Answer::no_content())
}

/// The form of the user interface. No session is made: the answer tells which header to send.
fn login(call: &Call) -> Result<Answer, ApiError> {
    use base64::{Engine, engine::general_purpose::STANDARD};

    let form = std::str::from_utf8(&call.body).map_err(|_bytes| ApiError::bad_request("not a form"))?;
    let form = super::call::Query::parse(form);
    let (Some(user), Some(password)) = (form.get("username"), form.get("password")) else {
        return Err(ApiError::key_missing("username"));
    };
    let caller = super::auth::login(&call.handle, user, password.as_bytes(), call.peer)?;
    if !caller.is_management() {
        return Err(ApiError::not_authorised("Not management user"));
    }
    let token = STANDARD.encode(format!("{user}:{password}"));
    Ok(Answer::json(json!({
        "token": {"type": "basic", "value": token},
        "user": {"name": caller.name, "tags": caller.tags, "is_internal_user": true},
    })))
}
