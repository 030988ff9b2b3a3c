//! Channels (management-api 3.3, 4.7).

use serde_json::{Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    connections::host,
    consumers,
    list::{list, plain, single},
    route::{Level, Route, get},
    samples::{self, OF_ALL, Range},
};
use crate::server::{ChannelView, ConnectionView, Subject};

pub(super) static ROUTES: [Route; 3] = [
    get("/channels", Level::Any, list_all, "All channels"),
    get(
        "/vhosts/{vhost}/channels",
        Level::Vhost,
        of_vhost,
        "The channels of a vhost",
    ),
    get("/channels/{channel}", Level::Any, show, "One channel"),
];

/// A channel with its name, which is not stored anywhere.
struct Row(String, ChannelView);

fn rows(call: &Call, wanted: impl Fn(&ConnectionView) -> bool) -> Vec<Row> {
    call.handle
        .channels(|connection| wanted(connection) && call.caller.sees_user(&connection.user))
        .into_iter()
        .map(|channel| Row(channel.name(), channel))
        .collect()
}

fn list_all(call: &Call) -> Result<Answer, ApiError> {
    let range = call.ranges()?.msg_rates;
    let rows = rows(call, |row| call.vhost().is_none_or(|vhost| row.vhost == vhost));
    list(call, rows, |row| &row.0, |row| render(call, row, range))
}

fn of_vhost(call: &Call) -> Result<Answer, ApiError> {
    if call.query.is_true("disable_stats") {
        return Err(ApiError::bad_request(
            "Stats in management UI are disabled on this node",
        ));
    }
    plain_list(call, |row| Some(row.vhost.as_str()) == call.vhost())
}

pub(super) fn plain_list(call: &Call, wanted: impl Fn(&ConnectionView) -> bool) -> Result<Answer, ApiError> {
    let range = call.ranges()?.msg_rates;
    Ok(plain(call, &rows(call, wanted), |row| render(call, row, range)))
}

fn show(call: &Call) -> Result<Answer, ApiError> {
    let name = call.name("channel");
    let all = call
        .handle
        .channels(|connection| name.starts_with(&connection.name));
    let channel = all.into_iter().find(|channel| channel.name() == name);
    let channel = channel.ok_or_else(ApiError::not_found)?;
    if !call.caller.sees_user(&channel.user) {
        return Err(ApiError::not_authorised("User not authorised to access object"));
    }
    let row = Row(channel.name(), channel);
    let mut object = render(call, &row, call.ranges()?.msg_rates);
    let node = call.handle.node_name();
    let consumers = call.handle.consumers(Some(&row.1.vhost));
    let consumers: Vec<Value> = consumers
        .iter()
        .filter(|consumer| consumer.connection == row.1.connection && consumer.channel == row.1.number)
        .map(|consumer| consumers::render(consumer, &node))
        .collect();
    if let Value::Object(object) = &mut object {
        object.insert("consumer_details".to_owned(), consumers.into());
        object.insert("publishes".to_owned(), json!([]));
        object.insert("deliveries".to_owned(), json!([]));
    }
    Ok(single(call, object))
}

fn render(call: &Call, Row(name, channel): &Row, range: Option<Range>) -> Value {
    let mut object = json!({
        "number": channel.number,
        "name": name,
        "node": call.handle.node_name(),
        "vhost": channel.vhost,
        "user": channel.user,
        "user_who_performed_action": channel.user,
        "state": "running",
        "confirm": channel.confirm,
        "transactional": channel.transactional,
        "consumer_count": channel.consumers,
        "prefetch_count": channel.prefetch,
        "global_prefetch_count": 0,
        "messages_unacknowledged": channel.unacked,
        "messages_unconfirmed": channel.unconfirmed,
        "messages_uncommitted": 0,
        "acks_uncommitted": 0,
        "pending_raft_commands": 0,
        "cached_segments": 0,
        "reductions": 0,
        "connection_details": {
            "name": channel.connection_name,
            "peer_host": host(channel.peer),
            "peer_port": channel.peer.port(),
        },
    });
    let subject = Subject::Channel(channel.connection, channel.number);
    let stats = samples::message_stats(&call.handle, &subject, &OF_ALL, &channel.counts, range);
    if let (Some(stats), Value::Object(object)) = (stats, &mut object) {
        object.insert("message_stats".to_owned(), stats);
    }
    object
}
