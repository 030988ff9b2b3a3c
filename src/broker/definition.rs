//! What was declared: the lasting description of vhosts, exchanges, queues and bindings.

use std::sync::Arc;

use crate::broker::ids::QueueId;
use crate::protocol::field::FieldTable;

/// A name of a vhost, exchange or queue: UTF-8, at most 255 bytes; shared, because every binding repeats it.
pub type Name = Arc<str>;

/// An exchange as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeDefinition {
    pub vhost: Name,
    pub name: Name,
    /// The type as the client wrote it: `direct`, `fanout`, `topic`, `headers`.
    pub kind: Name,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: FieldTable,
}

/// A queue as declared. An exclusive queue is never stored, so the owner is not part of it.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueDefinition {
    pub vhost: Name,
    pub name: Name,
    pub id: QueueId,
    pub durable: bool,
    pub auto_delete: bool,
    pub arguments: FieldTable,
}

/// Where a binding leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    Queue(Name),
    Exchange(Name),
}

/// A binding; all its fields together are its identity (amqp-behaviour 3.8), the arguments by content, not order.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingDefinition {
    pub vhost: Name,
    pub source: Name,
    pub destination: Destination,
    pub routing_key: Name,
    pub arguments: FieldTable,
}

/// Anything that can be declared and must survive a restart.
#[derive(Clone, Debug, PartialEq)]
pub enum Definition {
    Vhost(Name),
    Exchange(ExchangeDefinition),
    Queue(QueueDefinition),
    Binding(BindingDefinition),
}
