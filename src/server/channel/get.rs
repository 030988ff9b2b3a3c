//! The answer to basic.get.

use crate::broker::{
    error::{BrokerError, Resource},
    queue::{
        Delivery,
        arguments::{QueueKind, single_active},
    },
    unacked::UnackedDelivery,
};
use crate::protocol::{field::ShortString, method::Method};
use crate::server::{
    consumer_port::{ChannelOut, told},
    queue_cell::QueueHandle,
    spans::Handed,
};

/// Who gets from a quorum queue with a single active consumer would pass that consumer by.
///
/// # Errors
/// 405, as RabbitMQ answers (amqp-behaviour 2.4).
pub(super) fn check_gettable(queue: &QueueHandle) -> Result<(), BrokerError> {
    let definition = &queue.definition;
    if single_active(&definition.arguments) && QueueKind::of(&definition.arguments) == QueueKind::Quorum {
        let resource = Resource::queue(queue.name(), &definition.vhost);
        return Err(BrokerError::SingleActiveGet(resource));
    }
    Ok(())
}

impl ChannelOut {
    /// Gives a message its tag, enters it in the ledger and sends it.
    pub(super) fn got(&self, queue: QueueHandle, delivery: Delivery, no_ack: bool) {
        let (message, redelivered) = (told(&delivery.entry, &queue), delivery.entry.redelivered);
        let (from, seq) = (queue.clone(), delivery.entry.seq);
        let mut ledger = self.unacked.lock();
        let delivery_tag = if no_ack {
            ledger.skip()
        } else {
            let unacked = UnackedDelivery {
                queue,
                consumer: None,
                entry: delivery.entry,
            };
            let holder = (unacked.queue.id(), None);
            let timeout = unacked.queue.ack_timeout().timeout_ms;
            let tag = ledger.add(unacked, false);
            if let Some(timeout_ms) = timeout {
                self.note_timeout(&mut ledger, holder, tag, timeout_ms);
            }
            tag
        };
        if self.traced() {
            self.tap.delivered(&Handed {
                connection: self.connection,
                channel: self.id,
                delivery_tag,
                queue: &from,
                seq,
                message: &message,
                redelivered,
            });
        }
        let name = |bytes: &[u8]| ShortString::try_from(bytes).unwrap_or_default();
        let method = Method::BasicGetOk {
            delivery_tag,
            redelivered,
            exchange: name(message.exchange()),
            routing_key: name(message.routing_key()),
            message_count: u32::try_from(delivery.remaining).unwrap_or(u32::MAX),
        };
        self.outbox
            .append(|frames| self.write_content(frames, &message, |out| method.encode(out)));
    }
}
