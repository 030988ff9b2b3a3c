//! Class queue: declare, bind, unbind, purge, delete.

use super::{Reply, consume::generated_name, exchange::without_line_breaks};
use crate::broker::{
    definition::{Destination, Name, QueueDefinition},
    error::{BrokerError, Resource},
    permission::Verb,
    queue::arguments::{self, QueueKind, inequivalent_flag},
};
use crate::protocol::{field::FieldTable, method::Method};
use crate::server::{
    connection::Connection,
    queue_cell::QueueHandle,
    registry::{DeleteIf, Durable},
    replies::{PSEUDO_QUEUE, is_pseudo_queue},
    stats::add_one,
};

struct Declare {
    name: String,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    nowait: bool,
    arguments: FieldTable,
}

impl Connection {
    /// The queue a method means: an empty name stands for the one declared last on the channel.
    pub(super) fn queue_name(&self, number: u16, name: &str) -> Result<String, BrokerError> {
        if !name.is_empty() {
            return Ok(name.to_owned());
        }
        let last = self
            .channels
            .get(&number)
            .and_then(|channel| channel.last_queue.clone());
        last.ok_or(BrokerError::NoPreviousQueue)
    }

    fn remember_queue(&mut self, number: u16, name: &str) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.last_queue = Some(name.to_owned());
        }
    }

    pub(super) fn queue_class(&mut self, number: u16, method: Method) -> Option<Result<Reply, BrokerError>> {
        Some(match method {
            Method::QueueDeclare {
                queue,
                passive: true,
                nowait,
                ..
            } => self.declare_passive(number, without_line_breaks(queue), nowait),
            Method::QueueDeclare {
                queue,
                durable,
                exclusive,
                auto_delete,
                nowait,
                arguments,
                ..
            } => {
                let name = without_line_breaks(queue);
                self.declare(
                    number,
                    Declare {
                        name,
                        durable,
                        exclusive,
                        auto_delete,
                        nowait,
                        arguments,
                    },
                )
            }
            Method::QueueBind {
                queue,
                exchange,
                routing_key,
                nowait,
                arguments,
            } => {
                let reply = (!nowait).then_some(Method::QueueBindOk);
                self.queue_binding(number, queue, exchange, routing_key, arguments)
                    .and_then(|binding| self.may_bind(&binding).map(|()| binding))
                    .and_then(|binding| self.vhost.bind(binding, (self.id, &self.user)))
                    .map(|durable| Reply::WhenDurable(durable, reply))
            }
            Method::QueueUnbind {
                queue,
                exchange,
                routing_key,
                arguments,
            } => self
                .queue_binding(number, queue, exchange, routing_key, arguments)
                .and_then(|binding| self.may_bind(&binding).map(|()| binding))
                .and_then(|binding| self.vhost.unbind(&binding, (self.id, &self.user)))
                .map(|durable| Reply::WhenDurable(durable, Some(Method::QueueUnbindOk))),
            Method::QueuePurge { queue, nowait } => self.purge(number, &queue, nowait),
            Method::QueueDelete {
                queue,
                if_unused,
                if_empty,
                nowait,
            } => {
                let only = DeleteIf {
                    unused: if_unused,
                    empty: if_empty,
                    ..DeleteIf::default()
                };
                self.delete(number, queue, only, nowait)
            }
            _ => return None,
        })
    }

    fn declare(&mut self, number: u16, declare: Declare) -> Result<Reply, BrokerError> {
        add_one(&self.broker.queues.churn.queues_declared);
        let Declare {
            mut name,
            durable,
            exclusive,
            auto_delete,
            nowait,
            arguments,
        } = declare;
        if name.starts_with(PSEUDO_QUEUE) {
            return self.declare_replies(number, name, nowait);
        }
        // A redeclaration is compared by what the client said, a new queue made by what that means here.
        let flags = (durable, exclusive, auto_delete);
        let mut effective = self.broker.with_default_type(&self.vhost, &arguments, flags);
        if name.is_empty() {
            name = server_named(&mut effective)?;
        } else if name.starts_with("amq.") {
            return Err(BrokerError::ReservedName { kind: "queue", name });
        }
        let resource = Resource::queue(&name, &self.vhost.name);
        self.rights.check(Verb::Configure, &resource)?;
        let existing = self
            .vhost
            .read(|topology| topology.queue(name.as_bytes()).cloned());
        if let Some(existing) = existing {
            return self.redeclare(
                number,
                &existing,
                durable,
                exclusive,
                auto_delete,
                &arguments,
                nowait,
            );
        }
        self.rights
            .check_argument(&effective, "x-dead-letter-exchange", &resource)?;
        self.broker.check_new(&self.vhost, &resource, &effective, flags)?;
        let definition = QueueDefinition {
            vhost: Name::clone(&self.vhost.name),
            name: name.as_str().into(),
            id: self.broker.store().next_queue_id(),
            durable: durable && !exclusive,
            auto_delete,
            arguments: effective,
        };
        let owner = exclusive.then_some(self.id);
        match self.vhost.add_queue(definition, owner, &self.user) {
            Ok((queue, stored)) => {
                queue.lock().touch();
                if exclusive {
                    self.exclusive.push(queue);
                }
                self.remember_queue(number, &name);
                Ok(declared(name, 0, 0, stored, nowait))
            }
            // Somebody else was faster.
            Err(existing) => self.redeclare(
                number,
                &existing,
                durable,
                exclusive,
                auto_delete,
                &arguments,
                nowait,
            ),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the fields of queue.declare, compared one by one"
    )]
    fn redeclare(
        &mut self,
        number: u16,
        existing: &QueueHandle,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        received: &FieldTable,
        nowait: bool,
    ) -> Result<Reply, BrokerError> {
        let current = &existing.definition;
        let resource = Resource::queue(&current.name, &self.vhost.name);
        if existing.owner != exclusive.then_some(self.id) {
            return Err(BrokerError::Locked(resource));
        }
        let flags = [
            ("durable", durable && !exclusive, current.durable),
            ("auto_delete", auto_delete, current.auto_delete),
        ];
        for (name, received, current) in flags {
            if received != current {
                return Err(inequivalent_flag(
                    name,
                    &resource,
                    &received.to_string(),
                    &current.to_string(),
                ));
            }
        }
        let mut received = received.clone();
        if let Some(kind) = current.arguments.get("x-queue-type")
            && received.get("x-queue-type").is_none()
        {
            // Who asks for no type takes what is there: the default may have changed since.
            received.insert("x-queue-type", kind.clone());
        }
        arguments::check_equivalent(&current.arguments, &received, &resource)?;
        self.remember_queue(number, &current.name);
        Ok(counted(existing, nowait))
    }

    fn declare_passive(&mut self, number: u16, name: String, nowait: bool) -> Result<Reply, BrokerError> {
        if name.starts_with(PSEUDO_QUEUE) {
            return self.declare_replies(number, name, nowait);
        }
        self.rights.check_any(&Resource::queue(&name, &self.vhost.name))?;
        let queue = self.vhost.queue(&name, self.id)?;
        self.remember_queue(number, &name);
        Ok(counted(&queue, nowait))
    }

    /// Declaring a reply address asks whether its requester still waits (amqp-behaviour 4.13).
    fn declare_replies(&mut self, number: u16, name: String, nowait: bool) -> Result<Reply, BrokerError> {
        if !self.vhost.replies.exists(&name) {
            return Err(BrokerError::NotFound(Resource::queue(&name, &self.vhost.name)));
        }
        self.remember_queue(number, &name);
        Ok(declared(name, 0, 1, None, nowait))
    }

    /// An empty queue name stands for the last declared one, and with an empty key for the key too.
    fn queue_binding(
        &self,
        number: u16,
        queue: String,
        exchange: String,
        routing_key: String,
        arguments: FieldTable,
    ) -> Result<crate::broker::definition::BindingDefinition, BrokerError> {
        let name = without_line_breaks(self.queue_name(number, &queue)?);
        if is_pseudo_queue(&name) {
            return Err(BrokerError::ReplyBinding);
        }
        let key = if queue.is_empty() && routing_key.is_empty() {
            name.clone()
        } else {
            routing_key
        };
        Ok(self.binding(exchange, Destination::Queue(name.into()), key, arguments))
    }

    fn purge(&mut self, number: u16, name: &str, nowait: bool) -> Result<Reply, BrokerError> {
        let name = self.queue_name(number, name)?;
        self.rights
            .check(Verb::Read, &Resource::queue(&name, &self.vhost.name))?;
        let queue = self.vhost.queue(&name, self.id)?;
        let message_count = u32::try_from(queue.purge()).unwrap_or(u32::MAX);
        Ok(Reply::unless(nowait, Method::QueuePurgeOk { message_count }))
    }

    /// A queue that does not exist counts as deleted (amqp-behaviour 2.3).
    fn delete(
        &mut self,
        number: u16,
        name: String,
        only: DeleteIf,
        nowait: bool,
    ) -> Result<Reply, BrokerError> {
        let name = without_line_breaks(self.queue_name(number, &name)?);
        self.rights
            .check(Verb::Configure, &Resource::queue(&name, &self.vhost.name))?;
        let (messages, durable) = match self.vhost.queue(&name, self.id) {
            Ok(queue) => {
                refuse_conditions(&queue, only)?;
                self.exclusive.retain(|mine| *mine != queue);
                self.vhost
                    .delete_queue(&queue, only, &self.user)?
                    .unwrap_or_default()
            }
            Err(BrokerError::NotFound(_)) => (0, None),
            Err(error) => return Err(error),
        };
        let message_count = u32::try_from(messages).unwrap_or(u32::MAX);
        let reply = (!nowait).then_some(Method::QueueDeleteOk { message_count });
        Ok(Reply::WhenDurable(durable, reply))
    }
}

/// The name of a queue whose client leaves it to us.
fn server_named(arguments: &mut FieldTable) -> Result<String, BrokerError> {
    let kind = QueueKind::of(arguments);
    if kind != QueueKind::Classic {
        return Err(BrokerError::ServerNamed(kind.module()));
    }
    let prefix = arguments::take_name_prefix(arguments)?;
    Ok(generated_name(prefix.as_deref().unwrap_or("amq.gen")))
}

/// A quorum queue is deleted without conditions.
fn refuse_conditions(queue: &QueueHandle, only: DeleteIf) -> Result<(), BrokerError> {
    let flag = match (only.unused, only.empty) {
        (true, _) => "if-unused",
        (_, true) => "if-empty",
        _ => return Ok(()),
    };
    if QueueKind::of(&queue.definition.arguments) == QueueKind::Classic {
        return Ok(());
    }
    let resource = Resource::queue(queue.name(), &queue.definition.vhost);
    Err(BrokerError::NotImplemented(format!(
        "cannot delete {resource}. queue.delete operations with {flag} flag set are not supported by quorum queues"
    )))
}

fn counted(queue: &QueueHandle, nowait: bool) -> Reply {
    let (messages, consumers) = {
        let mut guard = queue.lock();
        guard.touch();
        (guard.state.ready_count(), guard.state.consumer_count())
    };
    declared(queue.name().to_string(), messages, consumers, None, nowait)
}

fn declared(name: String, messages: u64, consumers: usize, stored: Option<Durable>, nowait: bool) -> Reply {
    let method = Method::QueueDeclareOk {
        queue: name,
        message_count: u32::try_from(messages).unwrap_or(u32::MAX),
        consumer_count: u32::try_from(consumers).unwrap_or(u32::MAX),
    };
    Reply::WhenDurable(stored, (!nowait).then_some(method))
}
