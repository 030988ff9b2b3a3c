//! The socket of a test client: frames out, events in, kept in order per channel.

use std::{
    collections::{HashMap, VecDeque},
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use amq_protocol::{
    frame::{AMQPFrame, parse_frame},
    protocol::{basic, channel, connection},
};

use super::methods::{BasicProperties, Method, Request, ids};

/// A broker that says nothing for this long has forgotten us.
const PATIENCE: Duration = Duration::from_secs(30);

/// What closed a channel or a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) class: u16,
    pub(crate) method: u16,
}

/// A content that came: delivered, got or returned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) consumer: String,
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: String,
    pub(crate) key: String,
    /// What get-ok says remains.
    pub(crate) remaining: u32,
    /// Code and text of basic.return.
    pub(crate) reply: (u16, String),
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// A header by name.
    pub(crate) fn header(&self, name: &str) -> Option<&super::Value> {
        self.properties.headers().as_ref()?.inner().get(name)
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Delivery(Message),
    Got(Message),
    Returned(Message),
    Method(Method),
}

impl Event {
    /// Whether it answers a method; the rest comes by itself.
    fn is_reply(&self) -> bool {
        match self {
            Self::Got(_) => true,
            Self::Delivery(_) | Self::Returned(_) => false,
            Self::Method(Method::Basic(method)) => !matches!(
                method,
                basic::AMQPMethod::Ack(_) | basic::AMQPMethod::Nack(_) | basic::AMQPMethod::Cancel(_)
            ),
            Self::Method(_) => true,
        }
    }

    fn is_close(&self) -> bool {
        matches!(
            self,
            Self::Method(
                Method::Channel(channel::AMQPMethod::Close(_))
                    | Method::Connection(connection::AMQPMethod::Close(_))
            )
        )
    }
}

/// A content of which the header and perhaps bodies are outstanding.
struct Partial {
    event: Event,
    missing: Option<u64>,
}

pub(super) struct Wire {
    socket: TcpStream,
    input: Vec<u8>,
    events: HashMap<u16, VecDeque<Event>>,
    partial: HashMap<u16, Partial>,
    pub(super) frame_max: u32,
    pub(super) last_channel: u16,
}

impl Wire {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
        Self {
            socket,
            input: Vec::new(),
            events: HashMap::new(),
            partial: HashMap::new(),
            frame_max: 8192,
            last_channel: 0,
        }
    }

    pub(super) fn shutdown(&self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
    }

    pub(super) fn send(&mut self, channel: u16, request: &impl Request) {
        let out = request.encode(channel, self.frame_max);
        // A peer that closed is noticed when its close is read.
        drop(self.socket.write_all(&out));
    }

    /// Reads one frame into the events. False when time is over, `Err` when the socket is closed.
    fn read(&mut self, until: Instant) -> Result<bool, ()> {
        loop {
            match parse_frame(&self.input[..]) {
                Ok((rest, frame)) => {
                    let used = self.input.len() - rest.len();
                    self.input.drain(..used);
                    self.take(frame);
                    return Ok(true);
                }
                Err(error) if error.is_incomplete() => {}
                Err(error) => panic!(
                    "the broker sent no frame: {error:?} {:?}",
                    &self.input[..self.input.len().min(64)]
                ),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 64 * 1024];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(()),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(false);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(()),
            }
        }
    }

    fn take(&mut self, frame: AMQPFrame) {
        let channel = frame.channel_id();
        match frame {
            AMQPFrame::Heartbeat => {}
            AMQPFrame::Method(_, method) => match content(&method) {
                Some(event) => {
                    let missing = None;
                    let before = self.partial.insert(channel, Partial { event, missing });
                    assert!(before.is_none(), "a method in the middle of a content");
                }
                None => self.push(channel, Event::Method(method)),
            },
            AMQPFrame::Header(_, header) => {
                let partial = self.partial.get_mut(&channel).expect("a header without a method");
                assert_eq!(header.class_id, 60);
                partial.missing = Some(header.body_size);
                let (Event::Delivery(message) | Event::Got(message) | Event::Returned(message)) =
                    &mut partial.event
                else {
                    panic!("no content");
                };
                message.properties = header.properties;
                self.finish(channel);
            }
            AMQPFrame::Body(_, body) => {
                let partial = self.partial.get_mut(&channel).expect("a body without a header");
                let missing = partial.missing.as_mut().expect("a body before its header");
                *missing = missing
                    .checked_sub(body.len() as u64)
                    .expect("more body than announced");
                let (Event::Delivery(message) | Event::Got(message) | Event::Returned(message)) =
                    &mut partial.event
                else {
                    panic!("no content");
                };
                message.body.extend_from_slice(&body);
                self.finish(channel);
            }
            other => panic!("the broker sent {other:?}"),
        }
    }

    fn finish(&mut self, channel: u16) {
        if self
            .partial
            .get(&channel)
            .is_some_and(|partial| partial.missing == Some(0))
        {
            let partial = self.partial.remove(&channel).unwrap();
            self.push(channel, partial.event);
        }
    }

    fn push(&mut self, channel: u16, event: Event) {
        self.events.entry(channel).or_default().push_back(event);
    }

    /// Takes the first event of a channel that is `wanted`, reading until there is one. A close of the channel or of
    /// the connection that comes first is given as the error.
    fn find(
        &mut self,
        channel: u16,
        until: Instant,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Option<Event>, Close> {
        loop {
            let events = self.events.entry(channel).or_default();
            if let Some(at) = events.iter().position(|event| wanted(event) || event.is_close()) {
                let event = events.remove(at).unwrap();
                return if event.is_close() {
                    Err(self.answer(channel, &event))
                } else {
                    Ok(Some(event))
                };
            }
            if channel != 0
                && let Some(at) = self.events.entry(0).or_default().iter().position(Event::is_close)
            {
                let event = self.events.get_mut(&0).unwrap().remove(at).unwrap();
                return Err(self.answer(0, &event));
            }
            match self.read(until) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(()) => panic!("the broker closed the socket without a word; channel {channel} waits"),
            }
        }
    }

    /// Answers a close and gives its fields.
    fn answer(&mut self, channel: u16, event: &Event) -> Close {
        match event {
            Event::Method(Method::Channel(channel::AMQPMethod::Close(close))) => {
                self.send(
                    channel,
                    &Method::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})),
                );
                Close {
                    code: close.reply_code,
                    text: close.reply_text.to_string(),
                    class: close.class_id,
                    method: close.method_id,
                }
            }
            Event::Method(Method::Connection(connection::AMQPMethod::Close(close))) => {
                self.send(
                    0,
                    &Method::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {})),
                );
                Close {
                    code: close.reply_code,
                    text: close.reply_text.to_string(),
                    class: close.class_id,
                    method: close.method_id,
                }
            }
            other => panic!("{other:?} is no close"),
        }
    }

    /// The reply to the method just sent; what came before and is no reply stays.
    pub(super) fn reply(&mut self, channel: u16, to: String) -> Result<Event, Close> {
        let found = self.find(channel, Instant::now() + PATIENCE, Event::is_reply)?;
        Ok(found.unwrap_or_else(|| panic!("no answer to {to}")))
    }

    pub(super) fn next(&mut self, channel: u16) -> Event {
        self.next_within(channel, PATIENCE)
            .expect("the broker sends nothing")
    }

    pub(super) fn next_within(&mut self, channel: u16, patience: Duration) -> Option<Event> {
        self.find(channel, Instant::now() + patience, |_| true)
            .unwrap_or_else(|close| panic!("closed: {close:?}"))
    }

    pub(super) fn next_method(&mut self, channel: u16) -> Method {
        match self.next(channel) {
            Event::Method(method) => method,
            other => panic!("{other:?} instead of a method"),
        }
    }

    pub(super) fn put_back(&mut self, channel: u16, events: Vec<Event>) {
        let waiting = self.events.entry(channel).or_default();
        events
            .into_iter()
            .rev()
            .for_each(|event| waiting.push_front(event));
    }

    pub(super) fn take_waiting(&mut self, channel: u16) -> Vec<Event> {
        self.events.remove(&channel).unwrap_or_default().into()
    }

    /// The method that must come next, by its name.
    pub(super) fn expect_method(&mut self, channel: u16, name: &str) -> Result<Method, Close> {
        let expected = match name {
            "connection.start" => (10, 10),
            "connection.tune" => (10, 30),
            "connection.open-ok" => (10, 41),
            "connection.close-ok" => (10, 51),
            other => panic!("{other} is not in the list"),
        };
        match self.find(channel, Instant::now() + PATIENCE, |_| true)? {
            Some(Event::Method(method)) if ids(&method) == expected => Ok(method),
            other => panic!("{other:?} instead of {name}"),
        }
    }

    pub(super) fn expect_channel_close(&mut self, channel: u16) -> Close {
        match self.find(channel, Instant::now() + PATIENCE, |_| false) {
            Err(close) => {
                self.events.remove(&channel);
                close
            }
            Ok(_) => panic!("the channel stays open"),
        }
    }

    /// A close of the connection, and the end of the socket after our close-ok.
    pub(super) fn expect_connection_close(&mut self) -> Close {
        let Err(close) = self.find(0, Instant::now() + PATIENCE, |_| false) else {
            panic!("the connection stays open");
        };
        while let Ok(more) = self.read(Instant::now() + PATIENCE) {
            assert!(more, "the broker keeps the socket open");
        }
        close
    }
}

/// The event that a method with content begins.
fn content(method: &Method) -> Option<Event> {
    let Method::Basic(method) = method else {
        return None;
    };
    Some(match method {
        basic::AMQPMethod::Deliver(deliver) => Event::Delivery(Message {
            consumer: deliver.consumer_tag.to_string(),
            tag: deliver.delivery_tag,
            redelivered: deliver.redelivered,
            exchange: deliver.exchange.to_string(),
            key: deliver.routing_key.to_string(),
            ..Message::default()
        }),
        basic::AMQPMethod::GetOk(got) => Event::Got(Message {
            tag: got.delivery_tag,
            redelivered: got.redelivered,
            exchange: got.exchange.to_string(),
            key: got.routing_key.to_string(),
            remaining: got.message_count,
            ..Message::default()
        }),
        basic::AMQPMethod::Return(returned) => Event::Returned(Message {
            reply: (returned.reply_code, returned.reply_text.to_string()),
            exchange: returned.exchange.to_string(),
            key: returned.routing_key.to_string(),
            ..Message::default()
        }),
        _ => return None,
    })
}
