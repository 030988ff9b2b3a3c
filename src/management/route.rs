//! Which function answers which path. Every resource has a table of its routes; the same tables give the `Allow` header
//! and the OpenAPI document, so that what is described is what is served.

use axum::http::Method;

use crate::management::{answer::Answer, answer::ApiError, call::Call};

/// Who may use a route, beside what the object itself demands (management-api 1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Nobody has to say who they are.
    Nobody,
    /// Every user with a management tag.
    Any,
    /// Administrators, and who has access to the vhost in the path. Without one in the path, lists are filtered.
    Vhost,
    /// Administrators, and policymakers with access to the vhost in the path.
    Policy,
    /// Administrators and policymakers.
    GlobalParameter,
    Monitor,
    Admin,
}

/// Answers a call, on a thread that may wait.
pub(super) type Run = fn(&Call) -> Result<Answer, ApiError>;

/// One method of one path.
pub(super) struct Route {
    pub(super) method: Method,
    /// Below `/api`; `{name}` stands for any segment.
    pub(super) path: &'static str,
    pub(super) level: Level,
    pub(super) run: Run,
    /// What it does, in one line.
    pub(super) about: &'static str,
}

const fn route(method: Method, path: &'static str, level: Level, run: Run, about: &'static str) -> Route {
    Route {
        method,
        path,
        level,
        run,
        about,
    }
}

pub(super) const fn get(path: &'static str, level: Level, run: Run, about: &'static str) -> Route {
    route(Method::GET, path, level, run, about)
}

pub(super) const fn put(path: &'static str, level: Level, run: Run, about: &'static str) -> Route {
    route(Method::PUT, path, level, run, about)
}

pub(super) const fn post(path: &'static str, level: Level, run: Run, about: &'static str) -> Route {
    route(Method::POST, path, level, run, about)
}

pub(super) const fn delete(path: &'static str, level: Level, run: Run, about: &'static str) -> Route {
    route(Method::DELETE, path, level, run, about)
}

/// What a path means.
pub(super) enum Found {
    Route(&'static Route, Vec<(&'static str, String)>),
    /// The path exists, the method does not: those that do.
    OtherMethods(Vec<Method>),
    Nothing,
}

/// Finds the route of a path below `/api`, given as decoded segments. A literal segment wins over a name.
pub(super) fn find(tables: &[&'static [Route]], method: &Method, segments: &[String]) -> Found {
    let wanted = if *method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let matching: Vec<&'static Route> = tables
        .iter()
        .flat_map(|table| table.iter())
        .filter(|route| matches(route.path, segments))
        .collect();
    let Some(most) = matching.iter().map(|route| literals(route.path)).max() else {
        return Found::Nothing;
    };
    let mut best = matching.iter().filter(|route| literals(route.path) == most);
    if let Some(route) = best.clone().find(|route| route.method == *wanted) {
        return Found::Route(route, names(route.path, segments));
    }
    let mut methods: Vec<Method> = Vec::new();
    for route in best.by_ref() {
        if route.method == Method::GET {
            methods.push(Method::HEAD);
        }
        methods.push(route.method.clone());
    }
    methods.push(Method::OPTIONS);
    Found::OtherMethods(methods)
}

/// The segments of a route's path.
pub(super) fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}

/// The name that a segment stands for.
pub(super) fn name_of(part: &str) -> Option<&str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

fn matches(path: &str, segments: &[String]) -> bool {
    let mut segments = segments.iter();
    for part in parts(path) {
        match segments.next() {
            Some(segment) if name_of(part).is_some() || part == segment => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

/// Which segments are literal, the first weighing most.
fn literals(path: &str) -> u32 {
    parts(path).fold(1, |weight, part| {
        (weight << 1) | u32::from(name_of(part).is_none())
    })
}

fn names(path: &'static str, segments: &[String]) -> Vec<(&'static str, String)> {
    parts(path)
        .zip(segments)
        .filter_map(|(part, segment)| Some((name_of(part)?, segment.clone())))
        .collect()
}

/// The segments of a raw path, each decoded after the split, so that `%2F` is data. One slash at the end is ignored.
///
/// # Errors
/// When a segment is no UTF-8 or has a broken escape.
pub(super) fn segments(raw: &str) -> Result<Vec<String>, String> {
    let raw = raw.strip_prefix('/').unwrap_or(raw);
    let raw = raw.strip_suffix('/').unwrap_or(raw);
    raw.split('/').map(decode).collect()
}

/// Percent-decodes a segment; `+` is a plus.
pub(super) fn decode(text: &str) -> Result<String, String> {
    let broken = || format!("'{text}' is not percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            rest.next()
                .and_then(|digit| char::from(digit).to_digit(16))
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(broken());
        };
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).map_err(|_invalid| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &Call) -> Result<Answer, ApiError> {
        Ok(Answer::no_content())
    }

    static ROUTES: [Route; 4] = [
        get("/queues/{vhost}", Level::Vhost, nothing, ""),
        get("/queues/detailed", Level::Vhost, nothing, ""),
        get("/queues/{vhost}/{name}", Level::Vhost, nothing, ""),
        put("/queues/{vhost}/{name}", Level::Vhost, nothing, ""),
    ];

    fn look(method: &Method, path: &str) -> Found {
        find(&[&ROUTES], method, &segments(path).unwrap())
    }

    #[test]
    fn a_slash_in_a_name_is_data_and_one_at_the_end_is_nothing() {
        let Found::Route(route, names) = look(&Method::GET, "/queues/%2F/a%2fb%25/") else {
            panic!("not found")
        };
        assert_eq!(route.path, "/queues/{vhost}/{name}");
        assert_eq!(names, [("vhost", "/".to_owned()), ("name", "a/b%".to_owned())]);
        let Found::Route(_, names) = look(&Method::GET, "/queues//") else {
            panic!("not found")
        };
        assert_eq!(names, [("vhost", String::new())], "Flower's empty vhost");
    }

    #[test]
    fn a_literal_wins_and_a_wrong_method_learns_the_right_ones() {
        let Found::Route(route, _) = look(&Method::HEAD, "/queues/detailed") else {
            panic!("not found")
        };
        assert_eq!(route.path, "/queues/detailed");
        let Found::OtherMethods(methods) = look(&Method::POST, "/queues/%2F/q") else {
            panic!("found")
        };
        assert_eq!(methods, [Method::HEAD, Method::GET, Method::PUT, Method::OPTIONS]);
        assert!(matches!(look(&Method::GET, "/nothing"), Found::Nothing));
    }

    #[test]
    fn broken_escapes_are_refused() {
        for path in ["/a%", "/a%2", "/a%zz", "/%ff"] {
            assert!(segments(path).is_err(), "{path}");
        }
        assert_eq!(segments("/%2e%2e/a+b").unwrap(), ["..", "a+b"]);
    }
}
