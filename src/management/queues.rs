//! Queues (management-api 3.4, 4.4).

use serde_json::{Map, Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    consumers, json as amqp_json,
    list::{list, single},
    route::{Level, Route, get},
    samples::{self, LENGTHS, OF_QUEUE, Ranges},
};
use crate::server::QueueLook;

pub(super) static ROUTES: [Route; 4] = [
    get("/queues", Level::Vhost, list_all, "All queues"),
    get(
        "/queues/detailed",
        Level::Vhost,
        list_detailed,
        "All queues with every field",
    ),
    get("/queues/{vhost}", Level::Vhost, list_all, "The queues of a vhost"),
    get("/queues/{vhost}/{name}", Level::Vhost, show, "One queue"),
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
    let mut rows = Vec::new();
    for vhost in call.visible_vhosts() {
        rows.extend(call.handle.queues(Some(&vhost)));
    }
    list(
        call,
        rows,
        |queue| &queue.definition().name,
        |queue| Value::Object(render(call, queue, shape)),
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

/// The queue's type: what it was declared as.
pub(super) fn queue_type(queue: &QueueLook) -> String {
    queue
        .definition()
        .arguments
        .get("x-queue-type")
        .and_then(|value| value.as_str_bytes())
        .filter(|name| !name.is_empty() && *name != b"undefined")
        .map_or("classic".to_owned(), amqp_json::text)
}

fn render(call: &Call, queue: &QueueLook, shape: Shape) -> Map<String, Value> {
    let definition = queue.definition();
    let kind = queue_type(queue);
    let node = call.handle.node_name();
    let mut arguments = amqp_json::table(&definition.arguments);
    if let Value::Object(arguments) = &mut arguments {
        // RabbitMQ shows the type there since 4.0, whether it was sent or not.
        arguments
            .entry("x-queue-type")
            .or_insert_with(|| kind.as_str().into());
    }
    let mut object = Map::new();
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    set("name", json!(&*definition.name));
    set("vhost", json!(&*definition.vhost));
    set("type", kind.into());
    set("durable", definition.durable.into());
    set("auto_delete", definition.auto_delete.into());
    set("exclusive", queue.is_exclusive().into());
    set("arguments", arguments);
    set("node", node.as_str().into());
    set("state", "running".into());
    set("policy", Value::Null);
    set("operator_policy", Value::Null);
    set("effective_policy_definition", json!({}));
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
    let total = now.lengths.ready + now.lengths.unacked;
    let persistent = if queue.definition().durable { total } else { 0 };
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
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
    set("single_active_consumer_tag", Value::Null);
    set("messages_ram", total.into());
    set("messages_ready_ram", now.lengths.ready.into());
    set("messages_unacknowledged_ram", now.lengths.unacked.into());
    set("messages_persistent", persistent.into());
    set("message_bytes_unacknowledged", now.unacked_bytes.into());
    set("head_message_timestamp", Value::Null);
    set("reductions", 0.into());
    set("reductions_details", json!({"rate": 0.0}));
    if shape.detailed {
        set("members", json!([call.handle.node_name()]));
        set("online", json!([call.handle.node_name()]));
    }
}
