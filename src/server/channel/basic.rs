//! Class basic: publish, ack, nack, reject, recover, qos. Getting is in `get.rs`, consuming in `consume.rs`.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;

use super::{
    Reply, Settlement,
    properties::{check_properties, check_user_id},
};
use crate::broker::{
    delay::may_be_asked,
    error::BrokerError,
    message::{INLINE_BODY_MAX, Message, MessageParts},
    queue::{ConsumerId, Entry, Return},
    sender_selected::{BCC, select},
    unacked::UnackedDelivery,
};
use crate::protocol::{
    assembler::Content,
    field::{RawField, ShortString},
    method::{Method, MethodId, PublishFields},
    properties::{PropertyError, RawProperties},
    reply_code::ReplyCode,
};
use crate::server::{
    close::Fault,
    connection::Connection,
    publisher::{Publish, SharedRoute},
    queue_cell::{QueueGuard, QueueHandle},
    replies::{PSEUDO_QUEUE, is_address},
    spans::Outcome,
    stats::Count,
};

/// A body as it arrived: in one piece that must be copied, or in pieces that can be kept.
pub(in crate::server) enum Body<'a> {
    Slice(&'a [u8]),
    Pieces(Vec<Bytes>, u64),
}

impl<'a> From<&'a [u8]> for Body<'a> {
    fn from(slice: &'a [u8]) -> Self {
        Self::Slice(slice)
    }
}

impl Body<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Slice(slice) => slice.len() as u64,
            Self::Pieces(_, len) => *len,
        }
    }
}

/// A message and where it goes.
pub(super) struct Routed {
    pub(super) route: SharedRoute,
    pub(super) message: Message,
    /// Consumers of direct replies are among its keys.
    pub(super) replies: bool,
}

impl Connection {
    /// A method with content. Only basic.publish may come from a client.
    pub(in crate::server) fn content(&mut self, number: u16, content: Content) -> Result<(), Fault> {
        match content.method {
            Method::BasicPublish {
                exchange,
                routing_key,
                mandatory,
                immediate,
            } => {
                let fields = PublishFields {
                    exchange: exchange.as_bytes(),
                    routing_key: routing_key.as_bytes(),
                    mandatory,
                    immediate,
                };
                let body = Body::Pieces(content.body, content.body_len);
                self.publish(number, fields, &content.properties, body)
            }
            other => Err(super::unimplemented(other.id())),
        }
    }

    /// Hop 2 of a published message: checked, numbered, routed, put with the others of this read.
    pub(in crate::server) fn publish(
        &mut self,
        number: u16,
        fields: PublishFields<'_>,
        properties: &[u8],
        body: Body<'_>,
    ) -> Result<(), Fault> {
        let id = MethodId::BASIC_PUBLISH;
        let refuse = |error: BrokerError| Fault::refuse(number, &error, id);
        let damaged = |error| Fault::connection(ReplyCode::FrameError, error, id);
        if fields.immediate {
            return Err(Fault::connection(ReplyCode::NotImplemented, "immediate=true", id));
        }
        let (size, max) = (body.len(), self.broker.message_bytes_max());
        if size > max {
            return Err(refuse(BrokerError::MessageTooLarge { size, max }));
        }
        if let Some(route) = self.known_route(&fields, properties) {
            let parts = parts(&fields, properties).map_err(damaged)?;
            let message = build(&parts, body, &mut self.scratch);
            let routed = Routed {
                route,
                message,
                replies: false,
            };
            return self.enqueue(number, routed, fields.mandatory).map_err(refuse);
        }
        if Self::is_order(fields.exchange) {
            return self.settle_by_publish(number, &fields, properties, body);
        }
        self.rights.check_publish(fields.exchange).map_err(refuse)?;
        RawProperties::new(properties).validate().map_err(damaged)?;
        let addressed = self.address_replies(number, properties);
        let addressed = addressed.map_err(|error| refuse(self.exchange_first(fields.exchange, error)))?;
        let properties = addressed.as_deref().unwrap_or(properties);
        let parts = parts(&fields, properties).map_err(damaged)?;
        let routed = self.route(&parts, body).map_err(refuse)?;
        if !routed.replies && !self.rights.has_topics() {
            self.routes
                .vouch(fields.exchange, fields.routing_key, self.rights.generation());
        }
        self.enqueue(number, routed, fields.mandatory).map_err(refuse)
    }

    /// The route of the message before, when this one has the same names, nothing changed since that one passed every
    /// check, and its properties ask for none of their own.
    #[inline]
    fn known_route(&self, fields: &PublishFields<'_>, properties: &[u8]) -> Option<SharedRoute> {
        if RawProperties::new(properties).ask_something() {
            return None;
        }
        let generations = (self.vhost.generation(), self.rights.current());
        let route = self
            .routes
            .again(fields.exchange, fields.routing_key, generations)?;
        Some(Arc::clone(route))
    }

    /// Puts a routed message with the others of this read, or with its transaction.
    #[inline]
    fn enqueue(&mut self, number: u16, routed: Routed, mandatory: bool) -> Result<(), BrokerError> {
        let Routed {
            route,
            message,
            replies,
        } = routed;
        // A reply counts as routed, whether or not its requester is still there.
        let mandatory = mandatory && !replies;
        let raw = RawProperties::new(message.properties());
        let (route, held_back) = if may_be_asked(raw) {
            self.hold(message.exchange(), raw, route)
        } else {
            (route, false)
        };
        let Some(channel) = self.channels.get_mut(&number) else {
            return Ok(());
        };
        self.published = true;
        channel.out.counters.bump(Count::Publish, 1);
        self.tally
            .count(&self.vhost, message.exchange(), route.len(), message.body_len());
        if let Some(transaction) = &mut channel.transaction {
            let max = self.broker.limits().transaction_max_bytes;
            return transaction.publish((route, message, mandatory), max);
        }
        let confirm = channel
            .confirms
            .as_ref()
            .map(|confirms| (Arc::clone(confirms), confirms.issue()));
        let message = if self.traced {
            self.tap.published(number, message, &route)
        } else {
            message
        };
        if replies {
            self.vhost.replies.deliver(&message);
        }
        if !replies && route.is_empty() || held_back && mandatory {
            let unroutable = if mandatory {
                Count::ReturnUnroutable
            } else {
                Count::DropUnroutable
            };
            channel.out.counters.bump(unroutable, 1);
            self.vhost.counters.add(unroutable, 1);
            if mandatory {
                self.return_unroutable(number, &message);
            }
        }
        if !route.is_empty() {
            self.batch.publish(route, Publish { message, confirm });
        } else if let Some((confirms, tag)) = confirm {
            self.batch.confirm_now(&confirms, tag);
        }
        Ok(())
    }

    /// A request whose reply address is the pseudo queue gets the channel's own; `None` leaves the properties as they
    /// are.
    #[inline]
    pub(super) fn address_replies(
        &self,
        number: u16,
        properties: &[u8],
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        let raw = RawProperties::new(properties);
        if !raw.has_reply_to() || raw.reply_to().ok().flatten() != Some(PSEUDO_QUEUE.as_bytes()) {
            return Ok(None);
        }
        let channel = self.channels.get(&number);
        let consumer = channel.and_then(|channel| channel.replies.as_ref());
        let consumer = consumer.ok_or(BrokerError::ReplyConsumerMissing)?;
        let mut addressed = Vec::with_capacity(properties.len() + consumer.address.len());
        let written = raw.write_with_reply_to(&consumer.address, &mut addressed);
        Ok(written.map(|()| addressed))
    }

    /// A missing exchange is told before what is wrong with the message, as RabbitMQ does.
    fn exchange_first(&self, exchange: &[u8], error: BrokerError) -> BrokerError {
        let missing = self.vhost.read(|topology| topology.check_publish(exchange));
        missing.err().unwrap_or(error)
    }

    /// Finds the queues and builds the message.
    #[inline]
    pub(super) fn route(&mut self, parts: &MessageParts<'_>, body: Body<'_>) -> Result<Routed, BrokerError> {
        let raw = RawProperties::new(parts.properties);
        check_properties(raw).map_err(|error| self.exchange_first(parts.exchange, error))?;
        let selected = if raw.has_headers() {
            select(parts.routing_key, raw).map_err(|error| self.exchange_first(parts.exchange, error))?
        } else {
            None
        };
        self.check_sender(parts, raw)
            .map_err(|error| self.exchange_first(parts.exchange, error))?;
        let to_default = parts.exchange.is_empty();
        let routed = match selected {
            None => Routed {
                route: self
                    .routes
                    .route(&self.vhost, parts.exchange, parts.routing_key, raw)?,
                message: build(parts, body, &mut self.scratch),
                replies: to_default && is_address(parts.routing_key),
            },
            Some(selected) => Routed {
                route: self
                    .routes
                    .route_all(&self.vhost, parts.exchange, &selected.keys, raw)?,
                message: build_selected(parts, selected.hidden, body, &mut self.scratch),
                replies: to_default && selected.keys.iter().any(|key| is_address(key)),
            },
        };
        if !self.routes.keepers.is_empty() {
            let keepers = std::mem::take(&mut self.routes.keepers);
            self.vhost
                .read(|topology| topology.keep(&keepers, &routed.message));
        }
        Ok(routed)
    }

    /// Topic permissions, then the claimed user (amqp-behaviour 2.4). Most users have neither rules nor claims.
    #[inline]
    fn check_sender(&self, parts: &MessageParts<'_>, raw: RawProperties<'_>) -> Result<(), BrokerError> {
        if self.rights.has_topics() {
            let exchange = String::from_utf8_lossy(parts.exchange);
            if self.is_topic(&exchange) {
                self.rights.check_topics_of(&exchange, parts.routing_key, raw)?;
            }
        }
        if self.rights.is_impersonator() {
            return Ok(());
        }
        check_user_id(raw, &self.user)
    }

    /// basic.return; it precedes the confirm, which is only sent with the batch.
    pub(super) fn return_unroutable(&self, number: u16, message: &Message) {
        let Some(channel) = self.channels.get(&number) else {
            return;
        };
        let name = |bytes: &[u8]| ShortString::try_from(bytes).unwrap_or_default();
        let method = Method::BasicReturn {
            reply_code: ReplyCode::NoRoute.number(),
            reply_text: name(b"NO_ROUTE"),
            exchange: name(message.exchange()),
            routing_key: name(message.routing_key()),
        };
        channel.out.outbox.append(|frames| {
            channel
                .out
                .write_content(frames, message, |out| method.encode(out));
        });
    }

    /// basic.ack; on a transactional channel it waits for the commit.
    pub(in crate::server) fn ack(&mut self, number: u16, tag: u64, multiple: bool) -> Result<(), Fault> {
        let Some(channel) = self.channels.get_mut(&number) else {
            return Ok(());
        };
        let batch = &mut self.batch;
        let (traced, tap, id) = (self.traced, &self.tap, self.id);
        let mut unacked = channel.out.unacked.lock();
        let outstanding = unacked.len();
        let result = match &mut channel.transaction {
            Some(transaction) => unacked.settle(tag, multiple, |tag, delivery| {
                transaction.settle(tag, delivery, Settlement::Ack)
            }),
            None => unacked.settle(tag, multiple, |tag, delivery| {
                if traced {
                    tap.settled((number, tag), id, &delivery, Outcome::Ack);
                }
                batch.ack(delivery.queue, delivery.consumer, delivery.entry);
            }),
        };
        let settled = outstanding.saturating_sub(unacked.len()) as u64;
        channel.out.counters.bump(Count::Ack, settled);
        drop(unacked);
        channel.out.settled();
        result.map_err(|error| Fault::refuse(number, &error, MethodId::BASIC_ACK))
    }

    /// basic.qos. With global on it limits the channel's consumers together, as RabbitMQ did until 4.2, unless the
    /// settings ask for the treatment of 4.3: then it means the same as without (amqp-behaviour 2.4).
    fn qos(&mut self, number: u16, count: u16, global: bool) {
        let Some(channel) = self.channels.get_mut(&number) else {
            return;
        };
        if global && self.broker.limits().global_qos {
            channel.out.limit(count);
        } else {
            channel.prefetch = count;
            channel.out.facts.prefetch.store(count, Ordering::Relaxed);
            if channel.out.unacked.lock().is_limited() {
                channel.out.limit(0);
            }
        }
    }

    pub(super) fn basic_class(&mut self, number: u16, method: Method) -> Option<Result<Reply, BrokerError>> {
        Some(match method {
            Method::BasicQos {
                prefetch_size,
                prefetch_count,
                global,
            } => {
                if prefetch_size != 0 {
                    let text = format!("prefetch_size!=0 ({prefetch_size})");
                    return Some(Err(BrokerError::NotImplemented(text)));
                }
                self.qos(number, prefetch_count, global);
                Ok(Reply::Now(Method::BasicQosOk))
            }
            Method::BasicConsume {
                queue,
                consumer_tag,
                no_ack,
                exclusive,
                nowait,
                arguments,
                ..
            } => {
                let how = super::consume::Wanted {
                    no_ack,
                    exclusive,
                    nowait,
                    arguments,
                };
                self.consume(number, &queue, &consumer_tag, &how)
            }
            Method::BasicCancel { consumer_tag, nowait } => self.cancel(number, consumer_tag, nowait),
            Method::BasicCancelOk { .. } => Ok(Reply::None),
            Method::BasicAck {
                delivery_tag,
                multiple,
            } => match self.ack(number, delivery_tag, multiple) {
                Ok(()) => Ok(Reply::None),
                Err(_) => Err(BrokerError::UnknownDeliveryTag(delivery_tag)),
            },
            Method::BasicNack {
                delivery_tag,
                multiple,
                requeue,
            } => self.reject(
                number,
                delivery_tag,
                multiple,
                requeue.then_some(Return::Postponed),
            ),
            Method::BasicReject {
                delivery_tag,
                requeue,
            } => self.reject(number, delivery_tag, false, requeue.then_some(Return::Failed)),
            Method::BasicRecover { requeue } => self.recover(number, requeue, Some(Method::BasicRecoverOk)),
            Method::BasicRecoverAsync { requeue } => self.recover(number, requeue, None),
            _ => return None,
        })
    }

    /// basic.nack and basic.reject; without a way back the message is dead-lettered or dropped.
    fn reject(
        &mut self,
        number: u16,
        tag: u64,
        multiple: bool,
        requeue: Option<Return>,
    ) -> Result<Reply, BrokerError> {
        let Some(channel) = self.channels.get_mut(&number) else {
            return Ok(Reply::None);
        };
        let mut rejected = Vec::new();
        let out = Arc::clone(&channel.out);
        channel
            .out
            .unacked
            .lock()
            .settle(tag, multiple, |tag, delivery| rejected.push((tag, delivery)))?;
        if self.traced {
            let outcome = requeue.map_or(Outcome::Reject, |_| Outcome::Requeue);
            for (tag, delivery) in &rejected {
                self.tap.settled((number, *tag), self.id, delivery, outcome);
            }
        }
        if let Some(transaction) = &mut channel.transaction {
            let how = requeue.map_or(Settlement::Reject, Settlement::Requeue);
            for (tag, delivery) in rejected {
                transaction.settle(tag, delivery, how.clone());
            }
        } else {
            let rejected = rejected.into_iter().map(|(_, delivery)| delivery).collect();
            match requeue {
                Some(why) => Self::requeue(rejected, why),
                None => each_queue(rejected, |queue, consumer, entry| queue.reject(consumer, entry)),
            }
        }
        out.settled();
        Ok(Reply::None)
    }

    fn recover(&mut self, number: u16, requeue: bool, reply: Option<Method>) -> Result<Reply, BrokerError> {
        if !requeue {
            return Err(BrokerError::NotImplemented("requeue=false".to_owned()));
        }
        // RabbitMQ's queues are told, and the client is answered before they deliver again. lapin relies on it: at the
        // answer it forgets the deliveries it holds.
        if let Some(reply) = reply {
            self.outbox.method(number, &reply);
        }
        if let Some(channel) = self.channels.get(&number) {
            let out = Arc::clone(&channel.out);
            let outstanding = out.unacked.lock().take_all();
            Self::requeue(outstanding, Return::Postponed);
            out.settled();
        }
        Ok(Reply::None)
    }

    /// Puts deliveries back to their queues.
    pub(super) fn requeue(deliveries: Vec<UnackedDelivery<QueueHandle>>, why: Return) {
        each_queue(deliveries, |queue, consumer, entry| {
            queue.requeue(consumer, entry, why);
        });
    }
}

/// Settles deliveries in their order, each queue locked once.
fn each_queue(
    mut deliveries: Vec<UnackedDelivery<QueueHandle>>,
    mut settle: impl FnMut(&mut QueueGuard<'_>, Option<ConsumerId>, Entry),
) {
    deliveries.sort_by(|left, right| left.queue.cmp(&right.queue));
    let mut deliveries = deliveries.into_iter().peekable();
    while let Some(first) = deliveries.next() {
        let handle = first.queue;
        let mut queue = handle.lock();
        settle(&mut queue, first.consumer, first.entry);
        while let Some(next) = deliveries.next_if(|next| next.queue == handle) {
            settle(&mut queue, next.consumer, next.entry);
        }
        queue.dispatch();
    }
}

/// What a message is made of, its properties checked.
#[inline]
fn parts<'a>(fields: &PublishFields<'a>, properties: &'a [u8]) -> Result<MessageParts<'a>, PropertyError> {
    let raw = RawProperties::new(properties);
    raw.validate()?;
    Ok(MessageParts {
        exchange: fields.exchange,
        routing_key: fields.routing_key,
        properties,
        persistent: raw.delivery_mode()? == Some(2),
        priority: raw.priority()?.unwrap_or(0),
    })
}

#[inline]
fn build(parts: &MessageParts<'_>, body: Body<'_>, scratch: &mut Vec<u8>) -> Message {
    match body {
        Body::Slice(slice) => Message::new(parts, slice, scratch),
        Body::Pieces(pieces, len) if len <= INLINE_BODY_MAX as u64 => match &pieces[..] {
            [] => Message::new(parts, &[], scratch),
            [one] => Message::new(parts, one, scratch),
            several => Message::new(parts, &several.concat(), scratch),
        },
        Body::Pieces(pieces, _) => Message::with_large_body(parts, pieces, scratch),
    }
}

/// Takes the BCC header out of the properties and puts it where only the broker sees it.
fn build_selected(
    parts: &MessageParts<'_>,
    hidden: Option<RawField<'_>>,
    body: Body<'_>,
    scratch: &mut Vec<u8>,
) -> Message {
    let Some(hidden) = hidden else {
        return build(parts, body, scratch);
    };
    let mut properties = Vec::with_capacity(parts.properties.len());
    let raw = RawProperties::new(parts.properties);
    // They have been validated, so this does not fail; if it did, nothing secret may get out.
    if raw.write_without_header(BCC, &mut properties).is_none() {
        properties = vec![0, 0];
    }
    let parts = MessageParts {
        properties: &properties,
        ..*parts
    };
    match body {
        Body::Slice(slice) => Message::new_hiding(&parts, hidden, slice, scratch),
        Body::Pieces(pieces, len) if len <= INLINE_BODY_MAX as u64 => {
            Message::new_hiding(&parts, hidden, &pieces.concat(), scratch)
        }
        Body::Pieces(pieces, _) => Message::with_large_body_hiding(&parts, hidden, pieces, scratch),
    }
}
