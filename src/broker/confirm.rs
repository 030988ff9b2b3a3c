//! The promise a publisher is waiting for, as the layers below the server see it.

use std::sync::Arc;

/// Whoever told its peer that stored messages will be confirmed: one per AMQP channel. Called from the
/// committer's thread, so it must neither block nor call back into storage.
pub trait ConfirmSink: Send + Sync {
    /// These publishes are on stable storage (or were consumed before they had to be). [`Self::wake`] follows once all sinks
    /// of the group were told: whoever is woken runs at once, perhaps instead of the calling thread.
    fn stored(&self, tags: &[u64]);

    /// What was [`Self::stored`] is to be sent now.
    fn wake(&self) {}

    /// As `stored` and `wake`, where few others are told after it: the peer's wait is worth more than a moment of the calling thread.
    fn stored_among_few(&self, tags: &[u64]) {
        self.stored(tags);
        self.wake();
    }
}

/// One publish awaiting its confirm.
#[derive(Clone)]
pub struct ConfirmToken {
    /// Held by the channel that published.
    pub sink: Arc<dyn ConfirmSink>,
    /// The channel's publish sequence number.
    pub tag: u64,
}
