//! Queues (management-api 3.4, 4.4).

use serde_json::{Map, Value, json};

use crate::broker::permission::Verb;
use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    consumers, json as amqp_json,
    list::{list_unsorted, single},
    queue_order,
    route::{Level, Route, delete, get, post, put},
    samples::{self, LENGTHS, OF_QUEUE, Ranges},
};
use crate::server::{History, QueueLook, QueueNow, QueueSpec, now_ms};

pub(super) static ROUTES: [Route; 13] = [
    get("/queues", Level::Vhost, list_all, "All queues"),
    get(
        "/queues/detailed",
        Level::Vhost,
        list_detailed,
        "All queues with every field",
    ),
    get("/queues/{vhost}", Level::Vhost, list_all, "The queues of a vhost"),
    get("/queues/{vhost}/{name}", Level::Vhost, show, "One queue"),
    put(
        "/queues/{vhost}/{name}",
        Level::Vhost,
        declare,
        "Declares a queue",
    ),
    delete("/queues/{vhost}/{name}", Level::Vhost, remove, "Deletes a queue"),
    delete(
        "/queues/{vhost}/{name}/contents",
        Level::Vhost,
        purge,
        "Drops a queue's ready messages",
    ),
    post(
        "/queues/{vhost}/{name}/actions",
        Level::Admin,
        act,
        "No actions remain",
    ),
    get(
        "/queues/quorum/{vhost}/{name}/status",
        Level::Vhost,
        quorum_status,
        "The members of a quorum queue",
    ),
    post(
        "/queues/quorum/{vhost}/{name}/replicas/add",
        Level::Admin,
        replicas,
        "Members of quorum queues cannot be changed on one node",
    ),
    delete(
        "/queues/quorum/{vhost}/{name}/replicas/delete",
        Level::Admin,
        replicas,
        "Members of quorum queues cannot be changed on one node",
    ),
    post(
        "/queues/quorum/replicas/on/{node}/grow",
        Level::Admin,
        grow,
        "Nothing to grow on one node",
    ),
    delete(
        "/queues/quorum/replicas/on/{node}/shrink",
        Level::Admin,
        replicas,
        "Members of quorum queues cannot be changed on one node",
    ),
];

/// How much of a queue is shown.
#[derive(Clone, Copy)]
struct Shape {
    stats: bool,
    totals: bool,
    detailed: bool,
    ranges: Ranges,
}

impl Shape {
    fn of(call: &Call, detailed: bool) -> Result<Self, ApiError> {
        let stats = !call.query.is_true("disable_stats");
        Ok(Self {
            stats,
            totals: call.query.is_true("enable_queue_totals"),
            detailed: detailed || call.query.get("columns").is_some(),
            ranges: call.ranges()?,
        })
    }
}

fn list_all(call: &Call) -> Result<Answer, ApiError> {
    list_queues(call, false)
}

fn list_detailed(call: &Call) -> Result<Answer, ApiError> {
    list_queues(call, true)
}

fn list_queues(call: &Call, detailed: bool) -> Result<Answer, ApiError> {
    let shape = Shape::of(call, detailed)?;
    let vhosts = call.visible_vhosts();
    let rows = vhosts.iter().map(|vhost| call.handle.queues_unsorted(vhost));
    list_unsorted(
        call,
        queue_order::placed(rows),
        |row| &row.queue.definition().name,
        queue_order::by_name,
        |row, path| queue_order::key(&call.handle, &row.queue, path),
        |row| Value::Object(render(call, &row.queue, shape)),
    )
}

pub(super) fn find(call: &Call) -> Result<QueueLook, ApiError> {
    let vhost = call.vhost().unwrap_or("/");
    call.handle
        .queue(vhost, call.name("name"))
        .ok_or_else(ApiError::not_found)
}

fn show(call: &Call) -> Result<Answer, ApiError> {
    let queue = find(call)?;
    let mut object = render(call, &queue, Shape::of(call, true)?);
    let consumers = call.handle.queue_consumers(&queue);
    let node = call.handle.node_name();
    let consumers: Vec<Value> = consumers
        .iter()
        .map(|consumer| consumers::render(consumer, &node))
        .collect();
    object.insert("consumer_details".to_owned(), consumers.into());
    object.insert("incoming".to_owned(), json!([]));
    object.insert("deliveries".to_owned(), json!([]));
    Ok(single(call, Value::Object(object)))
}

fn declare(call: &Call) -> Result<Answer, ApiError> {
    let object = call.object()?;
    let node = amqp_json::text_field(&object, "node")?;
    if node.is_some_and(|node| node != call.handle.node_name()) {
        return Err(ApiError::bad_request("the node is not a member of this cluster"));
    }
    call.permit(Verb::Configure, call.name("name"))?;
    let spec = QueueSpec {
        durable: amqp_json::flag(&object, "durable", false)?,
        auto_delete: amqp_json::flag(&object, "auto_delete", false)?,
        arguments: amqp_json::arguments(&object)?,
    };
    let (vhost, name) = (
        call.vhost().unwrap_or("/"),
        amqp_json::new_name(call.name("name"))?,
    );
    if call.handle.queue(vhost, name).is_none() {
        call.permit_argument(&spec.arguments, "x-dead-letter-exchange", name)?;
    }
    Ok(Answer::put(call.handle.declare_queue(vhost, name, spec)?))
}

fn remove(call: &Call) -> Result<Answer, ApiError> {
    let queue = find(call)?;
    let definition = queue.definition();
    call.permit(Verb::Configure, &definition.name)?;
    call.handle.delete_queue(
        &definition.vhost,
        &definition.name,
        call.query.is_true("if-unused"),
        call.query.is_true("if-empty"),
    )?;
    Ok(Answer::no_content())
}

fn purge(call: &Call) -> Result<Answer, ApiError> {
    let queue = find(call)?;
    let definition = queue.definition();
    call.permit(Verb::Read, &definition.name)?;
    call.handle.purge_queue(&definition.vhost, &definition.name)?;
    Ok(Answer::no_content())
}

fn act(call: &Call) -> Result<Answer, ApiError> {
    find(call)?;
    let object = call.object()?;
    match object.get("action") {
        None => Err(ApiError::key_missing("action")),
        Some(action) => Err(ApiError::bad_request(format!("unknown action {action}"))),
    }
}

fn quorum_status(call: &Call) -> Result<Answer, ApiError> {
    let queue = find(call)?;
    if queue_type(&queue) != "quorum" {
        return Err(ApiError::unavailable("not_a_quorum_queue"));
    }
    Ok(Answer::json(json!([{
        "Node Name": call.handle.node_name(),
        "Raft State": "leader",
        "Membership": "voter",
        "Last Log Index": 0,
        "Last Written": 0,
        "Last Applied": 0,
        "Commit Index": 0,
        "Snapshot Index": 0,
        "Term": 1,
        "Machine Version": 1,
    }])))
}

fn replicas(_: &Call) -> Result<Answer, ApiError> {
    Err(ApiError::bad_request("there is only one node"))
}

fn grow(_: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::no_content())
}

/// The queue's type: what it was declared as.
pub(super) fn queue_type(queue: &QueueLook) -> &str {
    let arguments = &queue.definition().arguments;
    arguments
        .get("x-queue-type")
        .and_then(|value| std::str::from_utf8(value.as_str_bytes()?).ok())
        .filter(|name| !name.is_empty() && *name != "undefined")
        .unwrap_or("classic")
}

/// The arguments as they are shown: with the type, whether it was sent or not, as in RabbitMQ since 4.0.
pub(super) fn arguments(queue: &QueueLook) -> Value {
    let mut arguments = amqp_json::table(&queue.definition().arguments);
    if let Value::Object(arguments) = &mut arguments {
        arguments
            .entry("x-queue-type")
            .or_insert_with(|| queue_type(queue).into());
    }
    arguments
}

fn render(call: &Call, queue: &QueueLook, shape: Shape) -> Map<String, Value> {
    let definition = queue.definition();
    let kind = queue_type(queue);
    let node = call.handle.node_name();
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    set("name", json!(&*definition.name));
    set("vhost", json!(&*definition.vhost));
    set("type", kind.into());
    set("durable", definition.durable.into());
    set("auto_delete", definition.auto_delete.into());
    set("exclusive", queue.is_exclusive().into());
    set("arguments", arguments(queue));
    set("node", node.as_str().into());
    set("state", "running".into());
    let policy = queue.policy();
    set(
        "policy",
        json!(policy.as_ref().and_then(|policy| policy.policy.as_deref())),
    );
    set(
        "operator_policy",
        json!(
            policy
                .as_ref()
                .and_then(|policy| policy.operator_policy.as_deref())
        ),
    );
    set(
        "effective_policy_definition",
        policy.map_or(json!({}), |policy| json!(policy.definition)),
    );
    set("internal", false.into());
    set("storage_version", 2.into());
    if queue.is_exclusive() {
        set("owner_pid_details", owner(call, queue));
    }
    if shape.stats {
        statistics(call, queue, shape, &mut object);
    } else if shape.totals {
        let lengths = queue.lengths();
        for (name, value) in [
            ("messages", lengths.ready + lengths.unacked),
            ("messages_ready", lengths.ready),
            ("messages_unacknowledged", lengths.unacked),
        ] {
            object.insert(name.to_owned(), value.into());
        }
    }
    object
}

fn owner(call: &Call, queue: &QueueLook) -> Value {
    let connection = queue.owner().and_then(|id| call.handle.connection(id));
    connection.map_or(json!({}), |connection| {
        json!({
            "name": connection.name,
            "peer_host": super::connections::host(connection.peer),
            "peer_port": connection.peer.port(),
        })
    })
}

/// When anything last changed in a queue that has been quiet since; a queue that never saw a message has been quiet as long
/// as the broker runs, or as it exists.
fn idle_since(call: &Call, queue: &QueueLook) -> Option<String> {
    const QUIET_MS: u64 = 10_000;
    let changed = call.handle.with_history(&queue.subject(), History::changed_ms);
    match changed {
        Some(changed) if changed + QUIET_MS > now_ms() => None,
        Some(changed) => Some(amqp_json::moment(changed)),
        None => Some(amqp_json::moment(call.handle.started_at())),
    }
}

fn statistics(call: &Call, queue: &QueueLook, shape: Shape, object: &mut Map<String, Value>) {
    let now = queue.state();
    let counts = queue.counts();
    let subject = queue.subject();
    let row = samples::row(&counts, now.lengths.ready, now.lengths.unacked);
    object.extend(samples::with_details(
        &call.handle,
        &subject,
        &LENGTHS,
        &row,
        shape.ranges.lengths,
    ));
    let stats = samples::message_stats(&call.handle, &subject, &OF_QUEUE, &counts, shape.ranges.msg_rates);
    if let Some(stats) = stats {
        object.insert("message_stats".to_owned(), stats);
    }
    let (persistent, persistent_bytes) = queue.persistent(&now);
    let bytes = now.ready_bytes + now.unacked_bytes;
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    set("messages_scheduled", queue.scheduled().into());
    set("consumers", now.consumers.into());
    set(
        "consumer_capacity",
        json!(if now.consumers > 0 { 1.0 } else { 0.0 }),
    );
    set(
        "consumer_utilisation",
        json!(if now.consumers > 0 { 1.0 } else { 0.0 }),
    );
    set("exclusive_consumer_tag", json!(now.exclusive_consumer));
    set("single_active_consumer_tag", json!(now.single_active));
    set("head_message_timestamp", json!(now.head_timestamp));
    for (name, value) in [
        ("memory", now.memory_bytes),
        ("messages_ram", now.resident + now.lengths.unacked),
        ("messages_ready_ram", now.resident),
        ("messages_unacknowledged_ram", now.lengths.unacked),
        ("messages_persistent", persistent),
        ("message_bytes", bytes),
        ("message_bytes_ready", now.ready_bytes),
        ("message_bytes_unacknowledged", now.unacked_bytes),
        ("message_bytes_ram", now.resident_bytes + now.unacked_bytes),
        ("message_bytes_persistent", persistent_bytes),
        (
            "messages_paged_out",
            now.lengths.ready.saturating_sub(now.resident),
        ),
        (
            "message_bytes_paged_out",
            now.ready_bytes.saturating_sub(now.resident_bytes),
        ),
    ] {
        set(name, value.into());
    }
    placed(call, queue, &now, shape, object);
}

/// Where the queue is, and since when it is quiet.
fn placed(call: &Call, queue: &QueueLook, now: &QueueNow, shape: Shape, object: &mut Map<String, Value>) {
    let node = call.handle.node_name();
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    if queue_type(queue) == "quorum" {
        set("leader", node.as_str().into());
        set("messages_dlx", now.dead_letters.0.into());
        set("message_bytes_dlx", now.dead_letters.1.into());
        set("open_files", json!({ node.as_str(): 0 }));
        set("single_active_consumer_ctag", json!(now.single_active));
        set("single_active_consumer_pid", Value::Null);
    }
    set("reductions", 0.into());
    set("reductions_details", json!({"rate": 0.0}));
    if shape.detailed
        && let Some(since) = idle_since(call, queue)
    {
        set("idle_since", since.into());
    }
    if shape.detailed || queue_type(queue) == "quorum" {
        set("members", json!([node.as_str()]));
        set("online", json!([node.as_str()]));
    }
}
