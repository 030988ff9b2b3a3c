//! The broker at the other end: HTTP over its control socket, or over TCP to wherever a URL says.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::{Body, Bytes};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{Method, Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::failure::{Failure, exit};

/// Where brokers keep their control socket, most likely first.
const DATA_DIRS: [&str; 2] = ["/var/lib/leveret", "data"];
const SOCKET: &str = "control.sock";
/// Without `--timeout`.
const TIMEOUT_S: u64 = 60;
/// More than any list of a broker that still works.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Which broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Socket(PathBuf),
    Http {
        host: String,
        port: u16,
        /// `user:password`
        login: String,
    },
}

impl Target {
    /// What flags and variables say; else the first control socket there is.
    pub(crate) fn choose(
        url: Option<String>,
        socket: Option<String>,
        data_dir: Option<String>,
    ) -> Result<Self, Failure> {
        let given = |flag: Option<String>, variable: &str| {
            flag.or_else(|| std::env::var(variable).ok().filter(|text| !text.is_empty()))
        };
        // A flag is meant for this call; variables are habits.
        if let (None, Some(path)) = (&url, &socket) {
            return Ok(Self::Socket(path.into()));
        }
        if let (None, None, Some(dir)) = (&url, &socket, &data_dir) {
            return Ok(Self::Socket(Path::new(dir).join(SOCKET)));
        }
        if let Some(url) = given(url, "LEVERETCTL_URL") {
            return Self::parse(&url);
        }
        if let Some(path) = given(None, "LEVERETCTL_SOCKET") {
            return Ok(Self::Socket(path.into()));
        }
        if let Some(dir) = given(None, "LEVERET_DATA_DIR") {
            return Ok(Self::Socket(Path::new(&dir).join(SOCKET)));
        }
        let candidates = DATA_DIRS.map(|dir| Path::new(dir).join(SOCKET));
        let found = candidates.iter().find(|path| path.exists());
        let [first, _] = &candidates;
        Ok(Self::Socket(found.unwrap_or(first).clone()))
    }

    /// `http://user:password@host:port`; user and password may be percent-encoded.
    pub(crate) fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::argument(exit::USAGE, format!("the URL is wrong: {why}."));
        if url.starts_with("https://") {
            return Err(wrong("this broker does not speak TLS yet"));
        }
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| wrong("it looks like http://user:password@host:15672"))?;
        let rest = rest.split_once('/').map_or(rest, |(authority, _)| authority);
        let (login, address) = rest.rsplit_once('@').unwrap_or(("guest:guest", rest));
        let login = decode(login).ok_or_else(|| wrong("bad % in the user or password"))?;
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_no_port| wrong("bad port"))?)
            }
            _ => (address, 15672),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        Ok(Self::Http {
            host: host.to_owned(),
            port,
            login,
        })
    }

    /// For messages: without the password.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Http { host, port, .. } => format!("http://{host}:{port}"),
        }
    }

    /// The host that the broker's ports are on.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Socket(_) => "localhost",
            Self::Http { host, .. } => host,
        }
    }
}

/// Sends requests, one connection each.
pub(crate) struct Client {
    pub(crate) target: Target,
    timeout: Duration,
}

impl Client {
    pub(crate) fn new(target: Target, timeout_s: Option<u64>) -> Self {
        Self {
            target,
            timeout: Duration::from_secs(timeout_s.unwrap_or(TIMEOUT_S)),
        }
    }

    /// The answer of a GET.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.send(&Method::GET, path, None, &[])
    }

    /// The rows of a list.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        match self.get(path)? {
            Value::Array(rows) => Ok(rows),
            _ => Err(Failure::new(exit::SOFTWARE, format!("{path} is no list"))),
        }
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(&Method::PUT, path, Some(body.to_string().into()), &[])
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(&Method::POST, path, Some(body.to_string().into()), &[])
    }

    pub(crate) fn post_text(&self, path: &str, body: String) -> Result<Value, Failure> {
        self.send(&Method::POST, path, Some(body.into()), &[])
    }

    pub(crate) fn post_bytes(&self, path: &str, body: Bytes) -> Result<Value, Failure> {
        self.send(&Method::POST, path, Some(body), &[])
    }

    pub(crate) fn delete(&self, path: &str) -> Result<(), Failure> {
        self.remove(path).map(drop)
    }

    /// A DELETE that tells what it did.
    pub(crate) fn remove(&self, path: &str) -> Result<Value, Failure> {
        self.send(&Method::DELETE, path, None, &[])
    }

    /// A DELETE that tells clients this reason.
    pub(crate) fn close(&self, path: &str, reason: &str) -> Result<(), Failure> {
        self.send(&Method::DELETE, path, None, &[("x-reason", reason)])
            .map(drop)
    }

    fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        headers: &[(&str, &str)],
    ) -> Result<Value, Failure> {
        let failed = |error: &io::Error| self.unreachable(error);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(&error))?;
        let request = self.request(method, path, body, headers)?;
        let exchange = async {
            match &self.target {
                Target::Socket(path) => exchange(UnixStream::connect(path).await?, request).await,
                Target::Http { host, port, .. } => {
                    exchange(TcpStream::connect((host.as_str(), *port)).await?, request).await
                }
            }
        };
        let limited = async { tokio::time::timeout(self.timeout, exchange).await };
        let (status, bytes) = match runtime.block_on(limited) {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(failed(&error)),
            Err(_) => {
                let seconds = self.timeout.as_secs();
                let text = format!("the broker did not answer within {seconds} seconds");
                return Err(Failure::new(exit::TEMPORARY, text));
            }
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if (200..300).contains(&status) {
            return Ok(value);
        }
        Err(refusal(status, &value))
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        headers: &[(&str, &str)],
    ) -> Result<Request<Body>, Failure> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("/api{path}"))
            .header(header::HOST, self.target.host())
            .header(header::CONTENT_TYPE, "application/json");
        if let Target::Http { login, .. } = &self.target {
            request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(login)));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
            .body(Body::from(body.unwrap_or_default()))
            .map_err(|error| Failure::argument(exit::USAGE, error))
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let target = self.target.describe();
        if error.kind() == io::ErrorKind::PermissionDenied {
            let text = format!(
                "no permission to use {target}: run this as root or as the broker's user, or name a user with --url"
            );
            return Failure::new(exit::NO_PERMISSION, text);
        }
        let advice = match &self.target {
            Target::Socket(_) => {
                "Is the broker running? If its data directory is elsewhere, say --data-dir DIR or --socket PATH; \
                 for a broker on another machine --url http://user:password@host:15672"
            }
            Target::Http { .. } => "Is the broker running, and its HTTP API listening there?",
        };
        let node = match &self.target {
            Target::Socket(_) => "leveret@localhost".to_owned(),
            Target::Http { host, .. } => format!("leveret@{host}"),
        };
        let text = format!(
            "Error: unable to perform an operation on node '{node}'. Cannot reach {target}: {error}. {advice}"
        );
        Failure {
            unreachable: true,
            ..Failure::plain(exit::UNAVAILABLE, text)
        }
    }
}

async fn exchange(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> io::Result<(u16, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
        .await
        .map_err(io::Error::other)?;
    // It ends with the sender.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(Body::new(response.into_body()), ANSWER_BYTES_MAX)
        .await
        .map_err(io::Error::other)?;
    Ok((status, bytes))
}

/// What the broker says no with.
fn refusal(status: u16, value: &Value) -> Failure {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let reason = match (text("reason"), text("error")) {
        ("", "") if status == 401 => "the broker refuses this user or password",
        ("Not_Authorized", _) => "the broker refuses this user or password",
        ("", "") => "the broker refused without a reason",
        ("", error) => error,
        (reason, _) => reason,
    };
    Failure::refused(status, reason)
}

/// A name as a segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// Takes percent-encoding away.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            plain.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            plain.push(byte);
        }
    }
    String::from_utf8(plain).ok()
}

/// An empty body.
pub(crate) fn nothing() -> Value {
    json!({})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let http = |host: &str, port, login: &str| Target::Http {
            host: host.into(),
            port,
            login: login.into(),
        };
        for (url, expected) in [
            ("http://localhost", http("localhost", 15672, "guest:guest")),
            ("http://a:b@host:80/", http("host", 80, "a:b")),
            ("http://a:p%40ss@[::1]:1234", http("::1", 1234, "a:p@ss")),
            ("http://[::1]", http("::1", 15672, "guest:guest")),
        ] {
            assert_eq!(Target::parse(url).unwrap(), expected, "{url}");
        }
        for url in [
            "localhost",
            "https://x",
            "http://",
            "http://a:%zz@x",
            "http://x:port",
        ] {
            assert_eq!(Target::parse(url).unwrap_err().code, exit::USAGE, "{url}");
        }
    }

    #[test]
    fn any_name_is_one_segment() {
        assert_eq!(segment("a b/ü<%>"), "a%20b%2F%C3%BC%3C%25%3E");
    }
}
