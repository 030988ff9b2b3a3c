//! Transient messages that outgrow their queue's memory: the store takes what is too much, and nobody can tell.

use crate::client::{Broker, Channel, confirm_select, declare, get, nack, publish, purge};

/// Together more than a queue keeps in memory of what the store does not have.
const MESSAGES: u64 = 1300;

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
    assert_eq!(channel.count("q"), (1300, 0));
    let all: Vec<u64> = (0..MESSAGES).collect();
    assert_eq!(numbers(&channel.drain("q")), all);
    // In memory again, and all of it at the end of its order.
    channel.publish("", "q", "1300");
    assert_eq!(numbers(&channel.drain("q")), [1300]);
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

#[test]
fn transient_messages_leave_a_durable_queue_with_the_broker_and_persistent_ones_stay() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "durable"));
    channel.ok(confirm_select());
    for number in 0..MESSAGES {
        let message = publish("", "q", format!("{number:<60000}"));
        channel.send(if number % 10 == 0 {
            message.persistent()
        } else {
            message
        });
    }
    channel.confirms(MESSAGES);
    assert_eq!(channel.count("q"), (1300, 0));
    for number in 0..400 {
        let message = channel.got(get("q", "no-ack")).unwrap();
        assert_eq!(numbers(&[message.text()]), [number]);
    }
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    assert_eq!(channel.count("q"), (90, 0));
    let left: Vec<u64> = (400..MESSAGES).step_by(10).collect();
    assert_eq!(numbers(&channel.drain("q")), left);
}
