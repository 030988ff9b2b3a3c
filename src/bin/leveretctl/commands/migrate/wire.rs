//! As much of AMQP 0-9-1 as it takes to fetch messages from a queue and to acknowledge them. Properties and bodies are
//! passed on as the bytes they are.

use bytes::BytesMut;

use super::frame::{METHOD, write};

/// Class, weight and body size before the properties of a content header.
const CONTENT_HEAD_BYTES: usize = 12;

/// A method's class and number.
pub(super) type Id = (u16, u16);

pub(super) const START: Id = (10, 10);
pub(super) const START_OK: Id = (10, 11);
pub(super) const TUNE: Id = (10, 30);
pub(super) const TUNE_OK: Id = (10, 31);
pub(super) const OPEN: Id = (10, 40);
pub(super) const OPEN_OK: Id = (10, 41);
pub(super) const CLOSE: Id = (10, 50);
pub(super) const CLOSE_OK: Id = (10, 51);
pub(super) const CHANNEL_OPEN: Id = (20, 10);
pub(super) const CHANNEL_OPEN_OK: Id = (20, 11);
pub(super) const CHANNEL_CLOSE: Id = (20, 40);
pub(super) const CHANNEL_CLOSE_OK: Id = (20, 41);
pub(super) const DECLARE: Id = (50, 10);
pub(super) const DECLARE_OK: Id = (50, 11);
pub(super) const GET: Id = (60, 70);
pub(super) const GET_OK: Id = (60, 71);
pub(super) const GET_EMPTY: Id = (60, 72);
pub(super) const ACK: Id = (60, 80);

/// A method frame under construction.
pub(super) struct Method {
    channel: u16,
    payload: Vec<u8>,
}

impl Method {
    pub(super) fn new(channel: u16, (class, number): Id) -> Self {
        let mut payload = class.to_be_bytes().to_vec();
        payload.extend(number.to_be_bytes());
        Self { channel, payload }
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.payload.extend(bytes);
        self
    }

    pub(super) fn u16(self, number: u16) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    pub(super) fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_be_bytes())
    }

    /// What is longer than 255 bytes is cut off; names never are.
    pub(super) fn short(mut self, text: &str) -> Self {
        let bytes = text.as_bytes();
        let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        self.payload.push(length);
        self.bytes(bytes.get(..usize::from(length)).unwrap_or_default())
    }

    pub(super) fn long(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.bytes(&length.to_be_bytes()).bytes(bytes)
    }

    pub(super) fn frame(self) -> BytesMut {
        let mut frame = BytesMut::new();
        write(&mut frame, METHOD, self.channel, |out| {
            out.extend_from_slice(&self.payload)
        });
        frame
    }
}

/// Reads the arguments of a method, or of a content header.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The id of a method and its arguments.
    pub(super) fn method(payload: &'a [u8]) -> Option<(Id, Self)> {
        let mut reader = Self(payload);
        let id = (reader.u16()?, reader.u16()?);
        Some((id, reader))
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*bytes))
    }

    pub(super) fn short(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }
}

/// A content header's body size, and its properties as they stand.
pub(super) fn content(payload: &[u8]) -> Option<(u64, &[u8])> {
    let (head, properties) = payload.split_at_checked(CONTENT_HEAD_BYTES)?;
    let mut reader = Reader(head);
    reader.u32()?;
    Some((reader.u64()?, properties))
}

#[cfg(test)]
mod tests {
    use super::{super::frame::parse, *};

    #[test]
    fn a_method_reads_back() {
        let bytes = Method::new(7, GET).u16(0).short("q").bytes(&[0]).frame();
        let frame = parse(&bytes, 0).unwrap().unwrap();
        assert_eq!(
            (frame.kind, frame.channel, frame.wire_len()),
            (METHOD, 7, bytes.len())
        );
        let (id, mut arguments) = Reader::method(frame.payload).unwrap();
        assert_eq!((id, arguments.u16()), (GET, Some(0)));
        assert_eq!(
            (arguments.short(), arguments.u8(), arguments.u8()),
            (Some(&b"q"[..]), Some(0), None)
        );
    }
}
