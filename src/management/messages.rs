//! Publishing and fetching messages over HTTP (management-api 5).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::broker::{message::Message, permission::Verb};
use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    json as amqp_json,
    route::{Level, Route, post},
};
use crate::protocol::{field::ShortString, properties::Properties};
use crate::server::{Fetch, Fetched};

pub(super) static ROUTES: [Route; 2] = [
    post(
        "/exchanges/{vhost}/{name}/publish",
        Level::Vhost,
        publish,
        "Publishes a message",
    ),
    post(
        "/queues/{vhost}/{name}/get",
        Level::Vhost,
        fetch,
        "Fetches messages",
    ),
];

/// # Errors
/// 400 naming every key that is not there.
fn require(object: &Map<String, Value>, keys: &[&str]) -> Result<(), ApiError> {
    let missing: Vec<&str> = keys
        .iter()
        .filter(|key| !object.contains_key(**key))
        .copied()
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ApiError::keys_missing(&missing))
    }
}

fn required<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a Value, ApiError> {
    object.get(key).ok_or_else(|| ApiError::key_missing(key))
}

fn publish(call: &Call) -> Result<Answer, ApiError> {
    let vhost = call.vhost().unwrap_or("/");
    let exchange =
        super::exchanges::find(call).map_err(|_missing| ApiError::missing("exchange_not_found"))?;
    call.permit(Verb::Write, &exchange.name)?;
    let object = call.object()?;
    require(
        &object,
        &["routing_key", "properties", "payload", "payload_encoding"],
    )?;
    let key = required(&object, "routing_key")?;
    let key = key
        .as_str()
        .ok_or_else(|| ApiError::bad_request("routing_key_not_string"))?;
    if key.len() > 255 {
        return Err(ApiError::bad_request("routing_key is longer than 255 bytes"));
    }
    let properties = properties(required(&object, "properties")?)?;
    let payload = required(&object, "payload")?.as_str();
    let payload = payload.ok_or_else(|| ApiError::bad_request("payload_not_string"))?;
    let body = match required(&object, "payload_encoding")?.as_str() {
        Some("string") => payload.as_bytes().to_vec(),
        Some("base64") => STANDARD
            .decode(payload)
            .map_err(|_bytes| ApiError::bad_request("not_base64"))?,
        other => {
            let text = format!("unsupported_encoding: {}", other.unwrap_or("not a string"));
            return Err(ApiError::bad_request(text));
        }
    };
    if let Some(user) = &properties.user_id
        && user.as_bytes() != call.caller.name.as_bytes()
    {
        let text = format!(
            "406 PRECONDITION_FAILED - user_id property set to '{}' but authenticated user was '{}'",
            amqp_json::text(user.as_bytes()),
            call.caller.name
        );
        return Err(ApiError::bad_request(text));
    }
    let routed = call
        .handle
        .publish(vhost, &exchange.name, key, &properties, body)?;
    Ok(Answer::json(json!({"routed": routed})))
}

/// Properties of a message to publish.
fn properties(value: &Value) -> Result<Properties, ApiError> {
    let mut properties = Properties::default();
    let object = match value {
        Value::Object(object) => object,
        Value::Array(values) if values.is_empty() => return Ok(properties),
        _ => return Err(ApiError::bad_request("properties should be an object")),
    };
    for (name, value) in object {
        let text = || short(name, value);
        match name.as_str() {
            "content_type" => properties.content_type = Some(text()?),
            "content_encoding" => properties.content_encoding = Some(text()?),
            "headers" => {
                let headers = amqp_json::to_table(value).map_err(ApiError::bad_request)?;
                properties.headers = Some(headers);
            }
            "delivery_mode" => properties.delivery_mode = Some(octet(name, value)?),
            "priority" => properties.priority = Some(octet(name, value)?),
            "correlation_id" => properties.correlation_id = Some(text()?),
            "reply_to" => properties.reply_to = Some(text()?),
            "expiration" => properties.expiration = Some(text()?),
            "message_id" => properties.message_id = Some(text()?),
            "timestamp" => {
                properties.timestamp = Some(value.as_u64().ok_or_else(|| not("not_int", name))?);
            }
            "type" => properties.kind = Some(text()?),
            "user_id" => properties.user_id = Some(text()?),
            "app_id" => properties.app_id = Some(text()?),
            "cluster_id" => properties.cluster_id = Some(text()?),
            _ => {}
        }
    }
    Ok(properties)
}

fn not(what: &str, name: &str) -> ApiError {
    ApiError::bad_request(format!("{what}: {name}"))
}

fn short(name: &str, value: &Value) -> Result<ShortString, ApiError> {
    let text = value.as_str().ok_or_else(|| not("not_string", name))?;
    ShortString::try_from(text.as_bytes()).map_err(|_long| not("longer than 255 bytes", name))
}

fn octet(name: &str, value: &Value) -> Result<u8, ApiError> {
    value
        .as_u64()
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| not("not_int", name))
}

fn fetch(call: &Call) -> Result<Answer, ApiError> {
    super::queues::find(call)?;
    call.permit(Verb::Read, call.name("name"))?;
    let object = call.object()?;
    let count = match required(&object, "count")? {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64(),
    };
    let count = count.ok_or_else(|| not("not_int", "count"))?;
    let then = match (
        object.get("ackmode").or(object.get("ack_mode")),
        object.get("requeue"),
    ) {
        (Some(mode), _) => match mode.as_str() {
            Some("ack_requeue_true") => Fetch::Requeue,
            Some("reject_requeue_true") => Fetch::RejectRequeue,
            Some("ack_requeue_false") => Fetch::Remove,
            Some("reject_requeue_false") => Fetch::Reject,
            _ => return Err(ApiError::bad_request("unknown ackmode")),
        },
        (None, Some(Value::Bool(true))) => Fetch::Requeue,
        (None, Some(Value::Bool(false))) => Fetch::Remove,
        _ => return Err(ApiError::key_missing("ackmode")),
    };
    let base64 = match required(&object, "encoding")?.as_str() {
        Some("auto") => false,
        Some("base64") => true,
        _ => return Err(ApiError::bad_request("unsupported_encoding")),
    };
    let truncate = match object.get("truncate") {
        None => None,
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let vhost = call.vhost().unwrap_or("/");
    let fetched = call.handle.fetch(vhost, call.name("name"), count, then)?;
    let truncate = truncate.and_then(|bytes| usize::try_from(bytes).ok());
    let messages = fetched.iter().map(|message| render(message, base64, truncate));
    Ok(Answer::json(messages.collect()))
}

fn render(fetched: &Fetched, base64: bool, truncate: Option<usize>) -> Value {
    let message = &fetched.message;
    let (payload, encoding) = content(message, base64, truncate);
    json!({
        "payload_bytes": message.body_len(),
        "redelivered": fetched.redelivered,
        "exchange": amqp_json::text(message.exchange()),
        "routing_key": amqp_json::text(message.routing_key()),
        "message_count": fetched.remaining,
        "properties": show_properties(message.properties()),
        "payload": payload,
        "payload_encoding": encoding,
    })
}

/// A body as JSON can carry it, and its encoding: text where it is UTF-8.
pub(super) fn content(message: &Message, base64: bool, truncate: Option<usize>) -> (String, &'static str) {
    let body = body(message, truncate.unwrap_or(usize::MAX));
    match String::from_utf8(body) {
        Ok(text) if !base64 => (text, "string"),
        Ok(text) => (STANDARD.encode(text), "base64"),
        Err(bytes) => (STANDARD.encode(bytes.as_bytes()), "base64"),
    }
}

/// The first bytes of a message's body.
pub(super) fn body(message: &Message, max: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let mut add = |chunk: &[u8]| {
        let room = max.saturating_sub(body.len()).min(chunk.len());
        body.extend_from_slice(chunk.get(..room).unwrap_or_default());
    };
    match message.large_body() {
        None => add(message.inline_body()),
        Some(large) => large.chunks.iter().for_each(|chunk| add(chunk)),
    }
    body
}

/// Those properties that are set.
pub(super) fn show_properties(raw: &[u8]) -> Value {
    let Ok(properties) = Properties::decode(raw) else {
        return json!({});
    };
    let mut object = Map::new();
    let texts = [
        ("content_type", &properties.content_type),
        ("content_encoding", &properties.content_encoding),
        ("correlation_id", &properties.correlation_id),
        ("reply_to", &properties.reply_to),
        ("expiration", &properties.expiration),
        ("message_id", &properties.message_id),
        ("type", &properties.kind),
        ("user_id", &properties.user_id),
        ("app_id", &properties.app_id),
        ("cluster_id", &properties.cluster_id),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            object.insert(name.to_owned(), amqp_json::text(value.as_bytes()).into());
        }
    }
    let numbers = [
        ("delivery_mode", properties.delivery_mode.map(u64::from)),
        ("priority", properties.priority.map(u64::from)),
        ("timestamp", properties.timestamp),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            object.insert(name.to_owned(), value.into());
        }
    }
    if let Some(headers) = &properties.headers {
        object.insert("headers".to_owned(), amqp_json::table(headers));
    }
    Value::Object(object)
}
