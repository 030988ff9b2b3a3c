//! `amq.settle`: publishes that settle a delivery of their channel, in order with its acks. What they may say is in
//! `broker/settle.rs`. Each is confirmed when what it asked for is durable; on a transactional channel it waits for the
//! commit like an ack, but for `extend`, which takes effect at once.

use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::{
    Settlement,
    basic::{Body, Routed},
};
use crate::broker::{
    delay::may_be_asked,
    error::{BrokerError, Resource},
    message::{Message, MessageParts},
    permission::Verb,
    queue::{Removed, Return},
    settle::{self, Settle},
    unacked::UnackedDelivery,
};
use crate::protocol::{
    method::{MethodId, PublishFields},
    properties::{PropertyError, RawProperties},
    reply_code::ReplyCode,
};
use crate::server::{
    clock,
    close::Fault,
    confirms::ChannelConfirms,
    connection::Connection,
    publisher::SharedRoute,
    queue_cell::{QueueGuard, QueueHandle},
    spans::Outcome,
    stats::Count,
};
use crate::storage::{Done, Op, Target};

/// Whom to tell that an order was carried out, on a channel with confirms.
type Confirm = Option<(Arc<ChannelConfirms>, u64)>;

/// Why an order was not carried out.
enum Refusal {
    Broker(BrokerError),
    /// The properties cannot be read.
    Damaged(PropertyError),
}

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

/// Reports to the publisher once the store has what was logged.
fn when_durable((confirms, tag): (Arc<ChannelConfirms>, u64)) -> Done {
    // After a failed write nothing is confirmed any more: the broker stops.
    Box::new(move |result| {
        if result.is_ok() {
            confirms.resolve(&[tag], true);
        }
    })
}

impl Connection {
    /// Whether a publish is an order, not a message.
    #[inline]
    pub(super) fn is_order(exchange: &[u8]) -> bool {
        exchange == settle::EXCHANGE.as_bytes()
    }

    /// Carries out the order of a publish to `amq.settle`; its size has been checked.
    #[cold]
    pub(super) fn settle_by_publish(
        &mut self,
        number: u16,
        fields: &PublishFields<'_>,
        properties: &[u8],
        body: Body<'_>,
    ) -> Result<(), Fault> {
        let id = MethodId::BASIC_PUBLISH;
        self.carry_out(number, fields, properties, body)
            .map_err(|refusal| match refusal {
                Refusal::Broker(error) => Fault::refuse(number, &error, id),
                Refusal::Damaged(error) => Fault::connection(ReplyCode::FrameError, error, id),
            })
    }

    fn carry_out(
        &mut self,
        number: u16,
        fields: &PublishFields<'_>,
        properties: &[u8],
        body: Body<'_>,
    ) -> Result<(), Refusal> {
        let raw = RawProperties::new(properties);
        raw.validate().map_err(Refusal::Damaged)?;
        let headers = raw.headers().map_err(Refusal::Damaged)?;
        let (tag, order) = settle::parse(headers.as_ref(), clock::now())?;
        // What was acked and published before comes first.
        self.batch.flush();
        let Some(channel) = self.channels.get(&number) else {
            return Ok(());
        };
        let out = Arc::clone(&channel.out);
        let queue = out.unacked.lock().get(tag)?.queue.clone();
        let resource = Resource::queue(queue.name(), &self.vhost.name);
        self.rights.check(Verb::Read, &resource)?;
        match order {
            Settle::Extend(until) => {
                let due = out.unacked.lock().extend(tag, until)?;
                out.ack_timer.set(&out, due);
                self.confirm_order(number, None);
            }
            Settle::Retry(at) => {
                let how = Settlement::Requeue(Return::RetryAt(at.unwrap_or_default()));
                self.settle_one(number, tag, how);
            }
            Settle::Reject(added) => {
                let message = {
                    let unacked = out.unacked.lock();
                    let message = &unacked.get(tag)?.entry.message;
                    if added.is_empty() {
                        message.clone()
                    } else {
                        settle::annotated(message, &added).map_err(Refusal::Damaged)?
                    }
                };
                self.settle_one(number, tag, Settlement::RejectAs(message));
            }
            Settle::AckAndPublish {
                exchange,
                routing_key,
            } => {
                let fields = PublishFields {
                    exchange: &exchange,
                    routing_key: &routing_key,
                    ..*fields
                };
                self.ack_and_publish(number, tag, &fields, properties, body)?;
            }
        }
        out.settled();
        Ok(())
    }

    /// Settles a delivery now, or with the channel's transaction.
    fn settle_one(&mut self, number: u16, tag: u64, how: Settlement) {
        let Some(channel) = self.channels.get_mut(&number) else {
            return;
        };
        let Some(delivery) = channel.out.unacked.lock().take(tag) else {
            return;
        };
        if self.traced {
            let outcome = match how {
                Settlement::Requeue(_) => Outcome::Requeue,
                Settlement::Reject | Settlement::RejectAs(_) => Outcome::Reject,
                Settlement::Ack => Outcome::Ack,
            };
            self.tap.settled((number, tag), self.id, &delivery, outcome);
        }
        if let Some(transaction) = &mut channel.transaction {
            transaction.settle(tag, delivery, how);
            return;
        }
        let UnackedDelivery {
            queue,
            consumer,
            mut entry,
        } = delivery;
        let mut guard = queue.lock();
        let op = match how {
            Settlement::Requeue(why) => guard.take_back(consumer, entry, why),
            Settlement::RejectAs(message) => {
                entry.message = message;
                guard.reject(consumer, entry);
                None
            }
            Settlement::Reject | Settlement::Ack => {
                guard.reject(consumer, entry);
                None
            }
        };
        if op.is_some() {
            // Logged under the queue's lock, before anybody can get the message again.
            self.confirm_order(number, op);
            guard.dispatch();
            return;
        }
        guard.dispatch();
        drop(guard);
        // It may have become a dead letter, whose move the relay logs.
        if let Some(confirm) = self.order_confirm(number) {
            self.broker.relay.tell(when_durable(confirm));
        }
    }

    /// Logs what an order changed, and confirms it when that and all before it is durable.
    fn confirm_order(&mut self, number: u16, op: Option<Op>) {
        let confirm = self.order_confirm(number);
        let mut ops: Vec<Op> = op.into_iter().collect();
        ops.extend(confirm.map(|confirm| Op::Barrier {
            done: when_durable(confirm),
        }));
        if !ops.is_empty() {
            self.broker.store().log(&mut ops);
        }
    }

    fn order_confirm(&self, number: u16) -> Confirm {
        let confirms = self.channels.get(&number)?.confirms.as_ref()?;
        Some((Arc::clone(confirms), confirms.issue()))
    }

    /// Publishes to another exchange and acks the delivery, both or neither. What cannot be put into every queue it goes
    /// to, or has none although it must, leaves the delivery as it was.
    fn ack_and_publish(
        &mut self,
        number: u16,
        tag: u64,
        fields: &PublishFields<'_>,
        properties: &[u8],
        body: Body<'_>,
    ) -> Result<(), Refusal> {
        let properties = settle::without_order(properties).map_err(Refusal::Damaged)?;
        let mut encoded = BytesMut::new();
        properties.encode(&mut encoded);
        self.rights.check_publish(fields.exchange)?;
        let addressed = self.address_replies(number, &encoded)?;
        let properties = addressed.as_deref().unwrap_or(&encoded);
        let raw = RawProperties::new(properties);
        let parts = MessageParts {
            exchange: fields.exchange,
            routing_key: fields.routing_key,
            properties,
            persistent: raw.delivery_mode().map_err(Refusal::Damaged)? == Some(2),
            priority: raw.priority().map_err(Refusal::Damaged)?.unwrap_or(0),
        };
        let Routed {
            mut route,
            message,
            replies,
        } = self.route(&parts, body).map_err(|error| match error {
            // What is wrong with an order is 406.
            BrokerError::NotFound(missing) => {
                BrokerError::InvalidMessage(format!("amq.settle: no {missing}"))
            }
            other => other,
        })?;
        let mut held_back = false;
        if may_be_asked(raw) {
            (route, held_back) = self.hold(message.exchange(), raw, route);
        }
        let unroutable = fields.mandatory && !replies && (route.is_empty() || held_back);
        let Some(channel) = self.channels.get_mut(&number) else {
            return Ok(());
        };
        channel.out.counters.bump(Count::Publish, 1);
        if let Some(transaction) = &mut channel.transaction {
            if let Some(delivery) = channel.out.unacked.lock().take(tag) {
                transaction.settle(tag, delivery, Settlement::Ack);
            }
            let max = self.broker.limits().transaction_max_bytes;
            return Ok(transaction.publish((route, message, fields.mandatory && !replies), max)?);
        }
        let confirm = self.order_confirm(number);
        if unroutable {
            self.return_unroutable(number, &message);
            refuse(confirm);
            return Ok(());
        }
        let Some(channel) = self.channels.get(&number) else {
            return Ok(());
        };
        let Some(delivery) = channel.out.unacked.lock().take(tag) else {
            return Ok(());
        };
        match self.exchange(&route, &message, &delivery, confirm) {
            Ok(()) => {
                channel.out.counters.bump(Count::Ack, 1);
                if replies {
                    self.vhost.replies.deliver(&message);
                }
                Ok(())
            }
            Err(confirm) => {
                channel.out.unacked.lock().restore(tag, delivery);
                if confirm.is_none() {
                    let text = "amq.settle: a queue it would go to is full".to_owned();
                    return Err(BrokerError::InvalidMessage(text).into());
                }
                refuse(confirm);
                Ok(())
            }
        }
    }

    /// Puts a message into its queues and takes the delivery it replaces out of its own, as one operation of the store.
    /// Gives the confirm back when a queue is full; then nothing happened.
    fn exchange(
        &self,
        route: &SharedRoute,
        message: &Message,
        delivery: &UnackedDelivery<QueueHandle>,
        confirm: Confirm,
    ) -> Result<(), Confirm> {
        let mut handles: SmallVec<[&QueueHandle; 4]> = route.iter().chain([&delivery.queue]).collect();
        handles.sort_unstable();
        handles.dedup();
        let mut guards: SmallVec<[QueueGuard<'_>; 4]> = handles.iter().map(|queue| queue.lock()).collect();
        let is_target = |queue: &&QueueHandle| route.contains(queue);
        let targets = || handles.iter().map(is_target);
        if guards
            .iter()
            .zip(targets())
            .any(|(guard, target)| target && guard.state.refuses_meanwhile(message))
        {
            return Err(confirm);
        }
        let mut stored: SmallVec<[Target; 1]> = SmallVec::new();
        for (guard, _) in guards.iter_mut().zip(targets()).filter(|(_, target)| *target) {
            stored.extend(guard.enqueue(message.clone()));
        }
        let mut ops = Vec::new();
        if !stored.is_empty() {
            ops.push(Op::Publish {
                message: message.clone(),
                targets: stored,
                confirm: None,
            });
        }
        let source = handles.iter().position(|queue| **queue == delivery.queue);
        if let Some(guard) = source.and_then(|at| guards.get_mut(at)) {
            let entry = &delivery.entry;
            guard.state.forget(entry.seq);
            if guard
                .state
                .ack(delivery.consumer, entry.stored, entry.message.body_len())
            {
                let mut removed = Removed::new();
                removed.push(entry.place());
                ops.extend(guard.acks(removed));
            }
        }
        let done = confirm.map(when_durable);
        self.broker.store().log(&mut vec![Op::Tx { ops, done }]);
        guards.iter_mut().for_each(QueueGuard::dispatch);
        Ok(())
    }
}

fn refuse(confirm: Confirm) {
    if let Some((confirms, tag)) = confirm {
        confirms.resolve(&[tag], false);
    }
}
