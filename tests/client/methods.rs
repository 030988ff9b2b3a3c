//! Methods in one line each: `declare("q", "durable exclusive").args([("x-max-length", 5.into())])`.

use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame},
    protocol::{AMQPClass, access, basic, confirm, exchange, queue, tx},
    types::{AMQPValue, FieldArray, FieldTable, LongString},
};

pub(crate) use amq_protocol::protocol::BasicProperties;

pub(crate) type Method = AMQPClass;
pub(crate) type Value = AMQPValue;

/// What can be sent on a channel: a method, or a publish with its content.
pub(crate) trait Request {
    /// The frames, encoded.
    fn encode(&self, channel: u16, frame_max: u32) -> Vec<u8>;
    /// Class and method id.
    fn ids(&self) -> (u16, u16);

    fn name(&self) -> String {
        let (class, method) = self.ids();
        format!("method {class}.{method}")
    }
}

impl<T: Request> Request for &T {
    fn encode(&self, channel: u16, frame_max: u32) -> Vec<u8> {
        (*self).encode(channel, frame_max)
    }

    fn ids(&self) -> (u16, u16) {
        (*self).ids()
    }
}

impl Request for Method {
    fn encode(&self, channel: u16, _frame_max: u32) -> Vec<u8> {
        encode(&[AMQPFrame::Method(channel, self.clone())])
    }

    fn ids(&self) -> (u16, u16) {
        ids(self)
    }
}

/// A method whose fields the codec cannot express: written by hand.
pub(crate) struct Raw {
    pub(crate) class: u16,
    pub(crate) method: u16,
    pub(crate) fields: Vec<u8>,
}

impl Request for Raw {
    fn encode(&self, channel: u16, _frame_max: u32) -> Vec<u8> {
        let size = u32::try_from(self.fields.len() + 4).unwrap();
        let mut out = vec![1];
        out.extend(channel.to_be_bytes());
        out.extend(size.to_be_bytes());
        out.extend(self.class.to_be_bytes());
        out.extend(self.method.to_be_bytes());
        out.extend(&self.fields);
        out.push(0xce);
        out
    }

    fn ids(&self) -> (u16, u16) {
        (self.class, self.method)
    }
}

fn encode(frames: &[AMQPFrame]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        out = gen_frame(frame)(WriteContext::from(out)).unwrap().into_inner().0;
    }
    out
}

pub(crate) fn ids(method: &Method) -> (u16, u16) {
    (method.get_amqp_class_id(), method.get_amqp_method_id())
}

/// A field table from pairs; the codec sorts it by key.
pub(crate) fn table<const N: usize>(entries: [(&str, Value); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

/// A long string.
pub(crate) fn text(value: &str) -> Value {
    Value::LongString(LongString::from(value))
}

pub(crate) fn array<const N: usize>(values: [Value; N]) -> Value {
    Value::FieldArray(FieldArray::from(values.to_vec()))
}

/// Flags by name. Each must be one that the method has.
struct Flags<'a>(Vec<&'a str>);

impl<'a> Flags<'a> {
    fn new(flags: &'a str) -> Self {
        Self(flags.split_whitespace().collect())
    }

    fn take(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|flag| *flag != name);
        self.0.len() < before
    }
}

impl Drop for Flags<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "the method has no flag {:?}", self.0);
        }
    }
}

/// Methods that carry an arguments table.
pub(crate) trait Arguments {
    fn args<const N: usize>(self, entries: [(&str, Value); N]) -> Self;
}

impl Arguments for Method {
    fn args<const N: usize>(mut self, entries: [(&str, Value); N]) -> Self {
        let arguments = table(entries);
        match &mut self {
            Self::Queue(queue::AMQPMethod::Declare(method)) => method.arguments = arguments,
            Self::Queue(queue::AMQPMethod::Bind(method)) => method.arguments = arguments,
            Self::Queue(queue::AMQPMethod::Unbind(method)) => method.arguments = arguments,
            Self::Exchange(exchange::AMQPMethod::Declare(method)) => method.arguments = arguments,
            Self::Exchange(exchange::AMQPMethod::Bind(method)) => method.arguments = arguments,
            Self::Exchange(exchange::AMQPMethod::Unbind(method)) => method.arguments = arguments,
            Self::Basic(basic::AMQPMethod::Consume(method)) => method.arguments = arguments,
            other => panic!("{other:?} has no arguments"),
        }
        self
    }
}

/// queue.declare; flags `passive durable exclusive auto-delete nowait`.
pub(crate) fn declare(queue: &str, flags: &str) -> Method {
    let mut flags = Flags::new(flags);
    Method::Queue(queue::AMQPMethod::Declare(queue::Declare {
        queue: queue.into(),
        passive: flags.take("passive"),
        durable: flags.take("durable"),
        exclusive: flags.take("exclusive"),
        auto_delete: flags.take("auto-delete"),
        nowait: flags.take("nowait"),
        arguments: FieldTable::default(),
    }))
}

/// exchange.declare; flags `passive durable auto-delete internal nowait`.
pub(crate) fn exchange(exchange: &str, kind: &str, flags: &str) -> Method {
    let mut flags = Flags::new(flags);
    Method::Exchange(exchange::AMQPMethod::Declare(exchange::Declare {
        exchange: exchange.into(),
        kind: kind.into(),
        passive: flags.take("passive"),
        durable: flags.take("durable"),
        auto_delete: flags.take("auto-delete"),
        internal: flags.take("internal"),
        nowait: flags.take("nowait"),
        arguments: FieldTable::default(),
    }))
}

/// exchange.delete; flags `if-unused nowait`.
pub(crate) fn delete_exchange(exchange: &str, flags: &str) -> Method {
    let mut flags = Flags::new(flags);
    Method::Exchange(exchange::AMQPMethod::Delete(exchange::Delete {
        exchange: exchange.into(),
        if_unused: flags.take("if-unused"),
        nowait: flags.take("nowait"),
    }))
}

/// exchange.bind: messages go from `source` to `destination`.
pub(crate) fn bind_exchange(destination: &str, source: &str, key: &str) -> Method {
    Method::Exchange(exchange::AMQPMethod::Bind(exchange::Bind {
        destination: destination.into(),
        source: source.into(),
        routing_key: key.into(),
        ..exchange::Bind::default()
    }))
}

pub(crate) fn unbind_exchange(destination: &str, source: &str, key: &str) -> Method {
    Method::Exchange(exchange::AMQPMethod::Unbind(exchange::Unbind {
        destination: destination.into(),
        source: source.into(),
        routing_key: key.into(),
        ..exchange::Unbind::default()
    }))
}

pub(crate) fn bind(queue: &str, exchange: &str, key: &str) -> Method {
    Method::Queue(queue::AMQPMethod::Bind(queue::Bind {
        queue: queue.into(),
        exchange: exchange.into(),
        routing_key: key.into(),
        ..queue::Bind::default()
    }))
}

pub(crate) fn unbind(queue: &str, exchange: &str, key: &str) -> Method {
    Method::Queue(queue::AMQPMethod::Unbind(queue::Unbind {
        queue: queue.into(),
        exchange: exchange.into(),
        routing_key: key.into(),
        ..queue::Unbind::default()
    }))
}

/// queue.delete; flags `if-unused if-empty nowait`.
pub(crate) fn delete(queue: &str, flags: &str) -> Method {
    let mut flags = Flags::new(flags);
    Method::Queue(queue::AMQPMethod::Delete(queue::Delete {
        queue: queue.into(),
        if_unused: flags.take("if-unused"),
        if_empty: flags.take("if-empty"),
        nowait: flags.take("nowait"),
    }))
}

pub(crate) fn purge(queue: &str) -> Method {
    Method::Queue(queue::AMQPMethod::Purge(queue::Purge {
        queue: queue.into(),
        ..queue::Purge::default()
    }))
}

/// The count in purge-ok or delete-ok.
pub(crate) fn removed(reply: &Method) -> u32 {
    match reply {
        Method::Queue(queue::AMQPMethod::PurgeOk(ok)) => ok.message_count,
        Method::Queue(queue::AMQPMethod::DeleteOk(ok)) => ok.message_count,
        other => panic!("{other:?} has no count"),
    }
}

pub(crate) fn qos(count: u16, global: bool) -> Method {
    Method::Basic(basic::AMQPMethod::Qos(basic::Qos {
        prefetch_count: count,
        global,
    }))
}

/// basic.consume; flags `no-local no-ack exclusive nowait`.
pub(crate) fn consume(queue: &str, tag: &str, flags: &str) -> Method {
    let mut flags = Flags::new(flags);
    Method::Basic(basic::AMQPMethod::Consume(basic::Consume {
        queue: queue.into(),
        consumer_tag: tag.into(),
        no_local: flags.take("no-local"),
        no_ack: flags.take("no-ack"),
        exclusive: flags.take("exclusive"),
        nowait: flags.take("nowait"),
        arguments: FieldTable::default(),
    }))
}

pub(crate) fn cancel(tag: &str) -> Method {
    Method::Basic(basic::AMQPMethod::Cancel(basic::Cancel {
        consumer_tag: tag.into(),
        nowait: false,
    }))
}

/// basic.get; flag `no-ack`.
pub(crate) fn get(queue: &str, flags: &str) -> Method {
    let mut flags = Flags::new(flags);
    Method::Basic(basic::AMQPMethod::Get(basic::Get {
        queue: queue.into(),
        no_ack: flags.take("no-ack"),
    }))
}

/// basic.ack; flag `multiple`.
pub(crate) fn ack(tag: u64, flags: &str) -> Method {
    let mut flags = Flags::new(flags);
    Method::Basic(basic::AMQPMethod::Ack(basic::Ack {
        delivery_tag: tag,
        multiple: flags.take("multiple"),
    }))
}

/// basic.nack; flags `multiple requeue`.
pub(crate) fn nack(tag: u64, flags: &str) -> Method {
    let mut flags = Flags::new(flags);
    Method::Basic(basic::AMQPMethod::Nack(basic::Nack {
        delivery_tag: tag,
        multiple: flags.take("multiple"),
        requeue: flags.take("requeue"),
    }))
}

pub(crate) fn reject(tag: u64, requeue: bool) -> Method {
    Method::Basic(basic::AMQPMethod::Reject(basic::Reject {
        delivery_tag: tag,
        requeue,
    }))
}

pub(crate) fn recover(requeue: bool) -> Method {
    Method::Basic(basic::AMQPMethod::Recover(basic::Recover { requeue }))
}

pub(crate) fn recover_async(requeue: bool) -> Method {
    Method::Basic(basic::AMQPMethod::RecoverAsync(basic::RecoverAsync { requeue }))
}

pub(crate) fn confirm_select() -> Method {
    Method::Confirm(confirm::AMQPMethod::Select(confirm::Select::default()))
}

pub(crate) fn tx_select() -> Method {
    Method::Tx(tx::AMQPMethod::Select(tx::Select {}))
}

pub(crate) fn tx_commit() -> Method {
    Method::Tx(tx::AMQPMethod::Commit(tx::Commit {}))
}

pub(crate) fn tx_rollback() -> Method {
    Method::Tx(tx::AMQPMethod::Rollback(tx::Rollback {}))
}

/// A method that is answered and changes nothing: the answer proves that all before it was handled.
pub(crate) fn access_request() -> Method {
    Method::Access(access::AMQPMethod::Request(access::Request::default()))
}

/// basic.publish with its content.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    method: basic::Publish,
    properties: BasicProperties,
    body: Vec<u8>,
}

pub(crate) fn publish(exchange: &str, key: &str, body: impl AsRef<[u8]>) -> Publish {
    Publish {
        method: basic::Publish {
            exchange: exchange.into(),
            routing_key: key.into(),
            ..basic::Publish::default()
        },
        properties: BasicProperties::default(),
        body: body.as_ref().to_vec(),
    }
}

impl Publish {
    pub(crate) fn mandatory(mut self) -> Self {
        self.method.mandatory = true;
        self
    }

    pub(crate) fn immediate(mut self) -> Self {
        self.method.immediate = true;
        self
    }

    pub(crate) fn persistent(self) -> Self {
        self.with(|properties| properties.with_delivery_mode(2))
    }

    /// Changes the properties.
    pub(crate) fn with(mut self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        self.properties = change(self.properties);
        self
    }

    pub(crate) fn headers<const N: usize>(self, entries: [(&str, Value); N]) -> Self {
        self.with(|properties| properties.with_headers(table(entries)))
    }

    /// Adds one header.
    pub(crate) fn header(self, name: &str, value: Value) -> Self {
        self.with(|properties| {
            let mut headers = properties.headers().clone().unwrap_or_default();
            headers.insert(name.into(), value);
            properties.with_headers(headers)
        })
    }

    pub(crate) fn body(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self
    }
}

impl Request for Publish {
    fn encode(&self, channel: u16, frame_max: u32) -> Vec<u8> {
        let header = AMQPContentHeader {
            class_id: 60,
            body_size: self.body.len() as u64,
            properties: self.properties.clone(),
        };
        let mut frames = vec![
            AMQPFrame::Method(
                channel,
                Method::Basic(basic::AMQPMethod::Publish(self.method.clone())),
            ),
            AMQPFrame::Header(channel, header),
        ];
        let chunk = frame_max as usize - 8;
        frames.extend(
            self.body
                .chunks(chunk)
                .map(|part| AMQPFrame::Body(channel, part.to_vec())),
        );
        encode(&frames)
    }

    fn ids(&self) -> (u16, u16) {
        (60, 40)
    }
}
