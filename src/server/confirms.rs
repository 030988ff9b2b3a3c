//! A channel's confirms on their way from the store to the publisher.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use crate::broker::{
    confirm::ConfirmSink,
    confirms::{Confirm, Confirms},
};
use crate::server::{
    outbox::Outbox,
    stats::{Count, Counters},
};

/// Shared by the channel, which issues numbers, and the committer's thread, which resolves them.
pub(super) struct ChannelConfirms {
    channel: u16,
    outbox: Arc<Outbox>,
    ledger: Mutex<Confirms>,
    /// The channel's and the vhost's.
    counters: [Arc<Counters>; 2],
    /// It stands in the outbox's list already.
    listed: AtomicBool,
    /// The channel is closed: its number may belong to another one by now.
    closed: AtomicBool,
    /// Itself, for the outbox's list.
    this: Weak<Self>,
}

impl ChannelConfirms {
    pub(super) fn new(channel: u16, outbox: Arc<Outbox>, counters: [Arc<Counters>; 2]) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            channel,
            outbox,
            ledger: Mutex::default(),
            counters,
            listed: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            this: Weak::clone(this),
        })
    }

    /// The number of a publish that has just come.
    pub(super) fn issue(&self) -> u64 {
        self.ledger.lock().issue()
    }

    /// These publishes are answered; the writer task sends it.
    pub(super) fn resolve(&self, tags: &[u64], ack: bool) {
        self.settle(tags, ack);
        self.list();
        self.outbox.wake();
    }

    /// Enters the outbox's list, unless it stands there already.
    fn list(&self) {
        if !self.listed.swap(true, Ordering::AcqRel)
            && let Some(this) = self.this.upgrade()
        {
            self.outbox.list(this);
        }
    }

    fn settle(&self, tags: &[u64], ack: bool) {
        self.ledger.lock().resolve(tags, ack);
        if ack {
            for counters in &self.counters {
                counters.add(Count::Confirm, tags.len() as u64);
            }
        }
    }

    /// Publishes without an answer yet.
    pub(super) fn waiting(&self) -> usize {
        self.ledger.lock().waiting()
    }

    /// Later answers are dropped: the channel closes.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Gives the writer task what can be sent now.
    pub(super) fn flush(&self, send: impl FnOnce(u16, &[Confirm])) {
        self.listed.store(false, Ordering::Release);
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        let mut confirms = Vec::new();
        self.ledger.lock().flush(|confirm| confirms.push(confirm));
        if !confirms.is_empty() {
            send(self.channel, &confirms);
        }
    }
}

impl ConfirmSink for ChannelConfirms {
    fn stored(&self, tags: &[u64]) {
        self.settle(tags, true);
        self.list();
    }

    fn wake(&self) {
        self.outbox.wake();
    }

    fn stored_among_few(&self, tags: &[u64]) {
        self.settle(tags, true);
        if let Some(this) = self.this.upgrade() {
            self.outbox.confirm_at_once(this);
        }
    }
}
