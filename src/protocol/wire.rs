//! The primitives of the wire, read and written: integers, short strings, long strings. All big-endian.
//! Nothing here copies or allocates on the word of a declared length; what is read borrows from the input.

use bytes::{BufMut, BytesMut};
use nom::{
    Parser,
    number::complete::{be_f32, be_f64},
};

/// The input ended before the value did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truncated;

/// Walks over a slice. After a read that failed it stands anywhere: whoever reads gives up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    fn read<T>(&mut self, mut parser: impl Parser<&'a [u8], Output = T, Error = ()>) -> Result<T, Truncated> {
        // The parsers used here can only fail for want of bytes, so their error says nothing more.
        let (rest, value) = parser.parse(self.rest).map_err(|_no_detail| Truncated)?;
        self.rest = rest;
        Ok(value)
    }

    /// Integers are read as arrays: nom's own integer parsers loop over the bytes, which took half the time of
    /// reading a basic.publish.
    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Truncated> {
        self.array().map(u8::from_be_bytes)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn f32(&mut self) -> Result<f32, Truncated> {
        self.read(be_f32)
    }

    pub(super) fn f64(&mut self) -> Result<f64, Truncated> {
        self.read(be_f64)
    }

    /// Exactly `count` bytes. Not nom's `take`, which is no part of its callers.
    #[inline]
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Exactly `count` bytes.
    #[inline]
    pub(super) fn skip(&mut self, count: usize) -> Result<(), Truncated> {
        self.bytes(count).map(drop)
    }

    /// One length octet, then that many bytes of any kind.
    #[inline]
    pub(super) fn short_string(&mut self) -> Result<&'a [u8], Truncated> {
        let len = self.u8()?;
        self.bytes(len.into())
    }

    /// A 32-bit length, then that many bytes: a long string, or the inside of a table or an array.
    #[inline]
    pub(super) fn long_string(&mut self) -> Result<&'a [u8], Truncated> {
        let len = self.u32()?;
        self.bytes(len as usize)
    }
}

/// The longest short string, in bytes.
pub(super) const SHORT_STRING_MAX: usize = u8::MAX as usize;

/// Writes at most 255 bytes; the caller has made sure there are no more.
#[inline]
pub(super) fn put_short_string(out: &mut BytesMut, bytes: &[u8]) {
    debug_assert!(
        bytes.len() <= SHORT_STRING_MAX,
        "a short string has at most 255 bytes"
    );
    let bytes = bytes.get(..SHORT_STRING_MAX).unwrap_or(bytes);
    out.put_u8(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.put_slice(bytes);
}

/// Writes a text as a short string. A longer one loses its end, on a character boundary: only reply texts can
/// be longer, since every name was once a short string itself.
pub(super) fn put_short_text(out: &mut BytesMut, text: &str) {
    let longest = text.len().min(SHORT_STRING_MAX);
    let kept = (0..=longest)
        .rev()
        .find_map(|len| text.get(..len))
        .unwrap_or_default();
    put_short_string(out, kept.as_bytes());
}

pub(super) fn put_long_string(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(wire_len(bytes.len()));
    out.put_slice(bytes);
}

/// Writes what `inside` writes, preceded by its length in 32 bits.
pub(super) fn put_with_length(out: &mut BytesMut, inside: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u32(0);
    inside(out);
    let len = wire_len(out.len() - at - size_of::<u32>());
    if let Some(place) = out.get_mut(at..at + size_of::<u32>()) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}

fn wire_len(len: usize) -> u32 {
    u32::try_from(len).expect("what fits a frame is far below 4 GiB")
}
