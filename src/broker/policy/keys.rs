//! The settings a policy may hold, what each may be, and which queue types do not know it (amqp-behaviour 6.1, 6.2).

use serde_json::Value;

use super::{PolicyKind, QueueType, Settings};

/// Choices of the operator about what a policy may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyRules {
    /// `ha-mode` and its kin of RabbitMQ 3 are accepted and do nothing, instead of being refused.
    pub ignore_ha: bool,
}

/// What a setting's value must be.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    /// An integer within these bounds.
    Integer(i64, u64),
    OneOf(&'static [&'static str]),
    /// Digits and one of Y M D h m s.
    Age,
    /// A number within these bounds.
    Number(f64, f64),
    /// Integers from 0 up, one at least and 64 at most.
    Waits,
}

struct Key {
    name: &'static str,
    shape: Shape,
    /// What follows `VALUE is not a valid`.
    what: &'static str,
    /// Operators may set it.
    operator: bool,
}

const fn key(name: &'static str, shape: Shape, what: &'static str) -> Key {
    Key {
        name,
        shape,
        what,
        operator: false,
    }
}

const fn bound(name: &'static str, shape: Shape, what: &'static str) -> Key {
    Key {
        name,
        shape,
        what,
        operator: true,
    }
}

const COUNT: Shape = Shape::Integer(0, u64::MAX);
const LOCATORS: &[&str] = &[
    "client-local",
    "balanced",
    "random",
    "least-leaders",
    "min-masters",
];

/// Every setting RabbitMQ's core knows.
const KEYS: &[Key] = &[
    key("alternate-exchange", Shape::Text, "alternate exchange name"),
    key("dead-letter-exchange", Shape::Text, "dead letter exchange name"),
    key("dead-letter-routing-key", Shape::Text, "dead letter routing key"),
    key(
        "dead-letter-strategy",
        Shape::OneOf(&["at-most-once", "at-least-once"]),
        "dead letter strategy",
    ),
    bound("message-ttl", COUNT, "message TTL"),
    bound("expires", Shape::Integer(1, u64::MAX), "queue expiry"),
    bound("max-length", COUNT, "maximum length"),
    bound("max-length-bytes", COUNT, "maximum length in bytes"),
    bound("max-in-memory-length", COUNT, "maximum memory in bytes"),
    bound("max-in-memory-bytes", COUNT, "maximum memory in bytes"),
    bound(
        "overflow",
        Shape::OneOf(&["drop-head", "reject-publish", "reject-publish-dlx"]),
        "overflow value",
    ),
    bound(
        "delivery-limit",
        Shape::Integer(i64::MIN, u64::MAX),
        "delivery limit",
    ),
    key("consumer-timeout", COUNT, "consumer timeout"),
    key(
        "consumer-disconnected-timeout",
        COUNT,
        "consumer disconnected timeout",
    ),
    bound(
        "delayed-retry-type",
        Shape::OneOf(&["disabled", "all", "failed", "returned"]),
        "delayed retry type",
    ),
    bound("delayed-retry-min", COUNT, "delayed retry minimum"),
    bound("delayed-retry-max", COUNT, "delayed retry maximum"),
    // Ours: how the waits of delayed retries grow.
    key(
        "delayed-retry-multiplier",
        Shape::Number(1.0, 1000.0),
        "delayed retry multiplier",
    ),
    key("delayed-retry-schedule", Shape::Waits, "delayed retry schedule"),
    key(
        "delayed-retry-jitter",
        Shape::Number(0.0, 1.0),
        "delayed retry jitter",
    ),
    key("max-age", Shape::Age, "max age"),
    key(
        "stream-max-segment-size-bytes",
        Shape::Integer(0, 3_000_000_000),
        "segment size",
    ),
    key(
        "stream-filter-size-bytes",
        Shape::Integer(16, 255),
        "filter size. Valid range is 16-255",
    ),
    key("initial-cluster-size", COUNT, "cluster size"),
    key(
        "queue-leader-locator",
        Shape::OneOf(LOCATORS),
        "queue leader locator value",
    ),
    bound("queue-master-locator", Shape::OneOf(LOCATORS), "master locator"),
    bound("target-group-size", Shape::Integer(1, u64::MAX), "target count"),
    bound("member-placement-tag", Shape::Text, "member placement tag"),
    key(
        "queue-mode",
        Shape::OneOf(&["default", "lazy"]),
        "queue-mode value",
    ),
    bound("queue-version", Shape::Integer(1, 2), "queue version"),
];

/// Settings that keep a policy from applying to a queue of that type.
pub(super) fn is_unsupported(key: &str, kind: QueueType) -> bool {
    let unsupported: &[&str] = match kind {
        QueueType::Classic => &[
            "max-age",
            "stream-max-segment-size-bytes",
            "initial-cluster-size",
            "delivery-limit",
            "dead-letter-strategy",
            "max-in-memory-length",
            "max-in-memory-bytes",
            "target-group-size",
        ],
        QueueType::Quorum => &[
            "max-priority",
            "queue-mode",
            "queue-master-locator",
            "max-age",
            "stream-max-segment-size-bytes",
            "initial-cluster-size",
        ],
        QueueType::Stream => &[
            "expires",
            "message-ttl",
            "dead-letter-exchange",
            "dead-letter-routing-key",
            "max-length",
            "max-in-memory-length",
            "max-in-memory-bytes",
            "max-priority",
            "overflow",
            "queue-mode",
            "delivery-limit",
            "queue-master-locator",
            "dead-letter-strategy",
            "target-group-size",
        ],
    };
    unsupported.contains(&key) || (key.starts_with("ha-") && kind != QueueType::Classic)
}

/// The problems of a definition, in RabbitMQ's words.
pub(super) fn validate(kind: PolicyKind, definition: &Settings, rules: PolicyRules) -> Vec<String> {
    if definition.is_empty() {
        return vec!["no policy provided".to_owned()];
    }
    let mut unknown = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in definition {
        if rules.ignore_ha && name.starts_with("ha-") {
            continue;
        }
        let known = KEYS
            .iter()
            .find(|key| key.name == name && (kind == PolicyKind::User || key.operator));
        match known {
            None => unknown.push(format!("{{{},{}}}", binary(name), term(value))),
            Some(key) if !fits(value, key.shape) => {
                problems.push(format!("{} is not a valid {}", term(value), key.what));
            }
            Some(_) => {}
        }
    }
    if !unknown.is_empty() {
        // RabbitMQ looks at the values only when it knows all the keys.
        return vec![format!(
            "[{}] are not recognised policy settings",
            unknown.join(",")
        )];
    }
    problems
}

fn fits(value: &Value, shape: Shape) -> bool {
    match shape {
        Shape::Text => value.is_string(),
        Shape::Integer(min, max) => match (value.as_u64(), value.as_i64()) {
            (Some(number), _) => number <= max && i64::try_from(number).map_or(true, |number| number >= min),
            (None, Some(number)) => number >= min,
            (None, None) => false,
        },
        Shape::OneOf(words) => value.as_str().is_some_and(|text| words.contains(&text)),
        Shape::Number(min, max) => decimal(value).is_some_and(|number| (min..=max).contains(&number)),
        Shape::Waits => waits(value).is_some_and(|waits| (1..=64).contains(&waits.len())),
        Shape::Age => value.as_str().is_some_and(|text| {
            text.strip_suffix(['Y', 'M', 'D', 'h', 'm', 's'])
                .and_then(|digits| digits.parse::<u64>().ok())
                .is_some_and(|number| number > 0)
        }),
    }
}

/// A number, or one in text, as the argument of the same name may have it.
pub(super) fn decimal(value: &Value) -> Option<f64> {
    let in_text = || value.as_str()?.trim().parse().ok();
    value.as_f64().or_else(in_text)
}

/// Waits in an array, or in text with commas, as the argument may have them.
pub(super) fn waits(value: &Value) -> Option<Vec<u64>> {
    match value {
        Value::Array(waits) => waits.iter().map(Value::as_u64).collect(),
        Value::String(text) => text.split(',').map(|wait| wait.trim().parse().ok()).collect(),
        _ => None,
    }
}

fn binary(text: &str) -> String {
    if text.chars().all(|c| !c.is_control()) {
        format!("<<\"{text}\">>")
    } else {
        let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
        format!("<<{}>>", bytes.join(","))
    }
}

/// A JSON value as RabbitMQ shows it in errors: an Erlang term. JSON from outside is at most 128 levels deep, the
/// parser's bound.
pub fn term(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => binary(text),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(term).collect();
            format!("[{}]", values.join(","))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{{{},{}}}", binary(name), term(value)))
                .collect();
            format!("[{}]", fields.join(","))
        }
    }
}
