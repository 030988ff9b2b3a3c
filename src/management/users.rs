//! Users and what they may do (management-api 3.5, 4.11, 4.13).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::broker::{
    limits::UserLimits,
    permission::{Permission, TopicPermission},
    user::{HashingAlgorithm, PasswordHash, User},
};
use crate::management::{
    answer::{Answer, ApiError},
    call::{Call, block_on},
    json as amqp_json,
    list::{list, plain, single},
    route::{Level, Route, delete, get, post, put},
};
use crate::server::{Change, NewPassword, UserSpec};

pub(super) static ROUTES: [Route; 22] = [
    get("/users", Level::Admin, list_all, "All users"),
    get(
        "/users/without-permissions",
        Level::Admin,
        without_permissions,
        "Users who may enter no vhost",
    ),
    post(
        "/users/bulk-delete",
        Level::Admin,
        bulk_delete,
        "Deletes several users",
    ),
    get("/users/{user}", Level::Admin, show, "One user"),
    put("/users/{user}", Level::Admin, set, "Adds or changes a user"),
    delete("/users/{user}", Level::Admin, remove, "Deletes a user"),
    get(
        "/users/{user}/permissions",
        Level::Admin,
        of_user,
        "A user's permissions",
    ),
    get(
        "/users/{user}/topic-permissions",
        Level::Admin,
        topics_of_user,
        "A user's topic permissions",
    ),
    get("/permissions", Level::Admin, permissions, "All permissions"),
    get(
        "/vhosts/{vhost}/permissions",
        Level::Admin,
        permissions,
        "A vhost's permissions",
    ),
    get(
        "/permissions/{vhost}/{user}",
        Level::Admin,
        permission,
        "A user's permissions in a vhost",
    ),
    put(
        "/permissions/{vhost}/{user}",
        Level::Admin,
        permit,
        "Sets permissions",
    ),
    delete(
        "/permissions/{vhost}/{user}",
        Level::Admin,
        forbid,
        "Removes permissions",
    ),
    get(
        "/topic-permissions",
        Level::Admin,
        topics,
        "All topic permissions",
    ),
    get(
        "/vhosts/{vhost}/topic-permissions",
        Level::Admin,
        topics,
        "A vhost's topic permissions",
    ),
    get(
        "/topic-permissions/{vhost}/{user}",
        Level::Admin,
        topic,
        "A user's topic permissions in a vhost",
    ),
    put(
        "/topic-permissions/{vhost}/{user}",
        Level::Admin,
        permit_topic,
        "Sets topic permissions",
    ),
    delete(
        "/topic-permissions/{vhost}/{user}",
        Level::Admin,
        forbid_topics,
        "Removes topic permissions",
    ),
    get(
        "/topic-permissions/{vhost}/{user}/{exchange}",
        Level::Admin,
        topic,
        "A user's topic permissions on an exchange",
    ),
    delete(
        "/topic-permissions/{vhost}/{user}/{exchange}",
        Level::Admin,
        forbid_topics,
        "Removes topic permissions on an exchange",
    ),
    get(
        "/auth/hash_password/{password}",
        Level::Admin,
        hash,
        "A password's hash, for definition files",
    ),
    put(
        "/auth/hash_password",
        Level::Admin,
        hash_body,
        "A password's hash, for definition files; the password comes in the body",
    ),
];

pub(super) fn render(user: &User) -> Value {
    let limits: Map<String, Value> = user
        .limits
        .listed()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    // What nobody can log in with is no hash of ours: RabbitMQ shall read it.
    let algorithm = if user.password.bytes.is_empty() {
        HashingAlgorithm::Sha256
    } else {
        user.password.algorithm
    };
    json!({
        "name": &*user.name,
        "password_hash": STANDARD.encode(&user.password.bytes),
        "hashing_algorithm": algorithm.name(),
        "tags": user.tags,
        "limits": limits,
    })
}

pub(super) fn render_permission(permission: &Permission) -> Value {
    json!({
        "user": &*permission.user,
        "vhost": &*permission.vhost,
        "configure": permission.configure,
        "write": permission.write,
        "read": permission.read,
    })
}

pub(super) fn render_topic(topic: &TopicPermission) -> Value {
    json!({
        "user": &*topic.user,
        "vhost": &*topic.vhost,
        "exchange": &*topic.exchange,
        "write": topic.write,
        "read": topic.read,
    })
}

fn list_all(call: &Call) -> Result<Answer, ApiError> {
    list(call, call.handle.users(), |user| &user.name, |user| render(user))
}

fn without_permissions(call: &Call) -> Result<Answer, ApiError> {
    let users = call.handle.users_without_permissions();
    Ok(plain(call, &users, |user| render(user)))
}

fn bulk_delete(call: &Call) -> Result<Answer, ApiError> {
    let object = call.object()?;
    let Some(Value::Array(names)) = object.get("users") else {
        return Err(ApiError::key_missing("users"));
    };
    let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
    for name in names.ok_or_else(|| ApiError::bad_request("users should be a list of names"))? {
        if let Some(user) = call.handle.user(name) {
            check_protected(&user)?;
            block_on(call.handle.delete_user(name))?;
        }
    }
    Ok(Answer::no_content())
}

fn find(call: &Call) -> Result<std::sync::Arc<User>, ApiError> {
    call.handle
        .user(call.name("user"))
        .ok_or_else(ApiError::not_found)
}

fn show(call: &Call) -> Result<Answer, ApiError> {
    Ok(single(call, render(&*find(call)?)))
}

fn check_protected(user: &User) -> Result<(), ApiError> {
    if user.has_tag("protected") {
        return Err(ApiError::bad_request(format!(
            "User '{}' is protected",
            user.name
        )));
    }
    Ok(())
}

/// Tags as a list, or as text with commas.
pub(super) fn tags(value: &Value) -> Result<Vec<String>, ApiError> {
    let bad = || ApiError::bad_request("tags should be a list or a comma-separated string");
    match value {
        Value::String(text) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
            .map(ToOwned::to_owned)
            .collect()),
        Value::Array(tags) => tags
            .iter()
            .map(|tag| tag.as_str().map(ToOwned::to_owned).ok_or_else(bad))
            .collect(),
        _ => Err(bad()),
    }
}

/// What a body says of a user. `algorithm` is assumed for a hash without one.
pub(super) fn spec(
    name: &str,
    object: &Map<String, Value>,
    algorithm: HashingAlgorithm,
) -> Result<UserSpec, ApiError> {
    let tags = match (object.get("tags"), object.get("administrator")) {
        (Some(value), _) => tags(value)?,
        (None, Some(flag)) if *flag == "true" || *flag == true => vec!["administrator".to_owned()],
        _ => return Err(ApiError::key_missing("tags")),
    };
    let algorithm = match amqp_json::text_field(object, "hashing_algorithm")? {
        Some(name) => HashingAlgorithm::parse(name)
            .ok_or_else(|| ApiError::bad_request(format!("unknown hashing algorithm '{name}'")))?,
        None => algorithm,
    };
    let clear = amqp_json::text_field(object, "password")?;
    let password = match (clear, amqp_json::text_field(object, "password_hash")?) {
        (Some(_), Some(_)) => {
            let text = "both password and password_hash are given; one is enough";
            return Err(ApiError::bad_request(text));
        }
        (Some(password), None) => NewPassword::Clear(password.to_owned()),
        (None, Some("")) | (None, None) => NewPassword::None,
        (None, Some(hash)) => NewPassword::Hash(PasswordHash {
            algorithm,
            bytes: STANDARD
                .decode(hash)
                .map_err(|_bytes| ApiError::bad_request("password_hash is not base64"))?,
        }),
    };
    let limits = match object.get("limits") {
        None | Some(Value::Null) => None,
        Some(Value::Array(values)) if values.is_empty() => None,
        Some(value) => Some(UserLimits::parse(value).map_err(ApiError::bad_request)?),
    };
    Ok(UserSpec {
        name: name.to_owned(),
        password,
        tags,
        limits,
    })
}

fn set(call: &Call) -> Result<Answer, ApiError> {
    let object = call.object()?;
    if let Some(user) = call.handle.user(call.name("user")) {
        check_protected(&user)?;
    }
    let spec = spec(call.name("user"), &object, HashingAlgorithm::Sha256)?;
    let change = block_on(call.handle.put_user(spec))?;
    if change == Change::Created
        && let Some(Value::Object(permissions)) = object.get("permissions")
    {
        for (vhost, value) in permissions {
            let fields = value.as_object().cloned().unwrap_or_default();
            let permission = read_permission(&fields, vhost, call.name("user"))?;
            block_on(call.handle.set_permission(permission))?;
        }
    }
    Ok(Answer::put(change == Change::Created))
}

fn remove(call: &Call) -> Result<Answer, ApiError> {
    check_protected(&*find(call)?)?;
    block_on(call.handle.delete_user(call.name("user")))?;
    Ok(Answer::no_content())
}

fn of_user(call: &Call) -> Result<Answer, ApiError> {
    let user = find(call)?;
    let mut rows = call.handle.permissions();
    rows.retain(|row| row.user == user.name);
    Ok(plain(call, &rows, render_permission))
}

fn topics_of_user(call: &Call) -> Result<Answer, ApiError> {
    let user = find(call)?;
    let mut rows = call.handle.topic_permissions();
    rows.retain(|row| row.user == user.name);
    Ok(plain(call, &rows, render_topic))
}

fn check_vhost(call: &Call) -> Result<(), ApiError> {
    match call.vhost() {
        Some(vhost) if !call.handle.vhost_exists(vhost) => Err(ApiError::not_found()),
        _ => Ok(()),
    }
}

fn permissions(call: &Call) -> Result<Answer, ApiError> {
    check_vhost(call)?;
    let mut rows = call.handle.permissions();
    rows.retain(|row| call.vhost().is_none_or(|vhost| *row.vhost == *vhost));
    rows.sort_by(|left, right| (&left.vhost, &left.user).cmp(&(&right.vhost, &right.user)));
    Ok(plain(call, &rows, render_permission))
}

fn permission(call: &Call) -> Result<Answer, ApiError> {
    let found = call
        .handle
        .permission(call.name("user"), call.vhost().unwrap_or("/"));
    let found = found.ok_or_else(ApiError::not_found)?;
    Ok(single(call, render_permission(&found)))
}

fn required(object: &Map<String, Value>, key: &str) -> Result<String, ApiError> {
    amqp_json::text_field(object, key)?
        .map(ToOwned::to_owned)
        .ok_or_else(|| ApiError::key_missing(key))
}

pub(super) fn read_permission(
    object: &Map<String, Value>,
    vhost: &str,
    user: &str,
) -> Result<Permission, ApiError> {
    Ok(Permission {
        user: user.into(),
        vhost: vhost.into(),
        configure: required(object, "configure")?,
        write: required(object, "write")?,
        read: required(object, "read")?,
    })
}

pub(super) fn read_topic(
    object: &Map<String, Value>,
    vhost: &str,
    user: &str,
) -> Result<TopicPermission, ApiError> {
    Ok(TopicPermission {
        user: user.into(),
        vhost: vhost.into(),
        exchange: required(object, "exchange")?.into(),
        write: required(object, "write")?,
        read: required(object, "read")?,
    })
}

fn permit(call: &Call) -> Result<Answer, ApiError> {
    let permission = read_permission(&call.object()?, call.vhost().unwrap_or("/"), call.name("user"))?;
    let change = block_on(call.handle.set_permission(permission))?;
    Ok(Answer::put(change == Change::Created))
}

fn forbid(call: &Call) -> Result<Answer, ApiError> {
    let (user, vhost) = (call.name("user"), call.vhost().unwrap_or("/"));
    if call.handle.permission(user, vhost).is_none() {
        return Err(ApiError::not_found());
    }
    block_on(call.handle.clear_permission(user, vhost))?;
    Ok(Answer::no_content())
}

fn topics(call: &Call) -> Result<Answer, ApiError> {
    check_vhost(call)?;
    let mut rows = call.handle.topic_permissions();
    rows.retain(|row| call.vhost().is_none_or(|vhost| *row.vhost == *vhost));
    Ok(plain(call, &rows, render_topic))
}

/// The exchange in the path, if there is one.
fn exchange(call: &Call) -> Option<&str> {
    Some(call.exchange("exchange")).filter(|_| !call.name("exchange").is_empty())
}

fn found_topics(call: &Call) -> Result<Vec<TopicPermission>, ApiError> {
    let mut rows = call.handle.topic_permissions();
    let vhost = call.vhost().unwrap_or("/");
    rows.retain(|row| *row.vhost == *vhost && *row.user == *call.name("user"));
    rows.retain(|row| exchange(call).is_none_or(|exchange| *row.exchange == *exchange));
    if rows.is_empty() {
        return Err(ApiError::not_found());
    }
    Ok(rows)
}

fn topic(call: &Call) -> Result<Answer, ApiError> {
    Ok(plain(call, &found_topics(call)?, render_topic))
}

fn permit_topic(call: &Call) -> Result<Answer, ApiError> {
    let topic = read_topic(&call.object()?, call.vhost().unwrap_or("/"), call.name("user"))?;
    let change = block_on(call.handle.set_topic_permission(topic))?;
    Ok(Answer::put(change == Change::Created))
}

fn forbid_topics(call: &Call) -> Result<Answer, ApiError> {
    found_topics(call)?;
    let (user, vhost) = (call.name("user"), call.vhost().unwrap_or("/"));
    block_on(call.handle.clear_topic_permissions(user, vhost, exchange(call)))?;
    Ok(Answer::no_content())
}

fn hash_of(call: &Call, password: &str) -> Result<Answer, ApiError> {
    let hash = call
        .handle
        .hash_password(password.to_owned(), Some(HashingAlgorithm::Sha256));
    let hash = block_on(hash)?;
    Ok(Answer::json(json!({"ok": STANDARD.encode(hash.bytes)})))
}

fn hash(call: &Call) -> Result<Answer, ApiError> {
    hash_of(call, call.name("password"))
}

fn hash_body(call: &Call) -> Result<Answer, ApiError> {
    hash_of(call, &required(&call.object()?, "password")?)
}
