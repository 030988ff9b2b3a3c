//! A real RabbitMQ's definitions, as `interop/definitions.py` wrote them down.

use serde_json::{Value, json};

use crate::client::Broker;

const EXPORT: &str = include_str!("rabbitmq-3.10.json");

fn count(definitions: &Value, kind: &str) -> usize {
    definitions[kind].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_export_comes_in_whole_or_not_at_all() {
    let broker = Broker::start().await;
    let exported: Value = serde_json::from_str(EXPORT).unwrap();
    let mut broken = exported.clone();
    broken["bindings"]
        .as_array_mut()
        .unwrap()
        .push(json!({"vhost": "/", "source": "none", "destination": "plain",
            "destination_type": "queue", "routing_key": "", "arguments": {}}));
    let before = broker.get("/definitions").await;
    broker
        .expect(400, "POST", "/definitions", &broken.to_string())
        .await;
    assert_eq!(broker.get("/definitions").await, before, "nothing of it was done");
    let planned = broker
        .expect(200, "POST", "/definitions?dry_run=true", EXPORT)
        .await;
    assert_eq!(planned.json()["dry_run"], json!(true));
    assert_eq!(broker.get("/definitions").await, before, "only looked at");
    broker.expect(204, "POST", "/definitions", EXPORT).await;
    let after = broker.get("/definitions").await;
    for kind in [
        "users",
        "vhosts",
        "permissions",
        "topic_permissions",
        "policies",
        "queues",
        "exchanges",
        "bindings",
    ] {
        assert_eq!(count(&after, kind), count(&exported, kind), "{kind}");
    }
    broker.expect(204, "POST", "/definitions", EXPORT).await;
    assert_eq!(broker.get("/definitions").await, after, "again changes nothing");
}
