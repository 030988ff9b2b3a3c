//! x-recent-history: a fanout that keeps its last messages for those who bind later (amqp-behaviour 3.3). The history
//! is in memory, bounded in messages and bytes, and begins anew after a restart.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::{Hop, Hops, QueueRef, Routable, fanout::Fanout};
use crate::broker::{error::BrokerError, message::Message};
use crate::protocol::field::{FieldTable, FieldValue};

const LENGTH: &str = "x-recent-history-length";
const LENGTH_DEFAULT: usize = 20;
/// What one exchange's history may hold, whatever length was asked for.
const BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) struct RecentHistory<Q> {
    bindings: Fanout<Q>,
    length: usize,
    /// Locked by routing, which only reads the exchange; held for a push or a copy of handles.
    history: Mutex<History>,
}

#[derive(Default)]
struct History {
    /// Oldest first.
    messages: VecDeque<Message>,
    bytes: usize,
}

impl<Q: QueueRef> RecentHistory<Q> {
    pub(super) fn new(arguments: &FieldTable) -> Result<Self, BrokerError> {
        let length = match arguments.get(LENGTH) {
            None => LENGTH_DEFAULT,
            Some(value) => length(value).ok_or_else(|| {
                let text = format!("Invalid argument {value}, '{LENGTH}' must be a positive integer");
                BrokerError::InvalidExchange(text)
            })?,
        };
        Ok(Self {
            bindings: Fanout::default(),
            length,
            history: Mutex::default(),
        })
    }

    pub(super) fn insert(&mut self, hop: Hop<Q>) {
        self.bindings.insert(hop);
    }

    pub(super) fn remove(&mut self, hop: &Hop<Q>) {
        self.bindings.remove(hop);
    }

    pub(super) fn matches(&self, hops: &mut Hops<Q>) {
        self.bindings.matches(hops);
    }

    /// Whether the message asks not to be kept.
    pub(super) fn skips(message: &Routable<'_>) -> bool {
        message
            .properties
            .header(b"x-recent-history-no-store")
            .is_some_and(|value| value.decode() == Some(FieldValue::Bool(true)))
    }

    /// Takes a message into the history; the oldest leave when there is no room.
    pub(super) fn keep(&self, message: &Message) {
        let size = message.memory_bytes();
        if size > BYTES_MAX {
            return;
        }
        let mut history = self.history.lock();
        history.bytes += size;
        history.messages.push_back(message.clone());
        while history.messages.len() > self.length || history.bytes > BYTES_MAX {
            let Some(oldest) = history.messages.pop_front() else {
                break;
            };
            history.bytes -= oldest.memory_bytes();
        }
    }

    /// The messages kept, oldest first.
    pub(super) fn kept(&self) -> Vec<Message> {
        self.history.lock().messages.iter().cloned().collect()
    }
}

/// Only the signed integer types count, as in RabbitMQ.
fn length(value: &FieldValue) -> Option<usize> {
    match value {
        FieldValue::I8(_) | FieldValue::I16(_) | FieldValue::I32(_) | FieldValue::I64(_) => value
            .as_integer()
            .filter(|length| *length > 0)
            .and_then(|length| usize::try_from(length).ok()),
        _ => None,
    }
}
