//! AMQP values as JSON and back (amqp-behaviour 7.7, management-api 5).

use bytes::Bytes;
use serde_json::{Map, Number, Value};

use crate::management::answer::ApiError;
use crate::protocol::field::{FieldTable, FieldValue, ShortString};

/// A table as a JSON object. Of a key that comes twice, the first counts.
pub(super) fn table(table: &FieldTable) -> Value {
    let mut object = Map::new();
    for (key, value) in table.iter() {
        object.entry(text(key.as_bytes())).or_insert_with(|| field(value));
    }
    Value::Object(object)
}

/// Bytes as text; what is not UTF-8 shows as replacement characters.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Tables nest no deeper than the protocol's parser lets them.
pub(super) fn field(value: &FieldValue) -> Value {
    let float = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
    match value {
        FieldValue::Bool(value) => (*value).into(),
        FieldValue::F32(value) => float((*value).into()),
        FieldValue::F64(value) => float(*value),
        FieldValue::Decimal { scale, value } => float(f64::from(*value) / 10_f64.powi((*scale).into())),
        FieldValue::LongString(bytes) | FieldValue::Bytes(bytes) => text(bytes).into(),
        FieldValue::Array(values) => Value::Array(values.iter().map(field).collect()),
        FieldValue::Table(inner) => table(inner),
        FieldValue::Timestamp(seconds) => (*seconds).into(),
        FieldValue::Void => Value::Null,
        integer => integer.as_integer().map_or(Value::Null, Value::from),
    }
}

/// Deeper than this no arguments are taken: the wire's parser would refuse them too.
const DEPTH_MAX: usize = 32;

/// A flag of a body: a boolean or its word; `default` when absent.
///
/// # Errors
/// 400.
pub(super) fn flag(object: &Map<String, Value>, key: &str, default: bool) -> Result<bool, ApiError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(word)) if word == "true" => Ok(true),
        Some(Value::String(word)) if word == "false" => Ok(false),
        Some(other) => Err(ApiError::bad_request(format!("not_boolean: {other}"))),
    }
}

/// The text of a body's field.
///
/// # Errors
/// 400 when it is something else.
pub(super) fn text_field<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, ApiError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::bad_request(format!("{key} should be a string"))),
    }
}

/// The `arguments` of a body.
///
/// # Errors
/// 400.
pub(super) fn arguments(object: &Map<String, Value>) -> Result<FieldTable, ApiError> {
    object.get("arguments").map_or(Ok(FieldTable::new()), |value| {
        to_table(value).map_err(ApiError::bad_request)
    })
}

/// A name that a path gives to something new.
///
/// # Errors
/// 400 when AMQP could not carry it.
pub(super) fn new_name(name: &str) -> Result<&str, ApiError> {
    if name.is_empty() || name.len() > 255 {
        return Err(ApiError::bad_request("a name must have 1 to 255 bytes"));
    }
    if name.contains(['\0', '\r', '\n']) {
        return Err(ApiError::bad_request(
            "a name must not contain NUL or line breaks",
        ));
    }
    Ok(name)
}

/// An object as a table: integers are `long`, other numbers `double`, text `longstr`. An empty array counts as an empty
/// object, because older clients send it.
///
/// # Errors
/// What cannot be expressed, in words.
pub(super) fn to_table(value: &Value) -> Result<FieldTable, String> {
    match value {
        Value::Array(values) if values.is_empty() => Ok(FieldTable::new()),
        Value::Null => Ok(FieldTable::new()),
        value => to_table_at(value, 0),
    }
}

fn to_table_at(value: &Value, depth: usize) -> Result<FieldTable, String> {
    let Value::Object(object) = value else {
        return Err("arguments should be an object".to_owned());
    };
    let entry = |(key, value): (&String, &Value)| {
        let key = ShortString::try_from(key.as_bytes())
            .map_err(|_long| "a key is longer than 255 bytes".to_owned())?;
        Ok((key, to_field(value, depth + 1)?))
    };
    object.iter().map(entry).collect()
}

fn to_field(value: &Value, depth: usize) -> Result<FieldValue, String> {
    if depth > DEPTH_MAX {
        return Err(format!("nested deeper than {DEPTH_MAX}"));
    }
    Ok(match value {
        Value::Null => return Err("null is no AMQP value here".to_owned()),
        Value::Bool(value) => FieldValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => FieldValue::I64(integer),
            (None, Some(float)) if !number.is_u64() => FieldValue::F64(float),
            _ => return Err(format!("{number} is too large")),
        },
        Value::String(text) => FieldValue::LongString(Bytes::copy_from_slice(text.as_bytes())),
        Value::Array(values) => FieldValue::Array(
            values
                .iter()
                .map(|value| to_field(value, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(_) => FieldValue::Table(to_table_at(value, depth)?),
    })
}

/// A moment as RFC 3339 has it, in milliseconds since 1970.
pub(super) fn moment(at_ms: u64) -> String {
    const DAY_S: u64 = 86_400;
    let (seconds, millis) = (at_ms / 1000, at_ms % 1000);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // Days are counted from the first of March of the year 0: leap days then end their years.
    let days = seconds / DAY_S + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}+00:00")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_survive_the_way_to_amqp_and_back() {
        let arguments = json!({"a": 1, "b": "x", "c": true, "d": [1.5, "y"], "e": {"f": -3}});
        assert_eq!(table(&to_table(&arguments).unwrap()), arguments);
        assert!(to_table(&json!([])).unwrap().is_empty());
        assert!(to_table(&json!({"a": null})).is_err());
        assert!(to_table(&json!({"a": u64::MAX})).is_err());
        assert!(to_table(&json!("text")).is_err());
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        assert!(to_table(&json!({ "deep": deep })).is_err());
    }

    #[test]
    fn a_moment_is_a_date_and_a_time() {
        for (at_ms, text) in [
            (0, "1970-01-01T00:00:00.000+00:00"),
            (951_782_400_000, "2000-02-29T00:00:00.000+00:00"),
            (951_868_800_001, "2000-03-01T00:00:00.001+00:00"),
            (1_704_067_199_999, "2023-12-31T23:59:59.999+00:00"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000+00:00"),
        ] {
            assert_eq!(moment(at_ms), text);
        }
    }
}
