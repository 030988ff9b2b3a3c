//! What the door does on behalf of a user: the operations of AMQP without a connection. A call waits on its own thread,
//! so none of these may run in a task.

use std::{future::Future, time::Duration};

use bytes::BytesMut;

use crate::broker::{
    definition::{BindingDefinition, ExchangeDefinition, QueueDefinition},
    delay::may_be_asked,
    error::{BrokerError, Resource},
    message::{INLINE_BODY_MAX, Message, MessageParts},
    queue::{
        Entry, Removed, Return,
        arguments::{self, inequivalent_flag},
    },
};
use crate::protocol::{
    field::FieldTable,
    properties::{Properties, RawProperties},
};
use crate::server::{
    Handle, QueueLook,
    consumer_port::told,
    firehose::Tap,
    publisher::{Batch, Routes},
    queue_cell::{ConnectionId, QueueHandle},
    registry::{DeleteIf, Durable, Vhost},
    stats::{Count, PublishTally, add_one},
};

/// How long a call waits for the disk, or for a message to be read from it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages of one get.
const GET_MAX: usize = 10_000;
/// Bodies of one get together, bytes; the message that crosses it is the last.
const GET_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What traces call the connection and the channel of a call.
const CONNECTION: &str = "HTTP API";
const CHANNEL: u16 = 1;
/// No connection has this number: exclusive queues belong to others.
const NOBODY: ConnectionId = 0;

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperateError {
    #[error("vhost_not_found")]
    NoVhost,
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A full queue refused a message.
    #[error("rejected: check queue limits")]
    Refused,
    #[error("the broker did not answer in time")]
    Timeout,
}

/// A queue as a user wants it.
#[derive(Clone, Debug)]
pub struct QueueSpec {
    pub durable: bool,
    pub auto_delete: bool,
    pub arguments: FieldTable,
}

/// What becomes of messages that were fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// They stay, marked as redelivered.
    Requeue,
    /// They stay, as after basic.reject with requeue.
    RejectRequeue,
    /// They are gone.
    Remove,
    /// They are dead-lettered, or gone.
    Reject,
}

/// A message that was fetched.
#[derive(Clone)]
pub struct Fetched {
    pub message: Message,
    pub redelivered: bool,
    /// Ready messages left behind it.
    pub remaining: u64,
}

/// Waits for a future on a thread that may wait.
fn wait<T>(future: impl Future<Output = T>) -> Result<T, OperateError> {
    let timed = async { tokio::time::timeout(PATIENCE, future).await };
    tokio::runtime::Handle::current()
        .block_on(timed)
        .map_err(|_elapsed| OperateError::Timeout)
}

pub(super) fn stored(durable: Option<Durable>) -> Result<(), OperateError> {
    let Some(durable) = durable else { return Ok(()) };
    match wait(durable)? {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(BrokerError::StoreFailed.into()),
    }
}

impl Handle {
    fn vhost_of(&self, name: &str) -> Result<std::sync::Arc<Vhost>, OperateError> {
        self.running_vhost(name).ok_or(OperateError::NoVhost)
    }

    /// Declares an exchange; true when it is new.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn declare_exchange(&self, definition: ExchangeDefinition) -> Result<bool, OperateError> {
        let vhost = self.vhost_of(&definition.vhost)?;
        let known = vhost.read(|topology| topology.exchange(&definition.name).is_some());
        stored(vhost.declare_exchange(definition, &self.by)?)?;
        Ok(!known)
    }

    /// Deletes an exchange; a missing one counts as deleted.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn delete_exchange(&self, vhost: &str, name: &str, if_unused: bool) -> Result<(), OperateError> {
        stored(self.vhost_of(vhost)?.delete_exchange(name, if_unused, &self.by)?)
    }

    /// Declares a queue; true when it is new.
    ///
    /// # Errors
    /// [`OperateError`], also when it exists and is another.
    pub fn declare_queue(&self, vhost: &str, name: &str, spec: QueueSpec) -> Result<bool, OperateError> {
        let vhost = self.vhost_of(vhost)?;
        add_one(&self.broker.queues.churn.queues_declared);
        if let Some(existing) = vhost.read(|topology| topology.queue(name.as_bytes()).cloned()) {
            check_redeclared(&existing, &spec)?;
            return Ok(false);
        }
        if name.starts_with("amq.") {
            let (kind, name) = ("queue", name.to_owned());
            return Err(BrokerError::ReservedName { kind, name }.into());
        }
        let resource = Resource::queue(name, &vhost.name);
        let (durable, auto_delete) = (spec.durable, spec.auto_delete);
        let flags = (durable, false, auto_delete);
        let effective = self.broker.with_default_type(&vhost, &spec.arguments, flags);
        self.broker.check_new(&vhost, &resource, &effective, flags)?;
        let definition = QueueDefinition {
            vhost: vhost.name.clone(),
            name: name.into(),
            id: self.broker.store().next_queue_id(),
            durable,
            auto_delete,
            arguments: effective,
        };
        self.add_queue(&vhost, definition, &spec)
    }

    /// Deletes a queue with its messages; gives how many were ready.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn delete_queue(
        &self,
        vhost: &str,
        name: &str,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<u64, OperateError> {
        let vhost = self.vhost_of(vhost)?;
        let queue = vhost.queue(name, NOBODY)?;
        let only = DeleteIf {
            unused: if_unused,
            empty: if_empty,
            ..DeleteIf::default()
        };
        let (messages, durable) = vhost.delete_queue(&queue, only, &self.by)?.unwrap_or_default();
        stored(durable)?;
        Ok(messages)
    }

    /// Drops a queue's ready messages; gives how many.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn purge_queue(&self, vhost: &str, name: &str) -> Result<u64, OperateError> {
        Ok(self.vhost_of(vhost)?.queue(name, NOBODY)?.purge())
    }

    /// # Errors
    /// [`OperateError`].
    pub fn bind(&self, binding: BindingDefinition) -> Result<(), OperateError> {
        let vhost = self.vhost_of(&binding.vhost)?;
        stored(vhost.bind(binding, (NOBODY, &self.by))?)
    }

    /// # Errors
    /// [`OperateError`].
    pub fn unbind(&self, binding: &BindingDefinition) -> Result<(), OperateError> {
        let vhost = self.vhost_of(&binding.vhost)?;
        stored(vhost.unbind(binding, (NOBODY, &self.by))?)
    }

    /// Publishes a message and waits until it is stored where it must be; true when a queue took it.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn publish(
        &self,
        vhost: &str,
        exchange: &str,
        routing_key: &str,
        properties: &Properties,
        body: Vec<u8>,
    ) -> Result<bool, OperateError> {
        let vhost = self.vhost_of(vhost)?;
        let (size, max) = (body.len() as u64, self.broker.message_bytes_max());
        if size > max {
            return Err(BrokerError::MessageTooLarge { size, max }.into());
        }
        wait(self.broker.wait_for_store())?;
        let tap = self.tap(&vhost);
        let mut encoded = BytesMut::new();
        properties.encode(&mut encoded);
        let raw = RawProperties::new(&encoded);
        let mut routes = Routes::default();
        let mut route = routes.route(&vhost, exchange.as_bytes(), routing_key.as_bytes(), raw)?;
        let routed = !route.is_empty();
        if may_be_asked(raw) {
            (route, _) = vhost.hold(exchange.as_bytes(), raw, route, &routes.delaying);
        }
        let parts = MessageParts {
            exchange: exchange.as_bytes(),
            routing_key: routing_key.as_bytes(),
            properties: &encoded,
            persistent: properties.delivery_mode == Some(2),
            priority: properties.priority.unwrap_or(0),
        };
        let mut scratch = Vec::new();
        let message = if body.len() <= INLINE_BODY_MAX {
            Message::new(&parts, &body, &mut scratch)
        } else {
            Message::with_large_body(&parts, vec![body.into()], &mut scratch)
        };
        let message = match tap {
            Some(tap) => tap.published(CHANNEL, message, &route),
            None => message,
        };
        let mut tally = PublishTally::default();
        tally.count(&vhost, exchange.as_bytes(), route.len(), message.body_len());
        tally.flush(&vhost);
        if route.is_empty() {
            vhost.counters.add(Count::ReturnUnroutable, 1);
            return Ok(false);
        }
        let committed = Batch::new(self.broker.store.clone()).commit(vec![(route, message)], Vec::new());
        stored(committed.durable)?;
        if committed.refused {
            return Err(OperateError::Refused);
        }
        vhost.counters.add(Count::Confirm, 1);
        Ok(routed)
    }

    /// Fetches up to `count` messages, then settles them all: the same one never comes twice.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn fetch(
        &self,
        vhost: &str,
        name: &str,
        count: usize,
        then: Fetch,
    ) -> Result<Vec<Fetched>, OperateError> {
        let queue = self.vhost_of(vhost)?.queue(name, NOBODY)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut fetched = Vec::new();
        let mut bytes = 0;
        let result = loop {
            if fetched.len() >= count.min(GET_MAX) || bytes > GET_BYTES_MAX {
                break Ok(());
            }
            match wait(next(&queue, then == Fetch::Remove)) {
                Ok(Some(got)) => {
                    bytes += got.0.message.body_len();
                    fetched.push(got.0);
                    entries.extend(got.1);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // What was taken goes back even when a later read failed.
        let mut guard = queue.lock();
        for entry in entries {
            match then {
                Fetch::Requeue => guard.requeue(None, entry, Return::Postponed),
                Fetch::RejectRequeue => guard.requeue(None, entry, Return::Failed),
                Fetch::Remove | Fetch::Reject => guard.reject(None, entry),
            }
        }
        guard.dispatch();
        drop(guard);
        result.map(|()| fetched)
    }

    /// Who looks at what is published here, if anybody does.
    fn tap(&self, vhost: &std::sync::Arc<Vhost>) -> Option<std::sync::Arc<Tap>> {
        let (announcer, spans) = (&self.broker.queues.announcer, &self.broker.spans);
        let node = crate::server::node_name();
        let tap = Tap::new(
            vhost,
            announcer.clone(),
            CONNECTION,
            &self.by,
            &node,
            spans.clone(),
        );
        tap.begin_read().then_some(tap)
    }

    fn add_queue(
        &self,
        vhost: &Vhost,
        definition: QueueDefinition,
        spec: &QueueSpec,
    ) -> Result<bool, OperateError> {
        match vhost.add_queue(definition, None, &self.by) {
            Ok((_, durable)) => stored(durable).map(|()| true),
            // Somebody else was faster.
            Err(existing) => check_redeclared(&existing, spec).map(|()| false),
        }
    }
}

impl QueueLook {
    /// The policies that apply.
    pub fn policy(&self) -> Option<std::sync::Arc<crate::broker::policy::EffectivePolicy>> {
        self.0.policy()
    }
}

/// The next ready message, and its entry when it must be settled.
async fn next(queue: &QueueHandle, no_ack: bool) -> Option<(Fetched, Option<Entry>)> {
    let delivery = loop {
        let loaded = queue.loaded.notified();
        tokio::pin!(loaded);
        loaded.as_mut().enable();
        let read = {
            let mut guard = queue.lock();
            guard.touch();
            let mut removed = Removed::new();
            let got = guard.state.get(no_ack, &mut removed);
            guard.log_removed(removed);
            match got {
                Ok(delivery) => break delivery,
                Err(read) => read,
            }
        };
        queue.read(read);
        loaded.await;
    };
    let count = match &delivery {
        None => Count::GetEmpty,
        Some(_) if no_ack => Count::GetNoAck,
        Some(_) => Count::Get,
    };
    for counters in [&queue.counters, queue.totals()] {
        counters.add(count, 1);
    }
    let delivery = delivery?;
    let fetched = Fetched {
        message: told(&delivery.entry, queue),
        redelivered: delivery.entry.redelivered,
        remaining: delivery.remaining,
    };
    Some((fetched, (!no_ack).then_some(delivery.entry)))
}

fn check_redeclared(existing: &QueueHandle, spec: &QueueSpec) -> Result<(), OperateError> {
    let current = &existing.definition;
    let resource = Resource::queue(&current.name, &current.vhost);
    if existing.owner.is_some() {
        return Err(BrokerError::Locked(resource).into());
    }
    for (name, received, current) in [
        ("durable", spec.durable, current.durable),
        ("auto_delete", spec.auto_delete, current.auto_delete),
    ] {
        if received != current {
            let (received, current) = (received.to_string(), current.to_string());
            return Err(inequivalent_flag(name, &resource, &received, &current).into());
        }
    }
    let mut received = spec.arguments.clone();
    if let Some(kind) = current.arguments.get("x-queue-type")
        && received.get("x-queue-type").is_none()
    {
        // Who asks for no type takes what is there: the default may have changed since.
        received.insert("x-queue-type", kind.clone());
    }
    arguments::check_equivalent(&current.arguments, &received, &resource)?;
    Ok(())
}
