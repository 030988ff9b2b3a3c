//! The index an exchange routes by: one variant per type, and the questions every type answers.

use super::{
    Hop, Hops, QueueRef, Routable, consistent_hash, consistent_hash::ConsistentHash,
    deduplication::Deduplication, direct::Direct, fanout::Fanout, hash::hash, headers, headers::Headers,
    modulus_hash::ModulusHash, random, random::Random, recent_history::RecentHistory, topic, topic::Topic,
};
use crate::broker::{
    definition::{BindingDefinition, ExchangeDefinition},
    delay,
    error::BrokerError,
    message::Message,
};
use crate::protocol::field::FieldValue;

/// The exchange types every vhost offers.
pub const TYPES: [&str; 11] = [
    "direct",
    "fanout",
    "topic",
    "headers",
    "x-consistent-hash",
    "x-random",
    "x-local-random",
    "x-modulus-hash",
    "x-recent-history",
    "x-message-deduplication",
    delay::EXCHANGE_TYPE,
];

/// Refuses a type that is none of [`TYPES`].
///
/// # Errors
/// [`BrokerError::UnknownExchangeType`].
pub fn check_type(kind: &str) -> Result<(), BrokerError> {
    if TYPES.contains(&kind) {
        Ok(())
    } else {
        Err(BrokerError::UnknownExchangeType(kind.to_owned()))
    }
}

pub(super) enum Matcher<Q> {
    Direct(Direct<Q>),
    Fanout(Fanout<Q>),
    Topic(Topic<Q>),
    Headers(Headers<Q>),
    ConsistentHash(ConsistentHash<Q>),
    Random(Random<Q>),
    LocalRandom(Random<Q>),
    ModulusHash(ModulusHash<Q>),
    RecentHistory(RecentHistory<Q>),
    Deduplication(Deduplication<Q>),
}

impl<Q: QueueRef> Matcher<Q> {
    /// An empty index of the definition's type.
    ///
    /// # Errors
    /// [`BrokerError::UnknownExchangeType`], or the type refuses the arguments.
    pub(super) fn new(definition: &ExchangeDefinition) -> Result<Self, BrokerError> {
        let arguments = &definition.arguments;
        let seed = || hash(definition.name.as_bytes());
        Ok(match &*definition.kind {
            "direct" => Self::Direct(Direct::default()),
            "fanout" => Self::Fanout(Fanout::default()),
            "topic" => Self::Topic(Topic::default()),
            "headers" => Self::Headers(Headers::default()),
            "x-consistent-hash" => Self::ConsistentHash(ConsistentHash::new(arguments)?),
            "x-random" => Self::Random(Random::new(seed())),
            "x-local-random" => Self::LocalRandom(Random::new(seed())),
            "x-modulus-hash" => Self::ModulusHash(ModulusHash::default()),
            "x-recent-history" => Self::RecentHistory(RecentHistory::new(arguments)?),
            "x-message-deduplication" => Self::Deduplication(Deduplication::new(arguments)?),
            delay::EXCHANGE_TYPE => return Self::delayed(definition),
            other => return Err(BrokerError::UnknownExchangeType(other.to_owned())),
        })
    }

    /// An exchange that delays routes what is due as another type does, which its arguments name.
    fn delayed(definition: &ExchangeDefinition) -> Result<Self, BrokerError> {
        let kind = match definition.arguments.get("x-delayed-type") {
            Some(FieldValue::LongString(kind)) => std::str::from_utf8(kind).ok(),
            _ => None,
        };
        let kind = kind.filter(|kind| TYPES.contains(kind) && *kind != delay::EXCHANGE_TYPE);
        let kind = kind.ok_or(BrokerError::InvalidDelayedType)?;
        Self::new(&ExchangeDefinition {
            kind: kind.into(),
            ..definition.clone()
        })
    }

    /// Refuses binding keys and arguments that the type does not understand.
    pub(super) fn check(&self, binding: &BindingDefinition) -> Result<(), BrokerError> {
        match self {
            Self::Topic(_) => topic::check(&binding.routing_key),
            Self::Headers(_) => headers::check(&binding.arguments),
            Self::ConsistentHash(_) => consistent_hash::check(&binding.routing_key),
            Self::LocalRandom(_) => random::check_local(binding),
            Self::Direct(_)
            | Self::Fanout(_)
            | Self::Random(_)
            | Self::ModulusHash(_)
            | Self::RecentHistory(_)
            | Self::Deduplication(_) => Ok(()),
        }
    }

    pub(super) fn insert(&mut self, binding: &BindingDefinition, hop: Hop<Q>) {
        match self {
            Self::Direct(direct) => direct.insert(binding.routing_key.as_bytes(), hop),
            Self::Fanout(fanout) => fanout.insert(hop),
            Self::Topic(topic) => topic.insert(binding.routing_key.as_bytes(), hop),
            Self::Headers(headers) => headers.insert(&binding.arguments, hop),
            Self::ConsistentHash(ring) => ring.insert(binding, hop),
            Self::Random(random) | Self::LocalRandom(random) => random.insert(hop),
            Self::ModulusHash(modulus) => modulus.insert(binding, hop),
            Self::RecentHistory(history) => history.insert(hop),
            Self::Deduplication(deduplication) => deduplication.insert(hop),
        }
    }

    pub(super) fn remove(&mut self, binding: &BindingDefinition, hop: &Hop<Q>) {
        match self {
            Self::Direct(direct) => direct.remove(binding.routing_key.as_bytes(), hop),
            Self::Fanout(fanout) => fanout.remove(hop),
            Self::Topic(topic) => topic.remove(binding.routing_key.as_bytes(), hop),
            Self::Headers(headers) => headers.remove(&binding.arguments, hop),
            Self::ConsistentHash(ring) => ring.remove(binding),
            Self::Random(random) | Self::LocalRandom(random) => random.remove(hop),
            Self::ModulusHash(modulus) => modulus.remove(binding),
            Self::RecentHistory(history) => history.remove(hop),
            Self::Deduplication(deduplication) => deduplication.remove(hop),
        }
    }

    /// Appends the destinations the message goes to; the same one may come more than once.
    pub(super) fn matches(&self, message: &Routable<'_>, hops: &mut Hops<Q>) {
        match self {
            Self::Direct(direct) => message.keys.iter().for_each(|key| direct.matches(key, hops)),
            Self::Fanout(fanout) => fanout.matches(hops),
            Self::Topic(topic) => message.keys.iter().for_each(|key| topic.matches(key, hops)),
            Self::Headers(headers) => headers.matches(message, hops),
            Self::ConsistentHash(ring) => ring.matches(message, hops),
            Self::Random(random) | Self::LocalRandom(random) => random.matches(hops),
            Self::ModulusHash(modulus) => modulus.matches(message, hops),
            Self::RecentHistory(history) => history.matches(hops),
            Self::Deduplication(deduplication) => deduplication.matches(message, hops),
        }
    }

    /// True when the routing keys alone decide, and always alike, so that a route can be remembered.
    pub(super) fn is_by_key(&self) -> bool {
        match self {
            Self::Direct(_) | Self::Fanout(_) | Self::Topic(_) | Self::ModulusHash(_) => true,
            Self::ConsistentHash(ring) => ring.is_by_key(),
            Self::Headers(_)
            | Self::Random(_)
            | Self::LocalRandom(_)
            | Self::RecentHistory(_)
            | Self::Deduplication(_) => false,
        }
    }

    /// True when the type wants to keep the message once it is built.
    pub(super) fn keeps(&self, message: &Routable<'_>) -> bool {
        matches!(self, Self::RecentHistory(_)) && !RecentHistory::<Q>::skips(message)
    }

    pub(super) fn keep(&self, message: &Message) {
        if let Self::RecentHistory(history) = self {
            history.keep(message);
        }
    }

    /// What a new binding is given, oldest first.
    pub(super) fn kept(&self) -> Vec<Message> {
        match self {
            Self::RecentHistory(history) => history.kept(),
            _ => Vec::new(),
        }
    }
}
