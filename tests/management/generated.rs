//! Requests made from the broker's own description of its API, with names and bodies that nobody would send in earnest:
//! whatever comes, the answer is the API's, never a failure of the broker.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use crate::client::Broker;

const ROUNDS: usize = 6;

/// Path segments: names that exist, and tricks.
const NAMES: [&str; 18] = [
    "%2F",
    "q",
    "x",
    "guest",
    "none",
    "",
    "%00",
    "%2e%2e",
    "..",
    "%252F",
    "a%0Ab",
    "%3Cscript%3E",
    "amq.default",
    "~",
    "-1",
    "99999999999999999999",
    "%F0%9F%90%87",
    "0-1",
];
const QUERIES: [&str; 12] = [
    "",
    "page=1&page_size=500",
    "page=0",
    "page=x&sort=",
    "page=1&name=(a%2B)%2B%24&use_regex=true",
    "columns=name,a.b.c,,&sort=a.b&sort_reverse=true",
    "lengths_age=60&lengths_incr=5",
    "lengths_age=-1&lengths_incr=0",
    "from=0-1&limit=3&text=a&header.a=1",
    "from=-&limit=99999999999",
    "disable_stats=true&enable_queue_totals=true",
    "%zz=%&&==",
];

fn value(random: &mut StdRng, depth: usize) -> Value {
    match random.random_range(0..if depth > 3 { 8 } else { 10 }) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(1e300),
        4 => json!(u64::MAX),
        5 => json!(""),
        6 => json!("q"),
        7 => json!("<&\u{0}\n'\"\u{1F407}("),
        8 => (0..3).map(|_| value(random, depth + 1)).collect(),
        _ => object(random, &["a", "x-max-length", "headers"], depth + 1),
    }
}

fn object(random: &mut StdRng, keys: &[&str], depth: usize) -> Value {
    let mut made = serde_json::Map::new();
    for key in keys {
        if random.random_bool(0.8) {
            made.insert((*key).to_owned(), value(random, depth));
        }
    }
    Value::Object(made)
}

const KEYS: [&str; 34] = [
    "name",
    "value",
    "type",
    "durable",
    "auto_delete",
    "internal",
    "arguments",
    "routing_key",
    "properties",
    "payload",
    "payload_encoding",
    "count",
    "ackmode",
    "encoding",
    "truncate",
    "tags",
    "password",
    "password_hash",
    "hashing_algorithm",
    "configure",
    "write",
    "read",
    "exchange",
    "pattern",
    "definition",
    "priority",
    "apply-to",
    "users",
    "queues",
    "filter",
    "positions",
    "to",
    "limit",
    "rate",
];

fn body(random: &mut StdRng) -> String {
    match random.random_range(0..8) {
        0 => String::new(),
        1 => "{\"a\":".to_owned(),
        2 => "[".repeat(5000),
        3 => "\"text\"".to_owned(),
        4 => "\u{feff}{}".to_owned(),
        _ => object(random, &KEYS, 0).to_string(),
    }
}

/// Proves: H72, H73, H74
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_is_answered_as_the_api_answers() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(7);
    let mut random = StdRng::seed_from_u64(seed);
    let broker = Broker::start().await;
    broker.expect(201, "PUT", "/queues/%2F/q", "{}").await;
    broker.expect(201, "PUT", "/exchanges/%2F/x", "{}").await;
    // Nobody may lock the tests out, and routes that steer the program are not for strangers.
    let spared = |method: &str, path: &str| {
        path.starts_with("/leveret/") && !path.starts_with("/leveret/queues") && path != "/leveret/jobs"
            || path.starts_with("/users") && method != "get"
            || path == "/definitions" && method == "post"
            || path.contains("/permissions") && method != "get"
            || path.starts_with("/vhosts/{name}") && method == "delete"
            || path.starts_with("/connections") && method == "delete"
            || path == "/auth/attempts/{node}" && method == "delete"
    };
    let document = broker.call_as(None, "GET", "/openapi.json", "").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 90, "{}", paths.len());
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            if spared(method, path) {
                continue;
            }
            for _ in 0..ROUNDS {
                let mut filled = String::new();
                for part in path.split('/').skip(1) {
                    let name = if part.starts_with('{') {
                        NAMES.choose(&mut random).unwrap()
                    } else {
                        part
                    };
                    filled = format!("{filled}/{name}");
                }
                let query = QUERIES.choose(&mut random).unwrap();
                let (method, body) = (method.to_uppercase(), body(&mut random));
                let target = format!("{filled}?{query}");
                let answer = broker.call(&method, &target, &body).await;
                let said = format!(
                    "SEED={seed} {method} {target} {body:.200}: {} {:.300}",
                    answer.status, answer.body
                );
                assert!(
                    (200..500).contains(&answer.status) || answer.status == 503,
                    "{said}"
                );
                if answer.status >= 400 && answer.status != 405 {
                    let error = answer.json();
                    let health = error["status"] == json!("failed");
                    assert!(
                        health || error["error"].is_string() && !error["reason"].is_null(),
                        "{said}"
                    );
                }
            }
        }
    }
    assert_eq!(
        broker.get("/whoami").await["name"],
        json!("guest"),
        "the broker goes on"
    );
}
