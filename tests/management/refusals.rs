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
    let announced = format!("PUT /api/queues/%2F/q HTTP/1.1\r\n{head}content-length: 5000000000\r\n\r\n");
    assert_eq!(broker.raw(announced).await.status, 413, "before any of it came");
    // The chunks count, and what follows on the connection is nobody's request.
    let twice =
        "host: x\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\ncontent-length: 5\r\ntransfer-encoding: chunked";
    let next = format!("GET /api/whoami HTTP/1.1\r\n{head}\r\n");
    let twice = broker
        .raw(format!(
            "PUT /api/queues/%2F/two HTTP/1.1\r\n{twice}\r\n\r\n0\r\n\r\n{next}"
        ))
        .await;
    assert_eq!((twice.status, twice.header("connection")), (201, Some("close")));
    assert!(!twice.body.contains("guest"), "{}", twice.body);
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

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_told_what_the_settings_say() {
    let broker = Broker::start_with(|_, management| {
        management.cors = leveret::management::Cors {
            allow_origins: vec!["https://a.example".to_owned()],
            max_age_s: Some(60),
        };
    })
    .await;
    let ask = |method: &str, origin: &str| {
        format!(
            "{method} /api/vhosts/new HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: {origin}\r\n\
             access-control-request-headers: authorization\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\
             content-length: 0\r\n\r\n"
        )
    };
    let asked = broker.raw(ask("OPTIONS", "https://a.example")).await;
    assert_eq!(asked.status, 200);
    assert_eq!(
        asked.header("access-control-allow-origin"),
        Some("https://a.example")
    );
    assert_eq!(asked.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(
        asked.header("access-control-allow-headers"),
        Some("authorization")
    );
    assert_eq!(asked.header("access-control-max-age"), Some("60"));
    let methods = asked.header("access-control-allow-methods").unwrap();
    assert!(methods.contains("PUT") && methods.contains("DELETE"), "{methods}");
    let stranger = broker.raw(ask("OPTIONS", "https://b.example")).await;
    assert_eq!(stranger.header("access-control-allow-origin"), None);
    assert_eq!(stranger.header("vary"), Some("accept, accept-encoding, origin"));
    assert_eq!(broker.raw(ask("PUT", "https://b.example")).await.status, 403);
    let changed = broker.raw(ask("PUT", "https://a.example")).await;
    assert_eq!(changed.status, 201, "{}", changed.body);
    assert_eq!(
        changed.header("access-control-allow-origin"),
        Some("https://a.example")
    );
}
