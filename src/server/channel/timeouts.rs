//! Consumers that take too long to settle a delivery (amqp-behaviour 4.3, 4.11): what their channel does about it.

use std::sync::Arc;

use bytes::Bytes;

use super::{Channel, consume::Consumer};
use crate::broker::{
    ack_timeouts::Holder,
    error::BrokerError,
    queue::{
        ConsumerId, Return,
        arguments::QueueKind,
        timeout::{AckTimeout, TimeoutAction},
    },
    unacked::UnackedDelivery,
};
use crate::protocol::{
    method::{Method, MethodId},
    reply_code::ReplyCode,
};
use crate::server::{
    clock,
    close::{Close, Fault},
    connection::Connection,
    consumer_port::ChannelOut,
    queue_cell::QueueHandle,
};

fn holder(delivery: &UnackedDelivery<QueueHandle>) -> Holder {
    (delivery.queue.id(), delivery.consumer)
}

impl ChannelOut {
    /// What this holder got from the tag `first` on has a timeout of its own.
    pub(in crate::server) fn note_timeout(
        &self,
        ledger: &mut crate::broker::unacked::Unacked<QueueHandle>,
        holder: Holder,
        first: u64,
        timeout_ms: u64,
    ) {
        if timeout_ms > 0 && ledger.next_tag() > first {
            let due = ledger.note_timeout(holder, first, timeout_ms, clock::now());
            self.ack_timer.set(self, due);
        }
    }
}

impl Channel {
    fn consumer_of(&self, queue: &QueueHandle, id: Option<ConsumerId>) -> Option<(&Bytes, &Consumer)> {
        let mut consumers = self.consumers.iter();
        consumers.find(|(_, consumer)| Some(consumer.id) == id && consumer.queue == *queue)
    }

    /// The timeout a delivery has of its own, from its consumer or else its queue.
    fn own_timeout(&self, delivery: &UnackedDelivery<QueueHandle>) -> AckTimeout {
        let consumer = self.consumer_of(&delivery.queue, delivery.consumer);
        let own = consumer.map(|(_, consumer)| consumer.timeout).unwrap_or_default();
        own.or(delivery.queue.ack_timeout())
    }
}

impl Connection {
    /// Looks for deliveries whose time is over, on all channels.
    ///
    /// # Errors
    /// The close of a channel that is to be closed for it; the others are looked at when it is called again.
    pub(in crate::server) fn check_timeouts(&mut self) -> Result<(), Fault> {
        self.batch.flush();
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        for number in numbers {
            let checked = self.check_channel_timeouts(number);
            if checked.is_err() {
                // The rest of the channels must not wait for another timer.
                self.ask_again();
            }
            checked?;
        }
        Ok(())
    }

    fn check_channel_timeouts(&mut self, number: u16) -> Result<(), Fault> {
        let default = self.broker.limits().consumer_timeout;
        let default_ms = default.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let Some(channel) = self
            .channels
            .get_mut(&number)
            .filter(|channel| !channel.is_closing())
        else {
            return Ok(());
        };
        let out = Arc::clone(&channel.out);
        out.ack_timer.rang();
        let overdue = {
            let mut unacked = out.unacked.lock();
            let overdue = unacked.overdue(clock::now(), default_ms, holder, |delivery| {
                channel.own_timeout(delivery).timeout_ms.is_some()
            });
            out.ack_timer.set(&out, unacked.next_due());
            overdue
        };
        let mut returned = Vec::new();
        let mut result = Ok(());
        for tag in overdue {
            let mut unacked = out.unacked.lock();
            let Ok(delivery) = unacked.get(tag) else { continue };
            let own = channel.own_timeout(delivery);
            let used = own.timeout_ms.or(default_ms).unwrap_or(0);
            match own
                .action
                .unwrap_or_else(|| usual_action(&delivery.queue, delivery.consumer))
            {
                TimeoutAction::Close => {
                    result = Err(timed_out(number, i64::try_from(used).unwrap_or(i64::MAX)));
                    break;
                }
                TimeoutAction::Cancel if !out.cancel_notify => {
                    result = Err(timed_out(number, -1));
                    break;
                }
                TimeoutAction::Cancel => {
                    let (queue, consumer) = (delivery.queue.clone(), delivery.consumer);
                    returned.extend(unacked.take_overdue(tag));
                    drop(unacked);
                    channel.cancel_slow(&queue, consumer);
                }
                TimeoutAction::Requeue => returned.extend(unacked.take_overdue(tag)),
            }
        }
        if !returned.is_empty() {
            tracing::info!(
                channel = number,
                deliveries = returned.len(),
                "deliveries were not settled in time and went back"
            );
            Self::requeue(returned, Return::Postponed);
            out.settled();
        }
        result
    }

    /// There may be more to find.
    fn ask_again(&self) {
        self.ticket_control().check_timeouts();
    }
}

impl Channel {
    /// A consumer that did not settle in time is cancelled by the server, once.
    fn cancel_slow(&mut self, queue: &QueueHandle, id: Option<ConsumerId>) {
        let Some(tag) = self.consumer_of(queue, id).map(|(tag, _)| tag.clone()) else {
            return;
        };
        let Some(consumer) = self.consumers.remove(&tag) else {
            return;
        };
        tracing::warn!(queue = %queue.name(), "consumer cancelled: it did not settle a delivery in time; amqp.consumer_timeout_ms, a policy or x-consumer-timeout allow more");
        consumer.queue.cancel(consumer.id);
        consumer.queue.lock().dispatch();
        let consumer_tag = String::from_utf8_lossy(&tag).into_owned();
        self.out.outbox.method(
            self.out.id,
            &Method::BasicCancel {
                consumer_tag,
                nowait: true,
            },
        );
    }
}

/// As RabbitMQ does: quorum queues let go of the consumer, classic ones close its channel; so does basic.get.
fn usual_action(queue: &QueueHandle, consumer: Option<ConsumerId>) -> TimeoutAction {
    match QueueKind::of(&queue.definition.arguments) {
        QueueKind::Quorum if consumer.is_some() => TimeoutAction::Cancel,
        _ => TimeoutAction::Close,
    }
}

fn timed_out(channel: u16, timeout_ms: i64) -> Fault {
    let error = BrokerError::AckTimeout { channel, timeout_ms };
    Fault::Channel {
        channel,
        close: Close::new(ReplyCode::PreconditionFailed, error, MethodId::NONE),
    }
}
