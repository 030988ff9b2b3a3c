//! A message as queues and the store hold it: immutable, shared, one allocation when the body is small.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::protocol::{
    field::{RawElements, RawField},
    properties::{Properties, RawProperties},
};

/// Bodies above this many bytes are not copied into the message's record; they stay in the buffers they
/// arrived in, and the store writes them apart from the page (storage-design B7).
pub const INLINE_BODY_MAX: usize = 64 * 1024;

/// Bytes of fixed fields in front of a record: exchange length, routing key length, flags, priority,
/// properties length (u32 little-endian).
const FIXED: usize = 8;

const PERSISTENT: u8 = 1;
/// The broker dead-lettered it: the `x-death` header is its own.
const DIED: u8 = 2;
/// Behind the properties stands a BCC header as it came, tag and value.
const HIDDEN: u8 = 4;
/// The broker that it was taken over from had handed it out before.
const DELIVERED_BEFORE: u8 = 8;
/// Tag and length in front of an array's elements.
const ARRAY_HEAD: usize = 5;

/// A published message. Cloning shares it.
///
/// `record` is `[exchange len u8][routing key len u8][flags u8][priority u8][properties len u32 LE]`, then the
/// exchange, the routing key, the content header's properties as they came from the wire (flags word and
/// values), the BCC header if there was one, then the body unless it is large. The store writes the record as it stands.
#[derive(Clone)]
pub struct Message {
    record: Arc<[u8]>,
    large_body: Option<Arc<LargeBody>>,
}

/// A body in the pieces it arrived in.
pub struct LargeBody {
    /// None is empty.
    pub chunks: Vec<Bytes>,
    /// The sum of the chunks' lengths.
    pub len: u64,
}

/// What a message is made of, borrowed; [`Message::new`] copies it once.
pub struct MessageParts<'a> {
    /// At most 255 bytes, as every short string.
    pub exchange: &'a [u8],
    /// At most 255 bytes.
    pub routing_key: &'a [u8],
    /// The content header from its property flags on.
    pub properties: &'a [u8],
    /// delivery-mode 2.
    pub persistent: bool,
    /// The priority property, 0 when absent.
    pub priority: u8,
}

impl Message {
    /// A message whose body is small enough to stand in its record. `scratch` is working memory, kept by the
    /// caller so that a message costs one allocation.
    pub fn new(parts: &MessageParts<'_>, body: &[u8], scratch: &mut Vec<u8>) -> Self {
        write_record(parts, scratch);
        scratch.extend_from_slice(body);
        Self {
            record: Arc::from(scratch.as_slice()),
            large_body: None,
        }
    }

    /// A message whose body stays in the buffers it arrived in.
    pub fn with_large_body(parts: &MessageParts<'_>, chunks: Vec<Bytes>, scratch: &mut Vec<u8>) -> Self {
        write_record(parts, scratch);
        let len = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        Self {
            record: Arc::from(scratch.as_slice()),
            large_body: Some(Arc::new(LargeBody { chunks, len })),
        }
    }

    /// As [`Self::new`], with the BCC header that was taken out of the properties: nobody is shown it, and
    /// [`Self::routing_keys`] knows it.
    pub fn new_hiding(
        parts: &MessageParts<'_>,
        hidden: RawField<'_>,
        body: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Self {
        write_hiding(parts, hidden, scratch);
        scratch.extend_from_slice(body);
        Self {
            record: Arc::from(scratch.as_slice()),
            large_body: None,
        }
    }

    /// As [`Self::with_large_body`], with a BCC header that was taken out.
    pub fn with_large_body_hiding(
        parts: &MessageParts<'_>,
        hidden: RawField<'_>,
        chunks: Vec<Bytes>,
        scratch: &mut Vec<u8>,
    ) -> Self {
        let plain = Self::with_large_body(parts, chunks, scratch);
        write_hiding(parts, hidden, scratch);
        Self {
            record: Arc::from(scratch.as_slice()),
            large_body: plain.large_body,
        }
    }

    /// A message read back from a page. `None` when the lengths in the record do not fit it; a record with a
    /// large body ends behind the properties.
    pub fn from_record(record: &[u8], large_body: Option<Vec<Bytes>>) -> Option<Self> {
        let body_at = body_offset(record)?;
        if body_at > record.len() || (large_body.is_some() && body_at != record.len()) {
            return None;
        }
        let large_body = large_body.map(|chunks| {
            let len = chunks.iter().map(|chunk| chunk.len() as u64).sum();
            Arc::new(LargeBody { chunks, len })
        });
        Some(Self {
            record: Arc::from(record),
            large_body,
        })
    }

    /// A message without anything, for places whose message was taken.
    pub fn blank() -> Self {
        let parts = MessageParts {
            exchange: b"",
            routing_key: b"",
            properties: &[0, 0],
            persistent: false,
            priority: 0,
        };
        Self::new(&parts, b"", &mut Vec::new())
    }

    /// The same body under other names and properties, marked as dead-lettered.
    #[must_use]
    pub fn dead_lettered(&self, parts: &MessageParts<'_>, scratch: &mut Vec<u8>) -> Self {
        match self.hidden() {
            // Another key replaces all of them.
            Some(hidden) if parts.routing_key == self.routing_key() => write_hiding(parts, hidden, scratch),
            _ => write_record(parts, scratch),
        }
        if let Some(flags) = scratch.get_mut(2) {
            *flags |= DIED;
        }
        scratch.extend_from_slice(self.inline_body());
        Self {
            record: Arc::from(scratch.as_slice()),
            large_body: self.large_body.clone(),
        }
    }

    /// The same message, which another broker had handed out before it came here: its first delivery is a redelivery.
    #[must_use]
    pub fn delivered_before(&self) -> Self {
        let mut record = self.record.to_vec();
        if let Some(flags) = record.get_mut(2) {
            *flags |= DELIVERED_BEFORE;
        }
        Self {
            record: Arc::from(record),
            large_body: self.large_body.clone(),
        }
    }

    /// The same message with other properties.
    #[must_use]
    pub fn with_properties(&self, properties: &Properties) -> Self {
        let mut encoded = BytesMut::new();
        properties.encode(&mut encoded);
        let parts = MessageParts {
            exchange: self.exchange(),
            routing_key: self.routing_key(),
            properties: &encoded,
            persistent: self.persistent(),
            priority: self.priority(),
        };
        let mut record = Vec::new();
        write_record(&parts, &mut record);
        if let Some(flags) = record.get_mut(2) {
            *flags = self.byte(2);
        }
        record.extend_from_slice(self.hidden().map_or(&[][..], |hidden| hidden.encoded()));
        record.extend_from_slice(self.inline_body());
        Self {
            record: Arc::from(record),
            large_body: self.large_body.clone(),
        }
    }

    /// Where its record is in memory: clones share it, and it is free for another once all are gone.
    pub fn address(&self) -> usize {
        self.record.as_ptr().addr()
    }

    /// Whether it has a priority property.
    pub fn has_priority(&self) -> bool {
        RawProperties::new(self.properties()).has_priority()
    }

    /// The record as the store writes it: everything but a large body.
    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// The record up to the body: messages that agree in this differ in their bodies only.
    #[inline]
    pub fn head(&self) -> &[u8] {
        self.record
            .get(..body_offset(&self.record).unwrap_or(0))
            .unwrap_or(&[])
    }

    /// The body when it is not in the record.
    pub fn large_body(&self) -> Option<&Arc<LargeBody>> {
        self.large_body.as_ref()
    }

    /// The exchange it was published to (or dead-lettered through).
    pub fn exchange(&self) -> &[u8] {
        self.slice(FIXED, usize::from(self.byte(0)))
    }

    /// The routing key of the publish.
    pub fn routing_key(&self) -> &[u8] {
        self.slice(FIXED + usize::from(self.byte(0)), usize::from(self.byte(1)))
    }

    /// Property flags and values as they came.
    pub fn properties(&self) -> &[u8] {
        let at = FIXED + usize::from(self.byte(0)) + usize::from(self.byte(1));
        self.slice(at, self.properties_len())
    }

    /// The keys of a BCC header that was taken out.
    pub fn hidden_keys(&self) -> Option<RawElements<'_>> {
        self.hidden()?.elements()
    }

    fn hidden(&self) -> Option<RawField<'_>> {
        if self.byte(2) & HIDDEN == 0 {
            return None;
        }
        let at = FIXED + usize::from(self.byte(0)) + usize::from(self.byte(1)) + self.properties_len();
        RawField::from_encoded(self.record.get(at..)?)
    }

    /// delivery-mode 2.
    pub fn persistent(&self) -> bool {
        self.byte(2) & PERSISTENT != 0
    }

    /// The broker dead-lettered it before, so that its `x-death` header can be believed.
    pub fn has_died(&self) -> bool {
        self.byte(2) & DIED != 0
    }

    /// It was handed out before it came here.
    pub fn was_delivered_before(&self) -> bool {
        self.byte(2) & DELIVERED_BEFORE != 0
    }

    /// Whether it has an expiration property.
    pub fn has_expiration(&self) -> bool {
        RawProperties::new(self.properties()).has_expiration()
    }

    /// Milliseconds to live by its expiration property; `None` without one.
    pub fn expiration_ms(&self) -> Option<u64> {
        let digits = RawProperties::new(self.properties()).expiration().ok()??;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The priority property, 0 when absent.
    pub fn priority(&self) -> u8 {
        self.byte(3)
    }

    /// The body when it stands in the record; empty for a large one.
    pub fn inline_body(&self) -> &[u8] {
        self.record
            .get(body_offset(&self.record).unwrap_or(0)..)
            .unwrap_or(&[])
    }

    /// Bytes of the body, wherever it is.
    pub fn body_len(&self) -> u64 {
        match &self.large_body {
            Some(body) => body.len,
            None => self.inline_body().len() as u64,
        }
    }

    /// Bytes of memory the message holds, for budgets.
    pub fn memory_bytes(&self) -> usize {
        let large = self
            .large_body
            .as_ref()
            .map_or(0, |body| usize::try_from(body.len).unwrap_or(usize::MAX));
        self.record.len().saturating_add(large)
    }

    fn properties_len(&self) -> usize {
        properties_len(&self.record).unwrap_or(0)
    }

    fn byte(&self, at: usize) -> u8 {
        self.record.get(at).copied().unwrap_or(0)
    }

    fn slice(&self, at: usize, len: usize) -> &[u8] {
        self.record.get(at..at + len).unwrap_or(&[])
    }
}

fn write_record(parts: &MessageParts<'_>, out: &mut Vec<u8>) {
    debug_assert!(
        parts.exchange.len() <= 255 && parts.routing_key.len() <= 255,
        "short strings"
    );
    out.clear();
    out.push(u8::try_from(parts.exchange.len()).unwrap_or(u8::MAX));
    out.push(u8::try_from(parts.routing_key.len()).unwrap_or(u8::MAX));
    out.push(if parts.persistent { PERSISTENT } else { 0 });
    out.push(parts.priority);
    out.extend_from_slice(
        &u32::try_from(parts.properties.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(parts.exchange);
    out.extend_from_slice(parts.routing_key);
    out.extend_from_slice(parts.properties);
}

/// Writes all but the body, a BCC header behind the properties.
fn write_hiding(parts: &MessageParts<'_>, hidden: RawField<'_>, out: &mut Vec<u8>) {
    write_record(parts, out);
    // Only an array can be told from the body that follows it.
    if hidden.elements().is_some()
        && let Some(flags) = out.get_mut(2)
    {
        *flags |= HIDDEN;
        out.extend_from_slice(hidden.encoded());
    }
}

fn properties_len(record: &[u8]) -> Option<usize> {
    let bytes: [u8; 4] = record.get(4..FIXED)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

fn body_offset(record: &[u8]) -> Option<usize> {
    let names = usize::from(*record.first()?) + usize::from(*record.get(1)?);
    let at = FIXED.checked_add(names)?.checked_add(properties_len(record)?)?;
    if record.get(2)? & HIDDEN == 0 {
        return Some(at);
    }
    let length: [u8; 4] = record
        .get(at.checked_add(1)?..at.checked_add(ARRAY_HEAD)?)?
        .try_into()
        .ok()?;
    at.checked_add(ARRAY_HEAD)?
        .checked_add(usize::try_from(u32::from_be_bytes(length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> MessageParts<'static> {
        MessageParts {
            exchange: b"ex",
            routing_key: b"key",
            properties: b"\x10\x00\x02",
            persistent: true,
            priority: 7,
        }
    }

    #[test]
    fn a_message_gives_back_what_it_was_made_of() {
        let message = Message::new(&parts(), b"body", &mut Vec::new());
        assert_eq!(message.exchange(), b"ex");
        assert_eq!(message.routing_key(), b"key");
        assert_eq!(message.properties(), b"\x10\x00\x02");
        assert_eq!(message.inline_body(), b"body");
        assert_eq!(message.body_len(), 4);
        assert_eq!(message.priority(), 7);
        assert!(message.persistent());
    }

    #[test]
    fn a_record_reads_back_or_is_refused_at_every_length() {
        let message = Message::new(&parts(), b"", &mut Vec::new());
        for cut in 0..message.record().len() {
            assert!(
                Message::from_record(&message.record()[..cut], None).is_none(),
                "cut at {cut}"
            );
        }
        let again = Message::from_record(message.record(), None).unwrap();
        assert_eq!(again.record(), message.record());
    }

    #[test]
    fn hidden_keys_stand_apart_from_properties_and_body() {
        let bcc = b"A\x00\x00\x00\x06S\x00\x00\x00\x01k";
        let hidden = RawField::from_encoded(bcc).unwrap();
        let message = Message::new_hiding(&parts(), hidden, b"body", &mut Vec::new());
        for message in [&message, &Message::from_record(message.record(), None).unwrap()] {
            assert_eq!(message.properties(), b"\x10\x00\x02");
            assert_eq!(message.inline_body(), b"body");
            assert!(message.persistent());
            assert_eq!(message.routing_keys().as_slice(), [&b"key"[..], b"k"]);
        }
        let chunks = vec![Bytes::from_static(b"abc")];
        let large = Message::with_large_body_hiding(&parts(), hidden, chunks.clone(), &mut Vec::new());
        let again = Message::from_record(large.record(), Some(chunks)).unwrap();
        assert_eq!((again.body_len(), again.routing_keys().len()), (3, 2));
        let plain = Message::new(&parts(), b"body", &mut Vec::new());
        assert!(plain.hidden_keys().is_none());
    }

    #[test]
    fn a_large_body_stays_outside_the_record() {
        let chunks = vec![Bytes::from_static(b"abc"), Bytes::from_static(b"de")];
        let message = Message::with_large_body(&parts(), chunks.clone(), &mut Vec::new());
        assert_eq!(message.body_len(), 5);
        assert_eq!(message.inline_body(), b"");
        let again = Message::from_record(message.record(), Some(chunks)).unwrap();
        assert_eq!(again.body_len(), 5);
    }
}
