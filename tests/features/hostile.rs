//! What a hostile or careless client does with polite methods, and what it must not reach (hostile-input-and-faults 4.3).

use leveret::{broker::error::BrokerError, server::OperateError};

use crate::client::{
    Arguments, Broker, Channel, Event, Method, ack, bind, bind_exchange, cancel, confirm_select, consume,
    declare, delete, delete_exchange, exchange, get, nack, publish, purge, text, tx_commit, tx_select,
    unbind,
};

/// Proves: H42
#[test]
fn a_key_of_many_words_meets_many_patterns() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("e", "topic", ""));
    channel.queue("q");
    for pattern in ["#", "*.#", "#.*.#", "*.#.*.#", "#.w.#", "w.#.w"] {
        channel.ok(bind("q", "e", pattern));
    }
    for n in 0..1000 {
        channel.ok(bind("q", "e", &format!("#.v{n}")));
        channel.ok(bind("q", "e", &format!("*.#.v{n}")));
    }
    let refused =
        "PRECONDITION_FAILED - Topic binding key '#.#.#' uses 3 '#' wildcards, at most 2 are allowed";
    channel.refuses(bind("q", "e", "#.#.#"), 406, refused);
    // 128 words, 255 bytes. Each publish has its own key, so that no route is remembered.
    for n in 0..200 {
        let mut words = vec!["w"; 128];
        words[n % 128] = if n < 128 { "x" } else { "y" };
        channel.publish("e", &words.join("."), "m");
    }
    assert_eq!(channel.drain("q").len(), 200, "one copy of each");
}

/// Proves: H45
#[test]
fn rings_of_any_length_end() {
    let broker = Broker::start();
    let channel = broker.channel();
    for length in [1, 2, 3, 100] {
        let name = |n: usize| format!("{length}.{}", n % length);
        for n in 0..length {
            channel.ok(exchange(&name(n), "fanout", ""));
            let next = [("alternate-exchange", text(&format!("a{}", name(n + 1))))];
            channel.ok(exchange(&format!("a{}", name(n)), "direct", "").args(next));
            // Keeps nothing: what comes dies at once, into the next.
            let arguments = [
                ("x-max-length", 0.into()),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&format!("d{}", name(n + 1)))),
            ];
            channel.ok(declare(&format!("d{}", name(n)), "").args(arguments));
        }
        for n in 0..length {
            channel.ok(bind_exchange(&name(n + 1), &name(n), ""));
        }
        channel.queue("q");
        channel.ok(bind("q", &name(length / 2), ""));
        channel.publish(&name(0), "k", "round");
        assert_eq!(channel.drain("q"), ["round"], "exchanges, {length}");
        channel.send(publish(&format!("a{}", name(0)), "k", "nowhere").mandatory());
        assert!(matches!(channel.next(), Event::Returned(message) if message.text() == "nowhere"));
        channel.publish("", &format!("d{}", name(0)), "dies in each once");
        channel.ok(delete("q", ""));
    }
    // The broker stops when all dead letters have arrived or are gone: here it would never.
    drop(channel);
}

/// Proves: H47
#[test]
fn what_comes_and_goes_leaves_nothing() {
    let broker = Broker::start();
    let handle = broker.server().handle();
    let count = || {
        (
            broker.server().counts().queues,
            handle.exchange_count("/"),
            handle.bindings(Some("/"), |_| true).len(),
            handle.consumer_count("/"),
            handle.channel_count(),
            handle.connection_count(),
        )
    };
    let before = count();
    for round in 0..60 {
        let channel = broker.channel();
        let other = channel.connection().channel();
        for (n, flags) in ["exclusive", "auto-delete", "durable", ""].iter().enumerate() {
            let (queue, source) = (format!("q{n}"), format!("e{n}"));
            channel.ok(declare(&queue, flags));
            channel.ok(exchange(&source, "topic", "auto-delete"));
            channel.ok(bind(&queue, &source, "a.*"));
            channel.publish(&source, "a.b", "m");
            other.consume(&queue, "t", "");
            other.ok(cancel("t"));
            if round % 3 == 0 {
                channel.ok(unbind(&queue, &source, "a.*"));
            }
            channel.send(delete(&queue, "nowait"));
            channel.send(delete_exchange(&source, "nowait"));
        }
        match round % 2 {
            0 => channel.connection().close(),
            _ => channel.connection().cut(),
        }
    }
    while count() != before {
        std::thread::yield_now();
    }
}

/// Proves: H48
#[test]
fn ten_thousands_unacked_go_back_when_their_consumer_vanishes() {
    const MANY: u32 = 20_000;
    let broker = Broker::start();
    let (greedy, other) = (broker.channel(), broker.channel());
    greedy.queue("q");
    other.queue("other");
    greedy.consume("q", "t", "");
    for n in 0..MANY {
        other.publish("", "q", &n.to_string());
    }
    let many = usize::try_from(MANY).unwrap();
    assert_eq!(greedy.deliveries(many).len(), many);
    greedy.connection().cut();
    // Others are served meanwhile.
    other.fill("other", &["canary"]);
    assert_eq!(other.drain("other"), ["canary"]);
    while other.count("q").0 < MANY {}
    other.consume("q", "u", "no-ack");
    for n in 0..MANY {
        let message = other.delivery();
        assert!(
            message.redelivered && message.text() == n.to_string(),
            "{message:?}"
        );
    }
}

/// Proves: H51
#[test]
fn a_flood_of_returns_comes_in_order_each_before_its_confirm() {
    const MANY: u64 = 5000;
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(confirm_select());
    for n in 1..=MANY {
        channel.send(publish("", "nowhere", n.to_string()).mandatory());
    }
    let (mut returned, mut confirmed) = (0, 0);
    while confirmed < MANY {
        match channel.next() {
            Event::Returned(message) => {
                returned += 1;
                assert_eq!(message.text(), returned.to_string());
            }
            Event::Method(Method::Basic(amq_protocol::protocol::basic::AMQPMethod::Ack(ack))) => {
                confirmed = ack.delivery_tag;
                assert!(
                    confirmed <= returned,
                    "{confirmed} was confirmed before its return"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Proves: H54
#[test]
fn a_transaction_takes_so_much_memory_and_no_more() {
    let broker = Broker::start_with(|options| options.limits.transaction_max_bytes = 100_000);
    let channel = broker.channel();
    channel.queue("q");
    channel.ok(tx_select());
    let body = "x".repeat(10_000);
    for _ in 0..9 {
        channel.publish("", "q", &body);
    }
    channel.ok(tx_commit());
    assert_eq!(channel.count("q").0, 9);
    for _ in 0..9 {
        channel.publish("", "q", &body);
    }
    let refused = "PRECONDITION_FAILED - transaction of more than 100000 bytes";
    channel.refuses(publish("", "q", &body), 406, refused);
    assert_eq!(channel.count("q").0, 9, "nothing of it was done");
}

/// Proves: H55
#[test]
fn limits_of_nothing_and_times_of_nothing_are_limits_and_times() {
    let broker = Broker::start();
    let channel = broker.channel();
    let refusing = |max: i32| {
        [
            ("x-max-length", max.into()),
            ("x-overflow", text("reject-publish")),
        ]
    };
    for (queue, max) in [("none", 0), ("one", 1)] {
        channel.ok(declare(queue, "").args(refusing(max)));
        channel.ok(bind(queue, "amq.fanout", ""));
    }
    channel.queue("free");
    channel.ok(bind("free", "amq.fanout", ""));
    channel.ok(declare("brief", "").args([("x-message-ttl", 0.into())]));
    channel.ok(bind("brief", "amq.fanout", ""));
    channel.ok(confirm_select());
    for number in 1..=2 {
        channel.publish("amq.fanout", "", "m");
        assert_eq!(channel.confirm(), (number, false), "one of its queues refused");
    }
    let counts = ["none", "one", "free", "brief"].map(|queue| channel.count(queue).0);
    assert_eq!(counts, [0, 1, 2, 0]);
    channel.ok(declare("fleeting", "").args([("x-expires", 1.into())]));
    while channel.exists("fleeting") {}
    channel.ok(confirm_select());
    channel.ok(declare("ranked", "").args([("x-max-priority", 255.into())]));
    for priority in [0, 255, 7] {
        let message = publish("", "ranked", priority.to_string());
        channel.send(message.with(|properties| properties.with_priority(priority)));
        channel.confirm();
    }
    assert_eq!(channel.drain("ranked"), ["255", "7", "0"]);
    let text = "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'x' in vhost '/': {max_value_exceeded,256}";
    channel.refuses(declare("x", "").args([("x-max-priority", 256.into())]), 406, text);
}

/// Proves: H56
#[test]
fn a_loop_of_requeues_leaves_the_others_their_turn() {
    let broker = Broker::start();
    let (looping, channel) = (broker.channel(), broker.channel());
    looping.queue("loop");
    channel.queue("q");
    looping.fill("loop", &["m"]);
    looping.consuming(consume("loop", "t", ""));
    for _ in 0..500 {
        let message = looping.delivery();
        looping.send(nack(message.tag, "requeue"));
        channel.publish("", "q", "canary");
        let canary = channel.get("q").map(|message| message.text());
        assert_eq!(canary.as_deref(), Some("canary"));
    }
    let last = looping.delivery();
    assert!(last.redelivered);
    looping.send(ack(last.tag, ""));
    looping.ok(cancel("t"));
    assert_eq!(looping.count("loop").0, 0);
}

/// Proves: H57
#[test]
fn nobody_else_gets_at_an_exclusive_queue() {
    let broker = Broker::start();
    let (owner, thief) = (broker.channel(), broker.channel());
    owner.ok(declare("mine", "exclusive"));
    owner.ok(bind("mine", "amq.direct", "k"));
    let locked = |thief: &Channel, method: Method| assert_eq!(thief.refusal(method).code, 405);
    for method in [
        declare("mine", "exclusive"),
        declare("mine", ""),
        declare("mine", "passive"),
        bind("mine", "amq.direct", "other"),
        unbind("mine", "amq.direct", "k"),
        consume("mine", "t", ""),
        get("mine", ""),
        purge("mine"),
        delete("mine", ""),
    ] {
        locked(&thief, method);
    }
    // What is not bound counts as unbound, whosever the queue is.
    thief.ok(unbind("mine", "amq.direct", "not bound"));
    let handle = broker.server().handle();
    let is_locked = |error| matches!(error, OperateError::Broker(BrokerError::Locked(_)));
    assert!(is_locked(
        handle.delete_queue("/", "mine", false, false).unwrap_err()
    ));
    assert!(is_locked(handle.purge_queue("/", "mine").unwrap_err()));
    owner.fill("mine", &["still here"]);
    assert_eq!(owner.drain("mine"), ["still here"]);
}
