//! Sends spans to an OpenTelemetry collector: OTLP over HTTP in its JSON encoding, which is stable and needs no more than
//! what the API is written with. (The SDK's exporter brings prost, tonic and its own batching thread, and counts no losses.)

mod encode;

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header},
};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::server::{Handle, Spans};

/// Spans of one request.
const BATCH_MAX: usize = 512;
/// Spans do not wait longer than this for company.
const INTERVAL: Duration = Duration::from_secs(1);
/// A collector that takes longer than this does not answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts; afterwards a batch is given up. New spans wait meanwhile, as many as there is room for.
const PAUSES_S: [u64; 5] = [1, 2, 4, 8, 16];
/// Of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const PORT: u16 = 4318;
const PATH: &str = "/v1/traces";

/// Where spans are sent, and how the broker introduces itself there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    host: String,
    port: u16,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    service_name: String,
}

impl Collector {
    /// `endpoint` is the URL of its traces resource; without a path that is `/v1/traces`. `headers` are sent along, each
    /// `Name: value`.
    ///
    /// # Errors
    /// What is wrong, in words for the operator.
    pub fn new(endpoint: &str, headers: &[String], service_name: &str) -> Result<Self, String> {
        let uri: Uri = endpoint
            .parse()
            .map_err(|error| format!("'{endpoint}' is no URL: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!(
                "'{endpoint}' does not begin with http://; a collector beside the broker can speak TLS to others"
            ));
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| format!("'{endpoint}' names no host"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let headers = headers.iter().map(|header| {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| "a header is 'Name: value'".to_owned())?;
            let name = HeaderName::try_from(name.trim()).map_err(|error| error.to_string())?;
            let mut value = HeaderValue::try_from(value.trim()).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            Ok::<_, String>((name, value))
        });
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(PORT),
            path: if path == "/" { PATH } else { path }.to_owned(),
            headers: headers.collect::<Result<_, _>>()?,
            service_name: service_name.to_owned(),
        })
    }

    fn request(&self, body: Bytes) -> Result<Request<Body>, Failure> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("leveret/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
            .body(Body::from(body))
            .map_err(|error| Failure::Final(error.to_string()))
    }
}

/// Why a batch did not arrive.
enum Failure {
    /// Trying again may help.
    Passing(String),
    Final(String),
}

/// Ends with the broker, after a last attempt.
pub(super) async fn export(handle: Handle, spans: Arc<Spans>, collector: Collector) {
    let mut exporter = Exporter {
        resource: encode::resource(&collector.service_name, &handle.node_name()),
        collector,
        spans,
        connection: None,
        failing: false,
    };
    loop {
        let ends = tokio::select! {
            () = exporter.spans.worth_taking() => false,
            () = tokio::time::sleep(INTERVAL) => false,
            () = handle.stopping() => true,
        };
        if ends {
            exporter.empty(&[]).await;
            return;
        }
        exporter.empty(&PAUSES_S).await;
    }
}

struct Exporter {
    collector: Collector,
    spans: Arc<Spans>,
    resource: Value,
    /// Kept between requests.
    connection: Option<SendRequest<Body>>,
    /// The latest batch was not taken; the log has been told.
    failing: bool,
}

impl Exporter {
    /// Sends what waits, batch by batch.
    async fn empty(&mut self, pauses_s: &[u64]) {
        loop {
            let batch = self.spans.take(BATCH_MAX);
            if batch.is_empty() {
                return;
            }
            let body = encode::request(&self.resource, &batch).to_string();
            self.deliver(batch.len(), body.into(), pauses_s).await;
            if batch.len() < BATCH_MAX {
                return;
            }
        }
    }

    /// One batch, in several attempts. What the collector does not take is counted and let go.
    async fn deliver(&mut self, len: usize, body: Bytes, pauses_s: &[u64]) {
        let mut pauses = pauses_s.iter();
        let problem = loop {
            let sent = tokio::time::timeout(TIMEOUT, self.send(body.clone())).await;
            match sent.unwrap_or_else(|_| Err(Failure::Passing("no answer in time".to_owned()))) {
                Ok(refused) => {
                    let refused = refused.min(len);
                    self.spans.note_exported(len - refused);
                    self.spans.note_refused(refused);
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("the collector takes spans again");
                    }
                    return;
                }
                Err(Failure::Final(problem)) => break problem,
                Err(Failure::Passing(problem)) => {
                    self.connection = None;
                    let Some(pause) = pauses.next() else { break problem };
                    tokio::time::sleep(Duration::from_secs(*pause)).await;
                }
            }
        };
        self.spans.note_refused(len);
        if !std::mem::replace(&mut self.failing, true) {
            let (host, port) = (&self.collector.host, self.collector.port);
            tracing::warn!(
                problem,
                host,
                port,
                "spans are lost: the collector does not take them (otel.endpoint says where it is)"
            );
        }
    }

    /// One attempt. Gives the number of spans that the collector refused.
    async fn send(&mut self, body: Bytes) -> Result<usize, Failure> {
        let passing = |error: &dyn std::fmt::Display| Failure::Passing(error.to_string());
        let request = self.collector.request(body)?;
        let mut connection = match self.connection.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.connect().await.map_err(|error| passing(&error))?,
        };
        connection.ready().await.map_err(|error| passing(&error))?;
        let response = connection
            .send_request(request)
            .await
            .map_err(|error| passing(&error))?;
        let status = response.status();
        let answer = axum::body::to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|error| passing(&error))?;
        self.connection = Some(connection);
        if status.is_success() {
            return Ok(encode::refused(&answer));
        }
        let problem = format!("it answers {status}");
        // These are what the protocol says may be tried again.
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Failure::Passing(problem),
            _ => Failure::Final(problem),
        })
    }

    async fn connect(&self) -> Result<SendRequest<Body>, std::io::Error> {
        let socket = TcpStream::connect((self.collector.host.as_str(), self.collector.port)).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the collector ended");
            }
        });
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_and_headers_are_pairs() {
        let collector = Collector::new("http://127.0.0.1", &["X-Key: a b".to_owned()], "s").unwrap();
        assert_eq!(
            (&*collector.host, collector.port, &*collector.path),
            ("127.0.0.1", 4318, "/v1/traces")
        );
        assert_eq!(collector.headers[0].1, "a b");
        let collector = Collector::new("http://[::1]:99/otlp/v1/traces?a=b", &[], "s").unwrap();
        assert_eq!(
            (&*collector.host, collector.port, &*collector.path),
            ("::1", 99, "/otlp/v1/traces?a=b")
        );
        for endpoint in ["", "localhost:4318", "https://x", "http://", "/v1/traces"] {
            assert!(Collector::new(endpoint, &[], "s").is_err(), "{endpoint}");
        }
        for header in ["key", "a b: c", "a: b\nc"] {
            assert!(
                Collector::new("http://x", &[header.to_owned()], "s").is_err(),
                "{header}"
            );
        }
    }
}
