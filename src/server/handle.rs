//! The server's door for management, the command line and tests: typed methods and plain data, no sockets of its own.
//! Administration of users, vhosts and policies is in `admin`.

use std::sync::Arc;

use crate::server::Broker;

/// A running broker, to be asked and told. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) broker: Arc<Broker>,
}
