//! A queue that is not durable and outgrows its memory: the store takes what is too much, and nobody can tell.

use crate::client::{Broker, Channel, confirm_select, declare, nack, publish, purge};

/// Together more than twice what a queue keeps in memory.
const MESSAGES: u64 = 700;

fn fill(channel: &Channel, queue: &str) {
    channel.ok(confirm_select());
    for number in 0..MESSAGES {
        channel.send(publish("", queue, format!("{number:<60000}")));
    }
    channel.confirms(MESSAGES);
}

fn numbers(bodies: &[String]) -> Vec<u64> {
    bodies
        .iter()
        .map(|body| body.trim_end().parse().unwrap())
        .collect()
}

#[test]
fn transient_messages_beyond_memory_come_back_in_order() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", ""));
    fill(&channel, "q");
    let first = channel.get("q").unwrap();
    channel.send(nack(first.tag, "requeue"));
    assert_eq!(channel.count("q"), (700, 0));
    let all: Vec<u64> = (0..MESSAGES).collect();
    assert_eq!(numbers(&channel.drain("q")), all);
    // In memory again, and all of it at the end of its order.
    channel.publish("", "q", "700");
    assert_eq!(numbers(&channel.drain("q")), [700]);
}

#[test]
fn spilled_messages_are_purged_and_do_not_survive_a_restart() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("purged", ""));
    fill(&channel, "purged");
    channel.ok(purge("purged"));
    assert_eq!(channel.count("purged"), (0, 0));
    let channel = broker.channel();
    channel.declare(declare("q", ""));
    fill(&channel, "q");
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    assert!(!channel.exists("q"));
    channel.declare(declare("q", ""));
    assert_eq!(channel.count("q"), (0, 0));
}
