//! Which span brought a message that is on its way into queues. Publishes wait for the end of their read before they enter
//! queues, so the memory is short: it forgets the oldest.

use std::collections::VecDeque;

use ahash::AHashMap;

use super::context::{SpanId, TraceId};
use crate::broker::message::Message;

/// Messages remembered.
const MAX: usize = 16 * 1024;

/// By where the message is in memory. An address is used again after its message is gone, but whoever brings the next
/// message there tells it here first; one that comes another way is told apart by its trace.
#[derive(Default)]
pub(super) struct Births {
    by_address: AHashMap<usize, (TraceId, SpanId)>,
    order: VecDeque<usize>,
}

impl Births {
    /// The message was brought by this span.
    pub(super) fn note(&mut self, message: &Message, trace_id: TraceId, span_id: SpanId) {
        let address = message.address();
        if self.by_address.insert(address, (trace_id, span_id)).is_none() {
            self.order.push_back(address);
        }
        if self.order.len() > MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_address.remove(&oldest);
        }
    }

    /// The span that brought the message.
    pub(super) fn of(&self, message: &Message, trace_id: &TraceId) -> Option<SpanId> {
        let (of_trace, span_id) = self.by_address.get(&message.address())?;
        (of_trace == trace_id).then_some(*span_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_the_latest_and_no_more() {
        let mut births = Births::default();
        let trace = [1; 16];
        let messages: Vec<Message> = (0..MAX + 10).map(|_| Message::blank()).collect();
        for (at, message) in messages.iter().enumerate() {
            births.note(message, trace, (at as u64 + 1).to_be_bytes());
        }
        assert_eq!(births.by_address.len(), MAX);
        assert_eq!(births.order.len(), MAX);
        assert_eq!(births.of(&messages[9], &trace), None, "the oldest are forgotten");
        assert_eq!(births.of(&messages[10], &trace), Some(11_u64.to_be_bytes()));
        assert_eq!(births.of(&messages[10], &[2; 16]), None, "another trace");
        assert_eq!(
            births.of(&messages[10].clone(), &trace),
            Some(11_u64.to_be_bytes())
        );
    }
}
