//! A message as a line of JSON. Body and properties are base64 of what was on the wire, so that nothing is lost; a few
//! properties stand beside them for people and filters, and are not read back.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use crate::broker::{
    ids::Timestamp,
    message::{INLINE_BODY_MAX, Message, MessageParts},
};
use crate::protocol::properties::RawProperties;

#[derive(Serialize, Deserialize)]
pub(super) struct Line {
    exchange: String,
    routing_key: String,
    /// AMQP's property flags and values, base64.
    properties: String,
    /// base64.
    body: String,
    /// When the message's time ends, ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(default)]
    priority: u8,
}

impl Line {
    pub(super) fn of(message: &Message, expires_at: Timestamp) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let body = match message.large_body() {
            Some(body) => BASE64.encode(body.chunks.concat()),
            None => BASE64.encode(message.inline_body()),
        };
        let id = RawProperties::new(message.properties()).message_id();
        Self {
            exchange: text(message.exchange()),
            routing_key: text(message.routing_key()),
            properties: BASE64.encode(message.properties()),
            body,
            expires_at_ms: (expires_at != Timestamp::NONE).then_some(expires_at.0),
            message_id: id.ok().flatten().map(text),
            priority: message.priority(),
        }
    }

    /// The message, persistent whatever it was, because it goes into the store.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub(super) fn message(&self) -> Result<(Message, Timestamp), String> {
        let decode = |name: &str, text: &str| {
            BASE64
                .decode(text)
                .map_err(|error| format!("'{name}' is no base64: {error}"))
        };
        let (properties, body) = (
            decode("properties", &self.properties)?,
            decode("body", &self.body)?,
        );
        let raw = RawProperties::new(&properties);
        raw.validate().map_err(|error| format!("'properties': {error}"))?;
        for (name, text) in [("exchange", &self.exchange), ("routing_key", &self.routing_key)] {
            if text.len() > 255 {
                return Err(format!("'{name}' is longer than 255 bytes"));
            }
        }
        let priority = raw.priority().ok().flatten().unwrap_or(0);
        let parts = MessageParts {
            exchange: self.exchange.as_bytes(),
            routing_key: self.routing_key.as_bytes(),
            properties: &properties,
            persistent: true,
            priority,
        };
        let message = if body.len() > INLINE_BODY_MAX {
            Message::with_large_body(&parts, vec![body.into()], &mut Vec::new())
        } else {
            Message::new(&parts, &body, &mut Vec::new())
        };
        Ok((message, Timestamp(self.expires_at_ms.unwrap_or(0))))
    }
}
