//! Queue arguments: which are known, what they may hold, and how a redeclaration is compared (amqp-behaviour 4.1,
//! 2.3). Most of their effects belong to later versions: the README's feature table says which work.

use crate::broker::error::{BrokerError, Resource};
use crate::protocol::field::{FieldTable, FieldValue, equivalent};

/// Ten years in milliseconds, RabbitMQ's bound for every duration.
const DURATION_MAX_MS: i64 = 315_360_000_000;

#[derive(Clone, Copy)]
enum Shape {
    Integer { min: i64, max: i64 },
    Text,
    OneOf(&'static [&'static str], &'static str),
    Boolean,
    QueueType,
}

/// The classic queue's arguments in RabbitMQ's order of comparison; the first mismatch is the one reported.
const KNOWN: &[(&str, Shape)] = &[
    (
        "x-expires",
        Shape::Integer {
            min: 1,
            max: DURATION_MAX_MS,
        },
    ),
    (
        "x-message-ttl",
        Shape::Integer {
            min: 0,
            max: DURATION_MAX_MS,
        },
    ),
    ("x-dead-letter-exchange", Shape::Text),
    ("x-dead-letter-routing-key", Shape::Text),
    (
        "x-max-length",
        Shape::Integer {
            min: 0,
            max: i64::MAX,
        },
    ),
    (
        "x-max-length-bytes",
        Shape::Integer {
            min: 0,
            max: i64::MAX,
        },
    ),
    ("x-max-priority", Shape::Integer { min: 0, max: 255 }),
    (
        "x-overflow",
        Shape::OneOf(
            &["drop-head", "reject-publish", "reject-publish-dlx"],
            "invalid_overflow",
        ),
    ),
    ("x-single-active-consumer", Shape::Boolean),
    ("x-queue-type", Shape::QueueType),
];

/// Refuses wrong types and values.
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
    for (name, shape) in KNOWN {
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
    match shape {
        Shape::Integer { min, max } => {
            let Some(number) = value.as_integer() else {
                return Err(format!("\"expected integer, got {}\"", value.type_name()));
            };
            match number {
                n if n < 0 => Err(format!("{{value_negative,{n}}}")),
                n if n < min => Err(format!("{{value_zero,{n}}}")),
                n if n > max && max == 255 => Err(format!("{{max_value_exceeded,{n}}}")),
                n if n > max => Err(format!("{{value_too_large,{n}}}")),
                _ => Ok(()),
            }
        }
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
            "classic" | "" | "undefined" => Ok(()),
            other => Err(format!("\"unsupported queue type '{other}'\"")),
        },
    }
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
    for (name, shape) in KNOWN {
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
