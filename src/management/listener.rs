//! The HTTP side: sockets, limits, and what is the same for every answer. A connection's task only reads and writes; the
//! work of a call runs in the thread pool, so that no list, however long, holds up a message.

use std::{io::Write, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};

use crate::management::{Settings, answer, answer::Answer, answer::ApiError};
use crate::server::Handle;

/// Clients at a time; more wait in the backlog.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// A request's head must be complete after this, and a kept connection speak again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// And its body after this much longer.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Request line and headers.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// A request's body from the operator of this machine: the largest message there is, with its properties.
const TRUSTED_BODY_BYTES_MAX: usize = 520 * 1024 * 1024;
/// Smaller answers are not worth compressing.
const GZIP_MIN: usize = 300;
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener does with a request.
pub(super) type Respond = fn(&Handle, &Arc<Settings>, Received) -> Response<Body>;

/// A whole request.
pub(super) struct Received {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Result<Vec<u8>, ApiError>,
    pub(super) peer: IpAddr,
    /// Came over the control socket from root or the broker's own user, who need no password.
    pub(super) trusted: bool,
}

/// Serves until the broker stops.
pub(super) async fn serve(handle: Handle, settings: Arc<Settings>, listener: TcpListener, respond: Respond) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = handle.stopping() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                let (handle, settings) = (handle.clone(), Arc::clone(&settings));
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY");
                }
                let peer = Peer {
                    address: peer.ip().to_canonical(),
                    trusted: false,
                };
                tokio::spawn(async move {
                    client(handle, settings, socket, peer, respond).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept an HTTP connection; trying again (with too many open files: raise LimitNOFILE, or ulimit -n)");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// See [`Received::trusted`].
    pub(super) trusted: bool,
}

/// Serves one client until it goes or the broker stops.
pub(super) async fn client(
    handle: Handle,
    settings: Arc<Settings>,
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    respond: Respond,
) {
    let stopping = handle.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (handle, settings) = (handle.clone(), Arc::clone(&settings));
        async move {
            let max = if peer.trusted {
                settings.body_bytes_max.max(TRUSTED_BODY_BYTES_MAX)
            } else {
                settings.body_bytes_max
            };
            let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
            let received = receive(request, max, peer).await;
            let (method, path) = (received.method.clone(), received.path.clone());
            let answered = tokio::task::spawn_blocking(move || respond(&handle, &settings, received)).await;
            let mut answer = answered.unwrap_or_else(|error| {
                tracing::error!(%error, %method, path, "an HTTP call failed");
                write(
                    ApiError::internal("the call failed; see the broker's log").into_answer(),
                    false,
                )
            });
            if chunked {
                // It may have told a length as well, which is not seen here: whoever believed that one sees another
                // request in what follows (RFC 9112, 6.1).
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.stopping() => {
            connection.as_mut().graceful_shutdown();
            // What is being answered is answered; the rest has no claim.
            drop(tokio::time::timeout(Duration::from_secs(2), connection).await);
            return;
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, ?peer, "HTTP connection ended");
    }
}

/// Takes the request in, its body bounded in size and time.
async fn receive(request: Request<Incoming>, max: usize, peer: Peer) -> Received {
    let (head, body) = request.into_parts();
    let header = |name| head.headers.get(name);
    let told = header(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let body = if header(header::CONTENT_ENCODING).is_some() {
        Err(ApiError::compressed())
    } else if told.is_some_and(|told| told > max) {
        Err(ApiError::too_large())
    } else {
        let reading = axum::body::to_bytes(Body::new(body), max);
        match tokio::time::timeout(BODY_TIMEOUT, reading).await {
            Ok(Ok(bytes)) => Ok(bytes.into()),
            Ok(Err(_)) => Err(ApiError::too_large()),
            Err(_) => Err(ApiError::bad_request("the body did not come in time")),
        }
    };
    Received {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
        peer: peer.address,
        trusted: peer.trusted,
    }
}

/// The answer on the wire. Headers that every answer has are set by the caller.
pub(super) fn write(answer: Answer, gzip: bool) -> Response<Body> {
    let (kind, bytes) = match answer.body {
        answer::Body::Empty => (None, Vec::new()),
        answer::Body::Json(value) => (Some("application/json"), value.to_string().into_bytes()),
        answer::Body::Text(kind, text) => (Some(kind), text.into_bytes()),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.extend(
        answer
            .headers
            .into_iter()
            .map(|(name, value)| (Some(name), value))
            .filter_map(|(name, value)| name.map(|name| (name, value))),
    );
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let bytes = match compressed(&bytes, gzip) {
        Some(smaller) => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            smaller
        }
        None => bytes,
    };
    if answer.status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_LENGTH, bytes.len().into());
        *response.body_mut() = Body::from(Bytes::from(bytes));
    }
    response
}

fn compressed(bytes: &[u8], gzip: bool) -> Option<Vec<u8>> {
    if !gzip || bytes.len() < GZIP_MIN {
        return None;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// The client takes gzip.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|part| part == "q=0")
        })
}
