//! Messages that wait for their time: counted, listed, cancelled, given another time.

use serde_json::{Value, json};

use crate::client::Broker;

async fn publish(broker: &Broker, exchange: &str, key: &str, body: &str, headers: Value) {
    let message = json!({"routing_key": key, "payload": body, "payload_encoding": "string",
        "properties": {"delivery_mode": 2, "headers": headers}});
    let path = format!("/exchanges/%2F/{exchange}/publish");
    broker.expect(200, "POST", &path, &message.to_string()).await;
}

fn keys(page: &Value) -> Vec<(String, u64)> {
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| {
            (
                item["id"].as_str().unwrap().to_owned(),
                item["payload_bytes"].as_u64().unwrap(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_messages_are_listed_cancelled_and_moved() {
    let broker = Broker::start().await;
    broker
        .expect(201, "PUT", "/queues/%2F/q", r#"{"durable":true}"#)
        .await;
    let base = "/queues/%2F/q/scheduled";
    assert_eq!(broker.get(base).await["count"], 0);
    for (body, delay) in [("333", 3_600_000), ("1", 1_200_000), ("22", 2_400_000)] {
        publish(
            &broker,
            "amq.default",
            "q",
            body,
            json!({"x-opt-delivery-delay": delay}),
        )
        .await;
    }
    let page = broker.get(&format!("{base}?page_size=2")).await;
    assert_eq!((&page["count"], &page["bytes"]), (&json!(3), &json!(6)));
    let sizes: Vec<u64> = keys(&page).iter().map(|(_, size)| *size).collect();
    assert_eq!(sizes, [1, 2]);
    let next = page["next"].as_str().unwrap();
    let rest = broker.get(&format!("{base}?page_size=2&from={next}")).await;
    assert_eq!((keys(&rest)[0].1, &rest["next"]), (3, &Value::Null));
    assert_eq!(broker.get("/queues/%2F/q").await["messages_scheduled"], 3);
    // One is cancelled, once.
    let first = format!("{base}/{}", keys(&page)[0].0);
    broker.expect(204, "DELETE", &first, "").await;
    broker.expect(404, "DELETE", &first, "").await;
    // Another is due now, and comes.
    let second = format!("{base}/{}", keys(&page)[1].0);
    broker.expect(200, "PUT", &second, r#"{"delay":0}"#).await;
    broker.expect(404, "PUT", &second, r#"{"delay":0}"#).await;
    let get = r#"{"count":1,"ackmode":"ack_requeue_false","encoding":"auto"}"#;
    let mut got = json!([]);
    for _ in 0..500 {
        got = broker.expect(200, "POST", "/queues/%2F/q/get", get).await.json();
        if got != json!([]) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(got[0]["payload"], "22");
    assert_eq!(broker.get(base).await["count"], 1);
    broker.expect(400, "PUT", &first, "{}").await;
    broker.expect(404, "GET", "/queues/%2F/none/scheduled", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_are_those_of_an_exchange() {
    let broker = Broker::start().await;
    let exchange = r#"{"type":"x-delayed-message","durable":true,"arguments":{"x-delayed-type":"direct"}}"#;
    broker.expect(201, "PUT", "/exchanges/%2F/later", exchange).await;
    publish(&broker, "later", "k", "body", json!({"x-delay": 3_600_000})).await;
    assert_eq!(broker.get("/exchanges/%2F/later").await["messages_delayed"], 1);
    let page = broker.get("/exchanges/%2F/later/scheduled").await;
    assert_eq!(page["items"][0]["routing_key"], "k");
    let path = format!("/exchanges/%2F/later/scheduled/{}", keys(&page)[0].0);
    broker.expect(204, "DELETE", &path, "").await;
    assert_eq!(broker.get("/exchanges/%2F/later").await["messages_delayed"], 0);
}
