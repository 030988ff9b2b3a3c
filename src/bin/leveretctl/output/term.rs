//! Values in text: as RabbitMQ's tools write them, so that scripts which cut columns out of them go on working.

use serde_json::{Value, json};

/// A cell of a table. Tables of arguments are lists of pairs; line breaks and tabs are escaped, so that a row stays a row.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        Value::Array(values) => {
            let parts: Vec<String> = values.iter().map(inner).collect();
            format!("[{}]", parts.join(", "))
        }
        Value::Object(_) => inner(value),
        other => other.to_string(),
    }
}

/// A value inside of a list.
fn inner(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        Value::Object(object) => {
            let pair = |(key, value): (&String, &Value)| format!("{{\"{}\",{}}}", escape(key), quoted(value));
            let parts: Vec<String> = object.iter().map(pair).collect();
            format!("[{}]", parts.join(","))
        }
        other => cell(other),
    }
}

/// A value inside of a pair.
fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", escape(text)),
        Value::Array(values) => {
            let parts: Vec<String> = values.iter().map(quoted).collect();
            format!("[{}]", parts.join(","))
        }
        other => inner(other),
    }
}

/// What would break a row or drive a terminal.
fn escape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => plain.push_str("\\n"),
            '\t' => plain.push_str("\\t"),
            '\r' => plain.push_str("\\r"),
            control if control.is_control() => plain.extend(control.escape_default()),
            other => plain.push(other),
        }
    }
    plain
}

/// A table of arguments as RabbitMQ's JSON has it: name, type and value.
pub(crate) fn typed(value: &Value) -> Value {
    let Value::Object(object) = value else {
        return value.clone();
    };
    let entry = |(key, value): (&String, &Value)| json!([key, kind(value), content(value)]);
    object.iter().map(entry).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "void",
        Value::Bool(_) => "bool",
        Value::Number(number) => match number.as_i64() {
            Some(integer) if i32::try_from(integer).is_ok() => "signedint",
            Some(_) => "long",
            None => "double",
        },
        Value::String(_) => "longstr",
        Value::Array(_) => "array",
        Value::Object(_) => "table",
    }
}

fn content(value: &Value) -> Value {
    match value {
        Value::Object(_) => typed(value),
        Value::Array(values) => values
            .iter()
            .map(|value| json!([kind(value), content(value)]))
            .collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_written_as_scripts_expect() {
        for (value, expected) in [
            (json!("plain"), "plain"),
            (
                json!("two\nlines\tand \u{1b}[31mred"),
                "two\\nlines\\tand \\u{1b}[31mred",
            ),
            (json!(null), ""),
            (json!(true), "true"),
            (json!(12), "12"),
            (json!([]), "[]"),
            (json!(["administrator", "x"]), "[administrator, x]"),
            (json!({}), "[]"),
            (
                json!({"x-max-length": 10, "x-dead-letter-exchange": "dlx"}),
                "[{\"x-dead-letter-exchange\",\"dlx\"},{\"x-max-length\",10}]",
            ),
            (json!({"t": {"a": [1, "b"]}}), "[{\"t\",[{\"a\",[1,\"b\"]}]}]"),
        ] {
            assert_eq!(cell(&value), expected);
        }
    }

    #[test]
    fn arguments_in_json_have_their_types() {
        assert_eq!(
            typed(&json!({"a": 1, "b": "x", "c": {"d": true}, "e": 5_000_000_000_u64})),
            json!([
                ["a", "signedint", 1],
                ["b", "longstr", "x"],
                ["c", "table", [["d", "bool", true]]],
                ["e", "long", 5_000_000_000_u64]
            ])
        );
    }
}
