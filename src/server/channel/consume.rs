//! basic.consume and basic.cancel.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use rand::RngCore;

use super::Reply;
use crate::broker::{
    error::{BrokerError, Resource},
    limits::is_reached,
    permission::Verb,
    queue::{
        ConsumerId, ConsumerOptions,
        arguments::{self, QueueKind},
        timeout::{self, AckTimeout},
    },
};
use crate::protocol::{field::FieldTable, method::Method};
use crate::server::{
    connection::Connection, consumer_port::ConsumerPort, queue_cell::QueueHandle, replies::PSEUDO_QUEUE,
};

/// A consumer as its channel remembers it.
pub(super) struct Consumer {
    pub(super) queue: QueueHandle,
    pub(super) id: ConsumerId,
    /// What it says itself about the time its acks may take.
    pub(super) timeout: AckTimeout,
}

/// What the client asked for beside queue and tag.
pub(super) struct Wanted {
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) nowait: bool,
    pub(super) arguments: FieldTable,
}

/// `PREFIX-` and 22 characters that nobody guesses, as RabbitMQ names queues and consumers.
pub(super) fn generated_name(prefix: &str) -> String {
    let mut random = [0; 16];
    rand::rng().fill_bytes(&mut random);
    format!("{prefix}-{}", URL_SAFE_NO_PAD.encode(random))
}

impl super::Channel {
    fn uses_tag(&self, tag: &Bytes) -> bool {
        self.consumers.contains_key(tag) || self.replies.as_ref().is_some_and(|replies| replies.tag == *tag)
    }

    /// What a consumer of this queue may be like.
    ///
    /// # Errors
    /// 406 for arguments the queue's type does not take, 540 for a limit of the whole channel on a quorum queue.
    fn consumer_options(
        &self,
        wanted: &Wanted,
        queue: &QueueHandle,
        resource: &Resource,
    ) -> Result<ConsumerOptions, BrokerError> {
        let kind = QueueKind::of(&queue.definition.arguments);
        check_foreign(&wanted.arguments, kind, resource)?;
        let quorum = kind == QueueKind::Quorum;
        if quorum && self.out.unacked.lock().is_limited() {
            let text = format!("{resource} does not support global qos");
            return Err(BrokerError::NotImplemented(text));
        }
        Ok(ConsumerOptions {
            no_ack: wanted.no_ack,
            prefetch: self.prefetch,
            // Quorum queues ignore it.
            exclusive: wanted.exclusive && !quorum,
            priority: priority(&wanted.arguments, resource)?,
        })
    }
}

impl Connection {
    pub(super) fn consume(
        &mut self,
        number: u16,
        queue: &str,
        tag: &str,
        wanted: &Wanted,
    ) -> Result<Reply, BrokerError> {
        let name = self.queue_name(number, queue)?;
        let Some(channel) = self.channels.get_mut(&number) else {
            return Ok(Reply::None);
        };
        channel.forget_cancelled();
        let tag = if tag.is_empty() {
            generated_name("amq.ctag")
        } else {
            tag.to_owned()
        };
        let key = Bytes::copy_from_slice(tag.as_bytes());
        if channel.uses_tag(&key) {
            return Err(BrokerError::ConsumerTagReused(tag));
        }
        if name == PSEUDO_QUEUE {
            return self.consume_replies(number, tag, wanted);
        }
        let limit = self.broker.limits().consumer_max_per_channel;
        if let Some(limit) = is_reached(limit, channel.consumers.len()) {
            return Err(BrokerError::ConsumerLimit(limit));
        }
        let resource = Resource::queue(&name, &self.vhost.name);
        self.rights.check(Verb::Read, &resource)?;
        let queue = self.vhost.queue(&name, self.id)?;
        let options = channel.consumer_options(wanted, &queue, &resource)?;
        let port = ConsumerPort {
            channel: Arc::clone(&channel.out),
            queue: queue.weak(),
            tag: key.clone(),
            no_ack: wanted.no_ack,
            arguments: wanted.arguments.clone(),
            timeout: AckTimeout::of(&wanted.arguments),
        };
        let timeout = port.timeout;
        {
            let mut guard = queue.lock();
            if queue.is_damaged() {
                return Err(BrokerError::Damaged(resource));
            }
            if guard.state.is_deleted() {
                return Err(BrokerError::NotFound(resource));
            }
            let id = guard
                .state
                .consume(options, port)
                .ok_or(BrokerError::ExclusiveUse(resource))?;
            channel.consumers.insert(
                key,
                Consumer {
                    queue: queue.clone(),
                    id,
                    timeout,
                },
            );
            self.announce_consumer(number, &tag, &name, options.prefetch, wanted);
            // The answer precedes the first delivery, which the dispatch may make.
            if !wanted.nowait {
                self.outbox
                    .method(number, &Method::BasicConsumeOk { consumer_tag: tag });
            }
            guard.dispatch();
        }
        Ok(Reply::None)
    }

    /// A consumer of direct replies has no queue, needs no permission and acknowledges nothing (amqp-behaviour 4.13).
    fn consume_replies(&mut self, number: u16, tag: String, wanted: &Wanted) -> Result<Reply, BrokerError> {
        let Some(channel) = self.channels.get_mut(&number) else {
            return Ok(Reply::None);
        };
        if channel.replies.is_some() {
            return Err(BrokerError::ReplyConsumerSet);
        }
        if !wanted.no_ack {
            return Err(BrokerError::ReplyConsumerAcks);
        }
        // The answer precedes the first delivery: nobody knows the address before it exists.
        if !wanted.nowait {
            let consumer_tag = tag.clone();
            self.outbox
                .method(number, &Method::BasicConsumeOk { consumer_tag });
        }
        let consumer = self.vhost.replies.add(Arc::clone(&channel.out), Bytes::from(tag));
        channel.replies = Some(consumer);
        Ok(Reply::None)
    }

    /// Tells the event exchange of a new consumer.
    fn announce_consumer(&self, number: u16, tag: &str, queue: &str, prefetch: u16, wanted: &Wanted) {
        self.broker.queues.announcer.event("consumer.created", |headers| {
            headers
                .text("consumer_tag", tag)
                .text("queue", queue)
                .text("vhost", &self.vhost.name)
                .text("channel", &format!("{} ({number})", self.client.name))
                .flag("exclusive", wanted.exclusive)
                .flag("ack_required", !wanted.no_ack)
                .number("prefetch_count", prefetch.into())
                .table("arguments", &wanted.arguments)
                .text("user_who_performed_action", &self.user);
        });
    }

    /// Permissions changed: consumers whose queue the user may not read any more are cancelled by the server.
    pub(in crate::server) fn cancel_unreadable(&mut self) {
        let mut unused = Vec::new();
        for channel in self.channels.values_mut() {
            channel.forget_cancelled();
            let (rights, vhost) = (&mut self.rights, &self.vhost.name);
            let lost: Vec<Bytes> = channel
                .consumers
                .iter()
                .filter(|(_, consumer)| {
                    let queue = Resource::queue(consumer.queue.name(), vhost);
                    rights.check(Verb::Read, &queue).is_err()
                })
                .map(|(tag, _)| tag.clone())
                .collect();
            for tag in lost {
                let Some(consumer) = channel.consumers.remove(&tag) else {
                    continue;
                };
                tracing::warn!(queue = %consumer.queue.name(), "consumer cancelled: its user may not read any more (rabbitmqctl list_permissions)");
                let empty = consumer.queue.lock().state.cancel(consumer.id);
                channel.out.tell_cancel(&tag);
                if empty && consumer.queue.definition.auto_delete {
                    unused.push(consumer.queue);
                }
            }
        }
        for queue in unused {
            self.delete_unused(&queue);
        }
    }

    /// A tag that is not known is cancelled as well as one that is (amqp-behaviour 2.4).
    pub(super) fn cancel(&mut self, number: u16, tag: String, nowait: bool) -> Result<Reply, BrokerError> {
        let Some(channel) = self.channels.get_mut(&number) else {
            return Ok(Reply::None);
        };
        channel.forget_cancelled();
        if let Some(replies) = channel.replies.take_if(|replies| replies.tag == tag.as_bytes()) {
            self.vhost.replies.remove(&replies);
        }
        let mut unused = None;
        if let Some(consumer) = channel.consumers.remove(tag.as_bytes()) {
            self.broker.queues.announcer.event("consumer.deleted", |headers| {
                headers
                    .text("consumer_tag", &tag)
                    .text("queue", consumer.queue.name())
                    .text("vhost", &self.vhost.name)
                    .text("channel", &format!("{} ({number})", self.client.name))
                    .text("user_who_performed_action", &self.user);
            });
            let empty = consumer.queue.cancel(consumer.id);
            consumer.queue.lock().dispatch();
            unused = (empty && consumer.queue.definition.auto_delete).then_some(consumer.queue);
        }
        if !nowait {
            self.outbox
                .method(number, &Method::BasicCancelOk { consumer_tag: tag });
        }
        if let Some(queue) = unused {
            self.delete_unused(&queue);
        }
        Ok(Reply::None)
    }
}

/// Consume arguments that only streams know (amqp-behaviour 4.10); others nobody knows are taken. RabbitMQ 4.3 knows
/// `x-consumer-timeout` for quorum queues only; here it means the same on every queue.
const STREAM_ONLY: [&str; 3] = ["x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered"];

fn check_foreign(arguments: &FieldTable, kind: QueueKind, queue: &Resource) -> Result<(), BrokerError> {
    for name in [timeout::TIMEOUT, timeout::ACTION] {
        arguments::check_one(arguments, name, queue)?;
    }
    match STREAM_ONLY.into_iter().find(|name| arguments.get(name).is_some()) {
        Some(argument) => Err(BrokerError::ForeignArgument {
            argument,
            resource: queue.clone(),
            module: kind.module(),
        }),
        None => Ok(()),
    }
}

fn priority(arguments: &FieldTable, queue: &Resource) -> Result<i64, BrokerError> {
    let Some(value) = arguments.get("x-priority") else {
        return Ok(0);
    };
    value.as_integer().ok_or_else(|| BrokerError::InvalidArgument {
        argument: "x-priority".to_owned(),
        resource: queue.clone(),
        detail: format!("\"expected integer, got {}\"", value.type_name()),
    })
}
