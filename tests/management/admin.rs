//! Users, vhosts, permissions, policies, limits and definitions.

use serde_json::json;

use crate::client::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_permissions_bound_what_a_user_sees_and_does() {
    let broker = Broker::start().await;
    broker
        .expect(
            201,
            "PUT",
            "/users/alice",
            r#"{"password":"s","tags":"management"}"#,
        )
        .await;
    broker
        .expect(201, "PUT", "/vhosts/v", r#"{"description":"d","tags":["a"]}"#)
        .await;
    let alice = Some("alice:s");
    assert_eq!(broker.call_as(alice, "GET", "/users", "").await.status, 401);
    assert_eq!(broker.call_as(alice, "GET", "/nodes", "").await.status, 401);
    assert_eq!(broker.call_as(alice, "GET", "/queues/v", "").await.status, 404);
    let permission = r#"{"configure":"^a","write":".*","read":".*"}"#;
    broker
        .expect(201, "PUT", "/permissions/v/alice", permission)
        .await;
    broker
        .expect(204, "PUT", "/permissions/v/alice", permission)
        .await;
    assert_eq!(
        broker.call_as(alice, "PUT", "/queues/v/a1", "{}").await.status,
        201
    );
    assert_eq!(
        broker.call_as(alice, "PUT", "/queues/v/b1", "{}").await.status,
        401
    );
    broker
        .expect(
            400,
            "PUT",
            "/permissions/v/alice",
            r#"{"configure":"(","write":"","read":""}"#,
        )
        .await;
    broker
        .expect(400, "PUT", "/permissions/none/alice", permission)
        .await;
    broker.expect(400, "PUT", "/permissions/v/alice", "{}").await;
    broker
        .expect(
            400,
            "PUT",
            "/users/bob",
            r#"{"password":"x","password_hash":"eA==","tags":""}"#,
        )
        .await;
    broker
        .expect(400, "PUT", "/users/bob", r#"{"password":"x"}"#)
        .await;
    broker.expect(204, "DELETE", "/users/alice", "").await;
    broker.expect(404, "DELETE", "/users/alice", "").await;
    broker
        .expect(204, "POST", "/vhosts/v/deletion/protection", "")
        .await;
    broker.expect(412, "DELETE", "/vhosts/v", "").await;
    broker
        .expect(204, "DELETE", "/vhosts/v/deletion/protection", "")
        .await;
    broker.expect(204, "DELETE", "/vhosts/v", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_shows_on_its_queue_and_bad_ones_are_refused() {
    let broker = Broker::start().await;
    broker
        .expect(
            201,
            "PUT",
            "/policies/%2F/p",
            r#"{"pattern":"^q","definition":{"max-length":5}}"#,
        )
        .await;
    broker.expect(201, "PUT", "/queues/%2F/q", "{}").await;
    let queue = broker.get("/queues/%2F/q").await;
    assert_eq!(
        (&queue["policy"], &queue["effective_policy_definition"]),
        (&json!("p"), &json!({"max-length": 5}))
    );
    for body in [
        "{}",
        r#"{"pattern":"q","definition":{"foo":1}}"#,
        r#"{"pattern":"(","definition":{"max-length":1}}"#,
        r#"{"pattern":"q","definition":{"max-length":1},"apply-to":"x"}"#,
    ] {
        broker.expect(400, "PUT", "/policies/%2F/bad", body).await;
    }
    broker.expect(204, "DELETE", "/policies/%2F/p", "").await;
    broker
        .expect(204, "PUT", "/vhost-limits/%2F/max-queues", r#"{"value":1}"#)
        .await;
    assert_eq!(
        broker.get("/vhost-limits").await[0]["value"],
        json!({"max-queues": 1})
    );
    broker
        .expect(400, "PUT", "/vhost-limits/%2F/other", r#"{"value":1}"#)
        .await;
}

/// Proves: H73
#[tokio::test(flavor = "multi_thread")]
async fn definitions_come_back_the_same_and_bad_ones_change_nothing() {
    let broker = Broker::start().await;
    broker.expect(201, "PUT", "/vhosts/v", "").await;
    broker
        .expect(
            201,
            "PUT",
            "/queues/v/q",
            r#"{"durable":true,"arguments":{"x-max-length":3}}"#,
        )
        .await;
    broker
        .expect(201, "PUT", "/exchanges/v/x", r#"{"type":"topic","durable":true}"#)
        .await;
    broker
        .expect(201, "POST", "/bindings/v/e/x/q/q", r#"{"routing_key":"a.#"}"#)
        .await;
    let exported = broker.get("/definitions").await;
    let other = Broker::start().await;
    other
        .expect(204, "POST", "/definitions", &exported.to_string())
        .await;
    other
        .expect(204, "POST", "/definitions", &exported.to_string())
        .await;
    let again = other.get("/definitions").await;
    for key in [
        "vhosts",
        "permissions",
        "queues",
        "exchanges",
        "bindings",
        "policies",
    ] {
        assert_eq!(exported[key], again[key], "{key}");
    }
    let bad = r#"{"users":[{"name":"zed","tags":""}],"queues":[{"name":"n","vhost":"none"}]}"#;
    other.expect(400, "POST", "/definitions", bad).await;
    other.expect(404, "GET", "/users/zed", "").await;
    for bad in [
        "[",
        r#"{"users":3}"#,
        r#"{"queues":[{"name":"n"}]}"#,
        r#"{"users":[1]}"#,
    ] {
        other.expect(400, "POST", "/definitions", bad).await;
    }
    let single = other.get("/definitions/v").await;
    assert!(single["queues"][0].get("vhost").is_none());
    other.expect(201, "PUT", "/vhosts/w", "").await;
    other
        .expect(204, "POST", "/definitions/w", &single.to_string())
        .await;
    other.expect(200, "GET", "/queues/w/q", "").await;
    other
        .expect(404, "POST", "/definitions/none", &single.to_string())
        .await;
}

#[tokio::test]
async fn a_vhosts_firehose_is_switched_with_it() {
    let broker = Broker::start().await;
    let traced = async || broker.get("/vhosts/%2F").await["tracing"].clone();
    assert_eq!(traced().await, false);
    broker
        .expect(204, "PUT", "/vhosts/%2F", r#"{"tracing":true}"#)
        .await;
    assert_eq!(traced().await, true);
    broker
        .expect(400, "PUT", "/vhosts/%2F", r#"{"tracing":"loud"}"#)
        .await;
    broker.expect(204, "PUT", "/vhosts/%2F", "{}").await;
    assert_eq!(traced().await, true);
    broker
        .expect(204, "PUT", "/vhosts/%2F", r#"{"tracing":false}"#)
        .await;
    assert_eq!(traced().await, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_policies_are_parameters_too_and_set_by_their_own_route() {
    let broker = Broker::start().await;
    let policy = r#"{"pattern":"^q","definition":{"max-length":5},"apply-to":"queues","priority":3}"#;
    for kind in ["policies", "operator-policies"] {
        broker.expect(201, "PUT", &format!("/{kind}/%2F/p"), policy).await;
    }
    let seen = |component: &str| {
        json!({"vhost": "/", "component": component, "name": "p", "value":
            {"pattern": "^q", "definition": {"max-length": 5}, "apply-to": "queues", "priority": 3}})
    };
    assert_eq!(broker.get("/parameters").await, json!([seen("operator_policy")]));
    for component in ["policy", "operator_policy"] {
        assert_eq!(
            broker.get(&format!("/parameters/{component}")).await,
            json!([seen(component)])
        );
        let one = format!("/parameters/{component}/%2F/p");
        assert_eq!(broker.get(&one).await, seen(component));
        broker.expect(400, "DELETE", &one, "").await;
        broker
            .expect(400, "PUT", &one, r#"{"value":{"pattern":"","definition":{}}}"#)
            .await;
    }
    broker.expect(404, "GET", "/shovels/vhost/%2F/none", "").await;
}
