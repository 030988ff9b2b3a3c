//! What operators change, told to the event exchange by RabbitMQ's names and header fields.

use serde_json::Value;

use crate::broker::{
    definition::{Name, VhostDefinition},
    parameter::{GlobalParameter, Parameter},
    permission::{Permission, TopicPermission},
    policy::{Policy, PolicyKind},
    user::User,
};
use crate::protocol::field::{FieldTable, FieldValue};
use crate::server::{announcer::Headers, handle::Handle};

/// A value of a policy or parameter as headers have it: an object is a table, and what lies deeper is JSON.
fn field(value: &Value) -> FieldValue {
    match value {
        Value::Object(fields) => {
            let mut table = FieldTable::default();
            for (name, value) in fields {
                table.insert(name.as_str(), scalar(value));
            }
            FieldValue::Table(table)
        }
        other => scalar(other),
    }
}

fn scalar(value: &Value) -> FieldValue {
    match value {
        Value::Bool(value) => FieldValue::Bool(*value),
        Value::String(value) => FieldValue::LongString(value.clone().into()),
        other => other.as_i64().map_or_else(
            || FieldValue::LongString(other.to_string().into()),
            FieldValue::I64,
        ),
    }
}

impl Headers {
    fn value(&mut self, name: &str, value: FieldValue) -> &mut Self {
        self.0.insert(name, value);
        self
    }

    fn words(&mut self, name: &str, words: &[String]) -> &mut Self {
        let words = words.iter().map(|word| scalar(&Value::from(word.as_str())));
        self.value(name, FieldValue::Array(words.collect()))
    }

    fn limits(&mut self, limits: &[(&'static str, i64)]) -> &mut Self {
        let mut table = FieldTable::default();
        for (name, limit) in limits {
            table.insert(*name, FieldValue::I64(*limit));
        }
        self.value("limits", FieldValue::Table(table))
    }
}

impl Handle {
    fn tell(&self, key: &'static str, headers: impl FnOnce(&mut Headers)) {
        self.broker.queues.announcer.event(key, |table| {
            headers(table);
            table.by(&self.by);
        });
    }

    /// A user was added, or what is known of it changed.
    pub(super) fn tell_user(&self, old: Option<&User>, new: &User) {
        let name = &*new.name;
        if old.is_none() {
            self.tell("user.created", |headers| {
                headers.text("name", name);
            });
        }
        if old.is_some_and(|old| old.password != new.password) {
            let cleared = new.password.bytes.is_empty();
            let key = if cleared {
                "user.password.cleared"
            } else {
                "user.password.changed"
            };
            self.tell(key, |headers| {
                headers.text("name", name);
            });
        }
        if old.map_or(!new.tags.is_empty(), |old| old.tags != new.tags) {
            self.tell("user.tags.set", |headers| {
                headers.text("name", name).words("tags", &new.tags);
            });
        }
        let before = old.map(|old| old.limits).unwrap_or_default();
        if before != new.limits {
            let key = if new.limits.is_empty() {
                "user.limits.cleared"
            } else {
                "user.limits.set"
            };
            self.tell(key, |headers| {
                headers.text("name", name).limits(&new.limits.listed());
            });
        }
    }

    pub(super) fn tell_user_deleted(&self, name: &str) {
        self.tell("user.deleted", |headers| {
            headers.text("name", name);
        });
    }

    /// A vhost was added, or what is known of it changed.
    pub(super) fn tell_vhost(&self, old: Option<&VhostDefinition>, new: &VhostDefinition) {
        if old.is_none() {
            self.tell("vhost.created", |headers| {
                headers
                    .text("name", &new.name)
                    .text("description", &new.description)
                    .words("tags", &new.tags);
            });
        }
        let before = old.map(|old| old.limits).unwrap_or_default();
        if before != new.limits {
            let key = if new.limits.is_empty() {
                "vhost.limits.cleared"
            } else {
                "vhost.limits.set"
            };
            self.tell(key, |headers| {
                headers.text("name", &new.name).limits(&new.limits.listed());
            });
        }
    }

    pub(super) fn tell_vhost_deleted(&self, name: &str) {
        self.tell("vhost.deleted", |headers| {
            headers.text("name", name);
        });
    }

    pub(super) fn tell_permission(&self, permission: &Permission) {
        self.tell("permission.created", |headers| {
            headers
                .text("user", &permission.user)
                .text("vhost", &permission.vhost)
                .text("configure", &permission.configure)
                .text("write", &permission.write)
                .text("read", &permission.read);
        });
    }

    pub(super) fn tell_permission_deleted(&self, user: &str, vhost: &str) {
        self.tell("permission.deleted", |headers| {
            headers.text("user", user).text("vhost", vhost);
        });
    }

    pub(super) fn tell_topic_permission(&self, topic: &TopicPermission) {
        self.tell("topic.permission.created", |headers| {
            headers
                .text("user", &topic.user)
                .text("vhost", &topic.vhost)
                .text("exchange", &topic.exchange)
                .text("write", &topic.write)
                .text("read", &topic.read);
        });
    }

    pub(super) fn tell_topic_permission_deleted(&self, topic: &TopicPermission) {
        self.tell("topic.permission.deleted", |headers| {
            headers
                .text("user", &topic.user)
                .text("vhost", &topic.vhost)
                .text("exchange", &topic.exchange);
        });
    }

    pub(super) fn tell_policy(&self, policy: &Policy) {
        let key = match policy.kind {
            PolicyKind::User => "policy.set",
            PolicyKind::Operator => "operator.policy.set",
        };
        self.tell(key, |headers| {
            headers
                .text("name", &policy.name)
                .text("vhost", &policy.vhost)
                .text("pattern", &policy.pattern)
                .value("priority", FieldValue::I64(policy.priority))
                .text("apply-to", policy.apply_to.name())
                .value("definition", field(&Value::Object(policy.definition.clone())));
        });
    }

    pub(super) fn tell_policy_cleared(&self, kind: PolicyKind, vhost: &str, name: &str) {
        let key = match kind {
            PolicyKind::User => "policy.cleared",
            PolicyKind::Operator => "operator.policy.cleared",
        };
        self.tell(key, |headers| {
            headers.text("name", name).text("vhost", vhost);
        });
    }

    pub(super) fn tell_parameter(&self, parameter: &Parameter) {
        self.tell("parameter.set", |headers| {
            headers
                .text("name", &parameter.name)
                .text("component", &parameter.component)
                .text("vhost", &parameter.vhost)
                .value("value", field(&parameter.value));
        });
    }

    pub(super) fn tell_parameter_cleared(&self, (vhost, component, name): &(Name, Name, Name)) {
        self.tell("parameter.cleared", |headers| {
            headers
                .text("name", name)
                .text("component", component)
                .text("vhost", vhost);
        });
    }

    /// The whole broker's have the component `global`, as in RabbitMQ.
    pub(super) fn tell_global_parameter(&self, parameter: &GlobalParameter) {
        self.tell("parameter.set", |headers| {
            headers
                .text("name", &parameter.name)
                .text("component", "global")
                .value("value", field(&parameter.value));
        });
    }

    pub(super) fn tell_global_parameter_cleared(&self, name: &str) {
        self.tell("parameter.cleared", |headers| {
            headers.text("name", name).text("component", "global");
        });
    }
}
