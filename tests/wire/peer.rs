//! A client that says exactly what it is told to, over a raw blocking socket.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use crate::bytes::{
    Args, BASIC_GET, BASIC_GET_EMPTY, BASIC_GET_OK, BODY, CHANNEL_CLOSE, CHANNEL_OPEN, CHANNEL_OPEN_OK,
    CONFIRM_SELECT, CONFIRM_SELECT_OK, CONNECTION_CLOSE, CONNECTION_CLOSE_OK, CONNECTION_OPEN,
    CONNECTION_OPEN_OK, CONNECTION_START, CONNECTION_START_OK, CONNECTION_TUNE, CONNECTION_TUNE_OK, END,
    Fields, HEADER, HEARTBEAT, METHOD, PROTOCOL, QUEUE_DECLARE, QUEUE_DECLARE_OK, bool_entry, method,
    nested_entry,
};

/// Nothing takes this long; a test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) channel: u16,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Class and method of a method frame.
    pub(crate) fn id(&self) -> Option<(u16, u16)> {
        let mut fields = Fields(&self.payload);
        (self.kind == METHOD).then(|| (fields.short(), fields.short()))
    }
}

/// The fields of a close.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) id: (u16, u16),
}

impl Close {
    fn read(payload: &[u8]) -> Self {
        let mut fields = Fields(&payload[4..]);
        let close = Self {
            code: fields.short(),
            text: fields.str(),
            id: (fields.short(), fields.short()),
        };
        assert!(fields.is_empty(), "a close has nothing behind its ids");
        close
    }
}

/// A message as get or deliver brought it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The method's arguments.
    pub(crate) args: Vec<u8>,
    pub(crate) properties: Vec<u8>,
    pub(crate) body: Vec<u8>,
    /// Octets of each body frame's payload.
    pub(crate) parts: Vec<usize>,
}

pub(crate) struct Peer {
    socket: TcpStream,
    input: Vec<u8>,
    /// Heartbeats that were read over.
    pub(crate) heartbeats: usize,
}

impl Peer {
    /// Connects and sends nothing.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    /// Connects from 127.0.0.`host`, which is another address to the broker.
    pub(crate) fn connect_from(address: SocketAddr, host: u8) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into())
            .unwrap();
        socket.connect(&address.into()).unwrap();
        Self::of(socket.into())
    }

    fn of(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            input: Vec::new(),
            heartbeats: 0,
        }
    }

    /// A connection to `/` as guest, without heartbeats, tuned to all that is offered.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let mut peer = Self::connect(address);
        peer.shake_hands(0, &[]);
        peer
    }

    /// The same, with channel 1 open.
    pub(crate) fn with_channel(address: SocketAddr) -> Self {
        let mut peer = Self::open(address);
        peer.open_channel(1);
        peer
    }

    /// The same, with a heartbeat interval in seconds and the capabilities named.
    pub(crate) fn open_with(address: SocketAddr, heartbeat: u16, capabilities: &[&str]) -> Self {
        let mut peer = Self::connect(address);
        peer.shake_hands(heartbeat, capabilities);
        peer
    }

    fn shake_hands(&mut self, heartbeat: u16, capabilities: &[&str]) {
        self.log_in(capabilities, b"PLAIN", b"\0guest\0guest");
        let (channel_max, frame_max, _) = self.tune();
        self.send(&tune_ok(channel_max, frame_max, heartbeat));
        self.send(&open("/"));
        self.expect(0, CONNECTION_OPEN_OK);
    }

    /// Header and start-ok; what follows is the caller's.
    pub(crate) fn log_in(&mut self, capabilities: &[&str], mechanism: &[u8], response: &[u8]) {
        self.send(PROTOCOL);
        self.expect(0, CONNECTION_START);
        let entries: Vec<Vec<u8>> = capabilities.iter().map(|name| bool_entry(name, true)).collect();
        let properties = nested_entry("capabilities", b'F', &entries.concat());
        self.send(&start_ok(&properties, mechanism, response));
    }

    /// Reads tune: channel_max, frame_max, heartbeat.
    pub(crate) fn tune(&mut self) -> (u16, u32, u16) {
        let payload = self.expect(0, CONNECTION_TUNE);
        let mut fields = Fields(&payload);
        (fields.short(), fields.long(), fields.short())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Sends to a broker that may have hung up already.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes)
    }

    pub(crate) fn method(&mut self, channel: u16, id: (u16, u16), args: Args) {
        self.send(&method(channel, id, args));
    }

    /// Sends a method and awaits its answer's arguments.
    pub(crate) fn call(&mut self, channel: u16, id: (u16, u16), args: Args, answer: (u16, u16)) -> Vec<u8> {
        self.method(channel, id, args);
        self.expect(channel, answer)
    }

    /// Ends our half of the connection.
    pub(crate) fn end(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// The same, to a broker that may have hung up already.
    pub(crate) fn try_end(&mut self) {
        drop(self.socket.shutdown(Shutdown::Write));
    }

    /// Ends our half and awaits the broker's end: it has done all it will do.
    pub(crate) fn send_end(&mut self) {
        self.end();
        while self.next().is_some() {}
    }

    /// The next frame, or `None` at the end of the stream. Heartbeats are counted and read over.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.next_raw()?;
            if frame.kind != HEARTBEAT {
                return Some(frame);
            }
            assert_eq!(
                (frame.channel, &frame.payload[..]),
                (0, &[][..]),
                "a heartbeat's form"
            );
            self.heartbeats += 1;
        }
    }

    /// The next frame of any kind.
    pub(crate) fn next_raw(&mut self) -> Option<Frame> {
        loop {
            if self.input.len() >= 7 {
                let size = u32::from_be_bytes(self.input[3..7].try_into().unwrap()) as usize;
                if self.input.len() >= size + 8 {
                    assert_eq!(self.input[size + 7], END, "the broker's own end octet");
                    let frame = Frame {
                        kind: self.input[0],
                        channel: u16::from_be_bytes(self.input[1..3].try_into().unwrap()),
                        payload: self.input[7..size + 7].to_vec(),
                    };
                    self.input.drain(..size + 8);
                    return Some(frame);
                }
            }
            if !self.read_more() {
                assert!(
                    self.input.is_empty(),
                    "the stream ended inside a frame: {:?}",
                    self.input
                );
                return None;
            }
        }
    }

    /// False at the end of the stream.
    fn read_more(&mut self) -> bool {
        let mut chunk = [0; 64 * 1024];
        match self.socket.read(&mut chunk) {
            Ok(0) => false,
            Ok(len) => {
                self.input.extend_from_slice(&chunk[..len]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came: {error}"),
        }
    }

    /// All bytes until the end of the stream, whatever they are.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.input)
    }

    /// Nothing more comes but the end of the stream.
    pub(crate) fn expect_end(&mut self) {
        let next = self.next();
        assert_eq!(next, None, "expected the end of the stream");
    }

    /// The next frame must be this method; gives its arguments.
    pub(crate) fn expect(&mut self, channel: u16, id: (u16, u16)) -> Vec<u8> {
        let frame = self
            .next()
            .unwrap_or_else(|| panic!("the stream ended instead of {id:?}"));
        if frame.id() != Some(id) || frame.channel != channel {
            let close = matches!(frame.id(), Some(CONNECTION_CLOSE | CHANNEL_CLOSE));
            let told = close.then(|| Close::read(&frame.payload));
            panic!(
                "expected {id:?} on channel {channel}, got {:?} {told:?} {frame:?}",
                frame.id()
            );
        }
        frame.payload[4..].to_vec()
    }

    /// Awaits connection.close, reading over everything before it, answers it and awaits the end.
    pub(crate) fn expect_connection_close(&mut self) -> Close {
        let close = loop {
            let frame = self
                .next()
                .expect("connection.close before the end of the stream");
            if frame.id() == Some(CONNECTION_CLOSE) {
                assert_eq!(frame.channel, 0, "connection.close comes on channel 0");
                break Close::read(&frame.payload);
            }
        };
        // The broker may have hung up on us already, as it may after broken framing.
        drop(self.try_send(&method(0, CONNECTION_CLOSE_OK, [])));
        self.expect_end();
        close
    }

    /// The next frame must be channel.close; it is answered.
    pub(crate) fn expect_channel_close(&mut self, channel: u16) -> Close {
        let close = self.expect_unanswered_channel_close(channel);
        self.method(channel, crate::bytes::CHANNEL_CLOSE_OK, Args::new());
        close
    }

    pub(crate) fn expect_unanswered_channel_close(&mut self, channel: u16) -> Close {
        let frame = self.next().expect("channel.close before the end of the stream");
        assert_eq!(
            (frame.id(), frame.channel),
            (Some(CHANNEL_CLOSE), channel),
            "{frame:?}"
        );
        Close::read(&frame.payload)
    }

    pub(crate) fn open_channel(&mut self, channel: u16) {
        let args = self.call(channel, CHANNEL_OPEN, Args::new().str(""), CHANNEL_OPEN_OK);
        assert_eq!(args, [0; 4], "open-ok carries an empty long string");
    }

    pub(crate) fn select_confirms(&mut self, channel: u16) {
        self.call(channel, CONFIRM_SELECT, Args::new().octet(0), CONFIRM_SELECT_OK);
    }

    /// Declares a queue; bits are passive, durable, exclusive, auto-delete, nowait from the lowest. Gives its name and
    /// counts.
    pub(crate) fn declare(&mut self, channel: u16, name: &str, bits: u8) -> (String, u32, u32) {
        let answer = self.call(
            channel,
            QUEUE_DECLARE,
            queue_declare(name, bits),
            QUEUE_DECLARE_OK,
        );
        let mut fields = Fields(&answer);
        (fields.str(), fields.long(), fields.long())
    }

    /// An exclusive queue named by the broker.
    pub(crate) fn exclusive_queue(&mut self, channel: u16) -> String {
        self.declare(channel, "", 0b100).0
    }

    /// basic.get with no-ack.
    pub(crate) fn get(&mut self, channel: u16, queue: &str) -> Option<Message> {
        self.method(channel, BASIC_GET, Args::new().short(0).str(queue).octet(1));
        let frame = self.next().expect("an answer to basic.get");
        match frame.id() {
            Some(BASIC_GET_OK) => Some(self.content(channel, frame.payload[4..].to_vec())),
            Some(BASIC_GET_EMPTY) => None,
            _ => panic!("an answer to basic.get: {frame:?}"),
        }
    }

    /// Reads the content that follows a method.
    pub(crate) fn content(&mut self, channel: u16, args: Vec<u8>) -> Message {
        let header = self.next().expect("a content header");
        assert_eq!(
            (header.kind, header.channel),
            (HEADER, channel),
            "a content header follows"
        );
        let mut fields = Fields(&header.payload);
        assert_eq!((fields.short(), fields.short()), (60, 0), "class and weight");
        let len = usize::try_from(fields.longlong()).unwrap();
        let (properties, mut body, mut parts) = (fields.0.to_vec(), Vec::new(), Vec::new());
        while body.len() < len {
            let part = self.next().expect("a body frame");
            assert_eq!((part.kind, part.channel), (BODY, channel), "a body frame follows");
            parts.push(part.payload.len());
            body.extend(part.payload);
        }
        assert_eq!(body.len(), len, "the bodies fill what the header announced");
        Message {
            args,
            properties,
            body,
            parts,
        }
    }

    /// Says connection.close and awaits close-ok.
    pub(crate) fn close(mut self) {
        self.method(0, CONNECTION_CLOSE, close_args());
        while self.next().expect("close-ok before the end").id() != Some(CONNECTION_CLOSE_OK) {}
    }
}

/// The arguments of a friendly close.
pub(crate) fn close_args() -> Args {
    Args::new().short(200).str("bye").short(0).short(0)
}

/// connection.start-ok; `properties` are the entries of the client's table.
pub(crate) fn start_ok(properties: &[u8], mechanism: &[u8], response: &[u8]) -> Vec<u8> {
    let args = Args::new()
        .longstr(properties)
        .short_bytes(mechanism)
        .longstr(response)
        .str("en_US");
    method(0, CONNECTION_START_OK, args)
}

pub(crate) fn tune_ok(channel_max: u16, frame_max: u32, heartbeat: u16) -> Vec<u8> {
    let args = Args::new().short(channel_max).long(frame_max).short(heartbeat);
    method(0, CONNECTION_TUNE_OK, args)
}

pub(crate) fn open(vhost: &str) -> Vec<u8> {
    method(0, CONNECTION_OPEN, Args::new().str(vhost).str("").octet(0))
}

pub(crate) fn queue_declare(name: &str, bits: u8) -> Args {
    Args::new().short(0).str(name).octet(bits).long(0)
}
