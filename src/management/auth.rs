//! Who calls, and what a caller's tags allow (management-api 1.6, 1.7).

use std::net::IpAddr;

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::management::answer::ApiError;
use crate::server::{Handle, LoginRefusal, Protocol};

/// A user who logged in, or nobody.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    /// The operator of this machine, who may do everything in every vhost without being a user.
    pub(super) local: bool,
}

impl Caller {
    /// Root or the broker's own user, over the control socket.
    pub(super) fn local() -> Self {
        Self {
            name: "leveretctl".to_owned(),
            tags: vec!["administrator".to_owned()],
            local: true,
        }
    }

    fn has(&self, tags: &[&str]) -> bool {
        self.tags.iter().any(|tag| tags.contains(&tag.as_str()))
    }

    /// Any of the four tags that open the API.
    pub(super) fn is_management(&self) -> bool {
        self.has(&["administrator", "monitoring", "policymaker", "management"])
    }

    pub(super) fn is_admin(&self) -> bool {
        self.has(&["administrator"])
    }

    pub(super) fn is_monitor(&self) -> bool {
        self.has(&["administrator", "monitoring"])
    }

    pub(super) fn is_policymaker(&self) -> bool {
        self.has(&["administrator", "policymaker"])
    }

    /// Lists show a vhost's objects to monitors, and to those who may log in to it.
    pub(super) fn sees_vhost(&self, handle: &Handle, vhost: &str) -> bool {
        self.is_monitor() || handle.may_enter(&self.name, vhost)
    }

    /// Connections, channels and consumers: one's own, or all for a monitor.
    pub(super) fn sees_user(&self, user: &str) -> bool {
        self.is_monitor() || self.name == user
    }
}

/// User and password of a Basic authorization header.
pub(super) fn basic(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at(colon);
    let password = password.get(1..).unwrap_or_default().to_vec();
    Some((String::from_utf8(user.to_vec()).ok()?, password))
}

/// Who sent these headers. Verifying a password may take milliseconds: not for a task that must not wait.
///
/// # Errors
/// 401, in three ways.
pub(super) fn caller(handle: &Handle, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, ApiError> {
    if !headers.contains_key(header::AUTHORIZATION) {
        return Err(ApiError::challenge());
    }
    let Some((user, password)) = basic(headers) else {
        return Err(ApiError::wrong_login());
    };
    login(handle, &user, &password, peer)
}

/// The user with this password.
///
/// # Errors
/// 401, in two ways.
pub(super) fn login(handle: &Handle, user: &str, password: &[u8], peer: IpAddr) -> Result<Caller, ApiError> {
    let tags = handle.login(user, password, peer);
    handle.note_auth_attempt(Protocol::Http, tags.is_ok());
    let name = user.to_owned();
    let local = false;
    tags.map(|tags| Caller { name, tags, local })
        .map_err(|refusal| match refusal {
            LoginRefusal::Credentials => ApiError::wrong_login(),
            LoginRefusal::TooManyFailures => ApiError::too_many_logins(),
            LoginRefusal::Loopback => ApiError::not_authorised("User can only log in via localhost"),
        })
}
