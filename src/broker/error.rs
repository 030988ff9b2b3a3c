//! Everything the broker can refuse, with the reply code and the text a client is told.
//! Texts are RabbitMQ's, because tools parse them (amqp-behaviour sections 2 to 5).

use crate::broker::{definition::Name, permission::Verb};
use crate::protocol::reply_code::ReplyCode;

/// What kind of resource a text speaks of: rendered as RabbitMQ does, `queue 'q' in vhost '/'`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Queue,
    Exchange,
}

/// A resource as texts name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: Kind,
    pub name: String,
    pub vhost: Name,
}

impl Resource {
    pub fn queue(name: &str, vhost: &Name) -> Self {
        Self {
            kind: Kind::Queue,
            name: name.to_owned(),
            vhost: Name::clone(vhost),
        }
    }

    pub fn exchange(name: &str, vhost: &Name) -> Self {
        Self {
            kind: Kind::Exchange,
            name: name.to_owned(),
            vhost: Name::clone(vhost),
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Queue => "queue",
            Kind::Exchange => "exchange",
        };
        write!(out, "{kind} '{}' in vhost '{}'", self.name, self.vhost)
    }
}

/// A refusal. The text is what follows `NAME - ` in the close method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    #[error("no {0}")]
    NotFound(Resource),
    #[error("no previously declared queue")]
    NoPreviousQueue,
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    #[error("{kind} name '{name}' contains reserved prefix 'amq.*'")]
    ReservedName { kind: &'static str, name: String },
    #[error("deletion of system {0} not allowed")]
    SystemExchange(Resource),
    #[error("cannot publish to internal {0}")]
    InternalExchange(Resource),
    #[error("unknown exchange type '{0}'")]
    UnknownExchangeType(String),
    #[error("inequivalent arg '{field}' for {resource}: received {received} but current is {current}")]
    Inequivalent {
        field: String,
        resource: Resource,
        received: String,
        current: String,
    },
    #[error(
        "cannot obtain exclusive access to locked {0}. It could be originally declared on another connection \
         or the exclusive property value does not match that of the original declaration."
    )]
    Locked(Resource),
    #[error(
        "{0} is damaged on disk and cannot be read; the broker's log names the place, a purge gives it up"
    )]
    Damaged(Resource),
    #[error(
        "cannot obtain access to locked {0}. basic.get operations are not supported by quorum queues with single active \
         consumer"
    )]
    SingleActiveGet(Resource),
    #[error("{0} in exclusive use")]
    ExclusiveUse(Resource),
    #[error("{0} in use")]
    InUse(Resource),
    #[error("{0} not empty")]
    NotEmpty(Resource),
    #[error("invalid arg '{argument}' for {resource}: {detail}")]
    InvalidArgument {
        argument: String,
        resource: Resource,
        detail: String,
    },
    /// An argument that only other types of queue know.
    #[error("invalid arg '{argument}' for {resource} of queue type {module}")]
    ForeignArgument {
        argument: &'static str,
        resource: Resource,
        module: &'static str,
    },
    #[error("invalid property '{property}' for {resource}")]
    InvalidProperty {
        property: &'static str,
        resource: Resource,
    },
    #[error("Invalid argument, 'x-delayed-type' must be an existing exchange type")]
    InvalidDelayedType,
    #[error("Queue name prefix '{0}' exceeds the 64-byte limit")]
    NamePrefix(String),
    #[error("Cannot declare a server-named queue for type {0}")]
    ServerNamed(&'static str),
    #[error("invalid type '{found}' for arg '{argument}' in {resource}")]
    InvalidArgumentType {
        argument: &'static str,
        resource: Resource,
        found: &'static str,
    },
    #[error("{0}")]
    InvalidBinding(String),
    #[error("{0}")]
    InvalidExchange(String),
    #[error("unknown delivery tag {0}")]
    UnknownDeliveryTag(u64),
    #[error(
        "delivery acknowledgement on channel {channel} timed out. Timeout value used: {timeout_ms} ms. This timeout \
         value can be configured, see consumers doc guide to learn more"
    )]
    AckTimeout { channel: u16, timeout_ms: i64 },
    #[error("attempt to reuse consumer tag '{0}'")]
    ConsumerTagReused(String),
    #[error("reply consumer cannot acknowledge")]
    ReplyConsumerAcks,
    #[error("reply consumer already set")]
    ReplyConsumerSet,
    #[error("fast reply consumer does not exist")]
    ReplyConsumerMissing,
    #[error("cannot bind or unbind to a volatile (direct reply-to) queue")]
    ReplyBinding,
    #[error("message size {size} is larger than configured max size {max}")]
    MessageTooLarge { size: u64, max: u64 },
    #[error("invalid expiration '{value}': {detail}")]
    InvalidExpiration { value: String, detail: String },
    #[error("user_id property set to '{claimed}' but authenticated user was '{user}'")]
    ForeignUserId { claimed: String, user: String },
    #[error("invalid message: {{unacceptable_type_in_header,\"{header}\",{found}}}")]
    UnacceptableHeader {
        header: &'static str,
        found: &'static str,
    },
    #[error("invalid message: {0}")]
    InvalidMessage(String),
    #[error("{0}")]
    NotImplemented(String),
    #[error("cannot switch from {from} to {to} mode")]
    ModeSwitch { from: &'static str, to: &'static str },
    #[error("channel is not transactional")]
    NotTransactional,
    #[error("{verb} access to {resource} refused for user '{user}'")]
    AccessRefused {
        verb: Verb,
        resource: Resource,
        user: String,
    },
    #[error(
        "{verb} access to topic '{key}' in exchange '{exchange}' in vhost '{vhost}' refused for user '{user}'"
    )]
    TopicRefused {
        verb: Verb,
        key: String,
        exchange: String,
        vhost: Name,
        user: String,
    },
    #[error("cannot declare queue '{queue}': queue limit in vhost '{vhost}' ({limit}) is reached")]
    VhostQueueLimit { queue: String, vhost: Name, limit: u64 },
    #[error("cannot declare queue '{queue}': queue limit in cluster ({limit}) is reached")]
    ClusterQueueLimit { queue: String, limit: u64 },
    #[error("cannot declare {exchange}: exchange limit of {limit} is reached")]
    ExchangeLimit { exchange: Resource, limit: u64 },
    #[error("reached maximum ({0}) of consumers per channel")]
    ConsumerLimit(u64),
    #[error("vhost {0} not found")]
    VhostGone(Name),
    #[error(
        "Feature `{0}` is deprecated.\nIts use is not permitted per the configuration (overriding the default, which \
         is permitted):\n  deprecated_features.permit.{0} = false"
    )]
    DeprecatedFeature(&'static str),
    /// Ours: no transaction may fill the memory.
    #[error("transaction of more than {0} bytes")]
    TransactionTooLarge(usize),
    /// A queue refused a message of the transaction; the others took theirs.
    #[error("partial tx completion")]
    PartialCommit,
    #[error("the message store has failed: the broker is stopping and confirms nothing more")]
    StoreFailed,
}

impl BrokerError {
    /// The code a client is told. No `_` arm, so that a new error has to choose one.
    pub fn reply_code(&self) -> ReplyCode {
        match self {
            Self::NotFound(_) | Self::NoPreviousQueue => ReplyCode::NotFound,
            Self::DefaultExchange
            | Self::ReservedName { .. }
            | Self::SystemExchange(_)
            | Self::InternalExchange(_)
            | Self::ReplyBinding
            | Self::ExclusiveUse(_)
            | Self::AccessRefused { .. }
            | Self::TopicRefused { .. } => ReplyCode::AccessRefused,
            Self::Locked(_) | Self::SingleActiveGet(_) => ReplyCode::ResourceLocked,
            Self::UnknownExchangeType(_)
            | Self::Inequivalent { .. }
            | Self::InUse(_)
            | Self::NotEmpty(_)
            | Self::InvalidArgument { .. }
            | Self::ForeignArgument { .. }
            | Self::InvalidProperty { .. }
            | Self::ServerNamed(_)
            | Self::NamePrefix(_)
            | Self::InvalidDelayedType
            | Self::InvalidArgumentType { .. }
            | Self::InvalidBinding(_)
            | Self::InvalidExchange(_)
            | Self::ReplyConsumerAcks
            | Self::ReplyConsumerSet
            | Self::ReplyConsumerMissing
            | Self::InvalidMessage(_)
            | Self::UnknownDeliveryTag(_)
            | Self::AckTimeout { .. }
            | Self::MessageTooLarge { .. }
            | Self::InvalidExpiration { .. }
            | Self::ForeignUserId { .. }
            | Self::UnacceptableHeader { .. }
            | Self::ModeSwitch { .. }
            | Self::VhostQueueLimit { .. }
            | Self::ClusterQueueLimit { .. }
            | Self::ExchangeLimit { .. }
            | Self::NotTransactional
            | Self::Damaged(_)
            | Self::TransactionTooLarge(_)
            | Self::PartialCommit => ReplyCode::PreconditionFailed,
            Self::ConsumerTagReused(_) | Self::ConsumerLimit(_) | Self::VhostGone(_) => ReplyCode::NotAllowed,
            Self::NotImplemented(_) => ReplyCode::NotImplemented,
            Self::StoreFailed | Self::DeprecatedFeature(_) => ReplyCode::InternalError,
        }
    }
}
