//! Sender-selected distribution: the routing keys in a message's CC and BCC headers (amqp-behaviour 3.7).

use smallvec::SmallVec;

use crate::broker::{error::BrokerError, message::Message};
use crate::protocol::{field::RawField, properties::RawProperties};

/// The header whose keys everybody may see.
pub const CC: &[u8] = b"CC";
/// The header that is taken out before the message reaches a queue.
pub const BCC: &[u8] = b"BCC";

/// Keys of one message beside its own: each is a walk through the bindings. Ours; RabbitMQ has no bound.
const KEYS_MAX: usize = 1000;
/// As long as any other routing key may be.
const KEY_BYTES_MAX: usize = 255;

/// All routing keys of a message, its own first.
pub type Keys<'a> = SmallVec<[&'a [u8]; 4]>;

/// What CC and BCC say.
pub struct Selected<'a> {
    pub keys: Keys<'a>,
    /// The BCC header as it stood, which [`crate::broker::message::Message`] keeps apart.
    pub hidden: Option<RawField<'a>>,
}

/// Reads CC and BCC; `None` when the message has neither. Call it only for properties with headers: it is a look at
/// the name of each.
///
/// # Errors
/// 406 when one is no array, and for more or longer keys than we route.
pub fn select<'a>(
    routing_key: &'a [u8],
    properties: RawProperties<'a>,
) -> Result<Option<Selected<'a>>, BrokerError> {
    let (mut seen, mut hidden) = (None, None);
    for (name, value) in properties.header_entries() {
        match name {
            CC => seen = seen.or(Some(value)),
            BCC => hidden = hidden.or(Some(value)),
            _ => {}
        }
    }
    if seen.is_none() && hidden.is_none() {
        return Ok(None);
    }
    let mut keys = Keys::new();
    keys.push(routing_key);
    for (header, value) in [("CC", seen), ("BCC", hidden)] {
        if let Some(value) = value {
            add(header, value, &mut keys)?;
        }
    }
    Ok(Some(Selected { keys, hidden }))
}

/// Elements that are no strings are passed over, as RabbitMQ does.
fn add<'a>(header: &'static str, value: RawField<'a>, keys: &mut Keys<'a>) -> Result<(), BrokerError> {
    let Some(elements) = value.elements() else {
        let found = value.type_name();
        return Err(BrokerError::UnacceptableHeader { header, found });
    };
    for key in elements.filter_map(RawField::as_long_string) {
        if keys.len() > KEYS_MAX {
            return Err(BrokerError::InvalidMessage(format!(
                "more than {KEYS_MAX} routing keys in CC and BCC"
            )));
        }
        if key.len() > KEY_BYTES_MAX {
            let len = key.len();
            return Err(BrokerError::InvalidMessage(format!(
                "a routing key in {header} has {len} bytes, more than {KEY_BYTES_MAX}"
            )));
        }
        keys.push(key);
    }
    Ok(())
}

impl Message {
    /// All keys it was routed by: its own, then those of CC and BCC.
    pub fn routing_keys(&self) -> Keys<'_> {
        let mut keys = Keys::new();
        keys.push(self.routing_key());
        let properties = RawProperties::new(self.properties());
        let seen = properties.header(CC).and_then(|value| value.elements());
        keys.extend(seen.into_iter().flatten().filter_map(RawField::as_long_string));
        let hidden = self.hidden_keys();
        keys.extend(hidden.into_iter().flatten().filter_map(RawField::as_long_string));
        keys
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::protocol::field::{FieldTable, FieldValue};

    fn text(value: &str) -> FieldValue {
        FieldValue::LongString(value.to_owned().into())
    }

    /// Property flags and a headers table.
    fn properties(headers: &[(&str, FieldValue)]) -> Vec<u8> {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert(*name, value.clone());
        }
        let mut out = BytesMut::from(&[0x20, 0x00][..]);
        table.encode(&mut out);
        out.to_vec()
    }

    fn keys(headers: &[(&str, FieldValue)]) -> Result<Option<Vec<String>>, String> {
        let bytes = properties(headers);
        let selected = select(b"own", RawProperties::new(&bytes)).map_err(|error| error.to_string())?;
        Ok(selected.map(|selected| {
            let keys = selected.keys.iter();
            keys.map(|key| String::from_utf8_lossy(key).into_owned())
                .collect()
        }))
    }

    #[test]
    fn both_headers_add_keys_and_what_is_no_string_is_passed_over() {
        let cc = FieldValue::Array(vec![text("a"), FieldValue::I32(1), FieldValue::Void, text("b")]);
        let bcc = FieldValue::Array(vec![text("c")]);
        assert_eq!(
            keys(&[("x", text("y")), ("BCC", bcc), ("CC", cc)]),
            Ok(Some(["own", "a", "b", "c"].map(str::to_owned).to_vec()))
        );
        assert_eq!(keys(&[("cc", text("a"))]), Ok(None), "case counts");
        assert_eq!(keys(&[]), Ok(None));
    }

    #[test]
    fn what_is_no_array_or_too_much_is_refused() {
        assert_eq!(
            keys(&[("CC", text("a"))]),
            Err("invalid message: {unacceptable_type_in_header,\"CC\",longstr}".to_owned())
        );
        let many = FieldValue::Array(vec![text("k"); KEYS_MAX]);
        assert_eq!(
            keys(&[("CC", many.clone())]).unwrap().unwrap().len(),
            KEYS_MAX + 1
        );
        let one_more = FieldValue::Array(vec![text("k")]);
        assert!(keys(&[("CC", many), ("BCC", one_more)]).is_err());
        assert!(keys(&[("BCC", FieldValue::Array(vec![text(&"k".repeat(256))]))]).is_err());
    }
}
