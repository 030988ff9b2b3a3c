//! The definitions of a RabbitMQ, as far as this broker takes them. What it leaves out is told.

use serde_json::{Map, Value};

/// Keys of policies that are about mirrors, which a broker on one node has none of.
const MIRRORS: &str = "ha-";

/// Takes out what this broker refuses; a sentence for each.
pub(super) fn adapt(definitions: &mut Value, vhost: Option<&str>) -> Vec<String> {
    let mut notes = Vec::new();
    let streams = streams(definitions, vhost, &mut notes);
    if let Some(bindings) = rows(definitions, "bindings") {
        bindings.retain(|binding| {
            let to = (place(binding, vhost), text(binding, "destination"));
            text(binding, "destination_type") != "queue" || !streams.contains(&to)
        });
    }
    for (kind, name) in [("policies", "policy"), ("operator_policies", "operator policy")] {
        if let Some(policies) = rows(definitions, kind) {
            policies.retain_mut(|policy| without_mirrors(policy, name, vhost, &mut notes));
        }
    }
    notes
}

/// Takes streams out; their vhosts and names.
fn streams(definitions: &mut Value, vhost: Option<&str>, notes: &mut Vec<String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Some(queues) = rows(definitions, "queues") else {
        return found;
    };
    queues.retain(|queue| {
        let kind = queue
            .get("arguments")
            .and_then(|arguments| arguments.get("x-queue-type"));
        let is_stream = kind.and_then(Value::as_str) == Some("stream");
        if is_stream {
            found.push((place(queue, vhost), text(queue, "name")));
        }
        !is_stream
    });
    for (vhost, name) in &found {
        notes.push(format!(
            "stream '{name}' in vhost '{vhost}' stays: this broker has no streams yet"
        ));
    }
    found
}

/// A policy without its keys about mirrors; false when nothing is left of it.
fn without_mirrors(policy: &mut Value, kind: &str, vhost: Option<&str>, notes: &mut Vec<String>) -> bool {
    let (name, vhost) = (text(policy, "name"), place(policy, vhost));
    let Some(Value::Object(definition)) = policy.get_mut("definition") else {
        return true;
    };
    let before = definition.len();
    definition.retain(|key, _| !key.starts_with(MIRRORS));
    if definition.len() == before {
        return true;
    }
    let left = !definition.is_empty();
    notes.push(format!(
        "{kind} '{name}' in vhost '{vhost}' {}: there is one node, and nothing to mirror to",
        if left {
            "loses its ha- keys"
        } else {
            "stays, because it has only ha- keys"
        }
    ));
    left
}

fn rows<'a>(definitions: &'a mut Value, kind: &str) -> Option<&'a mut Vec<Value>> {
    definitions.get_mut(kind)?.as_array_mut()
}

fn text(row: &Value, key: &str) -> String {
    row.get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// The vhost of a row: definitions of one vhost do not repeat it.
fn place(row: &Value, vhost: Option<&str>) -> String {
    vhost.map_or_else(|| text(row, "vhost"), ToOwned::to_owned)
}

/// How many there are of each kind.
pub(super) fn count(definitions: &Value) -> Map<String, Value> {
    let kinds = definitions.as_object().into_iter().flatten();
    kinds
        .filter_map(|(kind, rows)| Some((kind.clone(), rows.as_array()?.len().into())))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn streams_and_mirrors_stay_behind() {
        let mut definitions = json!({
            "queues": [
                {"vhost": "/", "name": "s", "arguments": {"x-queue-type": "stream"}},
                {"vhost": "/", "name": "q", "arguments": {}},
                {"vhost": "v", "name": "s", "arguments": {}}],
            "bindings": [
                {"vhost": "/", "source": "e", "destination": "s", "destination_type": "queue"},
                {"vhost": "/", "source": "e", "destination": "s", "destination_type": "exchange"},
                {"vhost": "v", "source": "e", "destination": "s", "destination_type": "queue"}],
            "policies": [
                {"vhost": "/", "name": "ha", "definition": {"ha-mode": "all"}},
                {"vhost": "/", "name": "both", "definition": {"ha-mode": "all", "max-length": 5}}]
        });
        let notes = adapt(&mut definitions, None);
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert_eq!(
            count(&definitions),
            *json!({"queues": 2, "bindings": 2, "policies": 1})
                .as_object()
                .unwrap()
        );
        assert_eq!(definitions["policies"][0]["definition"], json!({"max-length": 5}));
        assert_eq!(adapt(&mut definitions, None), Vec::<String>::new());
    }
}
