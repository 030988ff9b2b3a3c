//! `x-message-deduplication` of a queue: a message whose `x-deduplication-header` equals that of one in the queue, ready or
//! unacked, is refused (amqp-behaviour 3.3). Keys live in memory: a restart and a purge forget them, as in the plugin.

use ahash::AHashMap;

use crate::broker::{
    ids::Seq,
    message::Message,
    queue::{Port, QueueState},
    seen::{Fingerprint, Fingerprints},
};
use crate::protocol::{field::FieldTable, field::FieldValue, properties::RawProperties};

/// The header that identifies a message.
pub(in crate::broker) const KEY: &[u8] = b"x-deduplication-header";

/// The queue argument that turns it on.
const ARGUMENT: &str = "x-message-deduplication";

/// Whether the arguments of a queue turn it on. Only classic queues know it.
pub(super) fn is_on(arguments: &FieldTable) -> bool {
    match arguments.get(ARGUMENT) {
        Some(FieldValue::Bool(on)) => *on,
        Some(FieldValue::LongString(text)) => &**text == b"true",
        _ => false,
    }
}

/// The keys of the messages in one queue, bounded by these. Both ways round: a message may leave unread, from the disk.
#[derive(Default)]
pub(super) struct Keys {
    fingerprints: Fingerprints,
    holders: AHashMap<Fingerprint, Seq>,
    keys: AHashMap<Seq, Fingerprint>,
}

impl Keys {
    fn fingerprint(&self, message: &Message) -> Option<Fingerprint> {
        let key = RawProperties::new(message.properties()).header(KEY)?;
        Some(self.fingerprints.of(key.encoded()))
    }

    /// Another message with the same key is there.
    pub(super) fn knows(&self, message: &Message) -> bool {
        self.fingerprint(message)
            .is_some_and(|fingerprint| self.holders.contains_key(&fingerprint))
    }

    /// A message joins; when it comes although its key is known, the one before keeps it.
    pub(super) fn enter(&mut self, message: &Message, seq: Seq) {
        if let Some(fingerprint) = self.fingerprint(message)
            && let std::collections::hash_map::Entry::Vacant(vacant) = self.holders.entry(fingerprint)
        {
            vacant.insert(seq);
            self.keys.insert(seq, fingerprint);
        }
    }

    /// A message left for good.
    pub(super) fn forget(&mut self, seq: Seq) {
        if let Some(fingerprint) = self.keys.remove(&seq) {
            self.holders.remove(&fingerprint);
        }
    }

    pub(super) fn clear(&mut self) {
        self.holders.clear();
        self.keys.clear();
    }
}

impl<P: Port> QueueState<P> {
    /// A message with the same key is in the queue.
    pub(super) fn is_duplicate(&self, message: &Message) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.knows(message))
    }

    /// A message left for good: its key is free. [`Self::ack`] leaves this to its caller.
    #[inline]
    pub fn forget(&mut self, seq: Seq) {
        if let Some(keys) = &mut self.keys {
            keys.forget(seq);
        }
    }
}
