//! Why a queue is as it is: every setting that is in force, and where it comes from.

use serde_json::{Map, Value, json};

use crate::{
    call::Call,
    client::segment,
    command::Spec,
    failure::Failure,
    output::{Output, cell},
    program::tools::OURS,
};

pub(super) static COMMANDS: [Spec; 1] = [Spec {
    name: "explain",
    tools: OURS,
    group: "Queues",
    args: "<queue>",
    options: &[],
    about: "Every effective setting of a queue and where it comes from, and what its messages wait for",
    run: explain,
}];

/// How argument and policy make one value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Of two numbers the smaller holds.
    Smaller,
    /// The argument, or else the policy.
    Argument,
    /// The policy, or else the argument.
    Policy,
    /// Policies do not know it.
    ArgumentOnly,
}

/// Settings, their rule, and what holds when nobody says otherwise.
const SETTINGS: [(&str, Rule, &str); 15] = [
    ("message-ttl", Rule::Smaller, "messages do not expire"),
    ("expires", Rule::Smaller, "the queue does not expire"),
    ("max-length", Rule::Smaller, "no limit"),
    ("max-length-bytes", Rule::Smaller, "no limit"),
    ("overflow", Rule::Argument, "drop-head"),
    (
        "dead-letter-exchange",
        Rule::Argument,
        "none: what is dropped is gone",
    ),
    ("dead-letter-routing-key", Rule::Argument, "the message's own"),
    ("dead-letter-strategy", Rule::Argument, "at-most-once"),
    ("delivery-limit", Rule::Smaller, "no limit"),
    ("consumer-timeout", Rule::Smaller, "the broker's"),
    ("delayed-retry-type", Rule::Policy, "disabled"),
    ("delayed-retry-min", Rule::Smaller, "none"),
    ("delayed-retry-max", Rule::Smaller, "none"),
    ("max-priority", Rule::ArgumentOnly, "no priorities"),
    ("single-active-consumer", Rule::ArgumentOnly, "false"),
];

/// Name and definition.
type Policy = (String, Map<String, Value>);

/// The policies that are in force on a queue.
struct Policies {
    user: Option<Policy>,
    operator: Option<Policy>,
}

impl Policies {
    fn of(call: &Call, queue: &Value) -> Result<Self, Failure> {
        let read = |field: &str, kind: &str| -> Result<Option<Policy>, Failure> {
            let Some(name) = queue.get(field).and_then(Value::as_str) else {
                return Ok(None);
            };
            let path = format!("/{kind}/{}/{}", segment(call.vhost()), segment(name));
            let policy = call.client.get(&path)?;
            let definition = policy.get("definition").and_then(Value::as_object).cloned();
            Ok(Some((name.to_owned(), definition.unwrap_or_default())))
        };
        Ok(Self {
            user: read("policy", "policies")?,
            operator: read("operator_policy", "operator-policies")?,
        })
    }

    /// What policies say of a setting, the stronger first, each with its origin.
    fn say(&self, key: &str) -> Vec<(Value, String)> {
        let mut found = Vec::new();
        for (policy, kind) in [(&self.operator, "operator policy"), (&self.user, "policy")] {
            if let Some((name, definition)) = policy
                && let Some(value) = definition.get(key)
            {
                found.push((value.clone(), format!("{kind} {name}")));
            }
        }
        found
    }
}

/// The value in force and its origin; and what was said besides.
fn effective(
    key: &str,
    rule: Rule,
    quorum: bool,
    arguments: &Value,
    policies: &Policies,
) -> Option<(Value, String)> {
    let argument = arguments
        .get(format!("x-{key}"))
        .map(|value| (value.clone(), format!("argument x-{key}")));
    let mut said = match rule {
        Rule::ArgumentOnly => Vec::new(),
        _ => policies.say(key),
    };
    let argument_first =
        rule == Rule::ArgumentOnly || (rule == Rule::Argument && !(key == "overflow" && quorum));
    if argument_first {
        said.splice(0..0, argument);
    } else {
        said.extend(argument);
    }
    if rule == Rule::Smaller {
        said.sort_by_key(|(value, _)| {
            value
                .as_i64()
                .map_or(i64::MAX, |number| if number < 0 { i64::MAX } else { number })
        });
    }
    let others: Vec<String> = said
        .iter()
        .skip(1)
        .map(|(value, origin)| format!("{origin} says {}", cell(value)))
        .collect();
    let (value, origin) = said.into_iter().next()?;
    let beside = if others.is_empty() {
        String::new()
    } else {
        format!(" ({})", others.join(", "))
    };
    Some((value, format!("{origin}{beside}")))
}

fn explain(call: &mut Call) -> Result<Output, Failure> {
    let name = call.arg("queue").to_owned();
    let path = format!("/queues/{}/{}", segment(call.vhost()), segment(&name));
    let queue = call.client.get(&path).map_err(|failure| {
        if failure.is_missing() {
            Failure::unavailable(format!("no queue '{name}' in vhost '{}'", call.vhost()))
        } else {
            failure
        }
    })?;
    let policies = Policies::of(call, &queue)?;
    let text = |key: &str| queue.get(key).map(cell).unwrap_or_default();
    let quorum = text("type") == "quorum";
    let arguments = queue.get("arguments").cloned().unwrap_or_default();
    let mut rows: Vec<(String, Value, String)> = ["type", "durable", "auto_delete", "exclusive"]
        .map(|key| {
            (
                key.to_owned(),
                queue.get(key).cloned().unwrap_or_default(),
                "as declared".to_owned(),
            )
        })
        .into();
    for (key, rule, default) in SETTINGS {
        let found = effective(key, rule, quorum, &arguments, &policies);
        let default = if key == "delivery-limit" && quorum {
            "20"
        } else {
            default
        };
        let (value, origin) = found.unwrap_or_else(|| {
            let value = if default == "false" {
                false.into()
            } else {
                default.into()
            };
            (value, "default".to_owned())
        });
        rows.push((key.to_owned(), value, origin));
    }
    let state = state(&queue);
    let width = rows.iter().map(|(key, ..)| key.len()).max().unwrap_or(0);
    let values = rows
        .iter()
        .map(|(_, value, _)| cell(value).chars().count())
        .max()
        .unwrap_or(0);
    let mut lines = vec![
        format!("Queue '{name}' in vhost '{}'", call.vhost()),
        String::new(),
    ];
    for (key, value, origin) in &rows {
        lines.push(format!("{key:<width$}  {:<values$}  {origin}", cell(value)));
    }
    lines.push(String::new());
    lines.extend(state.iter().cloned());
    let settings: Vec<Value> = rows
        .into_iter()
        .map(|(key, value, origin)| json!({"setting": key, "value": value, "origin": origin}))
        .collect();
    Ok(Output::Report {
        text: lines.join("\n"),
        json: json!({"queue": name, "vhost": call.vhost(), "settings": settings, "state": state}),
    })
}

/// What its messages wait for.
fn state(queue: &Value) -> Vec<String> {
    let number = |key: &str| queue.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (ready, unacked, consumers) = (
        number("messages_ready"),
        number("messages_unacknowledged"),
        number("consumers"),
    );
    let mut lines = vec![format!(
        "{ready} messages are ready, {unacked} wait for their ack; {consumers} consumers"
    )];
    let details = queue
        .get("consumer_details")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let prefetch = |consumer: &Value| {
        consumer
            .get("prefetch_count")
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    let bounded: u64 = details.iter().map(prefetch).sum();
    let all_bounded = !details.is_empty() && details.iter().all(|consumer| prefetch(consumer) > 0);
    if ready > 0 && consumers == 0 {
        lines.push("Nobody consumes: messages stay until somebody does".to_owned());
    } else if ready > 0 && all_bounded && unacked >= bounded {
        lines.push(format!(
            "Every consumer has as many unacked messages as its prefetch allows ({bounded} together): \
             the next delivery waits for an ack"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_word_is_told_with_its_origin() {
        let policy = |name: &str, definition: Value| {
            Some((
                name.to_owned(),
                definition.as_object().cloned().unwrap_or_default(),
            ))
        };
        let policies = Policies {
            user: policy("p", json!({"max-length": 20, "overflow": "reject-publish"})),
            operator: policy("op", json!({"max-length": 15})),
        };
        let arguments = json!({"x-max-length": 10, "x-overflow": "drop-head", "x-max-priority": 5});
        let told = |key: &str, rule, quorum| {
            let (value, origin) = effective(key, rule, quorum, &arguments, &policies).unwrap();
            format!("{} {origin}", cell(&value))
        };
        assert_eq!(
            told("max-length", Rule::Smaller, false),
            "10 argument x-max-length (operator policy op says 15, policy p says 20)"
        );
        assert_eq!(
            told("overflow", Rule::Argument, false),
            "drop-head argument x-overflow (policy p says reject-publish)"
        );
        assert_eq!(
            told("overflow", Rule::Argument, true),
            "reject-publish policy p (argument x-overflow says drop-head)"
        );
        assert_eq!(
            told("max-priority", Rule::ArgumentOnly, false),
            "5 argument x-max-priority"
        );
        assert!(effective("expires", Rule::Smaller, false, &arguments, &policies).is_none());
    }
}
