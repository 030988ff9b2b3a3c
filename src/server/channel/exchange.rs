//! Class exchange: declare, delete, bind, unbind.

use super::Reply;
use crate::broker::{
    definition::{BindingDefinition, Destination, ExchangeDefinition, Name},
    error::{BrokerError, Resource},
    exchange::Exchange,
    limits::is_reached,
    permission::Verb,
};
use crate::protocol::method::Method;
use crate::server::{connection::Connection, queue_cell::QueueHandle};

/// Line breaks are taken out of names that are declared, deleted or bound (amqp-behaviour 2.0).
pub(super) fn without_line_breaks(mut name: String) -> String {
    name.retain(|character| character != '\r' && character != '\n');
    name
}

impl Connection {
    pub(super) fn exchange_class(&mut self, method: Method) -> Option<Result<Reply, BrokerError>> {
        Some(match method {
            Method::ExchangeDeclare {
                exchange,
                passive: true,
                nowait,
                ..
            } => {
                let name = without_line_breaks(exchange);
                self.may_exchange_passive(&name)
                    .and_then(|()| self.vhost.read(|topology| topology.check_exchange(&name)))
                    .map(|()| Reply::unless(nowait, Method::ExchangeDeclareOk))
            }
            Method::ExchangeDeclare {
                exchange,
                kind,
                durable,
                auto_delete,
                internal,
                nowait,
                arguments,
                ..
            } => {
                let definition = ExchangeDefinition {
                    vhost: Name::clone(&self.vhost.name),
                    name: without_line_breaks(exchange).into(),
                    kind: kind.into(),
                    durable,
                    auto_delete,
                    internal,
                    arguments,
                };
                let reply = (!nowait).then_some(Method::ExchangeDeclareOk);
                self.may_declare_exchange(&definition)
                    .and_then(|()| self.vhost.declare_exchange(definition, &self.user))
                    .map(|durable| Reply::WhenDurable(durable, reply))
            }
            Method::ExchangeDelete {
                exchange,
                if_unused,
                nowait,
            } => {
                let reply = (!nowait).then_some(Method::ExchangeDeleteOk);
                let name = without_line_breaks(exchange);
                self.may_delete_exchange(&name)
                    .and_then(|()| self.vhost.delete_exchange(&name, if_unused, &self.user))
                    .map(|durable| Reply::WhenDurable(durable, reply))
            }
            method => return self.exchange_bindings(method),
        })
    }

    fn exchange_bindings(&mut self, method: Method) -> Option<Result<Reply, BrokerError>> {
        Some(match method {
            Method::ExchangeBind {
                destination,
                source,
                routing_key,
                nowait,
                arguments,
            } => {
                let destination = Destination::Exchange(without_line_breaks(destination).into());
                let binding = self.binding(source, destination, routing_key, arguments);
                let reply = (!nowait).then_some(Method::ExchangeBindOk);
                self.may_bind(&binding)
                    .and_then(|()| self.vhost.bind(binding, (self.id, &self.user)))
                    .map(|durable| Reply::WhenDurable(durable, reply))
            }
            Method::ExchangeUnbind {
                destination,
                source,
                routing_key,
                nowait,
                arguments,
            } => {
                let destination = Destination::Exchange(without_line_breaks(destination).into());
                let binding = self.binding(source, destination, routing_key, arguments);
                let reply = (!nowait).then_some(Method::ExchangeUnbindOk);
                self.may_bind(&binding)
                    .and_then(|()| self.vhost.unbind(&binding, (self.id, &self.user)))
                    .map(|durable| Reply::WhenDurable(durable, reply))
            }
            _ => return None,
        })
    }

    /// Refusals that precede the permission keep their texts: the default exchange is nobody's.
    fn may_exchange_passive(&mut self, name: &str) -> Result<(), BrokerError> {
        if name.is_empty() {
            return Err(BrokerError::DefaultExchange);
        }
        self.rights.check_any(&Resource::exchange(name, &self.vhost.name))
    }

    /// Type, then name, then permission; what an argument names is checked only for a new exchange (amqp-behaviour 2.2).
    fn may_declare_exchange(&mut self, definition: &ExchangeDefinition) -> Result<(), BrokerError> {
        if let Err(unknown @ BrokerError::UnknownExchangeType(_)) =
            Exchange::<QueueHandle>::new(definition.clone())
        {
            return Err(unknown);
        }
        let name = &definition.name;
        if name.is_empty() {
            return Err(BrokerError::DefaultExchange);
        }
        let resource = Resource::exchange(name, &self.vhost.name);
        self.rights.check(Verb::Configure, &resource)?;
        if name.starts_with("amq.") || self.vhost.read(|topology| topology.exchange(name).is_some()) {
            return Ok(());
        }
        self.rights
            .check_argument(&definition.arguments, "alternate-exchange", &resource)?;
        let limit = self.broker.limits().exchange_max;
        let count = || -> usize {
            let vhosts = self.broker.vhosts();
            vhosts
                .iter()
                .map(|vhost| vhost.read(|topology| topology.exchange_count()))
                .sum()
        };
        match limit.and_then(|_| is_reached(limit, count())) {
            Some(limit) => Err(BrokerError::ExchangeLimit {
                exchange: resource,
                limit,
            }),
            None => Ok(()),
        }
    }

    fn may_delete_exchange(&mut self, name: &str) -> Result<(), BrokerError> {
        // Without a name, and with a system's, the topology refuses in its own words.
        if name.is_empty() || name.starts_with("amq.") {
            return Ok(());
        }
        self.rights
            .check(Verb::Configure, &Resource::exchange(name, &self.vhost.name))
    }

    /// Write on the destination, read on the source, then the key where the source is a topic exchange
    /// (amqp-behaviour 3.8). The default exchange is refused between the two.
    pub(super) fn may_bind(&mut self, binding: &BindingDefinition) -> Result<(), BrokerError> {
        let vhost = &self.vhost.name;
        let destination = match &binding.destination {
            Destination::Queue(name) => Resource::queue(name, vhost),
            Destination::Exchange(name) => Resource::exchange(name, vhost),
        };
        self.rights.check(Verb::Write, &destination)?;
        let to_default = matches!(&binding.destination, Destination::Exchange(name) if name.is_empty());
        if binding.source.is_empty() || to_default {
            return Err(BrokerError::DefaultExchange);
        }
        let source = Resource::exchange(&binding.source, vhost);
        self.rights.check(Verb::Read, &source)?;
        if self.rights.has_topics() && self.is_topic(&binding.source) {
            self.rights
                .check_topic(Verb::Read, &binding.source, &binding.routing_key)?;
        }
        Ok(())
    }

    pub(super) fn is_topic(&self, exchange: &str) -> bool {
        self.vhost.read(|topology| {
            topology
                .exchange(exchange)
                .is_some_and(|exchange| &*exchange.definition().kind == "topic")
        })
    }

    pub(super) fn binding(
        &self,
        source: String,
        destination: Destination,
        routing_key: String,
        arguments: crate::protocol::field::FieldTable,
    ) -> BindingDefinition {
        BindingDefinition {
            vhost: Name::clone(&self.vhost.name),
            source: without_line_breaks(source).into(),
            destination,
            routing_key: routing_key.into(),
            arguments,
        }
    }
}
