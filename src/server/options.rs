//! What a broker is started with: checked values, defaults included. `config` fills them from what the user wrote.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::broker::limits::Limit;
use crate::server::{AccessOptions, AlarmOptions, LogExchange, SpanOptions};
use crate::storage::StoreOptions;

/// What is negotiated with clients, and other bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Channels of a connection; 0 is no limit.
    pub channel_max: u16,
    /// Octets of a frame; 0 is no limit.
    pub frame_max: u32,
    /// Seconds, offered; the client's answer counts.
    pub heartbeat_s: u16,
    /// Octets of a message's body.
    pub max_message_bytes: u64,
    /// Memory of the messages that the transaction of one channel holds back.
    pub transaction_max_bytes: usize,
    /// From accept to connection.open.
    pub handshake_timeout: Duration,
    /// Connections of the whole broker.
    pub connection_max: Limit,
    /// Channels of the whole broker.
    pub channel_max_per_node: Limit,
    pub consumer_max_per_channel: Limit,
    pub vhost_max: Limit,
    /// Queues and exchanges of all vhosts.
    pub queue_max: Limit,
    pub exchange_max: Limit,
    /// How long a failed login, or a client that broke the framing, keeps its socket: a damper on guessing, and time
    /// to read our last words.
    pub failure_delay: Duration,
    /// Failed logins of one address; beyond them it is cut off unheard. 0 is no limit.
    pub login_failures_per_minute: u32,
    /// How long a peer may leave our bytes unacknowledged, or its window shut; 0 leaves it to the system.
    pub dead_peer_timeout: Duration,
    /// basic.qos with global on limits all consumers of the channel together, as until RabbitMQ 4.2; otherwise it is
    /// treated as without global, as since 4.3.
    pub global_qos: bool,
    /// How long a consumer may hold a delivery unsettled where nothing else is said; `None` is for ever.
    pub consumer_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat_s: 60,
            max_message_bytes: 16 * 1024 * 1024,
            transaction_max_bytes: 512 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            failure_delay: Duration::from_secs(3),
            login_failures_per_minute: 10,
            dead_peer_timeout: Duration::from_secs(120),
            global_qos: true,
            consumer_timeout: Some(Duration::from_secs(1800)),
            connection_max: None,
            channel_max_per_node: None,
            consumer_max_per_channel: None,
            vhost_max: None,
            queue_max: None,
            exchange_max: None,
        }
    }
}

/// Habits of RabbitMQ 3 that RabbitMQ 4 refuses, each permitted or not (amqp-behaviour 11).
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, named as in RabbitMQ"
)]
pub struct Permits {
    /// Queues that are neither durable nor exclusive.
    pub transient_nonexcl_queues: bool,
    /// The argument `x-queue-master-locator`, which does nothing.
    pub queue_master_locator: bool,
    /// Policies with `ha-mode` and its kin, which do nothing.
    pub classic_queue_mirroring: bool,
    /// The argument `x-queue-version` may be 1, which does nothing.
    pub classic_queue_version_1: bool,
}

/// As lenient as makes no difference to anybody who does not use these.
impl Default for Permits {
    fn default() -> Self {
        Self {
            transient_nonexcl_queues: true,
            queue_master_locator: true,
            classic_queue_mirroring: false,
            classic_queue_version_1: false,
        }
    }
}

/// How a broker is started.
pub struct Options {
    pub store: StoreOptions,
    /// `None` opens no AMQP listener.
    pub amqp_listen: Option<SocketAddr>,
    pub limits: Limits,
    pub alarms: AlarmOptions,
    pub default_vhost: String,
    /// Creates `amq.rabbitmq.event` in the default vhost and publishes events there.
    pub event_exchange: bool,
    /// Creates `amq.rabbitmq.log` in the default vhost and publishes there what this layer of the log is told.
    pub log_exchange: Option<LogExchange>,
    /// What spans are recorded; `None` records none.
    pub spans: Option<SpanOptions>,
    /// What queues become that ask for no type, in vhosts that say nothing either.
    pub default_queue_type: String,
    pub access: AccessOptions,
    pub permits: Permits,
    /// User and password of whoever logs in with ANONYMOUS; `None` does not offer it.
    pub anonymous: Option<(String, Vec<u8>)>,
    /// Offers RABBIT-CR-DEMO: the password is asked for after the name.
    pub challenge: bool,
}

impl Options {
    /// The defaults: a data directory, guest/guest on every loopback address, a port chosen by the system.
    pub fn local(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            store: StoreOptions::new(data_dir),
            amqp_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            limits: Limits::default(),
            alarms: AlarmOptions::default(),
            default_vhost: "/".to_owned(),
            event_exchange: false,
            log_exchange: None,
            spans: None,
            default_queue_type: "classic".to_owned(),
            access: AccessOptions::default(),
            permits: Permits::default(),
            anonymous: None,
            challenge: false,
        }
    }
}
