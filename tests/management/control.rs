//! The operator's routes, and the control socket on which root and the broker's user need no password.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
};

use crate::client::Broker;

/// Status and body of a call over the control socket, without a password.
fn local(broker: &Broker, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut socket = UnixStream::connect(broker.dir().join("control.sock")).unwrap();
    let length = body.len();
    let request = format!(
        "{method} /api{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_needs_no_password_and_no_user() {
    let broker = Broker::start().await;
    assert_eq!(
        local(&broker, "GET", "/whoami", "").1,
        "{\"is_internal_user\":true,\"name\":\"leveretctl\",\"tags\":[\"administrator\"]}"
    );
    assert_eq!(local(&broker, "PUT", "/vhosts/v", "{}").0, 201);
    let declare = local(&broker, "PUT", "/queues/v/q", "{\"durable\":true}");
    assert_eq!(
        declare.0, 201,
        "no permission in the vhost is needed: {}",
        declare.1
    );
    let made = broker.get("/permissions").await;
    let users: Vec<_> = made.as_array().unwrap().iter().map(|row| &row["user"]).collect();
    assert_eq!(users, ["guest"], "nobody was given permissions");
    // Over TCP, a password is needed as ever.
    let refused = broker.call_as(None, "GET", "/leveret/status", "").await;
    assert_eq!(refused.status, 401);
    let socket = std::fs::metadata(broker.dir().join("control.sock")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&socket.permissions()) & 0o777,
        0o660
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_application_refuses_clients_and_can_be_reset() {
    let broker = Broker::start().await;
    let amqp = broker.amqp_address();
    broker
        .expect(201, "PUT", "/queues/%2F/q", "{\"durable\":true}")
        .await;
    let early = broker.call("POST", "/leveret/app/reset", "").await;
    assert_eq!(early.status, 400, "a running application is not reset");
    broker
        .expect(201, "PUT", "/users/u", "{\"tags\":\"\",\"password\":\"p\"}")
        .await;
    broker.expect(204, "POST", "/leveret/app/stop", "").await;
    assert!(TcpStream::connect(amqp).is_err(), "nobody listens");
    assert_eq!(broker.get("/leveret/ping").await["running"], false);
    broker.expect(204, "POST", "/leveret/app/reset", "").await;
    broker.expect(204, "POST", "/leveret/app/start", "").await;
    assert!(TcpStream::connect(amqp).is_ok(), "the same port again");
    assert_eq!(broker.get("/queues").await.as_array().unwrap().len(), 0);
    let users = broker.get("/users").await;
    assert_eq!(
        users.as_array().unwrap().len(),
        1,
        "only the default user: {users}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_alarms_are_set_and_bad_ones_refused() {
    let broker = Broker::start().await;
    broker
        .expect(204, "PUT", "/leveret/limits/memory", "{\"limit\":\"1.0\"}")
        .await;
    assert_eq!(
        broker.get("/leveret/status").await["memory_watermark"]["relative"],
        1.0
    );
    broker
        .expect(204, "PUT", "/leveret/limits/disk", "{\"limit\":\"0\"}")
        .await;
    assert_eq!(broker.get("/leveret/status").await["disk_free_limit"], 0);
    broker
        .expect(400, "PUT", "/leveret/limits/disk", "{\"limit\":\"lots\"}")
        .await;
    broker
        .expect(204, "PUT", "/leveret/tracing/%2F", "{\"on\":true}")
        .await;
    broker
        .expect(404, "PUT", "/leveret/tracing/no", "{\"on\":true}")
        .await;
    let password = "{\"user\":\"guest\",\"password\":\"guest\"}";
    broker
        .expect(204, "POST", "/leveret/authenticate", password)
        .await;
    let wrong = "{\"user\":\"guest\",\"password\":\"x\"}";
    broker.expect(400, "POST", "/leveret/authenticate", wrong).await;
    let stop = broker.call("POST", "/leveret/stop", "").await;
    assert_eq!(stop.status, 503, "this broker is part of the test's program");
}
