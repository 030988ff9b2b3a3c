//! One task per client: it reads, hands on what a read brought (`frames`), waits when it must, and ends (`ending`). Hop 1
//! of a message's walk.

mod ending;
mod frames;
mod room;

use std::{sync::Arc, time::Duration};

use ahash::AHashMap;
use bytes::BytesMut;
use tokio::{
    io::AsyncReadExt,
    net::tcp::OwnedReadHalf,
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use crate::broker::definition::Name;
use crate::protocol::{
    frame,
    method::{Method, MethodId},
    reply_code::ReplyCode,
};
use crate::server::{
    Broker,
    admission::{Control, Ticket, Told},
    channel::Channel,
    clients::Client,
    close::Close,
    farewell::drain,
    firehose::Tap,
    handshake::Established,
    intake::Share,
    outbox::Outbox,
    publisher::{Batch, Routes},
    queue_cell::{ConnectionId, QueueHandle},
    registry::Vhost,
    rights::Rights,
    stats::PublishTally,
};

/// What one read takes at most; a connection's input never grows beyond this and one frame.
const READ_BYTES: usize = 128 * 1024;
/// And at least, when part of a frame is there already.
const READ_MIN_BYTES: usize = 16 * 1024;

/// How a connection came to its end; the caller logs it.
#[derive(Debug)]
pub(super) enum End {
    /// connection.close from the client.
    ByClient,
    /// The socket ended or failed.
    Dropped(String),
    /// connection.close from us.
    Closed(String),
    MissedHeartbeats(Duration),
}

/// A connection after its handshake.
pub(super) struct Connection {
    pub(super) broker: Arc<Broker>,
    pub(super) vhost: Arc<Vhost>,
    pub(super) id: ConnectionId,
    pub(super) user: Name,
    /// What the user may do here.
    pub(super) rights: Rights,
    pub(super) outbox: Arc<Outbox>,
    pub(super) channels: AHashMap<u16, Channel>,
    pub(super) exclusive: Vec<QueueHandle>,
    pub(super) batch: Batch,
    pub(super) routes: Routes,
    /// Working memory for building messages.
    pub(super) scratch: Vec<u8>,
    pub(super) frame_max: u32,
    pub(super) cancel_notify: bool,
    blocked_notify: bool,
    channel_max: u16,
    heartbeat: Duration,
    /// It published since the store last lagged; only such connections wait for the store.
    pub(super) published: bool,
    ticket: Arc<Ticket>,
    /// How management sees this connection.
    pub(super) client: Arc<Client>,
    pub(super) tap: Arc<Tap>,
    /// What of this read is published or settled goes to the firehose or leaves spans.
    pub(super) traced: bool,
    pub(super) tally: PublishTally,
    /// Memory of the bodies its channels assemble.
    pub(super) share: Share,
}

/// Who may end a connection from outside.
struct Orders {
    /// The broker stops.
    shutdown: watch::Receiver<Option<String>>,
    /// Somebody closes this connection.
    operator: watch::Receiver<Option<String>>,
}

impl Orders {
    /// Resolves when the connection is to be closed.
    async fn close(&mut self) -> Close {
        tokio::select! {
            close = forced(&mut self.shutdown) => close,
            close = forced(&mut self.operator) => close,
        }
    }
}

/// What to do after a frame.
enum Next {
    Read,
    /// It publishes while an alarm is on; the frame is still in the input.
    Blocked,
    /// Bodies take all memory they may; the frame is still in the input.
    NoRoom {
        octets: usize,
        needs_turn: bool,
    },
    Closed(End),
}

impl Connection {
    pub(super) fn new(broker: Arc<Broker>, client: Arc<Client>, established: Established) -> Self {
        let batch = Batch::new(broker.store().clone());
        let Established {
            user, vhost, ticket, ..
        } = established;
        let rights = Rights::new(
            Arc::clone(broker.access()),
            Name::clone(&user),
            Name::clone(&vhost.name),
        );
        let announcer = Arc::clone(&broker.queues.announcer);
        let node = broker.cluster_name();
        let share = Share::new(broker.alarms().intake(), &ticket.control);
        let spans = broker.spans.clone();
        let tap = Tap::new(&vhost, announcer, &client.name, &client.user, &node, spans);
        Self {
            tap,
            traced: false,
            broker,
            vhost,
            id: client.id,
            user,
            rights,
            outbox: Arc::clone(&client.outbox),
            channels: AHashMap::new(),
            exclusive: Vec::new(),
            batch,
            routes: Routes::default(),
            scratch: Vec::new(),
            frame_max: established.frame_max,
            cancel_notify: established.cancel_notify,
            blocked_notify: established.blocked_notify,
            channel_max: established.channel_max,
            heartbeat: established.heartbeat,
            published: false,
            ticket,
            client,
            tally: PublishTally::default(),
            share,
        }
    }

    /// Serves the client until the connection ends, then releases what it held.
    pub(super) async fn serve(mut self, mut socket: OwnedReadHalf, mut input: BytesMut) -> End {
        let end = match self.read_loop(&mut socket, &mut input).await {
            Ok(end) => {
                self.release();
                if matches!(end, End::ByClient) {
                    self.outbox.method(0, &Method::ConnectionCloseOk);
                    self.await_hanging_up(&mut socket, &mut input).await;
                }
                end
            }
            Err(close) => {
                self.release();
                self.outbox.method(0, &close.connection_method());
                self.await_close_ok(&mut socket, &mut input).await;
                End::Closed(close.text)
            }
        };
        self.outbox.close();
        drain(&mut socket, Duration::from_secs(1)).await;
        end
    }

    async fn read_loop(&mut self, socket: &mut OwnedReadHalf, input: &mut BytesMut) -> Result<End, Close> {
        let beat = if self.heartbeat.is_zero() {
            Duration::from_secs(86_400)
        } else {
            self.heartbeat
        };
        let mut samples = tokio::time::interval_at(Instant::now() + beat, beat);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut orders = Orders {
            shutdown: self.broker.shutdown_signal(),
            operator: self.client.close_signal(),
        };
        let control = Arc::clone(&self.ticket.control);
        let (mut heard, mut missed) = (true, 0);
        loop {
            let done = self.frames(input).await;
            self.batch.flush();
            self.tally.flush(&self.vhost);
            match done? {
                Next::Read => {}
                Next::Closed(end) => return Ok(end),
                Next::Blocked => {
                    if let Some(end) = self.blocked(&mut orders, &control).await? {
                        return Ok(end);
                    }
                    // It could not be heard meanwhile.
                    (heard, missed) = (true, 0);
                    continue;
                }
                Next::NoRoom { octets, needs_turn } => {
                    let wanted = (octets, needs_turn);
                    if let Some(end) = self.wait_in_line(wanted, &mut orders, &control).await? {
                        return Ok(end);
                    }
                    (heard, missed) = (true, 0);
                    continue;
                }
            }
            // A client that takes nothing can still be told to go.
            tokio::select! {
                biased;
                () = self.backpressure() => {}
                close = orders.close() => return Err(close),
                told = control.told() => self.obey(told)?,
            }
            input.reserve(self.read_bytes(input));
            tokio::select! {
                biased;
                read = socket.read_buf(input) => match read {
                    Ok(0) => return Ok(End::Dropped("the client closed the socket".to_owned())),
                    Ok(octets) => {
                        heard = true;
                        self.client.received(octets);
                    }
                    Err(error) => return Ok(End::Dropped(error.to_string())),
                },
                _ = samples.tick() => {
                    missed = if std::mem::take(&mut heard) { 0 } else { missed + 1 };
                    if missed >= 2 && !self.heartbeat.is_zero() {
                        return Ok(End::MissedHeartbeats(self.heartbeat));
                    }
                }
                told = control.told() => self.obey(told)?,
                close = orders.close() => return Err(close),
            }
            if self.outbox.is_broken() {
                return Ok(End::Dropped("the client's socket takes no more data".to_owned()));
            }
        }
    }

    /// How much more to read at once: a large frame to its end and hardly beyond, for parts of bodies stay in the buffer
    /// that they were read into, and would keep what follows them in memory too.
    fn read_bytes(&self, input: &[u8]) -> usize {
        let announced = frame::announced_len(input).unwrap_or(0);
        READ_BYTES
            .max(announced.min(self.frame_max as usize + 8))
            .saturating_sub(input.len())
            .max(READ_MIN_BYTES)
    }

    /// What an operator's change means for this connection.
    fn obey(&mut self, told: Told) -> Result<(), Close> {
        if let Some(reason) = told.close {
            return Err(Close::new(ReplyCode::ConnectionForced, reason, MethodId::NONE));
        }
        if told.timeouts
            && let Err(fault) = self.check_timeouts()
        {
            self.fault(fault)?;
        }
        if told.recheck {
            self.cancel_unreadable();
        }
        Ok(())
    }

    /// Channels open: the user's, the broker's.
    pub(super) fn channels_open(&self) -> (usize, usize) {
        self.ticket.channels()
    }

    /// By which others tell this connection things.
    pub(super) fn ticket_control(&self) -> &Control {
        &self.ticket.control
    }

    /// Waits for the end of an alarm without reading: the client's acks, heartbeats and even its close wait with its
    /// publishes, while deliveries, confirms and heartbeats still go out (amqp-behaviour 8.2). `Some` when the
    /// connection ended meanwhile.
    async fn blocked(&mut self, orders: &mut Orders, control: &Control) -> Result<Option<End>, Close> {
        let mut raised = self.broker.alarms().subscribe();
        let reason = raised.borrow_and_update().reason();
        if self.blocked_notify {
            let reason = reason.to_owned();
            self.outbox.method(0, &Method::ConnectionBlocked { reason });
        }
        tracing::info!(reason, "publisher blocked");
        loop {
            tokio::select! {
                cleared = raised.wait_for(|raised| !raised.any()) => {
                    drop(cleared);
                    break;
                }
                () = self.outbox.gone() => {
                    return Ok(Some(End::Dropped("the client's socket takes no more data".to_owned())));
                }
                told = control.told() => self.obey(told)?,
                close = orders.close() => return Err(close),
            }
        }
        if self.blocked_notify {
            self.outbox.method(0, &Method::ConnectionUnblocked);
        }
        tracing::info!("publisher unblocked");
        Ok(None)
    }

    /// Waits while the client does not take what it asked for, or the store does not keep up with what it publishes.
    async fn backpressure(&mut self) {
        if self.outbox.room() == 0 {
            self.outbox.wait_for_room().await;
        }
        if std::mem::take(&mut self.published) {
            self.broker.wait_for_store().await;
        }
    }
}

/// Resolves to connection.close when the broker stops.
async fn forced(shutdown: &mut watch::Receiver<Option<String>>) -> Close {
    let reason = shutdown.wait_for(Option::is_some).await;
    let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
    Close::new(ReplyCode::ConnectionForced, reason, MethodId::NONE)
}
