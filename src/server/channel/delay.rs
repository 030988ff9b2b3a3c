//! Publishes that ask to wait: they go to holding queues instead of those they are routed to.

use std::sync::Arc;

use crate::broker::delay;
use crate::protocol::properties::RawProperties;
use crate::server::{
    clock, connection::Connection, holding::HeldFor, publisher::SharedRoute, queue_cell::QueueHandle,
};

impl Connection {
    /// Where a message waits that may ask for it: `route` when it does not. True when it counts as unroutable, as one
    /// does that an exchange holds back (amqp-behaviour 3.3).
    pub(super) fn hold(
        &mut self,
        exchange: &[u8],
        properties: RawProperties<'_>,
        route: SharedRoute,
    ) -> (SharedRoute, bool) {
        let delaying = std::mem::take(&mut self.routes.delaying);
        if delay::exchange_delay_ms(properties).is_some() {
            let delays = self.vhost.read(|topology| {
                let name = std::str::from_utf8(exchange).ok()?;
                let definition = topology.exchange(name)?.definition();
                (&*definition.kind == delay::EXCHANGE_TYPE)
                    .then(|| (definition.name.clone(), definition.durable))
            });
            if let Some((name, durable)) = delays {
                let holding = self.vhost.holding(HeldFor::Exchange(name), durable);
                return (Arc::from([holding]), true);
            }
        }
        let later = delay::queue_due(properties, clock::now()).is_some();
        if !later && delaying.is_empty() {
            return (route, false);
        }
        let waiting = |queue: &QueueHandle| {
            self.vhost
                .holding(HeldFor::Queue(queue.id()), queue.definition.durable)
        };
        let mut holdings: Vec<QueueHandle> = if later {
            route.iter().map(waiting).collect()
        } else {
            route.to_vec()
        };
        // Exchanges further on that hold it back let it go on from there.
        holdings.extend(self.vhost.exchange_holdings(&delaying));
        // The order of locking.
        holdings.sort_unstable();
        (holdings.into(), false)
    }
}
