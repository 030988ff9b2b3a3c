//! How a field of a method stands on the wire, by its Rust type.

use bytes::{BufMut, Bytes, BytesMut};

use super::{MethodError, MethodId};
use crate::protocol::{
    field::{FieldError, FieldTable, ShortString},
    wire::{self, Reader, Truncated},
};

/// Why one field could not be read; the method is added by whoever reads the method.
pub(super) enum WireError {
    Truncated,
    InvalidUtf8,
    Table(FieldError),
}

impl WireError {
    pub(super) fn within(self, id: MethodId) -> MethodError {
        match self {
            Self::Truncated => MethodError::Truncated(id),
            Self::InvalidUtf8 => MethodError::InvalidUtf8(id),
            Self::Table(error) => MethodError::Table(id, error),
        }
    }
}

impl From<Truncated> for WireError {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

pub(super) trait WireType: Sized {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError>;
    fn write(&self, out: &mut BytesMut);
}

impl WireType for u8 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(reader.u8()?)
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(*self);
    }
}

impl WireType for u16 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(reader.u16()?)
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u16(*self);
    }
}

impl WireType for u32 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(reader.u32()?)
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u32(*self);
    }
}

impl WireType for u64 {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(reader.u64()?)
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u64(*self);
    }
}

/// A short string that has to be UTF-8.
impl WireType for String {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let bytes = reader.short_string()?;
        let text = str::from_utf8(bytes).map_err(|_where_it_breaks| WireError::InvalidUtf8)?;
        Ok(text.to_owned())
    }

    fn write(&self, out: &mut BytesMut) {
        wire::put_short_text(out, self);
    }
}

/// A short string of any bytes.
impl WireType for ShortString {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self::from_wire(reader.short_string()?))
    }

    fn write(&self, out: &mut BytesMut) {
        wire::put_short_string(out, self.as_bytes());
    }
}

/// A long string.
impl WireType for Bytes {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self::copy_from_slice(reader.long_string()?))
    }

    fn write(&self, out: &mut BytesMut) {
        wire::put_long_string(out, self);
    }
}

impl WireType for FieldTable {
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (table, consumed) = Self::parse(reader.remaining()).map_err(WireError::Table)?;
        reader.skip(consumed)?;
        Ok(table)
    }

    fn write(&self, out: &mut BytesMut) {
        self.encode(out);
    }
}
