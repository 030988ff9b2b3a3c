//! Queue arguments: which are known, what they may hold, and how a redeclaration is compared (amqp-behaviour 4.1,
//! 2.3). What they mean for a queue is in `settings.rs`.

use crate::broker::{
    error::{BrokerError, Resource},
    queue::{retry, timeout},
};
use crate::protocol::field::{FieldTable, FieldValue, equivalent};

/// Ten years in milliseconds, RabbitMQ's bound for every duration.
const DURATION_MAX_MS: i64 = 315_360_000_000;

#[derive(Clone, Copy)]
enum Shape {
    Integer {
        min: i64,
        max: i64,
    },
    Text,
    OneOf(&'static [&'static str], &'static str),
    Boolean,
    QueueType,
    /// `x-queue-version`: only the second one is left.
    Version,
    /// A number from 1 up by which waits grow.
    Multiplier,
    /// A list of waits in milliseconds.
    Schedule,
    /// A number from 0 to 1.
    Share,
    /// `x-max-age` of streams; a length of time in text.
    Unchecked,
}

/// Which queue types know an argument.
#[derive(Clone, Copy)]
struct Types(u8);

const C: Types = Types(1);
const Q: Types = Types(2);
const S: Types = Types(4);
const CQ: Types = Types(1 | 2);
const CQS: Types = Types(1 | 2 | 4);

const DURATION: Shape = Shape::Integer {
    min: 0,
    max: DURATION_MAX_MS,
};
const COUNT: Shape = Shape::Integer {
    min: 0,
    max: i64::MAX,
};
const POSITIVE: Shape = Shape::Integer {
    min: 1,
    max: i64::MAX,
};
const OVERFLOW: Shape = Shape::OneOf(
    &["drop-head", "reject-publish", "reject-publish-dlx"],
    "invalid_overflow",
);
const STRATEGY: Shape = Shape::OneOf(&["at-most-once", "at-least-once"], "invalid_dlx_strategy");
const LOCATOR: Shape = Shape::OneOf(
    &[
        "client-local",
        "balanced",
        "random",
        "least-leaders",
        "min-masters",
    ],
    "invalid_queue_locator_arg",
);

/// All arguments that a type of queue knows. The classic queue's stand in RabbitMQ's order of comparison; the first
/// mismatch is the one reported.
const KNOWN: &[(&str, Shape, Types)] = &[
    (
        "x-expires",
        Shape::Integer {
            min: 1,
            max: DURATION_MAX_MS,
        },
        CQ,
    ),
    ("x-message-ttl", DURATION, CQ),
    ("x-dead-letter-exchange", Shape::Text, CQ),
    ("x-dead-letter-routing-key", Shape::Text, CQ),
    ("x-dead-letter-strategy", STRATEGY, Q),
    ("x-max-length", COUNT, CQ),
    ("x-max-length-bytes", COUNT, CQS),
    ("x-max-in-memory-length", COUNT, Q),
    ("x-max-in-memory-bytes", COUNT, Q),
    ("x-max-priority", Shape::Integer { min: 0, max: 255 }, C),
    ("x-overflow", OVERFLOW, CQ),
    // Ignored since 3.12, kept by clients of those years.
    ("x-queue-mode", Shape::Unchecked, C),
    ("x-queue-version", Shape::Version, C),
    ("x-single-active-consumer", Shape::Boolean, CQ),
    ("x-queue-type", Shape::QueueType, CQS),
    ("x-queue-master-locator", Shape::Unchecked, C),
    ("x-queue-leader-locator", LOCATOR, CQS),
    ("x-quorum-initial-group-size", POSITIVE, Q),
    ("x-initial-cluster-size", POSITIVE, S),
    // RabbitMQ knows these for quorum queues only; here every queue can limit and delay its retries.
    ("x-delivery-limit", Shape::Unchecked, CQ),
    (timeout::TIMEOUT, DURATION, CQ),
    (
        timeout::ACTION,
        Shape::OneOf(timeout::ACTIONS, "invalid_action"),
        CQ,
    ),
    ("x-consumer-disconnected-timeout", DURATION, Q),
    (retry::TYPE, Shape::Unchecked, CQ),
    (retry::MIN, Shape::Unchecked, CQ),
    (retry::MAX, Shape::Unchecked, CQ),
    (retry::MULTIPLIER, Shape::Multiplier, CQ),
    (retry::SCHEDULE, Shape::Schedule, CQ),
    (retry::JITTER, Shape::Share, CQ),
    ("x-max-age", Shape::Unchecked, S),
    ("x-stream-max-segment-size-bytes", Shape::Unchecked, S),
    ("x-stream-filter-size-bytes", Shape::Unchecked, S),
];

/// The type of a queue, by which its rules differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueKind {
    #[default]
    Classic,
    /// RabbitMQ's replicated queue, here on the one node's synced store.
    Quorum,
}

impl QueueKind {
    /// What the arguments ask for; classic when they do not say.
    pub fn of(arguments: &FieldTable) -> Self {
        match arguments.get("x-queue-type").and_then(FieldValue::as_str_bytes) {
            Some(b"quorum") => Self::Quorum,
            _ => Self::Classic,
        }
    }

    /// As RabbitMQ's texts call the module of the type.
    pub fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
        }
    }

    fn knows(self, types: Types) -> bool {
        let own = match self {
            Self::Classic => C,
            Self::Quorum => Q,
        };
        own.0 & types.0 != 0
    }
}

/// Refuses flags a quorum queue cannot have.
///
/// # Errors
/// 406, for the first of auto-delete, exclusive, transient (amqp-behaviour 4.1).
pub fn check_flags(
    arguments: &FieldTable,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    queue: &Resource,
) -> Result<(), BrokerError> {
    if QueueKind::of(arguments) == QueueKind::Classic {
        return Ok(());
    }
    let refused = [
        (auto_delete, "auto-delete"),
        (exclusive, "exclusive-owner"),
        (!durable, "non-durable"),
    ];
    match refused.into_iter().find(|(refused, _)| *refused) {
        Some((_, property)) => Err(BrokerError::InvalidProperty {
            property,
            resource: queue.clone(),
        }),
        None => Ok(()),
    }
}

/// Refuses wrong types and values, in RabbitMQ's order: the queue's type, arguments of other types, values.
///
/// # Errors
/// 406 with RabbitMQ's detail.
pub fn check(arguments: &FieldTable, queue: &Resource) -> Result<(), BrokerError> {
    if let Some(value) = arguments.get("x-dead-letter-exchange")
        && !matches!(value, FieldValue::LongString(_))
    {
        return Err(BrokerError::InvalidArgumentType {
            argument: "x-dead-letter-exchange",
            resource: queue.clone(),
            found: value.type_name(),
        });
    }
    if let Some(value) = arguments.get("x-queue-type") {
        check_value(value, Shape::QueueType).map_err(|detail| invalid("x-queue-type", queue, detail))?;
    }
    let kind = QueueKind::of(arguments);
    for (name, _, types) in KNOWN {
        if !kind.knows(*types) && arguments.get(name).is_some() {
            return Err(BrokerError::ForeignArgument {
                argument: name,
                resource: queue.clone(),
                module: kind.module(),
            });
        }
    }
    for (name, shape, _) in KNOWN {
        if let Some(value) = arguments.get(name)
            && let Err(detail) = check_value(value, *shape)
        {
            return Err(invalid(name, queue, detail));
        }
    }
    if arguments.get("x-dead-letter-routing-key").is_some()
        && arguments.get("x-dead-letter-exchange").is_none()
    {
        return Err(invalid(
            "x-dead-letter-routing-key",
            queue,
            "routing_key_but_no_dlx_defined".to_owned(),
        ));
    }
    Ok(())
}

/// Refuses a wrong type or value of one argument, which a consumer may have as well.
///
/// # Errors
/// As [`check`].
pub fn check_one(arguments: &FieldTable, name: &str, queue: &Resource) -> Result<(), BrokerError> {
    let known = KNOWN.iter().find(|(known, ..)| *known == name);
    match (arguments.get(name), known) {
        (Some(value), Some((_, shape, _))) => {
            check_value(value, *shape).map_err(|detail| invalid(name, queue, detail))
        }
        _ => Ok(()),
    }
}

fn invalid(name: &str, queue: &Resource, detail: String) -> BrokerError {
    BrokerError::InvalidArgument {
        argument: name.to_owned(),
        resource: queue.clone(),
        detail,
    }
}

fn check_value(value: &FieldValue, shape: Shape) -> Result<(), String> {
    let text = || match value {
        FieldValue::LongString(text) => Ok(String::from_utf8_lossy(text)),
        other => Err(format!("{{unacceptable_type,{}}}", other.type_name())),
    };
    let integer = || {
        value
            .as_integer()
            .ok_or_else(|| format!("\"expected integer, got {}\"", value.type_name()))
    };
    match shape {
        Shape::Integer { min, max } => match integer()? {
            n if n < 0 => Err(format!("{{value_negative,{n}}}")),
            n if n < min => Err(format!("{{value_zero,{n}}}")),
            n if n > max && max == 255 => Err(format!("{{max_value_exceeded,{n}}}")),
            n if n > max => Err(format!("{{value_too_large,{n}}}")),
            _ => Ok(()),
        },
        Shape::Text => text().map(|_| ()),
        Shape::OneOf(words, error) => {
            let text = text()?;
            if words.contains(&&*text) {
                Ok(())
            } else {
                Err(error.to_owned())
            }
        }
        Shape::Boolean => match value {
            FieldValue::Bool(_) => Ok(()),
            other => Err(format!("{{unacceptable_type,{}}}", other.type_name())),
        },
        Shape::QueueType => match &*text()? {
            "classic" | "quorum" | "" | "undefined" => Ok(()),
            other => Err(format!("\"unsupported queue type '{other}'\"")),
        },
        Shape::Version => match integer()? {
            2 => Ok(()),
            n => Err(format!("\"unsupported queue version '{n}'\"")),
        },
        Shape::Multiplier => match retry::number(value).and_then(retry::multiplier) {
            Some(_) => Ok(()),
            None => Err("invalid_multiplier".to_owned()),
        },
        Shape::Share => match retry::number(value).and_then(retry::share) {
            Some(_) => Ok(()),
            None => Err("invalid_jitter".to_owned()),
        },
        Shape::Schedule => retry::schedule(value).map(|_| ()),
        Shape::Unchecked => Ok(()),
    }
}

/// Bytes of a prefix for generated names (RabbitMQ 4.4).
const NAME_PREFIX_MAX: usize = 64;

/// What a generated name shall begin with; the argument is not kept with the queue (amqp-behaviour 2.3).
///
/// # Errors
/// 406 for one that is too long.
pub fn take_name_prefix(arguments: &mut FieldTable) -> Result<Option<String>, BrokerError> {
    const NAME: &str = "x-name-prefix";
    let Some(FieldValue::LongString(prefix)) = arguments.get(NAME) else {
        return Ok(None);
    };
    let prefix = String::from_utf8_lossy(prefix).into_owned();
    if prefix.len() > NAME_PREFIX_MAX {
        return Err(BrokerError::NamePrefix(prefix));
    }
    arguments.remove(NAME);
    Ok(Some(prefix))
}

/// Whether `x-single-active-consumer` is on.
pub fn single_active(arguments: &FieldTable) -> bool {
    arguments.get("x-single-active-consumer") == Some(&FieldValue::Bool(true))
}

/// The highest priority level `x-max-priority` gives a queue, 0 without it.
pub fn max_priority(arguments: &FieldTable) -> u8 {
    arguments
        .get("x-max-priority")
        .and_then(FieldValue::as_integer)
        .and_then(|max| u8::try_from(max).ok())
        .unwrap_or(0)
}

/// Compares a redeclaration with the queue as it is; only known arguments count.
///
/// # Errors
/// 406 `inequivalent arg`, naming the first difference.
pub fn check_equivalent(
    current: &FieldTable,
    received: &FieldTable,
    queue: &Resource,
) -> Result<(), BrokerError> {
    let kind = QueueKind::of(current);
    for (name, shape, types) in KNOWN {
        // What the type does not know is stored and never compared.
        if !kind.knows(*types) {
            continue;
        }
        let (have, want) = (current.get(name), received.get(name));
        let same = match (have, want) {
            (None, None) => true,
            (Some(have), Some(want)) => equivalent(have, want),
            (Some(one), None) | (None, Some(one)) => matches!(shape, Shape::QueueType) && is_classic(one),
        };
        if !same {
            return Err(inequivalent(name, queue, want, have));
        }
    }
    Ok(())
}

fn is_classic(value: &FieldValue) -> bool {
    matches!(value, FieldValue::LongString(text) if matches!(&**text, b"classic" | b"" | b"undefined"))
}

/// The 406 for an argument that differs; `None` renders as `none`.
pub fn inequivalent(
    name: &str,
    resource: &Resource,
    received: Option<&FieldValue>,
    current: Option<&FieldValue>,
) -> BrokerError {
    let render = |value: Option<&FieldValue>| match value {
        Some(value) => format!("the value '{value}' of type '{}'", value.type_name()),
        None => "none".to_owned(),
    };
    BrokerError::Inequivalent {
        field: name.to_owned(),
        resource: resource.clone(),
        received: render(received),
        current: render(current),
    }
}

/// The 406 for a flag or a type that differs.
pub fn inequivalent_flag(name: &str, resource: &Resource, received: &str, current: &str) -> BrokerError {
    BrokerError::Inequivalent {
        field: name.to_owned(),
        resource: resource.clone(),
        received: format!("'{received}'"),
        current: format!("'{current}'"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn queue() -> Resource {
        Resource::queue("q", &"/".into())
    }

    fn table(name: &str, value: FieldValue) -> FieldTable {
        let mut table = FieldTable::default();
        table.insert(name, value);
        table
    }

    fn text(value: &'static str) -> FieldValue {
        FieldValue::LongString(Bytes::from_static(value.as_bytes()))
    }

    /// Proves: QUE-022
    #[test]
    fn arguments_of_another_type_are_refused_and_those_of_none_are_kept() {
        for name in [
            "x-dead-letter-strategy",
            "x-max-age",
            "x-quorum-initial-group-size",
        ] {
            let error = check(&table(name, text("1D")), &queue()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("invalid arg '{name}' for queue 'q' in vhost '/' of queue type rabbit_classic_queue")
            );
        }
        for (name, value) in [
            ("x-ha-policy", text("all")),
            ("x-queue-mode", text("lazy")),
            ("foo", text("bar")),
        ] {
            assert!(check(&table(name, value), &queue()).is_ok(), "{name}");
        }
    }

    /// Proves: QQ-013
    #[test]
    fn a_quorum_queue_knows_other_arguments() {
        let mut quorum = table("x-queue-type", text("quorum"));
        quorum.insert("x-dead-letter-strategy", text("at-least-once"));
        assert!(check(&quorum, &queue()).is_ok());
        quorum.insert("x-max-priority", FieldValue::I32(5));
        assert_eq!(
            check(&quorum, &queue()).unwrap_err().to_string(),
            "invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue"
        );
    }

    /// Proves: QUE-021
    #[test]
    fn wrong_values_are_refused_with_rabbitmqs_detail() {
        let cases = [
            ("x-expires", FieldValue::I32(0), "{value_zero,0}"),
            ("x-expires", text("1"), "\"expected integer, got longstr\""),
            ("x-message-ttl", FieldValue::I32(-1), "{value_negative,-1}"),
            ("x-max-priority", FieldValue::I32(256), "{max_value_exceeded,256}"),
            (
                "x-message-ttl",
                FieldValue::I64(DURATION_MAX_MS + 1),
                "{value_too_large,315360000001}",
            ),
            ("x-overflow", text("drop-tail"), "invalid_overflow"),
            ("x-queue-type", text("foo"), "\"unsupported queue type 'foo'\""),
            (
                "x-single-active-consumer",
                FieldValue::I32(1),
                "{unacceptable_type,signedint}",
            ),
            ("x-expires", FieldValue::I32(-1), "{value_negative,-1}"),
            (
                "x-expires",
                FieldValue::F64(1.0),
                "\"expected integer, got double\"",
            ),
            ("x-max-length", FieldValue::I64(-1), "{value_negative,-1}"),
            (
                "x-max-length-bytes",
                text("1"),
                "\"expected integer, got longstr\"",
            ),
            ("x-max-priority", FieldValue::I8(-1), "{value_negative,-1}"),
            ("x-overflow", FieldValue::I8(1), "{unacceptable_type,byte}"),
            (
                "x-queue-type",
                FieldValue::I32(1),
                "{unacceptable_type,signedint}",
            ),
            (
                "x-queue-version",
                FieldValue::I32(1),
                "\"unsupported queue version '1'\"",
            ),
            (
                "x-queue-leader-locator",
                text("here"),
                "invalid_queue_locator_arg",
            ),
            (
                "x-dead-letter-routing-key",
                FieldValue::Bool(true),
                "{unacceptable_type,bool}",
            ),
            (
                "x-dead-letter-routing-key",
                text("k"),
                "routing_key_but_no_dlx_defined",
            ),
        ];
        for (name, value, detail) in cases {
            let error = check(&table(name, value), &queue()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("invalid arg '{name}' for queue 'q' in vhost '/': {detail}")
            );
        }
    }

    #[test]
    fn integers_are_compared_by_value_and_unknown_arguments_not_at_all() {
        let current = table("x-max-length", FieldValue::I32(1000));
        assert!(check_equivalent(&current, &table("x-max-length", FieldValue::I64(1000)), &queue()).is_ok());
        assert!(check_equivalent(&table("x-foo", text("a")), &FieldTable::default(), &queue()).is_ok());
        assert!(
            check_equivalent(
                &table("x-queue-type", text("classic")),
                &FieldTable::default(),
                &queue()
            )
            .is_ok()
        );
        let error = check_equivalent(&current, &FieldTable::default(), &queue()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but current is \
             the value '1000' of type 'signedint'"
        );
    }
}
