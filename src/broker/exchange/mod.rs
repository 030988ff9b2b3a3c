//! Exchanges: which bindings a message matches. One file per type; this one holds what they share.

mod consistent_hash;
mod deduplication;
mod direct;
mod fanout;
mod hash;
mod headers;
mod matcher;
mod modulus_hash;
mod random;
mod recent_history;
mod topic;

use std::collections::HashMap;

use smallvec::SmallVec;

use self::matcher::Matcher;
pub use self::matcher::{TYPES, check_type};
use crate::broker::{
    definition::{BindingDefinition, Destination, ExchangeDefinition, Name},
    delay,
    error::BrokerError,
    ids::Timestamp,
    message::Message,
};
use crate::protocol::{
    field::{FieldTable, FieldValue},
    properties::RawProperties,
};

/// A queue as routing sees it: cheap to clone, ordered by its id so that several can be locked without deadlock.
pub trait QueueRef: Clone + Ord {}
impl<T: Clone + Ord> QueueRef for T {}

/// Where a matching binding leads: a queue itself, or another exchange by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop<Q> {
    Queue(Q),
    Exchange(Name),
}

/// What the matchers collect. A message seldom matches more than a few bindings.
pub type Hops<Q> = SmallVec<[Hop<Q>; 4]>;

/// The parts of a message that routing may read.
pub struct Routable<'a> {
    /// The key of the publish, then those of CC and BCC.
    pub keys: &'a [&'a [u8]],
    pub properties: RawProperties<'a>,
    /// For types that forget.
    pub now: Timestamp,
}

/// A binding's identity besides its source. Arguments by content in canonical order (amqp-behaviour 3.8).
#[derive(Clone, PartialEq, Eq, Hash)]
struct BindingKey {
    destination: Destination,
    routing_key: Name,
    arguments: Vec<u8>,
}

impl BindingKey {
    fn new(destination: &Destination, routing_key: &Name, arguments: &FieldTable) -> Self {
        let mut encoded = bytes::BytesMut::new();
        arguments.canonical().encode(&mut encoded);
        Self {
            destination: destination.clone(),
            routing_key: Name::clone(routing_key),
            arguments: encoded.to_vec(),
        }
    }
}

/// One exchange: its definition, its bindings, and the index its type routes by.
pub struct Exchange<Q> {
    definition: ExchangeDefinition,
    alternate: Option<Name>,
    /// From a policy; the argument wins.
    policy_alternate: Option<Name>,
    bindings: HashMap<BindingKey, BindingDefinition>,
    matcher: Matcher<Q>,
}

impl<Q: QueueRef> Exchange<Q> {
    /// An exchange without bindings.
    ///
    /// # Errors
    /// [`BrokerError::UnknownExchangeType`], or 406 when the type refuses the arguments.
    pub fn new(definition: ExchangeDefinition) -> Result<Self, BrokerError> {
        let matcher = Matcher::new(&definition)?;
        let alternate = match definition.arguments.get("alternate-exchange") {
            Some(FieldValue::LongString(name)) => Some(Name::from(&*String::from_utf8_lossy(name))),
            _ => None,
        };
        Ok(Self {
            definition,
            alternate,
            policy_alternate: None,
            bindings: HashMap::new(),
            matcher,
        })
    }

    pub fn definition(&self) -> &ExchangeDefinition {
        &self.definition
    }

    /// The exchange tried when this one matches nothing (amqp-behaviour 3.5).
    pub fn alternate(&self) -> Option<&Name> {
        self.alternate.as_ref().or(self.policy_alternate.as_ref())
    }

    /// What policies say about it now.
    pub fn set_policy_alternate(&mut self, alternate: Option<Name>) {
        self.policy_alternate = alternate;
    }

    /// True when it is the source of at least one binding.
    pub fn is_bound(&self) -> bool {
        !self.bindings.is_empty()
    }

    /// Whether exactly this binding exists.
    pub fn has(&self, binding: &BindingDefinition) -> bool {
        let BindingDefinition {
            destination,
            routing_key,
            arguments,
            ..
        } = binding;
        let key = BindingKey::new(destination, routing_key, arguments);
        self.bindings.contains_key(&key)
    }

    /// Its bindings, in no order.
    pub fn bindings(&self) -> impl Iterator<Item = &BindingDefinition> {
        self.bindings.values()
    }

    /// Refuses binding keys and arguments that the type does not understand.
    ///
    /// # Errors
    /// [`BrokerError::InvalidBinding`].
    pub fn check_binding(&self, binding: &BindingDefinition) -> Result<(), BrokerError> {
        self.matcher.check(binding)
    }

    /// Adds a binding; false when the identical one exists. `hop` is the binding's destination as routing needs it.
    pub fn bind(&mut self, binding: BindingDefinition, hop: Hop<Q>) -> bool {
        let key = BindingKey::new(&binding.destination, &binding.routing_key, &binding.arguments);
        if self.bindings.contains_key(&key) {
            return false;
        }
        self.matcher.insert(&binding, hop);
        self.bindings.insert(key, binding);
        true
    }

    /// Removes exactly this binding; `None` when it does not exist.
    pub fn unbind(
        &mut self,
        destination: &Destination,
        routing_key: &Name,
        arguments: &FieldTable,
        hop: &Hop<Q>,
    ) -> Option<BindingDefinition> {
        let binding = self
            .bindings
            .remove(&BindingKey::new(destination, routing_key, arguments))?;
        self.matcher.remove(&binding, hop);
        Some(binding)
    }

    /// Removes every binding to a destination that is going away.
    pub fn unbind_all(&mut self, destination: &Destination, hop: &Hop<Q>) -> Vec<BindingDefinition> {
        let gone: Vec<_> = self
            .bindings
            .extract_if(|key, _| key.destination == *destination)
            .collect();
        gone.into_iter()
            .map(|(_, binding)| {
                self.matcher.remove(&binding, hop);
                binding
            })
            .collect()
    }

    /// True when the routing keys alone decide, and always alike, so that a route can be remembered.
    pub fn is_by_key(&self) -> bool {
        self.matcher.is_by_key()
    }

    /// It is of the type whose messages may wait.
    pub fn may_delay(&self) -> bool {
        &*self.definition.kind == delay::EXCHANGE_TYPE
    }

    /// Whether this message asks to wait here.
    pub fn delays(&self, message: &Routable<'_>) -> bool {
        self.may_delay() && delay::exchange_delay_ms(message.properties).is_some()
    }

    /// Appends the destinations the message goes to; the same one may come more than once.
    pub fn matches(&self, message: &Routable<'_>, hops: &mut Hops<Q>) {
        self.matcher.matches(message, hops);
    }

    /// True when the exchange wants the message for its history: give it to [`Self::keep`] once it is built.
    pub fn keeps(&self, message: &Routable<'_>) -> bool {
        self.matcher.keeps(message)
    }

    pub fn keep(&self, message: &Message) {
        self.matcher.keep(message);
    }

    /// The messages that a new binding is given, oldest first.
    pub fn kept(&self) -> Vec<Message> {
        self.matcher.kept()
    }
}

/// Destinations with how many bindings lead there, so that removing one of two leaves the other.
struct Counted<Q>(Vec<(Hop<Q>, u32)>);

impl<Q> Default for Counted<Q> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<Q: QueueRef> Counted<Q> {
    fn insert(&mut self, hop: Hop<Q>) {
        match self.0.iter_mut().find(|(known, _)| *known == hop) {
            Some((_, count)) => *count += 1,
            None => self.0.push((hop, 1)),
        }
    }

    fn remove(&mut self, hop: &Hop<Q>) {
        let Some(at) = self.0.iter().position(|(known, _)| known == hop) else {
            return;
        };
        if let Some((_, count)) = self.0.get_mut(at) {
            *count -= 1;
            if *count == 0 {
                self.0.swap_remove(at);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn append_to(&self, hops: &mut Hops<Q>) {
        hops.extend(self.0.iter().map(|(hop, _)| hop.clone()));
    }
}

#[cfg(test)]
mod tests;
