//! What an import would change: new objects, those it would overwrite, and queues and exchanges that it would leave as they
//! are although the document has them otherwise.

use serde_json::{Map, Value, json};

use super::{
    carry_out::{ends, existing},
    plan::Plan,
};
use crate::broker::permission::TopicPermission;
use crate::management::bindings;
use crate::server::{Handle, NewPassword, UserSpec};

/// Lists of objects by category.
#[derive(Default)]
struct Listed(Map<String, Value>);

impl Listed {
    fn add(&mut self, category: &str, object: Value) {
        let list = self.0.entry(category).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(object);
        }
    }
}

#[derive(Default)]
struct Difference {
    new: Listed,
    changed: Listed,
    kept: Listed,
}

impl Difference {
    /// What is set: `same` is `None` when there is nothing of that name.
    fn set(&mut self, category: &str, object: Value, same: Option<bool>) {
        match same {
            None => self.new.add(category, object),
            Some(false) => self.changed.add(category, object),
            Some(true) => {}
        }
    }

    /// What is declared, and never changed by that.
    fn declared(&mut self, category: &str, object: Value, same: Option<bool>) {
        match same {
            None => self.new.add(category, object),
            Some(false) => self.kept.add(category, object),
            Some(true) => {}
        }
    }
}

/// Compares a checked plan with the broker.
pub(super) fn difference(plan: &Plan, handle: &Handle) -> Value {
    let found = compare(plan, handle);
    json!({"dry_run": true, "new": found.new.0, "changed": found.changed.0, "kept": found.kept.0})
}

/// What of a checked plan is not there yet, by category.
pub(super) fn new(plan: &Plan, handle: &Handle) -> Value {
    Value::Object(compare(plan, handle).new.0)
}

fn compare(plan: &Plan, handle: &Handle) -> Difference {
    let mut found = Difference::default();
    settings(plan, handle, &mut found);
    topology(plan, handle, &mut found);
    found
}

/// How objects are named in a difference.
pub(super) mod names {
    use serde_json::{Value, json};

    use crate::broker::{
        parameter::Parameter,
        permission::{Permission, TopicPermission},
        policy::{Policy, PolicyKind},
    };

    pub(in super::super) fn in_vhost(vhost: &str, name: &str) -> Value {
        json!({"vhost": vhost, "name": name})
    }

    pub(in super::super) fn permission(permission: &Permission) -> Value {
        json!({"user": &*permission.user, "vhost": &*permission.vhost})
    }

    pub(in super::super) fn topic(topic: &TopicPermission) -> Value {
        json!({"user": &*topic.user, "vhost": &*topic.vhost, "exchange": &*topic.exchange})
    }

    pub(in super::super) fn policy(policy: &Policy) -> Value {
        let mut name = in_vhost(&policy.vhost, &policy.name);
        if policy.kind == PolicyKind::Operator
            && let Value::Object(name) = &mut name
        {
            name.insert("operator".to_owned(), true.into());
        }
        name
    }

    pub(in super::super) fn parameter(parameter: &Parameter) -> Value {
        let (vhost, component) = (&*parameter.vhost, &*parameter.component);
        json!({"vhost": vhost, "component": component, "name": &*parameter.name})
    }
}

fn settings(plan: &Plan, handle: &Handle, found: &mut Difference) {
    for user in &plan.users {
        found.set("users", json!(user.name), same_user(handle, user));
    }
    for (name, spec, limits) in &plan.vhosts {
        let same = handle.vhost_definition(name).map(|old| {
            let kind = spec.default_queue_type.as_ref();
            spec.description
                .as_ref()
                .is_none_or(|new| *new == old.description)
                && spec.tags.as_ref().is_none_or(|new| *new == old.tags)
                && kind.is_none_or(|new| *new == old.default_queue_type.as_deref().unwrap_or("classic"))
                && spec.protected.is_none_or(|new| new == old.protected)
                && limits.as_ref().is_none_or(|new| {
                    crate::broker::limits::VhostLimits::parse(new).is_ok_and(|new| new == old.limits)
                })
        });
        found.set("vhosts", json!(name), same);
    }
    for new in &plan.permissions {
        let old = handle.permission(&new.user, &new.vhost);
        found.set("permissions", names::permission(new), old.map(|old| old == *new));
    }
    let topics = handle.topic_permissions();
    for new in &plan.topics {
        let of = |topic: &TopicPermission| {
            (&topic.user, &topic.vhost, &topic.exchange) == (&new.user, &new.vhost, &new.exchange)
        };
        let same = topics.iter().find(|old| of(old)).map(|old| old == new);
        found.set("topic_permissions", names::topic(new), same);
    }
    let global = handle.global_parameters();
    for new in &plan.global {
        let old = global.iter().find(|old| old.name == new.name);
        found.set("global_parameters", json!(&*new.name), old.map(|old| old == new));
    }
    for new in &plan.policies {
        let old = handle.policy(new.kind, &new.vhost, &new.name);
        found.set("policies", names::policy(new), old.map(|old| old == *new));
    }
    for new in &plan.parameters {
        let old = handle.parameter(&new.vhost, &new.component, &new.name);
        found.set("parameters", names::parameter(new), old.map(|old| old == *new));
    }
}

/// A password that has to be hashed first cannot be compared: it counts as another.
fn same_user(handle: &Handle, new: &UserSpec) -> Option<bool> {
    let old = handle.user(&new.name)?;
    let same_password = match &new.password {
        NewPassword::Hash(hash) => *hash == old.password,
        NewPassword::Keep => true,
        NewPassword::Clear(_) | NewPassword::None => false,
    };
    let same_limits = new.limits.as_ref().is_none_or(|limits| *limits == old.limits);
    Some(same_password && same_limits && new.tags == old.tags)
}

fn topology(plan: &Plan, handle: &Handle, found: &mut Difference) {
    for new in &plan.exchanges {
        let old = handle.exchange(&new.vhost, &new.name);
        found.declared(
            "exchanges",
            names::in_vhost(&new.vhost, &new.name),
            old.map(|old| old == *new),
        );
    }
    for (vhost, name, new) in &plan.queues {
        let same = handle.queue(vhost, name).map(|old| {
            let old = old.definition();
            old.durable == new.durable && old.auto_delete == new.auto_delete && old.arguments == new.arguments
        });
        found.declared("queues", names::in_vhost(vhost, name), same);
    }
    let known = existing(handle, &plan.bindings);
    for new in &plan.bindings {
        let there = known
            .get(&ends(new))
            .is_some_and(|same| same.contains(&new.arguments));
        found.declared("bindings", bindings::render(new), there.then_some(true));
    }
}
