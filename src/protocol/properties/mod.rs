//! Content headers: the size of a body, and the fourteen properties of a basic message. `raw.rs` looks at
//! properties where they lie, `edit.rs` changes one of them, `owned.rs` takes them apart and puts them together again.

mod edit;
mod owned;
mod raw;

#[cfg(test)]
mod tests;

use bytes::{BufMut, BytesMut};

pub use self::{owned::Properties, raw::RawProperties};
use super::{
    field::FieldError,
    wire::{Reader, Truncated},
};

/// Why a content header or its properties cannot be read. We end the connection with frame-error for it
/// (hostile-input H31).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    #[error("a content header ends before its properties do")]
    Truncated,
    #[error("a content header has bytes after its last property")]
    TrailingBytes,
    #[error("a message's headers are not a table: {0}")]
    Headers(#[from] FieldError),
}

impl From<Truncated> for PropertyError {
    fn from(Truncated: Truncated) -> Self {
        Self::Truncated
    }
}

/// The payload of a header frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// 60, basic, is the only class with content.
    pub class: u16,
    /// Always 0; the assembler refuses others.
    pub weight: u16,
    /// Bytes of body to follow.
    pub body_size: u64,
    /// The property flags and the values they announce, see [`RawProperties`].
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Reads the fixed fields. The properties are left as they are: see [`RawProperties::validate`].
    ///
    /// # Errors
    /// [`PropertyError::Truncated`] when it has not even property flags (14 bytes).
    #[inline]
    pub fn decode(payload: &'a [u8]) -> Result<Self, PropertyError> {
        let mut reader = Reader::new(payload);
        let (class, weight, body_size) = (reader.u16()?, reader.u16()?, reader.u64()?);
        let properties = reader.remaining();
        reader.skip(raw::FLAGS_LEN)?;
        Ok(Self {
            class,
            weight,
            body_size,
            properties,
        })
    }

    /// Writes the payload of a header frame.
    #[inline]
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(12 + self.properties.len());
        out.put_u32(u32::from(self.class) << 16 | u32::from(self.weight));
        out.put_u64(self.body_size);
        out.put_slice(self.properties);
    }
}
