//! Messages in queues: looked at without being consumed, found, moved, copied, deleted, and brought back from where dead
//! letters go.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{
    call::Call,
    client::segment,
    command::{Opt, Spec, switch, value},
    failure::{Failure, exit},
    interrupt::Interrupt,
    output::{Bar, Output, cell},
    program::tools::OURS,
};

const GROUP: &str = "Messages";

const EXCHANGE: Opt = value("exchange", "name", "published to this exchange");
const ROUTING_KEY: Opt = value("routing-key", "key", "with this routing key");
const HEADER: Opt = value("header", "name=value", "with this header");
const PROPERTY: Opt = value(
    "property",
    "name=value",
    "with this property, such as message_id=7",
);
const TEXT: Opt = value("text", "text", "with this text in the body");
const BYTES_MIN: Opt = value("bytes-min", "number", "with a body of so many bytes at least");
const BYTES_MAX: Opt = value("bytes-max", "number", "with a body of so many bytes at most");
const LIMIT: Opt = value("limit", "number", "so many at most");

/// Which messages.
const CHOICE: [Opt; 10] = [
    EXCHANGE,
    ROUTING_KEY,
    HEADER,
    PROPERTY,
    TEXT,
    BYTES_MIN,
    BYTES_MAX,
    value("redelivered", "true|false", "delivered before, or not"),
    value("state", "ready|waiting", "ready, or waiting for another attempt"),
    LIMIT,
];

/// Which dead letters, and how fast.
const REDRIVE: [Opt; 10] = [
    EXCHANGE,
    ROUTING_KEY,
    HEADER,
    PROPERTY,
    TEXT,
    BYTES_MIN,
    BYTES_MAX,
    LIMIT,
    value("rate", "number", "so many a second at most"),
    switch("dry", "only count what would go where"),
];

pub(super) static COMMANDS: [Spec; 6] = [
    Spec {
        name: "peek",
        tools: OURS,
        group: GROUP,
        args: "<queue>",
        options: &[
            value("limit", "number", "so many at most [default: 10]"),
            value(
                "from",
                "position",
                "begin at this position, which the last answer named",
            ),
        ],
        about: "Shows messages that wait in a queue, without consuming them",
        run: peek,
    },
    Spec {
        name: "search",
        tools: OURS,
        group: GROUP,
        args: "<queue>",
        options: &CHOICE,
        about: "Finds messages that wait in a queue, without consuming them",
        run: search,
    },
    Spec {
        name: "move",
        tools: OURS,
        group: GROUP,
        args: "<queue> <to>",
        options: &CHOICE,
        about: "Moves messages to another queue of the virtual host",
        run: move_messages,
    },
    Spec {
        name: "copy",
        tools: OURS,
        group: GROUP,
        args: "<queue> <to>",
        options: &CHOICE,
        about: "Copies messages to another queue of the virtual host",
        run: copy_messages,
    },
    Spec {
        name: "delete_messages",
        tools: OURS,
        group: GROUP,
        args: "<queue>",
        options: &CHOICE,
        about: "Deletes messages; needs a condition or a limit (purge_queue deletes all)",
        run: delete_messages,
    },
    Spec {
        name: "redrive",
        tools: OURS,
        group: GROUP,
        args: "<queue> [<to>]",
        options: &REDRIVE,
        about: "Brings dead letters back to the queues they died in, or to one queue; Ctrl-C ends it between two messages",
        run: redrive,
    },
];

/// Messages of one answer.
const PAGE: u64 = 100;
/// Between two looks at a job.
const LOOK: Duration = Duration::from_millis(100);

fn path(call: &Call) -> String {
    format!(
        "/leveret/queues/{}/{}",
        segment(call.vhost()),
        segment(call.arg("queue"))
    )
}

fn known(call: &Call, failure: Failure) -> Failure {
    let queue = format!("/queues/{}/{}", segment(call.vhost()), segment(call.arg("queue")));
    if failure.is_missing() && call.client.get(&queue).is_ok() {
        return Failure::unavailable("this broker's version cannot look into queues");
    }
    if failure.is_missing() {
        let text = format!("no queue '{}' in vhost '{}'", call.arg("queue"), call.vhost());
        return Failure::unavailable(text);
    }
    failure
}

fn number(call: &Call, option: &str) -> Result<Option<u64>, Failure> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_no_number| Failure::argument(exit::USAGE, format!("--{option} is a number.")))
    };
    call.option(option).map(parse).transpose()
}

/// The conditions, as the broker takes them.
fn filter(call: &Call) -> Result<Map<String, Value>, Failure> {
    let mut filter = Map::new();
    for (option, key) in [
        ("exchange", "exchange"),
        ("routing-key", "routing_key"),
        ("text", "text"),
    ] {
        if let Some(text) = call.option(option) {
            filter.insert(key.to_owned(), text.into());
        }
    }
    for (option, key) in [("bytes-min", "bytes_min"), ("bytes-max", "bytes_max")] {
        if let Some(number) = number(call, option)? {
            filter.insert(key.to_owned(), number.into());
        }
    }
    for (option, key) in [("header", "headers"), ("property", "properties")] {
        if let Some(text) = call.option(option) {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Failure::argument(exit::USAGE, format!("--{option} looks like name=value."))
            })?;
            filter.insert(key.to_owned(), json!({ name: value }));
        }
    }
    if call.spec.name != "redrive"
        && let Some(text) = call.option("redelivered")
    {
        filter.insert("redelivered".to_owned(), (text == "true").into());
    }
    if call.spec.name != "redrive"
        && let Some(text) = call.option("state")
    {
        filter.insert("state".to_owned(), text.into());
    }
    Ok(filter)
}

/// The conditions as a query.
fn query(filter: &Map<String, Value>) -> String {
    let mut query = String::new();
    for (key, value) in filter {
        if let Value::Object(pairs) = value {
            let prefix = if key == "headers" { "header" } else { "property" };
            for (name, value) in pairs {
                query.push_str(&format!("&{prefix}.{}={}", segment(name), segment(&cell(value))));
            }
        } else {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), ToOwned::to_owned);
            query.push_str(&format!("&{key}={}", segment(&text)));
        }
    }
    query
}

/// One message in a line.
fn line(message: &Value) -> String {
    let text = |key: &str| message.get(key).map(cell).unwrap_or_default();
    let exchange = text("exchange");
    let redelivered = message.get("redelivered") == Some(&Value::Bool(true));
    let due = text("due");
    let waits = if due.is_empty() {
        due
    } else {
        format!(" waits until {due}")
    };
    format!(
        "{}\t{}\t{}\t{}{}{waits}\t{}",
        text("position"),
        if exchange.is_empty() {
            "(default)"
        } else {
            &exchange
        },
        text("routing_key"),
        text("payload_bytes"),
        if redelivered { " redelivered" } else { "" },
        text("payload")
    )
}

fn show(call: &Call, messages: &[Value], next: &Value) -> Output {
    if call.shape.format.is_json() {
        let lines: String = messages.iter().map(|message| format!("{message}\n")).collect();
        return Output::Document(if messages.is_empty() { String::new() } else { lines });
    }
    let mut lines: Vec<String> = messages.iter().map(line).collect();
    if let Some(next) = next.as_str()
        && !call.shape.quiet
    {
        lines.push(format!("(more from {next})"));
    }
    if lines.is_empty() {
        Output::Silent
    } else {
        Output::sentence(lines.join("\n"))
    }
}

fn peek(call: &mut Call) -> Result<Output, Failure> {
    let limit = number(call, "limit")?.unwrap_or(10);
    let from = call.option("from").map(|from| format!("&from={}", segment(from)));
    let path = format!(
        "{}/messages?limit={limit}{}",
        path(call),
        from.unwrap_or_default()
    );
    call.banner(format!(
        "Messages of queue '{}' in vhost '{}' ...",
        call.arg("queue"),
        call.vhost()
    ));
    let page = call.client.get(&path).map_err(|failure| known(call, failure))?;
    let messages = page
        .get("items")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    Ok(show(
        call,
        &messages,
        &page.get("next").cloned().unwrap_or_default(),
    ))
}

fn search(call: &mut Call) -> Result<Output, Failure> {
    let limit = number(call, "limit")?.unwrap_or(u64::MAX);
    let conditions = query(&filter(call)?);
    call.banner(format!(
        "Searching queue '{}' in vhost '{}' ...",
        call.arg("queue"),
        call.vhost()
    ));
    let mut found: Vec<Value> = Vec::new();
    let mut from = String::new();
    loop {
        let left = limit.saturating_sub(found.len() as u64);
        let path = format!(
            "{}/messages?limit={}{conditions}{from}",
            path(call),
            left.clamp(1, PAGE)
        );
        let page = call.client.get(&path).map_err(|failure| known(call, failure))?;
        found.extend(
            page.get("items")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
        );
        let next = page.get("next").and_then(Value::as_str);
        match next {
            Some(next) if (found.len() as u64) < limit => from = format!("&from={}", segment(next)),
            _ => return Ok(show(call, &found, &Value::Null)),
        }
    }
}

/// Messages of one order to the broker: an interrupted command has carried out whole orders.
const BATCH: u64 = 1000;

/// Moves, copies or deletes in batches until nothing is left to do.
fn change(call: &mut Call, verb: &str, done: &str) -> Result<Output, Failure> {
    let filter = filter(call)?;
    let asked = number(call, "limit")?;
    if verb == "delete" && filter.is_empty() && asked.is_none() {
        return Err(Failure::argument(
            exit::USAGE,
            "say which messages, or how many with --limit.",
        ));
    }
    let limit = asked.unwrap_or(u64::MAX);
    let mut interrupt = Interrupt::listen().map_err(|error| Failure::io("signals", &error))?;
    let path = format!("{}/messages/{verb}", path(call));
    let (mut total, mut refused) = (0, 0);
    let mut interrupted = false;
    while total < limit && !interrupted {
        // A copy begins at the front each time: it must be one order.
        let batch = if verb == "copy" {
            limit
        } else {
            BATCH.min(limit - total)
        };
        let mut body = json!({"filter": filter, "limit": batch});
        if verb != "delete"
            && let Value::Object(body) = &mut body
        {
            body.insert("to".to_owned(), call.arg("to").into());
        }
        let outcome = call
            .client
            .post(&path, &body)
            .map_err(|failure| match &failure.reason {
                Some(refusal) if refusal.reason.starts_with("no queue") => failure,
                _ => known(call, failure),
            })?;
        let count = |key: &str| outcome.get(key).and_then(Value::as_u64).unwrap_or(0);
        total += count("done");
        refused += count("refused");
        if count("done") == 0 || verb == "copy" {
            break;
        }
        interrupted = total < limit && interrupt.wait(Duration::ZERO);
    }
    let beside = if refused > 0 {
        format!(", {refused} refused by the target")
    } else {
        String::new()
    };
    let mut fields = Map::new();
    fields.insert("done".to_owned(), total.into());
    fields.insert("refused".to_owned(), refused.into());
    ended(
        call,
        Output::Sentence(format!("{total} messages {done}{beside}"), fields),
        interrupted,
    )
}

/// What was done is told of an interrupted command too.
fn ended(call: &Call, outcome: Output, interrupted: bool) -> Result<Output, Failure> {
    if interrupted {
        call.show(outcome)?;
        return Err(Failure::interrupted());
    }
    Ok(outcome)
}

fn move_messages(call: &mut Call) -> Result<Output, Failure> {
    change(call, "move", "moved")
}

fn copy_messages(call: &mut Call) -> Result<Output, Failure> {
    change(call, "copy", "copied")
}

fn delete_messages(call: &mut Call) -> Result<Output, Failure> {
    change(call, "delete", "deleted")
}

fn redrive(call: &mut Call) -> Result<Output, Failure> {
    let mut body = json!({"filter": filter(call)?, "dry_run": call.switch("dry")});
    if let Value::Object(body) = &mut body {
        for option in ["limit", "rate"] {
            if let Some(number) = number(call, option)? {
                body.insert(option.to_owned(), number.into());
            }
        }
        if call.has("to") {
            body.insert("to".to_owned(), call.arg("to").into());
        }
    }
    let mut interrupt = Interrupt::listen().map_err(|error| Failure::io("signals", &error))?;
    let queue = format!(
        "/queues/{}/{}?disable_stats=true&enable_queue_totals=true",
        segment(call.vhost()),
        segment(call.arg("queue"))
    );
    let whole = call.client.get(&queue).map_err(|failure| known(call, failure))?;
    let whole = whole.get("messages_ready").and_then(Value::as_u64).unwrap_or(0);
    let job = call.client.post(&format!("{}/redrive", path(call)), &body)?;
    let mut bar = Bar::new(call.shape.quiet);
    let id = job.get("id").map(Value::to_string).unwrap_or_default();
    let job = loop {
        let job = call.client.get(&format!("/leveret/jobs/{id}"))?;
        let scanned = job.get("scanned").and_then(Value::as_u64).unwrap_or(0);
        bar.show(scanned, whole, "");
        if job.get("state").and_then(Value::as_str) != Some("running") {
            break job;
        }
        if interrupt.wait(LOOK) {
            call.client.delete(&format!("/leveret/jobs/{id}"))?;
        }
    };
    bar.end();
    let text = |key: &str| job.get(key).map(cell).unwrap_or_default();
    if text("state") == "failed" {
        return Err(Failure::unavailable(format!(
            "{} messages were moved, then: {}",
            text("moved"),
            text("reason")
        )));
    }
    let mut lines = vec![format!(
        "{}: {} messages looked at, {} meant, {} moved, {} without a target, {} refused",
        text("state"),
        text("scanned"),
        text("matched"),
        text("moved"),
        text("no_target"),
        text("refused")
    )];
    for (queue, count) in job
        .get("targets")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        lines.push(format!("{count} to '{queue}'"));
    }
    let stopped = text("state") == "cancelled";
    let report = Output::Report {
        text: lines.join("\n"),
        json: job,
    };
    ended(call, report, stopped)
}
