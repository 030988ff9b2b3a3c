//! One request, as the resources see it: who calls, the names in the path, the query and the body.

use std::{future::Future, net::IpAddr};

use axum::http::HeaderMap;
use serde_json::{Map, Value};

use crate::broker::permission::Verb;
use crate::management::{
    answer::ApiError,
    auth::Caller,
    route::{Level, decode},
    samples::Ranges,
};
use crate::protocol::field::{FieldTable, FieldValue};
use crate::server::{AdminError, Handle};

pub(super) struct Call {
    pub(super) handle: Handle,
    pub(super) settings: std::sync::Arc<super::Settings>,
    /// Nobody on routes that need no login.
    pub(super) caller: Caller,
    pub(super) names: Vec<(&'static str, String)>,
    pub(super) query: Query,
    pub(super) headers: HeaderMap,
    pub(super) peer: IpAddr,
    pub(super) body: Vec<u8>,
}

impl Call {
    /// The segment that stands at `{name}` in the route's path.
    pub(super) fn name(&self, name: &str) -> &str {
        self.names
            .iter()
            .find(|(known, _)| *known == name)
            .map_or("", |(_, value)| value)
    }

    /// The vhost in the path, or the one that the UI chose in a header, or none.
    pub(super) fn vhost(&self) -> Option<&str> {
        if let Some((_, vhost)) = self.names.iter().find(|(name, _)| *name == "vhost") {
            return Some(vhost_name(vhost));
        }
        self.headers
            .get("x-vhost")
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.trim().is_empty())
    }

    /// An exchange's name in the path: `amq.default` stands for the one without a name.
    pub(super) fn exchange(&self, name: &str) -> &str {
        match self.name(name) {
            "amq.default" => "",
            other => other,
        }
    }

    /// The body as an object; nothing counts as an empty one.
    ///
    /// # Errors
    /// 400 `not_json`.
    pub(super) fn object(&self) -> Result<Map<String, Value>, ApiError> {
        object(&self.body, "not_json")
    }

    pub(super) fn ranges(&self) -> Result<Ranges, ApiError> {
        Ranges::parse(&self.query)
    }

    /// The caller passes the level for this call.
    ///
    /// # Errors
    /// 401 with the reference's words, or 404 for a vhost that the caller cannot see.
    pub(super) fn allow(&self, level: Level, creates: bool) -> Result<(), ApiError> {
        let caller = &self.caller;
        if level == Level::Nobody {
            return Ok(());
        }
        if !caller.is_management() {
            return Err(ApiError::not_authorised("Not management user"));
        }
        match level {
            Level::Monitor if !caller.is_monitor() => {
                return Err(ApiError::not_authorised("Not monitor user"));
            }
            Level::Admin if !caller.is_admin() => {
                return Err(ApiError::not_authorised("Not administrator user"));
            }
            Level::Policy | Level::GlobalParameter if !caller.is_policymaker() => {
                return Err(ApiError::not_authorised("User not authorised to access object"));
            }
            _ => {}
        }
        if matches!(level, Level::Vhost | Level::Policy)
            && let Some((_, vhost)) = self.names.iter().find(|(name, _)| *name == "vhost")
        {
            let vhost = vhost_name(vhost);
            if !self.handle.vhost_exists(vhost) {
                return Err(if creates {
                    ApiError::missing("vhost_not_found")
                } else {
                    ApiError::not_found()
                });
            }
            if !caller.sees_vhost(&self.handle, vhost) {
                return Err(ApiError::missing("Not Found"));
            }
        }
        Ok(())
    }

    /// The caller may do this to an object of the call's vhost, as over AMQP: administrators too need permissions.
    ///
    /// # Errors
    /// 401.
    pub(super) fn permit(&self, verb: Verb, name: &str) -> Result<(), ApiError> {
        let local = self.caller.local;
        if local
            || self
                .handle
                .may(&self.caller.name, self.vhost().unwrap_or("/"), verb, name)
        {
            Ok(())
        } else {
            Err(ApiError::not_authorised("Access refused."))
        }
    }

    /// The exchange that an argument names may be used by what is declared: reading from the one, writing to the other, as
    /// over AMQP. Asked only for what is new.
    ///
    /// # Errors
    /// 401.
    pub(super) fn permit_argument(
        &self,
        arguments: &FieldTable,
        argument: &str,
        declared: &str,
    ) -> Result<(), ApiError> {
        let Some(FieldValue::LongString(target)) = arguments.get(argument) else {
            return Ok(());
        };
        self.permit(Verb::Read, declared)?;
        self.permit(Verb::Write, &String::from_utf8_lossy(target))
    }

    /// Vhosts whose objects a list may show: the one asked for, or all that the caller may see.
    pub(super) fn visible_vhosts(&self) -> Vec<String> {
        let vhosts = self.handle.vhost_names();
        vhosts
            .iter()
            .filter(|vhost| self.vhost().is_none_or(|wanted| wanted == &***vhost))
            .filter(|vhost| self.caller.sees_vhost(&self.handle, vhost))
            .map(ToString::to_string)
            .collect()
    }
}

/// Waits for a change to be durable; calls run on threads that may wait.
///
/// # Errors
/// The change's own.
pub(super) fn block_on<T>(change: impl Future<Output = Result<T, AdminError>>) -> Result<T, ApiError> {
    tokio::runtime::Handle::current()
        .block_on(change)
        .map_err(ApiError::from)
}

/// Flower writes the default vhost as an empty segment.
pub(super) fn vhost_name(segment: &str) -> &str {
    if segment.is_empty() { "/" } else { segment }
}

/// Reads a JSON object.
///
/// # Errors
/// 400 with this reason.
pub(super) fn object(body: &[u8], reason: &str) -> Result<Map<String, Value>, ApiError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    if body.is_empty() || body == b"null" || body == b"undefined" {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(ApiError::bad_request(reason)),
    }
}

/// The query, decoded; a key may come several times.
#[derive(Default)]
pub(super) struct Query(Vec<(String, String)>);

/// Pairs beyond this are not looked at.
const PAIRS_MAX: usize = 256;

impl Query {
    /// Takes a raw query apart. What is not UTF-8 is dropped; `+` is a space here.
    pub(super) fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).take(PAIRS_MAX);
        Self(
            pairs
                .filter_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    let text = |part: &str| decode(&part.replace('+', " ")).ok();
                    Some((text(key)?, text(value)?))
                })
                .collect(),
        )
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0
            .iter()
            .filter(move |(known, _)| known == key)
            .map(|(_, value)| value.as_str())
    }

    /// All pairs, in order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub(super) fn is_true(&self, key: &str) -> bool {
        self.get(key) == Some("true")
    }
}
