//! Policies, parameters and limits (management-api 3.2, 4.12, 4.13).

use serde_json::{Map, Value, json};

use crate::broker::{
    parameter::{GlobalParameter, Parameter},
    policy::{ApplyTo, Policy, PolicyKind},
};
use crate::management::{
    answer::{Answer, ApiError},
    call::{Call, block_on},
    json as amqp_json,
    list::{plain, single},
    route::{Level, Route, delete, get, put},
};
use crate::server::Change;

pub(super) static ROUTES: [Route; 30] = [
    get("/policies", Level::Vhost, list_policies, "All policies"),
    get(
        "/policies/{vhost}",
        Level::Vhost,
        list_policies,
        "The policies of a vhost",
    ),
    get(
        "/policies/{vhost}/{name}",
        Level::Policy,
        show_policy,
        "One policy",
    ),
    put(
        "/policies/{vhost}/{name}",
        Level::Policy,
        set_policy,
        "Sets a policy",
    ),
    delete(
        "/policies/{vhost}/{name}",
        Level::Policy,
        clear_policy,
        "Removes a policy",
    ),
    get(
        "/operator-policies",
        Level::Vhost,
        list_operator,
        "All operator policies",
    ),
    get(
        "/operator-policies/{vhost}",
        Level::Vhost,
        list_operator,
        "The operator policies of a vhost",
    ),
    get(
        "/operator-policies/{vhost}/{name}",
        Level::Admin,
        show_operator,
        "One operator policy",
    ),
    put(
        "/operator-policies/{vhost}/{name}",
        Level::Admin,
        set_operator,
        "Sets an operator policy",
    ),
    delete(
        "/operator-policies/{vhost}/{name}",
        Level::Admin,
        clear_operator,
        "Removes an operator policy",
    ),
    get("/parameters", Level::Policy, list_parameters, "All parameters"),
    get(
        "/parameters/{component}",
        Level::Policy,
        list_parameters,
        "The parameters of a component",
    ),
    get(
        "/parameters/{component}/{vhost}",
        Level::Policy,
        list_parameters,
        "The parameters of a component in a vhost",
    ),
    get(
        "/parameters/{component}/{vhost}/{name}",
        Level::Policy,
        show_parameter,
        "One parameter",
    ),
    put(
        "/parameters/{component}/{vhost}/{name}",
        Level::Policy,
        set_parameter,
        "Sets a parameter",
    ),
    delete(
        "/parameters/{component}/{vhost}/{name}",
        Level::Policy,
        clear_parameter,
        "Removes a parameter",
    ),
    get(
        "/global-parameters",
        Level::GlobalParameter,
        list_global,
        "All global parameters",
    ),
    get(
        "/global-parameters/{name}",
        Level::GlobalParameter,
        show_global,
        "One global parameter",
    ),
    put(
        "/global-parameters/{name}",
        Level::GlobalParameter,
        set_global,
        "Sets a global parameter",
    ),
    delete(
        "/global-parameters/{name}",
        Level::GlobalParameter,
        clear_global,
        "Removes a global parameter",
    ),
    get("/cluster-name", Level::Any, cluster_name, "The cluster's name"),
    put(
        "/cluster-name",
        Level::Admin,
        set_cluster_name,
        "Sets the cluster's name",
    ),
    get("/vhost-limits", Level::Any, vhost_limits, "Limits of vhosts"),
    get(
        "/vhost-limits/{vhost}",
        Level::Vhost,
        vhost_limits,
        "Limits of a vhost",
    ),
    put(
        "/vhost-limits/{vhost}/{name}",
        Level::Admin,
        set_vhost_limit,
        "Sets a limit of a vhost",
    ),
    delete(
        "/vhost-limits/{vhost}/{name}",
        Level::Admin,
        clear_vhost_limit,
        "Removes a limit of a vhost",
    ),
    get("/user-limits", Level::Admin, user_limits, "Limits of users"),
    get("/user-limits/{user}", Level::Any, user_limits, "Limits of a user"),
    put(
        "/user-limits/{user}/{name}",
        Level::Admin,
        set_user_limit,
        "Sets a limit of a user",
    ),
    delete(
        "/user-limits/{user}/{name}",
        Level::Admin,
        clear_user_limit,
        "Removes a limit of a user",
    ),
];

pub(super) fn render(policy: &Policy) -> Value {
    json!({
        "vhost": &*policy.vhost,
        "name": &*policy.name,
        "pattern": policy.pattern,
        "apply-to": policy.apply_to.name(),
        "priority": policy.priority,
        "definition": policy.definition,
    })
}

pub(super) fn render_parameter(parameter: &Parameter) -> Value {
    json!({
        "vhost": &*parameter.vhost,
        "component": &*parameter.component,
        "name": &*parameter.name,
        "value": parameter.value,
    })
}

/// What a body says of a policy.
pub(super) fn read(
    kind: PolicyKind,
    object: &Map<String, Value>,
    vhost: &str,
    name: &str,
) -> Result<Policy, ApiError> {
    let pattern = amqp_json::text_field(object, "pattern")?;
    let definition = match object.get("definition") {
        Some(Value::Object(definition)) => definition.clone(),
        Some(Value::Array(values)) if values.is_empty() => Map::new(),
        Some(_) => {
            return Err(ApiError::bad_request(
                "Validation failed\n\ndefinition should be an object",
            ));
        }
        None => return Err(ApiError::key_missing("definition")),
    };
    let priority = match object.get("priority") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().ok_or_else(|| {
            ApiError::bad_request(format!(
                "Validation failed\n\npriority should be number, actually was {value}"
            ))
        })?,
    };
    let apply_to = match amqp_json::text_field(object, "apply-to")? {
        None => ApplyTo::default(),
        Some(word) => ApplyTo::parse(word).ok_or_else(|| {
            let words = "exchanges, queues, classic_queues, quorum_queues, streams, all";
            ApiError::bad_request(format!(
                "Validation failed\n\napply-to '{word}' unrecognised; should be one of: {words}"
            ))
        })?,
    };
    Ok(Policy {
        vhost: vhost.into(),
        name: name.into(),
        kind,
        pattern: pattern
            .ok_or_else(|| ApiError::key_missing("pattern"))?
            .to_owned(),
        apply_to,
        priority,
        definition,
    })
}

fn list_kind(call: &Call, kind: PolicyKind) -> Result<Answer, ApiError> {
    let mut rows = Vec::new();
    for vhost in call.visible_vhosts() {
        rows.extend(call.handle.policies(kind, Some(&vhost)));
    }
    rows.sort_by_key(|policy| policy.priority);
    Ok(plain(call, &rows, render))
}

fn show_kind(call: &Call, kind: PolicyKind) -> Result<Answer, ApiError> {
    let found = call
        .handle
        .policy(kind, call.vhost().unwrap_or("/"), call.name("name"));
    Ok(single(call, render(&found.ok_or_else(ApiError::not_found)?)))
}

fn set_kind(call: &Call, kind: PolicyKind) -> Result<Answer, ApiError> {
    let policy = read(
        kind,
        &call.object()?,
        call.vhost().unwrap_or("/"),
        call.name("name"),
    )?;
    let change = block_on(call.handle.set_policy(policy))?;
    Ok(Answer::put(change == Change::Created))
}

fn clear_kind(call: &Call, kind: PolicyKind) -> Result<Answer, ApiError> {
    let (vhost, name) = (call.vhost().unwrap_or("/"), call.name("name"));
    if call.handle.policy(kind, vhost, name).is_none() {
        return Err(ApiError::not_found());
    }
    block_on(call.handle.clear_policy(kind, vhost, name))?;
    Ok(Answer::no_content())
}

fn list_policies(call: &Call) -> Result<Answer, ApiError> {
    list_kind(call, PolicyKind::User)
}

fn show_policy(call: &Call) -> Result<Answer, ApiError> {
    show_kind(call, PolicyKind::User)
}

fn set_policy(call: &Call) -> Result<Answer, ApiError> {
    set_kind(call, PolicyKind::User)
}

fn clear_policy(call: &Call) -> Result<Answer, ApiError> {
    clear_kind(call, PolicyKind::User)
}

fn list_operator(call: &Call) -> Result<Answer, ApiError> {
    list_kind(call, PolicyKind::Operator)
}

fn show_operator(call: &Call) -> Result<Answer, ApiError> {
    show_kind(call, PolicyKind::Operator)
}

fn set_operator(call: &Call) -> Result<Answer, ApiError> {
    set_kind(call, PolicyKind::Operator)
}

fn clear_operator(call: &Call) -> Result<Answer, ApiError> {
    clear_kind(call, PolicyKind::Operator)
}

/// Under which component a policy is seen as a parameter: RabbitMQ keeps it there.
fn component_of(kind: PolicyKind) -> &'static str {
    match kind {
        PolicyKind::User => "policy",
        PolicyKind::Operator => "operator_policy",
    }
}

fn kind_of(component: &str) -> Option<PolicyKind> {
    let kinds = [PolicyKind::User, PolicyKind::Operator];
    kinds.into_iter().find(|kind| component_of(*kind) == component)
}

/// A policy as the parameter that it is in RabbitMQ.
pub(super) fn as_parameter(policy: &Policy) -> Parameter {
    let mut value = render(policy);
    if let Value::Object(value) = &mut value {
        value.retain(|key, _| key != "vhost" && key != "name");
    }
    Parameter {
        vhost: policy.vhost.clone(),
        component: component_of(policy.kind).into(),
        name: policy.name.clone(),
        value,
    }
}

/// Operator policies are among all parameters, policies only where they are asked for.
fn list_parameters(call: &Call) -> Result<Answer, ApiError> {
    let component = call.name("component");
    let mut rows = call.handle.parameters();
    let kind = if component.is_empty() {
        Some(PolicyKind::Operator)
    } else {
        kind_of(component)
    };
    if let Some(kind) = kind {
        rows.extend(call.handle.policies(kind, None).iter().map(as_parameter));
    }
    rows.retain(|row| component.is_empty() || *row.component == *component);
    rows.retain(|row| call.vhost().is_none_or(|vhost| *row.vhost == *vhost));
    rows.retain(|row| call.caller.sees_vhost(&call.handle, &row.vhost));
    Ok(plain(call, &rows, render_parameter))
}

fn find_parameter(call: &Call) -> Result<Parameter, ApiError> {
    let (component, name) = (call.name("component"), call.name("name"));
    let vhost = call.vhost().unwrap_or("/");
    let found = match kind_of(component) {
        Some(kind) => call.handle.policy(kind, vhost, name).as_ref().map(as_parameter),
        None => call.handle.parameter(vhost, component, name),
    };
    found.ok_or_else(ApiError::not_found)
}

fn show_parameter(call: &Call) -> Result<Answer, ApiError> {
    Ok(single(call, render_parameter(&find_parameter(call)?)))
}

fn value(call: &Call) -> Result<Value, ApiError> {
    call.object()?
        .remove("value")
        .ok_or_else(|| ApiError::key_missing("value"))
}

fn set_parameter(call: &Call) -> Result<Answer, ApiError> {
    let parameter = Parameter {
        vhost: call.vhost().unwrap_or("/").into(),
        component: call.name("component").into(),
        name: call.name("name").into(),
        value: value(call)?,
    };
    let change = block_on(call.handle.set_parameter(parameter))?;
    Ok(Answer::put(change == Change::Created))
}

fn clear_parameter(call: &Call) -> Result<Answer, ApiError> {
    let found = find_parameter(call)?;
    if kind_of(&found.component).is_some() {
        return Err(ApiError::bad_request(
            "policies may not be cleared using this method",
        ));
    }
    block_on(
        call.handle
            .clear_parameter(&found.vhost, &found.component, &found.name),
    )?;
    Ok(Answer::no_content())
}

fn render_global(parameter: &GlobalParameter) -> Value {
    json!({"name": &*parameter.name, "value": parameter.value})
}

fn list_global(call: &Call) -> Result<Answer, ApiError> {
    Ok(plain(call, &call.handle.global_parameters(), render_global))
}

fn find_global(call: &Call) -> Result<GlobalParameter, ApiError> {
    let mut all = call.handle.global_parameters().into_iter();
    all.find(|parameter| *parameter.name == *call.name("name"))
        .ok_or_else(ApiError::not_found)
}

fn show_global(call: &Call) -> Result<Answer, ApiError> {
    Ok(single(call, render_global(&find_global(call)?)))
}

fn set_global(call: &Call) -> Result<Answer, ApiError> {
    let parameter = GlobalParameter {
        name: call.name("name").into(),
        value: value(call)?,
    };
    let change = block_on(call.handle.set_global_parameter(parameter))?;
    Ok(Answer::put(change == Change::Created))
}

fn clear_global(call: &Call) -> Result<Answer, ApiError> {
    find_global(call)?;
    block_on(call.handle.clear_global_parameter(call.name("name")))?;
    Ok(Answer::no_content())
}

fn cluster_name(call: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(json!({"name": call.handle.cluster_name()})))
}

fn set_cluster_name(call: &Call) -> Result<Answer, ApiError> {
    let object = call.object()?;
    let name = amqp_json::text_field(&object, "name")?.ok_or_else(|| ApiError::key_missing("name"))?;
    block_on(call.handle.set_global_parameter(GlobalParameter {
        name: "cluster_name".into(),
        value: name.into(),
    }))?;
    Ok(Answer::no_content())
}

/// Limits that were set, by name.
pub(super) fn limits(listed: Vec<(&'static str, i64)>) -> Value {
    let limits: Map<String, Value> = listed
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    Value::Object(limits)
}

fn vhost_limits(call: &Call) -> Result<Answer, ApiError> {
    let visible = call.visible_vhosts();
    let rows: Vec<Value> = call
        .handle
        .vhosts()
        .iter()
        .filter(|vhost| visible.iter().any(|name| **name == *vhost.name) && !vhost.limits.is_empty())
        .map(|vhost| json!({"vhost": &*vhost.name, "value": limits(vhost.limits.listed())}))
        .collect();
    Ok(Answer::json(rows.into()))
}

fn limit(call: &Call) -> Result<i64, ApiError> {
    value(call)?
        .as_i64()
        .ok_or_else(|| ApiError::bad_request("value should be an integer"))
}

fn set_vhost_limit(call: &Call) -> Result<Answer, ApiError> {
    let value = limit(call)?;
    let vhost = call.vhost().unwrap_or("/");
    block_on(call.handle.set_vhost_limit(vhost, call.name("name"), Some(value)))?;
    Ok(Answer::no_content())
}

fn clear_vhost_limit(call: &Call) -> Result<Answer, ApiError> {
    let vhost = call.vhost().unwrap_or("/");
    block_on(call.handle.set_vhost_limit(vhost, call.name("name"), None))?;
    Ok(Answer::no_content())
}

fn user_limits(call: &Call) -> Result<Answer, ApiError> {
    let wanted = call.name("user");
    if !call.caller.sees_user(wanted) {
        return Err(ApiError::not_authorised("User not authorised to access object"));
    }
    if !wanted.is_empty() && call.handle.user(wanted).is_none() {
        return Err(ApiError::not_found());
    }
    let rows: Vec<Value> = call
        .handle
        .users()
        .iter()
        .filter(|user| (wanted.is_empty() || *user.name == *wanted) && !user.limits.is_empty())
        .map(|user| json!({"user": &*user.name, "value": limits(user.limits.listed())}))
        .collect();
    Ok(Answer::json(rows.into()))
}

fn set_user_limit(call: &Call) -> Result<Answer, ApiError> {
    let value = limit(call)?;
    block_on(
        call.handle
            .set_user_limit(call.name("user"), call.name("name"), Some(value)),
    )?;
    Ok(Answer::no_content())
}

fn clear_user_limit(call: &Call) -> Result<Answer, ApiError> {
    block_on(
        call.handle
            .set_user_limit(call.name("user"), call.name("name"), None),
    )?;
    Ok(Answer::no_content())
}
