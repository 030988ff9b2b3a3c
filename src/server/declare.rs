//! What a queue becomes that is declared, over AMQP or by an operator: its type where none was asked for, and whether there
//! is room for it.

use bytes::Bytes;

use crate::broker::{
    error::{BrokerError, Resource},
    queue::arguments,
};
use crate::protocol::field::{FieldTable, FieldValue};
use crate::server::{Broker, registry::Vhost};

impl Broker {
    /// The arguments with the type that the vhost, or the broker, gives to queues that ask for none. Those that do not
    /// last are classic (amqp-behaviour 11).
    pub(in crate::server) fn with_default_type(
        &self,
        vhost: &Vhost,
        arguments: &FieldTable,
        (durable, exclusive, auto_delete): (bool, bool, bool),
    ) -> FieldTable {
        let mut arguments = arguments.clone();
        if arguments.get("x-queue-type").is_none() {
            let definition = vhost.definition();
            let wanted = definition
                .default_queue_type
                .as_deref()
                .unwrap_or(self.default_queue_type());
            let lasting = durable && !exclusive && !auto_delete;
            let kind = if lasting { wanted } else { "classic" };
            let kind = Bytes::copy_from_slice(kind.as_bytes());
            arguments.insert("x-queue-type", FieldValue::LongString(kind));
        }
        arguments
    }

    /// Version 1 of classic queues passes for version 2 where the operator permits it.
    fn with_permitted_version(&self, arguments: &FieldTable) -> FieldTable {
        const VERSION: &str = "x-queue-version";
        let first = arguments.get(VERSION).and_then(FieldValue::as_integer) == Some(1);
        let mut checked = arguments.clone();
        if first && self.permits().classic_queue_version_1 {
            checked.insert(VERSION, FieldValue::I32(2));
        }
        checked
    }

    /// A queue with these arguments, durable, exclusive and auto-delete as told, can be made, and there is room for it.
    ///
    /// # Errors
    /// What is wrong with it, the limit that is reached, or the habit that is not permitted.
    pub(in crate::server) fn check_new(
        &self,
        vhost: &Vhost,
        queue: &Resource,
        arguments: &FieldTable,
        (durable, exclusive, auto_delete): (bool, bool, bool),
    ) -> Result<(), BrokerError> {
        arguments::check_flags(arguments, durable, exclusive, auto_delete, queue)?;
        arguments::check(&self.with_permitted_version(arguments), queue)?;
        let permits = self.permits();
        // What RabbitMQ 4.3 refuses and RabbitMQ 3 allowed is the operator's choice (amqp-behaviour 11).
        if !permits.queue_master_locator && arguments.get("x-queue-master-locator").is_some() {
            return Err(BrokerError::DeprecatedFeature("queue_master_locator"));
        }
        if !(durable || exclusive || permits.transient_nonexcl_queues) {
            return Err(BrokerError::DeprecatedFeature("transient_nonexcl_queues"));
        }
        vhost.check_room(&queue.name, self.limits().queue_max)
    }
}
