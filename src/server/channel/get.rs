//! basic.get and its answer.

use std::sync::Arc;

use crate::broker::{
    error::{BrokerError, Resource},
    permission::Verb,
    queue::{
        Delivery,
        arguments::{QueueKind, single_active},
    },
    unacked::UnackedDelivery,
};
use crate::protocol::{field::ShortString, method::Method};
use crate::server::{
    connection::Connection,
    consumer_port::{ChannelOut, told},
    queue_cell::QueueHandle,
    spans::Handed,
    stats::Count,
};

/// Who gets from a quorum queue with a single active consumer would pass that consumer by.
///
/// # Errors
/// 405, as RabbitMQ answers (amqp-behaviour 2.4).
fn check_gettable(queue: &QueueHandle) -> Result<(), BrokerError> {
    let definition = &queue.definition;
    if single_active(&definition.arguments) && QueueKind::of(&definition.arguments) == QueueKind::Quorum {
        let resource = Resource::queue(queue.name(), &definition.vhost);
        return Err(BrokerError::SingleActiveGet(resource));
    }
    Ok(())
}

impl Connection {
    /// The queue that is meant, if the user may read it.
    fn readable_queue(&mut self, number: u16, name: &str) -> Result<QueueHandle, BrokerError> {
        let name = self.queue_name(number, name)?;
        self.rights
            .check(Verb::Read, &Resource::queue(&name, &self.vhost.name))?;
        self.vhost.queue(&name, self.id)
    }

    /// basic.get; waits when the message must be read from disk.
    pub(super) async fn get(&mut self, number: u16, name: &str, no_ack: bool) -> Result<(), BrokerError> {
        let queue = self.readable_queue(number, name)?;
        check_gettable(&queue)?;
        let Some(channel) = self.channels.get(&number) else {
            return Ok(());
        };
        let out = Arc::clone(&channel.out);
        let delivery = loop {
            let loaded = queue.loaded.notified();
            tokio::pin!(loaded);
            loaded.as_mut().enable();
            let got = queue.lock().get(no_ack);
            let read = match got {
                Ok(delivery) => break delivery,
                Err(read) => read,
            };
            if queue.is_damaged() {
                let resource = Resource::queue(queue.name(), &self.vhost.name);
                return Err(BrokerError::Damaged(resource));
            }
            queue.read(read);
            loaded.await;
        };
        let count = match &delivery {
            None => Count::GetEmpty,
            Some(_) if no_ack => Count::GetNoAck,
            Some(_) => Count::Get,
        };
        // Gets are rare beside deliveries, and the queue's lock is not held here.
        for counters in [&queue.counters, queue.totals(), &*out.counters] {
            counters.add(count, 1);
            if delivery
                .as_ref()
                .is_some_and(|delivery| delivery.entry.redelivered)
            {
                counters.add(Count::Redeliver, 1);
            }
        }
        let Some(delivery) = delivery else {
            self.outbox.method(number, &Method::BasicGetEmpty);
            return Ok(());
        };
        out.got(queue, delivery, no_ack);
        Ok(())
    }
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
