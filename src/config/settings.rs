//! Which settings there are, what they are, and where each came from: for `leveretctl environment`.

use std::path::Path;

use config::{Value, ValueKind};
use serde_json::json;

/// Settings whose values nobody is shown.
const SECRETS: [&str; 3] = ["auth.default_password", "auth.anonymous_password", "otel.headers"];

const FILE: &str = "file";
/// As the configuration library calls it.
pub(super) const ENVIRONMENT: &str = "the environment";

/// One setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// As in the configuration file: `amqp.listen`.
    pub key: String,
    pub value: serde_json::Value,
    /// `default`, `flag`, `environment`, or the file.
    pub origin: String,
}

/// All leaves, by key.
pub(super) fn list(root: &Value, by_flag: &[&str], file: Option<&Path>) -> Vec<Setting> {
    let mut found = Vec::new();
    walk(String::new(), root, by_flag, &mut found);
    for setting in &mut found {
        // The library shortens the path by what this directory is, which says nothing elsewhere.
        if let Some(file) = file.filter(|_| setting.origin == FILE) {
            setting.origin = file.display().to_string();
        }
    }
    found.sort_by(|left, right| left.key.cmp(&right.key));
    found
}

/// The depth is that of our own file: what a user's file nests deeper is refused by its names afterwards.
fn walk(key: String, value: &Value, by_flag: &[&str], found: &mut Vec<Setting>) {
    if let ValueKind::Table(table) = &value.kind {
        for (name, value) in table {
            let key = if key.is_empty() {
                name.clone()
            } else {
                format!("{key}.{name}")
            };
            walk(key, value, by_flag, found);
        }
        return;
    }
    let origin = match value.origin() {
        _ if by_flag.contains(&key.as_str()) => "flag".to_owned(),
        None => "default".to_owned(),
        Some(ENVIRONMENT) => "environment".to_owned(),
        // Lines of a rabbitmq.conf say which.
        Some(line) if line.contains(".conf:") => line.to_owned(),
        Some(_) => FILE.to_owned(),
    };
    let value = if SECRETS.contains(&key.as_str()) && !is_empty(value) {
        json!("[redacted]")
    } else {
        plain(value)
    };
    found.push(Setting { key, value, origin });
}

fn is_empty(value: &Value) -> bool {
    match &value.kind {
        ValueKind::String(text) => text.is_empty(),
        ValueKind::Array(values) => values.is_empty(),
        _ => false,
    }
}

fn plain(value: &Value) -> serde_json::Value {
    match &value.kind {
        ValueKind::Nil | ValueKind::Table(_) => serde_json::Value::Null,
        ValueKind::Boolean(flag) => json!(flag),
        ValueKind::I64(number) => json!(number),
        ValueKind::I128(number) => json!(number.to_string()),
        ValueKind::U64(number) => json!(number),
        ValueKind::U128(number) => json!(number.to_string()),
        ValueKind::Float(number) => json!(number),
        ValueKind::String(text) => json!(text),
        ValueKind::Array(values) => values.iter().map(plain).collect(),
    }
}
