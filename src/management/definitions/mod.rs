//! Definitions: everything that was set or declared, as one JSON document (management-api 6). An import is read and
//! checked whole before anything of it is done, and what is done of one that fails is undone.

mod carry_out;
mod difference;
mod journal;
mod plan;

use std::{io, path::Path};

use axum::http::header;
use serde_json::{Map, Value, json};

use crate::broker::{
    definition::{BindingDefinition, Destination, ExchangeDefinition},
    policy::PolicyKind,
};
use crate::management::{
    answer::{Answer, ApiError},
    call::{Call, object},
    json as amqp_json,
    overview::RABBITMQ_VERSION,
    policies,
    route::{Level, Route, get, post},
    users, vhosts,
};
use crate::server::Handle;

use self::{journal::Made, plan::Plan};

pub(super) static ROUTES: [Route; 6] = [
    get("/definitions", Level::Admin, export, "All definitions"),
    post("/definitions", Level::Admin, import, "Takes definitions in"),
    get("/all-configuration", Level::Admin, export, "All definitions"),
    post("/all-configuration", Level::Admin, import, "Takes definitions in"),
    get(
        "/definitions/{name}",
        Level::Admin,
        export_vhost,
        "The definitions of a vhost",
    ),
    post(
        "/definitions/{vhost}",
        Level::Admin,
        import_vhost,
        "Takes definitions into a vhost",
    ),
];

/// A document that is offered as a file when asked for.
fn document(call: &Call, value: Value) -> Answer {
    let answer = Answer::json(value);
    match call.query.get("download") {
        Some(name) => {
            let name: String = name
                .chars()
                .filter(|part| part.is_alphanumeric() || "._-".contains(*part))
                .collect();
            answer.header(
                header::CONTENT_DISPOSITION,
                &format!("attachment; filename={name}"),
            )
        }
        None => answer,
    }
}

fn about(format: &str) -> Map<String, Value> {
    let about = json!({
        "rabbit_version": RABBITMQ_VERSION,
        "rabbitmq_version": RABBITMQ_VERSION,
        "product_name": "Leveret",
        "product_version": env!("CARGO_PKG_VERSION"),
        "rabbitmq_definition_format": format,
    });
    about.as_object().cloned().unwrap_or_default()
}

fn export(call: &Call) -> Result<Answer, ApiError> {
    let handle = &call.handle;
    let mut all = about("cluster");
    let mut set = |key: &str, value: Value| all.insert(key.to_owned(), value);
    set("original_cluster_name", handle.cluster_name().into());
    set("explanation", "Definitions of the whole broker".into());
    set(
        "users",
        handle.users().iter().map(|user| users::render(user)).collect(),
    );
    let described = handle.vhosts();
    let described = described.iter().map(|vhost| {
        json!({
            "name": &*vhost.name,
            "description": vhost.description,
            "tags": vhost.tags,
            "default_queue_type": vhost.default_queue_type.as_deref().unwrap_or("classic"),
            "metadata": vhosts::metadata(vhost),
            "limits": policies::limits(vhost.limits.listed()),
        })
    });
    set("vhosts", described.collect());
    set(
        "permissions",
        handle
            .permissions()
            .iter()
            .map(users::render_permission)
            .collect(),
    );
    set(
        "topic_permissions",
        handle
            .topic_permissions()
            .iter()
            .map(users::render_topic)
            .collect(),
    );
    let global = handle.global_parameters();
    let global = global
        .iter()
        .map(|parameter| json!({"name": &*parameter.name, "value": parameter.value}));
    set("global_parameters", global.collect());
    for (key, value) in of_vhost(handle, None) {
        all.insert(key, value);
    }
    Ok(document(call, Value::Object(all)))
}

fn export_vhost(call: &Call) -> Result<Answer, ApiError> {
    let name = super::call::vhost_name(call.name("name"));
    let vhost = call
        .handle
        .vhost_definition(name)
        .ok_or_else(|| ApiError::bad_request("vhost_not_found"))?;
    let mut all = about("single_virtual_host");
    all.insert("original_vhost_name".to_owned(), name.into());
    all.insert("explanation".to_owned(), "Definitions of one virtual host".into());
    all.insert("description".to_owned(), vhost.description.as_str().into());
    all.insert("metadata".to_owned(), vhosts::metadata(&vhost));
    all.insert("limits".to_owned(), policies::limits(vhost.limits.listed()));
    for (key, mut value) in of_vhost(&call.handle, Some(name)) {
        for item in value.as_array_mut().into_iter().flatten() {
            if let Value::Object(item) = item {
                item.remove("vhost");
            }
        }
        all.insert(key, value);
    }
    Ok(document(call, Value::Object(all)))
}

/// What belongs to vhosts: parameters, policies and the durable topology.
fn of_vhost(handle: &Handle, vhost: Option<&str>) -> Map<String, Value> {
    let mut parameters: Vec<Value> = handle
        .parameters()
        .iter()
        .filter(|parameter| vhost.is_none_or(|vhost| *parameter.vhost == *vhost))
        .map(policies::render_parameter)
        .collect();
    let operator = handle.policies(PolicyKind::Operator, vhost);
    parameters.extend(
        operator
            .iter()
            .map(|policy| policies::render_parameter(&policies::as_parameter(policy))),
    );
    let rules: Vec<Value> = handle
        .policies(PolicyKind::User, vhost)
        .iter()
        .map(policies::render)
        .collect();
    let lasting = |look: &&crate::server::QueueLook| look.definition().durable && !look.is_exclusive();
    let looks = handle.queues(vhost);
    let queues = looks.iter().filter(lasting).map(|look| {
        let queue = look.definition();
        json!({
            "vhost": &*queue.vhost,
            "name": &*queue.name,
            "durable": queue.durable,
            "auto_delete": queue.auto_delete,
            "arguments": crate::management::queues::arguments(look),
        })
    });
    let named =
        |exchange: &&ExchangeDefinition| !exchange.name.is_empty() && !exchange.name.starts_with("amq.");
    let exchanges = handle.exchanges(vhost);
    let exchanges = exchanges
        .iter()
        .filter(named)
        .filter(|exchange| exchange.durable)
        .map(|exchange| {
            json!({
                "vhost": &*exchange.vhost,
                "name": &*exchange.name,
                "type": &*exchange.kind,
                "durable": exchange.durable,
                "auto_delete": exchange.auto_delete,
                "internal": exchange.internal,
                "arguments": amqp_json::table(&exchange.arguments),
            })
        });
    [
        ("parameters", Value::Array(parameters)),
        ("policies", rules.into()),
        ("queues", queues.collect()),
        ("exchanges", exchanges.collect()),
        ("bindings", bindings_of(handle, vhost)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Bindings that live as long as both their ends, without the implicit ones.
fn bindings_of(handle: &Handle, vhost: Option<&str>) -> Value {
    let ends = |binding: &BindingDefinition| {
        let lasting = |name: &str| {
            handle
                .exchange(&binding.vhost, name)
                .is_some_and(|exchange| exchange.durable)
        };
        lasting(&binding.source)
            && match &binding.destination {
                Destination::Exchange(name) => lasting(name),
                Destination::Queue(name) => handle
                    .queue(&binding.vhost, name)
                    .is_some_and(|look| lasting_queue(&look)),
            }
    };
    let mut bindings = handle.bindings(vhost, |binding| !binding.source.is_empty());
    bindings.retain(ends);
    bindings
        .iter()
        .map(|binding| {
            let mut value = crate::management::bindings::render(binding);
            if let Value::Object(value) = &mut value {
                value.remove("properties_key");
            }
            value
        })
        .collect()
}

fn lasting_queue(look: &crate::server::QueueLook) -> bool {
    look.definition().durable && !look.is_exclusive()
}

fn import(call: &Call) -> Result<Answer, ApiError> {
    take_in(call, None)
}

fn import_vhost(call: &Call) -> Result<Answer, ApiError> {
    let name = call.vhost().unwrap_or("/").to_owned();
    if !call.handle.vhost_exists(&name) {
        return Err(ApiError::not_found());
    }
    take_in(call, Some(&name))
}

/// Takes a document in for the program itself.
pub(super) fn take_in_locally(handle: &Handle, document: &[u8]) -> Result<(), ApiError> {
    let plan = Plan::read(&object(document, "failed_to_parse_json")?, None)?;
    plan.check(handle)?;
    carry_out::carry_out(handle, plan, &Made::default())
}

/// Carries out the imports that were begun when the broker last ended.
pub(super) fn finish_imports(handle: &Handle, data_dir: &Path) -> io::Result<()> {
    journal::finish(handle, data_dir)
}

fn take_in(call: &Call, vhost: Option<&str>) -> Result<Answer, ApiError> {
    let definitions = object(&upload(call), "failed_to_parse_json")?;
    let plan = Plan::read(&definitions, vhost)?;
    plan.check(&call.handle)?;
    if call.query.is_true("dry_run") {
        return Ok(Answer::json(difference::difference(&plan, &call.handle)));
    }
    journal::carry_out(&call.handle, &call.settings.data_dir, &definitions, vhost, plan)?;
    Ok(Answer::no_content())
}

/// The body, or the part named `file` of a form.
fn upload(call: &Call) -> Vec<u8> {
    let kind = call
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let boundary = kind.filter(|kind| kind.starts_with("multipart/form-data"));
    let Some((_, boundary)) = boundary.and_then(|kind| kind.split_once("boundary=")) else {
        return call.body.clone();
    };
    let text = String::from_utf8_lossy(&call.body);
    let separator = format!("--{}", boundary.trim_matches('"'));
    let part = text
        .split(&separator)
        .filter_map(|part| part.split_once("\r\n\r\n"))
        .find(|(head, _)| head.contains("name=\"file\""));
    part.map_or(Vec::new(), |(_, body)| body.trim_end().as_bytes().to_vec())
}
