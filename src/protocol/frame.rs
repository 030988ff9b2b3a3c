//! Frames: type, channel, size, payload, end octet (amqp-behaviour 1.8). Parsed in place from whatever has
//! arrived; nothing is copied and nothing is allocated from a declared size.

use bytes::{BufMut, BytesMut};
use nom::{
    IResult, Parser,
    bytes::streaming::take,
    number::streaming::{be_u8, be_u16, be_u32},
};

pub const METHOD: u8 = 1;
pub const HEADER: u8 = 2;
pub const BODY: u8 = 3;
pub const HEARTBEAT: u8 = 8;
pub const FRAME_END: u8 = 0xCE;

/// Octets of a frame around its payload.
pub const OVERHEAD: usize = 8;
/// Octets before the payload.
pub const HEAD: usize = 7;

/// A whole heartbeat frame.
pub const HEARTBEAT_FRAME: [u8; OVERHEAD] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/// The header a client opens with, and our answer to one that we do not speak.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// A frame where it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub channel: u16,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// Octets on the wire.
    pub fn wire_len(&self) -> usize {
        self.payload.len() + OVERHEAD
    }
}

/// Why input is not a frame; the text is RabbitMQ's after `FRAME_ERROR - `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("type {kind}, all octets = <<>>: {{frame_too_large,{size},{max}}}")]
    TooLarge { kind: u8, size: u32, max: u32 },
    #[error("type {kind}, {octets}: {{invalid_frame_end_marker,{found}}}")]
    BadEnd { kind: u8, octets: String, found: u8 },
    #[error("type {kind}, {octets}: unknown_frame")]
    Unknown { kind: u8, octets: String },
}

/// The frame that begins here when it is whole and nothing is wrong with it: nearly every one. What [`parse`] does for
/// each frame, without its words for what is wrong; nom's way through an integer took a tenth of a small message's time.
#[inline]
pub(super) fn whole(input: &[u8], frame_max: u32) -> Option<Frame<'_>> {
    let (&[kind, channel_high, channel_low, size @ ..], rest) = input.split_first_chunk::<HEAD>()?;
    let size = u32::from_be_bytes(size);
    if frame_max != 0 && size > frame_max {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(size as usize)?;
    (rest.first() == Some(&FRAME_END) && fits(kind, payload)).then_some(Frame {
        kind,
        channel: u16::from_be_bytes([channel_high, channel_low]),
        payload,
    })
}

/// Whether there is such a type of frame and it may be so short.
#[inline]
fn fits(kind: u8, payload: &[u8]) -> bool {
    match kind {
        METHOD => payload.len() >= 4,
        HEADER => payload.len() >= 12,
        BODY => true,
        HEARTBEAT => payload.is_empty(),
        _ => false,
    }
}

/// The next frame, or `None` while more input is needed. `frame_max` counts the whole frame; like RabbitMQ a payload
/// of up to `frame_max` octets is let through, and 0 is no limit.
///
/// # Errors
/// [`FrameError`]; a size over the limit is seen from the first seven octets.
#[inline]
pub fn parse(input: &[u8], frame_max: u32) -> Result<Option<Frame<'_>>, FrameError> {
    match whole(input, frame_max) {
        Some(frame) => Ok(Some(frame)),
        None => parse_partial(input, frame_max),
    }
}

/// As [`parse`], for what may be incomplete or wrong.
fn parse_partial(input: &[u8], frame_max: u32) -> Result<Option<Frame<'_>>, FrameError> {
    let head: IResult<&[u8], (u8, u16, u32)> = (be_u8, be_u16, be_u32).parse(input);
    let Ok((rest, (kind, channel, size))) = head else {
        return Ok(None);
    };
    if frame_max != 0 && size > frame_max {
        let max = frame_max.saturating_sub(8);
        return Err(FrameError::TooLarge { kind, size, max });
    }
    let body: IResult<&[u8], (&[u8], u8)> = (take(size), be_u8).parse(rest);
    let Ok((_, (payload, end))) = body else {
        return Ok(None);
    };
    if end != FRAME_END {
        return Err(FrameError::BadEnd {
            kind,
            octets: octets(payload),
            found: end,
        });
    }
    if !fits(kind, payload) {
        return Err(FrameError::Unknown {
            kind,
            octets: octets(payload),
        });
    }
    Ok(Some(Frame {
        kind,
        channel,
        payload,
    }))
}

/// How long the frame that begins here says it is; `None` before its size has arrived.
pub fn announced_len(input: &[u8]) -> Option<usize> {
    let size: [u8; 4] = input.get(3..HEAD)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(size))
        .ok()?
        .checked_add(OVERHEAD)
}

/// A payload as RabbitMQ shows it in its texts: whole up to 16 octets, else the first 16.
pub fn octets(payload: &[u8]) -> String {
    let word = if payload.len() <= 16 {
        "all octets"
    } else {
        "first 16 octets"
    };
    format!("{word} = {}", snippet(payload))
}

/// The first 16 octets as Erlang writes them: as text if they are printable, else as numbers.
pub fn snippet(payload: &[u8]) -> String {
    let shown = payload.get(..16).unwrap_or(payload);
    if !shown.is_empty() && shown.iter().all(|octet| matches!(octet, b' '..=b'~')) {
        let text = String::from_utf8_lossy(shown);
        return format!("<<{text:?}>>");
    }
    let listed: Vec<String> = shown.iter().map(u8::to_string).collect();
    format!("<<{}>>", listed.join(","))
}

/// Appends a frame around what `payload` writes.
#[inline]
pub fn write(out: &mut BytesMut, kind: u8, channel: u16, payload: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    out.put_u16(channel);
    let size_at = out.len();
    out.put_u32(0);
    payload(out);
    let size = u32::try_from(out.len() - size_at - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(size_at..size_at + 4) {
        place.copy_from_slice(&size.to_be_bytes());
    }
    out.put_u8(FRAME_END);
}

/// Appends the head of a frame whose payload of `len` octets and end octet the caller adds.
#[inline]
pub fn write_head(out: &mut BytesMut, kind: u8, channel: u16, len: usize) {
    out.put_u8(kind);
    out.put_u16(channel);
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        write(&mut out, kind, channel, |out| out.extend_from_slice(payload));
        out
    }

    #[test]
    fn a_frame_is_read_only_when_its_last_octet_is_there() {
        let bytes = frame(METHOD, 7, b"\x00\x0a\x00\x0bxyz");
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut], 131_072), Ok(None), "cut at {cut}");
        }
        let whole = parse(&bytes, 131_072).unwrap().unwrap();
        assert_eq!(
            whole,
            Frame {
                kind: METHOD,
                channel: 7,
                payload: b"\x00\x0a\x00\x0bxyz"
            }
        );
        assert_eq!(whole.wire_len(), bytes.len());
    }

    #[test]
    fn an_oversized_frame_is_refused_from_its_head() {
        let head = [BODY, 0, 1, 0, 2, 0, 1];
        assert_eq!(
            parse(&head, 131_072),
            Err(FrameError::TooLarge {
                kind: BODY,
                size: 131_073,
                max: 131_064
            })
        );
        assert_eq!(
            parse(&head, 131_072).unwrap_err().to_string(),
            "type 3, all octets = <<>>: {frame_too_large,131073,131064}"
        );
        assert_eq!(parse(&head, 0), Ok(None), "no limit");
    }

    #[test]
    fn malformed_frames_are_refused_with_rabbitmqs_texts() {
        let mut bytes = frame(BODY, 1, b"ab");
        *bytes.last_mut().unwrap() = 0;
        assert_eq!(
            parse(&bytes, 0).unwrap_err().to_string(),
            "type 3, all octets = <<\"ab\">>: {invalid_frame_end_marker,0}"
        );
        for (kind, payload) in [
            (9, &b""[..]),
            (METHOD, b"abc"),
            (HEADER, b"short"),
            (HEARTBEAT, b"x"),
        ] {
            assert!(
                matches!(
                    parse(&frame(kind, 0, payload), 0),
                    Err(FrameError::Unknown { .. })
                ),
                "type {kind}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_frame_round_trips(channel: u16, payload in prop::collection::vec(any::<u8>(), 0..3000)) {
            let bytes = frame(BODY, channel, &payload);
            let parsed = parse(&bytes, 131_072).unwrap().unwrap();
            prop_assert_eq!(parsed, Frame { kind: BODY, channel, payload: &payload });
        }

        #[test]
        fn the_short_way_and_the_long_one_agree(
            kind in 0u8..10, payload in prop::collection::vec(any::<u8>(), 0..40), cut in 0usize..48, end: bool,
            frame_max in 0u32..64,
        ) {
            let mut bytes = frame(kind, 5, &payload);
            if end {
                bytes.put_u8(0);
            }
            let bytes = &bytes[..bytes.len().min(cut)];
            let long = parse_partial(bytes, frame_max);
            prop_assert_eq!(whole(bytes, frame_max), long.ok().flatten());
        }

        #[test]
        fn any_bytes_are_refused_or_waited_for(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(frame)) = parse(&bytes, 4096) {
                prop_assert!(frame.wire_len() <= bytes.len());
            }
        }
    }
}
