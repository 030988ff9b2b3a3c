//! What two sets of definitions differ in.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    call::Call,
    command::Spec,
    failure::{Failure, exit},
    output::{Output, cell},
    program::tools::OURS,
};

pub(super) static COMMANDS: [Spec; 1] = [Spec {
    name: "definitions",
    tools: OURS,
    group: "Definitions",
    args: "<diff> <file> [<other>]",
    options: &[],
    about: "`definitions diff FILE` compares a file with the broker, `definitions diff FILE OTHER` two files; exits with 2 when they differ",
    run: definitions,
}];

/// Differences were found.
const DIFFERENT: u8 = 2;

/// Lists of objects, and the fields that name an object of each.
const KINDS: [(&str, &str, &[&str]); 11] = [
    ("vhosts", "vhost", &["name"]),
    ("users", "user", &["name"]),
    ("permissions", "permission", &["vhost", "user"]),
    (
        "topic_permissions",
        "topic permission",
        &["vhost", "user", "exchange"],
    ),
    ("parameters", "parameter", &["vhost", "component", "name"]),
    ("global_parameters", "global parameter", &["name"]),
    ("policies", "policy", &["vhost", "name"]),
    ("operator_policies", "operator policy", &["vhost", "name"]),
    ("exchanges", "exchange", &["vhost", "name"]),
    ("queues", "queue", &["vhost", "name"]),
    (
        "bindings",
        "binding",
        &[
            "vhost",
            "source",
            "destination_type",
            "destination",
            "routing_key",
            "arguments",
        ],
    ),
];

fn read(path: &str) -> Result<Value, Failure> {
    let text = Call::read(path)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(exit::DATA, format!("{path} is no JSON: {error}")))
}

/// Objects of a kind by their names.
fn named<'a>(all: &'a Value, list: &str, keys: &[&str]) -> BTreeMap<String, &'a Map<String, Value>> {
    let rows = all.get(list).and_then(Value::as_array).into_iter().flatten();
    rows.filter_map(Value::as_object)
        .map(|row| {
            let parts: Vec<String> = keys
                .iter()
                .filter_map(|key| row.get(*key))
                .map(cell)
                .filter(|part| part != "[]")
                .collect();
            (parts.join(" "), row)
        })
        .collect()
}

/// One difference: `+` only in the second, `-` only in the first, `~` other fields.
struct Difference {
    sign: char,
    kind: &'static str,
    name: String,
    fields: Vec<String>,
}

fn compare(first: &Value, second: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    for (list, kind, keys) in KINDS {
        let (left, right) = (named(first, list, keys), named(second, list, keys));
        for (name, row) in &left {
            let Some(other) = right.get(name) else {
                found.push(Difference {
                    sign: '-',
                    kind,
                    name: name.clone(),
                    fields: Vec::new(),
                });
                continue;
            };
            // A field that one side does not mention is not a difference.
            let fields: Vec<String> = row
                .iter()
                .filter_map(|(key, value)| {
                    let changed = other.get(key).filter(|other| *other != value)?;
                    let told = |value: &Value| {
                        if key.starts_with("password") {
                            "…".to_owned()
                        } else {
                            value.to_string()
                        }
                    };
                    Some(format!("{key}: {} -> {}", told(value), told(changed)))
                })
                .collect();
            if !fields.is_empty() {
                found.push(Difference {
                    sign: '~',
                    kind,
                    name: name.clone(),
                    fields,
                });
            }
        }
        for name in right.keys().filter(|name| !left.contains_key(*name)) {
            found.push(Difference {
                sign: '+',
                kind,
                name: name.clone(),
                fields: Vec::new(),
            });
        }
    }
    found
}

fn definitions(call: &mut Call) -> Result<Output, Failure> {
    if call.arg("diff") != "diff" {
        return Err(Failure::argument(exit::USAGE, "the first word is diff."));
    }
    let first = read(call.arg("file"))?;
    let second = if call.has("other") {
        read(call.arg("other"))?
    } else {
        call.client.get("/definitions")?
    };
    let found = compare(&first, &second);
    if found.is_empty() {
        return Ok(Output::Report {
            text: "No differences".to_owned(),
            json: json!([]),
        });
    }
    let text = if call.shape.format.is_json() {
        let rows = found.iter().map(|difference| {
            json!({
                "change": difference.sign.to_string(),
                "kind": difference.kind,
                "name": difference.name,
                "fields": difference.fields,
            })
        });
        format!("{}\n", rows.collect::<Value>())
    } else {
        let lines = found.iter().map(|difference| {
            let fields = difference.fields.join("; ");
            let colon = if fields.is_empty() { "" } else { ": " };
            format!(
                "{} {} {}{colon}{fields}\n",
                difference.sign, difference.kind, difference.name
            )
        });
        lines.collect()
    };
    crate::output::print(&text)?;
    Err(Failure::plain(DIFFERENT, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_on_one_side_and_what_changed() {
        let first = json!({"queues": [{"vhost": "/", "name": "a", "durable": true}, {"vhost": "/", "name": "b"}], "users": [{"name": "u", "password_hash": "x"}]});
        let second = json!({"queues": [{"vhost": "/", "name": "a", "durable": false, "extra": 1}, {"vhost": "v", "name": "b"}], "users": [{"name": "u", "password_hash": "y"}]});
        let told: Vec<String> = compare(&first, &second)
            .iter()
            .map(|difference| {
                format!(
                    "{} {} {} {}",
                    difference.sign,
                    difference.kind,
                    difference.name,
                    difference.fields.join(",")
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "~ user u password_hash: … -> …",
                "~ queue / a durable: true -> false",
                "- queue / b ",
                "+ queue v b ",
            ]
        );
        assert!(compare(&first, &first).is_empty());
    }
}
