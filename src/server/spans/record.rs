//! What each step of a message leaves behind. Names of attributes are those of OpenTelemetry's conventions for messaging
//! where it has one, and begin with `leveret` where it has none.

use std::sync::atomic::Ordering;

use rand::RngCore;
use sha2::{Digest, Sha256};

use super::{
    Attribute, Span, Spans,
    context::{Context, SpanId, TraceId, traceparent},
};
use crate::broker::{
    ids::{QueueId, Seq},
    message::Message,
    queue::dead_letter::DeadLetter,
};
use crate::protocol::{
    field::{FieldTable, FieldValue},
    properties::{Properties, RawProperties},
};
use crate::server::{
    clock,
    firehose::Tap,
    queue_cell::{ConnectionId, QueueCell, QueueHandle},
};

const PUBLISH: &str = "publish";
const ROUTE: &str = "route";
const ENQUEUE: &str = "enqueue";
const DELIVER: &str = "deliver";
const SETTLE: &str = "settle";
const DEAD_LETTER: &str = "dead-letter";
/// All operations there are.
pub const SPAN_NAMES: [&str; 6] = [PUBLISH, ROUTE, ENQUEUE, DELIVER, SETTLE, DEAD_LETTER];

/// A message that is handed to a consumer, or was.
pub(in crate::server) struct Handed<'a> {
    pub(in crate::server) connection: ConnectionId,
    pub(in crate::server) channel: u16,
    pub(in crate::server) delivery_tag: u64,
    pub(in crate::server) queue: &'a QueueCell,
    pub(in crate::server) seq: Seq,
    pub(in crate::server) message: &'a Message,
    pub(in crate::server) redelivered: bool,
}

/// What a consumer says about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Outcome {
    Ack,
    Reject,
    Requeue,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Reject => "reject",
            Self::Requeue => "requeue",
        }
    }
}

type Attributes = Vec<(&'static str, Attribute)>;

fn text(bytes: &[u8]) -> Attribute {
    Attribute::Text(String::from_utf8_lossy(bytes).into_owned())
}

/// What every span says of its message.
fn about(message: &Message, operation: &'static str) -> Attributes {
    let raw = RawProperties::new(message.properties());
    let kind = match operation {
        PUBLISH | ROUTE | ENQUEUE | DEAD_LETTER => "send",
        DELIVER => "receive",
        _ => "settle",
    };
    let mut attributes = vec![
        ("messaging.system", text(b"rabbitmq")),
        ("messaging.operation.name", text(operation.as_bytes())),
        ("messaging.operation.type", text(kind.as_bytes())),
        (
            "messaging.rabbitmq.destination.routing_key",
            text(message.routing_key()),
        ),
        (
            "messaging.message.body.size",
            Attribute::Number(message.body_len()),
        ),
    ];
    if let Ok(Some(id)) = raw.message_id() {
        attributes.push(("messaging.message.id", text(id)));
    }
    if let Ok(Some(id)) = raw.correlation_id() {
        attributes.push(("messaging.message.conversation_id", text(id)));
    }
    attributes
}

/// The number of a span that can be found again by what it was about.
fn derived(what: &str, trace_id: &TraceId, numbers: &[u64]) -> SpanId {
    let mut digest = Sha256::new();
    digest.update(what);
    digest.update(trace_id);
    for number in numbers {
        digest.update(number.to_be_bytes());
    }
    digest.finalize().first_chunk().copied().unwrap_or([1; 8])
}

fn enqueue_id(trace_id: &TraceId, queue: QueueId, seq: Seq) -> SpanId {
    derived(ENQUEUE, trace_id, &[queue.0, seq.0])
}

fn random_id() -> SpanId {
    (rand::rng().next_u64() | 1).to_be_bytes()
}

impl Spans {
    /// The trace of a message, if it is recorded.
    fn context(&self, message: &Message) -> Option<Context> {
        let context = Context::of(message)?;
        (context.sampled && self.samples(&context.trace_id)).then_some(context)
    }

    /// The same answer for every span of a trace: its last 63 bits are as good as random.
    fn samples(&self, trace_id: &TraceId) -> bool {
        let low = trace_id.last_chunk().copied().map_or(0, u64::from_be_bytes);
        low >> 1 < self.sampled_below
    }

    /// A message arrived, between two moments, and this is its route. One without a trace may begin one: then it is given
    /// back with a `traceparent`.
    pub(in crate::server) fn published(
        &self,
        tap: &Tap,
        channel: u16,
        message: Message,
        queues: &[QueueHandle],
    ) -> Message {
        let end_ns = clock::now_ns();
        let (context, span_id, message) = match Context::of(&message) {
            Some(context) if context.sampled && self.samples(&context.trace_id) => {
                (context, random_id(), message)
            }
            Some(_) => return message,
            None => match self.root(&message) {
                Some((context, rooted)) => (context.clone(), context.parent, rooted),
                None => return message,
            },
        };
        let parent = (context.parent != span_id).then_some(context.parent);
        self.births.lock().note(&message, context.trace_id, span_id);
        let destination = String::from_utf8_lossy(message.exchange()).into_owned();
        let mut attributes = about(&message, PUBLISH);
        attributes.extend(tap.attributes(channel));
        let mut routing = about(&message, ROUTE);
        let names = queues.iter().map(|queue| queue.name().to_string()).collect();
        routing.push(("leveret.queues", Attribute::Texts(names)));
        let publish = Span {
            trace_id: context.trace_id,
            span_id,
            parent,
            state: context.state,
            operation: PUBLISH,
            destination,
            start_ns: tap.read_at().min(end_ns),
            end_ns,
            attributes,
        };
        let route = Span {
            span_id: random_id(),
            parent: Some(span_id),
            operation: ROUTE,
            start_ns: tap.routed_at(end_ns),
            attributes: routing,
            ..publish.clone()
        };
        self.push([publish, route]);
        message
    }

    /// Begins a trace with a message, if it is its turn: the trace, and the message that says so.
    fn root(&self, message: &Message) -> Option<(Context, Message)> {
        let mut random = rand::rng();
        if self.rooted_below == 0 || random.next_u64() >> 1 >= self.rooted_below {
            return None;
        }
        let mut trace_id = TraceId::default();
        random.fill_bytes(&mut trace_id);
        let parent = random_id();
        let mut properties = Properties::decode(message.properties()).ok()?;
        let header = traceparent(&trace_id, &parent).into_bytes();
        properties
            .headers
            .get_or_insert_with(FieldTable::default)
            .insert("traceparent", FieldValue::LongString(header.into()));
        let context = Context {
            trace_id,
            parent,
            sampled: true,
            state: String::new(),
        };
        Some((context, message.with_properties(&properties)))
    }

    /// A message was put into a queue.
    pub(in crate::server) fn enqueued(&self, message: &Message, queue: &QueueCell, seq: Seq) {
        let Some(context) = self.context(message) else {
            return;
        };
        let born = self.births.lock().of(message, &context.trace_id);
        let now_ns = clock::now_ns();
        self.push([Span {
            trace_id: context.trace_id,
            span_id: enqueue_id(&context.trace_id, queue.id(), seq),
            parent: Some(born.unwrap_or(context.parent)),
            state: context.state,
            operation: ENQUEUE,
            destination: queue.name().to_string(),
            start_ns: now_ns,
            end_ns: now_ns,
            attributes: about(message, ENQUEUE),
        }]);
    }

    fn deliver_id(&self, trace_id: &TraceId, handed: &Handed<'_>) -> SpanId {
        let of_channel = [
            self.run,
            handed.connection,
            handed.channel.into(),
            handed.delivery_tag,
        ];
        derived(DELIVER, trace_id, &of_channel)
    }

    /// A message was handed to a consumer, or got. Called under the queue's lock.
    pub(in crate::server) fn delivered(&self, tap: &Tap, handed: &Handed<'_>) {
        let Some(context) = self.context(handed.message) else {
            return;
        };
        let now_ns = clock::now_ns();
        let mut attributes = about(handed.message, DELIVER);
        attributes.extend(tap.attributes(handed.channel));
        attributes.push((
            "messaging.rabbitmq.message.delivery_tag",
            Attribute::Number(handed.delivery_tag),
        ));
        attributes.push((
            "leveret.redelivered",
            text(if handed.redelivered { b"true" } else { b"false" }),
        ));
        self.push([Span {
            trace_id: context.trace_id,
            span_id: self.deliver_id(&context.trace_id, handed),
            parent: Some(enqueue_id(&context.trace_id, handed.queue.id(), handed.seq)),
            state: context.state,
            operation: DELIVER,
            destination: handed.queue.name().to_string(),
            start_ns: now_ns,
            end_ns: now_ns,
            attributes,
        }]);
    }

    /// A consumer settled a delivery.
    pub(in crate::server) fn settled(&self, tap: &Tap, handed: &Handed<'_>, outcome: Outcome) {
        let Some(context) = self.context(handed.message) else {
            return;
        };
        let now_ns = clock::now_ns();
        let mut attributes = about(handed.message, SETTLE);
        attributes.extend(tap.attributes(handed.channel));
        attributes.push(("leveret.outcome", text(outcome.word().as_bytes())));
        self.push([Span {
            trace_id: context.trace_id,
            span_id: random_id(),
            parent: Some(self.deliver_id(&context.trace_id, handed)),
            state: context.state,
            operation: SETTLE,
            destination: handed.queue.name().to_string(),
            start_ns: now_ns,
            end_ns: now_ns,
            attributes,
        }]);
    }

    /// A message that died in `source` becomes `rewritten`. Where that goes is told by the enqueues that follow it.
    pub(in crate::server) fn dead_lettered(
        &self,
        source: &QueueCell,
        letter: &DeadLetter,
        rewritten: &Message,
        start_ns: u64,
    ) {
        let Some(context) = self.context(&letter.message) else {
            return;
        };
        let span_id = random_id();
        self.births.lock().note(rewritten, context.trace_id, span_id);
        let mut attributes = about(rewritten, DEAD_LETTER);
        attributes.push(("leveret.queue", text(source.name().as_bytes())));
        attributes.push(("leveret.reason", text(letter.reason.word().as_bytes())));
        // One that a full queue refused was never in it.
        let entered = (letter.seq != Seq::default())
            .then(|| enqueue_id(&context.trace_id, source.id(), letter.seq))
            .or_else(|| self.births.lock().of(&letter.message, &context.trace_id));
        self.push([Span {
            trace_id: context.trace_id,
            span_id,
            parent: Some(entered.unwrap_or(context.parent)),
            state: context.state,
            operation: DEAD_LETTER,
            destination: String::from_utf8_lossy(rewritten.exchange()).into_owned(),
            start_ns,
            end_ns: clock::now_ns(),
            attributes,
        }]);
    }

    /// A message whose delay is over leaves the queue it waited in.
    pub(in crate::server) fn released(&self, source: &QueueCell, seq: Seq, message: &Message) {
        let Some(context) = self.context(message) else {
            return;
        };
        let waited = enqueue_id(&context.trace_id, source.id(), seq);
        self.births.lock().note(message, context.trace_id, waited);
    }
}

impl Tap {
    /// When the read began that brought the message at hand, nanoseconds since 1970.
    fn read_at(&self) -> u64 {
        self.clock.read_ns.load(Ordering::Relaxed)
    }

    /// When the message before the one at hand had its route, within this read; notes the moment of this one.
    fn routed_at(&self, now_ns: u64) -> u64 {
        let before = self.clock.routed_ns.swap(now_ns, Ordering::Relaxed);
        before.max(self.read_at()).min(now_ns)
    }

    /// Who did it.
    fn attributes(&self, channel: u16) -> Attributes {
        vec![
            ("leveret.vhost", Attribute::Text(self.vhost_name())),
            ("leveret.connection", Attribute::Text(self.connection.clone())),
            ("leveret.channel", Attribute::Number(channel.into())),
            ("leveret.user", Attribute::Text(self.user.clone())),
        ]
    }
}
