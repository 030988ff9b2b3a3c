//! What a connection's user may do, kept with the connection: as long as nobody changes permissions, a check is one atomic
//! load and a pattern, and a publish to the exchange of the one before not even the pattern (amqp-behaviour 7.1, 7.3).

use std::sync::Arc;

use crate::auth::Access;
use crate::broker::{
    definition::Name,
    error::{BrokerError, Kind, Resource},
    permission::{Grants, Verb},
};
use crate::protocol::{
    field::{FieldTable, FieldValue},
    properties::RawProperties,
};

/// What the default exchange is called where permissions are concerned.
const DEFAULT_EXCHANGE: &str = "amq.default";

pub(in crate::server) struct Rights {
    access: Arc<Access>,
    user: Name,
    vhost: Name,
    generation: u64,
    grants: Option<Arc<Grants>>,
    impersonator: bool,
    /// The exchange that was last written to and may be: most publishers repeat themselves.
    writable: Option<Vec<u8>>,
}

impl Rights {
    pub(in crate::server) fn new(access: Arc<Access>, user: Name, vhost: Name) -> Self {
        let mut rights = Self {
            access,
            user,
            vhost,
            generation: 0,
            grants: None,
            impersonator: false,
            writable: None,
        };
        rights.read();
        rights
    }

    fn read(&mut self) {
        // The generation first: what changes meanwhile is read again.
        self.generation = self.access.generation();
        self.grants = self.access.grants(&self.user, &self.vhost);
        self.writable = None;
        self.impersonator = self
            .access
            .user(&self.user)
            .is_some_and(|user| user.has_tag("impersonator"));
    }

    /// Takes over changes.
    fn refresh(&mut self) {
        if self.access.generation() != self.generation {
            self.read();
        }
    }

    /// The state of permissions that was last taken over.
    pub(in crate::server) fn generation(&self) -> u64 {
        self.generation
    }

    /// The state of permissions now.
    pub(in crate::server) fn current(&self) -> u64 {
        self.access.generation()
    }

    /// The user may set any `user_id`.
    pub(in crate::server) fn is_impersonator(&self) -> bool {
        self.impersonator
    }

    fn may(&self, verb: Verb, resource: &Resource) -> bool {
        let name = if is_default_exchange(resource) {
            DEFAULT_EXCHANGE
        } else {
            &resource.name
        };
        self.grants.as_ref().is_some_and(|grants| grants.may(verb, name))
    }

    /// # Errors
    /// 403 naming the verb and the resource.
    pub(in crate::server) fn check(&mut self, verb: Verb, resource: &Resource) -> Result<(), BrokerError> {
        self.refresh();
        if self.may(verb, resource) {
            Ok(())
        } else {
            Err(self.refused(verb, resource))
        }
    }

    /// Whether a message may be published to an exchange; asked for each one.
    ///
    /// # Errors
    /// 403 naming the exchange.
    pub(in crate::server) fn check_publish(&mut self, exchange: &[u8]) -> Result<(), BrokerError> {
        self.refresh();
        if self.writable.as_deref() == Some(exchange) {
            return Ok(());
        }
        let name = Resource::exchange(&String::from_utf8_lossy(exchange), &self.vhost);
        self.check(Verb::Write, &name)?;
        self.writable = Some(exchange.to_vec());
        Ok(())
    }

    /// A passive declaration needs any of the three.
    ///
    /// # Errors
    /// 403 naming `configure`.
    pub(in crate::server) fn check_any(&mut self, resource: &Resource) -> Result<(), BrokerError> {
        self.refresh();
        if [Verb::Configure, Verb::Write, Verb::Read]
            .into_iter()
            .any(|verb| self.may(verb, resource))
        {
            Ok(())
        } else {
            Err(self.refused(Verb::Configure, resource))
        }
    }

    fn refused(&self, verb: Verb, resource: &Resource) -> BrokerError {
        let mut resource = resource.clone();
        if is_default_exchange(&resource) {
            DEFAULT_EXCHANGE.clone_into(&mut resource.name);
        }
        BrokerError::AccessRefused {
            verb,
            resource,
            user: self.user.to_string(),
        }
    }

    /// An exchange or queue that is named in an argument: it is declared only once, so only a new one is checked.
    ///
    /// # Errors
    /// 403: reading from the one being declared, or writing to the other, is not allowed.
    pub(in crate::server) fn check_argument(
        &mut self,
        arguments: &FieldTable,
        argument: &str,
        declared: &Resource,
    ) -> Result<(), BrokerError> {
        let Some(FieldValue::LongString(target)) = arguments.get(argument) else {
            return Ok(());
        };
        let target = Resource::exchange(&String::from_utf8_lossy(target), &self.vhost);
        self.check(Verb::Read, declared)?;
        self.check(Verb::Write, &target)
    }

    /// There are rules about routing keys, so that [`Rights::check_topic`] must be asked.
    pub(in crate::server) fn has_topics(&self) -> bool {
        self.grants.as_ref().is_some_and(|grants| grants.has_topics())
    }

    /// Whether a key may be used with a topic exchange; the caller knows that it is one.
    ///
    /// # Errors
    /// 403 naming the key.
    pub(in crate::server) fn check_topic(
        &self,
        verb: Verb,
        exchange: &str,
        key: &str,
    ) -> Result<(), BrokerError> {
        let allowed = self
            .grants
            .as_ref()
            .is_some_and(|grants| grants.may_topic(verb, exchange, key));
        if allowed {
            return Ok(());
        }
        Err(BrokerError::TopicRefused {
            verb,
            key: key.to_owned(),
            exchange: exchange.to_owned(),
            vhost: Name::clone(&self.vhost),
            user: self.user.to_string(),
        })
    }

    /// The routing key of a message for a topic exchange, and those in its CC and BCC headers.
    ///
    /// # Errors
    /// 403 naming the first key that is not allowed.
    pub(in crate::server) fn check_topics_of(
        &self,
        exchange: &str,
        routing_key: &[u8],
        properties: RawProperties<'_>,
    ) -> Result<(), BrokerError> {
        let check = |key: &[u8]| self.check_topic(Verb::Write, exchange, &String::from_utf8_lossy(key));
        check(routing_key)?;
        let Ok(Some(headers)) = properties.headers() else {
            return Ok(());
        };
        for header in ["CC", "BCC"] {
            let Some(FieldValue::Array(keys)) = headers.get(header) else {
                continue;
            };
            for key in keys.iter().filter_map(FieldValue::as_str_bytes) {
                check(key)?;
            }
        }
        Ok(())
    }
}

fn is_default_exchange(resource: &Resource) -> bool {
    resource.kind == Kind::Exchange && resource.name.is_empty()
}
