//! Expiry, delays, retries, timeouts, and what a consumer can say about a delivery.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lapin::{
    BasicProperties,
    message::Delivery,
    options::{BasicNackOptions, BasicRejectOptions, ExchangeDeleteOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use crate::session::{
    Outcome, Session, ack, array, body, dead_lettering, header, int, next, persistent, same, table, take,
    text, unique, with_headers,
};

const REQUEUE: BasicRejectOptions = BasicRejectOptions { requeue: true };

pub(crate) async fn expiry(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session
        .declare_with("ttl", table([("x-message-ttl", int(60_000))]))
        .await?;
    for (body, expiration) in [
        ("short", Some("50")),
        ("long", Some("70000")),
        ("of the queue", None),
    ] {
        let mut message = persistent();
        if let Some(expiration) = expiration {
            message = message.with_expiration(expiration.into());
        }
        same(
            "confirm",
            session.confirmed(("", &queue), body, message).await?,
            true,
        )?;
    }
    session.becomes_ready(&queue, 2).await?;
    same(
        "left",
        session.bodies(&queue).await?,
        vec!["long".to_owned(), "of the queue".to_owned()],
    )?;
    session
        .refuses(406, "invalid expiration", async |other| {
            other
                .publish(
                    ("", &queue),
                    b"",
                    BasicProperties::default().with_expiration("soon".into()),
                )
                .await?;
            Ok(other)
        })
        .await?;
    session.remove(&queue).await?;
    session.close().await
}

/// Lets every attempt fail, checks its count and that it came no sooner than it should, until the message is given up.
async fn fail_until_dead(session: &Session, queue: &str, dead: &str, waits_ms: &[u64]) -> Outcome {
    session.send(queue, "poison").await?;
    let mut consumer = session.consume(queue).await?;
    let mut before = Instant::now();
    for (attempt, wait) in (0..).zip(waits_ms) {
        let delivery = next(&mut consumer).await?;
        let count = (attempt > 0).then_some(AMQPValue::LongLongInt(attempt));
        same(
            "x-delivery-count",
            header(&delivery.properties, "x-delivery-count"),
            count,
        )?;
        same(
            "not before its time",
            before.elapsed() >= Duration::from_millis(*wait),
            true,
        )?;
        before = Instant::now();
        delivery.acker.reject(REQUEUE).await?;
    }
    session.becomes_ready(dead, 1).await?;
    let letter = session.get(dead).await?.delivery;
    let reason = header(&letter.properties, "x-first-death-reason");
    same("why it was given up", reason, Some(text("delivery_limit")))?;
    session.remove(queue).await?;
    session.remove(dead).await
}

pub(crate) async fn quorum_queue(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let dead = session.declare("quorum-dead").await?;
    let arguments = dead_lettering(
        &dead,
        [("x-queue-type", text("quorum")), ("x-delivery-limit", int(2))],
    );
    let queue = session.declare_with("quorum", arguments).await?;
    fail_until_dead(&session, &queue, &dead, &[0, 0, 0]).await?;
    session
        .refuses(406, "invalid property 'non-durable'", async |other| {
            let (name, transient) = (unique("not-quorum"), QueueDeclareOptions::default());
            let arguments = table([("x-queue-type", text("quorum"))]);
            other
                .channel
                .queue_declare(name.as_str().into(), transient, arguments)
                .await?;
            Ok(other)
        })
        .await?;
    session.close().await
}

pub(crate) async fn delays(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session.declare("delayed").await?;
    let kind = table([("x-delayed-type", text("fanout"))]);
    let exchange = session
        .exchange("delayed-exchange", "x-delayed-message", kind)
        .await?;
    session.bind(&queue, &exchange, "", FieldTable::default()).await?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 2;
    for (body, to, header, value) in [
        (
            "fourth",
            ("", &*queue),
            "x-opt-delivery-time",
            AMQPValue::Timestamp(at),
        ),
        ("third", (&*exchange, ""), "x-delay", int(600)),
        (
            "second",
            ("", &*queue),
            "x-opt-delivery-delay",
            AMQPValue::LongLongInt(300),
        ),
        ("first", (&*exchange, ""), "x-delay", int(-1)),
    ] {
        let message = with_headers([(header, value)]).with_delivery_mode(2);
        same("confirm", session.confirmed(to, body, message).await?, true)?;
    }
    session.becomes_ready(&queue, 4).await?;
    let order = ["first", "second", "third", "fourth"].map(str::to_owned).to_vec();
    same("order", session.bodies(&queue).await?, order)?;
    session
        .channel
        .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
        .await?;
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn delayed_retry(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let arguments = table([
        ("x-delayed-retry-type", text("all")),
        ("x-delayed-retry-min", int(200)),
    ]);
    let queue = session.declare_with("retried", arguments).await?;
    session.send(&queue, "again").await?;
    session.send(&queue, "behind").await?;
    let mut consumer = session.consume(&queue).await?;
    let first = next(&mut consumer).await?;
    first
        .acker
        .nack(BasicNackOptions {
            requeue: true,
            multiple: false,
        })
        .await?;
    for (expected, redelivered) in [("behind", false), ("again", true)] {
        let delivery = next(&mut consumer).await?;
        same(
            "order",
            (body(&delivery.data).as_str(), delivery.redelivered),
            (expected, redelivered),
        )?;
        ack(&delivery).await?;
    }
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn retry_until_dead(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let dead = session.declare("given-up").await?;
    let schedule = [
        ("x-delayed-retry-type", text("failed")),
        ("x-delayed-retry-schedule", array([int(50), int(150)])),
        ("x-delivery-limit", int(3)),
    ];
    let queue = session
        .declare_with("scheduled", dead_lettering(&dead, schedule))
        .await?;
    fail_until_dead(&session, &queue, &dead, &[0, 50, 150, 150]).await?;
    session.close().await
}

pub(crate) async fn consumer_timeout(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let strict = session
        .declare_with("strict", table([("x-consumer-timeout", int(200))]))
        .await?;
    session.send(&strict, "held").await?;
    session
        .refuses(406, "timed out. Timeout value used: 200 ms", async |other| {
            let mut consumer = other.consume(&strict).await?;
            next(&mut consumer).await?;
            next(&mut consumer).await?;
            Ok(other)
        })
        .await?;
    same(
        "it went back",
        session.bodies(&strict).await?,
        vec!["held".to_owned()],
    )?;
    // A visibility timeout: only the message goes back, and the consumer goes on.
    let arguments = table([
        ("x-consumer-timeout", int(200)),
        ("x-consumer-timeout-action", text("requeue")),
    ]);
    let lenient = session.declare_with("lenient", arguments).await?;
    session.send(&lenient, "seen twice").await?;
    let mut consumer = session.consume(&lenient).await?;
    let taken = take(&mut consumer, 2).await?;
    let redelivered: Vec<bool> = taken.iter().map(|it| it.redelivered).collect();
    same("redelivered", redelivered, vec![false, true])?;
    for delivery in &taken {
        ack(delivery).await?; // the first is too late, and forgiven
    }
    same("left", session.ready(&lenient).await?, 0)?;
    session.remove(&strict).await?;
    session.remove(&lenient).await?;
    session.close().await
}

/// Settles a delivery by a publish.
async fn order<const N: usize>(
    session: &Session,
    delivery: &Delivery,
    headers: [(&str, AMQPValue); N],
) -> Outcome {
    let mut headers = table(headers);
    headers.insert(
        "x-delivery-tag".into(),
        AMQPValue::LongLongInt(delivery.delivery_tag.try_into()?),
    );
    let message = persistent().with_headers(headers);
    same(
        "confirm",
        session.confirmed(("amq.settle", ""), "42", message).await?,
        true,
    )
}

/// What was published with an ack, and what the rejected one carries.
async fn settled(session: &Session, target: &str, refused: &str) -> Outcome {
    same(
        "published with the ack",
        session.bodies(target).await?,
        vec!["42".to_owned()],
    )?;
    session.becomes_ready(refused, 1).await?;
    let letter = session.get(refused).await?.delivery.properties;
    same("why", header(&letter, "x-reason"), Some(text("no such customer")))?;
    same("the annotation", header(&letter, "customer"), Some(int(7)))
}

pub(crate) async fn settle(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let (target, refused) = (
        session.declare("settled-target").await?,
        session.declare("settled-refused").await?,
    );
    let queue = session
        .declare_with(
            "settled",
            dead_lettering(&refused, [("x-consumer-timeout", int(1500))]),
        )
        .await?;
    for body in ["retried", "answered", "rejected", "extended"] {
        session.send(&queue, body).await?;
    }
    let mut consumer = session.consume(&queue).await?;
    let taken = take(&mut consumer, 4).await?;
    let [retried, answered, rejected, extended] = &taken[..] else {
        return Err("not four".into());
    };
    order(
        &session,
        retried,
        [("x-op", text("retry")), ("x-delay", int(100))],
    )
    .await?;
    let publish = [
        ("x-op", text("ack-and-publish")),
        ("x-exchange", text("")),
        ("x-routing-key", text(&target)),
    ];
    order(&session, answered, publish).await?;
    let annotations = AMQPValue::FieldTable(table([("customer", int(7))]));
    let reject = [
        ("x-op", text("reject")),
        ("x-reason", text("no such customer")),
        ("x-annotations", annotations),
    ];
    order(&session, rejected, reject).await?;
    order(
        &session,
        extended,
        [("x-op", text("extend")), ("x-timeout", int(60_000))],
    )
    .await?;
    settled(&session, &target, &refused).await?;
    let again = next(&mut consumer).await?;
    same("the retry", body(&again.data), "retried".to_owned())?;
    same(
        "its count",
        header(&again.properties, "x-delivery-count"),
        Some(AMQPValue::LongLongInt(1)),
    )?;
    ack(&again).await?;
    // Longer than the queue allows: without the extension the channel would be closed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    ack(extended).await?;
    same("left", session.ready(&queue).await?, 0)?;
    session
        .refuses(406, "", async |other| {
            let unknown = with_headers([("x-op", text("retry")), ("x-delivery-tag", int(99))]);
            other.publish(("amq.settle", ""), b"", unknown).await?;
            Ok(other)
        })
        .await?;
    for name in [&queue, &target, &refused] {
        session.remove(name).await?;
    }
    session.close().await
}
