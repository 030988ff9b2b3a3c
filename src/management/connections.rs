//! Connections (management-api 3.3, 4.6).

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    channels, json as amqp_json,
    list::{list, plain, single},
    route::{Level, Route, delete, get},
    samples::{self, Field, Range},
};
use crate::protocol::field::FieldValue;
use crate::server::{ConnectionView, Subject};

pub(super) static ROUTES: [Route; 8] = [
    get("/connections", Level::Any, list_all, "All connections"),
    get(
        "/vhosts/{vhost}/connections",
        Level::Vhost,
        of_vhost,
        "The connections of a vhost",
    ),
    get(
        "/connections/username/{user}",
        Level::Any,
        of_user,
        "The connections of a user",
    ),
    delete(
        "/connections/username/{user}",
        Level::Any,
        close_of_user,
        "Closes the connections of a user",
    ),
    get("/connections/{connection}", Level::Any, show, "One connection"),
    delete(
        "/connections/{connection}",
        Level::Any,
        close,
        "Closes a connection",
    ),
    get(
        "/connections/{connection}/channels",
        Level::Any,
        channels_of,
        "The channels of a connection",
    ),
    get(
        "/connections/{connection}/sessions",
        Level::Any,
        sessions,
        "AMQP 1.0 sessions, which this broker does not have",
    ),
];

static OCTETS: [Field; 2] = [
    Field {
        name: "recv_oct",
        places: &[0],
    },
    Field {
        name: "send_oct",
        places: &[1],
    },
];

fn visible(call: &Call) -> Vec<ConnectionView> {
    let mut rows = call.handle.connections();
    rows.retain(|connection| call.caller.sees_user(&connection.user));
    rows
}

fn list_all(call: &Call) -> Result<Answer, ApiError> {
    let range = call.ranges()?.data_rates;
    let mut rows = visible(call);
    if let Some(vhost) = call.vhost() {
        rows.retain(|connection| connection.vhost == vhost);
    }
    list(call, rows, |row| &row.name, |row| render(call, row, range))
}

fn of_vhost(call: &Call) -> Result<Answer, ApiError> {
    let range = call.ranges()?.data_rates;
    let mut rows = visible(call);
    rows.retain(|connection| Some(connection.vhost.as_str()) == call.vhost());
    Ok(plain(call, &rows, |row| render(call, row, range)))
}

fn of_user(call: &Call) -> Result<Answer, ApiError> {
    let user = call.name("user");
    let mut rows = call.handle.connections();
    rows.retain(|connection| connection.user == user && call.caller.sees_user(user));
    let node = call.handle.node_name();
    list(
        call,
        rows,
        |row| &row.name,
        |row| json!({"name": row.name, "node": node, "user": row.user, "vhost": row.vhost}),
    )
}

/// The text that the client is told.
fn reason(call: &Call) -> String {
    call.headers
        .get("x-reason")
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.is_empty())
        .unwrap_or("Closed via management plugin")
        .to_owned()
}

fn close_of_user(call: &Call) -> Result<Answer, ApiError> {
    let user = call.name("user");
    if !call.caller.is_admin() && call.caller.name != user {
        return Err(ApiError::not_authorised("User not authorised to access object"));
    }
    call.handle
        .close_connections(&reason(call), |connection| connection.user == user);
    Ok(Answer::no_content())
}

/// The connection in the path, if the caller may see it.
fn find(call: &Call) -> Result<ConnectionView, ApiError> {
    let name = call.name("connection");
    let mut rows = call.handle.connections();
    let found = rows
        .iter()
        .position(|row| row.name == name)
        .map(|at| rows.swap_remove(at));
    let connection = found.ok_or_else(ApiError::not_found)?;
    if call.caller.sees_user(&connection.user) {
        Ok(connection)
    } else {
        Err(ApiError::not_authorised("User not authorised to access object"))
    }
}

fn show(call: &Call) -> Result<Answer, ApiError> {
    let connection = find(call)?;
    let range = call.ranges()?.data_rates;
    Ok(single(call, render(call, &connection, range)))
}

fn close(call: &Call) -> Result<Answer, ApiError> {
    let connection = find(call)?;
    if !call.caller.is_admin() && call.caller.name != connection.user {
        return Err(ApiError::not_authorised("User not authorised to access object"));
    }
    call.handle
        .close_connections(&reason(call), |other| other.id == connection.id);
    Ok(Answer::no_content())
}

fn channels_of(call: &Call) -> Result<Answer, ApiError> {
    let connection = find(call)?;
    channels::plain_list(call, |row| row.id == connection.id)
}

fn sessions(call: &Call) -> Result<Answer, ApiError> {
    find(call)?;
    Err(ApiError::bad_request("connection does not use AMQP 1.0"))
}

/// An address without the brackets and prefixes of IPv6.
pub(super) fn host(address: SocketAddr) -> String {
    address.ip().to_canonical().to_string()
}

fn render(call: &Call, connection: &ConnectionView, range: Option<Range>) -> Value {
    let mut properties = amqp_json::table(&connection.properties);
    if let Value::Object(properties) = &mut properties {
        // Strict clients expect text there, whatever the peer sent.
        for name in ["connection_name", "platform", "product", "version"] {
            if let Some(value) = properties.get_mut(name)
                && !value.is_string()
            {
                *value = value.to_string().into();
            }
        }
        if let Some(Value::Object(capabilities)) = properties.get_mut("capabilities") {
            capabilities.retain(|_, value| value.is_boolean());
        }
    }
    let mut object: Map<String, Value> = [
        ("name", json!(connection.name)),
        ("node", call.handle.node_name().into()),
        ("protocol", "AMQP 0-9-1".into()),
        ("user", json!(connection.user)),
        ("user_who_performed_action", json!(connection.user)),
        ("vhost", json!(connection.vhost)),
        ("type", "network".into()),
        ("connected_at", connection.connected_at.into()),
        ("client_properties", properties),
        ("state", "running".into()),
        ("channels", connection.channels.into()),
        ("channel_max", connection.channel_max.into()),
        ("frame_max", connection.frame_max.into()),
        ("timeout", connection.heartbeat_s.into()),
        ("host", host(connection.here).into()),
        ("port", connection.here.port().into()),
        ("peer_host", host(connection.peer).into()),
        ("peer_port", connection.peer.port().into()),
        ("auth_mechanism", json!(connection.mechanism)),
        ("ssl", false.into()),
        ("ssl_protocol", Value::Null),
        ("ssl_key_exchange", Value::Null),
        ("ssl_cipher", Value::Null),
        ("ssl_hash", Value::Null),
        ("peer_cert_subject", Value::Null),
        ("peer_cert_issuer", Value::Null),
        ("peer_cert_validity", Value::Null),
        ("recv_cnt", connection.received_packets.into()),
        ("send_cnt", connection.sent_packets.into()),
        ("send_pend", connection.pending_octets.into()),
        ("reductions", 0.into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if let Some(FieldValue::LongString(name)) = connection.properties.get("connection_name") {
        object.insert("user_provided_name".to_owned(), amqp_json::text(name).into());
    }
    let row = [connection.received_octets, connection.sent_octets];
    let subject = Subject::Connection(connection.id);
    object.extend(samples::with_details(
        &call.handle,
        &subject,
        &OCTETS,
        &row,
        range,
    ));
    Value::Object(object)
}
