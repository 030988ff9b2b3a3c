//! Exchange types beyond AMQP's four, and what exchanges do with what they cannot route.

use lapin::{
    BasicProperties,
    options::{ExchangeBindOptions, ExchangeDeclareOptions},
    types::FieldTable,
};

use crate::session::{Outcome, Session, array, int, same, table, text, with_headers};

pub(crate) async fn consistent_hash(uri: String) -> Outcome {
    const COUNT: usize = 200;
    let session = Session::confirming(&uri).await?;
    let (light, heavy) = (
        session.declare("hash-light").await?,
        session.declare("hash-heavy").await?,
    );
    for (name, arguments) in [
        ("hash-key", FieldTable::default()),
        ("hash-header", table([("hash-header", text("on"))])),
        ("hash-property", table([("hash-property", text("message_id"))])),
    ] {
        let exchange = session.exchange(name, "x-consistent-hash", arguments).await?;
        session
            .bind(&light, &exchange, "1", FieldTable::default())
            .await?;
        session
            .bind(&heavy, &exchange, "3", FieldTable::default())
            .await?;
        let mut rounds = Vec::new();
        for _ in 0..2 {
            for number in 0..COUNT {
                let value = format!("k{number}");
                let (key, message) = match name {
                    "hash-key" => (value.as_str(), BasicProperties::default()),
                    "hash-header" => ("", with_headers([("on", text(&value))])),
                    _ => (
                        "",
                        BasicProperties::default().with_message_id(value.as_str().into()),
                    ),
                };
                same(
                    "confirm",
                    session.confirmed((&exchange, key), &value, message).await?,
                    true,
                )?;
            }
            rounds.push((session.bodies(&light).await?, session.bodies(&heavy).await?));
        }
        same(
            "a value goes the same way every time",
            rounds.first(),
            rounds.last(),
        )?;
        let (few, many) = rounds
            .first()
            .map(|(light, heavy)| (light.len(), heavy.len()))
            .unwrap_or_default();
        same("one queue each", few + many, COUNT)?;
        same(
            &format!("{few} and {many} by weights 1 and 3"),
            0 < few && few < many,
            true,
        )?;
        session
            .unbind(&light, &exchange, "1", FieldTable::default())
            .await?;
        session
            .unbind(&heavy, &exchange, "3", FieldTable::default())
            .await?;
    }
    session.remove(&light).await?;
    session.remove(&heavy).await?;
    session.close().await
}

pub(crate) async fn headers_matching(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let (queue, anchor) = (
        session.declare("headers-matching").await?,
        session.declare("headers-anchor").await?,
    );
    let exchange = session
        .exchange("headers-kept", "headers", FieldTable::default())
        .await?;
    session
        .bind(&anchor, &exchange, "", table([("never", text("matches"))]))
        .await?;
    for (how, colour, found) in [
        ("all", "red", vec!["both", "one"]), // headers that begin with x- do not count
        ("any", "blue", vec![]),
        ("all-with-x", "red", vec!["both"]),
        ("any-with-x", "blue", vec!["both"]),
    ] {
        let arguments = table([
            ("x-match", text(how)),
            ("colour", text(colour)),
            ("x-size", int(1)),
        ]);
        session.bind(&queue, &exchange, "", arguments.clone()).await?;
        for (name, size) in [("both", 1), ("one", 2)] {
            let message = with_headers([("colour", text("red")), ("x-size", int(size))]);
            same(
                "confirm",
                session.confirmed((&exchange, ""), name, message).await?,
                true,
            )?;
        }
        same(
            how,
            session.bodies(&queue).await?,
            found.into_iter().map(str::to_owned).collect(),
        )?;
        session.unbind(&queue, &exchange, "", arguments).await?;
    }
    session.remove(&queue).await?;
    session.remove(&anchor).await?;
    session.close().await
}

pub(crate) async fn alternate_exchange(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let (queue, lost) = (
        session.declare("alternate-queue").await?,
        session.declare("alternate-lost").await?,
    );
    let alternate = session
        .exchange("alternate", "fanout", FieldTable::default())
        .await?;
    session.bind(&lost, &alternate, "", FieldTable::default()).await?;
    let exchange = session
        .exchange(
            "alternated",
            "direct",
            table([("alternate-exchange", text(&alternate))]),
        )
        .await?;
    session
        .bind(&queue, &exchange, "known", FieldTable::default())
        .await?;
    for key in ["known", "unknown"] {
        same(
            "confirm",
            session
                .confirmed((&exchange, key), key, BasicProperties::default())
                .await?,
            true,
        )?;
    }
    same(
        "the bound queue",
        session.bodies(&queue).await?,
        vec!["known".to_owned()],
    )?;
    same(
        "the alternate's queue",
        session.bodies(&lost).await?,
        vec!["unknown".to_owned()],
    )?;
    session.remove(&queue).await?;
    session.remove(&lost).await?;
    session.close().await
}

pub(crate) async fn exchange_cycle(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let queue = session.declare("cycle-queue").await?;
    let (first, second) = (
        session
            .exchange("cycle-first", "fanout", FieldTable::default())
            .await?,
        session
            .exchange("cycle-second", "fanout", FieldTable::default())
            .await?,
    );
    session.bind(&queue, &second, "", FieldTable::default()).await?;
    for (to, from) in [(&second, &first), (&first, &second)] {
        let (to, from, options) = (
            to.as_str().into(),
            from.as_str().into(),
            ExchangeBindOptions::default(),
        );
        session
            .channel
            .exchange_bind(to, from, "".into(), options, FieldTable::default())
            .await?;
    }
    for exchange in [&first, &second] {
        same(
            "confirm",
            session
                .confirmed((exchange, ""), exchange, BasicProperties::default())
                .await?,
            true,
        )?;
    }
    same(
        "one copy each",
        session.bodies(&queue).await?,
        vec![first, second],
    )?;
    session
        .refuses(403, "cannot publish to internal exchange", async |other| {
            let name = crate::session::unique("internal");
            let options = ExchangeDeclareOptions {
                internal: true,
                ..ExchangeDeclareOptions::default()
            };
            let kind = lapin::ExchangeKind::Fanout;
            other
                .channel
                .exchange_declare(name.as_str().into(), kind, options, FieldTable::default())
                .await?;
            other
                .publish((&name, ""), b"", BasicProperties::default())
                .await?;
            Ok(other)
        })
        .await?;
    let name = crate::session::unique("internal");
    session
        .channel
        .exchange_delete(name.as_str().into(), Default::default())
        .await?;
    session.remove(&queue).await?;
    session.close().await
}

pub(crate) async fn carbon_copies(uri: String) -> Outcome {
    let session = Session::confirming(&uri).await?;
    let (to, cc) = (
        session.declare("copies-to").await?,
        session.declare("copies-cc").await?,
    );
    let bcc = session.declare("copies-bcc").await?;
    let left = || table([("CC", array([text(&cc), text(&to)])), ("other", int(1))]);
    let mut headers = left();
    headers.insert("BCC".into(), array([text(&bcc)]));
    let message = BasicProperties::default().with_headers(headers);
    same("confirm", session.confirmed(("", &to), "", message).await?, true)?;
    for queue in [&to, &cc, &bcc] {
        let got = session.get(queue).await?.delivery;
        same(
            "BCC is taken away",
            got.properties.headers().clone(),
            Some(left()),
        )?;
        same("routing key", got.routing_key.as_str(), &to)?;
        same("one copy each", session.ready(queue).await?, 0)?;
        session.remove(queue).await?;
    }
    session.close().await
}
