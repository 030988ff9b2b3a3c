//! Declaring, binding, deleting.

use serde_json::json;

use crate::client::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn puts_answer_201_then_204_and_deletes_204_then_404() {
    let broker = Broker::start().await;
    for (path, body) in [
        ("/exchanges/%2F/x", r#"{"type":"topic","durable":"true"}"#),
        ("/queues/%2F/a%2Fb", r#"{"arguments":[]}"#),
    ] {
        broker.expect(404, "GET", path, "").await;
        assert_eq!(broker.expect(201, "PUT", path, body).await.body, "");
        broker.expect(204, "PUT", path, body).await;
        broker.expect(200, "GET", path, "").await;
        broker
            .expect(
                400,
                "PUT",
                path,
                r#"{"type":"fanout","durable":true,"auto_delete":true}"#,
            )
            .await;
        broker.expect(204, "DELETE", path, "").await;
        broker.expect(404, "DELETE", path, "").await;
    }
    broker
        .expect(400, "PUT", "/exchanges/%2F/x", r#"{"type":"no-such-type"}"#)
        .await;
    broker.expect(401, "PUT", "/exchanges/%2F/amq.mine", "{}").await;
    broker.expect(404, "PUT", "/queues/none/q", "{}").await;
    broker.expect(404, "GET", "/queues/none", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bindings_location_names_it() {
    let broker = Broker::start().await;
    broker.expect(201, "PUT", "/queues/%2F/q", "{}").await;
    let between = "/bindings/%2F/e/amq.topic/q/q";
    for body in [
        r#"{"routing_key":"a.*.#"}"#,
        r#"{"routing_key":"k","arguments":{"x":1}}"#,
        "{}",
    ] {
        let bound = broker.expect(201, "POST", between, body).await;
        let location = bound.header("location").unwrap().to_owned();
        let (destination, key) = location.split_once('/').unwrap();
        assert_eq!(destination, "q");
        broker.expect(201, "POST", between, body).await;
        let one = broker.get(&format!("{between}/{key}")).await;
        let listed = broker.get(between).await;
        assert_eq!(listed.as_array().unwrap().as_slice(), std::slice::from_ref(&one));
        assert_eq!(
            key.replace("%25", "%").replace("%7E", "~"),
            one["properties_key"],
            "one decoding gives the key of the list"
        );
        broker
            .expect(204, "DELETE", &format!("{between}/{key}"), "")
            .await;
        broker
            .expect(404, "DELETE", &format!("{between}/{key}"), "")
            .await;
    }
    let implicit = &broker.get("/queues/%2F/q/bindings").await[0];
    assert_eq!(
        (&implicit["source"], &implicit["properties_key"]),
        (&json!(""), &json!("q"))
    );
    broker
        .expect(404, "POST", "/bindings/%2F/e/amq.topic/q/none", "{}")
        .await;
    broker.expect(400, "GET", &format!("{between}/a~b~c"), "").await;
}
