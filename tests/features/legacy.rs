//! What RabbitMQ removed or deprecated over the years and clients may still try (amqp-behaviour 11), answered as we
//! chose: leniently where that harms nobody, as RabbitMQ 4.3 does otherwise.

use amq_protocol::protocol::{AMQPClass, access, basic, channel as channel_class};

use crate::client::{Arguments, Broker, Raw, access_request, consume, declare, publish, qos, recover, text};

/// Proves: DEP-001
#[test]
fn old_habits_that_harm_nobody_are_taken() {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.declare(declare("transient and shared", ""));
    for (at, (name, value)) in [
        ("x-ha-policy", text("all")),
        ("x-queue-mode", text("lazy")),
        ("x-queue-master-locator", text("min-masters")),
        ("x-queue-version", 2.into()),
    ]
    .into_iter()
    .enumerate()
    {
        channel.declare(declare(&format!("q{at}"), "durable").args([(name, value)]));
    }
    let quorum = declare("quorum", "durable").args([
        ("x-queue-type", text("quorum")),
        ("x-max-in-memory-length", 5.into()),
    ]);
    channel.declare(quorum);
    channel.ok(qos(10, true));
    channel.ok(qos(0, true));
    channel.ok(consume("q0", "t", "no-local").args([("x-cancel-on-ha-failover", true.into())]));
    channel.send(AMQPClass::Basic(basic::AMQPMethod::CancelOk(basic::CancelOk {
        consumer_tag: "t".into(),
    })));
    let granted = channel.ok(access_request());
    assert!(matches!(
        granted,
        AMQPClass::Access(access::AMQPMethod::RequestOk(access::RequestOk {}))
    ));
}

/// Proves: DEP-001
#[test]
fn what_is_gone_for_good_says_so() {
    let broker = Broker::start();
    let flow = AMQPClass::Channel(channel_class::AMQPMethod::Flow(channel_class::Flow {
        active: false,
    }));
    let not_implemented = |explanation: &str| format!("NOT_IMPLEMENTED - {explanation}");
    broker
        .channel()
        .fails(flow, 540, &not_implemented("active=false"));
    broker
        .channel()
        .fails(recover(false), 540, &not_implemented("requeue=false"));
    let immediate = publish("", "q", "").immediate();
    broker
        .channel()
        .fails(immediate, 540, &not_implemented("immediate=true"));
    let credit = Raw {
        class: 60,
        method: 200,
        fields: vec![1, b't', 0, 0, 0, 1, 0],
    };
    let channel = broker.channel();
    channel.send(credit);
    assert_eq!(channel.connection().closed().code, 503);
    broker.channel().refuses(
        declare("q", "").args([("x-queue-version", 1.into())]),
        406,
        "PRECONDITION_FAILED - invalid arg 'x-queue-version' for queue 'q' in vhost '/': \"unsupported queue version \
         '1'\"",
    );
}
