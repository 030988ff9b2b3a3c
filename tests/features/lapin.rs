//! The same broker through an unmodified client library: what a polite program does in its first hour. Other languages'
//! clients are in `interop/`.

use std::pin::Pin;

use futures_core::Stream;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    ExchangeKind,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
        BasicPublishOptions, BasicQosOptions, BasicRecoverOptions, ConfirmSelectOptions, ExchangeBindOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};

use crate::client::Broker;

async fn connect(broker: &Broker) -> (Connection, Channel) {
    let connection = Connection::connect(&broker.uri(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn declare(channel: &Channel, name: &str) {
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(name.into(), options, FieldTable::default())
        .await
        .unwrap();
}

/// Publishes and waits for the confirm, if the channel has them.
async fn publish(channel: &Channel, exchange: &str, key: &str, body: &str) -> Confirmation {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    channel
        .basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties)
        .await
        .unwrap()
        .await
        .unwrap()
}

async fn consume(channel: &Channel, queue: &str) -> Consumer {
    channel
        .basic_consume(
            queue.into(),
            "tag".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap()
}

/// The next delivery; `None` when the consumer was cancelled.
async fn next(consumer: &mut Consumer) -> Option<Delivery> {
    std::future::poll_fn(|context| Pin::new(&mut *consumer).poll_next(context))
        .await
        .map(Result::unwrap)
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.data).unwrap()
}

#[tokio::test]
async fn a_work_queue_with_confirms_prefetch_and_requeues() {
    let broker = Broker::start();
    let (connection, channel) = connect(&broker).await;
    declare(&channel, "work").await;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    for body in ["1", "2", "3"] {
        assert!(matches!(
            publish(&channel, "", "work", body).await,
            Confirmation::Ack(None)
        ));
    }
    channel.basic_qos(2, BasicQosOptions::default()).await.unwrap();
    let mut consumer = consume(&channel, "work").await;
    let (first, second) = (
        next(&mut consumer).await.unwrap(),
        next(&mut consumer).await.unwrap(),
    );
    assert_eq!((text(&first), text(&second)), ("1", "2"));
    let requeue = BasicNackOptions {
        requeue: true,
        ..BasicNackOptions::default()
    };
    first.acker.nack(requeue).await.unwrap();
    let again = next(&mut consumer).await.unwrap();
    assert_eq!((text(&again), again.redelivered), ("1", true));
    let all = BasicAckOptions { multiple: true };
    again.acker.ack(all).await.unwrap();
    let third = next(&mut consumer).await.unwrap();
    assert_eq!(text(&third), "3");
    third.acker.ack(BasicAckOptions::default()).await.unwrap();
    channel
        .basic_cancel("tag".into(), BasicCancelOptions::default())
        .await
        .unwrap();
    let purged = channel
        .queue_purge("work".into(), QueuePurgeOptions::default())
        .await;
    assert_eq!(purged.unwrap(), 0);
    connection.close(200, "bye".into()).await.unwrap();
}

#[tokio::test]
async fn what_no_queue_wants_comes_back_with_its_confirm() {
    let broker = Broker::start();
    let (_connection, channel) = connect(&broker).await;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let Confirmation::Ack(Some(returned)) = publish(&channel, "amq.topic", "no.body.listens", "x").await
    else {
        panic!("no return");
    };
    assert_eq!(
        (returned.reply_code, returned.reply_text.as_str()),
        (312, "NO_ROUTE")
    );
    assert_eq!(text(&returned.delivery), "x");
}

#[tokio::test]
async fn news_through_exchanges_of_every_type() {
    let broker = Broker::start();
    let (_connection, channel) = connect(&broker).await;
    declare(&channel, "news").await;
    let options = ExchangeDeclareOptions::default();
    for (name, kind) in [("in", ExchangeKind::Fanout), ("sorted", ExchangeKind::Topic)] {
        channel
            .exchange_declare(name.into(), kind, options, FieldTable::default())
            .await
            .unwrap();
    }
    let bind = ExchangeBindOptions::default();
    channel
        .exchange_bind(
            "sorted".into(),
            "in".into(),
            "".into(),
            bind,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let mut headers = FieldTable::default();
    headers.insert("urgent".into(), true.into());
    for (exchange, key, arguments) in [
        ("sorted", "*.weather.#", FieldTable::default()),
        ("amq.direct", "exact", FieldTable::default()),
        ("amq.headers", "", headers.clone()),
    ] {
        channel
            .queue_bind(
                "news".into(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                arguments,
            )
            .await
            .unwrap();
    }
    publish(&channel, "in", "oslo.weather.snow", "snow").await;
    publish(&channel, "in", "oslo.sport", "goal").await;
    publish(&channel, "amq.direct", "exact", "direct").await;
    let properties = BasicProperties::default().with_headers(headers);
    let plain = BasicPublishOptions::default();
    channel
        .basic_publish("amq.headers".into(), "".into(), plain, b"urgent", properties)
        .await
        .unwrap();
    let mut consumer = consume(&channel, "news").await;
    for expected in ["snow", "direct", "urgent"] {
        assert_eq!(text(&next(&mut consumer).await.unwrap()), expected);
    }
}

#[tokio::test]
async fn an_error_closes_the_channel_and_the_connection_goes_on() {
    let broker = Broker::start();
    let (connection, channel) = connect(&broker).await;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let error = channel
        .queue_declare("none".into(), passive, FieldTable::default())
        .await
        .unwrap_err();
    let ErrorKind::ProtocolError(error) = error.kind() else {
        panic!("{error}");
    };
    assert_eq!(error.get_id(), 404);
    assert_eq!(
        error.get_message().as_str(),
        "NOT_FOUND - no queue 'none' in vhost '/'"
    );
    assert!(!channel.status().connected());
    let channel = connection.create_channel().await.unwrap();
    declare(&channel, "some").await;
}

#[tokio::test]
async fn a_deleted_queue_ends_its_consumers() {
    let broker = Broker::start();
    let (_connection, channel) = connect(&broker).await;
    declare(&channel, "q").await;
    let mut consumer = consume(&channel, "q").await;
    let (_other_connection, other) = connect(&broker).await;
    other
        .queue_delete("q".into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    assert!(next(&mut consumer).await.is_none());
}

#[tokio::test]
async fn a_transaction_and_a_recover() {
    let broker = Broker::start();
    let (_connection, channel) = connect(&broker).await;
    let (_other_connection, reader) = connect(&broker).await;
    declare(&channel, "q").await;
    channel.tx_select().await.unwrap();
    publish(&channel, "", "q", "rolled back").await;
    channel.tx_rollback().await.unwrap();
    publish(&channel, "", "q", "committed").await;
    let nothing = reader.basic_get("q".into(), BasicGetOptions::default()).await;
    assert!(nothing.unwrap().is_none());
    channel.tx_commit().await.unwrap();
    for redelivered in [false, true] {
        let got = reader.basic_get("q".into(), BasicGetOptions::default()).await;
        let got = got.unwrap().unwrap();
        assert_eq!((text(&got.delivery), got.redelivered), ("committed", redelivered));
        reader
            .basic_recover(BasicRecoverOptions { requeue: true })
            .await
            .unwrap();
    }
}
