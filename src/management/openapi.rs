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

/// Parameters that lists take.
const LIST: &[(&str, &str)] = &[
    ("page", "Page number, from 1"),
    ("page_size", "Rows of a page, up to 500"),
    ("name", "Only rows whose name contains this"),
    ("use_regex", "`name` is a regular expression"),
    ("sort", "A field to sort by"),
    ("sort_reverse", "Descending"),
    ("columns", "Only these fields, separated by commas"),
];

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
fn required(route: &Route) -> &'static [(&'static str, &'static str)] {
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
        _ => &[],
    }
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = parts(route.path)
        .filter_map(name_of)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if route.method == Method::GET {
        parameters.extend(LIST.iter().map(|(name, about)| {
            json!({"name": name, "in": "query", "description": about, "schema": {"type": "string"}})
        }));
    }
    let success = match route.method.as_str() {
        "PUT" => json!({"201": {"description": "It is new"}, "204": {"description": "It existed"}}),
        "DELETE" => json!({"204": {"description": "It is gone"}}),
        _ => json!({"200": {"description": "The answer", "content": {"application/json": {"schema": {}}}}}),
    };
    let mut responses = success.as_object().cloned().unwrap_or_default();
    for (status, about) in [
        ("400", "What was sent is wrong"),
        ("401", "Not logged in, or not allowed"),
        ("404", "No such object"),
    ] {
        let error = json!({"$ref": "#/components/schemas/Error"});
        responses.insert(
            status.to_owned(),
            json!({"description": about, "content": {"application/json": {"schema": error}}}),
        );
    }
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
        let properties: Map<String, Value> = keys
            .iter()
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
