//! Delays that publishers ask for: `x-delay` on an exchange of type `x-delayed-message` (amqp-behaviour 3.3), and
//! `x-opt-delivery-delay` or `x-opt-delivery-time` on a publish to any exchange. Until they are due, such messages stand in
//! a holding queue, which nobody sees; its deadlines are the times at which they are due.

use crate::broker::{ids::Timestamp, message::Message, queue::settings::Holds};
use crate::protocol::{
    field::FieldValue,
    properties::{Properties, PropertyError, RawProperties},
};

/// What the names of holding queues begin with; no client can declare such a name.
pub const HOLDING_PREFIX: &str = "amq.delayed.";
/// The exchange type whose messages wait.
pub const EXCHANGE_TYPE: &str = "x-delayed-message";
const DELAY: &str = "x-delay";
const QUEUE_DELAY: &str = "x-opt-delivery-delay";
const QUEUE_TIME: &str = "x-opt-delivery-time";

/// Whether a publish may ask for a delay: a quick look that spares the others the decoding of their headers.
pub fn may_be_asked(properties: RawProperties<'_>) -> bool {
    let bytes = properties.as_bytes();
    properties.has_headers() && (contains(bytes, DELAY.as_bytes()) || contains(bytes, b"x-opt-delivery-"))
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// How long an exchange that delays is asked to wait; `None` is not at all. The plugin routes what should wait longer than
/// 49 days at once; here it waits.
pub fn exchange_delay_ms(properties: RawProperties<'_>) -> Option<u64> {
    let headers = properties.headers().ok()??;
    let ms = number(headers.get(DELAY)?)?;
    u64::try_from(ms).ok().filter(|ms| *ms > 0)
}

/// When queues are asked to let the message be seen; `None` is now.
pub fn queue_due(properties: RawProperties<'_>, now: Timestamp) -> Option<Timestamp> {
    let headers = properties.headers().ok()??;
    let due = match (headers.get(QUEUE_TIME), headers.get(QUEUE_DELAY)) {
        (Some(FieldValue::Timestamp(seconds)), _) => Timestamp(seconds.saturating_mul(1000)),
        (Some(time), _) => Timestamp(u64::try_from(number(time)?).ok()?),
        (None, Some(delay)) => now.after(u64::try_from(number(delay)?).ok()?),
        (None, None) => return None,
    };
    (due > now).then_some(due)
}

/// When a message is due that waits for this holder. Headers that are meant for the other kind say nothing.
pub fn due(properties: RawProperties<'_>, holds: Holds, now: Timestamp) -> Timestamp {
    match holds {
        Holds::ForExchange => exchange_delay_ms(properties).map_or(now, |ms| now.after(ms)),
        Holds::ForQueue => queue_due(properties, now).unwrap_or(now),
    }
}

/// Any integer, a decimal string, or a float, which loses its fraction. Some clients have no other way to send a number.
pub(super) fn number(value: &FieldValue) -> Option<i64> {
    let from_float = |float: f64| format!("{:.0}", float.trunc()).parse().ok();
    match value {
        FieldValue::F32(float) => from_float(f64::from(*float)),
        FieldValue::F64(float) => from_float(*float),
        FieldValue::LongString(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        other => other.as_integer(),
    }
}

/// The message as it is routed when it is due: its delay is negated, so that no other exchange delays it again.
///
/// # Errors
/// When its properties cannot be read, which the publish had checked.
pub fn negated(message: &Message) -> Result<Message, PropertyError> {
    let mut properties = Properties::decode(message.properties())?;
    if let Some(headers) = &mut properties.headers
        && let Some(delay) = headers.get(DELAY).and_then(number)
    {
        let negated = delay.saturating_neg();
        let value = i32::try_from(negated).map_or(FieldValue::I64(negated), FieldValue::I32);
        headers.insert(DELAY, value);
        return Ok(message.with_properties(&properties));
    }
    Ok(message.clone())
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::*;
    use crate::protocol::field::FieldTable;

    fn encoded(name: &str, value: FieldValue) -> BytesMut {
        let mut headers = FieldTable::new();
        headers.insert(name, value);
        let properties = Properties {
            headers: Some(headers),
            ..Properties::default()
        };
        let mut out = BytesMut::new();
        properties.encode(&mut out);
        out
    }

    fn text(text: &'static str) -> FieldValue {
        FieldValue::LongString(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn delays_are_numbers_of_every_kind_within_bounds() {
        for (value, expected) in [
            (FieldValue::I32(5000), Some(5000)),
            (FieldValue::U8(7), Some(7)),
            (text("250"), Some(250)),
            (FieldValue::F64(10.9), Some(10)),
            (FieldValue::I64(4_294_967_295), Some(4_294_967_295)),
            (FieldValue::I64(4_294_967_296), Some(4_294_967_296)),
            (FieldValue::I32(0), None),
            (FieldValue::I32(-5000), None),
            (text("soon"), None),
            (FieldValue::Bool(true), None),
        ] {
            let bytes = encoded(DELAY, value.clone());
            let properties = RawProperties::new(&bytes);
            assert!(may_be_asked(properties));
            assert_eq!(exchange_delay_ms(properties), expected, "{value:?}");
        }
    }

    #[test]
    fn queues_are_told_how_long_or_when() {
        let now = Timestamp(10_000);
        let due = |name, value| queue_due(RawProperties::new(&encoded(name, value)), now);
        assert_eq!(due(QUEUE_DELAY, FieldValue::I32(500)), Some(Timestamp(10_500)));
        assert_eq!(due(QUEUE_DELAY, FieldValue::I32(-1)), None);
        assert_eq!(due(QUEUE_TIME, FieldValue::I64(12_000)), Some(Timestamp(12_000)));
        assert_eq!(
            due(QUEUE_TIME, FieldValue::Timestamp(13)),
            Some(Timestamp(13_000))
        );
        assert_eq!(due(QUEUE_TIME, FieldValue::I64(9_000)), None);
        assert_eq!(due("else", FieldValue::I64(9)), None);
        assert!(!may_be_asked(RawProperties::new(&encoded(
            "else",
            FieldValue::Void
        ))));
    }

    #[test]
    fn each_holder_goes_by_its_own_header() {
        let mut headers = FieldTable::new();
        headers.insert(DELAY, FieldValue::I32(5000));
        headers.insert(QUEUE_DELAY, FieldValue::I32(200));
        let properties = Properties {
            headers: Some(headers),
            ..Properties::default()
        };
        let mut bytes = BytesMut::new();
        properties.encode(&mut bytes);
        let due = |holds| due(RawProperties::new(&bytes), holds, Timestamp(10_000));
        assert_eq!(due(Holds::ForExchange), Timestamp(15_000));
        assert_eq!(due(Holds::ForQueue), Timestamp(10_200));
    }

    #[test]
    fn a_delay_that_is_over_is_negated() {
        let properties = encoded(DELAY, text("300"));
        let parts = crate::broker::message::MessageParts {
            exchange: b"e",
            routing_key: b"k",
            properties: &properties,
            persistent: true,
            priority: 0,
        };
        let message = negated(&Message::new(&parts, b"body", &mut Vec::new())).unwrap();
        let headers = RawProperties::new(message.properties())
            .headers()
            .unwrap()
            .unwrap();
        assert_eq!(headers.get(DELAY), Some(&FieldValue::I32(-300)));
        assert_eq!(exchange_delay_ms(RawProperties::new(message.properties())), None);
        assert_eq!(
            (message.inline_body(), message.persistent()),
            (&b"body"[..], true)
        );
    }
}
