//! Where a queue's deliveries go.

use std::sync::Arc;

use crate::broker::queue::{ConsumerId, Delivery};

/// Where a consumer's deliveries go: one per consumer, implemented by the server over the connection's outbox.
/// Called under the queue's lock, so an implementation neither blocks nor calls back into the queue.
pub trait Port: Send {
    /// Bytes it will take now. More than this may be given once, by the size of one message.
    fn room(&self) -> usize;
    /// There was no room: ask for [`QueueState::resume`] when there is. False when room came back meanwhile.
    fn stall(&self, consumer: ConsumerId) -> bool;
    /// Whether the consumer's channel limits what all its consumers hold together; then every delivery needs
    /// [`Self::reserve`].
    fn metered(&self) -> bool {
        false
    }
    /// Leave for one more delivery. When there is none, the port asks for [`QueueState::resume`] once there is.
    fn reserve(&self, _consumer: ConsumerId) -> bool {
        true
    }
    /// Takes all deliveries out of the vector, in order.
    fn deliver(&self, consumer: ConsumerId, deliveries: &mut Vec<Delivery>);
    /// The queue is gone: the consumer is cancelled by the server.
    fn cancelled(&self);
}

/// The handle tests and benches use for a queue that nobody consumes over a socket.
impl<P: Port> Port for Arc<P>
where
    Self: Send,
{
    fn room(&self) -> usize {
        P::room(self)
    }

    fn stall(&self, consumer: ConsumerId) -> bool {
        P::stall(self, consumer)
    }

    fn metered(&self) -> bool {
        P::metered(self)
    }

    fn reserve(&self, consumer: ConsumerId) -> bool {
        P::reserve(self, consumer)
    }

    fn deliver(&self, consumer: ConsumerId, deliveries: &mut Vec<Delivery>) {
        P::deliver(self, consumer, deliveries);
    }

    fn cancelled(&self) {
        P::cancelled(self);
    }
}
