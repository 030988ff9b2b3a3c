//! Class exchange: declare, delete, bind, unbind.

use super::Reply;
use crate::broker::{
    definition::{BindingDefinition, Destination, ExchangeDefinition, Name},
    error::BrokerError,
};
use crate::protocol::method::Method;
use crate::server::connection::Connection;

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
                self.vhost
                    .read(|topology| topology.check_exchange(&name))
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
                self.vhost
                    .declare_exchange(definition)
                    .map(|durable| Reply::WhenDurable(durable, reply))
            }
            Method::ExchangeDelete {
                exchange,
                if_unused,
                nowait,
            } => {
                let reply = (!nowait).then_some(Method::ExchangeDeleteOk);
                self.vhost
                    .delete_exchange(&without_line_breaks(exchange), if_unused)
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
                self.vhost
                    .bind(binding, self.id)
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
                self.vhost
                    .unbind(&binding, self.id)
                    .map(|durable| Reply::WhenDurable(durable, reply))
            }
            _ => return None,
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
