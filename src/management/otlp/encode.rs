//! Spans in OTLP's JSON encoding: `ExportTraceServiceRequest` of opentelemetry-proto. Numbers of 64 bits are strings,
//! identifiers are hexadecimal.

use serde_json::{Value, json};

use crate::server::{Attribute, Span, in_hex};

/// `SpanKind`: a publish answers a producer's request, a deliver is where a consumer's work begins, the rest is ours.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const PRODUCER: u8 = 4;

/// Who sends spans.
pub(super) fn resource(service_name: &str, node: &str) -> Value {
    let text = |value: &str| Attribute::Text(value.to_owned());
    json!({"attributes": [
        attribute("service.name", &text(service_name)),
        attribute("service.version", &text(env!("CARGO_PKG_VERSION"))),
        attribute("service.instance.id", &text(node)),
    ]})
}

/// The body of a request that exports spans.
pub(super) fn request(resource: &Value, spans: &[Span]) -> Value {
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let scope = json!({"name": "leveret", "version": env!("CARGO_PKG_VERSION")});
    json!({"resourceSpans": [{
        "resource": resource,
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }]})
}

fn span(span: &Span) -> Value {
    let kind = match span.operation {
        "publish" => SERVER,
        "deliver" => PRODUCER,
        _ => INTERNAL,
    };
    let at = if span.destination.is_empty() {
        "amq.default"
    } else {
        &span.destination
    };
    let mut attributes = vec![attribute(
        "messaging.destination.name",
        &Attribute::Text(at.to_owned()),
    )];
    attributes.extend(span.attributes.iter().map(|(key, value)| attribute(key, value)));
    let mut shown = json!({
        "traceId": in_hex(&span.trace_id),
        "spanId": in_hex(&span.span_id),
        "name": format!("{} {at}", span.operation),
        "kind": kind,
        "startTimeUnixNano": span.start_ns.to_string(),
        "endTimeUnixNano": span.end_ns.to_string(),
        "attributes": attributes,
    });
    if let Some(fields) = shown.as_object_mut() {
        if let Some(parent) = &span.parent {
            fields.insert("parentSpanId".to_owned(), in_hex(parent).into());
        }
        if !span.state.is_empty() {
            fields.insert("traceState".to_owned(), span.state.as_str().into());
        }
    }
    shown
}

fn attribute(key: &str, value: &Attribute) -> Value {
    json!({"key": key, "value": any_value(value)})
}

fn any_value(value: &Attribute) -> Value {
    let text = |text: &str| json!({"stringValue": text});
    match value {
        Attribute::Text(value) => text(value),
        Attribute::Number(value) => json!({"intValue": value.to_string()}),
        Attribute::Texts(values) => {
            let values: Vec<Value> = values.iter().map(|value| text(value)).collect();
            json!({"arrayValue": {"values": values}})
        }
    }
}

/// How many spans a collector did not take although it answered 200.
pub(super) fn refused(answer: &[u8]) -> usize {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    match answer.pointer("/partialSuccess/rejectedSpans") {
        Some(Value::String(digits)) => digits.parse().unwrap_or(0),
        Some(number) => number
            .as_u64()
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(0),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_the_protocol_has_it() {
        let span = Span {
            trace_id: [0xab; 16],
            span_id: [1; 8],
            parent: Some([2; 8]),
            state: "a=b".to_owned(),
            operation: "publish",
            destination: String::new(),
            start_ns: 1,
            end_ns: u64::MAX,
            attributes: vec![
                ("n", Attribute::Number(5)),
                ("l", Attribute::Texts(vec!["x".to_owned()])),
            ],
        };
        let body = request(&resource("s", "n@h"), std::slice::from_ref(&span));
        let written = body.pointer("/resourceSpans/0/scopeSpans/0/spans/0").unwrap();
        let name = json!({"key": "messaging.destination.name", "value": {"stringValue": "amq.default"}});
        let expected = json!({
            "traceId": "ab".repeat(16), "spanId": "01".repeat(8), "parentSpanId": "02".repeat(8),
            "traceState": "a=b", "name": "publish amq.default", "kind": 2,
            "startTimeUnixNano": "1", "endTimeUnixNano": "18446744073709551615",
            "attributes": [name, {"key": "n", "value": {"intValue": "5"}},
                {"key": "l", "value": {"arrayValue": {"values": [{"stringValue": "x"}]}}}],
        });
        assert_eq!(written, &expected);
    }

    #[test]
    fn a_partial_success_says_how_many_were_refused() {
        assert_eq!(refused(b"{}"), 0);
        assert_eq!(refused(b"<html>"), 0);
        assert_eq!(refused(br#"{"partialSuccess":{"rejectedSpans":"3"}}"#), 3);
        assert_eq!(refused(br#"{"partialSuccess":{"rejectedSpans":4}}"#), 4);
    }
}
