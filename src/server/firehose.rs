//! The firehose (amqp-behaviour 9.4): while a vhost is traced, a copy of every publish and every delivery goes to its
//! `amq.rabbitmq.trace`.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;

use crate::broker::{message::Message, unacked::UnackedDelivery};
use crate::protocol::{
    field::{FieldTable, FieldValue},
    properties::Properties,
};
use crate::server::{
    Broker,
    announcer::{Announcement, Announcer, EVENT_EXCHANGE, TRACE_EXCHANGE},
    clock,
    handle::Handle,
    queue_cell::{ConnectionId, QueueHandle},
    registry::Vhost,
    spans::{Handed, Outcome, Spans},
};

/// What a trace says of a connection; shared by it and its channels.
pub(super) struct Tap {
    vhost: Weak<Vhost>,
    tracing: Arc<AtomicBool>,
    announcer: Arc<Announcer>,
    pub(super) connection: String,
    pub(super) user: String,
    node: String,
    /// Records what passes, if spans are on.
    pub(super) spans: Option<Arc<Spans>>,
    pub(super) clock: SpanClock,
}

/// Moments of the read at hand, nanoseconds since 1970; kept only while spans are on.
#[derive(Default)]
pub(super) struct SpanClock {
    /// When the connection began to look at what it read.
    pub(super) read_ns: AtomicU64,
    /// When the latest message of it had its route.
    pub(super) routed_ns: AtomicU64,
}

impl Tap {
    pub(super) fn new(
        vhost: &Arc<Vhost>,
        announcer: Arc<Announcer>,
        connection: &str,
        user: &str,
        node: &str,
        spans: Option<Arc<Spans>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            vhost: Arc::downgrade(vhost),
            tracing: Arc::clone(&vhost.tracing),
            announcer,
            connection: connection.to_owned(),
            user: user.to_owned(),
            node: format!("rabbit@{}", node.split_once('@').map_or(node, |(_, host)| host)),
            spans,
            clock: SpanClock::default(),
        })
    }

    /// Whether anybody looks at messages: asked once per read and once per batch of deliveries.
    pub(super) fn is_on(&self) -> bool {
        self.spans.is_some() || self.is_tracing()
    }

    /// The vhost's firehose is on: one relaxed load.
    fn is_tracing(&self) -> bool {
        self.tracing.load(Ordering::Relaxed)
    }

    /// The connection begins with what it read; true when messages of it are looked at.
    pub(super) fn begin_read(&self) -> bool {
        if self.spans.is_some() {
            self.clock.read_ns.store(clock::now_ns(), Ordering::Relaxed);
        }
        self.is_on()
    }

    pub(super) fn vhost_name(&self) -> String {
        self.vhost
            .upgrade()
            .map(|vhost| vhost.name.to_string())
            .unwrap_or_default()
    }

    /// A message was published and routed. Gives it back, with a trace if one begins with it.
    #[must_use]
    pub(super) fn published(&self, channel: u16, message: Message, queues: &[QueueHandle]) -> Message {
        let message = match &self.spans {
            Some(spans) => spans.published(self, channel, message, queues),
            None => message,
        };
        if self.is_tracing() {
            self.post_published(channel, &message, queues);
        }
        message
    }

    fn post_published(&self, channel: u16, message: &Message, queues: &[QueueHandle]) {
        let queues = queues.iter().map(|queue| text(queue.name().as_bytes())).collect();
        let extra = ("routed_queues", FieldValue::Array(queues));
        self.post("publish", message.exchange(), channel, message, extra);
    }

    /// A message was handed to a consumer or got. Called under the queue's lock.
    pub(super) fn delivered(&self, handed: &Handed<'_>) {
        if let Some(spans) = &self.spans {
            spans.delivered(self, handed);
        }
        if self.is_tracing() {
            let extra = ("redelivered", FieldValue::I32(i32::from(handed.redelivered)));
            let queue = handed.queue.name().as_bytes();
            self.post("deliver", queue, handed.channel, handed.message, extra);
        }
    }

    /// A consumer settled a delivery; the firehose does not tell.
    pub(super) fn settled(
        &self,
        (channel, delivery_tag): (u16, u64),
        connection: ConnectionId,
        delivery: &UnackedDelivery<QueueHandle>,
        outcome: Outcome,
    ) {
        let Some(spans) = &self.spans else { return };
        let handed = Handed {
            connection,
            channel,
            delivery_tag,
            queue: &delivery.queue,
            seq: delivery.entry.seq,
            message: &delivery.entry.message,
            redelivered: delivery.entry.redelivered,
        };
        spans.settled(self, &handed, outcome);
    }

    fn post(&self, what: &str, of: &[u8], channel: u16, message: &Message, extra: (&str, FieldValue)) {
        // A trace of traces would never end.
        if message.exchange() == TRACE_EXCHANGE.as_bytes() {
            return;
        }
        let Some(vhost) = self.vhost.upgrade() else { return };
        let mut headers = FieldTable::default();
        headers.insert("exchange_name", text(message.exchange()));
        let keys = message.routing_keys().iter().map(|key| text(key)).collect();
        headers.insert("routing_keys", FieldValue::Array(keys));
        headers.insert("properties", FieldValue::Table(properties(message)));
        headers.insert("node", text(self.node.as_bytes()));
        headers.insert("vhost", text(vhost.name.as_bytes()));
        headers.insert("connection", text(self.connection.as_bytes()));
        headers.insert("channel", FieldValue::I32(channel.into()));
        headers.insert("user", text(self.user.as_bytes()));
        headers.insert(extra.0, extra.1);
        self.announcer.post(Announcement {
            vhost: Some(vhost),
            exchange: TRACE_EXCHANGE,
            routing_key: format!("{what}.{}", String::from_utf8_lossy(of)),
            headers,
            about: Some(message.clone()),
            text: None,
        });
    }
}

fn text(bytes: &[u8]) -> FieldValue {
    FieldValue::LongString(Bytes::copy_from_slice(bytes))
}

/// Only those that are set, by RabbitMQ's names and types.
fn properties(message: &Message) -> FieldTable {
    let properties = Properties::decode(message.properties()).unwrap_or_default();
    let mut table = FieldTable::default();
    let texts = [
        ("content_type", properties.content_type),
        ("content_encoding", properties.content_encoding),
        ("correlation_id", properties.correlation_id),
        ("reply_to", properties.reply_to),
        ("expiration", properties.expiration),
        ("message_id", properties.message_id),
        ("type", properties.kind),
        ("user_id", properties.user_id),
        ("app_id", properties.app_id),
        ("cluster_id", properties.cluster_id),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            table.insert(name, text(value.as_bytes()));
        }
    }
    if let Some(headers) = properties.headers {
        table.insert("headers", FieldValue::Table(headers));
    }
    for (name, value) in [
        ("delivery_mode", properties.delivery_mode),
        ("priority", properties.priority),
    ] {
        if let Some(value) = value {
            table.insert(name, FieldValue::I32(value.into()));
        }
    }
    if let Some(seconds) = properties.timestamp {
        table.insert("timestamp", FieldValue::Timestamp(seconds));
    }
    table
}

impl Handle {
    /// Switches the firehose of a vhost; false when there is no such vhost.
    pub fn set_tracing(&self, vhost: &str, on: bool) -> bool {
        let Some(vhost) = self.broker.vhost(vhost) else {
            return false;
        };
        vhost.tracing.store(on, Ordering::Relaxed);
        true
    }

    /// Whether a vhost is traced; `None` when there is no such vhost.
    pub fn is_traced(&self, vhost: &str) -> Option<bool> {
        Some(self.broker.vhost(vhost)?.tracing.load(Ordering::Relaxed))
    }

    /// Creates `amq.rabbitmq.event` in a vhost and publishes events to it from now on; they go to the default vhost.
    /// False when there is no such vhost.
    pub fn enable_events(&self, default_vhost: &str) -> bool {
        self.broker.enable_events(default_vhost)
    }
}

impl Broker {
    pub(super) fn enable_events(&self, default_vhost: &str) -> bool {
        let Some(vhost) = self.vhost(default_vhost) else {
            return false;
        };
        vhost.ensure_system_exchange(EVENT_EXCHANGE);
        self.queues.announcer.set_events(true);
        true
    }
}
