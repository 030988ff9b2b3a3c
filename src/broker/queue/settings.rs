//! What a queue goes by: the effective values of its arguments and policy (amqp-behaviour 4.1, 6.1). The arguments were
//! checked by `arguments.rs`; what is still of the wrong type here counts as absent.

use std::sync::Arc;

use bytes::Bytes;

use crate::broker::{
    definition::Name,
    policy::{EffectivePolicy, Overflow},
    queue::{arguments::QueueKind, deduplication, retry::Retry, timeout::AckTimeout},
};
use crate::protocol::field::{FieldTable, FieldValue};

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
    /// Failed attempts after which a message goes; `None` is no limit.
    pub delivery_limit: Option<u64>,
    /// Returned messages wait before they are delivered again.
    pub retry: Option<Retry>,
    /// How long its consumers may take to settle.
    pub ack_timeout: AckTimeout,
    /// It takes no message twice.
    pub deduplicates: bool,
    /// A holding queue: nobody consumes from it, and messages leave it when they are due.
    pub holds: Option<Holds>,
}

/// For whom a holding queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    ForExchange,
    ForQueue,
}

/// Attempts a quorum queue allows when nobody says otherwise.
const DELIVERY_LIMIT: i64 = 20;

impl QueueSettings {
    /// What arguments and policy make together. Of two numbers the smaller holds; of two words the argument's, but for the
    /// overflow of a quorum queue.
    pub fn new(arguments: &FieldTable, policy: Option<&EffectivePolicy>) -> Self {
        let kind = QueueKind::of(arguments);
        let smaller = |name: &str, policy: Option<u64>| {
            let value = arguments.get(name).and_then(FieldValue::as_integer);
            let own = value.and_then(|value| u64::try_from(value).ok());
            own.into_iter().chain(policy).min()
        };
        let text = |name: &str| match arguments.get(name) {
            Some(FieldValue::LongString(text)) => Some(text.clone()),
            _ => None,
        };
        let own_overflow =
            text("x-overflow").and_then(|word| Overflow::parse(std::str::from_utf8(&word).ok()?));
        let policy_overflow = policy.and_then(|policy| policy.overflow);
        let mut overflow = match kind {
            QueueKind::Classic => own_overflow.or(policy_overflow),
            QueueKind::Quorum => policy_overflow.or(own_overflow),
        }
        .unwrap_or_default();
        if kind == QueueKind::Quorum && overflow == Overflow::RejectPublishDlx {
            // Accepted and not supported there, in RabbitMQ with a warning.
            overflow = Overflow::DropHead;
        }
        Self {
            kind,
            message_ttl_ms: smaller("x-message-ttl", policy.and_then(|policy| policy.message_ttl_ms)),
            expires_ms: smaller("x-expires", policy.and_then(|policy| policy.expires_ms)),
            max_length: smaller("x-max-length", policy.and_then(|policy| policy.max_length)),
            max_length_bytes: smaller(
                "x-max-length-bytes",
                policy.and_then(|policy| policy.max_length_bytes),
            ),
            overflow,
            dead_letter: dead_letter(arguments, policy, kind, overflow).map(Arc::new),
            delivery_limit: delivery_limit(arguments, policy, kind),
            retry: Retry::of(arguments, policy),
            ack_timeout: AckTimeout::of_queue(arguments, policy),
            deduplicates: kind == QueueKind::Classic && deduplication::is_on(arguments),
            holds: None,
        }
    }

    /// Those of a holding queue.
    pub fn holding(holds: Holds) -> Self {
        let route = DeadLetterRoute {
            exchange: Bytes::new(),
            routing_key: None,
            at_least_once: true,
        };
        Self {
            dead_letter: Some(Arc::new(route)),
            holds: Some(holds),
            ..Self::default()
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

/// The smaller of argument and policy, or the larger when one of them is unlimited.
fn delivery_limit(arguments: &FieldTable, policy: Option<&EffectivePolicy>, kind: QueueKind) -> Option<u64> {
    let own = arguments.get("x-delivery-limit").and_then(FieldValue::as_integer);
    let limit = match (own, policy.and_then(|policy| policy.delivery_limit)) {
        (Some(own), Some(policy)) if own < 0 || policy < 0 => Some(own.max(policy)),
        (Some(own), Some(policy)) => Some(own.min(policy)),
        (own, policy) => own.or(policy),
    };
    let limit = limit.or((kind == QueueKind::Quorum).then_some(DELIVERY_LIMIT));
    limit.and_then(|limit| u64::try_from(limit).ok())
}

/// The exchange and the key, each from the argument or else the policy. A key without an exchange means nothing.
fn dead_letter(
    arguments: &FieldTable,
    policy: Option<&EffectivePolicy>,
    kind: QueueKind,
    overflow: Overflow,
) -> Option<DeadLetterRoute> {
    let choose = |name: &str, policy: Option<&Name>| match arguments.get(name) {
        Some(FieldValue::LongString(text)) => Some(text.clone()),
        _ => policy.map(|name| Bytes::copy_from_slice(name.as_bytes())),
    };
    let exchange = choose(
        "x-dead-letter-exchange",
        policy.and_then(|policy| policy.dead_letter_exchange.as_ref()),
    )?;
    let routing_key = choose(
        "x-dead-letter-routing-key",
        policy.and_then(|policy| policy.dead_letter_routing_key.as_ref()),
    );
    let wanted = match arguments
        .get("x-dead-letter-strategy")
        .and_then(FieldValue::as_str_bytes)
    {
        Some(word) => word == b"at-least-once",
        None => policy.and_then(|policy| policy.dead_letter_at_least_once) == Some(true),
    };
    Some(DeadLetterRoute {
        exchange,
        routing_key,
        // Only what refuses publishes can hold dead letters back without dropping others (amqp-behaviour 4.7).
        at_least_once: wanted && kind == QueueKind::Quorum && overflow == Overflow::RejectPublish,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_policy_compete() {
        let mut arguments = FieldTable::new();
        arguments.insert("x-max-length", FieldValue::I32(10));
        arguments.insert("x-message-ttl", FieldValue::I32(500));
        arguments.insert(
            "x-overflow",
            FieldValue::LongString(Bytes::from_static(b"reject-publish")),
        );
        let policy = EffectivePolicy {
            max_length: Some(5),
            message_ttl_ms: Some(1000),
            expires_ms: Some(7),
            overflow: Some(Overflow::DropHead),
            dead_letter_exchange: Some("dlx".into()),
            ..EffectivePolicy::default()
        };
        let settings = QueueSettings::new(&arguments, Some(&policy));
        assert_eq!(settings.max_length, Some(5));
        assert_eq!(settings.message_ttl_ms, Some(500));
        assert_eq!(settings.expires_ms, Some(7));
        assert_eq!(settings.overflow, Overflow::RejectPublish);
        assert_eq!(settings.dead_letter.unwrap().exchange, "dlx");
        arguments.insert(
            "x-queue-type",
            FieldValue::LongString(Bytes::from_static(b"quorum")),
        );
        arguments.insert(
            "x-dead-letter-exchange",
            FieldValue::LongString(Bytes::from_static(b"own")),
        );
        let settings = QueueSettings::new(&arguments, Some(&policy));
        assert_eq!(settings.overflow, Overflow::DropHead);
        assert_eq!(settings.dead_letter.unwrap().exchange, "own");
    }
}
