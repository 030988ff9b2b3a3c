//! Definitions: everything that was set or declared, as one JSON document (management-api 6). An import is read and
//! checked whole before anything of it is done.

use std::collections::HashSet;

use axum::http::header;
use serde_json::{Map, Value, json};

use crate::broker::{
    definition::{BindingDefinition, Destination, ExchangeDefinition, Name},
    parameter::{GlobalParameter, Parameter},
    permission::{Permission, TopicPermission},
    policy::{Policy, PolicyKind},
    user::HashingAlgorithm,
};
use crate::management::{
    answer::{Answer, ApiError},
    call::{Call, block_on, object},
    json as amqp_json,
    overview::RABBITMQ_VERSION,
    policies,
    route::{Level, Route, get, post},
    users, vhosts,
};
use crate::server::{Handle, QueueSpec, UserSpec, VhostSpec};

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
    for policy in handle.policies(PolicyKind::Operator, vhost) {
        let mut value = policies::render(&policy);
        if let Value::Object(value) = &mut value {
            value.retain(|key, _| key != "vhost" && key != "name");
        }
        let (vhost, name) = (&*policy.vhost, &*policy.name);
        parameters
            .push(json!({"vhost": vhost, "component": "operator_policy", "name": name, "value": value}));
    }
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
            "arguments": super::queues::arguments(look),
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
            let mut value = super::bindings::render(binding);
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

/// A document, read and checked.
#[derive(Default)]
struct Plan {
    users: Vec<UserSpec>,
    vhosts: Vec<(String, VhostSpec, Option<Value>)>,
    permissions: Vec<Permission>,
    topics: Vec<TopicPermission>,
    global: Vec<GlobalParameter>,
    policies: Vec<Policy>,
    parameters: Vec<Parameter>,
    exchanges: Vec<ExchangeDefinition>,
    queues: Vec<(String, String, QueueSpec)>,
    bindings: Vec<BindingDefinition>,
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
    plan.carry_out(handle)
}

fn take_in(call: &Call, vhost: Option<&str>) -> Result<Answer, ApiError> {
    let body = upload(call);
    let plan = Plan::read(&object(&body, "failed_to_parse_json")?, vhost)?;
    plan.check(&call.handle)?;
    if call.query.is_true("dry_run") {
        return Ok(Answer::json(plan.difference(&call.handle)));
    }
    plan.carry_out(&call.handle)?;
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

/// The objects of a category.
fn items<'a>(all: &'a Map<String, Value>, key: &str) -> Result<Vec<&'a Map<String, Value>>, ApiError> {
    let bad = || ApiError::bad_request(format!("{key} should be a list of objects"));
    match all.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => values
            .iter()
            .map(|value| value.as_object().ok_or_else(bad))
            .collect(),
        Some(_) => Err(bad()),
    }
}

fn text<'a>(item: &'a Map<String, Value>, key: &str) -> Result<&'a str, ApiError> {
    amqp_json::text_field(item, key)?.ok_or_else(|| ApiError::key_missing(key))
}

impl Plan {
    fn read(all: &Map<String, Value>, vhost: Option<&str>) -> Result<Self, ApiError> {
        let mut plan = Self::default();
        let of = |item: &Map<String, Value>| -> Result<Name, ApiError> {
            match (vhost, amqp_json::text_field(item, "vhost")?) {
                (Some(vhost), _) => Ok(vhost.into()),
                (None, Some(vhost)) => Ok(vhost.into()),
                (None, None) => Err(ApiError::bad_request(
                    "an object without vhost: these are the definitions of one virtual host, import them into one",
                )),
            }
        };
        if vhost.is_none() {
            plan.read_broker(all)?;
        }
        for item in items(all, "policies")? {
            let policy = policies::read(PolicyKind::User, item, &of(item)?, text(item, "name")?)?;
            plan.policies.push(policy);
        }
        for item in items(all, "parameters")? {
            plan.read_parameter(item, of(item)?)?;
        }
        for item in items(all, "exchanges")? {
            let name = text(item, "name")?;
            if name.is_empty() || name.starts_with("amq.") {
                continue;
            }
            plan.exchanges.push(ExchangeDefinition {
                vhost: of(item)?,
                name: amqp_json::new_name(name)?.into(),
                kind: text(item, "type")?.into(),
                durable: amqp_json::flag(item, "durable", true)?,
                auto_delete: amqp_json::flag(item, "auto_delete", false)?,
                internal: amqp_json::flag(item, "internal", false)?,
                arguments: amqp_json::arguments(item)?,
            });
        }
        for item in items(all, "queues")? {
            let name = text(item, "name")?;
            if name.starts_with("amq.") {
                continue;
            }
            let spec = QueueSpec {
                durable: amqp_json::flag(item, "durable", true)?,
                auto_delete: amqp_json::flag(item, "auto_delete", false)?,
                arguments: amqp_json::arguments(item)?,
            };
            plan.queues
                .push((of(item)?.to_string(), amqp_json::new_name(name)?.to_owned(), spec));
        }
        for item in items(all, "bindings")? {
            let destination = text(item, "destination")?;
            plan.bindings.push(BindingDefinition {
                vhost: of(item)?,
                source: text(item, "source")?.into(),
                destination: match text(item, "destination_type")? {
                    "queue" => Destination::Queue(destination.into()),
                    "exchange" => Destination::Exchange(destination.into()),
                    other => {
                        return Err(ApiError::bad_request(format!(
                            "unknown destination_type '{other}'"
                        )));
                    }
                },
                routing_key: amqp_json::text_field(item, "routing_key")?.unwrap_or("").into(),
                arguments: amqp_json::arguments(item)?,
            });
        }
        plan.bindings.retain(|binding| !binding.source.is_empty());
        Ok(plan)
    }

    fn read_broker(&mut self, all: &Map<String, Value>) -> Result<(), ApiError> {
        let version = amqp_json::text_field(all, "rabbit_version")
            .ok()
            .flatten()
            .unwrap_or("");
        let old = ["1.", "2.", "3.0", "3.1.", "3.2", "3.3", "3.4", "3.5"];
        let algorithm = if old.iter().any(|start| version.starts_with(start)) {
            HashingAlgorithm::Md5
        } else {
            HashingAlgorithm::Sha256
        };
        for item in items(all, "users")? {
            self.users
                .push(users::spec(text(item, "name")?, item, algorithm)?);
        }
        for item in items(all, "vhosts")? {
            let name = amqp_json::new_name(text(item, "name")?)?.to_owned();
            let limits = item
                .get("limits")
                .filter(|limits| limits.as_object().is_some_and(|limits| !limits.is_empty()));
            self.vhosts.push((name, vhosts::spec(item)?, limits.cloned()));
        }
        for item in items(all, "permissions")? {
            self.permissions.push(users::read_permission(
                item,
                text(item, "vhost")?,
                text(item, "user")?,
            )?);
        }
        for item in items(all, "topic_permissions")? {
            self.topics.push(users::read_topic(
                item,
                text(item, "vhost")?,
                text(item, "user")?,
            )?);
        }
        for item in items(all, "global_parameters")? {
            let name = text(item, "name")?;
            if !name.starts_with("internal") {
                let value = item.get("value").cloned().unwrap_or(Value::Null);
                self.global.push(GlobalParameter {
                    name: name.into(),
                    value,
                });
            }
        }
        Ok(())
    }

    fn read_parameter(&mut self, item: &Map<String, Value>, vhost: Name) -> Result<(), ApiError> {
        let (component, name) = (text(item, "component")?, text(item, "name")?);
        let value = item
            .get("value")
            .cloned()
            .ok_or_else(|| ApiError::key_missing("value"))?;
        if let ("operator_policy", Value::Object(value)) = (component, &value) {
            self.policies
                .push(policies::read(PolicyKind::Operator, value, &vhost, name)?);
            return Ok(());
        }
        self.parameters.push(Parameter {
            vhost,
            component: component.into(),
            name: name.into(),
            value,
        });
        Ok(())
    }

    /// Every vhost, user, exchange and queue that is named is there or comes with the document.
    fn check(&self, handle: &Handle) -> Result<(), ApiError> {
        let vhost =
            |name: &str| handle.vhost_exists(name) || self.vhosts.iter().any(|(known, ..)| known == name);
        let user =
            |name: &str| handle.user(name).is_some() || self.users.iter().any(|known| known.name == name);
        let vhosts = (self.permissions.iter().map(|item| &item.vhost))
            .chain(self.topics.iter().map(|item| &item.vhost))
            .chain(self.policies.iter().map(|item| &item.vhost))
            .chain(self.parameters.iter().map(|item| &item.vhost))
            .chain(self.exchanges.iter().map(|item| &item.vhost))
            .chain(self.bindings.iter().map(|item| &item.vhost))
            .map(|name| &**name)
            .chain(self.queues.iter().map(|(vhost, ..)| vhost.as_str()));
        if let Some(missing) = vhosts.into_iter().find(|name| !vhost(name)) {
            return Err(ApiError::bad_request(format!(
                "Virtual host '{missing}' does not exist"
            )));
        }
        let users = self
            .permissions
            .iter()
            .map(|item| &item.user)
            .chain(self.topics.iter().map(|item| &item.user));
        if let Some(missing) = users.into_iter().find(|name| !user(name)) {
            return Err(ApiError::bad_request(format!(
                "User \"{missing}\" does not exist"
            )));
        }
        let invalid = |problem: String| ApiError::bad_request(problem);
        self.permissions
            .iter()
            .try_for_each(|item| item.validate().map_err(invalid))?;
        self.topics
            .iter()
            .try_for_each(|item| item.validate().map_err(invalid))?;
        for exchange in &self.exchanges {
            crate::broker::exchange::Exchange::<u8>::new(exchange.clone())?;
        }
        for (vhost, name, spec) in &self.queues {
            let resource = crate::broker::error::Resource::queue(name, &vhost.as_str().into());
            crate::broker::queue::arguments::check(&spec.arguments, &resource)?;
        }
        let exchanges: HashSet<(&str, &str)> =
            (self.exchanges.iter().map(|item| (&*item.vhost, &*item.name))).collect();
        let queues: HashSet<(&str, &str)> = (self
            .queues
            .iter()
            .map(|(vhost, name, _)| (vhost.as_str(), name.as_str())))
        .collect();
        super::bindings::check_new(handle, &self.bindings, &exchanges, &queues)?;
        Ok(())
    }

    /// What would be new, by category.
    fn difference(&self, handle: &Handle) -> Value {
        let names = |names: Vec<&str>| names.iter().map(|name| Value::from(*name)).collect::<Value>();
        let queues = self
            .queues
            .iter()
            .filter(|(vhost, name, _)| handle.queue(vhost, name).is_none());
        let exchanges = self
            .exchanges
            .iter()
            .filter(|item| handle.exchange(&item.vhost, &item.name).is_none());
        json!({
            "dry_run": true,
            "new": {
                "users": names(self.users.iter().map(|user| user.name.as_str()).filter(|name| handle.user(name).is_none()).collect()),
                "vhosts": names(self.vhosts.iter().map(|(name, ..)| name.as_str()).filter(|name| !handle.vhost_exists(name)).collect()),
                "queues": queues.map(|(vhost, name, _)| json!({"vhost": vhost, "name": name})).collect::<Value>(),
                "exchanges": exchanges.map(|item| json!({"vhost": &*item.vhost, "name": &*item.name})).collect::<Value>(),
            },
        })
    }

    /// In the reference's order. Queues and exchanges that exist stay as they are, even if different.
    fn carry_out(self, handle: &Handle) -> Result<(), ApiError> {
        for user in self.users {
            block_on(handle.put_user(user))?;
        }
        for (name, spec, limits) in self.vhosts {
            block_on(handle.put_vhost(&name, spec))?;
            if let Some(limits) = limits {
                let limits =
                    crate::broker::limits::VhostLimits::parse(&limits).map_err(ApiError::bad_request)?;
                block_on(handle.replace_vhost_limits(&name, limits))?;
            }
        }
        for permission in self.permissions {
            block_on(handle.set_permission(permission))?;
        }
        for exchange in self.exchanges {
            if handle.exchange(&exchange.vhost, &exchange.name).is_none() {
                handle.declare_exchange(exchange)?;
            }
        }
        for topic in self.topics {
            block_on(handle.set_topic_permission(topic))?;
        }
        for parameter in self.global {
            block_on(handle.set_global_parameter(parameter))?;
        }
        for policy in self.policies {
            block_on(handle.set_policy(policy))?;
        }
        for parameter in self.parameters {
            block_on(handle.set_parameter(parameter))?;
        }
        for (vhost, name, spec) in self.queues {
            if handle.queue(&vhost, &name).is_none() {
                handle.declare_queue(&vhost, &name, spec)?;
            }
        }
        for binding in self.bindings {
            handle.bind(binding)?;
        }
        Ok(())
    }
}
