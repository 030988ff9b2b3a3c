//! One value of a table: its type's name, its bytes, when two mean the same.

use std::fmt::{self, Write};

use bytes::{BufMut, Bytes, BytesMut};

use super::{FieldTable, ShortString};
use crate::protocol::wire;

/// A value with the type its tag gave it. What a peer sent nests at most [`super::MAX_DEPTH`] deep, so
/// walking a value may recurse; values the broker builds must stay as shallow.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`, which the specification gives to short strings; no broker or client does.
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`; also what `L` is read as.
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: value divided by ten to the power of scale.
    Decimal { scale: u8, value: u32 },
    /// `S`: text by intention, any bytes in fact.
    LongString(Bytes),
    /// `x`
    Bytes(Bytes),
    /// `A`
    Array(Vec<Self>),
    /// `F`
    Table(FieldTable),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `V`
    Void,
}

impl FieldValue {
    /// The type as RabbitMQ's reply texts call it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::LongString(_) => "longstr",
            Self::Bytes(_) => "binary",
            Self::Array(_) => "array",
            Self::Table(_) => "table",
            Self::Timestamp(_) => "timestamp",
            Self::Void => "void",
        }
    }

    /// The number, for the seven integer types. A timestamp or a float is not an integer.
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::I8(value) => Some(value.into()),
            Self::U8(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I64(value) => Some(value),
            _ => None,
        }
    }

    /// The truth value, for a bool.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The bytes of a long string or byte array.
    pub fn as_str_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::LongString(bytes) | Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Writes tag and value.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.tag());
        match self {
            Self::Bool(value) => out.put_u8(u8::from(*value)),
            Self::I8(value) => out.put_i8(*value),
            Self::U8(value) => out.put_u8(*value),
            Self::I16(value) => out.put_i16(*value),
            Self::U16(value) => out.put_u16(*value),
            Self::I32(value) => out.put_i32(*value),
            Self::U32(value) => out.put_u32(*value),
            Self::I64(value) => out.put_i64(*value),
            Self::F32(value) => out.put_f32(*value),
            Self::F64(value) => out.put_f64(*value),
            Self::Decimal { scale, value } => {
                out.put_u8(*scale);
                out.put_u32(*value);
            }
            Self::LongString(bytes) | Self::Bytes(bytes) => wire::put_long_string(out, bytes),
            Self::Array(values) => wire::put_with_length(out, |out| {
                for value in values {
                    value.encode(out);
                }
            }),
            Self::Table(table) => table.encode(out),
            Self::Timestamp(value) => out.put_u64(*value),
            Self::Void => {}
        }
    }

    /// The bytes `encode` writes.
    pub(super) fn encoded_len(&self) -> usize {
        let after_tag = match self {
            Self::Void => 0,
            Self::Bool(_) | Self::I8(_) | Self::U8(_) => 1,
            Self::I16(_) | Self::U16(_) => 2,
            Self::I32(_) | Self::U32(_) | Self::F32(_) => 4,
            Self::Decimal { .. } => 5,
            Self::I64(_) | Self::F64(_) | Self::Timestamp(_) => 8,
            Self::LongString(bytes) | Self::Bytes(bytes) => 4 + bytes.len(),
            Self::Array(values) => 4 + values.iter().map(Self::encoded_len).sum::<usize>(),
            Self::Table(table) => table.encoded_len(),
        };
        1 + after_tag
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Bool(_) => b't',
            Self::I8(_) => b'b',
            Self::U8(_) => b'B',
            Self::I16(_) => b's',
            Self::U16(_) => b'u',
            Self::I32(_) => b'I',
            Self::U32(_) => b'i',
            Self::I64(_) => b'l',
            Self::F32(_) => b'f',
            Self::F64(_) => b'd',
            Self::Decimal { .. } => b'D',
            Self::LongString(_) => b'S',
            Self::Bytes(_) => b'x',
            Self::Array(_) => b'A',
            Self::Table(_) => b'F',
            Self::Timestamp(_) => b'T',
            Self::Void => b'V',
        }
    }

    fn as_float(&self) -> Option<f64> {
        match *self {
            Self::F32(value) => Some(value.into()),
            Self::F64(value) => Some(value),
            _ => None,
        }
    }
}

/// Whether a redeclaration with one instead of the other asks for the same thing: integers of all widths by
/// value, the two floats by value, anything else only if type and value agree (amqp-behaviour 2.3).
pub fn equivalent(a: &FieldValue, b: &FieldValue) -> bool {
    if let (Some(left), Some(right)) = (a.as_integer(), b.as_integer()) {
        return left == right;
    }
    if let (Some(left), Some(right)) = (a.as_float(), b.as_float()) {
        return left == right;
    }
    a == b
}

/// As RabbitMQ shows the value in "received the value '...' of type '...'": text as it is, the rest as an
/// Erlang term.
impl fmt::Display for FieldValue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LongString(bytes) | Self::Bytes(bytes) => out.write_str(&String::from_utf8_lossy(bytes)),
            _ => write_term(out, self),
        }
    }
}

fn write_term(out: &mut fmt::Formatter<'_>, value: &FieldValue) -> fmt::Result {
    match value {
        FieldValue::Bool(value) => write!(out, "{value}"),
        FieldValue::I8(value) => write!(out, "{value}"),
        FieldValue::U8(value) => write!(out, "{value}"),
        FieldValue::I16(value) => write!(out, "{value}"),
        FieldValue::U16(value) => write!(out, "{value}"),
        FieldValue::I32(value) => write!(out, "{value}"),
        FieldValue::U32(value) => write!(out, "{value}"),
        FieldValue::I64(value) => write!(out, "{value}"),
        FieldValue::F32(value) => write!(out, "{:?}", f64::from(*value)),
        FieldValue::F64(value) => write!(out, "{value:?}"),
        FieldValue::Decimal { scale, value } => write!(out, "{{{scale},{value}}}"),
        FieldValue::LongString(bytes) | FieldValue::Bytes(bytes) => write_binary(out, bytes),
        FieldValue::Array(values) => write_list(out, values.iter(), |out, value| {
            write!(out, "{{{},", value.type_name())?;
            write_term(out, value)?;
            out.write_char('}')
        }),
        FieldValue::Table(table) => write_list(out, table.iter(), write_entry),
        FieldValue::Timestamp(value) => write!(out, "{value}"),
        FieldValue::Void => out.write_str("undefined"),
    }
}

fn write_entry(out: &mut fmt::Formatter<'_>, (key, value): (&ShortString, &FieldValue)) -> fmt::Result {
    out.write_char('{')?;
    write_binary(out, key.as_bytes())?;
    write!(out, ",{},", value.type_name())?;
    write_term(out, value)?;
    out.write_char('}')
}

fn write_list<T>(
    out: &mut fmt::Formatter<'_>,
    items: impl Iterator<Item = T>,
    write_item: impl Fn(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    out.write_char('[')?;
    for (place, item) in items.enumerate() {
        if place > 0 {
            out.write_char(',')?;
        }
        write_item(out, item)?;
    }
    out.write_char(']')
}

/// `<<"text">>` when all of it can be printed, `<<1,2,255>>` otherwise.
fn write_binary(out: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    out.write_str("<<")?;
    let printable = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    if printable && !bytes.is_empty() {
        let text = String::from_utf8_lossy(bytes)
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        write!(out, "\"{text}\"")?;
    } else {
        for (place, byte) in bytes.iter().enumerate() {
            if place > 0 {
                out.write_char(',')?;
            }
            write!(out, "{byte}")?;
        }
    }
    out.write_str(">>")
}
