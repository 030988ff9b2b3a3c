//! Messages that wait for their time, of a queue or of an exchange that delays: listed by pages, cancelled, given another
//! time. The reference has none of this; the paths follow its habits.

use serde_json::{Value, json};

use crate::broker::{ids::Timestamp, permission::Verb};
use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    exchanges, messages, queues,
    route::{Level, Route, delete, get, put},
};
use crate::server::{Scheduled, Waiting};

pub(super) static ROUTES: [Route; 8] = [
    get(
        "/queues/{vhost}/{name}/scheduled",
        Level::Vhost,
        |call| list(call, Kind::Queue),
        "A page of the messages that wait for their time before they come to a queue",
    ),
    delete(
        "/queues/{vhost}/{name}/scheduled",
        Level::Vhost,
        |call| cancel_all(call, Kind::Queue),
        "Cancels waiting messages: all, or those of a time (`from`, `until`) or `routing_key`",
    ),
    delete(
        "/queues/{vhost}/{name}/scheduled/{id}",
        Level::Vhost,
        |call| cancel(call, Kind::Queue),
        "Cancels a waiting message",
    ),
    put(
        "/queues/{vhost}/{name}/scheduled/{id}",
        Level::Vhost,
        |call| retime(call, Kind::Queue),
        "Gives a waiting message another time",
    ),
    get(
        "/exchanges/{vhost}/{name}/scheduled",
        Level::Vhost,
        |call| list(call, Kind::Exchange),
        "A page of the messages that wait in an exchange",
    ),
    delete(
        "/exchanges/{vhost}/{name}/scheduled",
        Level::Vhost,
        |call| cancel_all(call, Kind::Exchange),
        "Cancels waiting messages: all, or those of a time (`from`, `until`) or `routing_key`",
    ),
    delete(
        "/exchanges/{vhost}/{name}/scheduled/{id}",
        Level::Vhost,
        |call| cancel(call, Kind::Exchange),
        "Cancels a waiting message",
    ),
    put(
        "/exchanges/{vhost}/{name}/scheduled/{id}",
        Level::Vhost,
        |call| retime(call, Kind::Exchange),
        "Gives a waiting message another time",
    ),
];

/// What of a body is shown, bytes.
const SHOWN_BYTES: usize = 4096;

#[derive(Clone, Copy)]
enum Kind {
    Queue,
    Exchange,
}

/// The queue or exchange of the path, if the caller may do this with it.
fn find(call: &Call, kind: Kind, verb: Verb) -> Result<Waiting<'_>, ApiError> {
    match kind {
        Kind::Queue => {
            queues::find(call)?;
            call.permit(verb, call.name("name"))?;
            Ok(Waiting::Queue(call.name("name")))
        }
        Kind::Exchange => {
            exchanges::find(call)?;
            call.permit(verb, call.exchange("name"))?;
            Ok(Waiting::Exchange(call.exchange("name")))
        }
    }
}

fn vhost(call: &Call) -> &str {
    call.vhost().unwrap_or("/")
}

fn id(due: Timestamp, number: u64) -> String {
    format!("{}-{number}", due.0)
}

/// `DUE-NUMBER`, as the list gives it.
fn parse_id(id: &str) -> Option<(Timestamp, u64)> {
    let (due, number) = id.split_once('-')?;
    Some((Timestamp(due.parse().ok()?), number.parse().ok()?))
}

/// `?page_size=100&from=ID`; the answer's `next` is the `from` of the next page.
fn list(call: &Call, kind: Kind) -> Result<Answer, ApiError> {
    let waiting = find(call, kind, Verb::Read)?;
    let from = match call.query.get("from") {
        Some(from) => {
            parse_id(from).ok_or_else(|| ApiError::bad_request("from is no id of a waiting message"))?
        }
        None => (Timestamp::NONE, 0),
    };
    let size = match call.query.get("page_size") {
        Some(size) => size
            .parse()
            .map_err(|_no_number| ApiError::bad_request("page_size is no number"))?,
        None => 100,
    };
    let page = call.handle.scheduled(vhost(call), waiting, from, size)?;
    let items: Vec<Value> = page.messages.iter().map(render).collect();
    Ok(Answer::json(json!({
        "count": page.count,
        "bytes": page.bytes,
        "next": page.next.map(|(due, number)| id(due, number)),
        "items": items,
    })))
}

fn render(scheduled: &Scheduled) -> Value {
    let message = &scheduled.message;
    let (payload, encoding) = messages::content(message, false, Some(SHOWN_BYTES));
    json!({
        "id": id(scheduled.due, scheduled.number),
        "due": scheduled.due.0,
        "exchange": crate::management::json::text(message.exchange()),
        "routing_key": crate::management::json::text(message.routing_key()),
        "payload_bytes": message.body_len(),
        "properties": messages::show_properties(message.properties()),
        "payload": payload,
        "payload_encoding": encoding,
    })
}

fn named(call: &Call) -> Result<(Timestamp, u64), ApiError> {
    parse_id(call.name("id")).ok_or_else(ApiError::not_found)
}

fn cancel(call: &Call, kind: Kind) -> Result<Answer, ApiError> {
    let waiting = find(call, kind, Verb::Read)?;
    let (due, number) = named(call)?;
    if call.handle.cancel_scheduled(vhost(call), waiting, due, number)? {
        Ok(Answer::no_content())
    } else {
        Err(ApiError::not_found())
    }
}

/// `?from=MS&until=MS&routing_key=KEY`: due from the first time on, before the second, with this key; without any of them
/// all. Answers how many were cancelled.
fn cancel_all(call: &Call, kind: Kind) -> Result<Answer, ApiError> {
    let waiting = find(call, kind, Verb::Read)?;
    let time = |name: &str| match call.query.get(name) {
        Some(text) => text
            .parse()
            .map(|ms| Some(Timestamp(ms)))
            .map_err(|_no_number| ApiError::bad_request(format!("{name} is no number of milliseconds"))),
        None => Ok(None),
    };
    let (from, until, key) = (time("from")?, time("until")?, call.query.get("routing_key"));
    if from.is_none() && until.is_none() && key.is_none() {
        let count = call.handle.cancel_all_scheduled(vhost(call), waiting)?;
        return Ok(Answer::json(json!({ "cancelled": count })));
    }
    let before = |due: Timestamp| until.is_none_or(|until| due < until);
    let chosen = |scheduled: &Scheduled| {
        before(scheduled.due) && key.is_none_or(|key| scheduled.message.routing_key() == key.as_bytes())
    };
    let mut next = Some((from.unwrap_or(Timestamp::NONE), 0));
    let mut count = 0;
    while let Some(from) = next.filter(|(due, _)| before(*due)) {
        let (cancelled, after) = call
            .handle
            .cancel_some_scheduled(vhost(call), waiting, from, chosen)?;
        count += cancelled;
        next = after;
    }
    Ok(Answer::json(json!({ "cancelled": count })))
}

/// `{"due": MS_SINCE_1970}` or `{"delay": MS}`.
fn retime(call: &Call, kind: Kind) -> Result<Answer, ApiError> {
    let waiting = find(call, kind, Verb::Write)?;
    let (due, number) = named(call)?;
    let object = call.object()?;
    let number_of = |key: &str| object.get(key).map(|value| value.as_u64());
    let new_due = match (number_of("due"), number_of("delay")) {
        (Some(Some(due)), None) => Timestamp(due),
        (None, Some(Some(delay))) => Timestamp(crate::server::now_ms()).after(delay),
        _ => {
            return Err(ApiError::bad_request(
                "either due (milliseconds since 1970) or delay (milliseconds) must be a number",
            ));
        }
    };
    // 0 would be no time at all.
    let new_due = Timestamp(new_due.0.max(1));
    let number = call
        .handle
        .retime_scheduled(vhost(call), waiting, due, number, new_due)?
        .ok_or_else(ApiError::not_found)?;
    Ok(Answer::json(json!({"id": id(new_due, number), "due": new_due.0})))
}
