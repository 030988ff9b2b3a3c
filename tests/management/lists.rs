//! Paging, filters, columns, and what objects show.

use serde_json::{Value, json};

use crate::client::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_cut_filtered_and_counted() {
    let broker = Broker::start().await;
    for name in ["a1", "a2", "b1"] {
        broker
            .expect(201, "PUT", &format!("/queues/%2F/{name}"), r#"{"durable":true}"#)
            .await;
    }
    let page = broker.get("/queues?page=1&page_size=2").await;
    assert_eq!(
        (&page["total_count"], &page["item_count"], &page["page_count"]),
        (&json!(3), &json!(2), &json!(2))
    );
    let page = broker
        .get("/queues/%2F?page=1&use_regex=true&pagination=false&name=%5Ea&page_size=100")
        .await;
    assert_eq!(
        (&page["filtered_count"], &page["total_count"]),
        (&json!(2), &json!(3))
    );
    let rows = broker
        .get("/queues?sort=name&sort_reverse=true&columns=name,arguments.x")
        .await;
    assert_eq!(
        rows[0],
        json!({"name": "b1", "arguments": {"x-queue-type": "classic"}})
    );
    assert_eq!(
        broker.get("/queues?page=1&sort=").await["items"][0]["name"],
        "a1",
        "the exporter's empty sort"
    );
    for bad in ["page=0", "page=x", "page=1&page_size=501", "page=9"] {
        broker.expect(400, "GET", &format!("/queues?{bad}"), "").await;
    }
    assert_eq!(
        broker.get("/queues//").await.as_array().map(Vec::len),
        Some(3),
        "Flower's vhost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_clients_find_the_fields_that_they_need() {
    let broker = Broker::start().await;
    let overview = broker.get("/overview").await;
    for field in [
        "rabbitmq_version",
        "message_stats",
        "queue_totals",
        "object_totals",
        "disable_stats",
        "listeners",
    ] {
        assert!(!overview[field].is_null(), "{field} of {overview}");
    }
    let node = &broker.get("/nodes").await[0];
    for field in [
        "uptime",
        "run_queue",
        "processors",
        "os_pid",
        "fd_total",
        "proc_total",
        "mem_limit",
        "mem_alarm",
        "disk_free_limit",
        "disk_free_alarm",
        "rates_mode",
        "enabled_plugins",
        "being_drained",
    ] {
        assert!(!node[field].is_null(), "{field} of {node}");
    }
    broker.expect(201, "PUT", "/queues/%2F/q", "{}").await;
    let queue = broker
        .get("/queues/%2F/q?msg_rates_age=60&msg_rates_incr=5&lengths_age=60&lengths_incr=5")
        .await;
    assert_eq!(
        (&queue["messages"], &queue["effective_policy_definition"]),
        (&json!(0), &json!({}))
    );
    assert_eq!(queue["durable"], false, "absent is false");
    broker
        .expect(400, "GET", "/queues/%2F/q?lengths_age=0&lengths_incr=5", "")
        .await;
    assert!(
        broker.get("/queues?disable_stats=true").await[0]
            .get("messages")
            .is_none()
    );
    let name = node["name"].as_str().unwrap();
    broker
        .expect(200, "GET", &format!("/nodes/{name}/memory"), "")
        .await;
    broker.expect(404, "GET", "/nodes/nobody", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_with_channel_and_consumer_and_is_closed_with_a_reason() {
    let broker = Broker::start().await;
    let properties = lapin::ConnectionProperties::default().with_connection_name("mine".into());
    let connection = lapin::Connection::connect(&broker.amqp_uri(), properties)
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_declare("q".into(), Default::default(), Default::default())
        .await
        .unwrap();
    // Dropped, it would be cancelled.
    let _consumer = channel
        .basic_consume("q".into(), "tag".into(), Default::default(), Default::default())
        .await
        .unwrap();
    let shown = broker.get("/connections").await;
    assert_eq!(
        (&shown[0]["user_provided_name"], &shown[0]["channels"]),
        (&json!("mine"), &json!(1))
    );
    let details = broker.get("/queues/%2F/q").await;
    assert_eq!(details["consumers"], 1);
    assert_eq!(details["consumer_details"][0]["consumer_tag"], "tag", "{details}");
    let consumer = &broker.get("/consumers").await[0];
    assert_eq!(
        (&consumer["consumer_tag"], &consumer["queue"]["name"]),
        (&json!("tag"), &json!("q"))
    );
    assert_eq!(broker.get("/channels").await[0]["consumer_count"], 1);
    let name = shown[0]["name"]
        .as_str()
        .unwrap()
        .replace(' ', "%20")
        .replace('>', "%3E");
    broker
        .expect(200, "GET", &format!("/connections/{name}/channels"), "")
        .await;
    broker
        .expect(204, "DELETE", &format!("/connections/{name}"), "")
        .await;
    let closed = async {
        while connection.status().connected() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), closed)
        .await
        .unwrap();
    broker
        .expect(204, "DELETE", "/connections/username/guest", "")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_sorted_by_what_is_asked_for_and_pages_follow_each_other() {
    let broker = Broker::start().await;
    broker.expect(201, "PUT", "/vhosts/a", "{}").await;
    for (at, name) in ["/queues/%2F/b", "/queues/%2F/a", "/queues/a/z", "/queues/%2F/c"]
        .iter()
        .enumerate()
    {
        broker.expect(201, "PUT", name, r#"{"durable":true}"#).await;
        let (_, key) = name.rsplit_once('/').unwrap();
        let vhost = if name.contains("/a/") { "a" } else { "%2F" };
        let body = json!({"routing_key": key, "payload": "x".repeat(at + 1), "payload_encoding": "string", "properties": {}});
        for _ in 0..at {
            let path = format!("/exchanges/{vhost}/amq.default/publish");
            broker.expect(200, "POST", &path, &body.to_string()).await;
        }
    }
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"]
            .as_array()
            .unwrap_or_else(|| page.as_array().unwrap());
        items
            .iter()
            .map(|queue| {
                format!(
                    "{}{}",
                    queue["vhost"].as_str().unwrap(),
                    queue["name"].as_str().unwrap()
                )
            })
            .collect()
    };
    for (query, expected) in [
        ("", ["/a", "/b", "/c", "az"]),
        ("sort=name&sort_reverse=true", ["az", "/c", "/b", "/a"]),
        ("sort=messages&sort_reverse=true", ["/c", "az", "/a", "/b"]),
        ("sort=messages_ready", ["/b", "/a", "az", "/c"]),
        ("sort=message_bytes", ["/b", "/a", "az", "/c"]),
        ("sort=message_stats.publish", ["/b", "/a", "az", "/c"]),
        ("sort=consumers", ["/a", "/b", "/c", "az"]),
        (
            "sort=message_stats.publish_details.rate",
            ["/a", "/b", "/c", "az"],
        ),
        ("sort=arguments.x", ["/a", "/b", "/c", "az"]),
    ] {
        assert_eq!(
            names(&broker.get(&format!("/queues?{query}")).await),
            expected,
            "{query}"
        );
        let mut paged = Vec::new();
        for page in 1..=2 {
            let page = broker
                .get(&format!("/queues?page={page}&page_size=2&{query}"))
                .await;
            assert_eq!(page["filtered_count"], json!(4));
            paged.extend(names(&page));
        }
        // Rates may have been sampled meanwhile.
        if !query.contains("rate") {
            assert_eq!(paged, expected, "{query}");
        }
    }
}
