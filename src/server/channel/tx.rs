//! Class tx: publishes and acks held back until commit. What must survive is one operation in the store's log, so a
//! commit is atomic there, and commit-ok comes when it is durable (amqp-behaviour 2.6).

use super::Reply;
use crate::broker::{
    error::BrokerError,
    message::Message,
    queue::Return,
    unacked::{Unacked, UnackedDelivery},
};
use crate::protocol::method::{Method, MethodId};
use crate::server::{
    close::Fault, connection::Connection, publisher::SharedRoute, queue_cell::QueueHandle,
    registry::durable_done,
};

/// What a channel did since tx.select or the last commit or rollback.
#[derive(Default)]
pub(in crate::server) struct Transaction {
    /// Routed when published; the flag is mandatory.
    publishes: Vec<(SharedRoute, Message, bool)>,
    /// What they take in memory.
    bytes: usize,
    pub(in crate::server) settled: Vec<Settled>,
}

/// A delivery acked, or rejected, before the commit.
pub(in crate::server) struct Settled {
    tag: u64,
    pub(in crate::server) delivery: UnackedDelivery<QueueHandle>,
    pub(in crate::server) how: Settlement,
}

/// What becomes of a delivery.
#[derive(Clone)]
pub(in crate::server) enum Settlement {
    Ack,
    Requeue(Return),
    /// Dead-lettered or dropped.
    Reject,
    /// Dead-lettered as this message, or dropped.
    RejectAs(Message),
}

impl Transaction {
    /// Holds a message back.
    ///
    /// # Errors
    /// 406 when all of them together would take more than `max` bytes.
    pub(super) fn publish(
        &mut self,
        (route, message, mandatory): (SharedRoute, Message, bool),
        max: usize,
    ) -> Result<(), BrokerError> {
        self.bytes = self.bytes.saturating_add(message.memory_bytes());
        if self.bytes > max {
            return Err(BrokerError::TransactionTooLarge(max));
        }
        self.publishes.push((route, message, mandatory));
        Ok(())
    }

    pub(super) fn settle(&mut self, tag: u64, delivery: UnackedDelivery<QueueHandle>, how: Settlement) {
        self.settled.push(Settled { tag, delivery, how });
    }

    /// Forgets the publishes and makes what was settled outstanding again.
    pub(super) fn restore(self, unacked: &mut Unacked<QueueHandle>) {
        for settled in self.settled {
            unacked.restore(settled.tag, settled.delivery);
        }
    }
}

impl Connection {
    pub(super) fn tx_class(&mut self, number: u16, method: &Method) -> Option<Result<Reply, BrokerError>> {
        let channel = self.channels.get_mut(&number)?;
        Some(match method {
            Method::TxSelect if channel.confirms.is_some() => Err(BrokerError::ModeSwitch {
                from: "confirm",
                to: "tx",
            }),
            Method::TxSelect => {
                channel.transaction.get_or_insert_default();
                Ok(Reply::Now(Method::TxSelectOk))
            }
            Method::TxRollback => match channel.transaction.as_mut().map(std::mem::take) {
                Some(transaction) => {
                    transaction.restore(&mut channel.out.unacked.lock());
                    Ok(Reply::Now(Method::TxRollbackOk))
                }
                None => Err(BrokerError::NotTransactional),
            },
            _ => return None,
        })
    }

    /// tx.commit: returns first, then everything at once, then the answer when it is durable.
    pub(super) async fn commit(&mut self, number: u16) -> Result<(), Fault> {
        let refuse = |error| Fault::refuse(number, &error, MethodId::TX_COMMIT);
        let transaction = self
            .channels
            .get_mut(&number)
            .and_then(|channel| channel.transaction.as_mut());
        let transaction = transaction
            .map(std::mem::take)
            .ok_or_else(|| refuse(BrokerError::NotTransactional))?;
        let mut publishes = Vec::with_capacity(transaction.publishes.len());
        let mut replies = Vec::new();
        for (route, message, mandatory) in transaction.publishes {
            let message = if self.traced {
                self.tap.published(number, message, &route)
            } else {
                message
            };
            if message.exchange().is_empty() {
                replies.push(message.clone());
            }
            if !route.is_empty() {
                publishes.push((route, message));
            } else if mandatory {
                self.return_unroutable(number, &message);
            }
        }
        let may_die = |settled: &Settled| !matches!(settled.how, Settlement::Ack);
        let dying = transaction.settled.iter().any(may_die);
        let committed = self.batch.commit(publishes, transaction.settled);
        let durable = if dying {
            // The relay logs the moves of what became a dead letter, behind the rest: all of it is durable when they are.
            let (done, durable) = durable_done();
            self.broker.relay.tell(done);
            Some(durable)
        } else {
            committed.durable
        };
        if let Some(durable) = durable {
            durable
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or_else(|| refuse(BrokerError::StoreFailed))?;
        }
        for message in &replies {
            self.vhost.replies.deliver(message);
        }
        if committed.refused {
            return Err(refuse(BrokerError::PartialCommit));
        }
        self.outbox.method(number, &Method::TxCommitOk);
        Ok(())
    }
}
