//! Consumers (management-api 3.3, 4.8).

use serde_json::{Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    connections::host,
    json as amqp_json,
    list::plain,
    route::{Level, Route, get},
};
use crate::server::ConsumerView;

pub(super) static ROUTES: [Route; 2] = [
    get("/consumers", Level::Any, list_all, "All consumers"),
    get(
        "/consumers/{vhost}",
        Level::Vhost,
        list_all,
        "The consumers of a vhost",
    ),
];

/// How long a delivery may stay unacked by default, milliseconds. Strict clients want a number here.
const TIMEOUT_MS: u64 = 1_800_000;

fn list_all(call: &Call) -> Result<Answer, ApiError> {
    if call.query.is_true("disable_stats") {
        return Err(ApiError::bad_request(
            "Stats in management UI are disabled on this node",
        ));
    }
    let mut rows = Vec::new();
    for vhost in call.visible_vhosts() {
        rows.extend(call.handle.consumers(Some(&vhost)));
    }
    // A consumer whose connection ends just now has no user.
    rows.retain(|consumer| consumer.peer.is_some() && call.caller.sees_user(&consumer.user));
    let node = call.handle.node_name();
    Ok(plain(call, &rows, |consumer| render(consumer, &node)))
}

pub(super) fn render(consumer: &ConsumerView, node: &str) -> Value {
    let channel = consumer.peer.map_or(json!({}), |peer| {
        json!({
            "name": format!("{} ({})", consumer.connection_name, consumer.channel),
            "number": consumer.channel,
            "user": consumer.user,
            "connection_name": consumer.connection_name,
            "node": node,
            "peer_host": host(peer),
            "peer_port": peer.port(),
        })
    });
    json!({
        "consumer_tag": consumer.tag,
        "active": true,
        "activity_status": "up",
        "ack_required": !consumer.options.no_ack,
        "prefetch_count": consumer.options.prefetch,
        "exclusive": consumer.options.exclusive,
        "arguments": amqp_json::table(&consumer.arguments),
        "consumer_timeout": TIMEOUT_MS,
        "queue": {"name": &*consumer.queue, "vhost": &*consumer.vhost},
        "channel_details": channel,
    })
}
