//! Reads what a broker sends at the least possible price: frame headers are walked, deliveries counted, and only
//! the few bytes a measurement needs (delivery tag, the stamp in the body) are looked at.

use std::io::{self, Read};

use crate::{error::PerfError, ledger::Confirm};

pub(crate) const FRAME_METHOD: u8 = 1;
pub(crate) const FRAME_HEADER: u8 = 2;
pub(crate) const FRAME_BODY: u8 = 3;
pub(crate) const FRAME_HEARTBEAT: u8 = 8;
pub(crate) const FRAME_END: u8 = 0xCE;
/// Type, channel and length before the payload; the end octet after it.
pub(crate) const FRAME_HEAD_BYTES: usize = 7;
pub(crate) const FRAME_OVERHEAD_BYTES: usize = FRAME_HEAD_BYTES + 1;

const BASIC_DELIVER: u32 = 60 << 16 | 60;
const BASIC_ACK: u32 = 60 << 16 | 80;
const BASIC_NACK: u32 = 60 << 16 | 120;

/// One thing the broker said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A whole message has arrived. `stamp` is the first eight bytes of its body, if it has so many.
    Delivered {
        tag: u64,
        stamp: Option<u64>,
    },
    Confirmed(Confirm),
    /// The payload of any other method frame.
    Method(&'a [u8]),
}

/// Where in a message the walk stands.
#[derive(Default)]
pub(crate) struct Walker {
    frame_max_bytes: usize,
    delivery_tag: Option<u64>,
    stamp: Option<u64>,
    body_left_bytes: u64,
    body_untouched: bool,
}

impl Walker {
    /// Refuses frames of more than `frame_max_bytes`, head and end octet included.
    pub(crate) fn new(frame_max_bytes: usize) -> Self {
        Self {
            frame_max_bytes,
            ..Self::default()
        }
    }

    pub(crate) fn set_frame_max_bytes(&mut self, frame_max_bytes: usize) {
        self.frame_max_bytes = frame_max_bytes;
    }

    /// Walks all whole frames at the start of `bytes` and returns how many bytes they took.
    pub(crate) fn walk(
        &mut self,
        bytes: &[u8],
        mut on: impl FnMut(Event<'_>) -> Result<(), PerfError>,
    ) -> Result<usize, PerfError> {
        let mut rest = bytes;
        while let Some((head, after)) = rest.split_first_chunk::<FRAME_HEAD_BYTES>() {
            let [kind, _, _, l0, l1, l2, l3] = *head;
            let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            if length + FRAME_OVERHEAD_BYTES > self.frame_max_bytes {
                let allowed = self.frame_max_bytes;
                return Err(PerfError::protocol(format!(
                    "a frame with {length} bytes of payload, frame_max is {allowed}"
                )));
            }
            let Some((payload, [end, next @ ..])) = after.split_at_checked(length) else {
                break;
            };
            if *end != FRAME_END {
                return Err(PerfError::protocol(format!("a frame that ends with {end:#04x}")));
            }
            match kind {
                FRAME_BODY => self.body(payload, &mut on)?,
                FRAME_METHOD => self.method(payload, &mut on)?,
                FRAME_HEADER => self.header(payload, &mut on)?,
                FRAME_HEARTBEAT => {}
                other => return Err(PerfError::protocol(format!("a frame of type {other}"))),
            }
            rest = next;
        }
        Ok(bytes.len() - rest.len())
    }

    fn method(
        &mut self,
        payload: &[u8],
        on: &mut impl FnMut(Event<'_>) -> Result<(), PerfError>,
    ) -> Result<(), PerfError> {
        let Some((id, arguments)) = payload.split_first_chunk::<4>() else {
            return Err(PerfError::protocol("a method frame without a method"));
        };
        match u32::from_be_bytes(*id) {
            BASIC_DELIVER => {
                let consumer_tag_bytes = arguments.first().copied().map_or(0, usize::from);
                let tag = read_u64(arguments, 1 + consumer_tag_bytes);
                self.delivery_tag = Some(tag.ok_or_else(|| PerfError::protocol("a short basic.deliver"))?);
                Ok(())
            }
            id @ (BASIC_ACK | BASIC_NACK) => {
                let (Some(tag), Some(bits)) = (read_u64(arguments, 0), arguments.get(8)) else {
                    return Err(PerfError::protocol("a short confirm"));
                };
                on(Event::Confirmed(Confirm {
                    tag,
                    multiple: bits & 1 == 1,
                    positive: id == BASIC_ACK,
                }))
            }
            _ => on(Event::Method(payload)),
        }
    }

    fn header(
        &mut self,
        payload: &[u8],
        on: &mut impl FnMut(Event<'_>) -> Result<(), PerfError>,
    ) -> Result<(), PerfError> {
        let Some(body_bytes) = read_u64(payload, 4) else {
            return Err(PerfError::protocol("a short content header"));
        };
        self.body_left_bytes = body_bytes;
        self.body_untouched = true;
        self.stamp = None;
        if body_bytes == 0 {
            self.complete(on)
        } else {
            Ok(())
        }
    }

    fn body(
        &mut self,
        payload: &[u8],
        on: &mut impl FnMut(Event<'_>) -> Result<(), PerfError>,
    ) -> Result<(), PerfError> {
        if payload.is_empty() {
            return Ok(());
        }
        if self.body_untouched {
            self.stamp = read_u64(payload, 0);
            self.body_untouched = false;
        }
        let Some(left_bytes) = self.body_left_bytes.checked_sub(payload.len() as u64) else {
            return Err(PerfError::protocol("a body longer than its header said"));
        };
        self.body_left_bytes = left_bytes;
        if left_bytes == 0 {
            self.complete(on)
        } else {
            Ok(())
        }
    }

    /// The content is whole. Content that no basic.deliver announced (a basic.return) is nothing to count.
    fn complete(&mut self, on: &mut impl FnMut(Event<'_>) -> Result<(), PerfError>) -> Result<(), PerfError> {
        match self.delivery_tag.take() {
            Some(tag) => on(Event::Delivered {
                tag,
                stamp: self.stamp,
            }),
            None => Ok(()),
        }
    }
}

/// Received bytes that are not walked yet. Its size is fixed: one large read and the part of a frame before it.
pub(crate) struct Inbox {
    bytes: Box<[u8]>,
    filled: usize,
    pub(crate) walker: Walker,
}

impl Inbox {
    /// Reads up to `read_bytes` at a time and holds a frame of `walker`'s frame_max on top of that.
    pub(crate) fn new(read_bytes: usize, frame_max_bytes: usize) -> Self {
        Self {
            bytes: vec![0; read_bytes + frame_max_bytes].into_boxed_slice(),
            filled: 0,
            walker: Walker::new(frame_max_bytes),
        }
    }

    /// One read. `Ok(0)` means that the peer has closed.
    pub(crate) fn read_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        let room = self.bytes.get_mut(self.filled..).unwrap_or_default();
        let count = source.read(room)?;
        self.filled += count;
        Ok(count)
    }

    /// Walks all whole frames received so far; the part of a frame behind them stays.
    pub(crate) fn walk(
        &mut self,
        on: impl FnMut(Event<'_>) -> Result<(), PerfError>,
    ) -> Result<(), PerfError> {
        let received = self.bytes.get(..self.filled).unwrap_or_default();
        let walked = self.walker.walk(received, on)?;
        self.bytes.copy_within(walked..self.filled, 0);
        self.filled -= walked;
        Ok(())
    }
}

/// The big-endian number at `at`, if the bytes reach so far.
fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk::<8>()
        .map(|number| u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_MAX: usize = 4096;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 1];
        bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes.push(FRAME_END);
        bytes
    }

    fn deliver(tag: u64) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 60, 3, b'c', b't', b'g'];
        payload.extend(tag.to_be_bytes());
        payload.extend([0, 0, 1, b'q']);
        frame(FRAME_METHOD, &payload)
    }

    fn header(body_bytes: u64) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0];
        payload.extend(body_bytes.to_be_bytes());
        payload.extend([0, 0]);
        frame(FRAME_HEADER, &payload)
    }

    fn confirm(method: u8, tag: u64, bits: u8) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, method];
        payload.extend(tag.to_be_bytes());
        payload.push(bits);
        frame(FRAME_METHOD, &payload)
    }

    /// What a broker may send, and what the walk should tell of it.
    fn session() -> (Vec<u8>, Vec<String>) {
        let return_method = [0, 60, 0, 50, 1, 56, 0, 0, 0];
        let bytes = [
            deliver(1),
            header(16),
            frame(FRAME_BODY, &[0, 0, 0, 0, 0, 0, 1, 0, 9, 9, 9, 9, 9, 9, 9, 9]),
            frame(FRAME_HEARTBEAT, &[]),
            deliver(2),
            header(0),
            deliver(3),
            header(20),
            frame(FRAME_BODY, &[]),
            frame(FRAME_BODY, &[0, 0, 0, 0, 0, 0, 0, 5, 1, 1]),
            frame(FRAME_BODY, &[7; 10]),
            deliver(4),
            header(3),
            frame(FRAME_BODY, &[1, 2, 3]),
            frame(FRAME_METHOD, &return_method),
            header(9),
            frame(FRAME_BODY, &[1; 9]),
            confirm(80, 7, 1),
            confirm(120, 8, 0),
        ]
        .concat();
        let told = [
            "Delivered { tag: 1, stamp: Some(256) }".to_string(),
            "Delivered { tag: 2, stamp: None }".to_string(),
            "Delivered { tag: 3, stamp: Some(5) }".to_string(),
            "Delivered { tag: 4, stamp: None }".to_string(),
            format!("Method({return_method:?})"),
            "Confirmed(Confirm { tag: 7, multiple: true, positive: true })".to_string(),
            "Confirmed(Confirm { tag: 8, multiple: false, positive: false })".to_string(),
        ];
        (bytes, told.to_vec())
    }

    /// Feeds the parts one read each and collects what the walk tells.
    fn told_in_parts(parts: &[&[u8]]) -> Vec<String> {
        let mut inbox = Inbox::new(64, FRAME_MAX);
        let mut told = Vec::new();
        for part in parts {
            let mut source = *part;
            while !source.is_empty() {
                inbox.read_from(&mut source).expect("a slice never fails");
                inbox
                    .walk(|event| {
                        told.push(format!("{event:?}"));
                        Ok(())
                    })
                    .expect("a valid session");
            }
        }
        told
    }

    #[test]
    fn a_session_split_at_every_byte_tells_the_same() {
        let (bytes, expected) = session();
        assert_eq!(told_in_parts(&[&bytes]), expected);
        for at in 0..bytes.len() {
            let (before, after) = bytes.split_at(at);
            assert_eq!(told_in_parts(&[before, after]), expected, "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(told_in_parts(&single), expected, "one byte at a time");
    }

    #[test]
    fn what_the_protocol_forbids_is_an_error() {
        let mut bad_end = deliver(1);
        *bad_end.last_mut().unwrap() = 0;
        let mut huge = frame(FRAME_BODY, &[]);
        huge[3] = 0xff;
        for (what, bytes) in [
            ("bad end octet", bad_end),
            ("frame larger than frame_max", huge),
            ("unknown frame type", frame(4, &[])),
            ("method without ids", frame(FRAME_METHOD, &[0, 60])),
            (
                "short basic.deliver",
                frame(FRAME_METHOD, &[0, 60, 0, 60, 200, 1]),
            ),
            ("short basic.ack", frame(FRAME_METHOD, &[0, 60, 0, 80, 0, 0])),
            ("short header", frame(FRAME_HEADER, &[0, 60, 0, 0])),
            (
                "too much body",
                [deliver(1), header(2), frame(FRAME_BODY, &[1, 2, 3])].concat(),
            ),
            ("body without header", frame(FRAME_BODY, &[1])),
        ] {
            let outcome = Walker::new(FRAME_MAX).walk(&bytes, |_| Ok(()));
            assert!(
                matches!(outcome, Err(PerfError::Protocol(_))),
                "{what}: {outcome:?}"
            );
        }
    }
}
