//! Headers: a binding's arguments compared with the message's headers (amqp-behaviour 3.3).

use super::{Hop, Hops, QueueRef, Routable};
use crate::broker::error::BrokerError;
use crate::protocol::field::{FieldTable, FieldValue};

pub(super) struct Headers<Q>(Vec<Rule<Q>>);

struct Rule<Q> {
    arguments: FieldTable,
    any: bool,
    /// Whether arguments whose name starts with `x-` take part.
    with_x: bool,
    hop: Hop<Q>,
}

impl<Q> Default for Headers<Q> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Refuses an `x-match` that is none of the four words.
pub(super) fn check(arguments: &FieldTable) -> Result<(), BrokerError> {
    match arguments.get("x-match") {
        None => Ok(()),
        Some(FieldValue::LongString(word)) if mode(word).is_some() => Ok(()),
        Some(FieldValue::LongString(word)) => Err(BrokerError::InvalidBinding(format!(
            "Invalid x-match field value <<\"{}\">>; expected all, any, all-with-x, or any-with-x",
            String::from_utf8_lossy(word)
        ))),
        Some(other) => Err(BrokerError::InvalidBinding(format!(
            "Invalid x-match field type {} (value {other}); expected longstr",
            other.type_name()
        ))),
    }
}

/// (any, with_x) of a valid word.
fn mode(word: &[u8]) -> Option<(bool, bool)> {
    match word {
        b"all" => Some((false, false)),
        b"any" => Some((true, false)),
        b"all-with-x" => Some((false, true)),
        b"any-with-x" => Some((true, true)),
        _ => None,
    }
}

impl<Q: QueueRef> Headers<Q> {
    pub(super) fn insert(&mut self, arguments: &FieldTable, hop: Hop<Q>) {
        let (any, with_x) = match arguments.get("x-match") {
            Some(FieldValue::LongString(word)) => mode(word).unwrap_or((false, false)),
            _ => (false, false),
        };
        self.0.push(Rule {
            arguments: arguments.clone(),
            any,
            with_x,
            hop,
        });
    }

    pub(super) fn remove(&mut self, arguments: &FieldTable, hop: &Hop<Q>) {
        if let Some(at) = self
            .0
            .iter()
            .position(|rule| rule.hop == *hop && rule.arguments == *arguments)
        {
            self.0.swap_remove(at);
        }
    }

    pub(super) fn matches(&self, message: &Routable<'_>, hops: &mut Hops<Q>) {
        if self.0.is_empty() {
            return;
        }
        let headers = message.properties.headers().ok().flatten().unwrap_or_default();
        hops.extend(
            self.0
                .iter()
                .filter(|rule| rule.matches(&headers))
                .map(|rule| rule.hop.clone()),
        );
    }
}

impl<Q> Rule<Q> {
    fn matches(&self, headers: &FieldTable) -> bool {
        let mut counted = self.arguments.iter().filter(|(name, _)| {
            let name = name.as_bytes();
            name != b"x-match" && (self.with_x || !name.starts_with(b"x-"))
        });
        let met = |(name, wanted): (&_, &FieldValue)| met(name, wanted, headers);
        if self.any {
            counted.any(met)
        } else {
            counted.all(met)
        }
    }
}

fn met(name: &crate::protocol::field::ShortString, wanted: &FieldValue, headers: &FieldTable) -> bool {
    match (wanted, headers.get_bytes_key(name.as_bytes())) {
        (_, None) => false,
        (FieldValue::Void, Some(_)) => true,
        (wanted, Some(found)) => same(wanted, found),
    }
}

/// Equality by decoded value: integers by number whatever their width, both string types by bytes.
fn same(wanted: &FieldValue, found: &FieldValue) -> bool {
    if let (Some(left), Some(right)) = (wanted.as_integer(), found.as_integer()) {
        return left == right;
    }
    match (wanted, found) {
        (
            FieldValue::LongString(left) | FieldValue::Bytes(left),
            FieldValue::LongString(right) | FieldValue::Bytes(right),
        ) => left == right,
        (left, right) => left == right,
    }
}
