//! Looking into queues, and moving what waits there.

use serde_json::{Value, json};

use crate::client::Broker;

const MESSAGES: &str = "/leveret/queues/%2F/q/messages";

async fn publish(broker: &Broker, queue: &str, payload: &str, n: u64) {
    let body = json!({"routing_key": queue, "payload": payload, "payload_encoding": "string",
        "properties": {"delivery_mode": 2, "headers": {"n": n}}});
    let path = "/exchanges/%2F/amq.default/publish";
    broker.expect(200, "POST", path, &body.to_string()).await;
}

async fn queue(broker: &Broker, name: &str, arguments: Value) {
    let body = json!({"durable": true, "arguments": arguments}).to_string();
    broker
        .expect(201, "PUT", &format!("/queues/%2F/{name}"), &body)
        .await;
}

/// Payloads of a page, and where it goes on.
async fn page(broker: &Broker, query: &str) -> (Vec<String>, Value) {
    let page = broker.get(&format!("{MESSAGES}?{query}")).await;
    let items = page["items"].as_array().unwrap();
    let payload = |item: &Value| item["payload"].as_str().unwrap().to_owned();
    (items.iter().map(payload).collect(), page["next"].clone())
}

async fn length(broker: &Broker, name: &str) -> u64 {
    let queue = broker.get(&format!("/queues/%2F/{name}")).await;
    queue["messages"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_seen_and_found_without_being_consumed() {
    let broker = Broker::start().await;
    queue(&broker, "q", json!({})).await;
    for n in 0..10 {
        publish(&broker, "q", &format!("message {n}"), n % 3).await;
    }
    let (first, next) = page(&broker, "limit=4").await;
    assert_eq!(first, ["message 0", "message 1", "message 2", "message 3"]);
    let (second, _) = page(&broker, &format!("limit=2&from={}", next.as_str().unwrap())).await;
    assert_eq!(second, ["message 4", "message 5"]);
    let (found, end) = page(&broker, "header.n=2").await;
    assert_eq!((found.len(), end), (3, Value::Null));
    assert_eq!(page(&broker, "text=sage+7").await.0, ["message 7"]);
    assert_eq!(page(&broker, "bytes_max=3").await.0, Vec::<String>::new());
    let seen = broker.get("/queues/%2F/q").await;
    assert_eq!(
        (&seen["messages_ready"], &seen["message_bytes"]),
        (&json!(10), &json!(90))
    );
    let message = &broker.get(MESSAGES).await["items"][0];
    assert_eq!(message["redelivered"], json!(false), "looking is no delivery");
    for wrong in [
        "limit=0",
        "limit=501",
        "from=x",
        "from=1",
        "bytes_min=x",
        "truncate=-1",
    ] {
        broker
            .expect(400, "GET", &format!("{MESSAGES}?{wrong}"), "")
            .await;
    }
    broker
        .expect(404, "GET", "/leveret/queues/%2F/none/messages", "")
        .await;
    assert_eq!(
        broker.get("/leveret/queues/%2F/q/unacked").await,
        json!({"items": []})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_messages_are_copied_moved_and_deleted() {
    let broker = Broker::start().await;
    for name in ["q", "other"] {
        queue(&broker, name, json!({})).await;
    }
    queue(
        &broker,
        "full",
        json!({"x-max-length": 1, "x-overflow": "reject-publish"}),
    )
    .await;
    for n in 0..6 {
        publish(&broker, "q", &format!("m{n}"), n).await;
    }
    let items = broker.get(MESSAGES).await["items"].clone();
    let second = items[1]["position"].clone();
    let change = async |how: &str, body: Value| {
        let path = format!("{MESSAGES}/{how}");
        broker.expect(200, "POST", &path, &body.to_string()).await.json()
    };
    let copied = change("copy", json!({"positions": [second], "to": "other"})).await;
    assert_eq!(copied, json!({"done": 1, "gone": 0, "refused": 0}));
    assert_eq!(
        (length(&broker, "q").await, length(&broker, "other").await),
        (6, 1)
    );
    let moved = change("move", json!({"positions": [second, "0-77"], "to": "other"})).await;
    assert_eq!(moved, json!({"done": 1, "gone": 1, "refused": 0}));
    let moved = change("move", json!({"filter": {}, "limit": 2, "to": "full"})).await;
    assert_eq!(moved["refused"], json!(1), "what does not fit stays");
    let deleted = change("delete", json!({"filter": {"headers": {"n": 5}}})).await;
    assert_eq!(deleted["done"], json!(1));
    assert_eq!(page(&broker, "").await.0, ["m2", "m3", "m4"]);
    for (how, wrong) in [
        ("delete", json!({})),
        ("move", json!({"positions": []})),
        ("move", json!({"positions": [], "to": "q"})),
        ("move", json!({"positions": [1], "to": "other"})),
        ("move", json!({"positions": ["-"], "to": "other"})),
        ("copy", json!({"filter": {"headers": 1}, "to": "other"})),
    ] {
        let path = format!("{MESSAGES}/{how}");
        broker.expect(400, "POST", &path, &wrong.to_string()).await;
    }
    let nowhere = json!({"positions": [], "to": "none"}).to_string();
    broker
        .expect(404, "POST", &format!("{MESSAGES}/move"), &nowhere)
        .await;
}

/// Rejects every message of a queue, which dead-letters it.
async fn reject_all(broker: &Broker, name: &str) {
    let body = r#"{"count":100,"ackmode":"reject_requeue_false","encoding":"auto"}"#;
    broker
        .expect(200, "POST", &format!("/queues/%2F/{name}/get"), body)
        .await;
}

/// The job's end, awaited.
async fn job(broker: &Broker, orders: Value) -> Value {
    let path = "/leveret/queues/%2F/q/redrive";
    let answer = broker.expect(202, "POST", path, &orders.to_string()).await;
    let place = answer
        .header("location")
        .unwrap()
        .strip_prefix("/api")
        .unwrap()
        .to_owned();
    loop {
        let job = broker.get(&place).await;
        if job["state"] != json!("running") {
            return job;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_go_back_to_where_they_came_from() {
    let broker = Broker::start().await;
    queue(&broker, "q", json!({})).await;
    let dying = json!({"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "q"});
    for name in ["a", "b"] {
        queue(&broker, name, dying.clone()).await;
        publish(&broker, name, &format!("of {name}"), 1).await;
        publish(&broker, name, &format!("more of {name}"), 2).await;
        reject_all(&broker, name).await;
    }
    publish(&broker, "q", "never died", 1).await;
    while length(&broker, "q").await < 5 {
        tokio::task::yield_now().await;
    }
    let tried = job(&broker, json!({"dry_run": true})).await;
    assert_eq!(
        (&tried["targets"], &tried["no_target"], &tried["moved"]),
        (&json!({"a": 2, "b": 2}), &json!(1), &json!(0))
    );
    let moved = job(&broker, json!({"filter": {"headers": {"n": "1"}}, "limit": 10})).await;
    assert_eq!((&moved["state"], &moved["moved"]), (&json!("done"), &json!(2)));
    assert_eq!((length(&broker, "a").await, length(&broker, "q").await), (1, 3));
    let back = broker.get("/leveret/queues/%2F/a/messages").await["items"][0].clone();
    assert_eq!(
        (&back["routing_key"], &back["payload"]),
        (&json!("a"), &json!("of a"))
    );
    // A slow one is cancelled and keeps what it has not moved.
    let path = "/leveret/queues/%2F/q/redrive";
    let slow = broker
        .expect(202, "POST", path, r#"{"rate": 1, "to": "b"}"#)
        .await
        .json();
    let place = format!("/leveret/jobs/{}", slow["id"]);
    broker.expect(204, "DELETE", &place, "").await;
    while broker.get(&place).await["state"] == json!("running") {
        tokio::task::yield_now().await;
    }
    assert_eq!(broker.get(&place).await["state"], json!("cancelled"));
    assert_eq!(length(&broker, "q").await + length(&broker, "b").await, 4);
    assert_eq!(broker.get("/leveret/jobs").await.as_array().unwrap().len(), 3);
    for wrong in [
        r#"{"to": "q"}"#,
        r#"{"rate": -1}"#,
        r#"{"filter": 1}"#,
        r#"{"dry_run": 3}"#,
    ] {
        broker.expect(400, "POST", path, wrong).await;
    }
    broker.expect(404, "GET", "/leveret/jobs/99", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_is_not_known_is_refused_and_not_ignored() {
    let broker = Broker::start().await;
    queue(&broker, "q", json!({})).await;
    publish(&broker, "q", "kept", 1).await;
    let misspelt = json!({"filter": {"header": {"n": 2}}}).to_string();
    for change in ["messages/delete", "redrive"] {
        let path = format!("/leveret/queues/%2F/q/{change}");
        broker.expect(400, "POST", &path, &misspelt).await;
    }
    assert_eq!(length(&broker, "q").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_persistent_messages_count_as_such() {
    let broker = Broker::start().await;
    queue(&broker, "q", json!({})).await;
    for (payload, mode) in [("one", 1), ("three", 2), ("seven", 1)] {
        let body = json!({"routing_key": "q", "payload": payload, "payload_encoding": "string",
            "properties": {"delivery_mode": mode}});
        let path = "/exchanges/%2F/amq.default/publish";
        broker.expect(200, "POST", path, &body.to_string()).await;
    }
    let seen = broker.get("/queues/%2F/q").await;
    assert_eq!(
        (&seen["messages"], &seen["message_bytes"]),
        (&json!(3), &json!(13))
    );
    let persistent = (&seen["messages_persistent"], &seen["message_bytes_persistent"]);
    assert_eq!(persistent, (&json!(1), &json!(5)));
    let page = broker.scrape("/metrics/detailed?family=queue_metrics").await.body;
    let line = r#"rabbitmq_detailed_queue_messages_persistent{vhost="/",queue="q"} 1"#;
    assert!(page.contains(line), "{page}");
}

/// A page with all its fields.
async fn items(broker: &Broker, query: &str) -> Vec<Value> {
    let page = broker
        .get(&format!("{MESSAGES}?limit=500&truncate=2&{query}"))
        .await;
    page["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_wait_for_another_attempt_are_seen_wherever_they_are() {
    let broker = Broker::start().await;
    let retry = json!({"x-delayed-retry-type": "all", "x-delayed-retry-min": 3_600_000});
    queue(&broker, "q", retry).await;
    queue(&broker, "other", json!({})).await;
    // More than stays in memory of those that wait.
    let body = "x".repeat(90_000);
    for n in 0..60 {
        publish(&broker, "q", &body, n).await;
    }
    let get = json!({"count": 55, "ackmode": "reject_requeue_true", "encoding": "auto", "truncate": 2});
    broker
        .expect(200, "POST", "/queues/%2F/q/get", &get.to_string())
        .await;
    let all = items(&broker, "").await;
    let numbers = all
        .iter()
        .map(|item| item["properties"]["headers"]["n"].as_u64().unwrap());
    assert_eq!(numbers.collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
    let waiting = items(&broker, "state=waiting").await;
    assert_eq!(
        (waiting.len(), items(&broker, "state=ready").await.len()),
        (55, 5)
    );
    let on_disk: Vec<&Value> = waiting.iter().filter(|item| item["on_disk"] == true).collect();
    assert!(!on_disk.is_empty() && on_disk.len() < 55, "{}", on_disk.len());
    for item in &waiting {
        assert_eq!(
            (&item["delivery_count"], &item["redelivered"]),
            (&json!(1), &json!(true))
        );
        assert!(item["due"].as_u64().unwrap() > 1_700_000_000_000, "{item}");
    }
    // What the store alone has can be taken out and moved as well.
    let positions: Vec<&Value> = on_disk.iter().take(2).map(|item| &item["position"]).collect();
    let change = json!({"positions": positions, "to": "other"}).to_string();
    let moved = broker
        .expect(200, "POST", &format!("{MESSAGES}/move"), &change)
        .await;
    assert_eq!(moved.json(), json!({"done": 2, "gone": 0, "refused": 0}));
    let delete = json!({"filter": {"state": "waiting"}}).to_string();
    let deleted = broker
        .expect(200, "POST", &format!("{MESSAGES}/delete"), &delete)
        .await;
    assert_eq!(deleted.json()["done"], json!(53));
    assert_eq!(
        (length(&broker, "q").await, length(&broker, "other").await),
        (5, 2)
    );
    broker
        .expect(400, "GET", &format!("{MESSAGES}?state=x"), "")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_wait_for_a_target_are_counted() {
    let broker = Broker::start().await;
    let arguments = json!({"x-queue-type": "quorum", "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once", "x-dead-letter-exchange": "later"});
    queue(&broker, "q", arguments).await;
    for n in 0..3 {
        publish(&broker, "q", "four", n).await;
    }
    let get = json!({"count": 2, "ackmode": "reject_requeue_false", "encoding": "auto"}).to_string();
    broker.expect(200, "POST", "/queues/%2F/q/get", &get).await;
    let counts = async || {
        let queue = broker.get("/queues/%2F/q").await;
        (queue["messages_dlx"].clone(), queue["message_bytes_dlx"].clone())
    };
    assert_eq!(counts().await, (json!(2), json!(8)));
    // A purge takes them along.
    broker.expect(204, "DELETE", "/queues/%2F/q/contents", "").await;
    assert_eq!(counts().await, (json!(0), json!(0)));
}
