//! The exchange types that RabbitMQ's plugins brought, CC and BCC, and the bound on topic patterns.

use crate::client::{
    Arguments, Broker, Channel, Event, Value, array, bind, bind_exchange, declare, exchange, publish, text,
};

fn refused(text: &str) -> String {
    format!("PRECONDITION_FAILED - {text}")
}

/// Queues `q0`, `q1` ... bound to `e` with these keys.
fn bound(channel: &Channel, keys: &[&str]) {
    for (at, key) in keys.iter().enumerate() {
        let queue = format!("q{at}");
        channel.queue(&queue);
        channel.ok(bind(&queue, "e", key));
    }
}

fn counts(channel: &Channel, queues: usize) -> Vec<u32> {
    (0..queues).map(|at| channel.count(&format!("q{at}")).0).collect()
}

/// Proves: RTE-008
#[test]
fn a_topic_pattern_has_at_most_two_hashes() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    channel.ok(bind("q", "amq.topic", "#.a.#"));
    channel.refuses(
        bind("q", "amq.topic", "#.a.#.b.#"),
        406,
        &refused("Topic binding key '#.a.#.b.#' uses 3 '#' wildcards, at most 2 are allowed"),
    );
}

/// Proves: RTE-023, RTE-025
#[test]
fn cc_and_bcc_add_keys_and_only_cc_is_shown() {
    let broker = Broker::start();
    let channel = broker.channel();
    for queue in ["to", "cc", "bcc", "topic"] {
        channel.queue(queue);
        channel.ok(bind(queue, "amq.direct", queue));
    }
    channel.ok(bind("topic", "amq.topic", "*.cc"));
    for exchange in ["", "amq.direct"] {
        channel.send(publish(exchange, "to", "x").headers([
            ("CC", array([text("cc"), text("to")])),
            ("BCC", array([text("bcc")])),
            ("kept", 1.into()),
        ]));
        for queue in ["to", "cc", "bcc"] {
            let got = channel.got(crate::client::get(queue, "no-ack")).unwrap();
            assert_eq!((&*got.exchange, &*got.key), (exchange, "to"), "{queue}");
            assert_eq!(got.header("BCC"), None);
            assert_eq!(got.header("CC"), Some(&array([text("cc"), text("to")])));
            assert_eq!(got.header("kept"), Some(&Value::LongInt(1)));
            assert_eq!(channel.count(queue).0, 0, "one copy");
        }
    }
    channel.send(publish("amq.topic", "to", "x").headers([("CC", array([text("a.cc")]))]));
    assert_eq!(channel.drain("topic"), ["x"]);
    // What comes back shows no BCC either.
    let hidden = [("BCC", array([text("nobody")]))];
    channel.send(publish("", "nowhere", "x").headers(hidden).mandatory());
    assert!(matches!(channel.next(), Event::Returned(returned) if returned.header("BCC").is_none()));
}

/// Proves: RTE-024
#[test]
fn cc_is_an_array_and_its_other_elements_are_skipped() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("q");
    for header in ["CC", "BCC"] {
        channel.refuses(
            publish("", "q", "").headers([(header, text("q"))]),
            406,
            &refused(&format!(
                "invalid message: {{unacceptable_type_in_header,\"{header}\",longstr}}"
            )),
        );
    }
    let mixed = array([1.into(), Value::Void, text("q")]);
    channel.send(publish("", "nowhere", "x").headers([("CC", mixed)]));
    assert_eq!(channel.drain("q"), ["x"]);
}

/// Proves: RTE-026
#[test]
fn a_consistent_hash_sends_equal_keys_to_one_queue_by_weight() {
    let broker = Broker::start();
    let channel = broker.channel();
    let kind = "x-consistent-hash";
    channel.ok(exchange("e", kind, ""));
    bound(&channel, &["1", "1", "8"]);
    for key in 0..200 {
        channel.publish("e", &key.to_string(), "x");
    }
    let first = counts(&channel, 3);
    assert_eq!(first.iter().sum::<u32>(), 200);
    assert!(first[2] > first[0] + first[1], "{first:?}");
    for key in 0..200 {
        channel.publish("e", &key.to_string(), "x");
    }
    let doubled: Vec<u32> = first.iter().map(|count| count * 2).collect();
    assert_eq!(counts(&channel, 3), doubled, "the same keys go where they went");
    for (key, text) in [
        ("x", "The binding key must be an integer: <<\"x\">>"),
        ("0", "The binding key must be greater than 0"),
        ("10001", "The binding key must not exceed 10000"),
    ] {
        channel.refuses(bind("q0", "e", key), 406, &refused(text));
    }
    let by_header = [("hash-header", text("h"))];
    channel.ok(exchange("h", kind, "").args(by_header));
    channel.refuses(
        exchange("b", kind, "").args([("hash-header", text("h")), ("hash-property", text("message_id"))]),
        406,
        &refused("hash-header and hash-property are mutually exclusive"),
    );
    channel.refuses(
        exchange("b", kind, "").args([("hash-property", text("app_id"))]),
        406,
        &refused("Unsupported property: app_id"),
    );
    for queue in ["h0", "h1"] {
        channel.queue(queue);
        channel.ok(bind(queue, "h", "1"));
    }
    for key in 0..20 {
        channel.send(publish("h", &key.to_string(), "x").headers([("h", text("same"))]));
    }
    let found = [channel.count("h0").0, channel.count("h1").0];
    assert!(found == [20, 0] || found == [0, 20], "{found:?}");
}

/// Proves: RTE-027, RTE-028
#[test]
fn random_exchanges_choose_one_queue_each_time() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("e", "x-random", ""));
    bound(&channel, &["a", "b", "c"]);
    for _ in 0..150 {
        channel.publish("e", "ignored", "x");
    }
    let found = counts(&channel, 3);
    assert_eq!(found.iter().sum::<u32>(), 150);
    assert!(found.iter().all(|count| *count > 0), "{found:?}");

    channel.ok(exchange("local", "x-local-random", ""));
    channel.refuses(
        bind("q0", "local", "k"),
        406,
        &refused("Non empty binding 'k' key not permitted"),
    );
    channel.refuses(
        bind_exchange("amq.fanout", "local", ""),
        406,
        &refused("Destination not found"),
    );
    channel.queue("one");
    channel.ok(bind("one", "local", ""));
    channel.publish("local", "any", "x");
    assert_eq!(channel.drain("one"), ["x"]);
}

/// Proves: RTE-029
#[test]
fn a_modulus_hash_is_stable_and_chooses_one() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("e", "x-modulus-hash", ""));
    bound(&channel, &["", "", ""]);
    for _ in 0..2 {
        for key in 0..60 {
            channel.publish("e", &key.to_string(), &key.to_string());
        }
    }
    let mut all = 0;
    for queue in ["q0", "q1", "q2"] {
        let mut bodies = channel.drain(queue);
        all += bodies.len();
        let second = bodies.split_off(bodies.len() / 2);
        assert_eq!(bodies, second);
    }
    assert_eq!(all, 120);
}

/// Proves: RTE-030
#[test]
fn a_recent_history_is_replayed_to_a_new_binding() {
    let broker = Broker::start();
    let channel = broker.channel();
    let kind = "x-recent-history";
    let length = "x-recent-history-length";
    channel.ok(exchange("e", kind, "").args([(length, 2.into())]));
    for body in ["1", "2", "3"] {
        channel.publish("e", "", body);
    }
    let unstored = [("x-recent-history-no-store", true.into())];
    channel.send(publish("e", "", "4").headers(unstored));
    channel.queue("q");
    channel.ok(bind("q", "e", ""));
    assert_eq!(channel.drain("q"), ["2", "3"]);
    channel.publish("e", "", "5");
    assert_eq!(channel.drain("q"), ["5"]);
    let close = channel.refusal(exchange("bad", kind, "").args([(length, 0.into())]));
    assert!(
        close.code == 406
            && close
                .text
                .contains("'x-recent-history-length' must be a positive integer")
    );
}

/// Proves: DLX-009, DLX-010
#[test]
fn a_dead_letter_exchange_may_be_missing_or_the_default_one() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.queue("dead");
    let letters = |queue: &str, exchange: &str| {
        declare(queue, "").args([
            ("x-dead-letter-exchange", text(exchange)),
            ("x-dead-letter-routing-key", text("dead")),
        ])
    };
    for (queue, exchange, arrives) in [("missing", "none", false), ("default", "", true)] {
        channel.declare(letters(queue, exchange));
        channel.fill(queue, &[queue]);
        let got = channel.get(queue).unwrap();
        channel.send(crate::client::reject(got.tag, false));
        assert_eq!(channel.count(queue).0, 0);
        if arrives {
            channel.consume("dead", "t", "no-ack");
            assert_eq!(channel.delivery().text(), queue);
            channel.nothing();
        }
    }
}
