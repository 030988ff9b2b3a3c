//! The broker that messages are taken from, over AMQP: one connection per virtual host, a channel for each queue in turn.
//! Messages are fetched and not consumed: a fetch needs no place among consumers, however exclusive they are, it ends where
//! the queue does, and nothing waits here for its turn.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use super::{
    frame::{BODY, HEADER, METHOD, PROTOCOL_HEADER, parse},
    uri::Uri,
    wire::{self, Id, Method, Reader},
};

/// How often a read that waits looks whether somebody wants the end.
const LOOK: Duration = Duration::from_millis(200);
/// A broker that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Fetches under way at a time: few enough that they always fit the socket's buffers.
const WINDOW: usize = 64;
/// Messages of one batch.
const BATCH: usize = 1000;
/// Bytes of one batch; the fetches that are under way then come on top.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// No broker has larger messages.
const BODY_BYTES_MAX: u64 = 512 * 1024 * 1024;
const READ_BYTES: usize = 128 * 1024;
/// Whatever was agreed: nothing is allocated from a frame's declared size.
const NO_LIMIT: u32 = 0;

/// Why it went no further.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Somebody wants the end.
    Interrupted,
    /// The broker closed the channel.
    Channel { code: u16, text: String },
    /// The connection is of no more use.
    Connection(String),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error.to_string())
    }
}

/// Messages in the order in which they came, packed as the other side takes them.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// The delivery tag of each, and where it ends among the bytes.
    pub(super) messages: Vec<(u64, usize)>,
    /// The queue had no more.
    pub(super) empty: bool,
}

pub(super) struct Source<'a> {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the bytes begin that are not read yet.
    at: usize,
    channel: u16,
    /// Bytes of the last messages, on average: how many may be under way.
    average: usize,
    interrupted: &'a dyn Fn() -> bool,
}

impl<'a> Source<'a> {
    /// Connects and opens a virtual host.
    ///
    /// # Errors
    /// No broker there, wrong password, no such vhost.
    pub(super) fn open(uri: &Uri, vhost: &str, interrupted: &'a dyn Fn() -> bool) -> Result<Self, Trouble> {
        let stream = TcpStream::connect((uri.host.as_str(), uri.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut source = Self {
            stream,
            buffer: Vec::new(),
            at: 0,
            channel: 0,
            average: BATCH_BYTES,
            interrupted,
        };
        source.stream.write_all(&PROTOCOL_HEADER)?;
        source.answer(0, &[wire::START])?;
        let response = format!("\0{}\0{}", uri.user, uri.password);
        // authentication_failure_close: a wrong password is answered and not just cut off.
        let capability = [&b"\x1cauthentication_failure_closet\x01"[..]].concat();
        let mut properties = b"\x0ccapabilitiesF".to_vec();
        properties.extend(u32::try_from(capability.len()).unwrap_or(0).to_be_bytes());
        properties.extend(capability);
        properties.extend(b"\x0fconnection_nameS\x00\x00\x00\x12leveretctl migrate");
        let start_ok = Method::new(0, wire::START_OK).long(&properties);
        source.send(start_ok.short("PLAIN").long(response.as_bytes()).short("en_US"))?;
        let (_, tune) = source.answer(0, &[wire::TUNE])?;
        let limits = tune.get(4..10).unwrap_or(&[0; 6]).to_vec();
        // No heartbeats: while a batch is on its way to its new queue, nobody here would send any.
        source.send(Method::new(0, wire::TUNE_OK).bytes(&limits).u16(0))?;
        source.send(Method::new(0, wire::OPEN).short(vhost).bytes(&[0, 0]))?;
        source.answer(0, &[wire::OPEN_OK])?;
        Ok(source)
    }

    /// Opens a channel for a queue and tells how many messages are ready in it, and how many consumers it has.
    ///
    /// # Errors
    /// [`Trouble::Channel`] for a queue that does not exist or belongs to another connection.
    pub(super) fn enter(&mut self, queue: &str) -> Result<(u32, u32), Trouble> {
        // A number is free again as soon as its channel is closed.
        self.channel = 1;
        self.send(Method::new(self.channel, wire::CHANNEL_OPEN).bytes(&[0]))?;
        self.answer(self.channel, &[wire::CHANNEL_OPEN_OK])?;
        let passive = Method::new(self.channel, wire::DECLARE)
            .u16(0)
            .short(queue)
            .bytes(&[1])
            .long(b"");
        self.send(passive)?;
        let (_, declared) = self.answer(self.channel, &[wire::DECLARE_OK])?;
        let ready = Reader::method(&declared).and_then(|(_, mut arguments)| {
            arguments.short()?;
            Some((arguments.u32()?, arguments.u32()?))
        });
        ready.ok_or_else(|| malformed("queue.declare-ok"))
    }

    /// Leaves the queue; what was fetched and not acknowledged goes back to its place there.
    ///
    /// # Errors
    /// When the connection fails.
    pub(super) fn leave(&mut self) -> Result<(), Trouble> {
        self.send(
            Method::new(self.channel, wire::CHANNEL_CLOSE)
                .u16(200)
                .short("done")
                .bytes(&[0; 4]),
        )?;
        self.answer(self.channel, &[wire::CHANNEL_CLOSE_OK]).map(drop)
    }

    /// Fetches what is there, up to the size of a batch.
    ///
    /// # Errors
    /// See [`Trouble`]; nothing of the batch is lost, because nothing is acknowledged.
    pub(super) fn fetch(&mut self, queue: &str) -> Result<Batch, Trouble> {
        let get = Method::new(self.channel, wire::GET)
            .u16(0)
            .short(queue)
            .bytes(&[0])
            .frame();
        let mut batch = Batch::default();
        let (mut asked, mut answered) = (0, 0);
        loop {
            let window = (BATCH_BYTES / self.average.max(1)).clamp(1, WINDOW);
            let mut burst = Vec::new();
            while !batch.empty
                && asked < BATCH
                && batch.bytes.len() < BATCH_BYTES
                && asked - answered < window
            {
                burst.extend(&get);
                asked += 1;
            }
            self.stream.write_all(&burst)?;
            if asked == answered {
                return Ok(batch);
            }
            let (id, arguments) = self.answer(self.channel, &[wire::GET_OK, wire::GET_EMPTY])?;
            answered += 1;
            if id == wire::GET_EMPTY {
                batch.empty = true;
                continue;
            }
            let before = batch.bytes.len();
            let tag = self.take(&arguments, &mut batch.bytes)?;
            batch.messages.push((tag, batch.bytes.len()));
            let size = batch.bytes.len() - before;
            self.average = if answered == 1 {
                size
            } else {
                (self.average * 3 + size) / 4
            };
        }
    }

    /// Packs the message that basic.get-ok announces.
    fn take(&mut self, announced: &[u8], out: &mut Vec<u8>) -> Result<u64, Trouble> {
        let (_, mut arguments) = Reader::method(announced).ok_or_else(|| malformed("basic.get-ok"))?;
        let (tag, redelivered) = (arguments.u64(), arguments.u8());
        let (Some(tag), Some(redelivered), Some(exchange), Some(key)) =
            (tag, redelivered, arguments.short(), arguments.short())
        else {
            return Err(malformed("basic.get-ok"));
        };
        for text in [exchange, key] {
            out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            out.extend(text);
        }
        out.push(redelivered);
        let header = self.next_of(HEADER)?;
        let (size, properties) = wire::content(&header).ok_or_else(|| malformed("a content header"))?;
        let length = u32::try_from(size).ok().filter(|_| size <= BODY_BYTES_MAX);
        let length = length.ok_or_else(|| malformed("a message's size"))?;
        out.extend(u32::try_from(properties.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(properties);
        out.extend(length.to_be_bytes());
        let mut left = usize::try_from(size).unwrap_or(usize::MAX);
        while left > 0 {
            let body = self.next_of(BODY)?;
            left = left
                .checked_sub(body.len())
                .ok_or_else(|| malformed("a message's body"))?;
            out.extend(body);
        }
        Ok(tag)
    }

    /// Acknowledges these, the lowest first: all that was fetched in one go when `all`.
    ///
    /// # Errors
    /// When the connection fails.
    pub(super) fn acknowledge(&mut self, tags: &[u64], all: bool) -> Result<(), Trouble> {
        let ack = |tag: u64, multiple: bool| {
            Method::new(self.channel, wire::ACK)
                .u64(tag)
                .bytes(&[u8::from(multiple)])
                .frame()
        };
        let frames: BytesMut = match tags.last() {
            Some(last) if all => ack(*last, true),
            _ => tags.iter().flat_map(|tag| ack(*tag, false)).collect(),
        };
        self.stream.write_all(&frames)?;
        Ok(())
    }

    /// Says goodbye; once it is answered, every acknowledgement has arrived.
    ///
    /// # Errors
    /// When the connection fails.
    pub(super) fn close(mut self) -> Result<(), Trouble> {
        self.send(Method::new(0, wire::CLOSE).u16(200).short("done").bytes(&[0; 4]))?;
        self.answer(0, &[wire::CLOSE_OK]).map(drop)
    }

    fn send(&mut self, method: Method) -> Result<(), Trouble> {
        self.stream.write_all(&method.frame())?;
        Ok(())
    }

    /// The next method, which must be one of these; its whole payload.
    fn answer(&mut self, channel: u16, expected: &[Id]) -> Result<(Id, Vec<u8>), Trouble> {
        loop {
            let (kind, on, payload) = self.next()?;
            if kind != METHOD {
                continue;
            }
            let (id, mut arguments) = Reader::method(&payload).ok_or_else(|| malformed("a method"))?;
            if on == channel && expected.contains(&id) {
                return Ok((id, payload));
            }
            if id == wire::CLOSE || id == wire::CHANNEL_CLOSE {
                let code = arguments.u16().unwrap_or(0);
                let text = String::from_utf8_lossy(arguments.short().unwrap_or_default()).into_owned();
                if id == wire::CLOSE {
                    return Err(Trouble::Connection(format!(
                        "it closed the connection: {code} {text}"
                    )));
                }
                self.send(Method::new(on, wire::CHANNEL_CLOSE_OK))?;
                return Err(Trouble::Channel { code, text });
            }
        }
    }

    /// The payload of the next frame of this type; heartbeats may come before it.
    fn next_of(&mut self, wanted: u8) -> Result<Vec<u8>, Trouble> {
        loop {
            let (kind, _, payload) = self.next()?;
            if kind == wanted {
                return Ok(payload);
            }
            if kind == METHOD {
                return Err(malformed("a message that ends early"));
            }
        }
    }

    /// The next frame: type, channel and payload.
    fn next(&mut self) -> Result<(u8, u16, Vec<u8>), Trouble> {
        let begun = Instant::now();
        loop {
            let unread = self.buffer.get(self.at..).unwrap_or_default();
            let frame = parse(unread, NO_LIMIT)
                .map_err(|error| Trouble::Connection(format!("this is no AMQP 0-9-1: {error}")))?;
            if let Some(frame) = frame {
                self.at += frame.wire_len();
                return Ok((frame.kind, frame.channel, frame.payload.to_vec()));
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            let whole = self.buffer.len();
            self.buffer.resize(whole + READ_BYTES, 0);
            let room = self.buffer.get_mut(whole..).unwrap_or_default();
            let read = self.stream.read(room);
            self.buffer
                .truncate(whole + read.as_ref().map_or(0, |read| *read));
            match read {
                Ok(0) => return Err(Trouble::Connection("it closed the connection".to_owned())),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if (self.interrupted)() {
                        return Err(Trouble::Interrupted);
                    }
                    if begun.elapsed() > PATIENCE {
                        return Err(Trouble::Connection("it says nothing any more".to_owned()));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn malformed(what: &str) -> Trouble {
    Trouble::Connection(format!("{what} makes no sense"))
}
