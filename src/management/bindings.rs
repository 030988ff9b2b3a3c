//! Bindings, and the key that names one in a path (management-api 4.9).

use std::collections::HashSet;

use axum::http::{StatusCode, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::BytesMut;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::broker::{
    definition::{BindingDefinition, Destination, Name},
    permission::Verb,
};
use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    json as amqp_json,
    list::{plain, single},
    route::{Level, Route, decode, delete, get, post},
};
use crate::server::Handle;

pub(super) static ROUTES: [Route; 11] = [
    get("/bindings", Level::Vhost, list_all, "All bindings"),
    get(
        "/bindings/{vhost}",
        Level::Vhost,
        list_all,
        "The bindings of a vhost",
    ),
    get(
        "/queues/{vhost}/{name}/bindings",
        Level::Vhost,
        of_queue,
        "Bindings to a queue",
    ),
    get(
        "/bindings/{vhost}/e/{source}/q/{destination}",
        Level::Vhost,
        between_queue,
        "Bindings from an exchange to a queue",
    ),
    get(
        "/bindings/{vhost}/e/{source}/e/{destination}",
        Level::Vhost,
        between_exchange,
        "Bindings from an exchange to an exchange",
    ),
    post(
        "/bindings/{vhost}/e/{source}/q/{destination}",
        Level::Vhost,
        bind_queue,
        "Binds a queue",
    ),
    post(
        "/bindings/{vhost}/e/{source}/e/{destination}",
        Level::Vhost,
        bind_exchange,
        "Binds an exchange",
    ),
    delete(
        "/bindings/{vhost}/e/{source}/q/{destination}/{props}",
        Level::Vhost,
        unbind_queue,
        "Removes a binding of a queue",
    ),
    delete(
        "/bindings/{vhost}/e/{source}/e/{destination}/{props}",
        Level::Vhost,
        unbind_exchange,
        "Removes a binding of an exchange",
    ),
    get(
        "/bindings/{vhost}/e/{source}/q/{destination}/{props}",
        Level::Vhost,
        one_queue,
        "One binding to a queue",
    ),
    get(
        "/bindings/{vhost}/e/{source}/e/{destination}/{props}",
        Level::Vhost,
        one_exchange,
        "One binding to an exchange",
    ),
];

/// Octets of a new binding's body.
const BODY_MAX: usize = 5000;

/// A binding list in its default order.
pub(super) fn answer(call: &Call, wanted: impl FnMut(&BindingDefinition) -> bool) -> Answer {
    let mut rows = call.handle.bindings(call.vhost(), wanted);
    rows.retain(|binding| call.caller.sees_vhost(&call.handle, &binding.vhost));
    rows.sort_by_cached_key(|binding| {
        let (kind, name) = destination(binding);
        let key = properties_key(binding);
        (
            binding.vhost.clone(),
            binding.source.clone(),
            kind,
            name.clone(),
            binding.routing_key.clone(),
            key,
        )
    });
    plain(call, &rows, render)
}

fn destination(binding: &BindingDefinition) -> (&'static str, &Name) {
    match &binding.destination {
        Destination::Queue(name) => ("queue", name),
        Destination::Exchange(name) => ("exchange", name),
    }
}

pub(super) fn render(binding: &BindingDefinition) -> Value {
    let (kind, name) = destination(binding);
    json!({
        "source": &*binding.source,
        "vhost": &*binding.vhost,
        "destination": &**name,
        "destination_type": kind,
        "routing_key": &*binding.routing_key,
        "arguments": amqp_json::table(&binding.arguments),
        "properties_key": properties_key(binding),
    })
}

fn list_all(call: &Call) -> Result<Answer, ApiError> {
    Ok(answer(call, |_| true))
}

fn of_queue(call: &Call) -> Result<Answer, ApiError> {
    let queue = super::queues::find(call)?;
    let wanted = Destination::Queue(queue.definition().name.clone());
    Ok(answer(call, |binding| binding.destination == wanted))
}

fn to_queue(call: &Call) -> Destination {
    Destination::Queue(call.name("destination").into())
}

fn to_exchange(call: &Call) -> Destination {
    Destination::Exchange(call.exchange("destination").into())
}

fn between_queue(call: &Call) -> Result<Answer, ApiError> {
    between(call, &to_queue(call))
}

fn between_exchange(call: &Call) -> Result<Answer, ApiError> {
    between(call, &to_exchange(call))
}

/// Both ends must exist.
fn check_ends(call: &Call, destination: &Destination) -> Result<(), ApiError> {
    let vhost = call.vhost().unwrap_or("/");
    let there = match destination {
        Destination::Queue(name) => call.handle.queue(vhost, name).is_some(),
        Destination::Exchange(name) => call.handle.exchange(vhost, name).is_some(),
    };
    if there && call.handle.exchange(vhost, call.exchange("source")).is_some() {
        Ok(())
    } else {
        Err(ApiError::not_found())
    }
}

fn between(call: &Call, destination: &Destination) -> Result<Answer, ApiError> {
    check_ends(call, destination)?;
    let source = call.exchange("source");
    Ok(answer(call, |binding| {
        &*binding.source == source && binding.destination == *destination
    }))
}

fn one_queue(call: &Call) -> Result<Answer, ApiError> {
    let binding = find(call, &to_queue(call))?;
    Ok(single(call, render(&binding)))
}

fn one_exchange(call: &Call) -> Result<Answer, ApiError> {
    let binding = find(call, &to_exchange(call))?;
    Ok(single(call, render(&binding)))
}

fn bind_queue(call: &Call) -> Result<Answer, ApiError> {
    bind(call, to_queue(call))
}

fn bind_exchange(call: &Call) -> Result<Answer, ApiError> {
    bind(call, to_exchange(call))
}

/// Answers 201 also when the binding is there already, with the way to it relative to the request's path.
fn bind(call: &Call, destination: Destination) -> Result<Answer, ApiError> {
    if call.body.len() > BODY_MAX {
        return Err(ApiError::too_large());
    }
    let object = call.object()?;
    let key = amqp_json::text_field(&object, "routing_key")?.unwrap_or("");
    if key.len() > 255 {
        return Err(ApiError::bad_request("routing_key is longer than 255 bytes"));
    }
    let binding = BindingDefinition {
        vhost: call.vhost().unwrap_or("/").into(),
        source: call.exchange("source").into(),
        destination,
        routing_key: key.into(),
        arguments: amqp_json::arguments(&object)?,
    };
    permit(call, &binding)?;
    let (_, name) = self::destination(&binding);
    let location = format!("{}/{}", quote(name), quote(&properties_key(&binding)));
    call.handle.bind(binding)?;
    let created = Answer::no_content().status(StatusCode::CREATED);
    Ok(created.header(header::LOCATION, &location))
}

/// Binding writes to the destination and reads from the source.
fn permit(call: &Call, binding: &BindingDefinition) -> Result<(), ApiError> {
    let (_, name) = destination(binding);
    call.permit(Verb::Write, name)?;
    call.permit(Verb::Read, &binding.source)
}

fn unbind_queue(call: &Call) -> Result<Answer, ApiError> {
    let binding = find(call, &to_queue(call))?;
    permit(call, &binding)?;
    call.handle.unbind(&binding)?;
    Ok(Answer::no_content())
}

fn unbind_exchange(call: &Call) -> Result<Answer, ApiError> {
    let binding = find(call, &to_exchange(call))?;
    permit(call, &binding)?;
    call.handle.unbind(&binding)?;
    Ok(Answer::no_content())
}

/// The binding that the path's last segment names.
pub(super) fn find(call: &Call, destination: &Destination) -> Result<BindingDefinition, ApiError> {
    check_ends(call, destination)?;
    let key = Key::parse(call.name("props"))?;
    let source = call.exchange("source");
    let found = call.handle.bindings(call.vhost(), |binding| {
        &*binding.source == source && binding.destination == *destination && key.names(binding)
    });
    found.into_iter().next().ok_or_else(ApiError::not_found)
}

/// What names a binding between two given objects: its routing key and, if it has arguments, their hash.
pub(super) fn properties_key(binding: &BindingDefinition) -> String {
    let key = quote(&binding.routing_key);
    if binding.arguments.is_empty() {
        return if key.is_empty() { "~".to_owned() } else { key };
    }
    format!("{key}~{}", quote(&hash(binding)))
}

/// Stable over restarts: Terraform keeps it.
fn hash(binding: &BindingDefinition) -> String {
    let mut encoded = BytesMut::new();
    binding.arguments.canonical().encode(&mut encoded);
    let digest = Sha256::digest(&encoded);
    URL_SAFE_NO_PAD.encode(digest.get(..9).unwrap_or(&digest))
}

/// Query-style: letters, digits, `.`, `-` and `_` stay, a space is a plus, everything else `%XX`.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// A properties key taken apart.
struct Key {
    routing_key: String,
    hash: Option<String>,
}

impl Key {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let unquote = |part: &str| decode(&part.replace('+', " ")).map_err(ApiError::bad_request);
        let parts: Vec<&str> = text.split('~').collect();
        Ok(match *parts {
            // What older clients send for a binding without a key.
            ["null" | "undefined"] => Self {
                routing_key: String::new(),
                hash: None,
            },
            [key] | [key, ""] => Self {
                routing_key: unquote(key)?,
                hash: None,
            },
            [key, hash] => Self {
                routing_key: unquote(key)?,
                hash: Some(unquote(hash)?),
            },
            _ => {
                let text = format!("bad properties key '{text}'");
                return Err(ApiError::bad_request(text));
            }
        })
    }

    fn names(&self, binding: &BindingDefinition) -> bool {
        *binding.routing_key == *self.routing_key
            && match &self.hash {
                None => binding.arguments.is_empty(),
                Some(wanted) => !binding.arguments.is_empty() && hash(binding) == *wanted,
            }
    }
}

/// What bindings bind is there, or will be: new exchanges and queues are known by vhost and name.
///
/// # Errors
/// 400 naming the first end that is missing.
pub(super) fn check_new(
    handle: &Handle,
    bindings: &[BindingDefinition],
    new_exchanges: &HashSet<(&str, &str)>,
    new_queues: &HashSet<(&str, &str)>,
) -> Result<(), ApiError> {
    let exchange = |vhost: &str, name: &str| {
        new_exchanges.contains(&(vhost, name)) || handle.exchange(vhost, name).is_some()
    };
    for binding in bindings {
        let vhost = &*binding.vhost;
        let (kind, name, known) = match &binding.destination {
            Destination::Queue(name) => (
                "queue",
                name,
                new_queues.contains(&(vhost, &**name)) || handle.queue(vhost, name).is_some(),
            ),
            Destination::Exchange(name) => ("exchange", name, exchange(vhost, name)),
        };
        let missing = if !exchange(vhost, &binding.source) && !predeclared(&binding.source) {
            Some(("exchange", &binding.source))
        } else {
            (!known && !predeclared(name)).then_some((kind, name))
        };
        if let Some((kind, name)) = missing {
            return Err(ApiError::bad_request(format!(
                "no {kind} '{name}' in vhost '{vhost}'"
            )));
        }
    }
    Ok(())
}

/// A new vhost has it from the start.
fn predeclared(exchange: &str) -> bool {
    exchange.is_empty() || exchange.starts_with("amq.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::field::{FieldTable, FieldValue};

    fn binding(key: &str, arguments: FieldTable) -> BindingDefinition {
        BindingDefinition {
            vhost: "/".into(),
            source: "x".into(),
            destination: Destination::Queue("q".into()),
            routing_key: key.into(),
            arguments,
        }
    }

    #[test]
    fn a_key_is_quoted_and_finds_its_binding_again() {
        let mut arguments = FieldTable::new();
        arguments.insert("x", FieldValue::I64(1));
        for (key, expected) in [
            ("", "~"),
            ("a.*.#", "a.%2A.%23"),
            ("a b~c", "a+b%7Ec"),
            ("é", "%C3%A9"),
        ] {
            let plain = binding(key, FieldTable::new());
            assert_eq!(properties_key(&plain), expected);
            assert!(Key::parse(expected).unwrap().names(&plain), "{key}");
            let full = binding(key, arguments.clone());
            let name = properties_key(&full);
            assert!(Key::parse(&name).unwrap().names(&full), "{name}");
            assert!(!Key::parse(&name).unwrap().names(&plain), "{name}");
        }
        assert!(Key::parse("a~b~c").is_err());
        assert!(Key::parse("null").unwrap().names(&binding("", FieldTable::new())));
    }
}
