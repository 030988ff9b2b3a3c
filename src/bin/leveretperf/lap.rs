//! What a publisher writes: many basic.publish, header and body frames in one buffer, encoded once. Publishing is
//! then patching the stamps and writing a slice.

use std::ops::Range;

use crate::{
    error::PerfError,
    frames::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD_BYTES},
};

/// The size a lap grows to with small messages, and so of a write at full speed. Large enough that the price of a
/// system call vanishes, small enough to stay in the processor's second-level cache.
const LAP_BYTES: usize = 128 * 1024;
/// Many routing keys with large messages could ask for any amount of memory.
const LAP_MAX_BYTES: usize = 256 * 1024 * 1024;
/// The bytes of a body that hold its stamp.
const STAMP_BYTES: usize = 8;
const BASIC_CLASS: u16 = 60;
const BASIC_PUBLISH: u16 = 40;
/// The property flag of delivery-mode.
const DELIVERY_MODE: u16 = 1 << 12;

/// What all messages of a publisher have in common.
pub(crate) struct Message {
    pub(crate) channel: u16,
    pub(crate) exchange: String,
    pub(crate) persistent: bool,
    pub(crate) body_bytes: usize,
    pub(crate) frame_max_bytes: usize,
}

/// One round over the routing keys, repeated while it is short. Messages leave it in order, again and again.
pub(crate) struct Lap {
    bytes: Vec<u8>,
    /// Where each message starts, and where the last one ends.
    edges: Vec<usize>,
    /// Where the body of each message starts; empty if bodies are too small for a stamp.
    stamps: Vec<usize>,
    next: usize,
}

impl Lap {
    /// `at_once` is how many messages can ever be due together (the confirm window): a lap need not hold more.
    ///
    /// # Errors
    /// A name too long for AMQP, or more keys and bytes than a lap may hold.
    pub(crate) fn new(message: &Message, keys: &[String], at_once: usize) -> Result<Self, PerfError> {
        let mut lap = Self {
            bytes: Vec::new(),
            edges: vec![0],
            stamps: Vec::new(),
            next: 0,
        };
        let body = filler(message.body_bytes);
        loop {
            for key in keys {
                lap.push(message, key, &body)?;
            }
            let round_bytes = lap.bytes.len() / (lap.len() / keys.len().max(1)).max(1);
            if lap.bytes.len() + round_bytes > LAP_BYTES || lap.len() >= at_once {
                break;
            }
        }
        Ok(lap)
    }

    fn push(&mut self, message: &Message, key: &str, body: &[u8]) -> Result<(), PerfError> {
        let body_start = encode_publish(&mut self.bytes, message, key, body)?;
        if self.bytes.len() > LAP_MAX_BYTES {
            return Err(PerfError::Options(
                "so many routing keys with such large messages need too much memory".into(),
            ));
        }
        self.edges.push(self.bytes.len());
        if body.len() >= STAMP_BYTES {
            self.stamps.push(body_start);
        }
        Ok(())
    }

    /// The number of messages in the lap.
    pub(crate) fn len(&self) -> usize {
        self.edges.len() - 1
    }

    /// Starts at the `nth` message, so that publishers do not all begin with the same queue.
    pub(crate) fn rotate_to(&mut self, nth: u64) {
        self.next = usize::try_from(nth % self.len() as u64).unwrap_or(0);
    }

    /// Takes the next messages, at most `wanted` (at least 1) and none beyond the end of the lap.
    pub(crate) fn take(&mut self, wanted: u64) -> Range<usize> {
        let start = self.next;
        let end =
            usize::try_from(wanted).map_or(self.len(), |wanted| self.len().min(start.saturating_add(wanted)));
        self.next = if end == self.len() { 0 } else { end };
        start..end
    }

    pub(crate) fn stamp(&mut self, nth: usize, stamp_ns: u64) {
        let Some(start) = self.stamps.get(nth).copied() else {
            return;
        };
        if let Some(place) = self.bytes.get_mut(start..start + STAMP_BYTES) {
            place.copy_from_slice(&stamp_ns.to_be_bytes());
        }
    }

    pub(crate) fn bytes(&self, messages: &Range<usize>) -> &[u8] {
        let edge = |nth: usize| self.edges.get(nth).copied().unwrap_or(self.bytes.len());
        self.bytes
            .get(edge(messages.start)..edge(messages.end))
            .unwrap_or_default()
    }
}

/// Appends one message and returns where its body starts.
fn encode_publish(out: &mut Vec<u8>, message: &Message, key: &str, body: &[u8]) -> Result<usize, PerfError> {
    let mut publish = Vec::with_capacity(32);
    publish.extend(BASIC_CLASS.to_be_bytes());
    publish.extend(BASIC_PUBLISH.to_be_bytes());
    publish.extend([0, 0]); // the reserved ticket
    push_short_string(&mut publish, &message.exchange)?;
    push_short_string(&mut publish, key)?;
    publish.push(0); // neither mandatory nor immediate
    push_frame(out, FRAME_METHOD, message.channel, &publish);

    let mut header = Vec::with_capacity(16);
    header.extend(BASIC_CLASS.to_be_bytes());
    header.extend([0, 0]); // the reserved weight
    header.extend((body.len() as u64).to_be_bytes());
    if message.persistent {
        header.extend(DELIVERY_MODE.to_be_bytes());
        header.push(2);
    } else {
        header.extend([0, 0]);
    }
    push_frame(out, FRAME_HEADER, message.channel, &header);

    let body_start = out.len() + FRAME_OVERHEAD_BYTES - 1;
    for part in body.chunks(message.frame_max_bytes - FRAME_OVERHEAD_BYTES) {
        push_frame(out, FRAME_BODY, message.channel, part);
    }
    Ok(body_start)
}

/// Appends a frame. `payload` is shorter than any frame_max, so its length fits.
pub(crate) fn push_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend(channel.to_be_bytes());
    out.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(payload);
    out.push(FRAME_END);
}

fn push_short_string(out: &mut Vec<u8>, text: &str) -> Result<(), PerfError> {
    let Ok(length) = u8::try_from(text.len()) else {
        return Err(PerfError::Options(format!(
            "'{text}' is longer than the 255 bytes AMQP allows"
        )));
    };
    out.push(length);
    out.extend(text.as_bytes());
    Ok(())
}

/// A body no compressor gains on, the same in every run.
fn filler(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..bytes.div_ceil(8))
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(bytes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{Event, Walker};

    fn message(body_bytes: usize) -> Message {
        Message {
            channel: 1,
            exchange: "amq.topic".into(),
            persistent: true,
            body_bytes,
            frame_max_bytes: 4096,
        }
    }

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|nth| format!("key.{nth}")).collect()
    }

    #[test]
    fn the_bytes_of_a_small_message() {
        let mut bytes = Vec::new();
        let start = encode_publish(&mut bytes, &message(3), "k", b"abc").unwrap();
        let expected: &[u8] = &[
            1, 0, 1, 0, 0, 0, 19, 0, 60, 0, 40, 0, 0, 9, b'a', b'm', b'q', b'.', b't', b'o', b'p', b'i',
            b'c', 1, b'k', 0, 0xCE, //
            2, 0, 1, 0, 0, 0, 15, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0x10, 0, 2, 0xCE, //
            3, 0, 1, 0, 0, 0, 3, b'a', b'b', b'c', 0xCE,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(bytes.get(start..start + 3), Some(b"abc".as_slice()));
    }

    #[test]
    fn a_body_is_cut_at_frame_max() {
        for (body_bytes, frames) in [(0, 0), (4088, 1), (4089, 2), (8176, 2), (10_000, 3)] {
            let mut bytes = Vec::new();
            encode_publish(&mut bytes, &message(body_bytes), "k", &filler(body_bytes)).unwrap();
            let expected = 27 + 23 + body_bytes + frames * FRAME_OVERHEAD_BYTES;
            assert_eq!(bytes.len(), expected, "{body_bytes}");
            assert!(Walker::new(4096).walk(&bytes, |_| Ok(())).is_ok());
        }
    }

    #[test]
    fn a_lap_hands_out_every_key_in_turn_and_only_whole_rounds() {
        let keys = keys(7);
        let mut lap = Lap::new(&message(16), &keys, usize::MAX).unwrap();
        assert_eq!(lap.len() % 7, 0);
        assert!(lap.bytes.len() <= LAP_BYTES && lap.bytes.len() > LAP_BYTES / 2);
        lap.rotate_to(3);
        let mut seen = Vec::new();
        while seen.len() < 2 * lap.len() {
            let taken = lap.take(5);
            assert!((1..=5).contains(&taken.len()));
            Walker::new(4096)
                .walk(lap.bytes(&taken), |event| {
                    let Event::Method(payload) = event else {
                        panic!("not a publish: {event:?}")
                    };
                    seen.push(String::from_utf8_lossy(&payload[17..22]).into_owned());
                    Ok(())
                })
                .unwrap();
        }
        for (nth, key) in seen.iter().enumerate() {
            assert_eq!(key, &keys[(nth + 3) % 7], "message {nth}");
        }
    }

    #[test]
    fn a_lap_is_no_longer_than_a_window_or_one_round() {
        assert_eq!(Lap::new(&message(16), &keys(1), 1).unwrap().len(), 1);
        assert_eq!(Lap::new(&message(16), &keys(1), 100).unwrap().len(), 100);
        assert_eq!(Lap::new(&message(16), &keys(3), 1).unwrap().len(), 3);
        assert_eq!(Lap::new(&message(1 << 20), &keys(1), 1000).unwrap().len(), 1);
    }

    #[test]
    fn a_stamp_lands_in_the_first_bytes_of_the_right_body() {
        let mut lap = Lap::new(&message(8), &keys(3), 3).unwrap();
        let whole = lap.take(3);
        let before = lap.bytes(&whole).to_vec();
        lap.stamp(1, 0x0102_0304_0506_0708);
        let after = lap.bytes(&whole);
        let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        let place = lap.edges[2] - 9;
        assert_eq!(after[place..place + 8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(
            changed.iter().all(|at| (place..place + 8).contains(at)),
            "{changed:?}"
        );
        let mut small = Lap::new(&message(7), &keys(1), 1).unwrap();
        let only = small.take(1);
        let untouched = small.bytes(&only).to_vec();
        small.stamp(0, u64::MAX);
        assert_eq!(small.bytes(&only), untouched);
    }

    #[test]
    fn names_longer_than_a_short_string_are_refused() {
        let long = vec!["k".repeat(256)];
        assert!(matches!(
            Lap::new(&message(1), &long, 1),
            Err(PerfError::Options(_))
        ));
    }
}
