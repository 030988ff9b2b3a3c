//! Carries a plan out, step by step in the reference's order. What is done is noted; when a step fails, that is undone,
//! the latest first, so that an import happens whole or not at all. If the broker ends between, `journal.rs` has it done
//! at the next start.

use std::{collections::HashMap, sync::Arc};

use serde_json::json;

use super::{difference::names, journal::Made, plan::Plan};
use crate::broker::{
    definition::{BindingDefinition, Destination, Name, VhostDefinition},
    limits::VhostLimits,
    parameter::{GlobalParameter, Parameter},
    permission::{Permission, TopicPermission},
    policy::{Policy, PolicyKind},
    user::User,
};
use crate::management::{answer::ApiError, bindings, call::block_on};
use crate::protocol::field::FieldTable;
use crate::server::{Handle, NewPassword, QueueSpec, UserSpec, VhostSpec};

/// How it was before a step.
enum Before {
    User(String, Option<Arc<User>>),
    Vhost(String, Option<VhostDefinition>),
    Permission(Permission, Option<Permission>),
    Topic(TopicPermission, Option<TopicPermission>),
    Global(Name, Option<GlobalParameter>),
    Policy(PolicyKind, Name, Name, Option<Policy>),
    Parameter(Name, Name, Name, Option<Parameter>),
    NoExchange(Name, Name),
    NoQueue(String, String),
    NoBinding(BindingDefinition),
}

/// Queues and exchanges that exist stay as they are, even if different. What was `made` by an earlier attempt counts as
/// made by this one.
///
/// # Errors
/// Why a step failed; then nothing is done.
pub(super) fn carry_out(handle: &Handle, plan: Plan, made: &Made) -> Result<(), ApiError> {
    let mut done = Vec::new();
    let result = steps(handle, plan, made, &mut done);
    if result.is_err() {
        for before in done.into_iter().rev() {
            if let Err(error) = undo(handle, before) {
                tracing::error!(%error, "a step of a failed import could not be undone; leveretctl definitions diff FILE shows what differs");
            }
        }
    }
    result
}

fn steps(handle: &Handle, plan: Plan, made: &Made, done: &mut Vec<Before>) -> Result<(), ApiError> {
    for user in plan.users {
        let old = handle.user(&user.name);
        let old = old.filter(|_| !made.has("users", || json!(user.name)));
        done.push(Before::User(user.name.clone(), old));
        block_on(handle.put_user(user))?;
    }
    for (name, spec, limits) in plan.vhosts {
        let old = handle.vhost_definition(&name);
        let old = old.filter(|_| !made.has("vhosts", || json!(name)));
        done.push(Before::Vhost(name.clone(), old));
        block_on(handle.put_vhost(&name, spec))?;
        if let Some(limits) = limits {
            let limits = VhostLimits::parse(&limits).map_err(ApiError::bad_request)?;
            block_on(handle.replace_vhost_limits(&name, limits))?;
        }
    }
    for permission in plan.permissions {
        let old = handle.permission(&permission.user, &permission.vhost);
        let old = old.filter(|_| !made.has("permissions", || names::permission(&permission)));
        done.push(Before::Permission(permission.clone(), old));
        block_on(handle.set_permission(permission))?;
    }
    for exchange in plan.exchanges {
        let missing = handle.exchange(&exchange.vhost, &exchange.name).is_none();
        let (vhost, name) = (exchange.vhost.clone(), exchange.name.clone());
        if missing || made.has("exchanges", || names::in_vhost(&vhost, &name)) {
            done.push(Before::NoExchange(vhost, name));
        }
        if missing {
            handle.declare_exchange(exchange)?;
        }
    }
    for topic in plan.topics {
        let same = |old: &TopicPermission| {
            (&old.user, &old.vhost, &old.exchange) == (&topic.user, &topic.vhost, &topic.exchange)
        };
        let old = handle.topic_permissions().into_iter().find(same);
        let old = old.filter(|_| !made.has("topic_permissions", || names::topic(&topic)));
        done.push(Before::Topic(topic.clone(), old));
        block_on(handle.set_topic_permission(topic))?;
    }
    for parameter in plan.global {
        let mut all = handle.global_parameters().into_iter();
        let old = all.find(|old| old.name == parameter.name);
        let old = old.filter(|_| !made.has("global_parameters", || json!(&*parameter.name)));
        done.push(Before::Global(parameter.name.clone(), old));
        block_on(handle.set_global_parameter(parameter))?;
    }
    for policy in plan.policies {
        let (kind, vhost, name) = (policy.kind, policy.vhost.clone(), policy.name.clone());
        let old = handle.policy(kind, &vhost, &name);
        let old = old.filter(|_| !made.has("policies", || names::policy(&policy)));
        done.push(Before::Policy(kind, vhost, name, old));
        block_on(handle.set_policy(policy))?;
    }
    for parameter in plan.parameters {
        let Parameter {
            vhost,
            component,
            name,
            ..
        } = parameter.clone();
        let old = handle.parameter(&vhost, &component, &name);
        let old = old.filter(|_| !made.has("parameters", || names::parameter(&parameter)));
        done.push(Before::Parameter(vhost, component, name, old));
        block_on(handle.set_parameter(parameter))?;
    }
    queues_and_bindings(handle, plan.queues, plan.bindings, made, done)
}

fn queues_and_bindings(
    handle: &Handle,
    queues: Vec<(String, String, QueueSpec)>,
    bindings: Vec<BindingDefinition>,
    made: &Made,
    done: &mut Vec<Before>,
) -> Result<(), ApiError> {
    for (vhost, name, spec) in queues {
        let missing = handle.queue(&vhost, &name).is_none();
        if missing || made.has("queues", || names::in_vhost(&vhost, &name)) {
            done.push(Before::NoQueue(vhost.clone(), name.clone()));
        }
        if missing {
            handle.declare_queue(&vhost, &name, spec)?;
        }
    }
    let mut known = existing(handle, &bindings);
    for binding in bindings {
        let same = known.entry(ends(&binding)).or_default();
        let missing = !same.contains(&binding.arguments);
        if missing || made.has("bindings", || bindings::render(&binding)) {
            done.push(Before::NoBinding(binding.clone()));
        }
        if missing {
            same.push(binding.arguments.clone());
            handle.bind(binding)?;
        }
    }
    Ok(())
}

/// Bindings that differ in their arguments only.
pub(super) type Ends = (Name, Name, Destination, Name);

pub(super) fn ends(binding: &BindingDefinition) -> Ends {
    let destination = binding.destination.clone();
    let (vhost, source, key) = (&binding.vhost, &binding.source, &binding.routing_key);
    (vhost.clone(), source.clone(), destination, key.clone())
}

/// Arguments of the bindings that are there, where the plan has some. The broker's are walked once.
pub(super) fn existing(handle: &Handle, planned: &[BindingDefinition]) -> HashMap<Ends, Vec<FieldTable>> {
    let mut known: HashMap<Ends, Vec<FieldTable>> = planned
        .iter()
        .map(|binding| (ends(binding), Vec::new()))
        .collect();
    handle.bindings(None, |binding| {
        if let Some(same) = known.get_mut(&ends(binding)) {
            same.push(binding.arguments.clone());
        }
        false
    });
    known
}

/// Undoing what was not done after all, the step that failed, may find nothing: that is no failure.
fn undo(handle: &Handle, before: Before) -> Result<(), ApiError> {
    match before {
        Before::User(name, None) => when_there(handle.user(&name).is_some(), || {
            block_on(handle.delete_user(&name))
        }),
        Before::User(name, Some(user)) => {
            let spec = UserSpec {
                name,
                password: NewPassword::Hash(user.password.clone()),
                tags: user.tags.clone(),
                limits: Some(user.limits),
            };
            block_on(handle.put_user(spec))?;
            Ok(())
        }
        Before::Vhost(name, None) => when_there(handle.vhost_exists(&name), || {
            let unprotected = VhostSpec {
                protected: Some(false),
                ..VhostSpec::default()
            };
            block_on(handle.put_vhost(&name, unprotected))?;
            block_on(handle.delete_vhost(&name))
        }),
        Before::Vhost(name, Some(old)) => {
            let undefined = || "undefined".to_owned();
            let spec = VhostSpec {
                description: Some(old.description),
                tags: Some(old.tags),
                default_queue_type: Some(old.default_queue_type.unwrap_or_else(undefined)),
                protected: Some(old.protected),
            };
            block_on(handle.put_vhost(&name, spec))?;
            block_on(handle.replace_vhost_limits(&name, old.limits))?;
            Ok(())
        }
        Before::Permission(new, None) => {
            let there = handle.permission(&new.user, &new.vhost).is_some();
            when_there(there, || block_on(handle.clear_permission(&new.user, &new.vhost)))
        }
        Before::Permission(_, Some(old)) => block_on(handle.set_permission(old)).map(|_| ()),
        Before::Topic(new, None) => {
            let there = handle.topic_permissions().contains(&new);
            let clear = || handle.clear_topic_permissions(&new.user, &new.vhost, Some(&new.exchange));
            when_there(there, || block_on(clear()))
        }
        Before::Topic(_, Some(old)) => block_on(handle.set_topic_permission(old)).map(|_| ()),
        other => undo_in_vhost(handle, other),
    }
}

fn undo_in_vhost(handle: &Handle, before: Before) -> Result<(), ApiError> {
    match before {
        Before::Global(name, None) => {
            let there = handle.global_parameters().iter().any(|known| known.name == name);
            when_there(there, || block_on(handle.clear_global_parameter(&name)))
        }
        Before::Global(_, Some(old)) => block_on(handle.set_global_parameter(old)).map(|_| ()),
        Before::Policy(kind, vhost, name, None) => {
            let there = handle.policy(kind, &vhost, &name).is_some();
            when_there(there, || block_on(handle.clear_policy(kind, &vhost, &name)))
        }
        Before::Policy(.., Some(old)) => block_on(handle.set_policy(old)).map(|_| ()),
        Before::Parameter(vhost, component, name, None) => {
            let there = handle.parameter(&vhost, &component, &name).is_some();
            let clear = || handle.clear_parameter(&vhost, &component, &name);
            when_there(there, || block_on(clear()))
        }
        Before::Parameter(.., Some(old)) => block_on(handle.set_parameter(old)).map(|_| ()),
        Before::NoExchange(vhost, name) => Ok(handle.delete_exchange(&vhost, &name, false)?),
        Before::NoQueue(vhost, name) => when_there(handle.queue(&vhost, &name).is_some(), || {
            Ok(handle.delete_queue(&vhost, &name, false, false).map(|_| ())?)
        }),
        Before::NoBinding(binding) => {
            let there = !handle
                .bindings(Some(&binding.vhost), |known| *known == binding)
                .is_empty();
            when_there(there, || Ok(handle.unbind(&binding)?))
        }
        // Those of the whole broker are undone by the caller.
        Before::User(..) | Before::Vhost(..) | Before::Permission(..) | Before::Topic(..) => Ok(()),
    }
}

fn when_there(there: bool, undo: impl FnOnce() -> Result<(), ApiError>) -> Result<(), ApiError> {
    if there { undo() } else { Ok(()) }
}
