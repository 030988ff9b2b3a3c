//! What the scenarios do all the time, and how they say what went wrong.

use std::{
    error::Error,
    fmt::Debug,
    pin::Pin,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_core::Stream;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    ExchangeKind,
    message::{BasicGetMessage, Delivery},
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldArray, FieldTable},
};

pub(crate) type Problem = Box<dyn Error + Send + Sync>;
pub(crate) type Outcome<T = ()> = Result<T, Problem>;

/// Queue and exchange names carry it, so that runs against one broker never meet.
static RUN: LazyLock<u32> = LazyLock::new(rand::random);

pub(crate) fn unique(name: &str) -> String {
    format!("interop-{:08x}-{name}", *RUN)
}

pub(crate) fn same<T: PartialEq + Debug>(what: &str, actual: T, expected: T) -> Outcome {
    if actual == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, got {actual:?}").into())
}

pub(crate) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

pub(crate) fn int(number: i32) -> AMQPValue {
    AMQPValue::LongInt(number)
}

pub(crate) fn array<const N: usize>(values: [AMQPValue; N]) -> AMQPValue {
    AMQPValue::FieldArray(FieldArray::from(values.to_vec()))
}

pub(crate) fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

/// The arguments of a queue whose dead letters go to another.
pub(crate) fn dead_lettering<const N: usize>(to: &str, more: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = table(more);
    table.insert("x-dead-letter-exchange".into(), text(""));
    table.insert("x-dead-letter-routing-key".into(), text(to));
    table
}

pub(crate) fn header(properties: &BasicProperties, name: &str) -> Option<AMQPValue> {
    properties.headers().as_ref()?.inner().get(name).cloned()
}

pub(crate) fn with_headers<const N: usize>(headers: [(&str, AMQPValue); N]) -> BasicProperties {
    BasicProperties::default().with_headers(table(headers))
}

pub(crate) fn persistent() -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2)
}

/// The next delivery of a consumer that must not end.
pub(crate) async fn next(consumer: &mut Consumer) -> Outcome<Delivery> {
    let next = ended(consumer).await?;
    next.ok_or_else(|| "the consumer ended".into())
}

/// The next delivery, or none if the consumer has ended.
pub(crate) async fn ended(consumer: &mut Consumer) -> Outcome<Option<Delivery>> {
    let next = std::future::poll_fn(|context| Pin::new(&mut *consumer).poll_next(context)).await;
    Ok(next.transpose()?)
}

pub(crate) async fn take(consumer: &mut Consumer, count: usize) -> Outcome<Vec<Delivery>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(next(consumer).await?);
    }
    Ok(taken)
}

pub(crate) async fn ack(delivery: &Delivery) -> Outcome {
    delivery.acker.ack(BasicAckOptions::default()).await?;
    Ok(())
}

pub(crate) fn body(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

/// A connection with one channel.
pub(crate) struct Session {
    /// Shared with the steps that are to be refused.
    pub(crate) connection: Arc<Connection>,
    pub(crate) channel: Channel,
}

impl Session {
    pub(crate) async fn open(uri: &str) -> Outcome<Self> {
        let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok(Self {
            connection: Arc::new(connection),
            channel,
        })
    }

    pub(crate) async fn confirming(uri: &str) -> Outcome<Self> {
        let session = Self::open(uri).await?;
        session
            .channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(session)
    }

    pub(crate) async fn close(self) -> Outcome {
        Ok(self.connection.close(200, "bye".into()).await?)
    }

    /// A durable queue of this run.
    pub(crate) async fn declare(&self, name: &str) -> Outcome<String> {
        self.declare_with(name, FieldTable::default()).await
    }

    pub(crate) async fn declare_with(&self, name: &str, arguments: FieldTable) -> Outcome<String> {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let name = unique(name);
        self.channel
            .queue_declare(name.as_str().into(), options, arguments)
            .await?;
        Ok(name)
    }

    /// An exchange of this run that goes with its last binding.
    pub(crate) async fn exchange(&self, name: &str, kind: &str, arguments: FieldTable) -> Outcome<String> {
        let kind = match kind {
            "direct" => ExchangeKind::Direct,
            "fanout" => ExchangeKind::Fanout,
            "topic" => ExchangeKind::Topic,
            "headers" => ExchangeKind::Headers,
            other => ExchangeKind::Custom(other.to_owned()),
        };
        let options = ExchangeDeclareOptions {
            durable: true,
            auto_delete: true,
            ..ExchangeDeclareOptions::default()
        };
        let name = unique(name);
        self.channel
            .exchange_declare(name.as_str().into(), kind, options, arguments)
            .await?;
        Ok(name)
    }

    pub(crate) async fn bind(
        &self,
        queue: &str,
        exchange: &str,
        key: &str,
        arguments: FieldTable,
    ) -> Outcome {
        let options = QueueBindOptions::default();
        Ok(self
            .channel
            .queue_bind(queue.into(), exchange.into(), key.into(), options, arguments)
            .await?)
    }

    pub(crate) async fn unbind(
        &self,
        queue: &str,
        exchange: &str,
        key: &str,
        arguments: FieldTable,
    ) -> Outcome {
        Ok(self
            .channel
            .queue_unbind(queue.into(), exchange.into(), key.into(), arguments)
            .await?)
    }

    /// How many messages of a queue wait for a consumer.
    pub(crate) async fn ready(&self, queue: &str) -> Outcome<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await?;
        Ok(declared.message_count())
    }

    /// Waits until so many wait there.
    pub(crate) async fn becomes_ready(&self, queue: &str, count: u32) -> Outcome {
        while self.ready(queue).await? != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub(crate) async fn publish(
        &self,
        to: (&str, &str),
        body: &[u8],
        properties: BasicProperties,
    ) -> Outcome<Confirmation> {
        let options = BasicPublishOptions::default();
        let publish = self
            .channel
            .basic_publish(to.0.into(), to.1.into(), options, body, properties);
        Ok(publish.await?.await?)
    }

    /// Publishes and waits for the confirm; tells whether it was an ack.
    pub(crate) async fn confirmed(
        &self,
        to: (&str, &str),
        body: &str,
        properties: BasicProperties,
    ) -> Outcome<bool> {
        Ok(self.publish(to, body.as_bytes(), properties).await?.is_ack())
    }

    /// Publishes to a queue for good.
    pub(crate) async fn send(&self, queue: &str, body: &str) -> Outcome {
        same(
            "confirm",
            self.confirmed(("", queue), body, persistent()).await?,
            true,
        )
    }

    /// basic.get with automatic acknowledgement.
    pub(crate) async fn take(&self, queue: &str) -> Outcome<Option<BasicGetMessage>> {
        Ok(self
            .channel
            .basic_get(queue.into(), BasicGetOptions { no_ack: true })
            .await?)
    }

    /// The same of a message that must be there.
    pub(crate) async fn get(&self, queue: &str) -> Outcome<BasicGetMessage> {
        let message = self.take(queue).await?;
        message.ok_or_else(|| format!("there is no message in {queue}").into())
    }

    /// Everything that waits in a queue, taken out of it.
    pub(crate) async fn bodies(&self, queue: &str) -> Outcome<Vec<String>> {
        let mut found = Vec::new();
        while let Some(message) = self.take(queue).await? {
            found.push(body(&message.delivery.data));
        }
        Ok(found)
    }

    pub(crate) async fn consume(&self, queue: &str) -> Outcome<Consumer> {
        self.consume_as(queue, "", BasicConsumeOptions::default(), FieldTable::default())
            .await
    }

    pub(crate) async fn consume_as(
        &self,
        queue: &str,
        tag: &str,
        options: BasicConsumeOptions,
        arguments: FieldTable,
    ) -> Outcome<Consumer> {
        Ok(self
            .channel
            .basic_consume(queue.into(), tag.into(), options, arguments)
            .await?)
    }

    pub(crate) async fn remove(&self, queue: &str) -> Outcome {
        self.channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await?;
        Ok(())
    }

    /// What a step does to a channel of its own must be answered with closing that channel, with this code and these words.
    pub(crate) async fn refuses(
        &self,
        code: u16,
        words: &str,
        step: impl AsyncFnOnce(Self) -> Outcome<Self>,
    ) -> Outcome {
        let channel = self.connection.create_channel().await?;
        let watched = channel.clone();
        // What needs no answer is refused while the next method waits for one.
        let refused = match step(Self {
            connection: Arc::clone(&self.connection),
            channel,
        })
        .await
        {
            Err(refused) => refused,
            Ok(_) => loop {
                let options = QueueDeclareOptions {
                    exclusive: true,
                    ..QueueDeclareOptions::default()
                };
                if let Err(refused) = watched
                    .queue_declare("".into(), options, FieldTable::default())
                    .await
                {
                    break refused.into();
                }
            },
        };
        let Some(ErrorKind::ProtocolError(reason)) =
            refused.downcast_ref::<lapin::Error>().map(lapin::Error::kind)
        else {
            return Err(format!("expected {code} {words}, got {refused}").into());
        };
        same(words, reason.get_id(), code)?;
        if reason.get_message().as_str().contains(words) {
            return Ok(());
        }
        Err(format!("expected {words:?}, got {:?}", reason.get_message()).into())
    }
}
