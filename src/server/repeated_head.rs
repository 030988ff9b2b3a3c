//! What deliveries in a row have in common.

use bytes::BufMut;
use smallvec::SmallVec;

use crate::broker::message::Message;
use crate::protocol::frame;
use crate::server::outbox::Frames;

/// What stands in front of a small body, as it was written for the delivery before. Messages that follow each other mostly
/// differ in their bodies only; then it is copied in one piece, which is several times cheaper than writing it again.
#[derive(Default)]
pub(super) struct RepeatedHead {
    /// Method frame, header frame and the head of the body's frame.
    written: SmallVec<[u8; 256]>,
    /// [`Message::head`] of what it was written for; empty before the first.
    of: SmallVec<[u8; 128]>,
    body_len: usize,
    /// Where the delivery tag stands in it, and behind that the redelivered flag.
    tag_at: usize,
}

impl RepeatedHead {
    /// Writes a delivery that differs from the remembered one in body, tag and flag only. False if it is another.
    #[inline]
    pub(super) fn write(
        &mut self,
        frames: &mut Frames,
        message: &Message,
        delivery_tag: u64,
        redelivered: bool,
    ) -> bool {
        let body = message.inline_body();
        if self.of.is_empty()
            || body.len() != self.body_len
            || message.head() != &self.of[..]
            || message.large_body().is_some()
        {
            return false;
        }
        let Some([tag @ .., flag]) = self
            .written
            .get_mut(self.tag_at..self.tag_at + size_of::<u64>() + 1)
        else {
            return false;
        };
        tag.copy_from_slice(&delivery_tag.to_be_bytes());
        *flag = u8::from(redelivered);
        let out = frames.tail();
        out.reserve(self.written.len() + body.len() + 1);
        out.extend_from_slice(&self.written);
        out.extend_from_slice(body);
        out.put_u8(frame::FRAME_END);
        true
    }

    /// Takes over what was just written, unless the message has no body in one frame or much in front of it.
    pub(super) fn remember(&mut self, written: Option<&[u8]>, message: &Message, tag_at: usize) {
        self.of.clear();
        let (head, body) = (message.head(), message.inline_body());
        let Some(written) = written else { return };
        let until = written.len().saturating_sub(body.len() + 1);
        if let Some(written) = written.get(..until)
            && !body.is_empty()
            && head.len() <= self.of.inline_size()
            && written.len() <= self.written.inline_size()
        {
            self.of.extend_from_slice(head);
            self.written.clear();
            self.written.extend_from_slice(written);
            (self.body_len, self.tag_at) = (body.len(), tag_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;
    use crate::broker::message::MessageParts;
    use crate::protocol::method::encode_deliver;

    const TAG: &[u8] = b"consumer";

    fn message(routing_key: &[u8], properties: &[u8], body: &[u8]) -> Message {
        let parts = MessageParts {
            exchange: b"ex",
            routing_key,
            properties,
            persistent: false,
            priority: 0,
        };
        Message::new(&parts, body, &mut Vec::new())
    }

    fn written_out(message: &Message, tag: u64, redelivered: bool) -> BytesMut {
        let mut out = BytesMut::new();
        frame::write(&mut out, frame::METHOD, 3, |out| {
            encode_deliver(
                out,
                TAG,
                tag,
                redelivered,
                message.exchange(),
                message.routing_key(),
            );
        });
        frame::write(&mut out, frame::HEADER, 3, |out| {
            out.put_u32(60 << 16);
            out.put_u64(message.body_len());
            out.extend_from_slice(message.properties());
        });
        frame::write(&mut out, frame::BODY, 3, |out| {
            out.extend_from_slice(message.inline_body())
        });
        out
    }

    #[test]
    fn what_differs_in_body_tag_and_flag_is_written_as_if_for_itself() {
        let first = message(b"key", b"\x10\x00\x01", b"body");
        let mut repeated = RepeatedHead::default();
        let mut frames = Frames::default();
        assert!(
            !repeated.write(&mut frames, &first, 1, false),
            "nothing is known yet"
        );
        let tag_at = frame::HEAD + 4 + 1 + TAG.len();
        repeated.remember(Some(&written_out(&first, 1, false)), &first, tag_at);
        for (tag, redelivered, body) in [
            (2, false, b"next"),
            (u64::MAX, true, b"last"),
            (4, false, b"\xce\0\0\0"),
        ] {
            let next = message(b"key", b"\x10\x00\x01", body);
            let mut frames = Frames::default();
            assert!(repeated.write(&mut frames, &next, tag, redelivered));
            assert_eq!(frames.tail(), &written_out(&next, tag, redelivered));
        }
        for other in [
            message(b"kez", b"\x10\x00\x01", b"body"),
            message(b"key", b"\x10\x00\x02", b"body"),
            message(b"key", b"\x10\x00\x01", b"longer"),
            message(b"key", b"\x10\x00\x01", b""),
        ] {
            assert!(!repeated.write(&mut frames, &other, 2, false));
        }
        assert!(frames.tail().is_empty());
    }

    #[test]
    fn an_empty_body_and_a_long_head_are_not_kept() {
        let mut repeated = RepeatedHead::default();
        let mut frames = Frames::default();
        for message in [
            message(b"key", b"\0\0", b""),
            message(&[b'k'; 200], b"\0\0", b"body"),
        ] {
            repeated.remember(Some(&written_out(&message, 1, false)), &message, 20);
            assert!(!repeated.write(&mut frames, &message, 2, false));
        }
    }
}
