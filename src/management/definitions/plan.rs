//! A definitions document as a plan: read whole, and checked against itself and the broker before anything of it is done.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::broker::{
    definition::{BindingDefinition, Destination, ExchangeDefinition, Name},
    parameter::{GlobalParameter, Parameter},
    permission::{Permission, TopicPermission},
    policy::{Policy, PolicyKind},
    user::HashingAlgorithm,
};
use crate::management::{answer::ApiError, bindings, json as amqp_json, policies, users, vhosts};
use crate::server::{Handle, QueueSpec, UserSpec, VhostSpec};

/// A document, read and checked.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) users: Vec<UserSpec>,
    pub(super) vhosts: Vec<(String, VhostSpec, Option<Value>)>,
    pub(super) permissions: Vec<Permission>,
    pub(super) topics: Vec<TopicPermission>,
    pub(super) global: Vec<GlobalParameter>,
    pub(super) policies: Vec<Policy>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) exchanges: Vec<ExchangeDefinition>,
    pub(super) queues: Vec<(String, String, QueueSpec)>,
    pub(super) bindings: Vec<BindingDefinition>,
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
    pub(super) fn read(all: &Map<String, Value>, vhost: Option<&str>) -> Result<Self, ApiError> {
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
    pub(super) fn check(&self, handle: &Handle) -> Result<(), ApiError> {
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
        bindings::check_new(handle, &self.bindings, &exchanges, &queues)?;
        Ok(())
    }
}
