//! x-message-deduplication: a fanout that drops messages whose `x-deduplication-header` it has seen lately
//! (amqp-behaviour 3.3). Keys are remembered as fingerprints in memory, bounded by `x-cache-size`;
//! `x-cache-persistence` is checked and makes no difference.

use parking_lot::Mutex;

use super::{Hop, Hops, QueueRef, Routable, fanout::Fanout};
use crate::broker::{error::BrokerError, queue::KEY, seen::Seen};
use crate::protocol::field::{FieldTable, FieldValue};

pub(super) struct Deduplication<Q> {
    bindings: Fanout<Q>,
    ttl_ms: Option<u64>,
    /// Locked by routing, which only reads the exchange; held for one look-up.
    seen: Mutex<Seen>,
}

impl<Q: QueueRef> Deduplication<Q> {
    pub(super) fn new(arguments: &FieldTable) -> Result<Self, BrokerError> {
        let refuse = |text: &str| Err(BrokerError::InvalidExchange(text.to_owned()));
        let Some(size) = arguments.get("x-cache-size").and_then(positive) else {
            return refuse("Missing or invalid argument, 'x-cache-size' must be an integer greater than 0");
        };
        let ttl = arguments.get("x-cache-ttl");
        let ttl_ms = ttl.and_then(positive);
        if ttl.is_some() && ttl_ms.is_none() {
            return refuse("Invalid argument, 'x-cache-ttl' must be an integer greater than 0");
        }
        match arguments.get("x-cache-persistence") {
            None => {}
            Some(FieldValue::LongString(word)) if matches!(&**word, b"disk" | b"memory") => {}
            Some(_) => {
                return refuse("Invalid argument, 'x-cache-persistence' must be either 'disk' or 'memory'");
            }
        }
        Ok(Self {
            bindings: Fanout::default(),
            ttl_ms,
            seen: Mutex::new(Seen::new(usize::try_from(size).unwrap_or(usize::MAX))),
        })
    }

    pub(super) fn insert(&mut self, hop: Hop<Q>) {
        self.bindings.insert(hop);
    }

    pub(super) fn remove(&mut self, hop: &Hop<Q>) {
        self.bindings.remove(hop);
    }

    pub(super) fn matches(&self, message: &Routable<'_>, hops: &mut Hops<Q>) {
        if let Some(key) = message.properties.header(KEY) {
            let own = message.properties.header(b"x-cache-ttl");
            let ttl_ms = own
                .and_then(|value| value.decode())
                .as_ref()
                .and_then(positive)
                .or(self.ttl_ms);
            let expires_ms = ttl_ms.map(|ttl_ms| message.now.0.saturating_add(ttl_ms));
            if !self.seen.lock().is_new(key.encoded(), expires_ms, message.now.0) {
                return;
            }
        }
        self.bindings.matches(hops);
    }
}

/// An integer above zero, or the same in digits.
fn positive(value: &FieldValue) -> Option<u64> {
    let number = match value {
        FieldValue::LongString(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
        other => u64::try_from(other.as_integer()?).ok()?,
    };
    (number > 0).then_some(number)
}
