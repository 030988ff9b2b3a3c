//! What was declared: the lasting description of vhosts, exchanges, queues and bindings, and of all that operators set.

use std::sync::Arc;

use crate::broker::{
    ids::QueueId,
    limits::VhostLimits,
    parameter::{GlobalParameter, Parameter},
    permission::{Permission, TopicPermission},
    policy::Policy,
    user::User,
};
use crate::protocol::field::FieldTable;

/// A name of a vhost, exchange or queue: UTF-8, at most 255 bytes; shared, because every binding repeats it.
pub type Name = Arc<str>;

/// A vhost as created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostDefinition {
    pub name: Name,
    pub description: String,
    pub tags: Vec<String>,
    /// What a queue becomes that asks for no type: `classic`, `quorum` or `stream`; `None` is the broker's default.
    pub default_queue_type: Option<String>,
    pub limits: VhostLimits,
    /// It cannot be deleted before this is lifted.
    pub protected: bool,
}

impl VhostDefinition {
    /// One without metadata.
    pub fn new(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            tags: Vec::new(),
            default_queue_type: None,
            limits: VhostLimits::default(),
            protected: false,
        }
    }
}

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

/// Anything that can be declared or set and must survive a restart.
#[derive(Clone, Debug, PartialEq)]
pub enum Definition {
    Vhost(VhostDefinition),
    Exchange(ExchangeDefinition),
    Queue(QueueDefinition),
    Binding(BindingDefinition),
    User(User),
    Permission(Permission),
    TopicPermission(TopicPermission),
    Policy(Policy),
    Parameter(Parameter),
    GlobalParameter(GlobalParameter),
}
