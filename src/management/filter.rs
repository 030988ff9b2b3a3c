//! Which messages an operator means: by exchange, routing key, header, property, text in the body, size.

use serde_json::{Map, Value};

use crate::management::{
    answer::ApiError,
    call::Query,
    messages::{body, show_properties},
};
use crate::server::Sight;

/// Conditions of one filter.
const CONDITIONS_MAX: usize = 32;
/// What of a body is searched, bytes.
const SEARCHED_BYTES: usize = 16 * 1024 * 1024;

/// What a filter in a body may have.
const CONDITIONS: [&str; 9] = [
    "exchange",
    "routing_key",
    "headers",
    "properties",
    "text",
    "bytes_min",
    "bytes_max",
    "redelivered",
    "state",
];

/// All of its conditions must hold; none is every message.
#[derive(Default)]
pub(super) struct Filter {
    exchange: Option<String>,
    routing_key: Option<String>,
    /// Names and values as they are shown.
    headers: Vec<(String, String)>,
    properties: Vec<(String, String)>,
    /// Somewhere in the body.
    text: Option<Vec<u8>>,
    bytes_min: Option<u64>,
    bytes_max: Option<u64>,
    redelivered: Option<bool>,
    /// `ready` or `waiting`.
    state: Option<String>,
}

impl Filter {
    /// From a query: `exchange`, `routing_key`, `header.NAME`, `property.NAME`, `text`, `bytes_min`, `bytes_max`,
    /// `redelivered`, `state`.
    ///
    /// # Errors
    /// 400.
    pub(super) fn of_query(query: &Query) -> Result<Self, ApiError> {
        let mut object = Map::new();
        let (mut headers, mut properties) = (Map::new(), Map::new());
        for (key, value) in query.pairs() {
            if let Some(name) = key.strip_prefix("header.") {
                headers.insert(name.to_owned(), value.into());
            } else if let Some(name) = key.strip_prefix("property.") {
                properties.insert(name.to_owned(), value.into());
            } else {
                object.insert(key.to_owned(), value.into());
            }
        }
        object.insert("headers".to_owned(), headers.into());
        object.insert("properties".to_owned(), properties.into());
        Self::read(&object)
    }

    /// From a body, with `headers` and `properties` as objects.
    ///
    /// # Errors
    /// 400, also for a condition that is not known: who misspells one must not have every message deleted.
    pub(super) fn of_object(object: &Map<String, Value>) -> Result<Self, ApiError> {
        match object.keys().find(|key| !CONDITIONS.contains(&key.as_str())) {
            Some(unknown) => Err(ApiError::bad_request(format!(
                "unknown condition '{unknown}' in filter"
            ))),
            None => Self::read(object),
        }
    }

    fn read(object: &Map<String, Value>) -> Result<Self, ApiError> {
        let text = |key: &str| match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(ApiError::bad_request(format!("{key} should be a string"))),
        };
        let flag = match object.get("redelivered") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(flag)) => Some(*flag),
            Some(Value::String(word)) if word == "true" || word == "false" => Some(word == "true"),
            Some(_) => return Err(ApiError::bad_request("redelivered should be true or false")),
        };
        let state = text("state")?.filter(|state| !state.is_empty());
        if state
            .as_deref()
            .is_some_and(|state| !matches!(state, "ready" | "waiting"))
        {
            return Err(ApiError::bad_request("state should be ready or waiting"));
        }
        Ok(Self {
            exchange: text("exchange")?,
            routing_key: text("routing_key")?,
            headers: named(object, "headers")?,
            properties: named(object, "properties")?,
            text: text("text")?
                .filter(|text| !text.is_empty())
                .map(String::into_bytes),
            bytes_min: number(object, "bytes_min")?,
            bytes_max: number(object, "bytes_max")?,
            redelivered: flag,
            state,
        })
    }

    pub(super) fn accepts(&self, sight: &Sight) -> bool {
        let message = &sight.message;
        let is = |wanted: &Option<String>, found: &[u8]| {
            wanted.as_ref().is_none_or(|wanted| wanted.as_bytes() == found)
        };
        let bytes = message.body_len();
        is(&self.exchange, message.exchange())
            && is(&self.routing_key, message.routing_key())
            && self.redelivered.is_none_or(|wanted| wanted == sight.redelivered)
            && self.state.as_ref().is_none_or(|wanted| wanted == sight.state())
            && self.bytes_min.is_none_or(|min| bytes >= min)
            && self.bytes_max.is_none_or(|max| bytes <= max)
            && self.accepts_properties(message.properties())
            && self.text.as_ref().is_none_or(|text| {
                let body = body(message, SEARCHED_BYTES);
                body.windows(text.len()).any(|window| window == text.as_slice())
            })
    }

    fn accepts_properties(&self, raw: &[u8]) -> bool {
        if self.headers.is_empty() && self.properties.is_empty() {
            return true;
        }
        let shown = show_properties(raw);
        let holds = |object: Option<&Value>, wanted: &[(String, String)]| {
            wanted.iter().all(|(name, wanted)| {
                let found = object.and_then(|object| object.get(name));
                found.is_some_and(|found| as_text(found) == *wanted)
            })
        };
        holds(Some(&shown), &self.properties) && holds(shown.get("headers"), &self.headers)
    }
}

/// A value as it is compared: text as it is, everything else as JSON.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn named(object: &Map<String, Value>, key: &str) -> Result<Vec<(String, String)>, ApiError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(pairs)) if pairs.len() <= CONDITIONS_MAX => Ok(pairs
            .iter()
            .map(|(name, value)| (name.clone(), as_text(value)))
            .collect()),
        Some(Value::Object(_)) => Err(ApiError::bad_request(format!("more than {CONDITIONS_MAX} {key}"))),
        Some(_) => Err(ApiError::bad_request(format!("{key} should be an object"))),
    }
}

/// A count in a body or, as text, in a query.
///
/// # Errors
/// 400.
pub(super) fn number(object: &Map<String, Value>, key: &str) -> Result<Option<u64>, ApiError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_no_number| ()),
        Some(value) => value.as_u64().map(Some).ok_or(()),
    }
    .map_err(|()| ApiError::bad_request(format!("{key} should be a whole number that is not negative")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{
        ids::{Seq, Timestamp},
        message::{Message, MessageParts},
        queue::Place,
    };

    fn sight(key: &str, body: &str) -> Sight {
        let parts = MessageParts {
            exchange: b"x",
            routing_key: key.as_bytes(),
            properties: &[0, 0],
            persistent: false,
            priority: 0,
        };
        Sight {
            place: Place { lane: 0, seq: Seq(1) },
            message: Message::new(&parts, body.as_bytes(), &mut Vec::new()),
            redelivered: false,
            expires_at: Timestamp::NONE,
            acquired: 0,
            failed: 0,
            due: Timestamp::NONE,
            on_disk: false,
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let seen = sight("key", "hello world");
        for (query, accepted) in [
            ("", true),
            ("routing_key=key&text=o+w", true),
            ("routing_key=other", false),
            ("exchange=x&bytes_min=11&bytes_max=11", true),
            ("bytes_min=12", false),
            ("redelivered=true", false),
            ("state=ready", true),
            ("state=waiting", false),
            ("header.a=1", false),
            ("property.type=t", false),
        ] {
            let filter = Filter::of_query(&Query::parse(query)).unwrap();
            assert_eq!(filter.accepts(&seen), accepted, "{query}");
        }
        for bad in ["bytes_min=-1", "redelivered=perhaps"] {
            assert!(Filter::of_query(&Query::parse(bad)).is_err(), "{bad}");
        }
    }
}
