//! What queues and channels do beyond holding messages.

use lapin::{
    BasicProperties,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions, BasicRejectOptions,
        ConfirmSelectOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::session::{
    Outcome, Session, ack, array, body, dead_lettering, ended, header, int, next, persistent, same, table,
    take, text,
};

pub(crate) async fn length_limits(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let dead = session.declare("limit-dead").await?;
    for (overflow, kept, gone, acked) in [
        ("drop-head", ["1", "2"], vec!["0".to_owned()], true),
        ("reject-publish", ["0", "1"], vec![], false),
        ("reject-publish-dlx", ["0", "1"], vec!["2".to_owned()], false),
    ] {
        for limit in ["x-max-length", "x-max-length-bytes"] {
            let arguments = dead_lettering(&dead, [(limit, int(2)), ("x-overflow", text(overflow))]);
            let queue = session
                .declare_with(&format!("{overflow}{limit}"), arguments)
                .await?;
            session.send(&queue, "0").await?;
            session.send(&queue, "1").await?;
            same(
                overflow,
                session.confirmed(("", &queue), "2", persistent()).await?,
                acked,
            )?;
            same(
                "kept",
                session.bodies(&queue).await?,
                kept.map(str::to_owned).to_vec(),
            )?;
            session.becomes_ready(&dead, u32::try_from(gone.len())?).await?;
            same("dead letters", session.bodies(&dead).await?, gone.clone())?;
            session.remove(&queue).await?;
        }
    }
    session.remove(&dead).await?;
    session.close().await
}

/// What a dead letter tells of its death.
fn died(properties: &BasicProperties, queue: &str, reason: &str) -> Outcome {
    let Some(AMQPValue::FieldArray(deaths)) = header(properties, "x-death") else {
        return Err("no x-death".into());
    };
    let [AMQPValue::FieldTable(death)] = deaths.as_slice() else {
        return Err(format!("x-death is {deaths:?}").into());
    };
    let mut death = death.inner().clone();
    same(
        "x-death has a time",
        matches!(death.remove("time"), Some(AMQPValue::Timestamp(_))),
        true,
    )?;
    let expected = table([
        ("count", AMQPValue::LongLongInt(1)),
        ("reason", text(reason)),
        ("queue", text(queue)),
        ("exchange", text("")),
        ("routing-keys", array([text(queue)])),
        ("original-expiration", text("60000")),
    ]);
    same("x-death", &death, expected.inner())?;
    same(
        "x-first-death-reason",
        header(properties, "x-first-death-reason"),
        Some(text(reason)),
    )?;
    same(
        "x-first-death-queue",
        header(properties, "x-first-death-queue"),
        Some(text(queue)),
    )?;
    same("the publisher's header", header(properties, "own"), Some(int(1)))?;
    same("expiration is taken away", properties.expiration().clone(), None)
}

pub(crate) async fn dead_letters(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let dead = session.declare("dead").await?;
    let mut consumer = session.consume(&dead).await?;
    for (reason, argument) in [
        ("rejected", None),
        ("expired", Some("x-message-ttl")),
        ("maxlen", Some("x-max-length")),
    ] {
        let mut arguments = dead_lettering(&dead, []);
        if let Some(argument) = argument {
            arguments.insert(argument.into(), int(1));
        }
        let queue = session.declare_with(reason, arguments).await?;
        let message = BasicProperties::default()
            .with_headers(table([("own", int(1))]))
            .with_expiration("60000".into());
        same(
            "confirm",
            session.confirmed(("", &queue), "first", message).await?,
            true,
        )?;
        if reason == "rejected" {
            let got = session
                .channel
                .basic_get(queue.as_str().into(), BasicGetOptions::default())
                .await?;
            let got = got.ok_or("nothing to reject")?;
            got.delivery
                .acker
                .reject(BasicRejectOptions { requeue: false })
                .await?;
        } else if reason == "maxlen" {
            session.send(&queue, "second").await?;
        }
        let letter = next(&mut consumer).await?;
        ack(&letter).await?;
        died(&letter.properties, &queue, reason)?;
        session.remove(&queue).await?;
    }
    session.remove(&dead).await?;
    session.close().await
}

pub(crate) async fn priorities(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session
        .declare_with("priorities", table([("x-max-priority", int(5))]))
        .await?;
    for priority in [0, 1, 5, 9, 1] {
        let message = BasicProperties::default().with_priority(priority);
        same(
            "confirm",
            session
                .confirmed(("", &queue), &priority.to_string(), message)
                .await?,
            true,
        )?;
    }
    same(
        "order",
        session.bodies(&queue).await?,
        ["5", "9", "1", "1", "0"].map(str::to_owned).to_vec(),
    )?;
    session.remove(&queue).await?;
    session.close().await
}

/// Two consumers of which the first gets everything while it is there.
async fn first_before_second(
    uri: &str,
    name: &str,
    of_queue: FieldTable,
    of_first: FieldTable,
    late: bool,
) -> Outcome {
    let session = Session::confirming(uri).await?;
    let queue = session.declare_with(name, of_queue).await?;
    let options = BasicConsumeOptions::default();
    let none = FieldTable::default();
    let (mut first, mut second);
    if late {
        second = session.consume_as(&queue, "second", options, none).await?;
        first = session.consume_as(&queue, "first", options, of_first).await?;
    } else {
        first = session.consume_as(&queue, "first", options, of_first).await?;
        second = session.consume_as(&queue, "second", options, none).await?;
    }
    for expected in ["a", "b"] {
        session.send(&queue, expected).await?;
        let delivery = next(&mut first).await?;
        same("the first consumer's", body(&delivery.data), expected.to_owned())?;
        ack(&delivery).await?;
    }
    session
        .channel
        .basic_cancel("first".into(), BasicCancelOptions::default())
        .await?;
    session.send(&queue, "c").await?;
    same(
        "the second consumer's",
        body(&next(&mut second).await?.data),
        "c".to_owned(),
    )?;
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn single_active_consumer(uri: String) -> Outcome {
    let single = table([("x-single-active-consumer", AMQPValue::Boolean(true))]);
    first_before_second(&uri, "single", single, FieldTable::default(), false).await
}

pub(crate) async fn consumer_priorities(uri: String) -> Outcome {
    first_before_second(
        &uri,
        "ranked",
        FieldTable::default(),
        table([("x-priority", int(10))]),
        true,
    )
    .await
}

pub(crate) async fn exclusive_consumer(uri: String) -> Outcome {
    let session = Session::open(&uri).await?;
    let queue = session.declare("exclusive-consumer").await?;
    let options = BasicConsumeOptions {
        exclusive: true,
        ..BasicConsumeOptions::default()
    };
    let alone = session
        .consume_as(&queue, "alone", options, FieldTable::default())
        .await?;
    let words = format!("ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use");
    session
        .refuses(403, &words, async |other| {
            other.consume(&queue).await?;
            Ok(other)
        })
        .await?;
    session
        .channel
        .basic_cancel(alone.tag(), BasicCancelOptions::default())
        .await?;
    session.consume(&queue).await?;
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn cancel_notify(uri: String) -> Outcome {
    let session = Session::open(&uri).await?;
    let other = Session::open(&uri).await?;
    let queue = session.declare("cancelled").await?;
    let mut consumer = session.consume(&queue).await?;
    other.remove(&queue).await?;
    same("the consumer ends", ended(&mut consumer).await?.is_none(), true)?;
    let again = session.declare("cancelled").await?;
    same("the channel goes on", session.ready(&again).await?, 0)?;
    session.remove(&again).await?;
    other.close().await?;
    session.close().await
}

pub(crate) async fn direct_reply_to(uri: String) -> Outcome {
    const PSEUDO: &str = "amq.rabbitmq.reply-to";
    let (client, server) = (Session::open(&uri).await?, Session::open(&uri).await?);
    let queue = server.declare("rpc").await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut answers = client
        .consume_as(PSEUDO, "", options, FieldTable::default())
        .await?;
    let question = BasicProperties::default()
        .with_reply_to(PSEUDO.into())
        .with_correlation_id("7".into());
    client.publish(("", &queue), b"2+2", question).await?;
    let mut questions = server.consume(&queue).await?;
    let asked = next(&mut questions).await?;
    let reply_to = asked.properties.reply_to().clone().ok_or("no reply-to")?;
    same(
        "reply-to",
        reply_to.as_str().starts_with("amq.rabbitmq.reply-to."),
        true,
    )?;
    let id = asked
        .properties
        .correlation_id()
        .clone()
        .ok_or("no correlation-id")?;
    let answer = BasicProperties::default().with_correlation_id(id);
    server.publish(("", reply_to.as_str()), b"4", answer).await?;
    ack(&asked).await?;
    let answer = next(&mut answers).await?;
    same("answer", body(&answer.data), "4".to_owned())?;
    same(
        "its id",
        answer.properties.correlation_id().clone(),
        Some("7".into()),
    )?;
    server
        .refuses(406, "fast reply consumer does not exist", async |other| {
            let question = BasicProperties::default().with_reply_to(PSEUDO.into());
            other.publish(("", &queue), b"", question).await?;
            Ok(other)
        })
        .await?;
    server.remove(&queue).await?;
    client.close().await?;
    server.close().await
}

pub(crate) async fn global_qos(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let (left, right) = (
        session.declare("qos-left").await?,
        session.declare("qos-right").await?,
    );
    for _ in 0..5 {
        session.send(&left, "").await?;
        session.send(&right, "").await?;
    }
    session
        .channel
        .basic_qos(3, BasicQosOptions { global: true })
        .await?;
    let mut one = session.consume(&left).await?;
    let mut other = session.consume(&right).await?;
    let taken = take(&mut one, 3).await?;
    same(
        "one limit for two consumers",
        (session.ready(&left).await?, session.ready(&right).await?),
        (2, 5),
    )?;
    for delivery in &taken {
        ack(delivery).await?;
    }
    for _ in 0..3 {
        // Who gets what is the broker's choice.
        tokio::select! {
            delivery = next(&mut one) => drop(delivery?),
            delivery = next(&mut other) => drop(delivery?),
        }
    }
    same(
        "after three acks",
        session.ready(&left).await? + session.ready(&right).await?,
        4,
    )?;
    session.remove(&left).await?;
    session.remove(&right).await?;
    session.close().await
}

pub(crate) async fn transactions(uri: String) -> Outcome {
    let session = Session::open(&uri).await?;
    let watcher = Session::open(&uri).await?;
    let queue = session.declare("tx").await?;
    session.publish(("", &queue), b"old", persistent()).await?;
    session.channel.tx_select().await?;
    let old = session
        .channel
        .basic_get(queue.as_str().into(), BasicGetOptions::default())
        .await?;
    let tag = old.ok_or("the old message is not there")?.delivery.delivery_tag;
    session
        .publish(("", &queue), b"rolled back", persistent())
        .await?;
    session.channel.basic_ack(tag, Default::default()).await?;
    session.channel.tx_rollback().await?;
    same("ready after the rollback", watcher.ready(&queue).await?, 0)?;
    session.publish(("", &queue), b"new", persistent()).await?;
    session.channel.basic_ack(tag, Default::default()).await?;
    same("ready before the commit", watcher.ready(&queue).await?, 0)?;
    session.channel.tx_commit().await?;
    same(
        "after the commit",
        watcher.bodies(&queue).await?,
        vec!["new".to_owned()],
    )?;
    session
        .refuses(406, "cannot switch from confirm to tx mode", async |other| {
            other
                .channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            other.channel.tx_select().await?;
            Ok(other)
        })
        .await?;
    watcher.remove(&queue).await?;
    watcher.close().await?;
    session.close().await
}

pub(crate) async fn update_secret(uri: String) -> Outcome {
    let session = Session::open(&uri).await?;
    session
        .connection
        .update_secret("a new secret".into(), "the old one expired".into())
        .await?;
    let queue = session.declare("secret").await?;
    session.remove(&queue).await?;
    session.close().await
}
