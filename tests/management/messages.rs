//! Publish and get.

use serde_json::json;

use crate::client::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_published_peeked_and_taken() {
    let broker = Broker::start().await;
    broker
        .expect(201, "PUT", "/queues/%2F/q", r#"{"durable":true}"#)
        .await;
    let message = json!({"routing_key": "q", "payload": "grün", "payload_encoding": "string",
        "properties": {"delivery_mode": 2, "headers": {"a": [1, {"b": true}]}, "expiration": "60000"}});
    let publish = "/exchanges/%2F/amq.default/publish";
    let answer = broker.expect(200, "POST", publish, &message.to_string()).await;
    assert_eq!(answer.json(), json!({"routed": true}));
    let nowhere =
        json!({"routing_key": "nowhere", "payload": "", "payload_encoding": "string", "properties": []});
    assert_eq!(
        broker
            .expect(200, "POST", publish, &nowhere.to_string())
            .await
            .json(),
        json!({"routed": false})
    );
    let get = "/queues/%2F/q/get";
    let peek = r#"{"count":"5","ackmode":"ack_requeue_true","encoding":"auto"}"#;
    let peeked = broker.expect(200, "POST", get, peek).await.json();
    assert_eq!(peeked.as_array().unwrap().len(), 1, "the same message comes once");
    assert_eq!(
        (&peeked[0]["payload"], &peeked[0]["payload_bytes"]),
        (&json!("grün"), &json!(5))
    );
    assert_eq!(peeked[0]["properties"], message["properties"]);
    let take = r#"{"count":1,"ackmode":"ack_requeue_false","encoding":"base64","truncate":3}"#;
    let taken = broker.expect(200, "POST", get, take).await.json();
    assert_eq!(
        (&taken[0]["payload"], &taken[0]["redelivered"]),
        (&json!("Z3LD"), &json!(true))
    );
    assert_eq!(broker.expect(200, "POST", get, peek).await.json(), json!([]));
    let stats = &broker.get("/queues/%2F/q").await["message_stats"];
    assert_eq!(
        (&stats["publish"], &stats["get"], &stats["get_no_ack"]),
        (&json!(1), &json!(1), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_refused() {
    let broker = Broker::start().await;
    broker.expect(201, "PUT", "/queues/%2F/q", "{}").await;
    let publish = "/exchanges/%2F/amq.default/publish";
    for body in [
        "{}",
        "[]",
        "\"text\"",
        "{",
        r#"{"routing_key":"q","properties":{},"payload":1,"payload_encoding":"string"}"#,
        r#"{"routing_key":"q","properties":{},"payload":"?","payload_encoding":"base64"}"#,
        r#"{"routing_key":"q","properties":{},"payload":"","payload_encoding":"x"}"#,
        r#"{"routing_key":"q","properties":{"priority":"1"},"payload":"","payload_encoding":"string"}"#,
        r#"{"routing_key":"q","properties":{"user_id":"x"},"payload":"","payload_encoding":"string"}"#,
    ] {
        broker.expect(400, "POST", publish, body).await;
    }
    broker
        .expect(404, "POST", "/exchanges/%2F/none/publish", "{}")
        .await;
    broker
        .expect(404, "POST", "/exchanges/none/x/publish", "{}")
        .await;
    for body in [
        "{}",
        r#"{"count":1,"ackmode":"x","encoding":"auto"}"#,
        r#"{"count":-1,"ackmode":"ack_requeue_true","encoding":"auto"}"#,
    ] {
        broker.expect(400, "POST", "/queues/%2F/q/get", body).await;
    }
    broker.expect(404, "POST", "/queues/%2F/none/get", "{}").await;
}
