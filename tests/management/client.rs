//! A broker in this process, and an HTTP client of a few lines: one request, one connection, nothing interpreted.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use leveret::{
    management::{Management, Options},
    server::{Options as ServerOptions, Server},
};
use serde_json::Value;

pub(crate) struct Broker {
    server: Server,
    address: SocketAddr,
    metrics: SocketAddr,
    _management: Management,
    dir: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    /// A broker for which the test changes something of how both sides are started.
    pub(crate) async fn start_with(change: impl FnOnce(&mut ServerOptions, &mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut of_server = ServerOptions::local(dir.path());
        let local = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut options = Options {
            http_listen: local,
            metrics_listen: local,
            data_dir: dir.path().to_path_buf(),
            body_bytes_max: 100_000,
            control_socket: Some(dir.path().join("control.sock")),
            ..Options::default()
        };
        change(&mut of_server, &mut options);
        let server = Server::start(of_server).await.unwrap();
        options.amqp_address = server.amqp_address();
        let management = Management::start(&server.handle(), options).unwrap();
        Self {
            address: management.http_address().unwrap(),
            metrics: management.metrics_address().unwrap(),
            server,
            _management: management,
            dir,
        }
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn amqp_address(&self) -> SocketAddr {
        self.server.amqp_address().unwrap()
    }

    pub(crate) fn amqp_uri(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.server.amqp_address().unwrap())
    }

    /// Sends a request as it stands.
    pub(crate) async fn raw(&self, request: String) -> Answer {
        send(self.address, request).await
    }

    pub(crate) async fn scrape(&self, path: &str) -> Answer {
        send(
            self.metrics,
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        )
        .await
    }

    pub(crate) async fn call_as(&self, login: Option<&str>, method: &str, path: &str, body: &str) -> Answer {
        let login = login.map_or(String::new(), |login| {
            format!("authorization: Basic {}\r\n", STANDARD.encode(login))
        });
        let length = body.len();
        self.raw(format!(
            "{method} /api{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{login}content-length: {length}\r\n\r\n{body}"
        ))
        .await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_as(Some("guest:guest"), method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.call("GET", path, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// Calls and expects this status.
    pub(crate) async fn expect(&self, status: u16, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.call(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer
    }
}

async fn send(address: SocketAddr, request: String) -> Answer {
    let sent = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    });
    let text = sent.await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
