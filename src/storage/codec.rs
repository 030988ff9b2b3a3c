//! Little-endian reading of values, shared by the codecs of pages, rows and definitions. Nothing here trusts a length.

/// Walks over bytes that may be damaged. Every read says `None` when too few are left.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A string behind its u16 length.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let len = usize::from(self.u16()?);
        std::str::from_utf8(self.take(len)?).ok()
    }

    pub(super) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// Bytes behind their u32 length.
    pub(super) fn long(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        self.take(len)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Writes a string behind its u16 length. Names are at most 255 bytes, so nothing is cut.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.as_bytes().get(..usize::from(len)).unwrap_or_default());
}

/// Writes bytes behind their u32 length. What comes here was a request of at most some megabytes.
pub(super) fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// CRC32C of the value with the four bytes at `at`, where the checksum itself stands, left out.
pub(super) fn checksum_around(value: &[u8], at: usize) -> Option<u32> {
    let head = value.get(..at)?;
    let tail = value.get(at + 4..)?;
    Some(crc32c::crc32c_append(crc32c::crc32c(head), tail))
}

/// Fills in the checksum that [`checksum_around`] will be compared with.
pub(super) fn seal(value: &mut [u8], at: usize) {
    let Some(crc) = checksum_around(value, at) else {
        return;
    };
    if let Some(place) = value.get_mut(at..at + 4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Whether the checksum at `at` fits the rest of the value.
pub(super) fn is_sealed(value: &[u8], at: usize) -> bool {
    let found = value
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_le_bytes);
    found.is_some() && found == checksum_around(value, at)
}
