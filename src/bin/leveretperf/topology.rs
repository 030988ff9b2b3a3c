//! Declares what the run needs and deletes what was made for it.

use leveret::protocol::{field::FieldTable, method::Method};

use crate::{
    error::PerfError,
    link::{CHANNEL, Link},
    plan::Plan,
};

/// Declares exchange, queues and bindings; returns how many messages the queues hold.
pub(crate) fn declare(link: &mut Link, plan: &Plan) -> Result<u64, PerfError> {
    if let Some(exchange) = &plan.exchange
        && let Some(kind) = &exchange.kind
    {
        let declare = Method::ExchangeDeclare {
            exchange: exchange.name.clone(),
            kind: kind.clone(),
            passive: false,
            durable: plan.durable,
            auto_delete: false,
            internal: false,
            nowait: false,
            arguments: FieldTable::new(),
        };
        link.call(CHANNEL, &declare)?;
    }
    let mut backlog = 0;
    for queue in &plan.queues {
        let declare = Method::QueueDeclare {
            queue: queue.clone(),
            passive: plan.passive,
            durable: plan.durable,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: plan.queue_arguments.clone(),
        };
        if let Method::QueueDeclareOk { message_count, .. } = link.call(CHANNEL, &declare)? {
            backlog += u64::from(message_count);
        }
    }
    for exchange in plan.exchange.iter().filter(|_| !plan.passive) {
        for (queue, key) in &exchange.bindings {
            let bind = Method::QueueBind {
                queue: queue.clone(),
                exchange: exchange.name.clone(),
                routing_key: key.clone(),
                nowait: false,
                arguments: FieldTable::new(),
            };
            link.call(CHANNEL, &bind)?;
        }
    }
    Ok(backlog)
}

/// Deletes the queues and the exchange that no user named.
pub(crate) fn delete(link: &mut Link, plan: &Plan) -> Result<(), PerfError> {
    for queue in plan.queues.iter().filter(|_| plan.own_queues) {
        let delete = Method::QueueDelete {
            queue: queue.clone(),
            if_unused: false,
            if_empty: false,
            nowait: false,
        };
        link.call(CHANNEL, &delete)?;
    }
    if let Some(exchange) = plan.exchange.as_ref().filter(|exchange| exchange.own) {
        let delete = Method::ExchangeDelete {
            exchange: exchange.name.clone(),
            if_unused: false,
            nowait: false,
        };
        link.call(CHANNEL, &delete)?;
    }
    Ok(())
}
