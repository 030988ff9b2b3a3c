//! One vhost's exchanges, queues and bindings: what exists, what a declaration may change, where a message goes.
//! Queues are opaque handles here; the server keeps their state.

use std::collections::{HashMap, HashSet};

use ahash::AHashMap;
use bytes::Bytes;
use smallvec::SmallVec;

use crate::broker::{
    definition::{BindingDefinition, Destination, ExchangeDefinition, Name},
    error::{BrokerError, Resource},
    exchange::{Exchange, Hop, Hops, QueueRef, Routable, check_type},
    ids::Timestamp,
    message::Message,
    queue::arguments::{inequivalent, inequivalent_flag},
};
use crate::protocol::{
    field::{FieldTable, FieldValue},
    properties::RawProperties,
};

/// The queues a message goes to, ascending and each once.
pub type Route<Q> = SmallVec<[Q; 4]>;

/// What routing found besides queues.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// The keys alone decided, and will decide alike until the topology changes: the route can be remembered.
    pub by_key: bool,
    /// Exchanges on the way that want the message for their history; see [`Topology::keep`].
    pub keepers: SmallVec<[Name; 1]>,
    /// Exchanges on the way that hold the message back, as it asks for: it goes on from there when it is due.
    pub delaying: SmallVec<[Name; 1]>,
}

/// The predeclared exchanges of every vhost beside the default one (amqp-behaviour 3.1).
const PREDECLARED: [(&str, &str); 6] = [
    ("amq.direct", "direct"),
    ("amq.fanout", "fanout"),
    ("amq.topic", "topic"),
    ("amq.headers", "headers"),
    ("amq.match", "headers"),
    ("amq.rabbitmq.trace", "topic"),
];

/// What a deletion took with it.
#[derive(Default, Debug)]
pub struct Removals {
    pub bindings: Vec<BindingDefinition>,
    /// Auto-delete exchanges that lost their last binding, and the exchange itself when one was deleted.
    pub exchanges: Vec<ExchangeDefinition>,
}

pub struct Topology<Q> {
    vhost: Name,
    exchanges: AHashMap<Box<[u8]>, Exchange<Q>>,
    queues: AHashMap<Box<[u8]>, Q>,
    /// Which exchanges have bindings to a destination, so that its deletion need not search all.
    sources: HashMap<Destination, HashSet<Name>>,
}

impl<Q: QueueRef> Topology<Q> {
    /// A vhost with the predeclared exchanges.
    pub fn new(vhost: Name) -> Self {
        let mut topology = Self {
            vhost,
            exchanges: AHashMap::new(),
            queues: AHashMap::new(),
            sources: HashMap::new(),
        };
        for (name, kind) in PREDECLARED {
            let definition = ExchangeDefinition {
                vhost: Name::clone(&topology.vhost),
                name: name.into(),
                kind: kind.into(),
                durable: true,
                auto_delete: false,
                internal: name == "amq.rabbitmq.trace",
                arguments: FieldTable::default(),
            };
            if let Ok(exchange) = Exchange::new(definition) {
                topology.exchanges.insert(name.as_bytes().into(), exchange);
            }
        }
        topology
    }

    pub fn vhost(&self) -> &Name {
        &self.vhost
    }

    pub fn queue(&self, name: &[u8]) -> Option<&Q> {
        self.queues.get(name)
    }

    pub fn queues(&self) -> impl Iterator<Item = &Q> {
        self.queues.values()
    }

    pub fn exchange(&self, name: &str) -> Option<&Exchange<Q>> {
        self.exchanges.get(name.as_bytes())
    }

    pub fn exchanges(&self) -> impl Iterator<Item = &Exchange<Q>> {
        self.exchanges.values()
    }

    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    pub fn exchange_count(&self) -> usize {
        self.exchanges.len()
    }

    /// Tells every exchange which alternate exchange its policy gives it.
    pub fn set_policy_alternates(&mut self, alternate_of: impl Fn(&str) -> Option<Name>) {
        for exchange in self.exchanges.values_mut() {
            let alternate = alternate_of(&exchange.definition().name);
            exchange.set_policy_alternate(alternate);
        }
    }

    /// The same for one exchange.
    pub fn set_policy_alternate(&mut self, name: &str, alternate: Option<Name>) {
        if let Some(exchange) = self.exchanges.get_mut(name.as_bytes()) {
            exchange.set_policy_alternate(alternate);
        }
    }

    pub fn add_queue(&mut self, name: &str, queue: Q) {
        self.queues.insert(name.as_bytes().into(), queue);
    }

    /// Removes a queue with its bindings, and auto-delete exchanges that end unbound.
    pub fn remove_queue(&mut self, name: &str) -> Option<(Q, Removals)> {
        let queue = self.queues.remove(name.as_bytes())?;
        let mut removals = Removals::default();
        self.unbind_destination(
            &Destination::Queue(name.into()),
            &Hop::Queue(queue.clone()),
            &mut removals,
        );
        Some((queue, removals))
    }

    /// Declares an exchange; true when it is new (amqp-behaviour 2.2).
    ///
    /// # Errors
    /// Unknown type, reserved name, wrong `alternate-exchange` or other arguments, or an inequivalent redeclaration.
    pub fn declare_exchange(&mut self, definition: ExchangeDefinition) -> Result<bool, BrokerError> {
        let resource = Resource::exchange(&definition.name, &self.vhost);
        check_type(&definition.kind)?;
        if definition.name.is_empty() {
            return Err(BrokerError::DefaultExchange);
        }
        if let Some(existing) = self.exchange(&definition.name) {
            check_equivalent(existing.definition(), &definition, &resource)?;
            return Ok(false);
        }
        if definition.name.starts_with("amq.") {
            return Err(BrokerError::ReservedName {
                kind: "exchange",
                name: definition.name.to_string(),
            });
        }
        if let Some(value) = definition.arguments.get("alternate-exchange")
            && !matches!(value, FieldValue::LongString(_))
        {
            let found = value.type_name();
            return Err(BrokerError::InvalidArgumentType {
                argument: "alternate-exchange",
                resource,
                found,
            });
        }
        let name: Box<[u8]> = definition.name.as_bytes().into();
        self.exchanges.insert(name, Exchange::new(definition)?);
        Ok(true)
    }

    /// Puts back an exchange that the store kept.
    ///
    /// # Errors
    /// [`BrokerError::UnknownExchangeType`].
    pub fn restore_exchange(&mut self, definition: ExchangeDefinition) -> Result<(), BrokerError> {
        let name: Box<[u8]> = definition.name.as_bytes().into();
        self.exchanges.insert(name, Exchange::new(definition)?);
        Ok(())
    }

    /// A passive declaration.
    ///
    /// # Errors
    /// 404 when it does not exist, 403 for the default exchange.
    pub fn check_exchange(&self, name: &str) -> Result<(), BrokerError> {
        if name.is_empty() {
            return Err(BrokerError::DefaultExchange);
        }
        self.exchange(name)
            .map(|_| ())
            .ok_or_else(|| self.no_exchange(name))
    }

    /// Deletes an exchange; a missing one counts as deleted.
    ///
    /// # Errors
    /// 403 for predeclared ones, 406 when `if_unused` and it is the source of a binding.
    pub fn delete_exchange(&mut self, name: &str, if_unused: bool) -> Result<Removals, BrokerError> {
        if name.is_empty() {
            return Err(BrokerError::DefaultExchange);
        }
        let resource = Resource::exchange(name, &self.vhost);
        if name.starts_with("amq.") {
            return Err(BrokerError::SystemExchange(resource));
        }
        let mut removals = Removals::default();
        if let Some(exchange) = self.exchange(name) {
            if if_unused && exchange.is_bound() {
                return Err(BrokerError::InUse(resource));
            }
            self.drop_exchange(name, &mut removals);
        }
        Ok(removals)
    }

    /// Removes an exchange with the bindings from and to it. Cascades are as long as chains of auto-delete exchanges;
    /// a loop replaces recursion, because clients build the chains.
    fn drop_exchange(&mut self, name: &str, removals: &mut Removals) {
        let mut doomed = vec![name.to_owned()];
        while let Some(name) = doomed.pop() {
            let Some(exchange) = self.exchanges.remove(name.as_bytes()) else {
                continue;
            };
            for binding in exchange.bindings() {
                self.forget_source(&binding.destination, &binding.source);
                removals.bindings.push(binding.clone());
            }
            removals.exchanges.push(exchange.definition().clone());
            let shared: Name = name.as_str().into();
            let destination = Destination::Exchange(Name::clone(&shared));
            doomed.extend(self.unbind_from_all(&destination, &Hop::Exchange(shared), removals));
        }
    }

    fn unbind_destination(&mut self, destination: &Destination, hop: &Hop<Q>, removals: &mut Removals) {
        for name in self.unbind_from_all(destination, hop, removals) {
            self.drop_exchange(&name, removals);
        }
    }

    /// Returns the auto-delete exchanges that are unbound now.
    fn unbind_from_all(
        &mut self,
        destination: &Destination,
        hop: &Hop<Q>,
        removals: &mut Removals,
    ) -> Vec<String> {
        let mut unbound = Vec::new();
        for source in self.sources.remove(destination).unwrap_or_default() {
            let Some(exchange) = self.exchanges.get_mut(source.as_bytes()) else {
                continue;
            };
            removals.bindings.extend(exchange.unbind_all(destination, hop));
            if exchange.definition().auto_delete && !exchange.is_bound() {
                unbound.push(source.to_string());
            }
        }
        unbound
    }

    fn forget_source(&mut self, destination: &Destination, source: &Name) {
        if let Some(sources) = self.sources.get_mut(destination) {
            sources.remove(source);
            if sources.is_empty() {
                self.sources.remove(destination);
            }
        }
    }

    /// Adds a binding; true when it is new. Checks in RabbitMQ's order: default exchange, source, destination, key.
    ///
    /// # Errors
    /// 403, 404 or 406 accordingly.
    pub fn bind(&mut self, binding: BindingDefinition) -> Result<bool, BrokerError> {
        refuse_default(&binding)?;
        let Some(source) = self.exchange(&binding.source) else {
            return Err(self.no_exchange(&binding.source));
        };
        let hop = self.hop(&binding.destination)?;
        source.check_binding(&binding)?;
        self.sources
            .entry(binding.destination.clone())
            .or_default()
            .insert(Name::clone(&binding.source));
        let name = Name::clone(&binding.source);
        Ok(self
            .exchanges
            .get_mut(name.as_bytes())
            .is_some_and(|source| source.bind(binding, hop)))
    }

    /// Whether exactly this binding exists.
    pub fn is_bound(&self, binding: &BindingDefinition) -> bool {
        let source = self.exchange(&binding.source);
        source.is_some_and(|source| source.has(binding))
    }

    /// Removes a binding; what is missing counts as removed. Returns what went, an auto-delete source included.
    ///
    /// # Errors
    /// 403 for the default exchange.
    pub fn unbind(&mut self, binding: &BindingDefinition) -> Result<Removals, BrokerError> {
        refuse_default(binding)?;
        let mut removals = Removals::default();
        let Ok(hop) = self.hop(&binding.destination) else {
            return Ok(removals);
        };
        let Some(source) = self.exchanges.get_mut(binding.source.as_bytes()) else {
            return Ok(removals);
        };
        let gone = source.unbind(
            &binding.destination,
            &binding.routing_key,
            &binding.arguments,
            &hop,
        );
        let Some(gone) = gone else { return Ok(removals) };
        removals.bindings.push(gone);
        let elsewhere = source
            .bindings()
            .any(|other| other.destination == binding.destination);
        let unused = source.definition().auto_delete && !source.is_bound();
        if !elsewhere {
            self.forget_source(&binding.destination, &binding.source);
        }
        if unused {
            self.drop_exchange(&binding.source, &mut removals);
        }
        Ok(removals)
    }

    fn hop(&self, destination: &Destination) -> Result<Hop<Q>, BrokerError> {
        match destination {
            Destination::Queue(name) => self
                .queue(name.as_bytes())
                .map(|queue| Hop::Queue(queue.clone()))
                .ok_or_else(|| BrokerError::NotFound(Resource::queue(name, &self.vhost))),
            Destination::Exchange(name) if self.exchange(name).is_some() => {
                Ok(Hop::Exchange(Name::clone(name)))
            }
            Destination::Exchange(name) => Err(self.no_exchange(name)),
        }
    }

    fn no_exchange(&self, name: &str) -> BrokerError {
        BrokerError::NotFound(Resource::exchange(name, &self.vhost))
    }

    /// Where a client's publish to `exchange` goes (amqp-behaviour 3.2).
    ///
    /// # Errors
    /// 404 for a missing exchange, 403 for an internal one.
    pub fn route(
        &self,
        exchange: &[u8],
        message: &Routable<'_>,
        route: &mut Route<Q>,
    ) -> Result<Routing, BrokerError> {
        self.check_publish(exchange)?;
        Ok(self.route_inside(exchange, message, route).unwrap_or_default())
    }

    /// Whether a client may publish to this exchange.
    ///
    /// # Errors
    /// As [`Self::route`].
    pub fn check_publish(&self, exchange: &[u8]) -> Result<(), BrokerError> {
        if exchange.is_empty() {
            return Ok(());
        }
        let resource = || Resource::exchange(&String::from_utf8_lossy(exchange), &self.vhost);
        match self.exchanges.get(exchange) {
            None => Err(BrokerError::NotFound(resource())),
            Some(found) if found.definition().internal => Err(BrokerError::InternalExchange(resource())),
            Some(_) => Ok(()),
        }
    }

    /// Where a message of the broker's own goes, a dead letter or an event: internal exchanges take it too. `None` when
    /// there is no such exchange.
    pub fn route_inside(
        &self,
        exchange: &[u8],
        message: &Routable<'_>,
        route: &mut Route<Q>,
    ) -> Option<Routing> {
        let routing = if exchange.is_empty() {
            self.route_by_name(message, route);
            Routing {
                by_key: true,
                ..Routing::default()
            }
        } else {
            self.walk(self.exchanges.get(exchange)?, message, route)
        };
        route.sort_unstable();
        route.dedup();
        Some(routing)
    }

    /// The default exchange: every queue is bound by its name.
    fn route_by_name(&self, message: &Routable<'_>, route: &mut Route<Q>) {
        route.extend(
            message
                .keys
                .iter()
                .filter_map(|key| self.queues.get(*key).cloned()),
        );
    }

    /// Where the broker's own publish goes, by each of its keys: internal exchanges take it, a missing one drops it. Gives
    /// the exchanges that hold it back.
    pub fn route_from_within(
        &self,
        exchange: &[u8],
        keys: &[Bytes],
        message: &Message,
        now: Timestamp,
        route: &mut Route<Q>,
    ) -> SmallVec<[Name; 1]> {
        let keys: SmallVec<[&[u8]; 4]> = keys.iter().map(|key| &**key).collect();
        let routable = Routable {
            keys: &keys,
            properties: RawProperties::new(message.properties()),
            now,
        };
        let first = std::str::from_utf8(exchange)
            .ok()
            .and_then(|name| self.exchange(name));
        if let Some(first) = first.filter(|first| first.delays(&routable)) {
            return [Name::clone(&first.definition().name)].into_iter().collect();
        }
        let routing = self.route_inside(exchange, &routable, route).unwrap_or_default();
        self.keep(&routing.keepers, message);
        routing.delaying
    }

    /// Follows bindings from exchange to exchange, each visited once, so that cycles end.
    fn walk(&self, first: &Exchange<Q>, message: &Routable<'_>, route: &mut Route<Q>) -> Routing {
        let mut routing = Routing {
            by_key: true,
            ..Routing::default()
        };
        let mut hops = Hops::new();
        let mut seen: SmallVec<[&str; 4]> = SmallVec::new();
        seen.push(&first.definition().name);
        let mut at = 0;
        while let Some(exchange) = seen.get(at).and_then(|name| self.exchange(name)) {
            at += 1;
            routing.by_key &= exchange.is_by_key();
            if exchange.keeps(message) {
                routing.keepers.push(Name::clone(&exchange.definition().name));
            }
            exchange.matches(message, &mut hops);
            if hops.is_empty()
                && let Some(alternate) = exchange.alternate()
            {
                hops.push(Hop::Exchange(Name::clone(alternate)));
            }
            for hop in hops.drain(..) {
                match hop {
                    Hop::Queue(queue) => route.push(queue),
                    Hop::Exchange(name) => {
                        // A missing exchange is skipped; the map's copy of the name outlives the hop's.
                        if let Some(next) = self.exchange(&name)
                            && !seen.contains(&&*next.definition().name)
                        {
                            routing.by_key &= !next.may_delay();
                            if next.delays(message) {
                                routing.delaying.push(Name::clone(&next.definition().name));
                            } else {
                                seen.push(&next.definition().name);
                            }
                        } else if name.is_empty() {
                            self.route_by_name(message, route);
                        }
                    }
                }
            }
        }
        routing
    }

    /// Gives a message to the exchanges that asked for it.
    pub fn keep(&self, keepers: &[Name], message: &Message) {
        for exchange in keepers.iter().filter_map(|name| self.exchange(name)) {
            exchange.keep(message);
        }
    }

    /// What a new binding's destination is given from its source's history: each message with the queues it goes to.
    pub fn replay(&self, binding: &BindingDefinition) -> Vec<(Route<Q>, Message)> {
        let kept = self
            .exchange(&binding.source)
            .map(Exchange::kept)
            .unwrap_or_default();
        kept.into_iter()
            .map(|message| {
                let mut route = Route::new();
                match &binding.destination {
                    Destination::Queue(name) => route.extend(self.queue(name.as_bytes()).cloned()),
                    Destination::Exchange(name) => {
                        let keys = message.routing_keys();
                        let routable = Routable {
                            keys: &keys,
                            properties: RawProperties::new(message.properties()),
                            now: Timestamp(0),
                        };
                        self.route_inside(name.as_bytes(), &routable, &mut route);
                    }
                }
                (route, message)
            })
            .collect()
    }
}

fn refuse_default(binding: &BindingDefinition) -> Result<(), BrokerError> {
    let to_default = matches!(&binding.destination, Destination::Exchange(name) if name.is_empty());
    if binding.source.is_empty() || to_default {
        Err(BrokerError::DefaultExchange)
    } else {
        Ok(())
    }
}

fn check_equivalent(
    current: &ExchangeDefinition,
    received: &ExchangeDefinition,
    resource: &Resource,
) -> Result<(), BrokerError> {
    if current.kind != received.kind {
        return Err(inequivalent_flag("type", resource, &received.kind, &current.kind));
    }
    let flags = [
        ("durable", received.durable, current.durable),
        ("auto_delete", received.auto_delete, current.auto_delete),
        ("internal", received.internal, current.internal),
    ];
    for (name, received, current) in flags {
        if received != current {
            return Err(inequivalent_flag(
                name,
                resource,
                &received.to_string(),
                &current.to_string(),
            ));
        }
    }
    let name = "alternate-exchange";
    let (have, want) = (current.arguments.get(name), received.arguments.get(name));
    if have == want {
        Ok(())
    } else {
        Err(inequivalent(name, resource, want, have))
    }
}

#[cfg(test)]
mod tests;
