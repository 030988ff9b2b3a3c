//! What a list of queues is sorted by, read from a queue without rendering it: a hundred thousand are sorted for a page of a
//! hundred.

use std::cmp::Ordering;

use crate::management::{
    list::Key,
    queues::queue_type,
    samples::{self, Field, LENGTHS, OF_QUEUE},
};
use crate::server::{Handle, QueueLook, now_ms};

/// By vhost, then by name.
pub(super) fn by_name(left: &QueueLook, right: &QueueLook) -> Ordering {
    let (left, right) = (left.definition(), right.definition());
    let names = || left.name.cmp(&right.name);
    left.vhost.cmp(&right.vhost).then_with(names)
}

/// The value at a path of the queue's object; `None` where it has to be rendered.
#[expect(clippy::cast_precision_loss, reason = "lengths beyond 2^53 do not exist")]
pub(super) fn key(handle: &Handle, queue: &QueueLook, path: &str) -> Option<Key> {
    let definition = queue.definition();
    let lengths = || queue.lengths();
    let number = |number: u64| Key::number(number as f64);
    Some(match path {
        "name" => Key::text(&definition.name),
        "vhost" => Key::text(&definition.vhost),
        "type" => Key::text(&queue_type(queue)),
        "durable" => Key::flag(definition.durable),
        "auto_delete" => Key::flag(definition.auto_delete),
        "exclusive" => Key::flag(queue.is_exclusive()),
        "node" | "state" => Key::text(""),
        "messages" => number(lengths().ready + lengths().unacked),
        "messages_ready" => number(lengths().ready),
        "messages_unacknowledged" => number(lengths().unacked),
        "consumers" => number(queue.state().consumers as u64),
        "memory" => number(queue.state().memory_bytes),
        "message_bytes" => {
            let now = queue.state();
            number(now.ready_bytes + now.unacked_bytes)
        }
        "message_bytes_ready" => number(queue.state().ready_bytes),
        _ => return statistic(handle, queue, path),
    })
}

/// `message_stats.publish`, `message_stats.publish_details.rate`, `messages_details.rate`.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts beyond 2^53 lose nothing that shows"
)]
fn statistic(handle: &Handle, queue: &QueueLook, path: &str) -> Option<Key> {
    let (fields, name) = match path.strip_prefix("message_stats.") {
        Some(name) => (&OF_QUEUE[..], name),
        None => (&LENGTHS[..], path),
    };
    let find = |name: &str| fields.iter().find(|field| field.name == name);
    if let Some(name) = name.strip_suffix("_details.rate") {
        let Field { places, .. } = find(name)?;
        let now = now_ms();
        let rate = handle.with_history(&queue.subject(), |history| {
            places.iter().map(|place| history.rate(*place, now)).sum()
        });
        return Some(Key::number(rate.unwrap_or(0.0)));
    }
    let value = samples::sum_of(find(name)?, &queue.counts());
    Some(Key::number(value as f64))
}
