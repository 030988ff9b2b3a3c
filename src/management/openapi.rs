//! The description of the API that the broker serves (`/api/openapi.json`), made from the same tables that answer: what is
//! described is what is served. And a page for people.

use axum::http::Method;
use serde_json::{Map, Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    api::TABLES,
    call::Call,
    overview::RABBITMQ_VERSION,
    route::{Level, Route, get, name_of, parts},
};

pub(super) static ROUTES: [Route; 2] = [
    get("/openapi.json", Level::Nobody, document, "This description"),
    get("/index.html", Level::Nobody, page, "A page with all routes"),
];

type Described = (&'static str, &'static str);

/// Parameters that lists take.
const LIST: [Described; 7] = [
    ("page", "Page number, from 1"),
    ("page_size", "Rows of a page, up to 500"),
    ("name", "Only rows whose name contains this"),
    ("use_regex", "`name` is a regular expression"),
    ("sort", "A field to sort by"),
    ("sort_reverse", "Descending"),
    ("columns", "Only these fields, separated by commas"),
];
/// Parameters of a page of messages.
const MESSAGES: [Described; 12] = [
    ("from", "Position of the first message: `next` of the page before"),
    ("limit", "Messages of a page, up to 500"),
    ("truncate", "Bytes shown of a body"),
    ("exchange", "Only messages published to it"),
    ("routing_key", "Only messages with this key"),
    ("header.NAME", "Only messages whose header has this value"),
    ("property.NAME", "Only messages whose property has this value"),
    ("text", "Only messages with this in their body"),
    ("bytes_min", "Only messages with so long a body"),
    ("bytes_max", "Only messages with no longer a body"),
    ("redelivered", "`true` or `false`"),
    ("state", "`ready` or `waiting`"),
];

/// Parameters of a query. Those of lists are taken wherever an object or a list is read.
fn parameters(route: &Route) -> &'static [Described] {
    match (route.method.as_str(), route.path) {
        ("GET", "/leveret/queues/{vhost}/{name}/messages") => &MESSAGES,
        ("GET", "/leveret/queues/{vhost}/{name}/unacked") => &[("limit", "Deliveries, up to 500")],
        ("GET", _) => &LIST,
        ("DELETE", "/queues/{vhost}/{name}") => &[
            ("if-empty", "`true`: only without messages"),
            ("if-unused", "`true`: only without consumers"),
        ],
        ("DELETE", "/exchanges/{vhost}/{name}") => &[("if-unused", "`true`: only without bindings")],
        ("POST", "/definitions" | "/definitions/{vhost}") => {
            &[("dry_run", "`true`: only tells the difference")]
        }
        _ => &[],
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Nobody => "no login",
        Level::Any => "any management user",
        Level::Vhost => "users with access to the vhost",
        Level::Policy => "policymakers",
        Level::GlobalParameter => "policymakers",
        Level::Monitor => "monitoring",
        Level::Admin => "administrators",
    }
}

/// The bodies that changes need, by their keys; what is not here takes an object with optional keys, or nothing.
fn required(route: &Route) -> &'static [Described] {
    match (route.method.as_str(), route.path) {
        ("POST", "/exchanges/{vhost}/{name}/publish") => &[
            ("routing_key", "string"),
            ("properties", "object"),
            ("payload", "string"),
            ("payload_encoding", "string"),
        ],
        ("POST", "/queues/{vhost}/{name}/get") => &[
            ("count", "integer"),
            ("ackmode", "string"),
            ("encoding", "string"),
        ],
        ("PUT", "/users/{user}") => &[("tags", "string")],
        ("PUT", "/permissions/{vhost}/{user}") => {
            &[("configure", "string"), ("write", "string"), ("read", "string")]
        }
        ("PUT", "/topic-permissions/{vhost}/{user}") => {
            &[("exchange", "string"), ("write", "string"), ("read", "string")]
        }
        ("PUT", "/policies/{vhost}/{name}" | "/operator-policies/{vhost}/{name}") => {
            &[("pattern", "string"), ("definition", "object")]
        }
        (
            "POST",
            "/leveret/queues/{vhost}/{name}/messages/move" | "/leveret/queues/{vhost}/{name}/messages/copy",
        ) => &[("to", "string")],
        _ => &[],
    }
}

/// Keys that a body may have.
fn optional(route: &Route) -> &'static [Described] {
    match (route.method.as_str(), route.path) {
        ("PUT", "/queues/{vhost}/{name}") => &[
            ("durable", "boolean"),
            ("auto_delete", "boolean"),
            ("arguments", "object"),
        ],
        ("PUT", "/exchanges/{vhost}/{name}") => &[
            ("type", "string"),
            ("durable", "boolean"),
            ("auto_delete", "boolean"),
            ("internal", "boolean"),
            ("arguments", "object"),
        ],
        ("POST", path) if path.starts_with("/bindings/") => {
            &[("routing_key", "string"), ("arguments", "object")]
        }
        ("PUT", "/policies/{vhost}/{name}" | "/operator-policies/{vhost}/{name}") => {
            &[("priority", "integer"), ("apply-to", "string")]
        }
        ("PUT", "/users/{user}") => &[
            ("password", "string"),
            ("password_hash", "string"),
            ("hashing_algorithm", "string"),
        ],
        ("POST", "/leveret/queues/{vhost}/{name}/redrive") => &[
            ("to", "string"),
            ("filter", "object"),
            ("rate", "integer"),
            ("limit", "integer"),
            ("dry_run", "boolean"),
        ],
        ("POST", path) if path.starts_with("/leveret/queues/{vhost}/{name}/messages/") => {
            &[("positions", "array"), ("filter", "object"), ("limit", "integer")]
        }
        _ => &[],
    }
}

/// How a call ends well: statuses, what they say, and the type of the body.
fn successes(route: &Route) -> &'static [(&'static str, &'static str, Option<&'static str>)] {
    const JSON: Option<&str> = Some("application/json");
    match (route.method.as_str(), route.path) {
        ("GET", "/config/effective") => &[("200", "The answer", Some("text/plain"))],
        ("GET", "/index.html") => &[("200", "The answer", Some("text/html"))],
        ("GET", "/leveret/logs" | "/leveret/log") => &[("200", "The answer", Some("*/*"))],
        ("PUT", _) => &[
            ("200", "The answer", JSON),
            ("201", "It is new", None),
            ("204", "It is done", None),
        ],
        ("DELETE", _) => &[("202", "It will be gone", None), ("204", "It is gone", None)],
        ("POST", path) if path.starts_with("/bindings/") => &[("201", "It is bound", None)],
        ("POST", "/leveret/queues/{vhost}/{name}/redrive") => &[("202", "The job", JSON)],
        ("POST", _) => &[("200", "The answer", JSON), ("204", "It is done", None)],
        _ => &[("200", "The answer", JSON)],
    }
}

/// How it ends otherwise. A login that is missing is refused without a body, one that is wrong with one.
fn refusals() -> impl Iterator<Item = (String, Value)> {
    let error = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}});
    [
        ("400", "What was sent is wrong", true),
        ("401", "Not logged in, or not allowed", false),
        ("404", "No such object", true),
        ("413", "The body is too long", true),
        ("415", "The body is compressed", true),
        ("503", "Not at the moment; or a health check says no", false),
    ]
    .into_iter()
    .map(move |(status, about, described)| {
        let mut refusal = json!({"description": about});
        if described && let Value::Object(refusal) = &mut refusal {
            refusal.insert("content".to_owned(), error.clone());
        }
        (status.to_owned(), refusal)
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = parts(route.path)
        .filter_map(name_of)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(self::parameters(route).iter().map(|(name, about)| {
        json!({"name": name, "in": "query", "description": about, "schema": {"type": "string"}})
    }));
    let successes = successes(route).iter().map(|(status, about, kind)| {
        let mut success = json!({"description": about});
        if let (Some(kind), Value::Object(success)) = (kind, &mut success) {
            success.insert("content".to_owned(), json!({*kind: {"schema": {}}}));
        }
        ((*status).to_owned(), success)
    });
    let responses: Map<String, Value> = successes.chain(refusals()).collect();
    let mut operation = json!({
        "summary": route.about,
        "description": format!("For {}.", level(route.level)),
        "parameters": parameters,
        "responses": responses,
        "security": if route.level == Level::Nobody { json!([]) } else { json!([{"basic": []}]) },
    });
    if matches!(route.method, Method::PUT | Method::POST)
        && let Value::Object(operation) = &mut operation
    {
        let keys = required(route);
        let properties: Map<String, Value> = (keys.iter().chain(optional(route)))
            .map(|(name, kind)| ((*name).to_owned(), json!({"type": kind})))
            .collect();
        let names: Vec<&str> = keys.iter().map(|(name, _)| *name).collect();
        let schema = json!({"type": "object", "properties": properties, "required": names});
        let body = json!({"required": !keys.is_empty(), "content": {"application/json": {"schema": schema}}});
        operation.insert("requestBody".to_owned(), body);
    }
    operation
}

fn document(_: &Call) -> Result<Answer, ApiError> {
    let mut paths: Map<String, Value> = Map::new();
    for route in TABLES.iter().flat_map(|table| table.iter()) {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = path {
            methods.insert(route.method.as_str().to_lowercase(), operation(route));
        }
    }
    Ok(Answer::json(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Leveret's management API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!("As RabbitMQ {RABBITMQ_VERSION} has it, for one node; what begins with /leveret is our own."),
        },
        "servers": [{"url": "/api"}],
        "paths": paths,
        "components": {
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}, "reason": {}},
                },
            },
        },
    })))
}

fn page(_: &Call) -> Result<Answer, ApiError> {
    let mut rows = String::new();
    for route in TABLES.iter().flat_map(|table| table.iter()) {
        let (method, path) = (route.method.as_str(), route.path);
        let row = format!(
            "<tr><td>{method}<td><code>/api{path}</code><td>{}<td>{}\n",
            level(route.level),
            route.about
        );
        rows.push_str(&row);
    }
    Ok(Answer::text(
        "text/html; charset=utf-8",
        format!(
            "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Leveret: HTTP API</title>\n\
             <h1>HTTP API</h1><p>The same for programs: <a href=\"openapi.json\">openapi.json</a>.\n\
             <table><tr><th>Method<th>Path<th>For<th>What\n{rows}</table></html>\n"
        ),
    ))
}
