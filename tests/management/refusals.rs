//! Who and what is turned away (hostile-input H70 to H75).

use crate::client::Broker;

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_refused_in_three_ways() {
    let broker = Broker::start().await;
    let none = broker.call_as(None, "GET", "/overview", "").await;
    assert_eq!((none.status, none.body.as_str()), (401, ""));
    assert_eq!(
        none.header("www-authenticate"),
        Some("Basic realm=\"RabbitMQ Management\"")
    );
    let wrong = broker.call_as(Some("guest:x"), "GET", "/overview", "").await;
    assert_eq!((wrong.status, wrong.header("www-authenticate")), (401, None));
    assert_eq!(
        wrong.body,
        r#"{"error":"not_authorized","reason":"Not_Authorized"}"#
    );
    let method = broker.call_as(None, "POST", "/overview", "").await;
    assert_eq!(
        (method.status, method.header("allow")),
        (405, Some("HEAD, GET, OPTIONS"))
    );
    assert_eq!(broker.call_as(None, "GET", "/version", "").await.status, 200);
}

/// Proves: H70, H74, H75
#[tokio::test(flavor = "multi_thread")]
async fn bodies_paths_and_origins_are_bounded() {
    let broker = Broker::start().await;
    let long = format!(r#"{{"arguments":{{"x":"{}"}}}}"#, "y".repeat(200_000));
    assert_eq!(broker.call("PUT", "/queues/%2F/q", &long).await.status, 413);
    let head = "host: x\r\nconnection: close\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n";
    let zipped = broker
        .raw(format!(
            "PUT /api/queues/%2F/q HTTP/1.1\r\n{head}content-encoding: gzip\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
    assert_eq!(zipped.status, 415);
    let foreign = broker
        .raw(format!(
            "DELETE /api/queues/%2F/q HTTP/1.1\r\n{head}origin: http://evil\r\n\r\n"
        ))
        .await;
    assert_eq!(foreign.status, 403);
    for path in [
        "/queues/%2F/..",
        "/queues/%2e%2e/%2e%2e",
        "/queues/%2F/%00",
        "/queues/%252F/q",
        "/nothing/at/all",
    ] {
        broker.expect(404, "GET", path, "").await;
    }
    broker.expect(400, "GET", "/queues/%2F/%ff", "").await;
    broker.expect(400, "PUT", "/queues/%2F/a%0Ab", "{}").await;
    let head = broker
        .raw("GET /api/index.html HTTP/1.1\r\n".to_owned() + &"x-a: b\r\n".repeat(200) + "\r\n")
        .await;
    assert_eq!(head.status, 431);
}

/// Proves: H72, H73
#[tokio::test(flavor = "multi_thread")]
async fn patterns_and_nesting_are_bounded() {
    let broker = Broker::start().await;
    broker
        .expect(
            400,
            "GET",
            &format!("/queues?page=1&use_regex=true&name={}", "a".repeat(2000)),
            "",
        )
        .await;
    let nothing = broker.get("/queues?page=1&use_regex=true&name=(").await;
    assert_eq!(nothing["filtered_count"], 0);
    let deep = format!(
        r#"{{"arguments":{{"x":{}{}}}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    broker.expect(400, "PUT", "/queues/%2F/q", &deep).await;
    for body in [
        r#"{"durable":"maybe"}"#,
        r#"{"arguments":3}"#,
        r#"{"arguments":{"x":null}}"#,
        r#"{"arguments":{"x":1e999}}"#,
    ] {
        broker.expect(400, "PUT", "/queues/%2F/q", body).await;
    }
    broker.expect(404, "GET", "/queues/%2F/q", "").await;
}
