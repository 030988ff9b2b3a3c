//! Vhosts (management-api 3.5, 4.10).

use serde_json::{Map, Value, json};

use crate::broker::{definition::VhostDefinition, permission::Permission};
use crate::management::{
    answer::{Answer, ApiError},
    call::{Call, block_on},
    json as amqp_json,
    list::{list, single},
    nodes::check_node,
    overview,
    route::{Level, Route, delete, get, post, put},
    samples::{self, LENGTHS, OCTETS, OF_ALL, Ranges},
    users,
};
use crate::server::{Change, Subject, VhostSpec};

pub(super) static ROUTES: [Route; 7] = [
    get("/vhosts", Level::Any, list_all, "All vhosts"),
    get("/vhosts/{vhost}", Level::Vhost, show, "One vhost"),
    put("/vhosts/{name}", Level::Admin, set, "Adds or changes a vhost"),
    delete(
        "/vhosts/{name}",
        Level::Admin,
        remove,
        "Deletes a vhost with everything in it",
    ),
    post(
        "/vhosts/{vhost}/deletion/protection",
        Level::Admin,
        protect,
        "Protects a vhost from deletion",
    ),
    delete(
        "/vhosts/{vhost}/deletion/protection",
        Level::Admin,
        unprotect,
        "Lifts the protection from deletion",
    ),
    post(
        "/vhosts/{vhost}/start/{node}",
        Level::Admin,
        start,
        "Vhosts run as long as the node",
    ),
];

fn list_all(call: &Call) -> Result<Answer, ApiError> {
    let ranges = call.ranges()?;
    let visible = call.visible_vhosts();
    let mut rows = call.handle.vhosts();
    rows.retain(|vhost| visible.iter().any(|name| **name == *vhost.name));
    list(
        call,
        rows,
        |vhost| &vhost.name,
        |vhost| render(call, vhost, ranges),
    )
}

fn find(call: &Call) -> Result<VhostDefinition, ApiError> {
    let name = call.vhost().unwrap_or_else(|| call.name("name"));
    call.handle.vhost_definition(name).ok_or_else(ApiError::not_found)
}

fn show(call: &Call) -> Result<Answer, ApiError> {
    Ok(single(call, render(call, &find(call)?, call.ranges()?)))
}

/// Description, tags and default queue type, as definition files have them.
pub(super) fn metadata(vhost: &VhostDefinition) -> Value {
    json!({
        "description": vhost.description,
        "tags": vhost.tags,
        "default_queue_type": vhost.default_queue_type.as_deref().unwrap_or("classic"),
    })
}

fn render(call: &Call, vhost: &VhostDefinition, ranges: Ranges) -> Value {
    let mut object = json!({
        "name": &*vhost.name,
        "description": vhost.description,
        "tags": vhost.tags,
        "default_queue_type": vhost.default_queue_type.as_deref().unwrap_or("classic"),
        "metadata": metadata(vhost),
        "tracing": call.handle.is_traced(&vhost.name).unwrap_or(false),
        "protected_from_deletion": vhost.protected,
        "cluster_state": {call.handle.node_name(): "running"},
    });
    let Value::Object(fields) = &mut object else {
        return object;
    };
    if call.query.is_true("disable_stats") {
        return object;
    }
    let (counts, ready, unacked) = overview::totals(&call.handle, &[vhost.name.to_string()]);
    let subject = Subject::Vhost(vhost.name.clone());
    let row = samples::row(&counts, ready, unacked);
    fields.extend(samples::with_details(
        &call.handle,
        &subject,
        &LENGTHS,
        &row,
        ranges.lengths,
    ));
    let mut octets = row;
    let (received, sent) = call.handle.vhost_octets(&vhost.name);
    octets.extend([received, sent]);
    fields.extend(samples::with_details(
        &call.handle,
        &subject,
        &OCTETS,
        &octets,
        ranges.data_rates,
    ));
    let stats = samples::message_stats(&call.handle, &subject, &OF_ALL, &counts, ranges.msg_rates);
    if let Some(stats) = stats {
        fields.insert("message_stats".to_owned(), stats);
    }
    object
}

/// What a body or a definition says of a vhost; metadata may stand by itself or among the rest.
pub(super) fn spec(object: &Map<String, Value>) -> Result<VhostSpec, ApiError> {
    let empty = Map::new();
    let metadata = object
        .get("metadata")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let text = |key: &str| -> Result<Option<String>, ApiError> {
        let outer = amqp_json::text_field(object, key)?;
        let inner = amqp_json::text_field(metadata, key)?;
        Ok(outer.or(inner).map(ToOwned::to_owned))
    };
    let tags = object
        .get("tags")
        .or(metadata.get("tags"))
        .filter(|tags| !tags.is_null());
    let protected = object
        .get("protected_from_deletion")
        .or(metadata.get("protected_from_deletion"));
    Ok(VhostSpec {
        description: text("description")?,
        tags: tags.map(users::tags).transpose()?,
        default_queue_type: text("default_queue_type")?,
        protected: protected.and_then(Value::as_bool),
    })
}

fn set(call: &Call) -> Result<Answer, ApiError> {
    let name = amqp_json::new_name(call.name("name"))?;
    let object = call.object()?;
    let tracing = match object.get("tracing") {
        None | Some(Value::Null) => None,
        Some(_) => Some(amqp_json::flag(&object, "tracing", false)?),
    };
    let change = block_on(call.handle.put_vhost(name, spec(&object)?))?;
    if let Some(on) = tracing
        && !call.handle.set_tracing(name, on)
    {
        // Deleted meanwhile.
        return Err(ApiError::not_found());
    }
    if change == Change::Created && !call.caller.local {
        // Who makes a vhost may use it.
        let all = || ".*".to_owned();
        block_on(call.handle.set_permission(Permission {
            user: call.caller.name.as_str().into(),
            vhost: name.into(),
            configure: all(),
            write: all(),
            read: all(),
        }))?;
    }
    Ok(Answer::put(change == Change::Created))
}

fn remove(call: &Call) -> Result<Answer, ApiError> {
    let vhost = find(call)?;
    if vhost.protected {
        let text = format!(
            "Cannot delete vhost '{}': it is protected from deletion",
            vhost.name
        );
        return Err(ApiError::precondition(text));
    }
    block_on(call.handle.delete_vhost(&vhost.name))?;
    Ok(Answer::no_content())
}

fn set_protection(call: &Call, protected: bool) -> Result<Answer, ApiError> {
    let vhost = find(call)?;
    let spec = VhostSpec {
        protected: Some(protected),
        ..VhostSpec::default()
    };
    block_on(call.handle.put_vhost(&vhost.name, spec))?;
    Ok(Answer::no_content())
}

fn protect(call: &Call) -> Result<Answer, ApiError> {
    set_protection(call, true)
}

fn unprotect(call: &Call) -> Result<Answer, ApiError> {
    set_protection(call, false)
}

fn start(call: &Call) -> Result<Answer, ApiError> {
    find(call)?;
    check_node(call).map_err(|_other| ApiError::bad_request("unknown node"))?;
    Ok(Answer::no_content())
}
