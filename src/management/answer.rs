//! What a call is answered: a status and JSON, or an error as the reference words it (management-api 1.5).

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::broker::error::BrokerError;
use crate::protocol::reply_code::ReplyCode;
use crate::server::{AdminError, OperateError};

/// A successful answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Body,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
pub(super) enum Body {
    Empty,
    Json(Value),
    /// Content type and text.
    Text(&'static str, String),
}

impl Answer {
    fn new(status: StatusCode, body: Body) -> Self {
        Self {
            status,
            body,
            headers: Vec::new(),
        }
    }

    pub(super) fn json(value: Value) -> Self {
        Self::new(StatusCode::OK, Body::Json(value))
    }

    pub(super) fn text(kind: &'static str, text: String) -> Self {
        Self::new(StatusCode::OK, Body::Text(kind, text))
    }

    pub(super) fn no_content() -> Self {
        Self::new(StatusCode::NO_CONTENT, Body::Empty)
    }

    /// What a PUT answers: 201 when the resource is new.
    pub(super) fn put(created: bool) -> Self {
        if created {
            Self::new(StatusCode::CREATED, Body::Empty)
        } else {
            Self::no_content()
        }
    }

    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    error: &'static str,
    reason: String,
    /// The whole body when it is not just error and reason.
    body: Option<Value>,
    /// Asks a browser, and clients that wait to be asked, for a password.
    challenge: bool,
}

impl ApiError {
    fn new(status: StatusCode, error: &'static str, reason: impl Into<String>) -> Self {
        Self {
            status,
            error,
            reason: reason.into(),
            body: None,
            challenge: false,
        }
    }

    pub(super) fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", reason)
    }

    /// 400 with another word than `bad_request`.
    pub(super) fn refused(error: &'static str, reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, reason)
    }

    pub(super) fn key_missing(key: &str) -> Self {
        Self::bad_request(format!("[{{key_missing,{key}}}]"))
    }

    /// The same for several keys, as the reference lists them.
    pub(super) fn keys_missing(keys: &[&str]) -> Self {
        let keys: Vec<String> = keys.iter().map(|key| format!("{{key_missing,{key}}}")).collect();
        Self::bad_request(format!("[{}]", keys.join(",")))
    }

    /// The generic missing resource.
    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Object Not Found", "Not Found")
    }

    /// A named one: `vhost_not_found`, or the broker's text.
    pub(super) fn missing(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", reason)
    }

    /// Logged in, and not allowed.
    pub(super) fn not_authorised(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_authorised", reason)
    }

    /// Wrong user or password. Without a challenge: the UI shows its own form.
    pub(super) fn wrong_login() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "not_authorized", "Not_Authorized")
    }

    /// Too many failed logins from that address lately: no password is looked at.
    pub(super) fn too_many_logins() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            "too many failed logins from this address; try again in a minute",
        )
    }

    /// No credentials: NServiceBus sends them only after this.
    pub(super) fn challenge() -> Self {
        Self {
            challenge: true,
            ..Self::new(StatusCode::UNAUTHORIZED, "", "")
        }
    }

    pub(super) fn precondition(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", reason)
    }

    pub(super) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "bad_request",
            "Exceeded HTTP request body size limit",
        )
    }

    pub(super) fn compressed() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "compressed request bodies are not accepted",
        )
    }

    pub(super) fn foreign_origin() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "changes from pages of another origin are not accepted",
        )
    }

    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", reason)
    }

    pub(super) fn internal(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", reason)
    }

    /// A failed health check: 503 with this body.
    pub(super) fn unhealthy(body: Value) -> Self {
        Self {
            body: Some(body),
            ..Self::unavailable("")
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        let body = match self.body {
            Some(body) => Body::Json(body),
            None if self.challenge => Body::Empty,
            None => Body::Json(json!({"error": self.error, "reason": self.reason})),
        };
        let answer = Answer::new(self.status, body);
        if self.challenge {
            answer.header(header::WWW_AUTHENTICATE, "Basic realm=\"RabbitMQ Management\"")
        } else {
            answer
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.reason)
    }
}

/// A refusal of the broker's, raised on behalf of the caller.
impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> Self {
        match error.reply_code() {
            ReplyCode::NotFound => Self::missing(error.to_string()),
            ReplyCode::AccessRefused | ReplyCode::NotAllowed => Self::not_authorised("Access refused."),
            ReplyCode::InternalError => Self::unavailable(error.to_string()),
            _ => Self::bad_request(error.to_string()),
        }
    }
}

impl From<OperateError> for ApiError {
    fn from(error: OperateError) -> Self {
        match error {
            OperateError::NoVhost => Self::missing("vhost_not_found"),
            OperateError::Broker(error) => error.into(),
            OperateError::Refused => {
                Self::bad_request("rejected: unable to publish message. Check queue limits.")
            }
            OperateError::Timeout => Self::unavailable(error.to_string()),
        }
    }
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Protected(_) => Self::precondition(error.to_string()),
            AdminError::StoreFailed => Self::unavailable(error.to_string()),
            AdminError::Missing(..) | AdminError::Invalid(_) => Self::bad_request(error.to_string()),
        }
    }
}
