//! x-consistent-hash: the binding key is a weight, and a hash of the message chooses one destination by jump
//! consistent hashing over the sum of the weights (amqp-behaviour 3.3). A destination's buckets are a range, not
//! entries, so that a weight costs no memory. The ring follows the order of binding; a restart rebuilds it in the order
//! in which the store gives the bindings back, as RabbitMQ's does.

use super::{
    Hop, Hops, QueueRef, Routable,
    hash::{hash, hash_keys, jump},
};
use crate::broker::{definition::BindingDefinition, error::BrokerError};
use crate::protocol::field::{FieldTable, FieldValue};

/// RabbitMQ 4.3's bound of a weight.
const WEIGHT_MAX: u64 = 10_000;

/// What of a message is hashed.
enum By {
    RoutingKeys,
    Header(Vec<u8>),
    CorrelationId,
    MessageId,
    Timestamp,
}

struct Share<Q> {
    hop: Hop<Q>,
    /// The binding that gave the share: only its removal takes the share back.
    binding: BindingDefinition,
    /// The first bucket behind this share.
    end: u64,
}

pub(super) struct ConsistentHash<Q> {
    by: By,
    ring: Vec<Share<Q>>,
}

impl<Q: QueueRef> ConsistentHash<Q> {
    pub(super) fn new(arguments: &FieldTable) -> Result<Self, BrokerError> {
        let by = match (text(arguments, "hash-header"), text(arguments, "hash-property")) {
            (None, None) => By::RoutingKeys,
            (Some(name), None) => By::Header(name.to_vec()),
            (None, Some(b"correlation_id")) => By::CorrelationId,
            (None, Some(b"message_id")) => By::MessageId,
            (None, Some(b"timestamp")) => By::Timestamp,
            (None, Some(other)) => {
                let other = String::from_utf8_lossy(other);
                return Err(BrokerError::InvalidExchange(format!(
                    "Unsupported property: {other}"
                )));
            }
            (Some(_), Some(_)) => {
                let text = "hash-header and hash-property are mutually exclusive";
                return Err(BrokerError::InvalidExchange(text.to_owned()));
            }
        };
        Ok(Self { by, ring: Vec::new() })
    }

    /// A destination has one share: what it is bound with later is kept as a binding and changes nothing.
    pub(super) fn insert(&mut self, binding: &BindingDefinition, hop: Hop<Q>) {
        if self.ring.iter().any(|share| share.hop == hop) {
            return;
        }
        let end = self.buckets() + weight(&binding.routing_key).unwrap_or(1);
        let binding = binding.clone();
        self.ring.push(Share { hop, binding, end });
    }

    /// The buckets behind the removed share move down.
    pub(super) fn remove(&mut self, binding: &BindingDefinition) {
        let Some(at) = self.ring.iter().position(|share| share.binding == *binding) else {
            return;
        };
        let removed = self.ring.remove(at);
        let begin = at
            .checked_sub(1)
            .and_then(|before| self.ring.get(before))
            .map_or(0, |share| share.end);
        for share in self.ring.iter_mut().skip(at) {
            share.end -= removed.end - begin;
        }
    }

    fn buckets(&self) -> u64 {
        self.ring.last().map_or(0, |share| share.end)
    }

    pub(super) fn matches(&self, message: &Routable<'_>, hops: &mut Hops<Q>) {
        let bucket = jump(self.hash(message), self.buckets());
        let at = self.ring.partition_point(|share| share.end <= bucket);
        hops.extend(self.ring.get(at).map(|share| share.hop.clone()));
    }

    /// Whether the routing keys alone decide.
    pub(super) fn is_by_key(&self) -> bool {
        matches!(self.by, By::RoutingKeys)
    }

    /// A message without the header or property hashes like every other without it.
    fn hash(&self, message: &Routable<'_>) -> u64 {
        let properties = message.properties;
        match &self.by {
            By::RoutingKeys => hash_keys(message.keys),
            By::Header(name) => hash(properties.header(name).map_or(&[][..], |value| value.encoded())),
            By::CorrelationId => hash(properties.correlation_id().ok().flatten().unwrap_or_default()),
            By::MessageId => hash(properties.message_id().ok().flatten().unwrap_or_default()),
            By::Timestamp => match properties.timestamp().ok().flatten() {
                Some(seconds) => hash(&seconds.to_be_bytes()),
                None => hash(&[]),
            },
        }
    }
}

fn text<'a>(arguments: &'a FieldTable, name: &str) -> Option<&'a [u8]> {
    match arguments.get(name) {
        Some(FieldValue::LongString(text)) => Some(text),
        _ => None,
    }
}

/// Refuses keys that are no weight.
pub(super) fn check(routing_key: &str) -> Result<(), BrokerError> {
    weight(routing_key).map(drop)
}

fn weight(key: &str) -> Result<u64, BrokerError> {
    let refuse = |text: String| Err(BrokerError::InvalidBinding(text));
    let (negative, digits) = match key.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, key.strip_prefix('+').unwrap_or(key)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse(format!("The binding key must be an integer: <<\"{key}\">>"));
    }
    // More digits than a number holds are too large in any case.
    match digits.parse::<u64>().unwrap_or(u64::MAX) {
        0 => refuse("The binding key must be greater than 0".to_owned()),
        _ if negative => refuse("The binding key must be greater than 0".to_owned()),
        weight if weight <= WEIGHT_MAX => Ok(weight),
        _ => refuse(format!("The binding key must not exceed {WEIGHT_MAX}")),
    }
}
