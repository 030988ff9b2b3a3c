//! The server's door for management, the command line and tests: typed methods and plain data, no sockets of its own.
//! Administration of users, vhosts and policies is in `admin`.

use std::sync::Arc;

use crate::broker::{definition::Name, policy::EffectivePolicy};
use crate::server::Broker;

/// A running broker, to be asked and told. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) broker: Arc<Broker>,
    /// Whose doing its changes are, for the event exchange.
    pub(super) by: Name,
}

impl Handle {
    /// The same, for what is done on behalf of a user.
    #[must_use]
    pub fn acting_for(&self, user: &str) -> Self {
        Self {
            broker: Arc::clone(&self.broker),
            by: user.into(),
        }
    }

    /// Copies the store of the running broker into a directory that does not exist yet; a broker can be started on the copy.
    /// Takes as long as the disk needs: not for a task's thread.
    ///
    /// # Errors
    /// When the directory exists or the disk fails.
    pub fn backup(&self, target: &std::path::Path) -> Result<(), crate::storage::StoreError> {
        self.broker.store().backup(target)
    }

    /// What policies say about a queue; `None` when it does not exist or no policy applies.
    pub fn queue_policy(&self, vhost: &str, queue: &str) -> Option<Arc<EffectivePolicy>> {
        let vhost = self.broker.vhost(vhost)?;
        let queue = vhost.read(|topology| topology.queue(queue.as_bytes()).cloned())?;
        queue.policy()
    }
}
