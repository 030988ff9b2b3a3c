//! Properties taken apart, for those who change them: dead-lettering, removal of BCC, reply addresses.

use bytes::{BufMut, BytesMut};

use super::{PropertyError, raw};
use crate::protocol::{
    field::{FieldTable, ShortString},
    wire::{Reader, Truncated, put_short_string},
};

/// All fourteen, in the order of the wire. Strings are any bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    pub content_type: Option<ShortString>,
    pub content_encoding: Option<ShortString>,
    /// An empty table is not the same as none: it stays, and is delivered empty.
    pub headers: Option<FieldTable>,
    /// 2 is persistent, everything else transient.
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<ShortString>,
    pub reply_to: Option<ShortString>,
    /// The time to live, milliseconds in decimal digits.
    pub expiration: Option<ShortString>,
    pub message_id: Option<ShortString>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// The `type` property.
    pub kind: Option<ShortString>,
    pub user_id: Option<ShortString>,
    pub app_id: Option<ShortString>,
    /// Reserved since 0-9-1, still stored and passed on.
    pub cluster_id: Option<ShortString>,
}

impl Properties {
    /// Reads flags and values, and nothing behind them.
    ///
    /// # Errors
    /// When a value is cut short, the headers are not a table, or bytes follow the last value.
    pub fn decode(bytes: &[u8]) -> Result<Self, PropertyError> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u16()?;
        let properties = Self {
            content_type: read_string(&mut reader, flags & raw::CONTENT_TYPE)?,
            content_encoding: read_string(&mut reader, flags & raw::CONTENT_ENCODING)?,
            headers: read_headers(&mut reader, flags & raw::HEADERS)?,
            delivery_mode: read_if(flags & raw::DELIVERY_MODE, || reader.u8())?,
            priority: read_if(flags & raw::PRIORITY, || reader.u8())?,
            correlation_id: read_string(&mut reader, flags & raw::CORRELATION_ID)?,
            reply_to: read_string(&mut reader, flags & raw::REPLY_TO)?,
            expiration: read_string(&mut reader, flags & raw::EXPIRATION)?,
            message_id: read_string(&mut reader, flags & raw::MESSAGE_ID)?,
            timestamp: read_if(flags & raw::TIMESTAMP, || reader.u64())?,
            kind: read_string(&mut reader, flags & raw::TYPE)?,
            user_id: read_string(&mut reader, flags & raw::USER_ID)?,
            app_id: read_string(&mut reader, flags & raw::APP_ID)?,
            cluster_id: read_string(&mut reader, flags & raw::CLUSTER_ID)?,
        };
        if reader.is_empty() {
            Ok(properties)
        } else {
            Err(PropertyError::TrailingBytes)
        }
    }

    /// Writes flags and values.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.flags());
        put_string(out, self.content_type.as_ref());
        put_string(out, self.content_encoding.as_ref());
        if let Some(headers) = &self.headers {
            headers.encode(out);
        }
        out.extend(self.delivery_mode);
        out.extend(self.priority);
        put_string(out, self.correlation_id.as_ref());
        put_string(out, self.reply_to.as_ref());
        put_string(out, self.expiration.as_ref());
        put_string(out, self.message_id.as_ref());
        if let Some(timestamp) = self.timestamp {
            out.put_u64(timestamp);
        }
        put_string(out, self.kind.as_ref());
        put_string(out, self.user_id.as_ref());
        put_string(out, self.app_id.as_ref());
        put_string(out, self.cluster_id.as_ref());
    }

    fn flags(&self) -> u16 {
        let present = [
            (raw::CONTENT_TYPE, self.content_type.is_some()),
            (raw::CONTENT_ENCODING, self.content_encoding.is_some()),
            (raw::HEADERS, self.headers.is_some()),
            (raw::DELIVERY_MODE, self.delivery_mode.is_some()),
            (raw::PRIORITY, self.priority.is_some()),
            (raw::CORRELATION_ID, self.correlation_id.is_some()),
            (raw::REPLY_TO, self.reply_to.is_some()),
            (raw::EXPIRATION, self.expiration.is_some()),
            (raw::MESSAGE_ID, self.message_id.is_some()),
            (raw::TIMESTAMP, self.timestamp.is_some()),
            (raw::TYPE, self.kind.is_some()),
            (raw::USER_ID, self.user_id.is_some()),
            (raw::APP_ID, self.app_id.is_some()),
            (raw::CLUSTER_ID, self.cluster_id.is_some()),
        ];
        present
            .into_iter()
            .filter(|(_, present)| *present)
            .fold(0, |flags, (flag, _)| flags | flag)
    }
}

fn read_if<T>(flag: u16, read: impl FnOnce() -> Result<T, Truncated>) -> Result<Option<T>, Truncated> {
    if flag == 0 { Ok(None) } else { read().map(Some) }
}

fn read_string(reader: &mut Reader<'_>, flag: u16) -> Result<Option<ShortString>, Truncated> {
    read_if(flag, || reader.short_string().map(ShortString::from_wire))
}

fn read_headers(reader: &mut Reader<'_>, flag: u16) -> Result<Option<FieldTable>, PropertyError> {
    if flag == 0 {
        return Ok(None);
    }
    let (table, consumed) = FieldTable::parse(reader.remaining())?;
    reader.skip(consumed)?;
    Ok(Some(table))
}

fn put_string(out: &mut BytesMut, text: Option<&ShortString>) {
    if let Some(text) = text {
        put_short_string(out, text.as_bytes());
    }
}
