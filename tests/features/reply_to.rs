//! Direct reply-to.

use crate::client::{Broker, Channel, bind, cancel, confirm_select, consume, declare, get, publish};

const PSEUDO_QUEUE: &str = "amq.rabbitmq.reply-to";

fn request(channel: &Channel, queue: &str) {
    channel
        .send(publish("", queue, "request").with(|properties| properties.with_reply_to(PSEUDO_QUEUE.into())));
}

/// The address in a request that waits in `work`.
fn address(channel: &Channel) -> String {
    let got = channel.got(get("work", "no-ack")).unwrap();
    got.properties.reply_to().as_ref().unwrap().to_string()
}

/// Proves: DRT-001
#[test]
fn a_reply_consumer_does_not_ack_and_is_alone_on_its_channel() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.refuses(
        consume(PSEUDO_QUEUE, "t", ""),
        406,
        "PRECONDITION_FAILED - reply consumer cannot acknowledge",
    );
    channel.consume(PSEUDO_QUEUE, "t", "no-ack");
    channel.refuses(
        consume(PSEUDO_QUEUE, "u", "no-ack"),
        406,
        "PRECONDITION_FAILED - reply consumer already set",
    );
    let tag = channel.consume(PSEUDO_QUEUE, "", "no-ack");
    channel.ok(cancel(&tag));
    channel.consume(PSEUDO_QUEUE, "again", "no-ack");
}

/// Proves: DRT-002
#[test]
fn a_request_carries_the_address_of_its_channel() {
    let broker = Broker::start();
    let connection = broker.connect();
    let (channel, other) = (connection.channel(), connection.channel());
    channel.queue("work");
    channel.consume(PSEUDO_QUEUE, "t", "no-ack");
    request(&channel, "work");
    request(&channel, "work");
    let first = address(&channel);
    assert!(
        first.starts_with("amq.rabbitmq.reply-to.") && first.len() <= 255,
        "{first}"
    );
    assert_eq!(address(&channel), first, "it stays the same");
    let text = "PRECONDITION_FAILED - fast reply consumer does not exist";
    other.refuses(
        publish("", "work", "").with(|properties| properties.with_reply_to(PSEUDO_QUEUE.into())),
        406,
        text,
    );
}

/// Proves: DRT-003, BND-009
#[test]
fn a_reply_reaches_the_requester_whose_address_can_be_probed() {
    let broker = Broker::start();
    let (requester, responder) = (broker.channel(), broker.channel());
    requester.queue("work");
    requester.consume(PSEUDO_QUEUE, "mine", "no-ack");
    request(&requester, "work");
    requester.nothing();
    let address = address(&responder);
    assert_eq!(
        responder.declare(declare(&address, "passive")),
        (address.clone(), 0, 1)
    );
    assert_eq!(responder.declare(declare(PSEUDO_QUEUE, "")).2, 1);
    responder.publish("", &address, "reply");
    let reply = requester.delivery();
    assert_eq!(
        (&*reply.consumer, &*reply.text(), reply.redelivered),
        ("mine", "reply", false)
    );
    assert_eq!((&*reply.exchange, &*reply.key), ("", &*address));
    responder.refuses(
        bind(&address, "amq.direct", "k"),
        403,
        "ACCESS_REFUSED - cannot bind or unbind to a volatile (direct reply-to) queue",
    );
    requester.ok(cancel("mine"));
    responder.refuses(
        declare(&address, "passive"),
        404,
        &format!("NOT_FOUND - no queue '{address}' in vhost '/'"),
    );
}

/// Proves: DRT-004
#[test]
fn a_mandatory_reply_counts_as_routed_even_when_nobody_waits() {
    let broker = Broker::start();
    let (requester, responder) = (broker.channel(), broker.channel());
    requester.queue("work");
    requester.consume(PSEUDO_QUEUE, "t", "no-ack");
    request(&requester, "work");
    requester.nothing();
    let address = address(&responder);
    responder.ok(confirm_select());
    responder.send(publish("", &address, "1").mandatory());
    assert_eq!(responder.confirm(), (1, true));
    assert_eq!(requester.delivery().text(), "1");
    requester.close();
    responder.send(publish("", &address, "2").mandatory());
    assert_eq!(responder.confirm(), (2, true));
}
