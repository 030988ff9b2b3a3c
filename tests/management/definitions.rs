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

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_fails_halfway_is_undone() {
    let broker = Broker::start().await;
    broker
        .expect(
            201,
            "PUT",
            "/users/bob",
            r#"{"password":"b","tags":"monitoring"}"#,
        )
        .await;
    broker
        .expect(201, "PUT", "/vhosts/old", r#"{"description":"before"}"#)
        .await;
    let permission = r#"{"configure":"a","write":"b","read":"c"}"#;
    broker
        .expect(201, "PUT", "/permissions/old/bob", permission)
        .await;
    let policy = r#"{"pattern":"a","definition":{"max-length":1}}"#;
    broker.expect(201, "PUT", "/policies/old/p", policy).await;
    let before = broker.get("/definitions").await;
    let everything = json!({"configure": "", "write": "", "read": ""});
    let with = |object: Value, more: &Value| {
        let mut object = object;
        for (key, value) in more.as_object().unwrap() {
            object[key] = value.clone();
        }
        object
    };
    // The second queue is one too many, which shows only when it is declared.
    let document = json!({
        "users": [{"name": "bob", "password": "other", "tags": ["administrator"]},
            {"name": "new", "password": "n", "tags": []}],
        "vhosts": [{"name": "old", "description": "after", "limits": {"max-connections": 3}},
            {"name": "limited", "limits": {"max-queues": 1}}],
        "permissions": [with(json!({"user": "bob", "vhost": "old"}), &everything),
            with(json!({"user": "new", "vhost": "old"}), &everything)],
        "topic_permissions": [{"user": "bob", "vhost": "old", "exchange": "amq.topic", "write": "", "read": ""}],
        "global_parameters": [{"name": "colour", "value": "blue"}],
        "parameters": [{"vhost": "old", "component": "shovel", "name": "s", "value": {}}],
        "policies": [{"vhost": "old", "name": "p", "pattern": "b", "definition": {"max-length": 2}},
            {"vhost": "old", "name": "q", "pattern": "b", "definition": {"max-length": 2}}],
        "exchanges": [{"vhost": "old", "name": "e", "type": "direct", "arguments": {}}],
        "queues": [{"vhost": "limited", "name": "one", "arguments": {}},
            {"vhost": "limited", "name": "two", "arguments": {}}],
        "bindings": [{"vhost": "old", "source": "e", "destination": "e", "destination_type": "exchange",
            "routing_key": "k", "arguments": {}}],
    });
    let planned = broker
        .expect(200, "POST", "/definitions?dry_run=true", &document.to_string())
        .await
        .json();
    assert_eq!(planned["new"]["users"], json!(["new"]));
    assert_eq!(planned["changed"]["users"], json!(["bob"]));
    assert_eq!(planned["changed"]["vhosts"], json!(["old"]));
    assert_eq!(planned["new"]["vhosts"], json!(["limited"]));
    assert_eq!(
        planned["changed"]["permissions"],
        json!([{"user": "bob", "vhost": "old"}])
    );
    assert_eq!(
        planned["changed"]["policies"],
        json!([{"vhost": "old", "name": "p"}])
    );
    assert_eq!(planned["new"]["bindings"].as_array().unwrap().len(), 1);
    let refused = broker
        .expect(400, "POST", "/definitions", &document.to_string())
        .await;
    assert!(refused.body.contains("limit"), "{}", refused.body);
    assert_eq!(broker.get("/definitions").await, before);
}
