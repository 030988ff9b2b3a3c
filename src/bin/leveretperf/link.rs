//! One connection with one channel: the handshake, calls that wait for their answer, the orderly close. Nothing
//! here is fast; publishers and consumers take the socket and the inbox out and use them directly.

use std::{
    io::{self, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use leveret::protocol::{
    field::{FieldTable, FieldValue},
    method::Method,
};

use crate::{
    clock::{Clock, SECOND_NS},
    error::PerfError,
    frames::{Event, FRAME_METHOD, Inbox},
    lap::push_frame,
    uri::Uri,
};

/// The one channel of a connection.
pub(crate) const CHANNEL: u16 = 1;
/// The frame_max we ask for, RabbitMQ's own default.
const FRAME_MAX_BYTES: u32 = 131_072;
/// How long a broker may take for any answer during set-up and tear-down.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a blocked read or write looks up to see whether the run is over.
pub(crate) const LOOK_UP: Duration = Duration::from_millis(200);

pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) inbox: Inbox,
    pub(crate) frame_max_bytes: usize,
}

impl Link {
    /// Connects, logs in, opens the vhost and a channel. `name` is shown in the broker's list of connections.
    /// `read_bytes` is the size of one read.
    ///
    /// # Errors
    /// No broker there, wrong password, unknown vhost.
    pub(crate) fn open(uri: &Uri, name: &str, read_bytes: usize) -> Result<Self, PerfError> {
        let connect = |cause| PerfError::Connect {
            address: uri.to_string(),
            cause,
        };
        let stream = TcpStream::connect((uri.host.as_str(), uri.port)).map_err(connect)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let frame_max_bytes = FRAME_MAX_BYTES as usize;
        let mut link = Self {
            stream,
            inbox: Inbox::new(read_bytes, frame_max_bytes),
            frame_max_bytes,
        };
        link.log_in(uri, name)?;
        link.call(CHANNEL, &Method::ChannelOpen)?;
        Ok(link)
    }

    fn log_in(&mut self, uri: &Uri, name: &str) -> Result<(), PerfError> {
        self.stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        self.answer("before its first frame (is this an AMQP 0-9-1 broker?)")?;
        let response = format!("\0{}\0{}", uri.user, uri.password);
        self.send(
            0,
            &Method::ConnectionStartOk {
                client_properties: client_properties(name),
                mechanism: "PLAIN".into(),
                response: Bytes::from(response),
                locale: "en_US".into(),
            },
        )?;
        let tune = self.answer("after the log-in (wrong user or password?)")?;
        let Method::ConnectionTune {
            channel_max,
            frame_max,
            ..
        } = tune
        else {
            return Err(PerfError::protocol(format!(
                "{} instead of connection.tune",
                tune.name()
            )));
        };
        // 0 is no limit.
        let frame_max = if frame_max == 0 {
            FRAME_MAX_BYTES
        } else {
            frame_max.min(FRAME_MAX_BYTES)
        };
        self.frame_max_bytes = frame_max as usize;
        self.inbox.walker.set_frame_max_bytes(self.frame_max_bytes);
        // No heartbeats: a generator that stops is seen to stop.
        self.send(
            0,
            &Method::ConnectionTuneOk {
                channel_max,
                frame_max,
                heartbeat: 0,
            },
        )?;
        self.send(
            0,
            &Method::ConnectionOpen {
                virtual_host: uri.vhost.clone(),
            },
        )?;
        self.answer("when opening the vhost")?;
        Ok(())
    }

    pub(crate) fn send(&mut self, channel: u16, method: &Method) -> Result<(), PerfError> {
        self.stream.write_all(&method_frame(channel, method))?;
        Ok(())
    }

    /// Sends a method and waits for the next one, which is its answer.
    ///
    /// # Errors
    /// The broker closed the channel or the connection instead.
    pub(crate) fn call(&mut self, channel: u16, method: &Method) -> Result<Method, PerfError> {
        self.send(channel, method)?;
        self.answer(method.name())
    }

    fn answer(&mut self, during: &'static str) -> Result<Method, PerfError> {
        loop {
            let mut answer = None;
            self.inbox.walk(|event| {
                if let Event::Method(payload) = event {
                    answer = Some(read_method(payload)?);
                }
                Ok(())
            })?;
            if let Some(method) = answer {
                return Ok(method);
            }
            match self.inbox.read_from(&mut self.stream) {
                Ok(0) => return Err(PerfError::Eof { during }),
                Ok(_) => {}
                Err(cause) if is_timeout(&cause) => {
                    return Err(PerfError::Stalled(format!(
                        "no answer from the broker for a minute: {during}"
                    )));
                }
                Err(cause) if cause.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(PerfError::Eof { during });
                }
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    /// Says goodbye and waits until the broker has taken all we sent.
    ///
    /// # Errors
    /// It still had not after `patience_ns`, or it closed for a reason of its own.
    pub(crate) fn close(mut self, clock: &Clock, patience_ns: u64) -> Result<(), PerfError> {
        let deadline_ns = clock.now_ns() + patience_ns;
        self.stream.set_read_timeout(Some(LOOK_UP))?;
        self.send(0, &close_method())?;
        loop {
            match self.inbox.read_from(&mut self.stream) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(cause) if is_timeout(&cause) => {}
                Err(cause) => return Err(cause.into()),
            }
            let mut closed = false;
            self.inbox.walk(|event| {
                if let Event::Method(payload) = event {
                    closed |= read_method(payload)? == Method::ConnectionCloseOk;
                }
                Ok(())
            })?;
            if closed {
                return Ok(());
            }
            if clock.now_ns() > deadline_ns {
                let seconds = patience_ns / SECOND_NS;
                return Err(PerfError::Stalled(format!(
                    "the broker did not answer connection.close for {seconds} s"
                )));
            }
        }
    }
}

fn client_properties(name: &str) -> FieldTable {
    let text = |text: &str| FieldValue::LongString(Bytes::copy_from_slice(text.as_bytes()));
    let mut capabilities = FieldTable::new();
    // With it a wrong password is answered by a close that says so; with consumer_cancel_notify a deleted queue.
    capabilities.insert("authentication_failure_close", FieldValue::Bool(true));
    capabilities.insert("consumer_cancel_notify", FieldValue::Bool(true));
    let mut properties = FieldTable::new();
    properties.insert("product", text("leveretperf"));
    properties.insert("version", text(env!("CARGO_PKG_VERSION")));
    properties.insert("connection_name", text(name));
    properties.insert("capabilities", FieldValue::Table(capabilities));
    properties
}

pub(crate) fn close_method() -> Method {
    Method::ConnectionClose {
        reply_code: 200,
        reply_text: "done".into(),
        class_id: 0,
        method_id: 0,
    }
}

pub(crate) fn method_frame(channel: u16, method: &Method) -> Vec<u8> {
    let mut payload = BytesMut::new();
    method.encode(&mut payload);
    let mut frame = Vec::new();
    push_frame(&mut frame, FRAME_METHOD, channel, &payload);
    frame
}

/// Decodes a method the broker sent; those that end the run are errors.
pub(crate) fn read_method(payload: &[u8]) -> Result<Method, PerfError> {
    match Method::decode(payload).map_err(|cause| PerfError::protocol(cause.to_string()))? {
        Method::ConnectionClose {
            reply_code,
            reply_text,
            ..
        } => Err(PerfError::ConnectionClosed {
            code: reply_code,
            text: reply_text,
        }),
        Method::ChannelClose {
            reply_code,
            reply_text,
            ..
        } => Err(PerfError::ChannelClosed {
            code: reply_code,
            text: reply_text,
        }),
        Method::BasicCancel { .. } => Err(PerfError::ConsumerCancelled),
        method => Ok(method),
    }
}

/// The socket's own read or write timeout passed. Linux says "would block", others "timed out".
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
