//! One channel of a connection: a file per AMQP class, each translating methods into the broker's words. Rules live
//! in `broker`.

mod basic;
mod confirm;
mod consume;
mod delay;
mod exchange;
mod get;
mod open;
mod properties;
mod queue;
mod settle;
mod timeouts;
mod tx;

use std::sync::{Arc, atomic::AtomicBool};

use ahash::AHashMap;
use bytes::Bytes;
use parking_lot::Mutex;

use self::{consume::Consumer, tx::Transaction};

pub(super) use self::tx::{Settled, Settlement};
use crate::broker::{error::BrokerError, queue::Return, unacked::Unacked};
use crate::protocol::{
    assembler::Assembler,
    frame,
    method::{Method, MethodId},
    reply_code::ReplyCode,
};
use crate::server::{
    admission::{ChannelSlot, Ticket},
    close::Fault,
    confirms::ChannelConfirms,
    connection::Connection,
    consumer_port::{ChannelFacts, ChannelOut},
    firehose::Tap,
    outbox::Outbox,
    queue_cell::ConnectionId,
    registry::{DeleteIf, Durable},
    replies::ReplyConsumer,
    stats::add_one,
};

/// Body frames towards a client that negotiated no limit.
const UNLIMITED_FRAME: usize = 128 * 1024;

pub(super) struct Channel {
    pub(super) out: Arc<ChannelOut>,
    pub(super) assembler: Assembler,
    confirms: Option<Arc<ChannelConfirms>>,
    transaction: Option<Transaction>,
    /// For consumers created later; 0 is unlimited.
    prefetch: u16,
    consumers: AHashMap<Bytes, Consumer>,
    /// Takes direct replies.
    replies: Option<Arc<ReplyConsumer>>,
    /// The queue that an empty name stands for.
    last_queue: Option<String>,
    /// We sent channel.close and wait for close-ok.
    closing: bool,
    /// Held, not read: the channel counts while it lasts.
    _slot: ChannelSlot,
}

impl Channel {
    pub(super) fn new(
        ticket: &Ticket,
        id: u16,
        connection: ConnectionId,
        outbox: Arc<Outbox>,
        frame_max: u32,
        cancel_notify: bool,
        tap: Arc<Tap>,
    ) -> Self {
        let frame_max = if frame_max == 0 {
            UNLIMITED_FRAME
        } else {
            frame_max as usize
        };
        let out = Arc::new(ChannelOut {
            id,
            connection,
            outbox,
            body_max: frame_max - frame::OVERHEAD,
            cancel_notify,
            unacked: Mutex::new(Unacked::default()),
            metered: AtomicBool::new(false),
            cancelled: Mutex::default(),
            counters: Arc::default(),
            facts: ChannelFacts::default(),
            tap,
            ack_timer: ticket.ack_timer(),
        });
        Self {
            out,
            assembler: Assembler::default(),
            confirms: None,
            transaction: None,
            prefetch: 0,
            consumers: AHashMap::new(),
            replies: None,
            last_queue: None,
            closing: false,
            _slot: ticket.open_channel(),
        }
    }

    /// Between contents and open: a whole publish may be taken in one step.
    pub(super) fn takes_publish(&self) -> bool {
        !self.closing && self.assembler.is_idle()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Forgets consumers whose queue went away meanwhile.
    fn forget_cancelled(&mut self) {
        for tag in self.out.cancelled.lock().tags.drain(..) {
            self.consumers.remove(&tag);
        }
    }
}

/// What a method asks its channel to answer.
enum Reply {
    /// Nothing: nowait, or the answer has been sent.
    None,
    Now(Method),
    /// As soon as it is on disk.
    WhenDurable(Option<Durable>, Option<Method>),
}

impl Reply {
    /// The reply unless the client said nowait.
    fn unless(nowait: bool, method: Method) -> Self {
        if nowait { Self::None } else { Self::Now(method) }
    }
}

impl Connection {
    /// Handles a method without content on an open channel.
    pub(super) async fn method(&mut self, number: u16, method: Method) -> Result<(), Fault> {
        if method.id() == MethodId::QUEUE_DELETE {
            return self.delete_queue(number, method).await;
        }
        self.answered(number, method).await
    }

    /// The channel's own consumers of the queue are told after the answer: a client that waits for it may take a
    /// basic.cancel before it for an error, as py-amqp does.
    async fn delete_queue(&mut self, number: u16, method: Method) -> Result<(), Fault> {
        let out = self.channels.get(&number).map(|channel| Arc::clone(&channel.out));
        if let Some(out) = &out {
            out.hold_cancels();
        }
        let done = self.answered(number, method).await;
        if let Some(out) = &out {
            out.tell_cancelled();
        }
        done
    }

    async fn answered(&mut self, number: u16, method: Method) -> Result<(), Fault> {
        let id = method.id();
        let reply = match method {
            Method::BasicGet { queue, no_ack } => {
                // One read may bring thousands of gets: their answers must not pile up for a client that does not
                // read them.
                self.outbox.wait_for_room().await;
                let got = self.get(number, &queue, no_ack).await;
                return got.map_err(|error| Fault::refuse(number, &error, id));
            }
            Method::TxCommit => return self.commit(number).await,
            method => self.translate(number, method)?,
        };
        let refuse = |error| Fault::refuse(number, &error, id);
        match reply.map_err(refuse)? {
            Reply::None => {}
            Reply::Now(method) => self.outbox.method(number, &method),
            Reply::WhenDurable(durable, method) => {
                if let Some(durable) = durable {
                    durable
                        .await
                        .ok()
                        .and_then(Result::ok)
                        .ok_or(BrokerError::StoreFailed)
                        .map_err(refuse)?;
                }
                if let Some(method) = method {
                    self.outbox.method(number, &method);
                }
            }
        }
        Ok(())
    }

    /// The outer result is for faults that are no refusal of the broker's.
    fn translate(&mut self, number: u16, method: Method) -> Result<Result<Reply, BrokerError>, Fault> {
        let id = method.id();
        Ok(match id.class {
            20 => return self.channel_class(number, method).map(Ok),
            30 if matches!(method, Method::AccessRequest { .. }) => {
                Ok(Reply::Now(Method::AccessRequestOk { ticket: 1 }))
            }
            40 => match self.exchange_class(method) {
                Some(reply) => reply,
                None => return Err(unimplemented(id)),
            },
            50 => match self.queue_class(number, method) {
                Some(reply) => reply,
                None => return Err(unimplemented(id)),
            },
            60 => match self.basic_class(number, method) {
                Some(reply) => reply,
                None => return Err(unimplemented(id)),
            },
            85 if matches!(method, Method::ConfirmSelect { .. }) => self.confirm_select(number, &method),
            90 => match self.tx_class(number, &method) {
                Some(reply) => reply,
                None => return Err(unimplemented(id)),
            },
            _ => return Err(unimplemented(id)),
        })
    }

    fn channel_class(&mut self, number: u16, method: Method) -> Result<Reply, Fault> {
        match method {
            Method::ChannelOpen => {
                let text = "second 'channel.open' seen";
                Err(Fault::connection(
                    ReplyCode::ChannelError,
                    text,
                    MethodId::CHANNEL_OPEN,
                ))
            }
            Method::ChannelFlow { active: true } => Ok(Reply::Now(Method::ChannelFlowOk { active: true })),
            Method::ChannelFlow { active: false } => Err(Fault::connection(
                ReplyCode::NotImplemented,
                "active=false",
                MethodId::CHANNEL_FLOW,
            )),
            // RabbitMQ never asks for it, yet clients may send it unasked; it changes nothing.
            Method::ChannelFlowOk { .. } => Ok(Reply::None),
            Method::ChannelClose { .. } => {
                self.release_channel(number);
                self.channels.remove(&number);
                Ok(Reply::Now(Method::ChannelCloseOk))
            }
            other => Err(unimplemented(other.id())),
        }
    }

    /// Takes away what a channel holds: its consumers, its unacked messages, its promises. It stays as one that waits
    /// for close-ok.
    pub(super) fn release_channel(&mut self, number: u16) {
        if self.client.remove_channel(number) {
            self.announce_channel("channel.closed", number);
            add_one(&self.broker.queues.churn.channels_closed);
        }
        let Some(channel) = self.channels.get_mut(&number) else {
            return;
        };
        channel.closing = true;
        self.share.give_back(channel.assembler.received());
        channel.assembler = Assembler::default();
        let uncommitted = channel.transaction.take();
        if let Some(confirms) = channel.confirms.take() {
            confirms.close();
        }
        if let Some(replies) = channel.replies.take() {
            self.vhost.replies.remove(&replies);
        }
        let consumers: Vec<Consumer> = channel.consumers.drain().map(|(_, consumer)| consumer).collect();
        let out = Arc::clone(&channel.out);
        let (mut unused, mut left) = (Vec::new(), Vec::new());
        // First no more deliveries, then those outstanding go back.
        for consumer in consumers {
            if consumer.queue.cancel(consumer.id) && consumer.queue.definition.auto_delete {
                unused.push(consumer.queue);
            } else if left.last() != Some(&consumer.queue) {
                left.push(consumer.queue);
            }
        }
        let outstanding = {
            let mut unacked = out.unacked.lock();
            // An ack that was not committed never happened.
            if let Some(transaction) = uncommitted {
                transaction.restore(&mut unacked);
            }
            unacked.take_all()
        };
        Self::requeue(outstanding, Return::Failed);
        left.sort_unstable();
        left.dedup();
        for queue in left {
            queue.lock().dispatch();
        }
        for queue in unused {
            self.delete_unused(&queue);
        }
    }

    /// An auto-delete queue lost its last consumer.
    fn delete_unused(&self, queue: &crate::server::queue_cell::QueueHandle) {
        let only = DeleteIf {
            without_consumers: true,
            ..DeleteIf::default()
        };
        if let Err(error) = self.vhost.delete_queue(queue, only, &self.user) {
            tracing::error!(queue = %queue.name(), %error, "an auto-delete queue could not be deleted; rabbitmqctl delete_queue tries again");
        }
    }
}

fn unimplemented(id: MethodId) -> Fault {
    Fault::connection(ReplyCode::CommandInvalid, "unimplemented method", id)
}
