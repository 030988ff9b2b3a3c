//! Properties where they lie: a question reads over what stands before its answer and no more.

use super::PropertyError;
use crate::protocol::{
    field::{FieldTable, RawEntries, RawField},
    wire::{Reader, Truncated},
};

/// Bytes of the flags word.
pub(super) const FLAGS_LEN: usize = 2;

/// The flag of each property. The values follow the flags in this order. The two bits below the last are
/// ignored: one is undefined, the other would announce a second flags word, which nobody defines or sends.
pub(super) const CONTENT_TYPE: u16 = 1 << 15;
pub(super) const CONTENT_ENCODING: u16 = 1 << 14;
pub(super) const HEADERS: u16 = 1 << 13;
pub(super) const DELIVERY_MODE: u16 = 1 << 12;
pub(super) const PRIORITY: u16 = 1 << 11;
pub(super) const CORRELATION_ID: u16 = 1 << 10;
pub(super) const REPLY_TO: u16 = 1 << 9;
pub(super) const EXPIRATION: u16 = 1 << 8;
pub(super) const MESSAGE_ID: u16 = 1 << 7;
pub(super) const TIMESTAMP: u16 = 1 << 6;
pub(super) const TYPE: u16 = 1 << 5;
pub(super) const USER_ID: u16 = 1 << 4;
pub(super) const APP_ID: u16 = 1 << 3;
pub(super) const CLUSTER_ID: u16 = 1 << 2;

const KNOWN: u16 = !0b11;

/// A message's properties as they came: the flags word, then the values. Nothing is checked on construction;
/// after [`RawProperties::validate`] no question fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawProperties<'a> {
    bytes: &'a [u8],
}

impl<'a> RawProperties<'a> {
    /// A view of flags and values.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes it looks at.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The flags word as it stands; 0 when there is none.
    #[inline]
    pub fn flags(&self) -> u16 {
        Reader::new(self.bytes).u16().unwrap_or(0)
    }

    /// Whether anything is announced that the broker may have to act on when the message is published, beside delivery
    /// mode and priority.
    #[inline]
    pub fn ask_something(&self) -> bool {
        self.flags() & (HEADERS | REPLY_TO | EXPIRATION | USER_ID) != 0
    }

    /// Whether a headers table is announced.
    #[inline]
    pub fn has_headers(&self) -> bool {
        self.flags() & HEADERS != 0
    }

    /// Whether an expiration is announced.
    #[inline]
    pub fn has_expiration(&self) -> bool {
        self.flags() & EXPIRATION != 0
    }

    /// Whether a priority is announced.
    #[inline]
    pub fn has_priority(&self) -> bool {
        self.flags() & PRIORITY != 0
    }

    /// Whether a user id is announced.
    #[inline]
    pub fn has_user_id(&self) -> bool {
        self.flags() & USER_ID != 0
    }

    /// Whether a reply address is announced.
    #[inline]
    pub fn has_reply_to(&self) -> bool {
        self.flags() & REPLY_TO != 0
    }

    /// 2 is persistent, everything else transient.
    ///
    /// # Errors
    /// Like all questions below, when the bytes end before the answer.
    #[inline]
    pub fn delivery_mode(&self) -> Result<Option<u8>, PropertyError> {
        self.octet(DELIVERY_MODE)
    }

    /// As sent, even above what a queue distinguishes.
    ///
    /// # Errors
    /// When the bytes end before the answer.
    #[inline]
    pub fn priority(&self) -> Result<Option<u8>, PropertyError> {
        self.octet(PRIORITY)
    }

    /// The headers table, decoded.
    ///
    /// # Errors
    /// When the bytes end before the answer or are not a table.
    pub fn headers(&self) -> Result<Option<FieldTable>, PropertyError> {
        let Some(reader) = self.reader_at(HEADERS)? else {
            return Ok(None);
        };
        let (table, _consumed) = FieldTable::parse(reader.remaining())?;
        Ok(Some(table))
    }

    /// The entries of the headers table where they lie; none when there is no table.
    #[inline]
    pub fn header_entries(&self) -> RawEntries<'a> {
        let table = self.reader_at(HEADERS).ok().flatten();
        RawEntries::new(table.map_or(&[], |reader| reader.remaining()))
    }

    /// The first header of this name, where it lies.
    pub fn header(&self, name: &[u8]) -> Option<RawField<'a>> {
        self.header_entries()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// What relates a reply to its request.
    ///
    /// # Errors
    /// When the bytes end before the answer.
    pub fn correlation_id(&self) -> Result<Option<&'a [u8]>, PropertyError> {
        self.short_string(CORRELATION_ID)
    }

    /// Where a reply is to go.
    ///
    /// # Errors
    /// When the bytes end before the answer.
    pub fn reply_to(&self) -> Result<Option<&'a [u8]>, PropertyError> {
        self.short_string(REPLY_TO)
    }

    /// The time to live, milliseconds in decimal digits if it is well-formed, which is not checked here.
    ///
    /// # Errors
    /// When the bytes end before the answer.
    pub fn expiration(&self) -> Result<Option<&'a [u8]>, PropertyError> {
        self.short_string(EXPIRATION)
    }

    /// The publisher's name for the message.
    ///
    /// # Errors
    /// When the bytes end before the answer.
    pub fn message_id(&self) -> Result<Option<&'a [u8]>, PropertyError> {
        self.short_string(MESSAGE_ID)
    }

    /// Seconds since 1970, by the publisher's clock.
    ///
    /// # Errors
    /// When the bytes end before the answer.
    pub fn timestamp(&self) -> Result<Option<u64>, PropertyError> {
        match self.reader_at(TIMESTAMP)? {
            Some(mut reader) => Ok(Some(reader.u64()?)),
            None => Ok(None),
        }
    }

    /// The user the publisher says it is.
    ///
    /// # Errors
    /// When the bytes end before the answer.
    pub fn user_id(&self) -> Result<Option<&'a [u8]>, PropertyError> {
        self.short_string(USER_ID)
    }

    /// Checks that every announced value is there, the headers are a table, and nothing follows the last
    /// value. Builds nothing.
    ///
    /// # Errors
    /// What is wrong, first thing first.
    #[inline]
    pub fn validate(&self) -> Result<(), PropertyError> {
        let mut reader = Reader::new(self.bytes);
        let flags = reader.u16()?;
        if flags & HEADERS != 0 {
            let mut at_headers = reader;
            skip_all(&mut at_headers, flags & above(HEADERS))?;
            FieldTable::validate(at_headers.remaining())?;
        }
        skip_all(&mut reader, flags & KNOWN)?;
        if reader.is_empty() {
            Ok(())
        } else {
            Err(PropertyError::TrailingBytes)
        }
    }

    #[inline]
    fn octet(&self, flag: u16) -> Result<Option<u8>, PropertyError> {
        match self.reader_at(flag)? {
            Some(mut reader) => Ok(Some(reader.u8()?)),
            None => Ok(None),
        }
    }

    #[inline]
    pub(super) fn short_string(&self, flag: u16) -> Result<Option<&'a [u8]>, PropertyError> {
        match self.reader_at(flag)? {
            Some(mut reader) => Ok(Some(reader.short_string()?)),
            None => Ok(None),
        }
    }

    /// Stands before the value of this flag, if it is announced.
    #[inline]
    pub(super) fn reader_at(&self, flag: u16) -> Result<Option<Reader<'a>>, Truncated> {
        let mut reader = Reader::new(self.bytes);
        let flags = reader.u16()?;
        if flags & flag == 0 {
            return Ok(None);
        }
        skip_all(&mut reader, flags & above(flag))?;
        Ok(Some(reader))
    }
}

/// The flags of all properties that stand before this one.
#[inline]
const fn above(flag: u16) -> u16 {
    !(flag | (flag - 1))
}

/// Steps over the values of these flags; only those announced cost anything.
#[inline]
fn skip_all(reader: &mut Reader<'_>, mut flags: u16) -> Result<(), Truncated> {
    while flags != 0 {
        let first = CONTENT_TYPE >> flags.leading_zeros();
        flags &= !first;
        match first {
            HEADERS => reader.long_string().map(drop)?,
            DELIVERY_MODE | PRIORITY => reader.skip(1)?,
            TIMESTAMP => reader.skip(8)?,
            _ => reader.short_string().map(drop)?,
        }
    }
    Ok(())
}
