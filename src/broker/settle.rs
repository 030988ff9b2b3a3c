//! `amq.settle`: a publish to this exchange settles a delivery of its own channel, so that every client library can ask
//! for what AMQP 0-9-1 has no method for. This file reads the order out of the headers; `server/channel/settle.rs` carries
//! it out.

use bytes::Bytes;

use crate::broker::{delay, error::BrokerError, ids::Timestamp, message::Message};
use crate::protocol::{
    field::{FieldTable, FieldValue},
    properties::{Properties, PropertyError},
};

/// The exchange that is none.
pub const EXCHANGE: &str = "amq.settle";

const TAG: &str = "x-delivery-tag";
const OP: &str = "x-op";
const DELAY: &str = "x-delay";
const TIME: &str = "x-delivery-time";
const TIMEOUT: &str = "x-timeout";
const REASON: &str = "x-reason";
const ANNOTATIONS: &str = "x-annotations";
const TO_EXCHANGE: &str = "x-exchange";
const TO_KEY: &str = "x-routing-key";

/// What is to become of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Settle {
    /// It comes back at this time, as a failed attempt; `None` leaves the wait to the queue.
    Retry(Option<Timestamp>),
    /// Its consumer may take until then.
    Extend(Timestamp),
    /// Dead-lettered, or dropped, with these headers added.
    Reject(FieldTable),
    /// Acked in one step with the publish of this message to another exchange.
    AckAndPublish { exchange: Bytes, routing_key: Bytes },
}

/// Reads an order: the delivery's tag, and what is to become of it.
///
/// # Errors
/// 406, naming the header that is missing or wrong.
pub fn parse(headers: Option<&FieldTable>, now: Timestamp) -> Result<(u64, Settle), BrokerError> {
    let headers = headers.ok_or_else(|| refuse("no headers"))?;
    let tag = headers.get(TAG).and_then(delay::number);
    let tag = tag
        .and_then(|tag| u64::try_from(tag).ok())
        .filter(|tag| *tag > 0)
        .ok_or_else(|| refuse("header 'x-delivery-tag' must be a delivery tag"))?;
    let text = |name: &str| headers.get(name).and_then(FieldValue::as_str_bytes);
    let settle = match text(OP) {
        Some(b"retry") => Settle::Retry(retry_at(headers, now)?),
        Some(b"extend") => {
            let ms = headers.get(TIMEOUT).and_then(delay::number);
            let ms = ms.and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
            Settle::Extend(now.after(
                ms.ok_or_else(|| refuse("header 'x-timeout' must be a positive number of milliseconds"))?,
            ))
        }
        Some(b"reject") => Settle::Reject(annotations(headers)?),
        Some(b"ack-and-publish") => Settle::AckAndPublish {
            exchange: name(headers, TO_EXCHANGE)?,
            routing_key: name(headers, TO_KEY)?,
        },
        _ => {
            return Err(refuse(
                "header 'x-op' must be one of retry, extend, reject, ack-and-publish",
            ));
        }
    };
    Ok((tag, settle))
}

fn refuse(what: &str) -> BrokerError {
    BrokerError::InvalidMessage(format!("amq.settle: {what}"))
}

fn retry_at(headers: &FieldTable, now: Timestamp) -> Result<Option<Timestamp>, BrokerError> {
    let number = |name: &str, value: &FieldValue| {
        delay::number(value)
            .and_then(|ms| u64::try_from(ms).ok())
            .ok_or_else(|| refuse(&format!("header '{name}' must be a number of milliseconds")))
    };
    let due = match (headers.get(TIME), headers.get(DELAY)) {
        (Some(FieldValue::Timestamp(seconds)), _) => Timestamp(seconds.saturating_mul(1000)),
        (Some(time), _) => Timestamp(number(TIME, time)?),
        (None, Some(delay)) => now.after(number(DELAY, delay)?),
        (None, None) => return Ok(None),
    };
    // What is due already comes back at once, and counts all the same.
    Ok(Some(due.max(now)))
}

/// The name of an exchange or a routing key; absent is empty.
fn name(headers: &FieldTable, header: &str) -> Result<Bytes, BrokerError> {
    match headers.get(header) {
        None => Ok(Bytes::new()),
        Some(FieldValue::LongString(text)) if text.len() <= 255 && std::str::from_utf8(text).is_ok() => {
            Ok(text.clone())
        }
        Some(_) => Err(refuse(&format!(
            "header '{header}' must be text of at most 255 bytes"
        ))),
    }
}

/// The headers a rejection adds. What the broker itself writes or routes by cannot be set.
fn annotations(headers: &FieldTable) -> Result<FieldTable, BrokerError> {
    let mut added = match headers.get(ANNOTATIONS) {
        None => FieldTable::new(),
        Some(FieldValue::Table(table)) => table.clone(),
        Some(_) => return Err(refuse("header 'x-annotations' must be a table")),
    };
    let reserved = |key: &str| {
        matches!(key, "CC" | "BCC" | "x-death")
            || ["x-first-death-", "x-last-death-"]
                .iter()
                .any(|prefix| key.starts_with(prefix))
    };
    if let Some((key, _)) = added.iter().find(|(key, _)| reserved(&key.to_string_lossy())) {
        return Err(refuse(&format!(
            "header '{}' cannot be an annotation",
            key.to_string_lossy()
        )));
    }
    match headers.get(REASON) {
        None => {}
        Some(reason @ FieldValue::LongString(_)) => added.insert(REASON, reason.clone()),
        Some(_) => return Err(refuse("header 'x-reason' must be text")),
    }
    Ok(added)
}

/// The message with headers added; later ones replace those of the same name.
///
/// # Errors
/// When its properties cannot be read, which the publish had checked.
pub fn annotated(message: &Message, added: &FieldTable) -> Result<Message, PropertyError> {
    let mut properties = Properties::decode(message.properties())?;
    let mut headers = properties.headers.take().unwrap_or_default();
    for (key, value) in added.iter() {
        headers.insert(key.clone(), value.clone());
    }
    properties.headers = Some(headers.canonical());
    Ok(message.with_properties(&properties))
}

/// The properties of a publish that acks: without the headers that were meant for the broker.
///
/// # Errors
/// When they cannot be read.
pub fn without_order(properties: &[u8]) -> Result<Properties, PropertyError> {
    let mut properties = Properties::decode(properties)?;
    if let Some(headers) = &mut properties.headers {
        for name in [TAG, OP, TO_EXCHANGE, TO_KEY] {
            headers.remove(name);
        }
    }
    properties.headers = properties.headers.filter(|headers| !headers.is_empty());
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(50_000);

    fn text(text: &'static str) -> FieldValue {
        FieldValue::LongString(Bytes::from_static(text.as_bytes()))
    }

    fn order(op: &'static str, more: &[(&'static str, FieldValue)]) -> Result<Settle, String> {
        let mut headers = FieldTable::new();
        headers.insert(TAG, FieldValue::I32(7));
        headers.insert(OP, text(op));
        for (name, value) in more {
            headers.insert(*name, value.clone());
        }
        let parsed = parse(Some(&headers), NOW);
        parsed
            .map(|(tag, settle)| {
                assert_eq!(tag, 7);
                settle
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_retry_says_when_or_leaves_it_to_the_queue() {
        let at = |ms| Ok(Settle::Retry(Some(Timestamp(ms))));
        assert_eq!(order("retry", &[]), Ok(Settle::Retry(None)));
        assert_eq!(order("retry", &[(DELAY, FieldValue::I32(500))]), at(50_500));
        assert_eq!(order("retry", &[(DELAY, text("500"))]), at(50_500));
        assert_eq!(order("retry", &[(DELAY, FieldValue::F64(500.7))]), at(50_500));
        assert_eq!(order("retry", &[(TIME, FieldValue::I64(60_000))]), at(60_000));
        assert_eq!(order("retry", &[(TIME, FieldValue::Timestamp(61))]), at(61_000));
        assert_eq!(order("retry", &[(TIME, FieldValue::I64(1))]), at(50_000));
        assert!(order("retry", &[(DELAY, FieldValue::I32(-1))]).is_err());
    }

    #[test]
    fn a_tag_may_be_text() {
        // So does AnyEvent::RabbitMQ send the tag that it received.
        let mut headers = FieldTable::new();
        headers.insert(TAG, text("8"));
        headers.insert(OP, text("retry"));
        let parsed = parse(Some(&headers), NOW);
        assert_eq!(
            parsed.map_err(|error| error.to_string()),
            Ok((8, Settle::Retry(None)))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (op, more, expected) in [
            ("fly", vec![], "'x-op'"),
            ("extend", vec![], "'x-timeout'"),
            ("extend", vec![(TIMEOUT, FieldValue::I32(0))], "'x-timeout'"),
            ("reject", vec![(ANNOTATIONS, text("no"))], "'x-annotations'"),
            ("reject", vec![(REASON, FieldValue::I32(1))], "'x-reason'"),
            (
                "ack-and-publish",
                vec![(TO_KEY, FieldValue::I32(1))],
                "'x-routing-key'",
            ),
            ("retry", vec![(TAG, FieldValue::I32(0))], "'x-delivery-tag'"),
            ("retry", vec![(TAG, text("seven"))], "'x-delivery-tag'"),
        ] {
            let error = order(op, &more).unwrap_err();
            assert!(error.starts_with("invalid message: amq.settle: "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        assert!(parse(None, NOW).is_err());
    }

    #[test]
    fn a_rejection_cannot_forge_a_history() {
        let mut added = FieldTable::new();
        added.insert("why", text("bad"));
        let settle = order(
            "reject",
            &[
                (ANNOTATIONS, FieldValue::Table(added.clone())),
                (REASON, text("poison")),
            ],
        );
        let Ok(Settle::Reject(headers)) = settle else {
            panic!("{settle:?}");
        };
        assert_eq!(headers.get("why"), Some(&text("bad")));
        assert_eq!(headers.get(REASON), Some(&text("poison")));
        for forged in ["x-death", "BCC", "x-first-death-queue"] {
            let mut table = FieldTable::new();
            table.insert(forged, text("x"));
            assert!(
                order("reject", &[(ANNOTATIONS, FieldValue::Table(table))]).is_err(),
                "{forged}"
            );
        }
    }
}
