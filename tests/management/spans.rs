//! OpenTelemetry spans, as a collector gets them over its socket.

use std::{collections::HashMap, time::Duration};

use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicRejectOptions},
    types::{AMQPValue, FieldTable},
};
use leveret::{management::Collector, server::SpanOptions};
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc};

use crate::client::Broker;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SENDER: &str = "b7ad6b7169203331";

/// A collector that hands on what it is sent.
struct Receiver {
    endpoint: String,
    requests: mpsc::UnboundedReceiver<(HeaderMap, Value)>,
    /// Spans that came, and that no test step has taken.
    spans: Vec<Span>,
}

#[derive(Clone, Debug)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: Option<String>,
    state: Option<String>,
    attributes: HashMap<String, Value>,
}

impl Span {
    fn read(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().map(ToOwned::to_owned);
        let (start, end) = (&value["startTimeUnixNano"], &value["endTimeUnixNano"]);
        let nanos = |time: &Value| time.as_str().unwrap().parse::<u64>().unwrap();
        assert!(nanos(start) <= nanos(end), "{value}");
        let attributes = value["attributes"].as_array().unwrap().iter();
        Self {
            name: text("name").unwrap(),
            trace: text("traceId").unwrap(),
            id: text("spanId").unwrap(),
            parent: text("parentSpanId"),
            state: text("traceState"),
            attributes: attributes
                .map(|pair| (pair["key"].as_str().unwrap().to_owned(), pair["value"].clone()))
                .collect(),
        }
    }

    fn says(&self, key: &str) -> &str {
        let value = &self.attributes[key];
        let value = value.get("stringValue").or_else(|| value.get("intValue"));
        value.and_then(Value::as_str).unwrap()
    }
}

impl Receiver {
    async fn start() -> Self {
        type Sender = mpsc::UnboundedSender<(HeaderMap, Value)>;
        async fn take(
            State(sender): State<Sender>,
            headers: HeaderMap,
            Json(body): Json<Value>,
        ) -> Json<Value> {
            sender.send((headers, body)).unwrap();
            Json(Value::Object(serde_json::Map::new()))
        }
        let (sender, requests) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take)).with_state(sender);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            endpoint,
            requests,
            spans: Vec::new(),
        }
    }

    fn collector(&self) -> Collector {
        Collector::new(&self.endpoint, &["X-Key: secret".to_owned()], "shop").unwrap()
    }

    /// The next span of this name, whenever it comes.
    async fn span(&mut self, name: &str) -> Span {
        loop {
            if let Some(at) = self.spans.iter().position(|span| span.name == name) {
                return self.spans.remove(at);
            }
            let next = tokio::time::timeout(Duration::from_secs(60), self.requests.recv()).await;
            let (headers, body) = next
                .unwrap_or_else(|_| panic!("no {name} came, only {:?}", self.spans))
                .unwrap();
            assert_eq!(headers["x-key"], "secret");
            let resource = &body["resourceSpans"][0];
            assert_eq!(
                resource["resource"]["attributes"][0]["value"]["stringValue"],
                "shop"
            );
            let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
            self.spans.extend(spans.iter().map(Span::read));
        }
    }
}

fn recording(root_sample_ratio: f64) -> Option<SpanOptions> {
    Some(SpanOptions {
        sample_ratio: 1.0,
        root_sample_ratio,
        waiting_max: 1000,
    })
}

async fn broker(receiver: &Receiver, root_sample_ratio: f64) -> Broker {
    Broker::start_with(|server, management| {
        server.spans = recording(root_sample_ratio);
        management.collector = Some(receiver.collector());
    })
    .await
}

async fn channel(broker: &Broker) -> Channel {
    let connection = Connection::connect(&broker.amqp_uri(), ConnectionProperties::default())
        .await
        .unwrap();
    connection.create_channel().await.unwrap()
}

async fn consume(channel: &Channel, queue: &str) -> Consumer {
    channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap()
}

async fn next(consumer: &mut Consumer) -> lapin::message::Delivery {
    std::future::poll_fn(|context| {
        futures_core::Stream::poll_next(std::pin::Pin::new(&mut *consumer), context)
    })
    .await
    .unwrap()
    .unwrap()
}

async fn publish(channel: &Channel, exchange: &str, key: &str, headers: &[(&str, &str)]) {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    let properties = BasicProperties::default()
        .with_headers(table)
        .with_message_id("m1".into());
    channel
        .basic_publish(
            exchange.into(),
            key.into(),
            BasicPublishOptions::default(),
            b"body",
            properties,
        )
        .await
        .unwrap();
}

fn sampled() -> String {
    format!("00-{TRACE}-{SENDER}-01")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_leaves_a_span_at_every_step_and_they_hang_together() {
    let mut receiver = Receiver::start().await;
    let broker = broker(&receiver, 0.0).await;
    broker
        .expect(201, "PUT", "/queues/%2F/orders", r#"{"durable":true}"#)
        .await;
    let channel = channel(&broker).await;
    let mut consumer = consume(&channel, "orders").await;
    // Nobody asked for these two.
    publish(&channel, "", "orders", &[]).await;
    publish(
        &channel,
        "",
        "orders",
        &[("traceparent", &sampled().replace("-01", "-00"))],
    )
    .await;
    let headers = [("traceparent", &*sampled()), ("tracestate", "vendor=x")];
    publish(&channel, "amq.direct", "orders", &headers).await;
    publish(&channel, "", "orders", &headers).await;
    for _ in 0..3 {
        let delivery = next(&mut consumer).await;
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    let unrouted = receiver.span("publish amq.direct").await;
    let publish = receiver.span("publish amq.default").await;
    let route = receiver.span("route amq.default").await;
    let enqueue = receiver.span("enqueue orders").await;
    let deliver = receiver.span("deliver orders").await;
    let settle = receiver.span("settle orders").await;
    assert_eq!(unrouted.parent.as_deref(), Some(SENDER));
    assert_eq!(publish.parent.as_deref(), Some(SENDER));
    for (child, parent) in [
        (&route, &publish),
        (&enqueue, &publish),
        (&deliver, &enqueue),
        (&settle, &deliver),
    ] {
        assert_eq!(
            child.parent.as_ref(),
            Some(&parent.id),
            "{child:?} under {parent:?}"
        );
    }
    for span in [&publish, &route, &enqueue, &deliver, &settle] {
        assert_eq!((&*span.trace, span.state.as_deref()), (TRACE, Some("vendor=x")));
        assert_eq!(span.says("messaging.system"), "rabbitmq");
        assert_eq!(span.says("messaging.message.id"), "m1");
        assert_eq!(span.says("messaging.message.body.size"), "4");
    }
    assert_eq!(settle.says("leveret.outcome"), "ack");
    assert_eq!(deliver.says("leveret.vhost"), "/");
    assert_eq!(deliver.says("messaging.rabbitmq.message.delivery_tag"), "3");
    let page = broker.scrape("/metrics").await.body;
    assert!(page.contains("leveret_spans_recorded_total 7\n"), "{page}");
    assert!(page.contains("leveret_spans_lost_total{reason=\"overflow\"} 0\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_goes_on_in_its_trace() {
    let mut receiver = Receiver::start().await;
    let broker = broker(&receiver, 0.0).await;
    let arguments = r#"{"arguments":{"x-dead-letter-exchange":"","x-dead-letter-routing-key":"dead"}}"#;
    broker.expect(201, "PUT", "/queues/%2F/q", arguments).await;
    broker.expect(201, "PUT", "/queues/%2F/dead", "{}").await;
    let channel = channel(&broker).await;
    let mut consumer = consume(&channel, "q").await;
    let mut dead = consume(&channel, "dead").await;
    publish(&channel, "", "q", &[("traceparent", &sampled())]).await;
    let delivery = next(&mut consumer).await;
    delivery.reject(BasicRejectOptions::default()).await.unwrap();
    next(&mut dead).await;
    let enqueue = receiver.span("enqueue q").await;
    let settle = receiver.span("settle q").await;
    let died = receiver.span("dead-letter amq.default").await;
    let again = receiver.span("enqueue dead").await;
    let deliver = receiver.span("deliver dead").await;
    assert_eq!(settle.says("leveret.outcome"), "reject");
    assert_eq!(died.parent.as_ref(), Some(&enqueue.id));
    assert_eq!(
        (died.says("leveret.reason"), died.says("leveret.queue")),
        ("rejected", "q")
    );
    assert_eq!(again.parent.as_ref(), Some(&died.id));
    assert_eq!(deliver.parent.as_ref(), Some(&again.id));
    assert_eq!(deliver.trace, TRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_may_begin_at_the_broker_and_its_consumer_is_told() {
    let mut receiver = Receiver::start().await;
    let broker = broker(&receiver, 1.0).await;
    broker.expect(201, "PUT", "/queues/%2F/q", "{}").await;
    let channel = channel(&broker).await;
    let mut consumer = consume(&channel, "q").await;
    publish(&channel, "", "q", &[]).await;
    let delivery = next(&mut consumer).await;
    let publish = receiver.span("publish amq.default").await;
    assert_eq!(publish.parent, None);
    let headers = delivery.properties.headers().as_ref().unwrap();
    let expected = format!("00-{}-{}-01", publish.trace, publish.id);
    assert_eq!(
        headers.inner().get("traceparent"),
        Some(&AMQPValue::LongString(expected.into()))
    );
    let deliver = receiver.span("deliver q").await;
    assert_eq!(deliver.trace, publish.trace);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_is_counted_and_holds_nothing_up() {
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let broker = Broker::start_with(|server, management| {
        server.spans = Some(SpanOptions {
            waiting_max: 3,
            ..recording(1.0).unwrap()
        });
        management.collector = Some(Collector::new(&endpoint, &[], "leveret").unwrap());
    })
    .await;
    broker.expect(201, "PUT", "/queues/%2F/q", "{}").await;
    let channel = channel(&broker).await;
    for _ in 0..100 {
        publish(&channel, "", "q", &[]).await;
    }
    let mut consumer = consume(&channel, "q").await;
    for _ in 0..100 {
        next(&mut consumer).await;
    }
    let page = broker.scrape("/metrics").await.body;
    let lost = page
        .lines()
        .find_map(|line| line.strip_prefix("leveret_spans_lost_total{reason=\"overflow\"} "));
    let lost: u64 = lost.unwrap().parse().unwrap();
    // 400 were made. Three may wait, and three more each time that the exporter took those.
    assert!(lost > 300 && lost < 400, "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_published_by_a_call_is_traced_too() {
    let mut receiver = Receiver::start().await;
    let broker = broker(&receiver, 0.0).await;
    broker
        .expect(201, "PUT", "/queues/%2F/orders", r#"{"durable":true}"#)
        .await;
    let body = serde_json::json!({"routing_key": "orders", "payload": "x", "payload_encoding": "string",
        "properties": {"headers": {"traceparent": sampled()}}});
    broker
        .expect(
            200,
            "POST",
            "/exchanges/%2F/amq.default/publish",
            &body.to_string(),
        )
        .await;
    let publish = receiver.span("publish amq.default").await;
    assert_eq!(
        (&*publish.trace, publish.parent.as_deref()),
        (TRACE, Some(SENDER))
    );
    assert_eq!(publish.says("leveret.user"), "guest");
    assert_eq!(publish.says("leveret.connection"), "HTTP API");
    let route = receiver.span("route amq.default").await;
    assert_eq!(route.parent, Some(publish.id.clone()));
    assert_eq!(receiver.span("enqueue orders").await.parent, Some(publish.id));
}
