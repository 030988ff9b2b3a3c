//! Field tables and what stands in them: client properties, arguments, message headers. Tags are those
//! RabbitMQ knows, which are not quite the specification's (amqp-behaviour 9.3).

mod parse;
mod raw;
mod short_string;
mod value;

#[cfg(test)]
pub(super) mod strategies;
#[cfg(test)]
mod tests;

use bytes::BytesMut;

pub use self::{
    parse::{FieldError, MAX_DEPTH, MAX_ELEMENTS},
    raw::{RawElements, RawEntries, RawField},
    short_string::{ShortString, ShortStringTooLong},
    value::{FieldValue, equivalent},
};
use super::wire;

/// Keys and values in the order of the wire. A key may come twice; whoever looks for it finds the first.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct FieldTable {
    entries: Vec<(ShortString, FieldValue)>,
}

impl FieldTable {
    /// A table with nothing in it; it owns no memory.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// The first value under this key.
    pub fn get(&self, key: &str) -> Option<&FieldValue> {
        self.get_bytes_key(key.as_bytes())
    }

    /// The first value under this key, which need not be text.
    pub fn get_bytes_key(&self, key: &[u8]) -> Option<&FieldValue> {
        self.entries
            .iter()
            .find(|(candidate, _)| candidate.as_bytes() == key)
            .map(|(_, value)| value)
    }

    /// Puts the value where the key first stands, or at the end.
    pub fn insert(&mut self, key: impl Into<ShortString>, value: FieldValue) {
        let key = key.into();
        match self.entries.iter_mut().find(|(candidate, _)| *candidate == key) {
            Some((_, place)) => *place = value,
            None => self.entries.push((key, value)),
        }
    }

    /// Takes out every entry under this key and gives back the first.
    pub fn remove(&mut self, key: &str) -> Option<FieldValue> {
        let mut first = None;
        self.entries.retain_mut(|(candidate, value)| {
            let keep = candidate.as_bytes() != key.as_bytes();
            if !keep && first.is_none() {
                first = Some(std::mem::replace(value, FieldValue::Void));
            }
            keep
        });
        first
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&ShortString, &FieldValue)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// Entries, duplicates included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reads a table that begins with its 32-bit length. Gives the table and the bytes it took, length
    /// included; what follows it is the caller's.
    ///
    /// # Errors
    /// When the bytes end early, a tag is unknown, or the table is deeper or larger than we accept.
    pub fn parse(input: &[u8]) -> Result<(Self, usize), FieldError> {
        let mut reader = wire::Reader::new(input);
        let body = reader.long_string()?;
        Ok((Self::parse_body(body)?, body.len() + size_of::<u32>()))
    }

    /// Reads a table that has no length and fills `body`, as AMQPLAIN sends it.
    ///
    /// # Errors
    /// As [`FieldTable::parse`].
    pub fn parse_body(body: &[u8]) -> Result<Self, FieldError> {
        parse::table(body)
    }

    /// Checks that [`FieldTable::parse`] would succeed, and says how many bytes it would take, without
    /// building the table.
    ///
    /// # Errors
    /// As [`FieldTable::parse`].
    pub fn validate(input: &[u8]) -> Result<usize, FieldError> {
        let mut reader = wire::Reader::new(input);
        let body = reader.long_string()?;
        parse::check(body)?;
        Ok(body.len() + size_of::<u32>())
    }

    /// Writes the table, beginning with its length.
    pub fn encode(&self, out: &mut BytesMut) {
        wire::put_with_length(out, |out| {
            for (key, value) in &self.entries {
                wire::put_short_string(out, key.as_bytes());
                value.encode(out);
            }
        });
    }

    /// The bytes [`FieldTable::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        let entries = self
            .entries
            .iter()
            .map(|(key, value)| 1 + key.as_bytes().len() + value.encoded_len());
        size_of::<u32>() + entries.sum::<usize>()
    }

    /// The same table sorted by key, of duplicates only the first: the order RabbitMQ delivers headers in,
    /// and what makes two bindings the same. Tables inside keep their order. Compare two of them encoded: a
    /// float that is not a number does not equal itself.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let mut entries = self.entries.clone();
        // Stable, so that the first of two equal keys stays the first.
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        entries.dedup_by(|(later, _), (earlier, _)| later == earlier);
        Self { entries }
    }
}

/// Keeps duplicates and order.
impl FromIterator<(ShortString, FieldValue)> for FieldTable {
    fn from_iter<I: IntoIterator<Item = (ShortString, FieldValue)>>(entries: I) -> Self {
        Self {
            entries: entries.into_iter().collect(),
        }
    }
}
