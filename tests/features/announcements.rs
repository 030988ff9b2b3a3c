//! What the broker publishes about itself: the firehose and the event exchange.

use leveret::broker::{
    parameter::GlobalParameter,
    permission::{Permission, TopicPermission},
    policy::{ApplyTo, Policy, PolicyKind},
};
use leveret::server::{Handle, LogExchange, UserSpec, VhostSpec, Watermark};
use tracing_subscriber::layer::SubscriberExt;

use crate::client::{
    Arguments, Broker, Channel, Connection, Login, Message, Value, access_request, bind, cancel, consume,
    declare, delete, exchange, get, publish, text,
};

/// The header that tells whose doing it was.
const WHO: &str = "user_who_performed_action";

/// A channel on a connection of its own, consuming all of an exchange of the broker's.
fn listening(broker: &Broker, exchange: &str, keys: &[&str]) -> Channel {
    let channel = broker.channel();
    channel.queue("listener");
    for key in keys {
        channel.ok(bind("listener", exchange, key));
    }
    channel.consume("listener", "", "no-ack");
    channel
}

fn header(message: &Message, name: &str) -> String {
    match message.header(name) {
        Some(Value::LongString(text)) => String::from_utf8(text.as_bytes().to_vec()).unwrap(),
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn the_firehose_copies_publishes_and_deliveries_while_it_is_on() {
    let broker = Broker::start();
    let handle = broker.server().handle();
    let listener = listening(&broker, "amq.rabbitmq.trace", &["#"]);
    let channel = broker.channel();
    channel.queue("q");
    channel.fill("q", &["before"]);
    assert_eq!(channel.drain("q"), ["before"]);
    assert!(handle.set_tracing("/", true) && !handle.set_tracing("missing", true));
    assert_eq!(handle.is_traced("/"), Some(true));
    channel.send(publish("", "q", "body").headers([("h", text("v"))]));
    let copy = listener.delivery();
    assert_eq!(copy.exchange, "amq.rabbitmq.trace");
    assert_eq!((copy.key.as_str(), copy.text().as_str()), ("publish.", "body"));
    assert_eq!(header(&copy, "exchange_name"), "");
    assert_eq!(header(&copy, "user"), "guest");
    assert_eq!(header(&copy, "vhost"), "/");
    assert_eq!(copy.header("channel"), Some(&Value::LongInt(channel.id().into())));
    let Some(Value::FieldArray(queues)) = copy.header("routed_queues") else {
        panic!("{copy:?}")
    };
    assert_eq!(queues.as_slice(), [text("q")]);
    let Some(Value::FieldTable(properties)) = copy.header("properties") else {
        panic!("{copy:?}")
    };
    assert!(properties.inner().contains_key("headers"));
    channel.got(get("q", "no-ack")).unwrap();
    let copy = listener.delivery();
    assert_eq!((copy.key.as_str(), copy.text().as_str()), ("deliver.q", "body"));
    assert_eq!(copy.header("redelivered"), Some(&Value::LongInt(0)));
    channel.consume("q", "t", "no-ack");
    channel.publish("", "q", "to a consumer");
    let mut keys = [listener.delivery().key, listener.delivery().key];
    keys.sort_unstable();
    assert_eq!(keys, ["deliver.q", "publish."]);
    assert!(handle.set_tracing("/", false));
    channel.publish("", "q", "after");
    channel.ok(access_request());
    listener.ok(access_request());
    listener.nothing();
}

#[test]
fn a_binding_to_the_event_exchange_outlives_a_restart() {
    let broker = Broker::start_with(|options| options.event_exchange = true);
    let channel = broker.channel();
    channel.ok(declare("durable", "durable"));
    channel.ok(bind("durable", "amq.rabbitmq.event", "exchange.created"));
    channel.ok(exchange("first", "fanout", ""));
    // Nobody waits for an announcement, so it may come after the answer.
    while channel.count("durable").0 == 0 {}
    let mut broker = broker;
    broker.restart();
    assert!(broker.server().handle().enable_events("/"));
    let channel = broker.channel();
    channel.ok(exchange("second", "fanout", ""));
    channel.consume("durable", "", "no-ack");
    let told = [channel.delivery(), channel.delivery()];
    assert_eq!(told.map(|event| header(&event, "name")), ["first", "second"]);
}

#[test]
fn the_event_exchange_tells_what_comes_and_goes() {
    let broker = Broker::start();
    let early = broker.channel();
    early.refuses(
        bind("q", "amq.rabbitmq.event", "#"),
        404,
        "NOT_FOUND - no exchange 'amq.rabbitmq.event' in vhost '/'",
    );
    assert!(broker.server().handle().enable_events("/"));
    let keys = [
        "queue.*",
        "exchange.*",
        "binding.*",
        "connection.*",
        "channel.*",
        "consumer.*",
    ];
    let listener = listening(&broker, "amq.rabbitmq.event", &keys);
    let expect = |key: &str, name: &str, value: &str| {
        // What the listener itself did may come between.
        loop {
            let event = listener.delivery();
            assert_eq!(event.exchange, "amq.rabbitmq.event");
            if event.key == key && event.header(name) == Some(&text(value)) {
                assert!(event.header("timestamp_in_ms").is_some() && event.properties.timestamp().is_some());
                return event;
            }
        }
    };
    let connection = broker.connect();
    let created = expect("connection.created", "user", "guest");
    let name = header(&created, "name");
    let channel = connection.channel();
    expect("channel.created", "connection", &name);
    channel.ok(exchange("e", "topic", "durable"));
    assert_eq!(header(&expect("exchange.created", "name", "e"), "type"), "topic");
    channel.ok(declare("q", "exclusive"));
    let queue = expect("queue.created", "name", "q");
    assert_eq!(queue.header("exclusive"), Some(&true.into()));
    channel.ok(bind("q", "e", "k"));
    assert_eq!(
        header(&expect("binding.created", "source_name", "e"), "routing_key"),
        "k"
    );
    channel.ok(consume("q", "t", ""));
    assert_eq!(
        header(&expect("consumer.created", "consumer_tag", "t"), "queue"),
        "q"
    );
    channel.ok(cancel("t"));
    expect("consumer.deleted", "consumer_tag", "t");
    channel.ok(delete("q", ""));
    assert_eq!(header(&expect("queue.deleted", "name", "q"), WHO), "guest");
    expect("binding.deleted", "destination_name", "q");
    let without_e = |handle: Handle| handle.acting_for("operator").delete_exchange("/", "e", false);
    let deleting = broker.tell(async |handle| tokio::task::spawn_blocking(move || without_e(handle)).await);
    deleting.unwrap().unwrap();
    assert_eq!(header(&expect("exchange.deleted", "name", "e"), WHO), "operator");
    channel.declare(declare("short-lived", "").args([("x-expires", 1.into())]));
    assert_eq!(
        header(&expect("queue.created", "name", "short-lived"), WHO),
        "guest"
    );
    assert_eq!(
        header(&expect("queue.deleted", "name", "short-lived"), WHO),
        "rmq-internal"
    );
    channel.close();
    expect("channel.closed", "connection", &name);
    connection.close();
    expect("connection.closed", "name", &name);
}

/// One change of each kind.
async fn operators_at_work(handle: &Handle) {
    handle.put_vhost("v", VhostSpec::default()).await.unwrap();
    handle.set_vhost_limit("v", "max-queues", Some(7)).await.unwrap();
    handle.put_user(UserSpec::new("u", "first")).await.unwrap();
    let tagged = UserSpec {
        tags: vec!["monitoring".to_owned()],
        ..UserSpec::new("u", "second")
    };
    handle.put_user(tagged).await.unwrap();
    handle
        .set_permission(Permission {
            user: "u".into(),
            vhost: "v".into(),
            configure: "c".to_owned(),
            write: "w".to_owned(),
            read: "r".to_owned(),
        })
        .await
        .unwrap();
    handle
        .set_topic_permission(TopicPermission {
            user: "u".into(),
            vhost: "v".into(),
            exchange: "amq.topic".into(),
            write: "w".to_owned(),
            read: "r".to_owned(),
        })
        .await
        .unwrap();
    handle.clear_topic_permissions("u", "v", None).await.unwrap();
    handle.clear_permission("u", "v").await.unwrap();
    handle
        .set_policy(Policy {
            vhost: "v".into(),
            name: "p".into(),
            kind: PolicyKind::User,
            pattern: "^q".to_owned(),
            apply_to: ApplyTo::Queues,
            priority: 3,
            definition: [("max-length".to_owned(), 5.into())].into_iter().collect(),
        })
        .await
        .unwrap();
    handle.clear_policy(PolicyKind::User, "v", "p").await.unwrap();
    let global = GlobalParameter {
        name: "g".into(),
        value: "value".into(),
    };
    handle.set_global_parameter(global).await.unwrap();
    handle.clear_global_parameter("g").await.unwrap();
    handle.delete_vhost("v").await.unwrap();
    handle.delete_user("u").await.unwrap();
}

/// The events of [`operators_at_work`] and of a memory alarm, with some of their headers.
const ANNOUNCED: [(&str, &[(&str, &str)]); 17] = [
    ("vhost.created", &[("name", "v")]),
    ("vhost.limits.set", &[("name", "v")]),
    ("user.created", &[("name", "u")]),
    ("user.password.changed", &[("name", "u")]),
    ("user.tags.set", &[("name", "u")]),
    (
        "permission.created",
        &[
            ("user", "u"),
            ("vhost", "v"),
            ("configure", "c"),
            ("write", "w"),
            ("read", "r"),
        ],
    ),
    (
        "topic.permission.created",
        &[("user", "u"), ("exchange", "amq.topic")],
    ),
    (
        "topic.permission.deleted",
        &[("user", "u"), ("exchange", "amq.topic")],
    ),
    ("permission.deleted", &[("user", "u"), ("vhost", "v")]),
    (
        "policy.set",
        &[
            ("name", "p"),
            ("vhost", "v"),
            ("pattern", "^q"),
            ("apply-to", "queues"),
        ],
    ),
    ("policy.cleared", &[("name", "p"), ("vhost", "v")]),
    (
        "parameter.set",
        &[("name", "g"), ("component", "global"), ("value", "value")],
    ),
    ("parameter.cleared", &[("name", "g"), ("component", "global")]),
    ("vhost.deleted", &[("name", "v")]),
    ("user.deleted", &[("name", "u")]),
    ("alarm.set", &[("source", "memory")]),
    ("alarm.cleared", &[("source", "memory")]),
];

#[test]
fn the_event_exchange_tells_what_operators_change() {
    let broker = Broker::start_with(|options| options.event_exchange = true);
    let keys = [
        "user.#",
        "vhost.#",
        "permission.*",
        "topic.permission.*",
        "policy.*",
        "operator.policy.*",
        "parameter.*",
        "alarm.*",
    ];
    let listener = listening(&broker, "amq.rabbitmq.event", &keys);
    broker.tell(async |handle| operators_at_work(&handle).await);
    broker
        .server()
        .handle()
        .set_memory_high_watermark(Watermark::Bytes(0));
    for (key, headers) in ANNOUNCED {
        if key == "alarm.cleared" {
            let all = Watermark::Relative(1.0);
            broker.server().handle().set_memory_high_watermark(all);
        }
        let event = listener.delivery();
        assert_eq!(event.key, key);
        for (name, value) in headers {
            assert_eq!(header(&event, name), *value, "{name} of {key}");
        }
    }
}

#[test]
fn the_log_exchange_has_the_lines_of_the_log() {
    let log = LogExchange::default();
    let given = log.clone();
    let broker = Broker::start_with(move |options| options.log_exchange = Some(given));
    let listener = listening(&broker, "amq.rabbitmq.log", &["warning", "error"]);
    let subscriber = tracing_subscriber::registry().with(log);
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("not bound");
        tracing::warn!(queue = "q", "something is odd");
        tracing::error!("something is broken");
    });
    let line = listener.delivery();
    assert_eq!(
        (line.key.as_str(), line.text().as_str()),
        ("warning", "something is odd queue=\"q\"")
    );
    assert!(line.properties.timestamp().is_some());
    assert_eq!(header(&line, "level"), "warning");
    let line = listener.delivery();
    assert_eq!(
        (line.key.as_str(), line.text().as_str()),
        ("error", "something is broken")
    );
}

#[test]
fn the_event_exchange_tells_who_logs_in_and_who_may_not() {
    let broker = Broker::start();
    assert!(broker.server().handle().enable_events("/"));
    let listener = listening(&broker, "amq.rabbitmq.event", &["user.authentication.*"]);
    let wrong = Login {
        password: "wrong",
        ..Login::default()
    };
    assert!(Connection::try_open(broker.address(), &wrong).is_err());
    let failure = listener.delivery();
    assert_eq!(failure.key, "user.authentication.failure");
    assert_eq!(header(&failure, "name"), "guest");
    broker.connect();
    assert_eq!(listener.delivery().key, "user.authentication.success");
}
