//! Where dead letters go and what they tell.

use crate::client::{
    Arguments, Broker, Channel, Value, ack, array, bind, confirm_select, declare, delete, exchange, nack,
    publish, purge, reject, text,
};

/// A queue `q` whose dead letters go through `dlx` to a consumer of `dead`.
fn set_up(channel: &Channel) {
    channel.ok(exchange("dlx", "topic", "durable"));
    channel.declare(declare("dead", "durable"));
    channel.ok(bind("dead", "dlx", "#"));
    channel.declare(declare("q", "durable").args([("x-dead-letter-exchange", text("dlx"))]));
    channel.consume("dead", "dead", "no-ack");
}

fn death<'a>(message: &'a crate::client::Message, key: &str) -> Option<&'a Value> {
    let Some(Value::FieldArray(deaths)) = message.header("x-death") else {
        panic!("no x-death in {message:?}");
    };
    let Some(Value::FieldTable(first)) = deaths.as_slice().first() else {
        panic!("no table in {deaths:?}");
    };
    first.inner().get(key)
}

/// Proves: DLX-001, DLX-002, DLX-003
#[test]
fn rejected_messages_go_with_their_key_and_their_story() {
    let broker = Broker::start();
    let channel = broker.channel();
    set_up(&channel);
    for body in ["1", "2", "3"] {
        channel.send(publish("", "q", body).persistent());
    }
    let tags: Vec<u64> = (0..3).map(|_| channel.get("q").unwrap().tag).collect();
    channel.send(reject(tags[0], false));
    channel.send(nack(tags[2], "multiple"));
    for body in ["1", "2", "3"] {
        let dead = channel.delivery();
        assert_eq!(
            (dead.text().as_str(), &*dead.exchange, &*dead.key),
            (body, "dlx", "q")
        );
        assert_eq!(death(&dead, "reason"), Some(&text("rejected")));
        assert_eq!(death(&dead, "queue"), Some(&text("q")));
        assert_eq!(death(&dead, "exchange"), Some(&text("")));
        assert_eq!(death(&dead, "count"), Some(&Value::LongLongInt(1)));
        assert_eq!(death(&dead, "routing-keys"), Some(&array([text("q")])));
        assert!(matches!(death(&dead, "time"), Some(Value::Timestamp(_))));
    }
    assert_eq!(channel.count("q").0, 0);
}

/// Proves: DLX-003, DLX-007
#[test]
fn a_loop_with_rejections_goes_on_and_counts() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "").args([
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("q")),
    ]));
    channel.consume("q", "t", "");
    channel.publish("", "q", "again");
    let first = channel.delivery();
    channel.send(reject(first.tag, false));
    for count in 1..4 {
        let again = channel.delivery();
        assert_eq!(death(&again, "count"), Some(&Value::LongLongInt(count)));
        assert!(!again.redelivered);
        channel.send(reject(again.tag, false));
    }
    channel.send(ack(channel.delivery().tag, ""));
}

/// Proves: DLX-009, DLX-010
#[test]
fn a_missing_exchange_drops_and_the_default_one_delivers() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("lost", "").args([("x-dead-letter-exchange", text("nowhere"))]));
    channel.queue("dead");
    channel.declare(declare("kept", "").args([
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ]));
    channel.consume("dead", "t", "no-ack");
    for queue in ["lost", "kept"] {
        channel.fill(queue, &[queue]);
        channel.send(reject(channel.get(queue).unwrap().tag, false));
    }
    assert_eq!(channel.deliveries(1), ["kept"]);
    channel.nothing();
}

/// Proves: DLX-011
#[test]
fn what_is_purged_or_deleted_is_not_dead_lettered() {
    let broker = Broker::start();
    let channel = broker.channel();
    set_up(&channel);
    channel.fill("q", &["1"]);
    channel.ok(purge("q"));
    channel.fill("q", &["2"]);
    channel.ok(delete("q", ""));
    channel.nothing();
}

/// Proves: DLX-001
#[test]
fn persistent_dead_letters_survive_in_their_new_place() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("dead", "durable"));
    channel.declare(declare("q", "durable").args([
        ("x-max-length", 1.into()),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ]));
    channel.ok(confirm_select());
    for body in ["1", "2", "3"] {
        channel.send(publish("", "q", body).persistent());
    }
    channel.confirms(3);
    drop(channel);
    broker.restart();
    let channel = broker.channel();
    assert_eq!(channel.drain("dead"), ["1", "2"]);
    assert_eq!(channel.drain("q"), ["3"]);
}
