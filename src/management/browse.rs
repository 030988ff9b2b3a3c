//! Looking into queues, beyond RabbitMQ's API: what waits, without consuming it; what is unacked; moving, copying and
//! deleting chosen messages. A message is named by its position, `LEVEL-NUMBER`, which it keeps while it waits.

use serde_json::{Map, Value, json};

use crate::broker::{ids::Seq, permission::Verb, queue::Place};
use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    filter::{Filter, number},
    json as amqp_json,
    messages::{content, show_properties},
    queues::find,
    route::{Level, Route, get, post},
};
use crate::server::{FIRST, Outcome, QueueLook, Selected, Sight, now_ms};

pub(super) static ROUTES: [Route; 5] = [
    get(
        "/leveret/queues/{vhost}/{name}/messages",
        Level::Vhost,
        list,
        "Messages that wait, unconsumed; `from`, `limit`, `truncate` and conditions choose",
    ),
    get(
        "/leveret/queues/{vhost}/{name}/unacked",
        Level::Vhost,
        unacked,
        "Deliveries that wait for their ack, with their consumers",
    ),
    post(
        "/leveret/queues/{vhost}/{name}/messages/delete",
        Level::Vhost,
        delete_chosen,
        "Deletes messages by position or filter",
    ),
    post(
        "/leveret/queues/{vhost}/{name}/messages/move",
        Level::Vhost,
        move_chosen,
        "Moves messages by position or filter to another queue",
    ),
    post(
        "/leveret/queues/{vhost}/{name}/messages/copy",
        Level::Vhost,
        copy_chosen,
        "Copies messages by position or filter to another queue",
    ),
];

/// Messages on a page, or in a list of deliveries.
const PAGE_MAX: usize = 500;
const PAGE: usize = 50;
/// Messages looked at for a page, and their bodies in bytes; the page then ends early, and says where to go on.
const SCAN_MAX: usize = 20_000;
const SCAN_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What of a body is shown unless more is asked for, bytes, and at most.
const SHOWN_BYTES: usize = 4096;
const SHOWN_BYTES_MAX: usize = 1024 * 1024;
/// Messages of one change; more are a job's.
const CHOSEN_MAX: usize = 10_000;
/// Messages looked at or changed at a time.
pub(super) const STEP: usize = 200;

pub(super) fn position(place: Place) -> String {
    format!("{}-{}", place.lane, place.seq.0)
}

fn parse_position(text: &str) -> Result<Place, ApiError> {
    let parsed = text
        .split_once('-')
        .and_then(|(lane, seq)| Some((lane.parse().ok()?, seq.parse().ok()?)));
    let (lane, seq) = parsed.ok_or_else(|| ApiError::bad_request(format!("'{text}' is no position")))?;
    Ok(Place { lane, seq: Seq(seq) })
}

/// A bounded number of the query.
fn bounded(call: &Call, key: &str, default: usize, max: usize) -> Result<usize, ApiError> {
    let Some(text) = call.query.get(key) else {
        return Ok(default);
    };
    match text.parse::<usize>() {
        Ok(value @ 1..) if value <= max => Ok(value),
        _ => Err(ApiError::bad_request(format!("{key} should be from 1 to {max}"))),
    }
}

fn list(call: &Call) -> Result<Answer, ApiError> {
    let queue = find(call)?;
    call.permit(Verb::Read, &queue.definition().name)?;
    let filter = Filter::of_query(&call.query)?;
    let limit = bounded(call, "limit", PAGE, PAGE_MAX)?;
    let shown = bounded(call, "truncate", SHOWN_BYTES, SHOWN_BYTES_MAX)?;
    let from = call.query.get("from").filter(|from| !from.is_empty());
    let mut next = Some(from.map_or(Ok(FIRST), parse_position)?);
    let (mut items, mut scanned, mut bytes) = (Vec::new(), 0, 0);
    while let Some(from) = next
        && items.len() < limit
        && scanned < SCAN_MAX
        && bytes < SCAN_BYTES_MAX
    {
        let (sights, then) = call.handle.look(&queue, from, STEP)?;
        next = then;
        for sight in &sights {
            if items.len() >= limit {
                // The rest of this look is the beginning of the next page.
                next = Some(sight.place);
                break;
            }
            scanned += 1;
            bytes += sight.message.body_len();
            if filter.accepts(sight) {
                items.push(render(sight, shown));
            }
        }
    }
    Ok(Answer::json(json!({
        "items": items,
        "scanned": scanned,
        "next": next.map(position),
    })))
}

fn render(sight: &Sight, shown: usize) -> Value {
    let message = &sight.message;
    let (payload, encoding) = content(message, false, Some(shown));
    let state = sight.state();
    let mut object = json!({
        "position": position(sight.place),
        "state": state,
        "exchange": amqp_json::text(message.exchange()),
        "routing_key": amqp_json::text(message.routing_key()),
        "redelivered": sight.redelivered,
        "persistent": message.persistent(),
        "on_disk": sight.on_disk,
        "properties": show_properties(message.properties()),
        "payload_bytes": message.body_len(),
        "payload": payload,
        "payload_encoding": encoding,
    });
    if let Value::Object(object) = &mut object {
        if sight.expires_at.is_some() {
            object.insert("expires_at".to_owned(), sight.expires_at.0.into());
        }
        if sight.acquired > 0 {
            object.insert("acquired_count".to_owned(), sight.acquired.into());
        }
        if sight.failed > 0 {
            object.insert("delivery_count".to_owned(), sight.failed.into());
        }
        if state == "waiting" {
            object.insert("due".to_owned(), sight.due.0.into());
        }
    }
    object
}

fn unacked(call: &Call) -> Result<Answer, ApiError> {
    let queue = find(call)?;
    call.permit(Verb::Read, &queue.definition().name)?;
    let limit = bounded(call, "limit", PAGE, PAGE_MAX)?;
    let now = now_ms();
    let held = call.handle.unacked(&queue, limit);
    let age = |at: u64| (at > 0).then(|| now.saturating_sub(at));
    let items: Vec<Value> = held
        .iter()
        .filter(|held| call.caller.sees_user(&held.user))
        .map(|held| {
            let (payload, encoding) = content(&held.message, false, Some(SHOWN_BYTES));
            json!({
                "position": position(held.place),
                "connection": held.connection_name,
                "channel": format!("{} ({})", held.connection_name, held.channel),
                "user": held.user,
                "consumer_tag": held.consumer_tag,
                "delivery_tag": held.delivery_tag,
                "redelivered": held.redelivered,
                "age_min_ms": age(held.not_after).unwrap_or(0),
                "age_max_ms": age(held.not_before),
                "exchange": amqp_json::text(held.message.exchange()),
                "routing_key": amqp_json::text(held.message.routing_key()),
                "properties": show_properties(held.message.properties()),
                "payload_bytes": held.message.body_len(),
                "payload": payload,
                "payload_encoding": encoding,
            })
        })
        .collect();
    Ok(Answer::json(json!({"items": items})))
}

/// What is done with what was chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Delete,
    Move,
    Copy,
}

fn delete_chosen(call: &Call) -> Result<Answer, ApiError> {
    change(call, Change::Delete)
}

fn move_chosen(call: &Call) -> Result<Answer, ApiError> {
    change(call, Change::Move)
}

fn copy_chosen(call: &Call) -> Result<Answer, ApiError> {
    change(call, Change::Copy)
}

/// The queue that a body's `to` names, which the caller may write to.
pub(super) fn target(call: &Call, object: &Map<String, Value>) -> Result<Option<QueueLook>, ApiError> {
    let Some(name) = amqp_json::text_field(object, "to")? else {
        return Ok(None);
    };
    call.permit(Verb::Write, name)?;
    let target = call.handle.queue(call.vhost().unwrap_or("/"), name);
    let target = target.ok_or_else(|| ApiError::missing(format!("no queue '{name}'")))?;
    if target.is_exclusive() {
        return Err(ApiError::bad_request(format!("queue '{name}' is exclusive")));
    }
    Ok(Some(target))
}

fn change(call: &Call, change: Change) -> Result<Answer, ApiError> {
    let queue = find(call)?;
    call.permit(Verb::Read, &queue.definition().name)?;
    let object = call.object()?;
    let to = match change {
        Change::Delete => None,
        Change::Move | Change::Copy => {
            Some(target(call, &object)?.ok_or_else(|| ApiError::key_missing("to"))?)
        }
    };
    if to.as_ref().is_some_and(|to| to.subject() == queue.subject()) {
        return Err(ApiError::bad_request("source and target are the same queue"));
    }
    let mut outcome = Outcome::default();
    let mut apply = |sights: Vec<Sight>| -> Result<(), ApiError> {
        let selected = sights.into_iter().map(|sight| Selected {
            to: to.clone().map(|to| (to, sight.message.clone())),
            sight,
            keep: change == Change::Copy,
        });
        outcome.add(call.handle.settle_selected(&queue, selected.collect())?);
        Ok(())
    };
    match object.get("positions") {
        Some(positions) => {
            let (sights, gone) = at_positions(call, &queue, positions)?;
            for sights in sights.chunks(STEP) {
                apply(sights.to_vec())?;
            }
            outcome.gone += gone;
        }
        None => {
            let filter = match object.get("filter") {
                Some(Value::Object(filter)) => Filter::of_object(filter)?,
                _ => return Err(ApiError::key_missing("positions")),
            };
            let limit = number(&object, "limit")?.unwrap_or(CHOSEN_MAX as u64);
            let limit = usize::try_from(limit).unwrap_or(CHOSEN_MAX).min(CHOSEN_MAX);
            let end = queue.end();
            let (mut next, mut chosen) = (Some(FIRST), 0);
            while let Some(from) = next
                && chosen < limit
            {
                let (mut sights, then) = call.handle.look(&queue, from, STEP)?;
                next = then;
                sights.retain(|sight| sight.place.seq < end && filter.accepts(sight));
                sights.truncate(limit - chosen);
                chosen += sights.len();
                apply(sights)?;
            }
        }
    }
    Ok(Answer::json(json!({
        "done": outcome.done,
        "gone": outcome.gone,
        "refused": outcome.refused,
    })))
}

/// The messages at these positions, and how many of them do not wait any more.
fn at_positions(call: &Call, queue: &QueueLook, positions: &Value) -> Result<(Vec<Sight>, u64), ApiError> {
    let wrong = || ApiError::bad_request("positions should be a list of texts");
    let positions = positions.as_array().ok_or_else(wrong)?;
    if positions.len() > CHOSEN_MAX {
        return Err(ApiError::bad_request(format!("more than {CHOSEN_MAX} positions")));
    }
    let mut places: Vec<Place> = Vec::with_capacity(positions.len());
    for position in positions {
        places.push(parse_position(position.as_str().ok_or_else(wrong)?)?);
    }
    places.sort_unstable();
    places.dedup();
    let (mut found, mut gone) = (Vec::new(), 0);
    for place in places {
        let (sights, _) = call.handle.look(queue, place, 1)?;
        match sights.into_iter().find(|sight| sight.place == place) {
            Some(sight) => found.push(sight),
            None => gone += 1,
        }
    }
    Ok((found, gone))
}
