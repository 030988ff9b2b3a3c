//! Reads tables without recursion: a peer chooses how deep they nest, and a stack overflow aborts the
//! process.

use bytes::Bytes;

use super::{FieldTable, FieldValue, ShortString};
use crate::protocol::wire::{Reader, Truncated};

/// Tables and arrays inside each other, the outermost counted. RabbitMQ has no limit; a bound keeps
/// everything that walks a value (encode, drop, compare) at a known stack depth (hostile-input H30).
pub const MAX_DEPTH: usize = 64;

/// Values in one table, those of tables and arrays inside it included. A void takes one byte on the wire and
/// some fifty in memory; this bounds the difference (hostile-input H30).
pub const MAX_ELEMENTS: usize = 65_536;

/// Why bytes are not a field table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("a field table ends before its contents do")]
    Truncated,
    #[error("unknown field type {}", .0.escape_ascii())]
    UnknownTag(u8),
    #[error("a field table nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("a field table has more than {MAX_ELEMENTS} values")]
    TooManyElements,
}

impl From<Truncated> for FieldError {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

/// One value as it stands in the input; tables and arrays still unread.
enum RawValue<'a> {
    Plain(FieldValue),
    LongString(&'a [u8]),
    Bytes(&'a [u8]),
    Array(&'a [u8]),
    Table(&'a [u8]),
}

fn raw_value<'a>(reader: &mut Reader<'a>) -> Result<RawValue<'a>, FieldError> {
    Ok(RawValue::Plain(match reader.u8()? {
        b't' => FieldValue::Bool(reader.u8()? != 0),
        b'b' => FieldValue::I8(reader.u8()?.cast_signed()),
        b'B' => FieldValue::U8(reader.u8()?),
        b's' => FieldValue::I16(reader.u16()?.cast_signed()),
        b'u' => FieldValue::U16(reader.u16()?),
        b'I' => FieldValue::I32(reader.u32()?.cast_signed()),
        b'i' => FieldValue::U32(reader.u32()?),
        b'l' | b'L' => FieldValue::I64(reader.u64()?.cast_signed()),
        b'f' => FieldValue::F32(reader.f32()?),
        b'd' => FieldValue::F64(reader.f64()?),
        b'D' => FieldValue::Decimal {
            scale: reader.u8()?,
            value: reader.u32()?,
        },
        b'T' => FieldValue::Timestamp(reader.u64()?),
        b'V' => FieldValue::Void,
        b'S' => return Ok(RawValue::LongString(reader.long_string()?)),
        b'x' => return Ok(RawValue::Bytes(reader.long_string()?)),
        b'A' => return Ok(RawValue::Array(reader.long_string()?)),
        b'F' => return Ok(RawValue::Table(reader.long_string()?)),
        tag => return Err(FieldError::UnknownTag(tag)),
    }))
}

/// A table or array being read.
struct Open<'a> {
    /// Where the finished value goes in the table around it; empty inside an array.
    key: ShortString,
    /// What is left of its own bytes. The container around it has already stepped over them.
    reader: Reader<'a>,
    contents: Contents,
}

enum Contents {
    Table(Vec<(ShortString, FieldValue)>),
    Array(Vec<FieldValue>),
}

impl<'a> Open<'a> {
    fn new(key: ShortString, bytes: &'a [u8], contents: Contents) -> Self {
        Self {
            key,
            reader: Reader::new(bytes),
            contents,
        }
    }

    fn next_key(&mut self) -> Result<ShortString, Truncated> {
        match self.contents {
            Contents::Table(_) => self.reader.short_string().map(ShortString::from_wire),
            Contents::Array(_) => Ok(ShortString::default()),
        }
    }

    fn push(&mut self, key: ShortString, value: FieldValue) {
        match &mut self.contents {
            Contents::Table(entries) => entries.push((key, value)),
            Contents::Array(values) => values.push(value),
        }
    }
}

/// Reads the whole of `body` as a table's entries.
pub(super) fn table(body: &[u8]) -> Result<FieldTable, FieldError> {
    let mut current = Open::new(ShortString::default(), body, Contents::Table(Vec::new()));
    // What stands around the current one, outermost first. Bounded by MAX_DEPTH.
    let mut around: Vec<Open<'_>> = Vec::new();
    let mut elements = 0;
    loop {
        if current.reader.is_empty() {
            let value = match current.contents {
                Contents::Table(entries) if around.is_empty() => return Ok(FieldTable { entries }),
                Contents::Table(entries) => FieldValue::Table(FieldTable { entries }),
                Contents::Array(values) => FieldValue::Array(values),
            };
            let mut parent = around
                .pop()
                .expect("only the outermost, a table, has nothing around it");
            parent.push(current.key, value);
            current = parent;
            continue;
        }
        count_one(&mut elements)?;
        let key = current.next_key()?;
        let inner = match raw_value(&mut current.reader)? {
            RawValue::Plain(value) => {
                current.push(key, value);
                continue;
            }
            RawValue::LongString(bytes) => {
                current.push(key, FieldValue::LongString(Bytes::copy_from_slice(bytes)));
                continue;
            }
            RawValue::Bytes(bytes) => {
                current.push(key, FieldValue::Bytes(Bytes::copy_from_slice(bytes)));
                continue;
            }
            RawValue::Array(bytes) => Open::new(key, bytes, Contents::Array(Vec::new())),
            RawValue::Table(bytes) => Open::new(key, bytes, Contents::Table(Vec::new())),
        };
        check_depth(around.len())?;
        around.push(std::mem::replace(&mut current, inner));
    }
}

/// Walks as [`table`] does and refuses what it refuses, but keeps nothing.
pub(super) fn check(body: &[u8]) -> Result<(), FieldError> {
    let mut reader = Reader::new(body);
    let mut is_table = true;
    // Bounded by MAX_DEPTH.
    let mut around: Vec<(Reader<'_>, bool)> = Vec::new();
    let mut elements = 0;
    loop {
        if reader.is_empty() {
            let Some(parent) = around.pop() else {
                return Ok(());
            };
            (reader, is_table) = parent;
            continue;
        }
        count_one(&mut elements)?;
        if is_table {
            reader.short_string()?;
        }
        let (inner, inner_is_table) = match raw_value(&mut reader)? {
            RawValue::Plain(_) | RawValue::LongString(_) | RawValue::Bytes(_) => continue,
            RawValue::Array(bytes) => (bytes, false),
            RawValue::Table(bytes) => (bytes, true),
        };
        check_depth(around.len())?;
        around.push((reader, is_table));
        (reader, is_table) = (Reader::new(inner), inner_is_table);
    }
}

fn count_one(elements: &mut usize) -> Result<(), FieldError> {
    *elements += 1;
    if *elements > MAX_ELEMENTS {
        Err(FieldError::TooManyElements)
    } else {
        Ok(())
    }
}

/// Whether one more may be opened inside a container that has this many around it.
fn check_depth(around: usize) -> Result<(), FieldError> {
    // The current one and the new one come on top.
    if around + 2 > MAX_DEPTH {
        Err(FieldError::TooDeep)
    } else {
        Ok(())
    }
}
