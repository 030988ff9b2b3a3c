//! From an accepted socket to an open connection: protocol header, login, tune, open (amqp-behaviour 1.1 to 1.5).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::auth;
use crate::broker::{definition::Name, user::User};
use crate::protocol::{
    field::{FieldTable, FieldValue},
    frame::{self, PROTOCOL_HEADER},
    method::{Method, MethodId},
    reply_code::ReplyCode,
};
use crate::server::{
    Broker,
    admission::{Full, Room, Ticket},
    close::Close,
    farewell::{Farewell, drain},
    registry::Vhost,
    stats::Protocol,
};

/// Frames before tune may have this payload; SASL responses are the longest.
const INITIAL_FRAME_MAX: u32 = 8192;
/// RabbitMQ accepts 4096 up to 4.0 and 8192 since; the smaller bound harms nobody.
const FRAME_MAX_LOWEST: u32 = 4096;
/// How long we wait for a peer to go whom we have told that it is in the wrong place.
const REFUSED_WAIT: Duration = Duration::from_secs(1);

/// What a handshake agreed on.
pub(super) struct Established {
    pub(super) user: Name,
    pub(super) vhost: Arc<Vhost>,
    /// The connection's place among those that are open.
    pub(super) ticket: Arc<Ticket>,
    pub(super) channel_max: u16,
    pub(super) frame_max: u32,
    pub(super) heartbeat: Duration,
    pub(super) cancel_notify: bool,
    /// It wants to be told when it is blocked.
    pub(super) blocked_notify: bool,
    pub(super) name: Option<String>,
    pub(super) mechanism: String,
    pub(super) properties: FieldTable,
}

/// Why there will be no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Nothing was sent: a health check.
    #[error("closed before a byte was sent")]
    Silent,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("not AMQP 0-9-1: {0}")]
    WrongProtocol(&'static str),
    #[error("{0}")]
    Protocol(String),
    #[error("login of user '{user}' with {mechanism} refused")]
    Login { user: String, mechanism: String },
    #[error("too many failed logins from this address: it is not listened to for a while")]
    TooManyFailures,
    #[error("{0}")]
    Denied(String),
}

pub(super) struct Handshake<'a> {
    pub(super) broker: &'a Broker,
    pub(super) socket: &'a mut TcpStream,
    /// Input; what a client pipelined behind connection.open is left in it.
    pub(super) input: &'a mut BytesMut,
    pub(super) peer: SocketAddr,
}

impl Handshake<'_> {
    /// Runs the handshake; the caller bounds its time.
    pub(super) async fn run(&mut self) -> Result<Established, Refusal> {
        self.protocol_header().await?;
        let offered = mechanisms(self.broker);
        self.send(&start(&self.broker.cluster_name(), &offered)).await?;
        let Method::ConnectionStartOk {
            client_properties,
            mechanism,
            response,
            ..
        } = self.receive().await?
        else {
            return self.give_up("expected connection.start-ok").await;
        };
        // Anything but a table means that the client can do nothing special (amqp-behaviour 1.3).
        let capable = |name| match client_properties.get("capabilities") {
            Some(FieldValue::Table(table)) => table.get(name) == Some(&FieldValue::Bool(true)),
            _ => false,
        };
        let tell = capable("authentication_failure_close");
        let user = self.login(&mechanism, &response, tell).await?;
        let (channel_max, frame_max, heartbeat) = self.tune().await?;
        let (vhost, ticket) = self.open(&user).await?;
        let name = client_properties
            .get("connection_name")
            .and_then(|name| name.as_str_bytes())
            .map(|name| String::from_utf8_lossy(name).chars().take(256).collect());
        let cancel_notify = capable("consumer_cancel_notify");
        let heartbeat = Duration::from_secs(heartbeat.into());
        Ok(Established {
            user: Name::clone(&user.name),
            vhost,
            ticket: Arc::new(ticket),
            channel_max,
            frame_max,
            heartbeat,
            cancel_notify,
            blocked_notify: capable("connection.blocked"),
            name,
            mechanism: String::from_utf8_lossy(mechanism.as_ref()).into_owned(),
            properties: client_properties,
        })
    }

    async fn protocol_header(&mut self) -> Result<(), Refusal> {
        while self.input.len() < PROTOCOL_HEADER.len() {
            if self.socket.read_buf(self.input).await? == 0 {
                if self.input.is_empty() {
                    return Err(Refusal::Silent);
                }
                return Err(self.wrong_protocol().await);
            }
            // Something that cannot become a header is answered at once: a TLS client waits for our first move.
            let known = self.input.len().min(4);
            if self.input.get(..known) != PROTOCOL_HEADER.get(..known) {
                return Err(self.wrong_protocol().await);
            }
        }
        let header = self.input.split_to(PROTOCOL_HEADER.len());
        // `AMQP 1 1 0 9` is how 0-9 clients introduce themselves; RabbitMQ takes it for 0-9-1.
        if header[..] == PROTOCOL_HEADER || &header[..] == b"AMQP\x01\x01\x00\x09" {
            return Ok(());
        }
        Err(self.wrong_protocol().await)
    }

    async fn wrong_protocol(&mut self) -> Refusal {
        let hint = match self.input.get(..4) {
            Some([0x16, 0x03, _, _]) => "looks like TLS, which this listener does not speak",
            Some(b"GET " | b"HEAD" | b"POST" | b"PUT ") => {
                "looks like HTTP, which has a port of its own (http.listen)"
            }
            Some(b"AMQP") | None => "another version of AMQP, or none",
            _ => "unknown header",
        };
        let told = async {
            self.socket.write_all(&PROTOCOL_HEADER).await?;
            self.socket.shutdown().await
        };
        match told.await {
            Ok(()) => {
                drain(self.socket, REFUSED_WAIT).await;
                Refusal::WrongProtocol(hint)
            }
            Err(error) => error.into(),
        }
    }

    /// The next method on channel 0; heartbeats are read over.
    async fn receive(&mut self) -> Result<Method, Refusal> {
        loop {
            match frame::parse(self.input, INITIAL_FRAME_MAX) {
                Ok(None) => {
                    if self.socket.read_buf(self.input).await? == 0 {
                        return Err(Refusal::Protocol(
                            "the client closed the socket during the handshake".to_owned(),
                        ));
                    }
                }
                Ok(Some(frame)) => {
                    let (len, kind, channel) = (frame.wire_len(), frame.kind, frame.channel);
                    let method =
                        (kind == frame::METHOD && channel == 0).then(|| Method::decode(frame.payload));
                    self.input.advance(len);
                    match method {
                        Some(Ok(method)) => return Ok(method),
                        Some(Err(error)) => return self.give_up(&error.to_string()).await,
                        None if kind == frame::HEARTBEAT && channel == 0 => {}
                        None => {
                            return self
                                .give_up("unexpected frame before the connection is open")
                                .await;
                        }
                    }
                }
                Err(error) => return self.give_up(&error.to_string()).await,
            }
        }
    }

    async fn send(&mut self, method: &Method) -> Result<(), Refusal> {
        let mut out = BytesMut::new();
        frame::write(&mut out, frame::METHOD, 0, |out| method.encode(out));
        Ok(self.socket.write_all(&out).await?)
    }

    /// A handshake that cannot go on ends without a word, after a while (amqp-behaviour 1.3, 1.4).
    async fn give_up<T>(&mut self, problem: &str) -> Result<T, Refusal> {
        drain(self.socket, self.broker.limits().failure_delay).await;
        Err(Refusal::Protocol(problem.to_owned()))
    }

    /// connection.close, then patience for the answer.
    async fn close(&mut self, close: &Close) -> Result<(), Refusal> {
        self.send(&close.connection_method()).await?;
        let patience = self.broker.limits().failure_delay;
        let mut farewell = Farewell {
            socket: &mut *self.socket,
            input: &mut *self.input,
            frame_max: INITIAL_FRAME_MAX,
            unframed: patience,
        };
        // Answered, gone or out of patience: the socket is closed next.
        drop(tokio::time::timeout(patience, farewell.next()).await);
        Ok(())
    }

    fn announce_login(&self, user: &str, mechanism: &str, known: bool) {
        let event = if known {
            "user.authentication.success"
        } else {
            "user.authentication.failure"
        };
        self.broker.queues.announcer.event(event, |headers| {
            headers
                .text("name", user)
                .text("connection_type", "network")
                .text("peer_host", &self.peer.ip().to_string())
                .number("peer_port", self.peer.port().into())
                .text("protocol", "{0,9,1}")
                .text("auth_mechanism", mechanism)
                .flag("ssl", false);
            if !known {
                headers.text("error", "invalid credentials");
            }
        });
    }

    async fn login(&mut self, mechanism: &str, response: &Bytes, tell: bool) -> Result<Arc<User>, Refusal> {
        let budget = self.broker.login_budget();
        if !budget.admits(self.peer.ip(), Instant::now()) {
            return Err(Refusal::TooManyFailures);
        }
        let credentials = match (mechanism, self.broker.anonymous()) {
            ("PLAIN", _) => auth::plain(response),
            ("AMQPLAIN", _) => auth::amqplain(response),
            ("ANONYMOUS", Some(anonymous)) => Some(anonymous.clone()),
            ("RABBIT-CR-DEMO", _) if self.broker.challenges() => self.challenge(response).await?,
            _ => {
                return self
                    .give_up(&format!("unknown authentication mechanism '{mechanism}'"))
                    .await;
            }
        };
        let Some((user, password)) = credentials else {
            budget.failed(self.peer.ip(), Instant::now());
            return self.give_up(&format!("malformed {mechanism} response")).await;
        };
        let (logins, access) = (self.broker.logins(), self.broker.access());
        let now = Instant::now().into_std();
        let known = logins.login(access, &user, &password, self.peer.ip(), now).await;
        self.broker.attempts(Protocol::Amqp).note(known.is_some());
        self.announce_login(&user, mechanism, known.is_some());
        if let Some(known) = known {
            return Ok(known);
        }
        budget.failed(self.peer.ip(), Instant::now());
        if tell {
            let text = format!(
                "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
            );
            self.close(&Close::new(ReplyCode::AccessRefused, text, MethodId::NONE))
                .await?;
        } else {
            drain(self.socket, self.broker.limits().failure_delay).await;
        }
        let mechanism = mechanism.to_owned();
        Err(Refusal::Login { user, mechanism })
    }

    /// Asks a client that gave its name for the password.
    async fn challenge(&mut self, user: &[u8]) -> Result<Option<(String, Vec<u8>)>, Refusal> {
        let challenge = Bytes::from_static(b"Please tell me your password");
        self.send(&Method::ConnectionSecure { challenge }).await?;
        let Method::ConnectionSecureOk { response } = self.receive().await? else {
            return self.give_up("expected connection.secure-ok").await;
        };
        Ok(auth::challenged(user, &response))
    }

    /// Offers our limits and takes the client's: channel_max, frame_max, heartbeat in seconds.
    async fn tune(&mut self) -> Result<(u16, u32, u16), Refusal> {
        let limits = self.broker.limits();
        self.send(&Method::ConnectionTune {
            channel_max: limits.channel_max,
            frame_max: limits.frame_max,
            heartbeat: limits.heartbeat_s,
        })
        .await?;
        let Method::ConnectionTuneOk {
            channel_max,
            frame_max,
            heartbeat,
        } = self.receive().await?
        else {
            return self.give_up("expected connection.tune-ok").await;
        };
        let checks = [
            check_tune("frame_max", frame_max, FRAME_MAX_LOWEST, limits.frame_max),
            check_tune("channel_max", channel_max.into(), 1, limits.channel_max.into()),
        ];
        match checks.into_iter().flatten().next() {
            Some(problem) => self.give_up(&problem).await,
            None => Ok((channel_max, frame_max, heartbeat)),
        }
    }

    /// Checks in the order of amqp-behaviour 1.5 and takes the connection's place.
    fn admit(&self, user: &User, vhost: &str) -> Result<(Arc<Vhost>, Ticket), String> {
        let (broker, name) = (self.broker, &user.name);
        let found = broker.vhost(vhost);
        let limits = Room {
            node: broker.limits().connection_max,
            vhost: found
                .as_ref()
                .and_then(|vhost| vhost.definition().limits.max_connections),
            user: user.limits.max_connections,
        };
        let refused = format!("access to vhost '{vhost}' refused for user '{name}'");
        let ticket = match broker.admissions().admit(name, &vhost.into(), limits) {
            Err(Full::Node(limit)) => {
                return Err(format!(
                    "connection refused: node connection limit ({limit}) is reached"
                ));
            }
            // A vhost that does not exist has no limit to reach, and the user's own is checked after it.
            _ if found.is_none() => return Err(format!("vhost {vhost} not found")),
            Err(Full::Vhost(limit)) => {
                return Err(format!("{refused}: connection limit ({limit}) is reached"));
            }
            Err(Full::User(limit)) => {
                return Err(format!(
                    "connection refused for user '{name}': user connection limit ({limit}) is reached"
                ));
            }
            Ok(ticket) => ticket,
        };
        match found {
            // Deleted users are gone from the table: a deletion after this line finds the ticket.
            Some(vhost) if broker.access().grants(name, &vhost.name).is_some() => Ok((vhost, ticket)),
            _ => Err(refused),
        }
    }

    /// The vhost that the client asks for; from here on it is told what is wrong.
    async fn open(&mut self, user: &User) -> Result<(Arc<Vhost>, Ticket), Refusal> {
        let method = self.receive().await?;
        let (close, text) = match method {
            Method::ConnectionOpen { virtual_host } => {
                let text = match self.admit(user, &virtual_host) {
                    Ok(admitted) => {
                        self.send(&Method::ConnectionOpenOk).await?;
                        return Ok(admitted);
                    }
                    Err(text) => text,
                };
                let close = Close::new(ReplyCode::NotAllowed, &text, MethodId::CONNECTION_OPEN);
                (close, text)
            }
            Method::ConnectionClose { .. } => {
                self.send(&Method::ConnectionCloseOk).await?;
                drain(self.socket, REFUSED_WAIT).await;
                return Err(Refusal::Protocol("closed before connection.open".to_owned()));
            }
            other => {
                let text = "unexpected method in connection state opening".to_owned();
                (Close::new(ReplyCode::ChannelError, &text, other.id()), text)
            }
        };
        self.close(&close).await?;
        Err(Refusal::Denied(text))
    }
}

fn check_tune(name: &str, value: u32, lowest: u32, offered: u32) -> Option<String> {
    if value != 0 && value < lowest {
        return Some(format!(
            "negotiated {name} = {value} is lower than the minimum allowed value ({lowest})"
        ));
    }
    if offered != 0 && (value == 0 || value > offered) {
        let shown = if value == 0 {
            "0 (no limit)".to_owned()
        } else {
            value.to_string()
        };
        return Some(format!(
            "negotiated {name} = {shown} is higher than the maximum allowed value ({offered})"
        ));
    }
    None
}

/// The SASL mechanisms we offer, separated by spaces.
fn mechanisms(broker: &Broker) -> String {
    let anonymous = broker.anonymous().map_or("", |_| " ANONYMOUS");
    let challenge = if broker.challenges() {
        " RABBIT-CR-DEMO"
    } else {
        ""
    };
    format!("PLAIN AMQPLAIN{anonymous}{challenge}")
}

fn start(cluster_name: &str, mechanisms: &str) -> Method {
    let text = |value: &str| FieldValue::LongString(Bytes::copy_from_slice(value.as_bytes()));
    let mut capabilities = FieldTable::default();
    for name in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ] {
        capabilities.insert(name, FieldValue::Bool(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("capabilities", FieldValue::Table(capabilities));
    properties.insert("cluster_name", text(cluster_name));
    properties.insert("copyright", text("Copyright (c) 2026 the Leveret maintainers"));
    properties.insert("information", text("Licensed under the MIT licence"));
    properties.insert("platform", text("Rust"));
    // Clients switch features on these two (Spring AMQP, MassTransit, kombu): they mean the behaviour, not the maker.
    properties.insert("product", text("RabbitMQ"));
    properties.insert("version", text("4.3.5"));
    properties.insert(
        "x-implementation",
        text(concat!("Leveret ", env!("CARGO_PKG_VERSION"))),
    );
    Method::ConnectionStart {
        version_major: 0,
        version_minor: 9,
        server_properties: properties,
        mechanisms: Bytes::copy_from_slice(mechanisms.as_bytes()),
        locales: Bytes::from_static(b"en_US"),
    }
}
