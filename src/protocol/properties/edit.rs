//! Properties with one thing changed, the rest copied as it stands: what a message pays when it names reply addresses
//! or hidden keys.

use super::raw::{HEADERS, REPLY_TO, RawProperties};

impl RawProperties<'_> {
    /// Appends the properties with another reply address; `None` when there was none to replace.
    /// `reply_to` has at most 255 bytes.
    pub fn write_with_reply_to(&self, reply_to: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let old = self.short_string(REPLY_TO).ok()??;
        let behind = self.offset_behind(REPLY_TO)?;
        let bytes = self.as_bytes();
        out.extend_from_slice(bytes.get(..behind.checked_sub(old.len() + 1)?)?);
        out.push(u8::try_from(reply_to.len()).ok()?);
        out.extend_from_slice(reply_to);
        out.extend_from_slice(bytes.get(behind..)?);
        Some(())
    }

    /// Appends the properties without every header of this name; the table stays, even when it ends empty. `None` when
    /// there are no headers.
    pub fn write_without_header(&self, name: &[u8], out: &mut Vec<u8>) -> Option<()> {
        const LEN: usize = size_of::<u32>();
        let behind = self.offset_behind(HEADERS)?;
        let bytes = self.as_bytes();
        let begin = bytes.len() - self.reader_at(HEADERS).ok()??.remaining().len();
        out.extend_from_slice(bytes.get(..begin)?);
        let length_at = out.len();
        out.extend_from_slice(&[0; LEN]);
        for (key, value) in self.header_entries() {
            if key != name {
                out.push(u8::try_from(key.len()).ok()?);
                out.extend_from_slice(key);
                out.extend_from_slice(value.encoded());
            }
        }
        let len = u32::try_from(out.len() - length_at - LEN).ok()?;
        out.get_mut(length_at..length_at + LEN)?
            .copy_from_slice(&len.to_be_bytes());
        out.extend_from_slice(bytes.get(behind..)?);
        Some(())
    }

    /// Where the value of this flag ends.
    fn offset_behind(&self, flag: u16) -> Option<usize> {
        let mut reader = self.reader_at(flag).ok()??;
        if flag == HEADERS {
            reader.long_string().ok()?;
        } else {
            reader.short_string().ok()?;
        }
        Some(self.as_bytes().len() - reader.remaining().len())
    }
}
