//! From a request to the resource that answers it: path, method, login, rights, in the reference's order
//! (management-api 1.2).

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
};

use crate::management::{
    Settings,
    answer::{Answer, ApiError},
    auth::{self, Caller},
    bindings, browse,
    call::{Call, Query},
    channels, cli, connections, consumers, control,
    cors::Cors,
    definitions, exchanges, health, jobs,
    listener::{self, Received, accepts_gzip},
    messages, meta, nodes, openapi, overview, policies, queues,
    route::{self, Found, Level, Route},
    scheduled, take_in, users, vhosts,
};
use crate::server::Handle;

/// Every route below `/api`.
pub(super) static TABLES: &[&[Route]] = &[
    &overview::ROUTES,
    &nodes::ROUTES,
    &meta::ROUTES,
    &connections::ROUTES,
    &channels::ROUTES,
    &consumers::ROUTES,
    &exchanges::ROUTES,
    &queues::ROUTES,
    &messages::ROUTES,
    &scheduled::ROUTES,
    &bindings::ROUTES,
    &vhosts::ROUTES,
    &users::ROUTES,
    &policies::ROUTES,
    &definitions::ROUTES,
    &health::ROUTES,
    &control::ROUTES,
    &browse::ROUTES,
    &jobs::ROUTES,
    &take_in::ROUTES,
    &openapi::ROUTES,
];

/// Answers a request to the API's listener.
pub(super) fn respond(handle: &Handle, settings: &Arc<Settings>, received: Received) -> Response<Body> {
    let gzip = accepts_gzip(&received.headers);
    let head = received.method == Method::HEAD;
    let told = settings.cors.headers(&received.method, &received.headers);
    let answer = answer(handle, settings, received).unwrap_or_else(ApiError::into_answer);
    let mut response = listener::write(answer, gzip);
    let headers = response.headers_mut();
    headers.extend(told);
    if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
        && let Some(methods) = headers.get(header::ALLOW).cloned()
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    for (name, value) in [
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept, accept-encoding, origin"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'self'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

fn answer(handle: &Handle, settings: &Arc<Settings>, received: Received) -> Result<Answer, ApiError> {
    if let Some(target) = redirect(&received.path) {
        let moved = Answer::no_content().status(StatusCode::MOVED_PERMANENTLY);
        return Ok(moved.header(header::LOCATION, target));
    }
    if matches!(received.method, Method::GET | Method::HEAD)
        && let Some(answer) = cli::answer(&received.path)
    {
        return Ok(answer);
    }
    let segments = route::segments(&received.path).map_err(ApiError::bad_request)?;
    let Some((first, segments)) = segments.split_first() else {
        return Err(ApiError::not_found());
    };
    if first != "api" {
        return Err(ApiError::not_found());
    }
    let (found, names) = match route::find(TABLES, &received.method, segments) {
        Found::Route(route, names) => (route, names),
        Found::OtherMethods(methods) => return Ok(other_method(&received.method, &methods)),
        Found::Nothing => {
            // Who is not known learns nothing about paths either.
            identify(handle, &received)?;
            return Err(ApiError::not_found());
        }
    };
    let caller = match found.level {
        Level::Nobody => Caller::default(),
        _ => identify(handle, &received)?,
    };
    check_origin(&settings.cors, &received.method, &received.headers)?;
    if !handle.is_app_running() && !control::serves_when_stopped(found.path) {
        return Err(ApiError::unavailable(control::APP_STOPPED));
    }
    let creates = matches!(received.method, Method::PUT | Method::POST);
    let mut call = Call {
        // RabbitMQ's name for who uses its command line.
        handle: handle.acting_for(if caller.local { "rmq-cli" } else { &caller.name }),
        settings: Arc::clone(settings),
        caller,
        names,
        query: Query::parse(&received.query),
        headers: received.headers,
        peer: received.peer,
        body: Vec::new(),
    };
    call.allow(found.level, creates)?;
    call.body = received.body?;
    (found.run)(&call)
}

/// Who calls. The operator of this machine may still call as somebody else.
fn identify(handle: &Handle, received: &Received) -> Result<Caller, ApiError> {
    if received.trusted && !received.headers.contains_key(header::AUTHORIZATION) {
        return Ok(Caller::local());
    }
    auth::caller(handle, &received.headers, received.peer)
}

/// Old doors of the user interface and of the reference.
fn redirect(path: &str) -> Option<&'static str> {
    match path {
        "/api" | "/stats" | "/doc/stats.html" => Some("/api/index.html"),
        "/cli" => Some("/cli/index.html"),
        "/mgmt" => Some("/"),
        _ => None,
    }
}

fn other_method(method: &Method, allowed: &[Method]) -> Answer {
    let status = if *method == Method::OPTIONS {
        StatusCode::OK
    } else {
        StatusCode::METHOD_NOT_ALLOWED
    };
    let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    Answer::no_content()
        .status(status)
        .header(header::ALLOW, &allowed.join(", "))
}

/// A page of another origin may make a browser send a change with the user's remembered password (hostile-input H75).
fn check_origin(cors: &Cors, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let Some(origin) = text(header::ORIGIN) else {
        return Ok(());
    };
    let host = text(header::HOST).unwrap_or_default();
    let same = origin
        .split_once("://")
        .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    if same || cors.allows(origin) {
        Ok(())
    } else {
        Err(ApiError::foreign_origin())
    }
}
