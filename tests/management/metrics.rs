//! The pages that Prometheus reads.

use std::collections::HashSet;

use crate::client::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn every_family_stands_once_and_labels_are_escaped() {
    let broker = Broker::start().await;
    broker.expect(201, "PUT", "/queues/%2F/a%22b%5Cc", "{}").await;
    for path in [
        "/metrics",
        "/metrics/per-object",
        "/metrics/detailed?family=queue_metrics&family=queue_coarse_metrics",
        "/metrics/memory-breakdown",
    ] {
        let page = broker.scrape(path).await;
        assert_eq!(page.status, 200);
        assert_eq!(
            page.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        let mut seen = HashSet::new();
        for line in page.body.lines().filter(|line| line.starts_with("# TYPE ")) {
            assert!(seen.insert(line.to_owned()), "{path}: twice {line}");
        }
        assert_eq!(page.body.matches("rabbitmq_identity_info{").count(), 1, "{path}");
    }
    let page = broker
        .scrape("/metrics/detailed?family=queue_coarse_metrics")
        .await
        .body;
    assert!(
        page.contains(r#"rabbitmq_detailed_queue_messages{vhost="/",queue="a\"b\\c"} 0"#),
        "{page}"
    );
    let page = broker.scrape("/metrics").await.body;
    for name in [
        "rabbitmq_global_messages_received_total{protocol=\"amqp091\"} 0",
        "rabbitmq_queues 1",
        "rabbitmq_message_size_bytes_bucket{protocol=\"amqp091\",le=\"1e+08\"}",
    ] {
        assert!(page.contains(name), "{name}");
    }
    assert_eq!(broker.scrape("/metrics/other").await.status, 404);
    assert_eq!(
        broker
            .scrape("/metrics/detailed?queue=(&family=queue_metrics")
            .await
            .status,
        400
    );
}
