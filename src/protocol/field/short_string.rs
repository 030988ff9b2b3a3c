//! The short string of the wire.

use std::{borrow::Borrow, borrow::Cow, fmt};

use crate::protocol::wire::SHORT_STRING_MAX;

/// At most 255 bytes of any kind: table keys, and the names in basic methods, which need not be UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ShortString(Box<[u8]>);

/// More than 255 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a short string has at most 255 bytes")]
pub struct ShortStringTooLong;

impl ShortString {
    /// The bytes, without the length octet.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, with replacement characters for what is not UTF-8.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

/// For text the caller knows to be short: names that came from the wire, and our own constants.
///
/// # Panics
/// Beyond 255 bytes. Text of unknown length goes through `TryFrom<&[u8]>`.
impl From<&str> for ShortString {
    fn from(text: &str) -> Self {
        assert!(
            text.len() <= SHORT_STRING_MAX,
            "a short string has at most 255 bytes"
        );
        Self(text.as_bytes().into())
    }
}

impl TryFrom<&[u8]> for ShortString {
    type Error = ShortStringTooLong;

    fn try_from(bytes: &[u8]) -> Result<Self, ShortStringTooLong> {
        if bytes.len() > SHORT_STRING_MAX {
            Err(ShortStringTooLong)
        } else {
            Ok(Self(bytes.into()))
        }
    }
}

impl ShortString {
    /// What [`crate::protocol::wire::Reader::short_string`] read, which cannot be too long.
    pub(in crate::protocol) fn from_wire(bytes: &[u8]) -> Self {
        debug_assert!(bytes.len() <= SHORT_STRING_MAX, "one octet held its length");
        Self(bytes.into())
    }
}

/// Lets a map keyed by short strings be asked with plain bytes.
impl Borrow<[u8]> for ShortString {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for ShortString {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ShortString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0.escape_ascii())
    }
}
