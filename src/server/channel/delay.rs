//! Publishes that ask to wait: they go to holding queues instead of those they are routed to.

use crate::protocol::properties::RawProperties;
use crate::server::{connection::Connection, publisher::SharedRoute};

impl Connection {
    /// Where a message waits that may ask for it, as [`crate::server::registry::Vhost::hold`] says.
    pub(super) fn hold(
        &mut self,
        exchange: &[u8],
        properties: RawProperties<'_>,
        route: SharedRoute,
    ) -> (SharedRoute, bool) {
        let delaying = std::mem::take(&mut self.routes.delaying);
        self.vhost.hold(exchange, properties, route, &delaying)
    }
}
