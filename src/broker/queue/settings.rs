//! What a queue goes by: the effective values of its arguments and policy (amqp-behaviour 4.1, 6.1). The arguments were
//! checked by `arguments.rs`; what is still of the wrong type here counts as absent.

use std::sync::Arc;

use bytes::Bytes;

use super::arguments::QueueKind;
use crate::protocol::field::{FieldTable, FieldValue};

/// What a full queue does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest go, dead-lettered.
    #[default]
    DropHead,
    /// The new one is refused.
    RejectPublish,
    /// The new one is refused and dead-lettered.
    RejectPublishDlx,
}

/// Where dead letters go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterRoute {
    /// Empty is the default exchange. It need not exist.
    pub exchange: Bytes,
    /// Instead of the message's own keys.
    pub routing_key: Option<Bytes>,
    /// The source keeps a message until its targets have stored it.
    pub at_least_once: bool,
}

/// The values in force. Times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    pub kind: QueueKind,
    pub message_ttl_ms: Option<u64>,
    /// Without use for so long, the queue is deleted.
    pub expires_ms: Option<u64>,
    /// Ready messages.
    pub max_length: Option<u64>,
    /// Bodies of ready messages.
    pub max_length_bytes: Option<u64>,
    pub overflow: Overflow,
    /// Shared with every dead letter on its way.
    pub dead_letter: Option<Arc<DeadLetterRoute>>,
}

impl QueueSettings {
    /// What arguments and policy make together.
    pub fn new(arguments: &FieldTable) -> Self {
        let count = |name: &str| {
            let value = arguments.get(name).and_then(FieldValue::as_integer);
            value.and_then(|value| u64::try_from(value).ok())
        };
        let text = |name: &str| match arguments.get(name) {
            Some(FieldValue::LongString(text)) => Some(text.clone()),
            _ => None,
        };
        let kind = QueueKind::of(arguments);
        let overflow = text("x-overflow").map(|word| overflow(&word)).unwrap_or_default();
        let dead_letter = text("x-dead-letter-exchange").map(|exchange| {
            Arc::new(DeadLetterRoute {
                exchange,
                routing_key: text("x-dead-letter-routing-key"),
                at_least_once: false,
            })
        });
        Self {
            kind,
            message_ttl_ms: count("x-message-ttl"),
            expires_ms: count("x-expires"),
            max_length: count("x-max-length"),
            max_length_bytes: count("x-max-length-bytes"),
            overflow,
            dead_letter,
        }
    }

    /// Whether a message more than the limits allow is refused, rather than making the oldest go.
    pub fn refuses(&self) -> bool {
        self.is_limited() && self.overflow != Overflow::DropHead
    }

    /// Whether there is a limit on the length.
    pub fn is_limited(&self) -> bool {
        self.max_length.is_some() || self.max_length_bytes.is_some()
    }

    /// Whether so many ready messages with so many bytes of bodies are within the limits.
    pub fn allows(&self, messages: u64, bytes: u64) -> bool {
        self.max_length.is_none_or(|max| messages <= max)
            && self.max_length_bytes.is_none_or(|max| bytes <= max)
    }
}

fn overflow(word: &[u8]) -> Overflow {
    match word {
        b"reject-publish" => Overflow::RejectPublish,
        b"reject-publish-dlx" => Overflow::RejectPublishDlx,
        _ => Overflow::DropHead,
    }
}
