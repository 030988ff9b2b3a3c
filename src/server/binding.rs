//! What of a binding the topology cannot know, because a queue's owner and durability are the server's.

use crate::broker::{
    definition::{BindingDefinition, Destination},
    error::{BrokerError, Resource},
    exchange::Exchange,
    queue::arguments::QueueKind,
    topology::Topology,
};
use crate::server::queue_cell::{ConnectionId, QueueHandle};

/// A binding lives on only when both its ends do.
pub(super) fn is_durable(topology: &Topology<QueueHandle>, binding: &BindingDefinition) -> bool {
    let lasting = |name: &str| {
        topology
            .exchange(name)
            .is_some_and(|exchange| exchange.definition().durable)
    };
    let destination = match &binding.destination {
        Destination::Queue(name) => topology
            .queue(name.as_bytes())
            .is_some_and(|queue| queue.definition.durable),
        Destination::Exchange(name) => lasting(name),
    };
    destination && lasting(&binding.source)
}

/// What is to be bound may be, as far as the topology cannot tell; a missing source is told first.
pub(super) fn check_bind(
    topology: &Topology<QueueHandle>,
    binding: &BindingDefinition,
    connection: ConnectionId,
) -> Result<(), BrokerError> {
    if topology.exchange(&binding.source).is_none() {
        return Ok(());
    }
    check_owner(topology, binding, connection)?;
    check_kind(topology, binding)
}

/// What is to be unbound may be. What is not bound counts as unbound, whosever the queue is.
pub(super) fn check_unbind(
    topology: &Topology<QueueHandle>,
    binding: &BindingDefinition,
    connection: ConnectionId,
) -> Result<(), BrokerError> {
    if topology.is_bound(binding) {
        check_owner(topology, binding, connection)
    } else {
        Ok(())
    }
}

/// x-local-random takes classic queues only (amqp-behaviour 3.3); about a key it complains first.
fn check_kind(topology: &Topology<QueueHandle>, binding: &BindingDefinition) -> Result<(), BrokerError> {
    let is_local = |exchange: &Exchange<QueueHandle>| &*exchange.definition().kind == "x-local-random";
    if let Destination::Queue(name) = &binding.destination
        && binding.routing_key.is_empty()
        && topology.exchange(&binding.source).is_some_and(is_local)
        && let Some(queue) = topology.queue(name.as_bytes())
        && let kind = QueueKind::of(&queue.definition.arguments)
        && kind != QueueKind::Classic
    {
        let text = format!("Queue type {} not valid for this exchange type", kind.module());
        return Err(BrokerError::InvalidBinding(text));
    }
    Ok(())
}

/// Another connection's exclusive queue is not to be bound or unbound.
fn check_owner(
    topology: &Topology<QueueHandle>,
    binding: &BindingDefinition,
    connection: ConnectionId,
) -> Result<(), BrokerError> {
    if let Destination::Queue(name) = &binding.destination
        && let Some(queue) = topology.queue(name.as_bytes())
        && queue.owner.is_some_and(|owner| owner != connection)
    {
        return Err(BrokerError::Locked(Resource::queue(name, topology.vhost())));
    }
    Ok(())
}
