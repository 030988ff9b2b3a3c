//! Messages of another broker's queue, brought by `leveretctl migrate`: many in one body, as bytes, so that properties stay
//! what they were.

use bytes::Bytes;
use serde_json::json;

use crate::broker::message::{INLINE_BODY_MAX, Message, MessageParts};
use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    queues::find,
    route::{Level, Route, post},
};
use crate::protocol::{field::FieldValue, properties::RawProperties};

pub(super) static ROUTES: [Route; 1] = [post(
    "/leveret/queues/{vhost}/{name}/messages/take-in",
    Level::Admin,
    take_in,
    "Puts messages of another broker at the end of a queue as they were there; answered when durable. The body holds them \
     one after another: exchange and routing key as short strings, an octet that is 1 when it had been delivered there \
     before, then properties (flags and values as in AMQP) and body, each after its length in 32 bits",
)];

/// The parts of a message in a body.
struct Part<'a> {
    exchange: &'a [u8],
    routing_key: &'a [u8],
    delivered_before: bool,
    properties: &'a [u8],
    body: &'a [u8],
}

fn take_in(call: &Call) -> Result<Answer, ApiError> {
    let queue = find(call)?;
    // A migration that fills memory or disk would only be the next alarm.
    let raised = call.handle.alarms().raised;
    if raised.memory || raised.disk {
        return Err(ApiError::unavailable(
            "an alarm is on (memory or disk): publishers wait",
        ));
    }
    let mut messages = Vec::new();
    let mut too_large = Vec::new();
    // Where each message that is brought to the queue stood in the body.
    let mut numbers = Vec::new();
    let mut rest = call.body.as_slice();
    let mut number = 0_usize;
    while !rest.is_empty() {
        let (part, after) =
            split(rest).ok_or_else(|| ApiError::bad_request(format!("message {number} is cut off")))?;
        rest = after;
        if part.body.len() as u64 > call.handle.message_bytes_max() {
            too_large.push(number);
        } else {
            let message = message(&part)
                .ok_or_else(|| ApiError::bad_request(format!("message {number} has broken properties")))?;
            messages.push(message);
            numbers.push(number);
        }
        number += 1;
    }
    let outcome = call.handle.take_in(&queue, messages)?;
    let refused: Vec<usize> = outcome
        .refused
        .iter()
        .filter_map(|at| numbers.get(*at).copied())
        .collect();
    Ok(Answer::json(json!({
        "taken": outcome.taken,
        "refused": refused,
        "too_large": too_large,
    })))
}

fn split(bytes: &[u8]) -> Option<(Part<'_>, &[u8])> {
    let (exchange, rest) = short(bytes)?;
    let (routing_key, rest) = short(rest)?;
    let (flag, rest) = rest.split_first()?;
    let (properties, rest) = long(rest)?;
    let (body, rest) = long(rest)?;
    let part = Part {
        exchange,
        routing_key,
        delivered_before: *flag & 1 != 0,
        properties,
        body,
    };
    Some((part, rest))
}

fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

fn long(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// `None` when its properties cannot be read.
fn message(part: &Part<'_>) -> Option<Message> {
    let properties = RawProperties::new(part.properties);
    properties.validate().ok()?;
    let parts = MessageParts {
        exchange: part.exchange,
        routing_key: part.routing_key,
        properties: part.properties,
        persistent: properties.delivery_mode().ok()? == Some(2),
        priority: properties.priority().ok()?.unwrap_or(0),
    };
    let mut scratch = Vec::new();
    let message = if part.body.len() > INLINE_BODY_MAX {
        let chunks = vec![Bytes::copy_from_slice(part.body)];
        Message::with_large_body(&parts, chunks, &mut scratch)
    } else {
        Message::new(&parts, part.body, &mut scratch)
    };
    // The other broker wrote this history, and only brokers do: cycles are found by it and redrive reads it.
    let headers = properties.headers().ok()?;
    let died = headers.is_some_and(|headers| matches!(headers.get("x-death"), Some(FieldValue::Array(_))));
    let message = if died {
        message.dead_lettered(&parts, &mut scratch)
    } else {
        message
    };
    Some(if part.delivered_before {
        message.delivered_before()
    } else {
        message
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `leveretctl migrate` writes it.
    fn packed(exchange: &[u8], key: &[u8], before: u8, properties: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![u8::try_from(exchange.len()).unwrap()];
        bytes.extend(exchange);
        bytes.push(u8::try_from(key.len()).unwrap());
        bytes.extend(key);
        bytes.push(before);
        for part in [properties, body] {
            bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }

    #[test]
    fn a_body_splits_into_its_messages_and_is_refused_at_every_cut() {
        let bytes = packed(b"ex", b"key", 1, b"\x18\x00\x02\x07", b"body");
        for cut in 1..bytes.len() {
            assert!(split(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        let twice = [bytes.clone(), bytes].concat();
        let (part, rest) = split(&twice).unwrap();
        assert_eq!(rest.len() * 2, twice.len());
        let message = message(&part).unwrap();
        assert_eq!(
            (message.exchange(), message.routing_key()),
            (&b"ex"[..], &b"key"[..])
        );
        assert_eq!(
            (message.persistent(), message.priority(), message.inline_body()),
            (true, 7, &b"body"[..])
        );
        assert!(message.was_delivered_before() && !message.has_died());
    }

    #[test]
    fn broken_properties_make_no_message() {
        let bytes = packed(b"", b"q", 0, b"\x20\x00\x00\x00\x00\x09", b"");
        assert!(message(&split(&bytes).unwrap().0).is_none());
    }
}
