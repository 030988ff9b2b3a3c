//! The limits in force: those the broker was started with, until a reload brings others. What was agreed with a client, such
//! as its heartbeat, stays as it is for that client.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::RwLock;

use crate::server::{Broker, Handle, Limits};

pub(super) struct LiveLimits {
    current: RwLock<Arc<Limits>>,
    /// A copy, for where every message passes.
    message_bytes_max: AtomicU64,
}

impl LiveLimits {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            message_bytes_max: AtomicU64::new(limits.max_message_bytes),
            current: RwLock::new(Arc::new(limits)),
        }
    }
}

impl Broker {
    /// The limits as they are now. Not for the path of a message.
    pub(crate) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.current.read())
    }

    /// Octets of a message's body.
    #[inline]
    pub(in crate::server) fn message_bytes_max(&self) -> u64 {
        self.limits.message_bytes_max.load(Ordering::Relaxed)
    }
}

impl Handle {
    /// Goes by other limits from now on. What is above them already stays.
    pub fn set_limits(&self, limits: Limits) {
        self.broker.login_budget.set(limits.login_failures_per_minute);
        let live = &self.broker.limits;
        live.message_bytes_max
            .store(limits.max_message_bytes, Ordering::Relaxed);
        *live.current.write() = Arc::new(limits);
    }
}
