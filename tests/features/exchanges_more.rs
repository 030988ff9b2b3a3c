//! Exchange types beyond the core's, keys chosen by the sender, replies without a queue.

use crate::client::{
    Arguments, Broker, Channel, Event, access_request, array, bind, bind_exchange, cancel, confirm_select,
    consume, declare, delete, exchange, get, publish, text, tx_commit, tx_select, unbind,
};

const REPLIES: &str = "amq.rabbitmq.reply-to";

/// A channel with queues bound to an exchange, all by this key.
fn bound(broker: &Broker, exchange: &str, queues: &[&str], key: &str) -> Channel {
    let channel = broker.channel();
    for queue in queues {
        channel.queue(queue);
        channel.ok(bind(queue, exchange, key));
    }
    channel
}

fn counts(channel: &Channel, queues: &[&str]) -> Vec<u32> {
    channel.ok(access_request());
    queues.iter().map(|queue| channel.count(queue).0).collect()
}

/// Proves: RTE-026, H43
#[test]
fn consistent_hash_validates_spreads_and_sticks() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("ring", "x-consistent-hash", ""));
    for queue in ["a", "b", "c"] {
        channel.queue(queue);
        channel.ok(bind(queue, "ring", "10"));
    }
    for (key, problem) in [
        ("x", "The binding key must be an integer: <<\"x\">>"),
        ("", "The binding key must be an integer: <<\"\">>"),
        ("0", "The binding key must be greater than 0"),
        ("-1", "The binding key must be greater than 0"),
        ("1000000000", "The binding key must not exceed 10000"),
    ] {
        channel.refuses(
            bind("a", "ring", key),
            406,
            &format!("PRECONDITION_FAILED - {problem}"),
        );
    }
    for n in 0..300 {
        channel.publish("ring", &format!("key.{n}"), "");
    }
    let spread = counts(&channel, &["a", "b", "c"]);
    assert_eq!(spread.iter().sum::<u32>(), 300);
    assert!(spread.iter().all(|count| *count > 50), "{spread:?}");
    for _ in 0..30 {
        channel.publish("ring", "the same", "");
    }
    let after = counts(&channel, &["a", "b", "c"]);
    let grown: Vec<u32> = after
        .iter()
        .zip(&spread)
        .map(|(after, before)| after - before)
        .collect();
    assert!(grown.contains(&30), "{grown:?}");
    let both = [("hash-header", text("h")), ("hash-property", text("message_id"))];
    channel.refuses(
        exchange("bad", "x-consistent-hash", "").args(both),
        406,
        "PRECONDITION_FAILED - hash-header and hash-property are mutually exclusive",
    );
    channel.refuses(
        exchange("bad", "x-consistent-hash", "").args([("hash-property", text("priority"))]),
        406,
        "PRECONDITION_FAILED - Unsupported property: priority",
    );
}

/// Proves: RTE-026
#[test]
fn consistent_hash_by_header_ignores_the_key() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("ring", "x-consistent-hash", "").args([("hash-header", text("user"))]));
    for queue in ["a", "b", "c"] {
        channel.queue(queue);
        channel.ok(bind(queue, "ring", "1"));
    }
    for n in 0..60 {
        channel.send(publish("ring", &format!("key.{n}"), "").headers([("user", text("one"))]));
    }
    let mut spread = counts(&channel, &["a", "b", "c"]);
    spread.sort_unstable();
    assert_eq!(spread, [0, 0, 60], "a remembered route must not decide either");
    for n in 0..60 {
        channel.send(publish("ring", "key", "").headers([("user", text(&format!("user.{n}")))]));
    }
    let mut spread = counts(&channel, &["a", "b", "c"]);
    spread.sort_unstable();
    assert!(spread[0] > 5, "{spread:?}");
}

/// Proves: RTE-027, RTE-029
#[test]
fn random_and_modulus_hash_reach_exactly_one_queue() {
    let broker = Broker::start();
    for kind in ["x-random", "x-modulus-hash"] {
        let channel = broker.channel();
        channel.ok(exchange(kind, kind, ""));
        let queues: Vec<String> = (0..3).map(|n| format!("{kind}.{n}")).collect();
        let queues: Vec<&str> = queues.iter().map(String::as_str).collect();
        for queue in &queues {
            channel.queue(queue);
            channel.ok(bind(queue, kind, "k"));
        }
        for _ in 0..60 {
            channel.publish(kind, "one key", "");
        }
        let spread = counts(&channel, &queues);
        assert_eq!(spread.iter().sum::<u32>(), 60);
        let reached = spread.iter().filter(|count| **count > 0).count();
        assert_eq!(
            reached,
            if kind == "x-random" { 3 } else { 1 },
            "{kind}: {spread:?}"
        );
    }
}

/// Proves: RTE-028
#[test]
fn local_random_binds_queues_without_a_key() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("e", "x-local-random", ""));
    channel.queue("q");
    channel.refuses(
        bind("q", "e", "k"),
        406,
        "PRECONDITION_FAILED - Non empty binding 'k' key not permitted",
    );
    channel.refuses(
        bind_exchange("amq.fanout", "e", ""),
        406,
        "PRECONDITION_FAILED - Destination not found",
    );
    channel.declare(declare("group", "durable").args([("x-queue-type", text("quorum"))]));
    channel.refuses(
        bind("group", "e", ""),
        406,
        "PRECONDITION_FAILED - Queue type rabbit_quorum_queue not valid for this exchange type",
    );
    channel.ok(bind("q", "e", ""));
    channel.publish("e", "whatever", "m");
    assert_eq!(channel.drain("q"), ["m"]);
}

/// Proves: RTE-030
#[test]
fn recent_history_is_replayed_to_a_new_binding() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("h", "x-recent-history", "").args([("x-recent-history-length", 3.into())]));
    for body in ["1", "2", "3", "4"] {
        channel.publish("h", "k", body);
    }
    channel.send(publish("h", "k", "secret").headers([("x-recent-history-no-store", true.into())]));
    channel.queue("late");
    channel.ok(bind("late", "h", ""));
    channel.publish("h", "k", "5");
    assert_eq!(channel.drain("late"), ["2", "3", "4", "5"]);
    channel.queue("later");
    channel.ok(bind("later", "amq.fanout", ""));
    channel.ok(bind_exchange("amq.fanout", "h", ""));
    assert_eq!(
        channel.drain("later"),
        ["3", "4", "5"],
        "an exchange passes them on"
    );
    let text =
        "PRECONDITION_FAILED - Invalid argument 0, 'x-recent-history-length' must be a positive integer";
    channel.refuses(
        exchange("bad", "x-recent-history", "").args([("x-recent-history-length", 0.into())]),
        406,
        text,
    );
}

/// Proves: RTE-032
#[test]
fn a_deduplicating_exchange_drops_what_it_has_seen() {
    let broker = Broker::start();
    let channel = broker.channel();
    let text_of_missing =
        "PRECONDITION_FAILED - Missing or invalid argument, 'x-cache-size' must be an integer greater than 0";
    channel.refuses(exchange("d", "x-message-deduplication", ""), 406, text_of_missing);
    channel.ok(exchange("d", "x-message-deduplication", "").args([("x-cache-size", 2.into())]));
    channel.queue("q");
    channel.ok(bind("q", "d", ""));
    let send =
        |key: &str| channel.send(publish("d", "", key).headers([("x-deduplication-header", text(key))]));
    for key in ["a", "a", "b", "a", "c", "a"] {
        send(key);
    }
    channel.publish("d", "", "none");
    channel.publish("d", "", "none");
    channel.ok(access_request());
    assert_eq!(channel.drain("q"), ["a", "b", "c", "a", "none", "none"]);
    channel.send(
        publish("d", "", "a")
            .mandatory()
            .headers([("x-deduplication-header", text("a"))]),
    );
    assert!(
        matches!(channel.next(), Event::Returned(_)),
        "a duplicate is unroutable"
    );
}

/// Proves: RTE-023, RTE-025
#[test]
fn cc_and_bcc_add_keys_and_bcc_is_not_seen() {
    let broker = Broker::start();
    for (exchange, suffix) in [("", ""), ("amq.direct", ""), ("amq.topic", ".#")] {
        let channel = broker.channel();
        for queue in ["to", "cc", "bcc"] {
            channel.queue(queue);
            if !exchange.is_empty() {
                channel.ok(bind(queue, exchange, &format!("{queue}{suffix}")));
            }
        }
        let keys = |key: &str| array([text(key), text("nobody"), 5.into()]);
        channel.send(publish(exchange, "to", "m").headers([
            ("CC", keys("cc")),
            ("BCC", keys("bcc")),
            ("other", text("stays")),
        ]));
        for queue in ["to", "cc", "bcc"] {
            let message = channel.got(get(queue, "no-ack")).unwrap();
            assert_eq!(
                (message.key.as_str(), message.text().as_str()),
                ("to", "m"),
                "{queue}"
            );
            assert!(message.header("CC").is_some() && message.header("other").is_some());
            assert!(message.header("BCC").is_none(), "{exchange} {queue}");
            assert!(channel.get(queue).is_none(), "one copy");
        }
        channel.send(
            publish(exchange, "none", "m")
                .mandatory()
                .headers([("BCC", keys("neither"))]),
        );
        let Event::Returned(returned) = channel.next() else {
            panic!("no return")
        };
        assert!(returned.header("BCC").is_none());
        assert_eq!(returned.text(), "m");
    }
}

/// Proves: RTE-024, H44
#[test]
fn cc_must_be_an_array_of_at_most_1000_keys() {
    let broker = Broker::start();
    let channel = broker.channel();
    let with = |header: &str, value| publish("amq.direct", "k", "m").headers([(header, value)]);
    channel.refuses(
        with("CC", text("k")),
        406,
        "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}",
    );
    channel.refuses(
        with("BCC", 5.into()),
        406,
        "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"BCC\",signedint}",
    );
    let many = array(std::array::from_fn::<_, 10_000, _>(|_| text("k")));
    let close = channel.refusal(with("CC", many));
    assert_eq!(close.code, 406);
    channel.refuses(
        publish("missing", "k", "m").headers([("CC", text("k"))]),
        404,
        "NOT_FOUND - no exchange 'missing' in vhost '/'",
    );
}

/// Proves: DRT-001
#[test]
fn a_reply_consumer_needs_no_ack_and_is_alone() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.refuses(
        consume(REPLIES, "t", ""),
        406,
        "PRECONDITION_FAILED - reply consumer cannot acknowledge",
    );
    assert!(channel.consume(REPLIES, "", "no-ack").starts_with("amq.ctag-"));
    channel.refuses(
        consume(REPLIES, "u", "no-ack"),
        406,
        "PRECONDITION_FAILED - reply consumer already set",
    );
    channel.consume(REPLIES, "t", "no-ack");
    channel.ok(cancel("t"));
    channel.consume(REPLIES, "t", "no-ack");
    channel.fails(
        consume("q", "t", ""),
        530,
        "NOT_ALLOWED - attempt to reuse consumer tag 't'",
    );
}

/// Sends a request and gives its reply address as the responder sees it.
fn request(requester: &Channel, responder: &Channel) -> String {
    requester.send(publish("", "requests", "?").with(|properties| properties.with_reply_to(REPLIES.into())));
    requester.ok(access_request());
    let message = responder.get("requests").unwrap();
    message.properties.reply_to().as_ref().unwrap().to_string()
}

/// Proves: DRT-002, DRT-003
#[test]
fn a_request_is_answered_without_a_queue() {
    let broker = Broker::start();
    let (requester, responder) = (broker.channel(), broker.channel());
    responder.queue("requests");
    requester.refuses(
        publish("", "requests", "?").with(|properties| properties.with_reply_to(REPLIES.into())),
        406,
        "PRECONDITION_FAILED - fast reply consumer does not exist",
    );
    requester.consume(REPLIES, "mine", "no-ack");
    let address = request(&requester, &responder);
    assert!(
        address.starts_with("amq.rabbitmq.reply-to.") && address.len() <= 255,
        "{address}"
    );
    assert_eq!(request(&requester, &responder), address, "stable");
    assert_eq!(
        responder.declare(declare(REPLIES, "passive")),
        (REPLIES.to_owned(), 0, 1)
    );
    assert_eq!(responder.declare(declare(&address, "")), (address.clone(), 0, 1));
    responder.publish("", &address, "!");
    let reply = requester.delivery();
    assert_eq!((reply.consumer.as_str(), reply.text().as_str()), ("mine", "!"));
    assert_eq!(
        (reply.exchange.as_str(), reply.key.as_str()),
        ("", address.as_str())
    );
    assert!(!reply.redelivered && reply.tag == 1);
    responder.send(publish("", "nobody", "cc").headers([("CC", array([text(&address), text(&address)]))]));
    assert_eq!(requester.deliveries(1), ["cc"], "once, however often it is named");
    responder.ok(tx_select());
    responder.publish("", &address, "tx");
    responder.ok(access_request());
    requester.ok(access_request());
    requester.nothing();
    responder.ok(tx_commit());
    assert_eq!(requester.deliveries(1), ["tx"]);
    requester.ok(cancel("mine"));
    let missing = format!("NOT_FOUND - no queue '{address}' in vhost '/'");
    responder.refuses(declare(&address, "passive"), 404, &missing);
}

/// Proves: DRT-004, BND-009, H46
#[test]
fn a_reply_counts_as_routed_and_is_no_queue() {
    let broker = Broker::start();
    let (requester, responder) = (broker.channel(), broker.channel());
    responder.queue("requests");
    requester.consume(REPLIES, "", "no-ack");
    let address = request(&requester, &responder);
    responder.ok(confirm_select());
    responder.send(publish("", &address, "!").mandatory());
    assert_eq!(responder.confirm(), (1, true), "no return before it");
    assert_eq!(requester.deliveries(1), ["!"]);
    requester.close();
    for _ in 0..1000 {
        responder.send(publish("", &address, "!").mandatory());
    }
    assert!(
        responder.confirms(1001).iter().all(|(_, ack)| *ack),
        "the dead take replies too"
    );
    responder.send(publish("", "amq.rabbitmq.reply-to.forged", "!").mandatory());
    assert!(
        matches!(responder.next(), Event::Returned(_)),
        "what is no address is no reply"
    );
    responder.confirm();
    let refused = "ACCESS_REFUSED - cannot bind or unbind to a volatile (direct reply-to) queue";
    for binding in [
        bind(&address, "amq.direct", "k"),
        unbind(&address, "amq.direct", "k"),
    ] {
        responder.refuses(binding, 403, refused);
    }
    responder.ok(delete(&address, ""));
    let missing = format!("NOT_FOUND - no queue '{address}' in vhost '/'");
    responder.refuses(get(&address, ""), 404, &missing);
}

/// Proves: EXC-005
#[test]
fn an_existing_exchange_is_compared_before_its_arguments_are_checked() {
    let broker = Broker::start();
    let channel = bound(&broker, "amq.fanout", &["q"], "");
    channel.ok(exchange("e", "x-consistent-hash", ""));
    let both = [("hash-header", text("h")), ("hash-property", text("message_id"))];
    channel.ok(exchange("e", "x-consistent-hash", "").args(both));
    channel.refuses(
        exchange("e", "x-random", ""),
        406,
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost '/': \
         received 'x-random' but current is 'x-consistent-hash'",
    );
}
