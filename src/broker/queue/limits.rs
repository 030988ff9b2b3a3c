//! Length limits: what a full queue refuses or drops (amqp-behaviour 4.6). Only ready messages count, of them only bodies.

use crate::broker::{
    ids::{Seq, Timestamp},
    message::Message,
    policy::Overflow,
    queue::{DeadLetter, Port, QueueKind, QueueState, Reason, Removed, settings::QueueSettings},
};

impl<P: Port> QueueState<P> {
    /// What the queue goes by from now on. A lower limit takes effect with the next [`Self::dispatch`], a time to live
    /// with the next message; the queue's own time begins anew.
    pub fn apply_settings(&mut self, settings: QueueSettings, now: Timestamp) {
        if settings.expires_ms != self.settings.expires_ms {
            self.touch(now);
        }
        self.limited = settings.is_limited();
        if settings.kind == QueueKind::Quorum {
            self.lanes.set_quorum();
        }
        if settings.deduplicates {
            self.keys.get_or_insert_default();
        }
        self.settings = settings;
    }

    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// Whether [`Self::refuses`] has to be asked: the queue is limited or takes no message twice.
    #[inline]
    pub fn is_choosy(&self) -> bool {
        self.limited || self.keys.is_some()
    }

    /// Whether the queue is full, or has the message already, and refuses it. What waits may not have been offered to
    /// consumers yet: ask again after a [`Self::dispatch`].
    pub fn refuses(&self, message: &Message) -> bool {
        !self.deleted && (self.is_full_for(message) || self.is_duplicate(message))
    }

    /// As [`Self::refuses`], where what waits cannot be offered first: what consumers would take of it does not count.
    pub fn refuses_meanwhile(&self, message: &Message) -> bool {
        if !self.limited || self.deleted {
            return self.refuses(message);
        }
        let ready = self.ready_count();
        let taken = self.consumers.appetite().min(ready);
        // Which messages these are, and so their sizes, only a dispatch tells.
        let bytes = if taken == ready { 0 } else { self.ready_bytes };
        self.is_overfull(ready - taken, bytes, message) || self.is_duplicate(message)
    }

    fn is_full_for(&self, message: &Message) -> bool {
        self.limited && self.is_overfull(self.ready_count(), self.ready_bytes, message)
    }

    /// One message more than these would be too many, and is refused.
    fn is_overfull(&self, ready: u64, bytes: u64, message: &Message) -> bool {
        self.settings.refuses()
            && !self
                .settings
                .allows(ready + self.dying.0 + 1, bytes + message.body_len())
    }

    /// A message was refused: some queues dead-letter it, and a duplicate is always.
    pub fn refused(&mut self, message: &Message) {
        let full = self.is_full_for(message);
        if (!full || self.settings.overflow == Overflow::RejectPublishDlx)
            && let Some(route) = &self.settings.dead_letter
        {
            self.dead.push(DeadLetter {
                message: message.clone(),
                reason: Reason::MaxLength,
                seq: Seq::default(),
                route: route.clone(),
                stored: None,
                due: Timestamp::NONE,
            });
        }
    }

    /// Drops the oldest until the rest is within the limits. False when the oldest must be read from disk first.
    pub(super) fn drop_excess(&mut self, removed: &mut Removed) -> bool {
        if self.settings.refuses() {
            return true;
        }
        while !self.settings.allows(self.ready_count(), self.ready_bytes) {
            if !self.has_ready() {
                return self.ready_count() == 0;
            }
            let Some(entry) = self.pop_ready() else {
                return false;
            };
            self.discard(entry, Reason::MaxLength, removed);
        }
        true
    }
}
