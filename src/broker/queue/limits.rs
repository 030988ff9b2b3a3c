//! Length limits: what a full queue refuses or drops (amqp-behaviour 4.6). Only ready messages count, of them only bodies.

use crate::broker::{
    ids::Timestamp,
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
        self.settings = settings;
    }

    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// Whether the queue is full and refuses the message. What waits may not have been offered to consumers yet: ask
    /// again after a [`Self::dispatch`].
    pub fn refuses(&self, message: &Message) -> bool {
        self.limited
            && !self.deleted
            && self.settings.refuses()
            && !self.settings.allows(
                self.ready_count() + self.dying + 1,
                self.ready_bytes + message.body_len(),
            )
    }

    /// A message was refused: some queues dead-letter it.
    pub fn refused(&mut self, message: &Message) {
        if self.settings.overflow == Overflow::RejectPublishDlx
            && let Some(route) = &self.settings.dead_letter
        {
            self.dead.push(DeadLetter {
                message: message.clone(),
                reason: Reason::MaxLength,
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
