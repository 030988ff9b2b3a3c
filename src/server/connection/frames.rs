//! What one read brought: bytes to frames, frames to channels, and the connection's own methods. Hop 2 of a message's
//! walk begins here.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::{Connection, End, Next};
use crate::protocol::{
    assembler::{AssemblyError, SHARED_FRAME_MIN, Step, whole_publish},
    frame::{self, Frame},
    method::{Method, MethodId, decode_ack},
    reply_code::ReplyCode,
};
use crate::server::{
    channel::Channel,
    close::{Close, Fault},
    stats::add_one,
};

impl Connection {
    /// Handles every whole frame of the input.
    pub(super) async fn frames(&mut self, input: &mut BytesMut) -> Result<Next, Close> {
        let mut at = 0;
        self.traced = self.tap.begin_read();
        let result = loop {
            let rest = input.get(at..).unwrap_or(&[]);
            if let Some(publish) = whole_publish(rest, self.frame_max)
                && self
                    .channels
                    .get(&publish.channel)
                    .is_some_and(Channel::takes_publish)
            {
                if self.broker.alarms().any()
                    && let Some(next) = self.held_back()
                {
                    break Ok(next);
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
            if matches!(frame.kind, frame::HEADER | frame::BODY)
                && self.broker.alarms().any()
                && let Some(next) = self.held_back()
            {
                break Ok(next);
            }
            if frame.kind == frame::BODY
                && let Some(next) = self.count_body(&frame)
            {
                break next;
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
    pub(super) fn fault(&mut self, fault: Fault) -> Result<(), Close> {
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
        let body_max = self.broker.message_bytes_max();
        let pending = channel.assembler.pending().map_or(MethodId::NONE, Method::id);
        let step = channel
            .assembler
            .frame(&frame, shared, body_max)
            .map_err(|error| Fault::assembly(&error, frame.payload, pending))?;
        match step {
            Step::More => {}
            Step::Content(content) => {
                self.share.give_back(content.body_len);
                self.content(number, *content)?;
            }
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
}
