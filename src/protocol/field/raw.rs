//! Tables where they lie: their entries one by one, values undecoded. For those who look for one header and pass the
//! others over.

use super::{FieldTable, FieldValue};
use crate::protocol::wire::{Reader, Truncated};

/// A value as it stands on the wire: its tag, then its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawField<'a>(&'a [u8]);

/// The entries of a table, in order; ends early where the bytes are no table.
#[derive(Clone, Copy)]
pub struct RawEntries<'a>(Reader<'a>);

/// The elements of an array, in order; ends early where the bytes are no array.
#[derive(Clone, Copy)]
pub struct RawElements<'a>(Reader<'a>);

impl<'a> RawEntries<'a> {
    /// Of a table that begins with its 32-bit length.
    pub fn new(table: &'a [u8]) -> Self {
        let body = Reader::new(table).long_string().unwrap_or_default();
        Self(Reader::new(body))
    }
}

impl<'a> Iterator for RawEntries<'a> {
    type Item = (&'a [u8], RawField<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.short_string().ok()?;
        Some((key, RawField::read(&mut self.0).ok()?))
    }
}

impl<'a> Iterator for RawElements<'a> {
    type Item = RawField<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        RawField::read(&mut self.0).ok()
    }
}

impl<'a> RawField<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Truncated> {
        let begin = reader.remaining();
        match reader.u8()? {
            b't' | b'b' | b'B' => reader.skip(1)?,
            b's' | b'u' => reader.skip(2)?,
            b'I' | b'i' | b'f' => reader.skip(4)?,
            b'l' | b'L' | b'd' | b'T' => reader.skip(8)?,
            b'D' => reader.skip(5)?,
            b'V' => {}
            b'S' | b'x' | b'A' | b'F' => reader.long_string().map(drop)?,
            _ => return Err(Truncated),
        }
        let len = begin.len() - reader.remaining().len();
        Ok(Self(begin.get(..len).unwrap_or(begin)))
    }

    /// A value as [`RawField::encoded`] gave it.
    pub fn from_encoded(bytes: &'a [u8]) -> Option<Self> {
        Self::read(&mut Reader::new(bytes)).ok()
    }

    /// Tag and value.
    pub fn encoded(&self) -> &'a [u8] {
        self.0
    }

    fn tag(&self) -> u8 {
        self.0.first().copied().unwrap_or(0)
    }

    fn value(&self) -> &'a [u8] {
        self.0.get(1..).unwrap_or_default()
    }

    /// The text of an `S`.
    pub fn as_long_string(self) -> Option<&'a [u8]> {
        (self.tag() == b'S')
            .then(|| Reader::new(self.value()).long_string().ok())
            .flatten()
    }

    /// The elements of an `A`.
    pub fn elements(&self) -> Option<RawElements<'a>> {
        let body = || Reader::new(self.value()).long_string().unwrap_or_default();
        (self.tag() == b'A').then(|| RawElements(Reader::new(body())))
    }

    /// The value, taken apart.
    pub fn decode(&self) -> Option<FieldValue> {
        // One entry with an empty key is a table.
        let mut entry = Vec::with_capacity(self.0.len() + 1);
        entry.push(0);
        entry.extend_from_slice(self.0);
        FieldTable::parse_body(&entry).ok()?.remove("")
    }

    /// The type as RabbitMQ's reply texts call it.
    pub fn type_name(&self) -> &'static str {
        match self.tag() {
            b'S' => "longstr",
            b'A' => "array",
            b'F' => "table",
            b'x' => "binary",
            // The rest is small.
            _ => self.decode().map_or("void", |value| value.type_name()),
        }
    }
}
