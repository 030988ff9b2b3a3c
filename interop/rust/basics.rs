//! What every client has to show.

use std::collections::BTreeMap;

use lapin::{
    BasicProperties, Confirmation, ExchangeKind,
    options::{
        BasicAckOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, BasicRecoverOptions,
        BasicRejectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, DecimalValue, FieldArray, FieldTable},
};
use tokio::net::{TcpListener, TcpStream};

use crate::session::{
    Outcome, Session, ack, array, body, ended, int, next, persistent, same, table, take, text, unique,
    with_headers,
};

pub(crate) async fn declare_bind(uri: String) -> Outcome {
    let session = Session::open(&uri).await?;
    let queue = session.declare("declare-bind").await?;
    let colour = table([
        ("x-match", text("all")),
        ("colour", text("red")),
        ("size", AMQPValue::LongLongInt(1)),
    ]);
    for (kind, binding, key, arguments) in [
        ("direct", "red", "red", FieldTable::default()),
        ("fanout", "", "anything", FieldTable::default()),
        ("topic", "#.red.*", "red.very", FieldTable::default()),
        ("headers", "", "", colour),
    ] {
        let exchange = session.exchange(kind, kind, FieldTable::default()).await?;
        session
            .bind(&queue, &exchange, binding, arguments.clone())
            .await?;
        let passive = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let none = FieldTable::default();
        session
            .channel
            .exchange_declare(exchange.as_str().into(), ExchangeKind::Direct, passive, none)
            .await?;
        let message = with_headers([("colour", text("red")), ("size", int(1))]);
        session
            .publish((&exchange, key), kind.as_bytes(), message)
            .await?;
        let got = session.get(&queue).await?.delivery;
        same(
            "route",
            (got.exchange.as_str(), got.routing_key.as_str()),
            (&exchange, key),
        )?;
        same("body", body(&got.data), kind.to_owned())?;
        // The exchange would go with its last binding.
        session
            .bind(&queue, &exchange, "other", table([("other", int(1))]))
            .await?;
        if kind != "fanout" {
            session.unbind(&queue, &exchange, binding, arguments).await?;
            session
                .publish((&exchange, key), b"lost", BasicProperties::default())
                .await?;
            same("routed after unbind", session.bodies(&queue).await?, vec![])?;
        }
        session
            .channel
            .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
            .await?;
    }
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let named = session
        .channel
        .queue_declare("".into(), options, FieldTable::default())
        .await?;
    same(
        "a server's name",
        named.name().as_str().starts_with("amq.gen-"),
        true,
    )?;
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn publish_confirms(uri: String) -> Outcome {
    const COUNT: usize = 1000;
    let session = Session::confirming(&uri).await?;
    let queue = session.declare("publish-confirms").await?;
    let mut waiting = Vec::new();
    let numbers: Vec<String> = (0..COUNT).map(|number| number.to_string()).collect();
    for number in &numbers {
        let options = BasicPublishOptions::default();
        let publish = session.channel.basic_publish(
            "".into(),
            queue.as_str().into(),
            options,
            number.as_bytes(),
            persistent(),
        );
        waiting.push(publish.await?);
    }
    for confirm in waiting {
        same("confirm", confirm.await?, Confirmation::Ack(None))?;
    }
    same("order", session.bodies(&queue).await?, numbers)?;
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn consume_prefetch(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session.declare("consume-prefetch").await?;
    for number in 0..20 {
        session.send(&queue, &number.to_string()).await?;
    }
    session.channel.basic_qos(5, BasicQosOptions::default()).await?;
    let mut consumer = session.consume(&queue).await?;
    let mut taken = take(&mut consumer, 5).await?;
    same("ready with five unacked", session.ready(&queue).await?, 15)?;
    let all = BasicAckOptions { multiple: true };
    let third = taken.get(2).ok_or("no third")?;
    third.acker.ack(all).await?;
    taken.extend(take(&mut consumer, 3).await?);
    same("ready after three acks", session.ready(&queue).await?, 12)?;
    session.channel.basic_ack(0, all).await?;
    taken.extend(take(&mut consumer, 5).await?);
    let last = taken.last().ok_or("no last")?;
    last.acker.ack(all).await?;
    taken.extend(take(&mut consumer, 5).await?);
    session.channel.basic_ack(0, all).await?;
    taken.extend(take(&mut consumer, 2).await?);
    let order: Vec<String> = taken.iter().map(|it| body(&it.data)).collect();
    same("order", order, (0..20).map(|number| number.to_string()).collect())?;
    session.remove(&queue).await?;
    same(
        "deliveries after the queue went",
        ended(&mut consumer).await?.is_none(),
        true,
    )?;
    session.close().await
}

pub(crate) async fn nack_requeue(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session.declare("nack-requeue").await?;
    for body in ["a", "b", "c"] {
        session.send(&queue, body).await?;
    }
    session.channel.basic_qos(1, BasicQosOptions::default()).await?;
    let mut consumer = session.consume(&queue).await?;
    for (expected, redelivered, how) in [
        ("a", false, "nack requeue"),
        ("a", true, "reject requeue"),
        ("a", true, "nack"),
        ("b", false, "reject"),
        ("c", false, "recover"),
        ("c", true, "ack"),
    ] {
        let delivery = next(&mut consumer).await?;
        same(
            how,
            (body(&delivery.data).as_str(), delivery.redelivered),
            (expected, redelivered),
        )?;
        let requeue = how.ends_with("requeue");
        match how.split(' ').next() {
            Some("nack") => drop(
                delivery
                    .acker
                    .nack(BasicNackOptions {
                        requeue,
                        multiple: false,
                    })
                    .await?,
            ),
            Some("reject") => drop(delivery.acker.reject(BasicRejectOptions { requeue }).await?),
            Some("recover") => {
                session
                    .channel
                    .basic_recover(BasicRecoverOptions { requeue: true })
                    .await?
            }
            _ => ack(&delivery).await?,
        }
    }
    same("ready at the end", session.ready(&queue).await?, 0)?;
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn mandatory_return(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    for _ in 0..3 {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default().with_message_id("m1".into());
        let key = unique("nowhere");
        let publish = session.channel.basic_publish(
            "amq.topic".into(),
            key.as_str().into(),
            options,
            b"back",
            properties,
        );
        // The client has the return in the confirm only if it came before it.
        let Confirmation::Ack(Some(returned)) = publish.await?.await? else {
            return Err("the confirm came without a return before it".into());
        };
        same(
            "code",
            (returned.reply_code, returned.reply_text.as_str()),
            (312, "NO_ROUTE"),
        )?;
        let message = &returned.delivery;
        same(
            "route",
            (message.exchange.as_str(), message.routing_key.as_str()),
            ("amq.topic", &key),
        )?;
        same("content", body(&message.data), "back".to_owned())?;
        same("id", message.properties.message_id().clone(), Some("m1".into()))?;
    }
    session.close().await
}

pub(crate) async fn large_body(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session.declare("large-body").await?;
    let mut body = vec![0; 10 * 1024 * 1024];
    rand::fill(&mut body[..]);
    same(
        "confirm",
        session.publish(("", &queue), &body, persistent()).await?,
        Confirmation::Ack(None),
    )?;
    same(
        "10 MiB come back",
        session.get(&queue).await?.delivery.data == body,
        true,
    )?;
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn empty_body(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session.declare("empty-body").await?;
    let empty = BasicProperties::default().with_message_id("empty".into());
    session.publish(("", &queue), b"", empty).await?;
    session.send(&queue, "next").await?;
    let mut consumer = session.consume(&queue).await?;
    let (first, second) = (next(&mut consumer).await?, next(&mut consumer).await?);
    same(
        "empty message",
        (first.data.len(), first.properties.message_id().clone()),
        (0, Some("empty".into())),
    )?;
    same("next message", body(&second.data), "next".to_owned())?;
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn header_types(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session.declare("header-types").await?;
    let deep = table([(
        "deep",
        AMQPValue::FieldTable(table([("deeper", array([AMQPValue::Double(0.25)]))])),
    )]);
    // Each has its own tag on the wire, and comes back as the same variant only under that tag.
    let headers = table([
        ("bool", AMQPValue::Boolean(true)),
        ("int8", AMQPValue::ShortShortInt(-128)),
        ("uint8", AMQPValue::ShortShortUInt(255)),
        ("int16", AMQPValue::ShortInt(-32768)),
        ("uint16", AMQPValue::ShortUInt(65535)),
        ("int32", AMQPValue::LongInt(i32::MIN)),
        ("uint32", AMQPValue::LongUInt(u32::MAX)),
        ("int64", AMQPValue::LongLongInt(i64::MIN)),
        ("float", AMQPValue::Float(0.1)),
        ("double", AMQPValue::Double(0.1)),
        (
            "decimal",
            AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 }),
        ),
        ("string", text("grün 🐇")),
        ("empty string", text("")),
        ("bytes", AMQPValue::ByteArray(vec![0, 255, 254].into())),
        ("timestamp", AMQPValue::Timestamp(1 << 31)),
        ("void", AMQPValue::Void),
        (
            "array",
            array([
                int(1),
                text("two"),
                AMQPValue::Void,
                array([AMQPValue::Boolean(false)]),
            ]),
        ),
        ("empty array", AMQPValue::FieldArray(FieldArray::default())),
        ("table", AMQPValue::FieldTable(deep)),
        (
            "empty table",
            AMQPValue::FieldTable(FieldTable::from(BTreeMap::new())),
        ),
    ]);
    let message = BasicProperties::default().with_headers(headers.clone());
    session.publish(("", &queue), b"", message).await?;
    same(
        "headers",
        session.get(&queue).await?.delivery.properties.headers().clone(),
        Some(headers),
    )?;
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn properties(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session.declare("properties").await?;
    let all = BasicProperties::default()
        .with_headers(table([("k", text("v"))]))
        .with_content_type("text/plain".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
        .with_priority(9)
        .with_correlation_id("correlation".into())
        .with_reply_to("answers".into())
        .with_expiration("60000".into())
        .with_message_id("message".into())
        .with_timestamp(1_700_000_000)
        .with_type("kind".into())
        .with_user_id("guest".into())
        .with_app_id("application".into())
        .with_cluster_id("cluster".into());
    for sent in [all, BasicProperties::default()] {
        session.publish(("", &queue), b"all", sent.clone()).await?;
        same("properties", session.get(&queue).await?.delivery.properties, sent)?;
    }
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn channel_error(uri: String) -> Outcome {
    let session = Session::open(&uri).await?;
    let queue = session.declare("channel-error").await?;
    let absent = unique("absent");
    let no_exchange = format!("NOT_FOUND - no exchange '{absent}' in vhost '/'");
    session
        .refuses(404, &no_exchange, async |other| {
            other
                .publish((&absent, "key"), b"", BasicProperties::default())
                .await?;
            Ok(other)
        })
        .await?;
    let no_queue = format!("NOT_FOUND - no queue '{absent}' in vhost '/'");
    session
        .refuses(404, &no_queue, async |other| {
            other.consume(&absent).await?;
            Ok(other)
        })
        .await?;
    let unequal = format!("PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}'");
    session
        .refuses(406, &unequal, async |other| {
            let transient = QueueDeclareOptions::default();
            other
                .channel
                .queue_declare(queue.as_str().into(), transient, FieldTable::default())
                .await?;
            Ok(other)
        })
        .await?;
    session
        .refuses(
            406,
            "PRECONDITION_FAILED - unknown delivery tag 99",
            async |other| {
                other.channel.basic_ack(99, BasicAckOptions::default()).await?;
                Ok(other)
            },
        )
        .await?;
    session
        .refuses(
            403,
            "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
            async |other| {
                let (name, options) = ("amq.mine".into(), ExchangeDeclareOptions::default());
                other
                    .channel
                    .exchange_declare(name, ExchangeKind::Direct, options, FieldTable::default())
                    .await?;
                Ok(other)
            },
        )
        .await?;
    same("the first channel still works", session.ready(&queue).await?, 0)?;
    session.remove(&queue).await?;
    session.close().await
}

/// Passes one connection on to the broker, until it is aborted: then the sockets close without a word.
async fn passage(uri: &str) -> Outcome<(String, tokio::task::JoinHandle<()>)> {
    let (head, place) = uri.rsplit_once('@').ok_or("a URI with user and password")?;
    let (place, tail) = place
        .split_once('/')
        .map_or((place, String::new()), |(place, vhost)| {
            (place, format!("/{vhost}"))
        });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let through = format!("{head}@{}{tail}", listener.local_addr()?);
    let place = place.to_owned();
    let task = tokio::spawn(async move {
        if let Ok((mut client, _)) = listener.accept().await
            && let Ok(mut broker) = TcpStream::connect(place).await
        {
            // However it ends, both sockets close.
            drop(tokio::io::copy_bidirectional(&mut client, &mut broker).await);
        }
    });
    Ok((through, task))
}

pub(crate) async fn reconnect(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session.declare("reconnect").await?;
    session.send(&queue, "kept").await?;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let alone = unique("exclusive");
    session
        .channel
        .queue_declare(alone.as_str().into(), exclusive, FieldTable::default())
        .await?;
    let mut consumer = session.consume(&queue).await?;
    same("first delivery", next(&mut consumer).await?.redelivered, false)?;
    session.close().await?; // with the message unacked

    let (through, task) = passage(&uri).await?;
    let session = Session::open(&through).await?;
    // Free again: it went with its connection.
    session
        .channel
        .queue_declare(alone.as_str().into(), exclusive, FieldTable::default())
        .await?;
    let mut consumer = session.consume(&queue).await?;
    same(
        "delivery after an orderly close",
        next(&mut consumer).await?.redelivered,
        true,
    )?;
    task.abort();
    same(
        "the consumer hears of it",
        ended(&mut consumer).await.is_err(),
        true,
    )?;

    let session = Session::open(&uri).await?;
    let mut consumer = session.consume(&queue).await?;
    let delivery = next(&mut consumer).await?;
    same(
        "delivery after a dropped socket",
        (body(&delivery.data).as_str(), delivery.redelivered),
        ("kept", true),
    )?;
    ack(&delivery).await?;
    same("ready at the end", session.ready(&queue).await?, 0)?;
    session.remove(&queue).await?;
    session.close().await
}
