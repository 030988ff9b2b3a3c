//! A small blocking AMQP client: one connection, one channel, nothing hidden. What a kill leaves behind must not be
//! blurred by a library's own buffering and retries.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use leveret::protocol::{
    field::{FieldTable, ShortString},
    frame::{self, PROTOCOL_HEADER},
    method::Method,
    properties::ContentHeader,
};

const CHANNEL: u16 = 1;
const FRAME_MAX: u32 = 131_072;
/// A broker that says nothing for so long hangs: that is a finding, not a flake.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message as it came.
pub(crate) struct Received {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) properties: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

pub(crate) enum Event {
    Message(Received),
    Method(Method),
}

pub(crate) struct Client {
    socket: TcpStream,
    input: BytesMut,
    /// Set aside while something else was waited for.
    stash: VecDeque<Event>,
    out: BytesMut,
}

fn broken(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

impl Client {
    /// Connects and opens the channel.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self {
            socket,
            input: BytesMut::new(),
            stash: VecDeque::new(),
            out: BytesMut::new(),
        };
        client.socket.write_all(&PROTOCOL_HEADER)?;
        client.expect(|method| matches!(method, Method::ConnectionStart { .. }))?;
        client.method(
            0,
            &Method::ConnectionStartOk {
                client_properties: FieldTable::default(),
                mechanism: "PLAIN".to_owned(),
                response: Bytes::from_static(b"\0guest\0guest"),
                locale: "en_US".to_owned(),
            },
        );
        client.flush()?;
        client.expect(|method| matches!(method, Method::ConnectionTune { .. }))?;
        client.method(
            0,
            &Method::ConnectionTuneOk {
                channel_max: 10,
                frame_max: FRAME_MAX,
                heartbeat: 0,
            },
        );
        client.method(
            0,
            &Method::ConnectionOpen {
                virtual_host: "/".to_owned(),
            },
        );
        client.flush()?;
        client.expect(|method| matches!(method, Method::ConnectionOpenOk))?;
        client.call(&Method::ChannelOpen)?;
        Ok(client)
    }

    fn method(&mut self, channel: u16, method: &Method) {
        frame::write(&mut self.out, frame::METHOD, channel, |out| method.encode(out));
    }

    /// Appends a method for the channel; [`Client::flush`] sends it.
    pub(crate) fn send(&mut self, method: &Method) {
        self.method(CHANNEL, method);
    }

    pub(crate) fn publish(&mut self, exchange: &str, key: &str, properties: &[u8], body: &[u8]) {
        let name = |text: &str| ShortString::try_from(text.as_bytes()).expect("a short name");
        self.send(&Method::BasicPublish {
            exchange: name(exchange),
            routing_key: name(key),
            mandatory: false,
            immediate: false,
        });
        let header = ContentHeader {
            class: 60,
            weight: 0,
            body_size: body.len() as u64,
            properties,
        };
        frame::write(&mut self.out, frame::HEADER, CHANNEL, |out| header.encode(out));
        for part in body.chunks(FRAME_MAX as usize - frame::OVERHEAD) {
            frame::write(&mut self.out, frame::BODY, CHANNEL, |out| {
                out.extend_from_slice(part)
            });
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let out = self.out.split();
        self.socket.write_all(&out)
    }

    /// Sends a method and waits for the next one that is no delivery and no confirm; those are set aside.
    pub(crate) fn call(&mut self, method: &Method) -> io::Result<Method> {
        self.send(method);
        self.flush()?;
        self.expect(|method| !matches!(method, Method::BasicAck { .. } | Method::BasicNack { .. }))
    }

    fn expect(&mut self, wanted: impl Fn(&Method) -> bool) -> io::Result<Method> {
        let mut aside = VecDeque::new();
        loop {
            match self.read()? {
                Event::Method(method) if wanted(&method) => {
                    self.stash.append(&mut aside);
                    return Ok(method);
                }
                Event::Method(Method::ConnectionClose { reply_text, .. }) => return Err(broken(&reply_text)),
                other => aside.push_back(other),
            }
        }
    }

    /// The next message or method.
    pub(crate) fn next(&mut self) -> io::Result<Event> {
        match self.stash.pop_front() {
            Some(event) => Ok(event),
            None => self.read(),
        }
    }

    /// `basic.get`.
    pub(crate) fn get(&mut self, queue: &str, no_ack: bool) -> io::Result<Option<Received>> {
        self.send(&Method::BasicGet {
            queue: queue.to_owned(),
            no_ack,
        });
        self.flush()?;
        match self.read()? {
            Event::Message(received) => Ok(Some(received)),
            Event::Method(Method::BasicGetEmpty) => Ok(None),
            Event::Method(other) => Err(broken(&format!("basic.get was answered with {other:?}"))),
        }
    }

    fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            match frame::parse(&self.input, FRAME_MAX) {
                Ok(Some(found)) => {
                    let (kind, len, payload) = (found.kind, found.wire_len(), found.payload.to_vec());
                    self.input.advance(len);
                    return Ok((kind, payload));
                }
                Ok(None) => {}
                Err(error) => return Err(broken(&format!("the broker sent a bad frame: {error}"))),
            }
            let mut chunk = [0; 65_536];
            match self.socket.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self
                    .input
                    .extend_from_slice(chunk.get(..read).unwrap_or_default()),
            }
        }
    }

    fn read(&mut self) -> io::Result<Event> {
        let (kind, payload) = self.frame()?;
        if kind == frame::HEARTBEAT {
            return self.read();
        }
        if kind != frame::METHOD {
            return Err(broken("content without its method"));
        }
        let method = Method::decode(&payload).map_err(|error| broken(&error.to_string()))?;
        let (tag, redelivered) = match &method {
            Method::BasicDeliver {
                delivery_tag,
                redelivered,
                ..
            }
            | Method::BasicGetOk {
                delivery_tag,
                redelivered,
                ..
            } => (*delivery_tag, *redelivered),
            _ => return Ok(Event::Method(method)),
        };
        let (_, header) = self.frame()?;
        let header = ContentHeader::decode(&header).map_err(|error| broken(&error.to_string()))?;
        let (size, properties) = (header.body_size, header.properties.to_vec());
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            body.extend_from_slice(&self.frame()?.1);
        }
        Ok(Event::Message(Received {
            tag,
            redelivered,
            properties,
            body,
        }))
    }
}
