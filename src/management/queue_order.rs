//! What a list of queues is sorted by, read from a queue without rendering it: a hundred thousand are sorted for a page of a
//! hundred.

use std::cmp::Ordering;

use crate::management::{
    list::Key,
    queues::queue_type,
    samples::{self, Field, LENGTHS, OF_QUEUE},
};
use crate::server::{Handle, QueueLook, now_ms};

/// A queue, and what tells most of them apart without going to where their names are, each somewhere else in memory.
pub(super) struct Placed {
    vhost: usize,
    /// What follows of the name after the beginning that all of the vhost share: its next octets as a number.
    start: u128,
    pub(super) queue: QueueLook,
}

/// Queues of vhosts that come in their order, ready to be sorted by vhost and name.
pub(super) fn placed(vhosts: impl Iterator<Item = Vec<QueueLook>>) -> Vec<Placed> {
    let mut placed = Vec::new();
    for (vhost, queues) in vhosts.enumerate() {
        let shared = shared(&queues);
        placed.extend(queues.into_iter().map(|queue| Placed {
            vhost,
            start: start(&queue.definition().name, shared),
            queue,
        }));
    }
    placed
}

/// Octets at the beginning that all names have in common.
fn shared(queues: &[QueueLook]) -> usize {
    let mut names = queues.iter().map(|queue| queue.definition().name.as_bytes());
    let first = names.next().unwrap_or_default();
    names.fold(first.len(), |shared, name| {
        let same = first.iter().zip(name).take(shared);
        same.take_while(|(left, right)| left == right).count()
    })
}

/// Numbers are ordered as the names are, where they differ: a name that has ended counts as zeros, no more than any.
fn start(name: &str, shared: usize) -> u128 {
    let mut octets = [0; 16];
    let rest = name.as_bytes().get(shared..).unwrap_or_default();
    octets
        .iter_mut()
        .zip(rest)
        .for_each(|(octet, of_name)| *octet = *of_name);
    u128::from_be_bytes(octets)
}

/// By vhost, then by name.
pub(super) fn by_name(left: &Placed, right: &Placed) -> Ordering {
    let names = || left.queue.definition().name.cmp(&right.queue.definition().name);
    (left.vhost, left.start)
        .cmp(&(right.vhost, right.start))
        .then_with(names)
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
        "type" => Key::text(queue_type(queue)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_ordered_as_the_names_are() {
        let mut names = [
            "q-1",
            "q-10",
            "q-2",
            "q-",
            "q-1\0",
            "q-é",
            "q-a long name that goes on",
            "q-a long name that ends",
        ];
        names.sort_unstable();
        for pair in names.windows(2) {
            assert!(start(pair[0], 2) <= start(pair[1], 2), "{pair:?}");
        }
        assert!(start("q-1", 2) < start("q-10", 2));
    }
}
