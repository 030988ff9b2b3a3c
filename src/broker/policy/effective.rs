//! What a user's policy and an operator's make together, as typed values (amqp-behaviour 6.2).

use std::{cmp::Ordering, sync::Arc};

use serde_json::Value;

use super::{
    Policy, Settings,
    keys::{decimal, waits},
};
use crate::broker::definition::Name;

/// What a full queue does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

impl Overflow {
    /// The word of arguments and policies.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "drop-head" => Some(Self::DropHead),
            "reject-publish" => Some(Self::RejectPublish),
            "reject-publish-dlx" => Some(Self::RejectPublishDlx),
            _ => None,
        }
    }
}

/// Which returned messages wait before they are delivered again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetryType {
    #[default]
    Disabled,
    All,
    Failed,
    Returned,
}

impl RetryType {
    /// The word of arguments and policies.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "disabled" => Some(Self::Disabled),
            "all" => Some(Self::All),
            "failed" => Some(Self::Failed),
            "returned" => Some(Self::Returned),
            _ => None,
        }
    }
}

/// The settings that apply to one queue or exchange, before its own arguments are considered. Times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EffectivePolicy {
    /// The user's policy that applies.
    pub policy: Option<Name>,
    pub operator_policy: Option<Name>,
    /// What the management API shows as `effective_policy_definition`.
    pub definition: Settings,
    pub alternate_exchange: Option<Name>,
    pub message_ttl_ms: Option<u64>,
    pub expires_ms: Option<u64>,
    pub max_length: Option<u64>,
    pub max_length_bytes: Option<u64>,
    pub overflow: Option<Overflow>,
    pub dead_letter_exchange: Option<Name>,
    pub dead_letter_routing_key: Option<Name>,
    /// `dead-letter-strategy` is `at-least-once`.
    pub dead_letter_at_least_once: Option<bool>,
    /// Negative is unlimited.
    pub delivery_limit: Option<i64>,
    pub consumer_timeout_ms: Option<u64>,
    pub consumer_disconnected_timeout_ms: Option<u64>,
    pub delayed_retry_type: Option<RetryType>,
    pub delayed_retry_min_ms: Option<u64>,
    pub delayed_retry_max_ms: Option<u64>,
    pub delayed_retry_multiplier: Option<f64>,
    pub delayed_retry_schedule_ms: Option<Arc<[u64]>>,
    /// From 0 to 1.
    pub delayed_retry_jitter: Option<f64>,
}

impl EffectivePolicy {
    /// Merges: numbers by the smaller, a few by the larger, words by the operator's.
    pub(super) fn merge(user: Option<&Policy>, operator: Option<&Policy>) -> Self {
        let mut definition = user.map(|policy| policy.definition.clone()).unwrap_or_default();
        for (key, value) in operator.iter().flat_map(|policy| &policy.definition) {
            let merged = match definition.get(key) {
                Some(users) => merge_values(key, users, value),
                None => value.clone(),
            };
            definition.insert(key.clone(), merged);
        }
        // Settings of RabbitMQ 3 that were let in to be ignored: shown to nobody as having an effect.
        definition.retain(|key, _| !key.starts_with("ha-"));
        let text = |key: &str| definition.get(key).and_then(Value::as_str);
        let name = |key: &str| text(key).map(Name::from);
        let number = |key: &str| definition.get(key).and_then(Value::as_u64);
        Self {
            policy: user.map(|policy| Name::clone(&policy.name)),
            operator_policy: operator.map(|policy| Name::clone(&policy.name)),
            alternate_exchange: name("alternate-exchange"),
            message_ttl_ms: number("message-ttl"),
            expires_ms: number("expires"),
            max_length: number("max-length"),
            max_length_bytes: number("max-length-bytes"),
            overflow: text("overflow").and_then(Overflow::parse),
            dead_letter_exchange: name("dead-letter-exchange"),
            dead_letter_routing_key: name("dead-letter-routing-key"),
            dead_letter_at_least_once: text("dead-letter-strategy").map(|text| text == "at-least-once"),
            delivery_limit: definition.get("delivery-limit").and_then(integer),
            consumer_timeout_ms: number("consumer-timeout"),
            consumer_disconnected_timeout_ms: number("consumer-disconnected-timeout"),
            delayed_retry_type: text("delayed-retry-type").and_then(RetryType::parse),
            delayed_retry_min_ms: number("delayed-retry-min"),
            delayed_retry_max_ms: number("delayed-retry-max"),
            delayed_retry_multiplier: definition.get("delayed-retry-multiplier").and_then(decimal),
            delayed_retry_schedule_ms: definition
                .get("delayed-retry-schedule")
                .and_then(waits)
                .map(Arc::from),
            delayed_retry_jitter: definition.get("delayed-retry-jitter").and_then(decimal),
            definition,
        }
    }
}

/// An integer; what is larger than `i64` counts as the largest.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        value
            .as_u64()
            .map(|number| i64::try_from(number).unwrap_or(i64::MAX))
    })
}

fn merge_values(key: &str, user: &Value, operator: &Value) -> Value {
    let (Some(left), Some(right)) = (integer(user), integer(operator)) else {
        return operator.clone();
    };
    let smaller = match left.cmp(&right) {
        Ordering::Less | Ordering::Equal => user,
        Ordering::Greater => operator,
    };
    let larger = if left > right { user } else { operator };
    match key {
        "delivery-limit" if left < 0 || right < 0 => larger.clone(),
        "target-group-size" | "delayed-retry-min" => larger.clone(),
        "queue-version" => operator.clone(),
        _ => smaller.clone(),
    }
}
