//! Messages that wait for their time in front of a queue or in an exchange that delays: listed, cancelled, given another
//! time.

use serde_json::{Map, Value, json};

use crate::{
    call::Call,
    client::segment,
    command::{Opt, Spec, switch, value},
    failure::{Failure, exit},
    output::{Output, Table},
    program::tools::OURS,
};

const GROUP: &str = "Messages";

const EXCHANGE: Opt = switch(
    "exchange",
    "the name is that of an exchange that delays, not of a queue",
);

pub(super) static COMMANDS: [Spec; 3] = [
    Spec {
        name: "list_scheduled",
        tools: OURS,
        group: GROUP,
        args: "<name>",
        options: &[
            EXCHANGE,
            value(
                "limit",
                "number",
                "so many at most, those first that are due first [default: 100]",
            ),
            value("from", "id", "begin with this one, which the last answer named"),
        ],
        about: "Lists messages that wait for their time before they come to a queue",
        run: list,
    },
    Spec {
        name: "cancel_scheduled",
        tools: OURS,
        group: GROUP,
        args: "<name> [<id>...]",
        options: &[
            EXCHANGE,
            value(
                "due-from",
                "ms",
                "those due from this time on, in milliseconds since 1970",
            ),
            value("due-until", "ms", "those due before this time"),
            value("routing-key", "key", "those with this routing key"),
            switch("all", "all of them"),
        ],
        about: "Cancels scheduled messages: those named, those of a time or routing key, or all",
        run: cancel,
    },
    Spec {
        name: "retime_scheduled",
        tools: OURS,
        group: GROUP,
        args: "<name> <id>",
        options: &[
            EXCHANGE,
            value("delay", "ms", "due so long from now"),
            value("due", "ms", "due at this time, in milliseconds since 1970"),
        ],
        about: "Gives a scheduled message another time",
        run: retime,
    },
];

fn path(call: &Call) -> String {
    let kind = if call.switch("exchange") {
        "exchanges"
    } else {
        "queues"
    };
    format!(
        "/{kind}/{}/{}/scheduled",
        segment(call.vhost()),
        segment(call.arg("name"))
    )
}

/// A number that an option gives, as a part of a query.
fn number(call: &Call, option: &str) -> Result<Option<u64>, Failure> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_no_number| Failure::argument(exit::USAGE, format!("--{option} is a number.")))
    };
    call.option(option).map(parse).transpose()
}

/// What the broker says of something that is not there, in words that name it.
fn missing(call: &Call, id: Option<&str>, failure: Failure) -> Failure {
    if !failure.is_missing() {
        return failure;
    }
    let kind = if call.switch("exchange") {
        "exchange"
    } else {
        "queue"
    };
    let place = format!("{kind} '{}' in vhost '{}'", call.arg("name"), call.vhost());
    match id {
        Some(id) if call.client.get(&path(call)).is_ok() => {
            Failure::unavailable(format!("no message {id} waits for its time in {place}"))
        }
        _ => Failure::unavailable(format!("no {place}")),
    }
}

fn list(call: &mut Call) -> Result<Output, Failure> {
    let limit = number(call, "limit")?.unwrap_or(100);
    let from = call.option("from").map(|from| format!("&from={}", segment(from)));
    let path = format!("{}?page_size={limit}{}", path(call), from.unwrap_or_default());
    let page = call
        .client
        .get(&path)
        .map_err(|failure| missing(call, None, failure))?;
    let count = page.get("count").cloned().unwrap_or_default();
    let next = page.get("next").and_then(Value::as_str);
    call.banner(format!(
        "Listing scheduled messages of '{}' in vhost '{}', {count} in all{} ...",
        call.arg("name"),
        call.vhost(),
        next.map_or(String::new(), |next| format!(", more from {next}")),
    ));
    let columns = ["id", "due", "exchange", "routing_key", "payload_bytes", "payload"];
    let items = page.get("items").and_then(Value::as_array);
    let row = |item: &Value| {
        let field = |column: &&str| item.get(*column).cloned().unwrap_or_default();
        columns.iter().map(field).collect()
    };
    let rows = items.map_or(Vec::new(), |items| items.iter().map(row).collect());
    Ok(Table::streamed(&columns, rows).into())
}

fn cancel(call: &mut Call) -> Result<Output, Failure> {
    let ids = call.args("id");
    let mut query = Vec::new();
    for (option, key) in [("due-from", "from"), ("due-until", "until")] {
        if let Some(ms) = number(call, option)? {
            query.push(format!("{key}={ms}"));
        }
    }
    if let Some(key) = call.option("routing-key") {
        query.push(format!("routing_key={}", segment(key)));
    }
    let ways = [!ids.is_empty(), !query.is_empty(), call.switch("all")];
    if ways.iter().filter(|way| **way).count() != 1 {
        let text = "say which: ids, or a time or routing key, or --all.";
        return Err(Failure::argument(exit::USAGE, text));
    }
    let mut count = 0;
    if ids.is_empty() {
        let path = format!("{}?{}", path(call), query.join("&"));
        let answer = call.client.remove(&path);
        let answer = answer.map_err(|failure| missing(call, None, failure))?;
        count = answer.get("cancelled").and_then(Value::as_u64).unwrap_or(0);
    }
    for id in ids {
        let path = format!("{}/{}", path(call), segment(id));
        let done = call.client.delete(&path);
        done.map_err(|failure| missing(call, Some(id), failure))?;
        count += 1;
    }
    let mut fields = Map::new();
    fields.insert("cancelled".to_owned(), count.into());
    Ok(Output::Sentence(format!("{count} messages cancelled"), fields))
}

fn retime(call: &mut Call) -> Result<Output, Failure> {
    let body = match (number(call, "delay")?, number(call, "due")?) {
        (Some(delay), None) => json!({ "delay": delay }),
        (None, Some(due)) => json!({ "due": due }),
        _ => {
            return Err(Failure::argument(exit::USAGE, "say either --delay or --due."));
        }
    };
    let id = call.arg("id");
    let changed = call.client.put(&format!("{}/{}", path(call), segment(id)), &body);
    let changed = changed.map_err(|failure| missing(call, Some(id), failure))?;
    let new = changed.get("id").and_then(Value::as_str).unwrap_or_default();
    let text = format!("{id} is {new} now");
    let fields = changed.as_object().cloned().unwrap_or_default();
    Ok(Output::Sentence(text, fields))
}
