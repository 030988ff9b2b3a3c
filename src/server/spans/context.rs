//! The trace a message belongs to, as its headers say: `traceparent` and `tracestate` of W3C Trace Context.

use crate::broker::message::Message;
use crate::protocol::{field::FieldValue, properties::RawProperties};

/// Bytes of a `tracestate` that is carried on; a longer one is left out, as the specification permits.
const STATE_MAX: usize = 512;
/// Of a `traceparent` of version 00; later versions begin the same way.
const PARENT_LEN: usize = 55;
/// The flag that says the trace is being recorded.
const SAMPLED: u8 = 1;

/// Sixteen bytes, not all zero.
pub(super) type TraceId = [u8; 16];
/// Eight bytes, not all zero.
pub(super) type SpanId = [u8; 8];

/// What a message says about the trace it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace_id: TraceId,
    /// The span of whoever sent it.
    pub(super) parent: SpanId,
    pub(super) sampled: bool,
    /// What other tracing systems want carried on.
    pub(super) state: String,
}

impl Context {
    /// That of a message; `None` when it has none or a malformed one.
    pub(super) fn of(message: &Message) -> Option<Self> {
        let raw = RawProperties::new(message.properties());
        if !raw.has_headers() {
            return None;
        }
        let header = |name: &[u8]| raw.header(name).and_then(|field| field.decode());
        let mut context = Self::parse(header(b"traceparent")?.as_str_bytes()?)?;
        if let Some(state) = header(b"tracestate").as_ref().and_then(FieldValue::as_str_bytes)
            && state.len() <= STATE_MAX
            && state.iter().all(|byte| (0x20..0x7f).contains(byte))
        {
            context.state = String::from_utf8_lossy(state).into_owned();
        }
        Some(context)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (version, rest) = (text.get(..3)?, text.get(3..)?);
        let known = match version {
            b"00-" => text.len() == PARENT_LEN,
            b"ff-" => false,
            // A version to come may say more behind another dash.
            [major @ .., b'-'] if hex::<1>(major).is_some() => {
                text.len() == PARENT_LEN || text.get(PARENT_LEN) == Some(&b'-')
            }
            _ => false,
        };
        let (trace_id, parent, flags) = (rest.get(..32)?, rest.get(33..49)?, rest.get(50..52)?);
        let dashes = rest.get(32) == Some(&b'-') && rest.get(49) == Some(&b'-');
        let [flags] = hex::<1>(flags)?;
        let context = Self {
            trace_id: hex(trace_id)?,
            parent: hex(parent)?,
            sampled: flags & SAMPLED != 0,
            state: String::new(),
        };
        let nothing = context.trace_id == TraceId::default() || context.parent == SpanId::default();
        (known && dashes && !nothing).then_some(context)
    }
}

/// The header of a trace that begins here and is recorded.
pub(super) fn traceparent(trace_id: &TraceId, span_id: &SpanId) -> String {
    format!("00-{}-{}-01", in_hex(trace_id), in_hex(span_id))
}

/// Lowercase hexadecimal, as trace contexts and OTLP write numbers of spans.
pub fn in_hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .flatten()
        .collect()
}

/// Only lowercase digits are hexadecimal here.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written_alike() {
        let context = Context::parse(GOOD.as_bytes()).unwrap();
        assert!(context.sampled);
        assert_eq!(traceparent(&context.trace_id, &context.parent), GOOD);
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!Context::parse(unsampled.as_bytes()).unwrap().sampled);
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = GOOD.replacen("00", "cc", 1);
        assert!(Context::parse(later.as_bytes()).is_some());
        assert!(Context::parse(format!("{later}-what-comes").as_bytes()).is_some());
        assert!(Context::parse(format!("{later}.what").as_bytes()).is_none());
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        for text in [
            "",
            "00",
            "00-",
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "0x", 1),
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &GOOD[..54],
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("c-b", "c_b"),
            &GOOD.replace('b', "g"),
        ] {
            assert_eq!(Context::parse(text.as_bytes()), None, "{text}");
        }
    }
}
