//! One task per client: bytes to frames, frames to channels, and the connection's own methods. Hops 1 and 2 of a
//! message's walk begin here.

use std::{sync::Arc, time::Duration};

use ahash::AHashMap;
use bytes::{Buf, BytesMut};
use tokio::{
    io::AsyncReadExt,
    net::tcp::OwnedReadHalf,
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use crate::broker::definition::Name;
use crate::protocol::{
    assembler::{AssemblyError, SHARED_FRAME_MIN, Step, whole_publish},
    frame::{self, Frame},
    method::{Method, MethodId, decode_ack},
    reply_code::ReplyCode,
};
use crate::server::{
    Broker,
    admission::{Control, Ticket, Told},
    channel::Channel,
    clients::Client,
    close::{Close, Fault},
    farewell::{Farewell, LastWord, drain},
    firehose::Tap,
    handshake::Established,
    outbox::Outbox,
    publisher::{Batch, Routes},
    queue_cell::{ConnectionId, QueueHandle},
    registry::{DeleteIf, Vhost},
    rights::Rights,
    stats::{PublishTally, add_one},
};

/// What one read takes at most; a connection's input never grows beyond this and one frame.
const READ_BYTES: usize = 128 * 1024;
/// How long we wait for close-ok when there is no heartbeat to go by.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a client that got its close-ok may take to hang up.
const HANG_UP_WAIT: Duration = Duration::from_secs(1);

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
    /// What of this read is published goes to the firehose.
    pub(super) traced: bool,
    pub(super) tally: PublishTally,
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
        let tap = Tap::new(&vhost, announcer, &client.name, &client.user, &node);
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
            }
            // A client that takes nothing can still be told to go.
            tokio::select! {
                biased;
                () = self.backpressure() => {}
                close = orders.close() => return Err(close),
                told = control.told() => self.obey(told)?,
            }
            input.reserve(
                READ_BYTES.max(
                    frame::announced_len(input)
                        .unwrap_or(0)
                        .min(self.frame_max as usize + 8),
                ),
            );
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

    /// Handles every whole frame of the input.
    async fn frames(&mut self, input: &mut BytesMut) -> Result<Next, Close> {
        let mut at = 0;
        self.traced = self.tap.is_on();
        let result = loop {
            let rest = input.get(at..).unwrap_or(&[]);
            if let Some(publish) = whole_publish(rest, self.frame_max)
                && self
                    .channels
                    .get(&publish.channel)
                    .is_some_and(Channel::takes_publish)
            {
                if self.broker.alarms().any() {
                    break Ok(Next::Blocked);
                }
                at += publish.wire_len;
                let channel = publish.channel;
                if let Err(fault) =
                    self.publish(channel, publish.fields, publish.properties, publish.body.into())
                {
                    self.fault(fault)?;
                }
                continue;
            }
            let frame = match frame::parse(rest, self.frame_max) {
                Ok(None) => break Ok(Next::Read),
                Ok(Some(frame)) => frame,
                Err(error) => break Err(Fault::frame(&error)),
            };
            if matches!(frame.kind, frame::HEADER | frame::BODY) && self.broker.alarms().any() {
                break Ok(Next::Blocked);
            }
            let len = frame.wire_len();
            let next = if frame.kind == frame::BODY && frame.payload.len() >= SHARED_FRAME_MIN {
                let (kind, channel) = (frame.kind, frame.channel);
                input.advance(at);
                at = 0;
                let whole = input.split_to(len).freeze();
                let payload = whole.slice(frame::HEAD..len - 1);
                let frame = Frame {
                    kind,
                    channel,
                    payload: &payload,
                };
                self.frame(frame, Some(payload.clone())).await
            } else {
                at += len;
                self.frame(frame, None).await
            };
            match next {
                Ok(Next::Read) => {}
                Ok(closed) => break Ok(closed),
                Err(fault) => self.fault(fault)?,
            }
        };
        input.advance(at);
        match result {
            Ok(next) => Ok(next),
            Err(fault) => self.fault(fault).map(|()| Next::Read),
        }
    }

    /// Turns a fault into a channel.close, or gives back the connection.close that ends the loop.
    fn fault(&mut self, fault: Fault) -> Result<(), Close> {
        self.batch.flush();
        match fault {
            Fault::Connection(close) => Err(close),
            Fault::Channel { channel, close } => {
                tracing::warn!(channel, error = %close.text, method = %close.id, "channel closed");
                self.release_channel(channel);
                self.outbox.method(channel, &close.channel_method());
                Ok(())
            }
        }
    }

    async fn frame(&mut self, frame: Frame<'_>, shared: Option<bytes::Bytes>) -> Result<Next, Fault> {
        let number = frame.channel;
        if number == 0 || frame.kind == frame::HEARTBEAT {
            return self.connection_frame(frame);
        }
        let Some(channel) = self.channels.get_mut(&number) else {
            return self.first_frame(frame);
        };
        if channel.takes_publish()
            && let Some([0, 60, 0, 80, fields @ ..]) = (frame.kind == frame::METHOD).then_some(frame.payload)
        {
            let (tag, bits) = decode_ack(fields).map_err(|error| Fault::method(&error, frame.payload))?;
            return self.ack(number, tag, bits & 1 != 0).map(|()| Next::Read);
        }
        if channel.is_closing() {
            return self.frame_while_closing(frame);
        }
        let body_max = self.broker.limits().max_message_bytes;
        let pending = channel.assembler.pending().map_or(MethodId::NONE, Method::id);
        let step = channel
            .assembler
            .frame(&frame, shared, body_max)
            .map_err(|error| Fault::assembly(&error, frame.payload, pending))?;
        match step {
            Step::More => {}
            Step::Content(content) => self.content(number, *content)?,
            Step::Oversized(method, size) => {
                return Err(Fault::oversized(number, &method, size, body_max));
            }
            Step::Method(method) => {
                self.batch.flush();
                self.method(number, method).await?;
            }
        }
        Ok(Next::Read)
    }

    /// The first frame on a channel number creates the channel: it must be channel.open (amqp-behaviour 1.6).
    fn first_frame(&mut self, frame: Frame<'_>) -> Result<Next, Fault> {
        if frame.kind != frame::METHOD {
            return Err(Fault::assembly(
                &AssemblyError::ExpectedMethod,
                frame.payload,
                MethodId::NONE,
            ));
        }
        let method = Method::decode(frame.payload).map_err(|error| Fault::method(&error, frame.payload))?;
        match method {
            Method::ChannelOpen => {}
            // Both sides closed the channel at once: these answer what is already gone.
            Method::ChannelCloseOk => return Ok(Next::Read),
            other => {
                return Err(Fault::connection(
                    ReplyCode::ChannelError,
                    "expected 'channel.open'",
                    other.id(),
                ));
            }
        }
        let (open, max) = (self.channels.len(), usize::from(self.channel_max));
        if max != 0 && open >= max {
            let text =
                format!("number of channels opened ({open}) has reached the negotiated channel_max ({max})");
            return Err(Fault::connection(ReplyCode::NotAllowed, text, MethodId::NONE));
        }
        self.check_channel_limits()?;
        let channel = Channel::new(
            &self.ticket,
            frame.channel,
            self.id,
            Arc::clone(&self.outbox),
            self.frame_max,
            self.cancel_notify,
            Arc::clone(&self.tap),
        );
        self.announce_channel("channel.created", frame.channel);
        self.client.add_channel(&channel.out);
        add_one(&self.broker.queues.churn.channels_created);
        self.channels.insert(frame.channel, channel);
        self.outbox.method(frame.channel, &Method::ChannelOpenOk);
        Ok(Next::Read)
    }

    /// After our channel.close everything is read over until the client's close-ok (amqp-behaviour 2.1).
    fn frame_while_closing(&mut self, frame: Frame<'_>) -> Result<Next, Fault> {
        let id = MethodId::split(frame.payload).map(|(id, _)| id);
        match id {
            Ok(MethodId::CHANNEL_CLOSE_OK) if frame.kind == frame::METHOD => {
                self.channels.remove(&frame.channel);
            }
            Ok(MethodId::CHANNEL_CLOSE) if frame.kind == frame::METHOD => {
                self.outbox.method(frame.channel, &Method::ChannelCloseOk);
            }
            Ok(id @ MethodId::CHANNEL_OPEN) if frame.kind == frame::METHOD => {
                return Err(Fault::connection(
                    ReplyCode::ChannelError,
                    "second 'channel.open' seen",
                    id,
                ));
            }
            _ => {}
        }
        Ok(Next::Read)
    }

    fn connection_frame(&mut self, frame: Frame<'_>) -> Result<Next, Fault> {
        if frame.kind == frame::HEARTBEAT && frame.channel == 0 {
            return Ok(Next::Read);
        }
        if frame.kind != frame::METHOD {
            let text = format!("type {}, {}", frame.kind, frame::octets(frame.payload));
            return Err(Fault::connection(
                ReplyCode::UnexpectedFrame,
                text,
                MethodId::NONE,
            ));
        }
        let method = Method::decode(frame.payload).map_err(|error| Fault::method(&error, frame.payload))?;
        match method {
            Method::ConnectionClose { .. } => Ok(Next::Closed(End::ByClient)),
            Method::ConnectionUpdateSecret { .. } => {
                self.outbox.method(0, &Method::ConnectionUpdateSecretOk);
                Ok(Next::Read)
            }
            other => {
                let text = "unexpected method in connection state running";
                Err(Fault::connection(ReplyCode::ChannelError, text, other.id()))
            }
        }
    }

    /// Gives back what the connection held: unacked messages to their queues, exclusive queues to nothing.
    fn release(&mut self) {
        self.batch.flush();
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        for number in numbers {
            self.release_channel(number);
        }
        self.channels.clear();
        for queue in self.exclusive.drain(..) {
            if let Err(error) = self.vhost.delete_queue(&queue, DeleteIf::default()) {
                tracing::error!(queue = %queue.name(), %error, "an exclusive queue could not be deleted");
            }
        }
    }

    /// How long the last words may take, and who is to hear them.
    fn farewell<'a>(
        &self,
        socket: &'a mut OwnedReadHalf,
        input: &'a mut BytesMut,
    ) -> Farewell<'a, OwnedReadHalf> {
        Farewell {
            socket,
            input,
            frame_max: self.frame_max,
            unframed: self.broker.limits().failure_delay,
        }
    }

    /// After our close-ok: the client hangs up. Should it say close once more, it is answered once more.
    async fn await_hanging_up(&mut self, socket: &mut OwnedReadHalf, input: &mut BytesMut) {
        let mut farewell = self.farewell(socket, input);
        let wait = async {
            while let Some(word) = farewell.next().await {
                if word == LastWord::Close {
                    self.outbox.method(0, &Method::ConnectionCloseOk);
                }
            }
        };
        drop(tokio::time::timeout(HANG_UP_WAIT, wait).await);
    }

    /// After our connection.close: input is read over until close-ok, a close, or the end of patience.
    async fn await_close_ok(&mut self, socket: &mut OwnedReadHalf, input: &mut BytesMut) {
        let patience = if self.heartbeat.is_zero() {
            CLOSE_WAIT_MAX
        } else {
            self.heartbeat.min(CLOSE_WAIT_MAX)
        };
        let mut farewell = self.farewell(socket, input);
        // Both sides may have closed at once: the client's close is answered, and our own is then done with.
        if let Ok(Some(LastWord::Close)) = tokio::time::timeout(patience, farewell.next()).await {
            self.outbox.method(0, &Method::ConnectionCloseOk);
        }
    }
}

/// Resolves to connection.close when the broker stops.
async fn forced(shutdown: &mut watch::Receiver<Option<String>>) -> Close {
    let reason = shutdown.wait_for(Option::is_some).await;
    let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
    Close::new(ReplyCode::ConnectionForced, reason, MethodId::NONE)
}
