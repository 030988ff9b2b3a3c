//! Queues: declare, passive, exclusive, auto-delete, purge, delete.

use std::collections::HashSet;

use crate::client::{
    Arguments, Broker, Event, Login, Method, ack, bind, cancel, confirm_select, consume, declare, delete,
    get, publish, purge, qos, removed, text, unbind,
};

fn locked(queue: &str) -> String {
    format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be \
         originally declared on another connection or the exclusive property value does not match that of the \
         original declaration."
    )
}

/// Proves: QUE-001
#[test]
fn a_new_queue_is_empty_and_unused() {
    let broker = Broker::start();
    let channel = broker.channel();
    for flags in [
        "",
        "durable",
        "exclusive",
        "auto-delete",
        "durable auto-delete",
        "durable exclusive auto-delete",
    ] {
        let name = format!("q {flags}");
        assert_eq!(channel.declare(declare(&name, flags)), (name.clone(), 0, 0));
        assert_eq!(channel.declare(declare(&name, flags)), (name, 0, 0));
    }
}

/// Proves: QUE-002
#[test]
fn an_empty_name_is_replaced_by_one_that_nobody_has() {
    let broker = Broker::start();
    let channel = broker.channel();
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let (name, _, _) = channel.declare(declare("", "exclusive"));
        let random = name.strip_prefix("amq.gen-").unwrap_or_else(|| panic!("{name}"));
        assert_eq!(random.len(), 22, "{name}");
        let url_safe = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        assert!(random.bytes().all(url_safe), "{name}");
        assert!(seen.insert(name));
    }
}

/// Proves: QUE-003
#[test]
fn names_with_the_reserved_prefix_are_the_brokers() {
    let broker = Broker::start();
    let channel = broker.channel();
    let reserved =
        |name: &str| format!("ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'");
    channel.refuses(declare("amq.mine", ""), 403, &reserved("amq.mine"));
    let (name, _, _) = channel.declare(declare("", ""));
    channel.refuses(declare(&name, ""), 403, &reserved(&name));
    channel.declare(declare(&name, "passive"));
    channel.refuses(
        declare("", "passive"),
        404,
        "NOT_FOUND - no queue '' in vhost '/'",
    );
}

/// Proves: QUE-004
#[test]
fn a_redeclaration_must_agree_in_durable_and_auto_delete() {
    let broker = Broker::start();
    let channel = broker.channel();
    let inequivalent = |field: &str, received: bool| {
        format!(
            "PRECONDITION_FAILED - inequivalent arg '{field}' for queue 'q' in vhost '/': received '{received}' but \
             current is '{}'",
            !received
        )
    };
    channel.declare(declare("q", "durable"));
    channel.refuses(declare("q", ""), 406, &inequivalent("durable", false));
    channel.refuses(declare("q", "auto-delete"), 406, &inequivalent("durable", false));
    channel.refuses(
        declare("q", "durable auto-delete"),
        406,
        &inequivalent("auto_delete", true),
    );
    channel.ok(delete("q", ""));
    channel.declare(declare("q", "auto-delete"));
    channel.refuses(
        declare("q", "durable auto-delete"),
        406,
        &inequivalent("durable", true),
    );
    channel.refuses(declare("q", ""), 406, &inequivalent("auto_delete", false));
}

/// Proves: QUE-005
#[test]
fn a_redeclaration_must_agree_in_exclusive() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("shared", ""));
    channel.refuses(declare("shared", "exclusive"), 405, &locked("shared"));
    channel.declare(declare("mine", "exclusive"));
    channel.refuses(declare("mine", ""), 405, &locked("mine"));
    // Before any other difference is looked at.
    channel.refuses(declare("mine", "auto-delete"), 405, &locked("mine"));
}

/// Proves: QUE-006, QUE-007, QUE-008, QUE-009
#[test]
fn of_the_arguments_those_that_are_known_are_compared_by_value() {
    let broker = Broker::start();
    let channel = broker.channel();
    let plain = || declare("q", "");
    let at = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/':";
    channel.declare(plain().args([("x-max-length", 5.into()), ("x-note", text("a"))]));
    for value in [5_i64.into(), 5_u8.into(), 5_i16.into(), 5_u32.into(), 5_i8.into()] {
        channel.declare(plain().args([("x-max-length", value)]));
    }
    channel.declare(plain().args([
        ("x-max-length", 5.into()),
        ("x-note", 7.into()),
        ("x-queue-type", text("classic")),
    ]));
    let current = "but current is the value '5' of type 'signedint'";
    channel.refuses(
        plain().args([("x-max-length", 10_i64.into())]),
        406,
        &format!("{at} received the value '10' of type 'long' {current}"),
    );
    channel.refuses(plain(), 406, &format!("{at} received none {current}"));
    channel.refuses(
        plain().args([("x-max-length", 5.into()), ("x-overflow", text("reject-publish"))]),
        406,
        "PRECONDITION_FAILED - inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received the value \
         'reject-publish' of type 'longstr' but current is none",
    );
    // The first in the type's order is told.
    channel.refuses(
        plain().args([("x-overflow", text("reject-publish")), ("x-expires", 1000.into())]),
        406,
        "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'q' in vhost '/': received the value '1000' of \
         type 'signedint' but current is none",
    );
}

/// Proves: QUE-010
#[test]
fn a_passive_declaration_counts_what_is_ready_and_who_consumes() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.refuses(
        declare("q", "passive"),
        404,
        "NOT_FOUND - no queue 'q' in vhost '/'",
    );
    channel.queue("q");
    channel.fill("q", &["1", "2", "3"]);
    assert_eq!(channel.count("q"), (3, 0));
    channel.get("q").unwrap();
    assert_eq!(channel.count("q"), (2, 0), "an unacked message is not ready");
    channel.ok(qos(1, false));
    channel.consume("q", "t", "");
    assert_eq!(channel.count("q"), (1, 1));
    channel.consume("q", "u", "");
    assert_eq!(channel.count("q"), (0, 2));
    // A declaration that is not passive counts as well.
    assert_eq!(channel.declare(declare("q", "")), ("q".to_owned(), 0, 2));
}

/// Proves: QUE-011
#[test]
fn a_passive_declaration_ignores_flags_and_arguments_but_not_exclusiveness() {
    let broker = Broker::start();
    let (channel, other) = (broker.channel(), broker.channel());
    channel.declare(declare("q", "durable"));
    channel
        .declare(declare("q", "passive exclusive auto-delete").args([("x-max-length", text("no number"))]));
    channel.declare(declare("mine", "exclusive"));
    channel.declare(declare("mine", "passive"));
    other.refuses(declare("mine", "passive"), 405, &locked("mine"));
}

/// Proves: QUE-012
#[test]
fn an_exclusive_queue_is_its_connections_alone_but_takes_messages_from_all() {
    let broker = Broker::start();
    let (owner, other) = (broker.channel(), broker.channel());
    owner.declare(declare("q", "exclusive"));
    owner.ok(bind("q", "amq.direct", "bound"));
    let refused: [Method; 9] = [
        declare("q", "exclusive"),
        declare("q", ""),
        declare("q", "passive"),
        consume("q", "t", ""),
        get("q", ""),
        bind("q", "amq.direct", "k"),
        unbind("q", "amq.direct", "bound"),
        purge("q"),
        delete("q", ""),
    ];
    for method in refused {
        other.refuses(method, 405, &locked("q"));
    }
    other.fill("q", &["from anybody"]);
    // Another channel of the owner's connection is as good as the first.
    let second = owner.connection().channel();
    second.ok(bind("q", "amq.direct", "k"));
    second.declare(declare("q", "exclusive"));
    assert_eq!(second.drain("q"), ["from anybody"]);
}

/// Proves: QUE-013
#[test]
fn an_exclusive_queue_goes_with_its_connection_however_that_ends() {
    let broker = Broker::start();
    let watcher = broker.channel();
    let connection = broker.connect();
    connection.channel().declare(declare("q", "exclusive"));
    connection.close();
    assert!(!watcher.exists("q"), "it is gone before close-ok");

    // After a dropped socket the broker has to notice: the name becomes free.
    let owner = broker.channel();
    owner.declare(declare("q", "exclusive"));
    owner.ok(bind("q", "amq.fanout", ""));
    owner.connection().cut();
    while broker.server().counts().queues > 0 {
        std::thread::yield_now();
    }
    assert!(!watcher.exists("q"));
    watcher.declare(declare("q", ""));
    watcher.publish("amq.fanout", "", "bindings are gone too");
    assert!(watcher.drain("q").is_empty());

    // A closed channel is no end.
    let connection = broker.connect();
    let channel = connection.channel();
    channel.declare(declare("r", "exclusive"));
    channel.close();
    channel.reopen();
    assert!(channel.exists("r"));
}

/// Proves: QUE-014
#[test]
fn an_exclusive_queue_is_never_durable_whatever_was_asked() {
    let mut broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("q", "exclusive durable"));
    channel.declare(declare("q", "exclusive"));
    channel.declare(declare("q", "exclusive durable"));
    drop(channel);
    broker.restart();
    assert!(!broker.channel().exists("q"));
}

/// Proves: QUE-015
#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let broker = Broker::start();
    let (channel, other) = (broker.channel(), broker.channel());
    channel.declare(declare("q", "auto-delete"));
    channel.fill("q", &["1"]);
    channel.get("q").unwrap();
    assert!(other.exists("q"), "it was never consumed");
    channel.consume("q", "a", "");
    other.consume("q", "b", "");
    channel.ok(cancel("a"));
    assert!(channel.exists("q"));
    other.close();
    other.reopen();
    assert!(!channel.exists("q"), "its last consumer's channel was closed");

    // With a connection, too, and with all of a channel's consumers at once.
    let connection = broker.connect();
    let consumer = connection.channel();
    consumer.declare(declare("q", "auto-delete durable"));
    consumer.consume("q", "a", "");
    consumer.consume("q", "b", "");
    connection.close();
    assert!(!channel.exists("q"));

    // cancel-ok comes before the deletion is done, and the channel goes on.
    channel.declare(declare("q", "auto-delete"));
    channel.consume("q", "a", "");
    channel.ok(cancel("a"));
    assert!(!channel.exists("q"));
}

/// Proves: QUE-017
#[test]
fn deleting_gives_the_ready_count_and_a_missing_queue_has_none() {
    let broker = Broker::start();
    let channel = broker.channel();
    assert_eq!(removed(&channel.ok(delete("none", ""))), 0);
    assert_eq!(removed(&channel.ok(delete("none", "if-unused if-empty"))), 0);
    channel.queue("q");
    channel.fill("q", &["1", "2", "3"]);
    let got = channel.get("q").unwrap();
    assert_eq!(removed(&channel.ok(delete("q", ""))), 2);
    // The delivery is still the channel's: acking what was in a deleted queue is no error.
    channel.send(ack(got.tag, ""));
    channel.nothing();
    assert!(!channel.exists("q"));
}

/// Proves: QUE-018
#[test]
fn conditions_of_a_deletion_are_empty_first_then_unused() {
    let broker = Broker::start();
    let channel = broker.channel();
    let not_empty = "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty";
    let in_use = "PRECONDITION_FAILED - queue 'q' in vhost '/' in use";
    let consumer = broker.channel();
    channel.queue("q");
    consumer.ok(qos(1, false));
    consumer.consume("q", "t", "");
    channel.refuses(delete("q", "if-unused"), 406, in_use);
    channel.fill("q", &["unacked", "ready"]);
    channel.refuses(delete("q", "if-unused if-empty"), 406, not_empty);
    channel.refuses(delete("q", "if-empty"), 406, not_empty);
    channel.ok(purge("q"));
    // What is unacked does not count.
    assert_eq!(removed(&channel.ok(delete("q", "if-empty"))), 0);
    channel.queue("q");
    channel.fill("q", &["1"]);
    assert_eq!(removed(&channel.ok(delete("q", "if-unused"))), 1);
}

/// Proves: QUE-019
#[test]
fn a_purge_takes_what_is_ready_only() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.refuses(purge("q"), 404, "NOT_FOUND - no queue 'q' in vhost '/'");
    channel.queue("q");
    channel.queue("dead");
    channel.queue("dead-lettering");
    assert_eq!(removed(&channel.ok(purge("q"))), 0);
    channel.fill("q", &["1", "2", "3"]);
    let got = channel.get("q").unwrap();
    assert_eq!(removed(&channel.ok(purge("q"))), 2);
    assert_eq!(channel.count("q"), (0, 0));
    channel.send(crate::client::nack(got.tag, "requeue"));
    assert_eq!(channel.drain("q"), ["1"]);

    let letters = [
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ];
    channel.declare(declare("letters", "").args(letters));
    channel.fill("letters", &["1", "2"]);
    assert_eq!(removed(&channel.ok(purge("letters"))), 2);
    assert_eq!(channel.count("dead").0, 0);
}

/// Proves: QUE-028, BAS-013
#[test]
fn a_deletion_cancels_the_consumers_of_clients_that_want_to_know() {
    let broker = Broker::start();
    let admin = broker.channel();
    let told = broker.channel();
    let untold = broker
        .connect_as(&Login {
            capabilities: &[],
            ..Login::default()
        })
        .channel();
    admin.queue("q");
    told.consume("q", "a", "");
    untold.consume("q", "b", "");
    admin.ok(delete("q", ""));
    match told.next() {
        Event::Method(Method::Basic(amq_protocol::protocol::basic::AMQPMethod::Cancel(cancel))) => {
            assert_eq!((cancel.consumer_tag.as_str(), cancel.nowait), ("a", true));
        }
        other => panic!("{other:?}"),
    }
    untold.nothing();
    // Either way the tag is free again.
    for channel in [&told, &untold] {
        channel.queue("q");
        channel.consume("q", "a", "");
        channel.consume("q", "b", "");
        channel.nothing();
    }
}

/// As RabbitMQ does it; py-amqp takes a cancel that comes before the answer for an error.
#[test]
fn a_channel_that_deletes_a_queue_hears_of_its_own_consumers_after_the_answer() {
    let broker = Broker::start();
    let channel = broker.channel();
    for options in ["", "durable"] {
        channel.declare(declare("q", options));
        for tag in ["a", "b"] {
            channel.consume("q", tag, "");
        }
        channel.send(delete("q", ""));
        let mut events = (0..3).map(|_| channel.next());
        assert!(matches!(
            events.next(),
            Some(Event::Method(Method::Queue(
                amq_protocol::protocol::queue::AMQPMethod::DeleteOk(_)
            )))
        ));
        assert!(events.all(|event| matches!(
            event,
            Event::Method(Method::Basic(amq_protocol::protocol::basic::AMQPMethod::Cancel(
                _
            )))
        )));
    }
}

/// Proves: QUE-029
#[test]
fn a_deletion_settles_the_confirms_that_wait_for_the_queue() {
    let broker = Broker::start();
    let (publisher, admin) = (broker.channel(), broker.channel());
    publisher.ok(confirm_select());
    publisher.declare(declare("q", "durable"));
    for body in ["1", "2", "3"] {
        publisher.send(publish("", "q", body).persistent());
    }
    admin.ok(delete("q", ""));
    publisher.send(publish("", "q", "to nobody").persistent());
    assert_eq!(
        publisher.confirms(4),
        [(1, true), (2, true), (3, true), (4, true)]
    );
}

/// Proves: QUE-026
#[test]
fn a_generated_name_begins_as_asked() {
    let broker = Broker::start();
    let channel = broker.channel();
    let prefixed = |prefix: &str| declare("", "exclusive").args([("x-name-prefix", text(prefix))]);
    let (name, ..) = channel.declare(prefixed("reports"));
    assert!(
        name.starts_with("reports-") && name.len() == "reports-".len() + 22,
        "{name}"
    );
    // The argument is not the queue's: without it the declaration is the same.
    channel.declare(declare(&name, "exclusive"));
    let long = "x".repeat(65);
    channel.refuses(
        prefixed(&long),
        406,
        &format!("PRECONDITION_FAILED - Queue name prefix '{long}' exceeds the 64-byte limit"),
    );
}
