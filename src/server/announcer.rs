//! What the broker publishes about itself: events to `amq.rabbitmq.event`, traced messages to `amq.rabbitmq.trace`, its log
//! to `amq.rabbitmq.log`.
//! Whoever has something to tell leaves it here, under whatever lock it holds, and one task publishes. Nobody waits: when
//! the task is behind, announcements are dropped.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::broker::{
    definition::{BindingDefinition, Destination, ExchangeDefinition, QueueDefinition},
    exchange::Routable,
    message::{Message, MessageParts},
    topology::Route,
};
use crate::protocol::{
    field::{FieldTable, FieldValue},
    properties::{Properties, RawProperties},
};
use crate::server::{
    Broker, clock,
    publisher::{Batch, Publish},
    registry::Vhost,
};

pub(super) const EVENT_EXCHANGE: &str = "amq.rabbitmq.event";
pub(super) const LOG_EXCHANGE: &str = "amq.rabbitmq.log";
pub(super) const TRACE_EXCHANGE: &str = "amq.rabbitmq.trace";

/// Who does what happens by itself, as RabbitMQ calls it.
pub(super) const INTERNAL_USER: &str = "rmq-internal";

/// Announcements that may wait for the task.
const WAITING_MAX: usize = 4096;
/// And the bytes of messages they may hold.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// So many are published before others get the processor.
const STRIDE: usize = 64;

/// One message of the broker's own.
pub(super) struct Announcement {
    /// Events go to the default vhost.
    pub(super) vhost: Option<Arc<Vhost>>,
    pub(super) exchange: &'static str,
    pub(super) routing_key: String,
    pub(super) headers: FieldTable,
    /// The message whose body goes along.
    pub(super) about: Option<Message>,
    /// A body of its own: a line of the log.
    pub(super) text: Option<String>,
}

impl Announcement {
    fn bytes(&self) -> usize {
        self.about.as_ref().map_or(0, Message::memory_bytes) + self.text.as_ref().map_or(0, String::len)
    }

    fn into_message(self, scratch: &mut Vec<u8>) -> Message {
        // RabbitMQ's events are persistent and dated, its traces are neither.
        let is_event = self.exchange == EVENT_EXCHANGE;
        let properties = Properties {
            headers: Some(self.headers),
            delivery_mode: is_event.then_some(2),
            timestamp: (is_event || self.text.is_some()).then(|| clock::now().seconds()),
            content_type: self.text.is_some().then(|| "text/plain".into()),
            ..Properties::default()
        };
        let mut encoded = BytesMut::new();
        properties.encode(&mut encoded);
        let key = self.routing_key.as_bytes();
        let parts = MessageParts {
            exchange: self.exchange.as_bytes(),
            routing_key: key.get(..255).unwrap_or(key),
            properties: &encoded,
            persistent: is_event,
            priority: 0,
        };
        match self.about.as_ref().map(|about| (about, about.large_body())) {
            None => Message::new(&parts, self.text.unwrap_or_default().as_bytes(), scratch),
            Some((about, None)) => Message::new(&parts, about.inline_body(), scratch),
            Some((_, Some(body))) => Message::with_large_body(&parts, body.chunks.clone(), scratch),
        }
    }
}

pub(super) struct Announcer {
    /// The task holds the receiver.
    sender: mpsc::Sender<Announcement>,
    receiver: Mutex<Option<mpsc::Receiver<Announcement>>>,
    bytes: AtomicUsize,
    /// The event exchange is wanted.
    events: AtomicBool,
}

impl Default for Announcer {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            bytes: AtomicUsize::new(0),
            events: AtomicBool::new(false),
        }
    }
}

impl Announcer {
    pub(super) fn set_events(&self, on: bool) {
        self.events.store(on, Ordering::Relaxed);
    }

    /// Tells of an event, unless nobody wants to know; `headers` is not called then. May be called under any lock.
    pub(super) fn event<T>(&self, key: &'static str, headers: impl FnOnce(&mut Headers) -> T) {
        if !self.events.load(Ordering::Relaxed) {
            return;
        }
        let mut table = Headers::default();
        headers(&mut table);
        let now = i64::try_from(clock::now().0).unwrap_or(i64::MAX);
        table.0.insert("timestamp_in_ms", FieldValue::I64(now));
        self.post(Announcement {
            vhost: None,
            exchange: EVENT_EXCHANGE,
            routing_key: key.to_owned(),
            headers: table.0,
            about: None,
            text: None,
        });
    }

    /// Leaves an announcement, or drops it when too many wait.
    pub(super) fn post(&self, announcement: Announcement) {
        let bytes = announcement.bytes();
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before.saturating_add(bytes) > WAITING_BYTES_MAX || self.sender.try_send(announcement).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
    }

    /// The task: publishes until the program ends.
    pub(super) async fn run(self: Arc<Self>, broker: Arc<Broker>, default_vhost: String) {
        let Some(mut receiver) = self.receiver.lock().take() else {
            return;
        };
        let mut batch = Batch::new(broker.store().clone());
        let (mut waiting, mut scratch) = (Vec::new(), Vec::new());
        while receiver.recv_many(&mut waiting, STRIDE).await > 0 {
            for announcement in waiting.drain(..) {
                self.bytes.fetch_sub(announcement.bytes(), Ordering::AcqRel);
                let vhost = announcement.vhost.clone();
                if let Some(vhost) = vhost.or_else(|| broker.vhost(&default_vhost)) {
                    publish(&vhost, announcement.into_message(&mut scratch), &mut batch);
                }
            }
            batch.flush();
            broker.wait_for_store().await;
        }
    }
}

fn publish(vhost: &Vhost, message: Message, batch: &mut Batch) {
    let mut route = Route::new();
    let routable = Routable {
        keys: &[message.routing_key()],
        properties: RawProperties::new(message.properties()),
        now: clock::now(),
    };
    vhost.read(|topology| topology.route_inside(message.exchange(), &routable, &mut route));
    if !route.is_empty() {
        let publish = Publish {
            message,
            confirm: None,
        };
        batch.publish(route.as_slice().into(), publish);
    }
}

/// The headers of an event, in RabbitMQ's names and types.
#[derive(Default)]
pub(super) struct Headers(pub(super) FieldTable);

impl Headers {
    pub(super) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.0.insert(name, FieldValue::LongString(value));
        self
    }

    pub(super) fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        self.0.insert(name, FieldValue::Bool(value));
        self
    }

    pub(super) fn number(&mut self, name: &str, value: u64) -> &mut Self {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.0.insert(name, FieldValue::I64(value));
        self
    }

    pub(super) fn table(&mut self, name: &str, value: &FieldTable) -> &mut Self {
        self.0.insert(name, FieldValue::Table(value.clone()));
        self
    }

    /// Whose doing it was: a user's, or [`INTERNAL_USER`]'s.
    pub(super) fn by(&mut self, user: &str) {
        self.text("user_who_performed_action", user);
    }

    pub(super) fn queue(&mut self, queue: &QueueDefinition, exclusive: bool) -> &mut Self {
        self.text("name", &queue.name)
            .text("vhost", &queue.vhost)
            .flag("durable", queue.durable)
            .flag("auto_delete", queue.auto_delete)
            .flag("exclusive", exclusive)
            .table("arguments", &queue.arguments)
    }

    pub(super) fn exchange(&mut self, exchange: &ExchangeDefinition) -> &mut Self {
        self.text("name", &exchange.name)
            .text("vhost", &exchange.vhost)
            .text("type", &exchange.kind)
            .flag("durable", exchange.durable)
            .flag("auto_delete", exchange.auto_delete)
            .flag("internal", exchange.internal)
            .table("arguments", &exchange.arguments)
    }

    pub(super) fn binding(&mut self, binding: &BindingDefinition) -> &mut Self {
        let (kind, name) = match &binding.destination {
            Destination::Queue(name) => ("queue", name),
            Destination::Exchange(name) => ("exchange", name),
        };
        self.text("source_name", &binding.source)
            .text("source_kind", "exchange")
            .text("destination_name", name)
            .text("destination_kind", kind)
            .text("routing_key", &binding.routing_key)
            .text("vhost", &binding.vhost)
            .table("arguments", &binding.arguments)
    }
}
