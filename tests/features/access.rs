//! Users, permissions and limits on the wire (amqp-behaviour 1.5, 6.4, 7): what each row of the permission table allows and
//! refuses, and that changes reach connections that are open.

use leveret::broker::{
    permission::{Permission, TopicPermission},
    user::{HashingAlgorithm, PasswordHash},
};
use leveret::server::{AdminError, Change, Missing, NewPassword, UserSpec, VhostSpec};

use crate::client::{
    Arguments, Broker, Channel, Close, Connection, Event, Login, Method, array, bind, bind_exchange, cancel,
    consume, declare, delete, delete_exchange, exchange, get, publish, purge, text, unbind, unbind_exchange,
};

const USER: Login<'static> = Login {
    user: "u",
    password: "pw",
    vhost: "/",
    capabilities: &["authentication_failure_close", "consumer_cancel_notify"],
};

fn permission(configure: &str, write: &str, read: &str) -> Permission {
    Permission {
        user: "u".into(),
        vhost: "/".into(),
        configure: configure.to_owned(),
        write: write.to_owned(),
        read: read.to_owned(),
    }
}

fn topic_permission(exchange: &str, write: &str, read: &str) -> TopicPermission {
    TopicPermission {
        user: "u".into(),
        vhost: "/".into(),
        exchange: exchange.into(),
        write: write.to_owned(),
        read: read.to_owned(),
    }
}

fn permit(broker: &Broker, configure: &str, write: &str, read: &str) {
    let permission = permission(configure, write, read);
    broker.tell(async move |handle| handle.set_permission(permission).await.unwrap());
}

/// A broker with the user `u`, who may do nothing yet.
fn broker_with_user() -> Broker {
    let broker = Broker::start();
    add_user(&broker);
    broker
}

fn add_user(broker: &Broker) {
    broker.tell(async |handle| handle.put_user(UserSpec::new("u", "pw")).await.unwrap());
}

fn refused(verb: &str, resource: &str) -> String {
    format!("ACCESS_REFUSED - {verb} access to {resource} in vhost '/' refused for user 'u'")
}

/// One row of the permission table: the operation, and which pattern must match which name for it.
struct Row {
    what: &'static str,
    request: fn() -> Method,
    /// Verb, kind, name; in the order in which they are checked.
    needs: &'static [(&'static str, &'static str, &'static str)],
}

fn dead_lettering() -> Method {
    declare("new", "").args([("x-dead-letter-exchange", text("dlx"))])
}

fn with_alternate() -> Method {
    exchange("fresh", "fanout", "").args([("alternate-exchange", text("alt"))])
}

const TABLE: &[Row] = &[
    Row {
        what: "exchange.declare",
        request: || exchange("fresh", "direct", ""),
        needs: &[("configure", "exchange", "fresh")],
    },
    Row {
        what: "exchange.declare with an alternate exchange",
        request: with_alternate,
        needs: &[
            ("configure", "exchange", "fresh"),
            ("read", "exchange", "fresh"),
            ("write", "exchange", "alt"),
        ],
    },
    Row {
        what: "exchange.delete",
        request: || delete_exchange("e", ""),
        needs: &[("configure", "exchange", "e")],
    },
    Row {
        what: "queue.declare",
        request: || declare("new", ""),
        needs: &[("configure", "queue", "new")],
    },
    Row {
        what: "queue.declare with dead-lettering",
        request: dead_lettering,
        needs: &[
            ("configure", "queue", "new"),
            ("read", "queue", "new"),
            ("write", "exchange", "dlx"),
        ],
    },
    Row {
        what: "queue.delete",
        request: || delete("q", ""),
        needs: &[("configure", "queue", "q")],
    },
    Row {
        what: "queue.bind",
        request: || bind("q", "e", "k"),
        needs: &[("write", "queue", "q"), ("read", "exchange", "e")],
    },
    Row {
        what: "queue.unbind",
        request: || unbind("q", "e", "k"),
        needs: &[("write", "queue", "q"), ("read", "exchange", "e")],
    },
    Row {
        what: "exchange.bind",
        request: || bind_exchange("d", "e", "k"),
        needs: &[("write", "exchange", "d"), ("read", "exchange", "e")],
    },
    Row {
        what: "exchange.unbind",
        request: || unbind_exchange("d", "e", "k"),
        needs: &[("write", "exchange", "d"), ("read", "exchange", "e")],
    },
    Row {
        what: "queue.purge",
        request: || purge("q"),
        needs: &[("read", "queue", "q")],
    },
    Row {
        what: "basic.get",
        request: || get("q", ""),
        needs: &[("read", "queue", "q")],
    },
    Row {
        what: "basic.consume",
        request: || consume("q", "tag", ""),
        needs: &[("read", "queue", "q")],
    },
];

/// Patterns that grant the first `count` needs and nothing else.
fn granting(needs: &[(&str, &str, &str)], count: usize) -> [String; 3] {
    ["configure", "write", "read"].map(|verb| {
        let names: Vec<&str> = needs[..count]
            .iter()
            .filter(|need| need.0 == verb)
            .map(|need| need.2)
            .collect();
        if names.is_empty() {
            String::new()
        } else {
            format!("^({})$", names.join("|"))
        }
    })
}

/// Each row is tried with ever more of what it needs: the first missing need is the one that is named.
///
/// Proves: PRM-001, QUE-025, H58
#[test]
fn each_operation_needs_what_the_permission_table_says() {
    for row in TABLE {
        let broker = broker_with_user();
        let owner = broker.channel();
        owner.queue("q");
        owner.ok(exchange("e", "direct", ""));
        owner.ok(exchange("d", "fanout", ""));
        permit(&broker, "", "", "");
        let channel = broker.connect_as(&USER).channel();
        for count in 0..row.needs.len() {
            let [configure, write, read] = granting(row.needs, count);
            permit(&broker, &configure, &write, &read);
            let (verb, kind, name) = row.needs[count];
            let close = channel.refusal((row.request)());
            assert_eq!(
                (close.code, close.text),
                (403, refused(verb, &format!("{kind} '{name}'"))),
                "{} with {count} of its needs",
                row.what
            );
        }
        let [configure, write, read] = granting(row.needs, row.needs.len());
        permit(&broker, &configure, &write, &read);
        channel.call((row.request)());
    }
}

/// Proves: PRM-001, PRM-002, H58
#[test]
fn publishing_needs_write_on_the_exchange_and_the_default_one_has_a_name() {
    let broker = broker_with_user();
    broker.channel().queue("q");
    permit(&broker, "", "^e$", "");
    let channel = broker.connect_as(&USER).channel();
    channel.send(publish("", "q", "x"));
    let close = channel.closed();
    assert_eq!(
        (close.code, close.text, (close.class, close.method)),
        (403, refused("write", "exchange 'amq.default'"), (60, 40))
    );
    channel.send(publish("amq.fanout", "", "x"));
    assert_eq!(channel.closed().text, refused("write", "exchange 'amq.fanout'"));
    permit(&broker, "", "^amq\\.default$", "");
    channel.fill("q", &["granted"]);
    assert_eq!(broker.channel().drain("q"), ["granted"]);
    // A route that is remembered does not outlive the permission.
    permit(&broker, "", "", "");
    channel.send(publish("", "q", "x"));
    assert_eq!(channel.closed().text, refused("write", "exchange 'amq.default'"));
}

/// Proves: PRM-003
#[test]
fn permissions_are_checked_before_existence() {
    let broker = broker_with_user();
    permit(&broker, "", "", "");
    let channel = broker.connect_as(&USER).channel();
    channel.refuses(get("none", ""), 403, &refused("read", "queue 'none'"));
    channel.refuses(delete("none", ""), 403, &refused("configure", "queue 'none'"));
    channel.refuses(bind("none", "nil", ""), 403, &refused("write", "queue 'none'"));
    channel.send(publish("none", "", "x"));
    assert_eq!(channel.closed().text, refused("write", "exchange 'none'"));
}

/// Proves: PRM-004, H58
#[test]
fn a_passive_declaration_needs_any_of_the_three() {
    let broker = broker_with_user();
    let owner = broker.channel();
    owner.queue("thing");
    owner.ok(exchange("thing", "direct", ""));
    permit(&broker, "", "", "");
    let channel = broker.connect_as(&USER).channel();
    channel.refuses(
        declare("thing", "passive"),
        403,
        &refused("configure", "queue 'thing'"),
    );
    channel.refuses(
        exchange("thing", "direct", "passive"),
        403,
        &refused("configure", "exchange 'thing'"),
    );
    for (configure, write, read) in [("thing", "", ""), ("", "thing", ""), ("", "", "thing")] {
        permit(&broker, configure, write, read);
        channel.ok(declare("thing", "passive"));
        channel.ok(exchange("thing", "direct", "passive"));
        assert_eq!(channel.refusal(declare("other", "passive")).code, 403);
    }
}

/// Arguments that name an exchange are checked for what is new, not for what exists (amqp-behaviour 7.1).
#[test]
fn a_redeclaration_needs_only_configure() {
    let broker = broker_with_user();
    let owner = broker.channel();
    owner.ok(dead_lettering());
    owner.ok(with_alternate());
    permit(&broker, "^(new|fresh)$", "", "");
    let channel = broker.connect_as(&USER).channel();
    channel.ok(dead_lettering());
    channel.ok(with_alternate());
}

/// Proves: PRM-005, H58
#[test]
fn topic_permissions_bound_the_keys_of_publishes_and_bindings() {
    let broker = broker_with_user();
    broker.channel().queue("q");
    broker.channel().ok(bind("q", "amq.topic", "#"));
    permit(&broker, "", ".*", ".*");
    let topic = topic_permission("amq.topic", "^{username}\\.", "^read\\.");
    broker.tell(async |handle| handle.set_topic_permission(topic).await.unwrap());
    let channel = broker.connect_as(&USER).channel();
    let refused = |verb: &str, key: &str| {
        format!(
            "ACCESS_REFUSED - {verb} access to topic '{key}' in exchange 'amq.topic' in vhost '/' refused for user 'u'"
        )
    };
    let try_publish = |request| {
        channel.send(request);
        channel.closed().text
    };
    assert_eq!(
        try_publish(publish("amq.topic", "x.1", "no")),
        refused("write", "x.1")
    );
    for header in ["CC", "BCC"] {
        let request =
            publish("amq.topic", "u.1", "no").headers([(header, array([text("u.2"), text("x.2")]))]);
        assert_eq!(try_publish(request), refused("write", "x.2"), "{header}");
    }
    channel.refuses(bind("q", "amq.topic", "other"), 403, &refused("read", "other"));
    channel.refuses(unbind("q", "amq.topic", "other"), 403, &refused("read", "other"));
    channel.ok(bind("q", "amq.topic", "read.this"));
    channel.send(publish("amq.topic", "u.1", "yes"));
    // Of other types, and of topic exchanges without a rule, nothing is asked.
    channel.send(publish("amq.fanout", "x", "no queue"));
    channel.ok(bind("q", "amq.direct", "other"));
    assert_eq!(broker.channel().drain("q"), ["yes"]);
    broker.tell(async |handle| handle.clear_topic_permissions("u", "/", None).await.unwrap());
    channel.send(publish("amq.topic", "x.1", "lifted"));
    channel.ok(bind("q", "amq.topic", "other"));
    assert_eq!(broker.channel().drain("q"), ["lifted"]);
}

/// Proves: PRM-006
#[test]
fn only_an_impersonator_speaks_for_others() {
    let broker = broker_with_user();
    permit(&broker, ".*", ".*", ".*");
    let channel = broker.connect_as(&USER).channel();
    channel.queue("q");
    let claiming = |user: &str| publish("", "q", "x").with(|properties| properties.with_user_id(user.into()));
    channel.send(claiming("u"));
    channel.send(claiming("guest"));
    assert_eq!(
        channel.closed().text,
        "PRECONDITION_FAILED - user_id property set to 'guest' but authenticated user was 'u'"
    );
    broker.tell(async |handle| {
        let spec = UserSpec {
            password: NewPassword::Keep,
            tags: vec!["impersonator".to_owned()],
            ..UserSpec::new("u", "")
        };
        assert_eq!(handle.put_user(spec).await.unwrap(), Change::Updated);
    });
    channel.send(claiming("guest"));
    assert_eq!(channel.drain("q").len(), 2);
}

/// Proves: PRM-007
#[test]
fn users_with_hashes_of_rabbitmq_log_in() {
    let broker = Broker::start();
    for (name, algorithm, password) in [
        ("sha256", HashingAlgorithm::Sha256, "one"),
        ("sha512", HashingAlgorithm::Sha512, "two"),
        ("md5", HashingAlgorithm::Md5, "three"),
        ("argon2id", HashingAlgorithm::Argon2id, "four"),
    ] {
        broker.tell(async |handle| {
            let made = handle
                .hash_password(password.to_owned(), Some(algorithm))
                .await
                .unwrap();
            let hash = PasswordHash {
                algorithm,
                bytes: made.bytes,
            };
            let spec = UserSpec {
                password: NewPassword::Hash(hash),
                ..UserSpec::new(name, "")
            };
            assert_eq!(handle.put_user(spec).await.unwrap(), Change::Created);
            let everything = Permission {
                user: name.into(),
                ..permission(".*", ".*", ".*")
            };
            handle.set_permission(everything).await.unwrap();
        });
        let login = |password| Login {
            user: name,
            password,
            ..Login::default()
        };
        broker.connect_as(&login(password)).close();
        assert_eq!(try_login(&broker, &login("wrong")).code, 403, "{name}");
    }
}

fn try_login(broker: &Broker, login: &Login<'_>) -> Close {
    match Connection::try_open(broker.address(), login) {
        Ok(_) => panic!("{} was let in", login.user),
        Err(close) => close,
    }
}

/// Proves: PRM-008, CON-032, CON-037
#[test]
fn a_permission_with_empty_patterns_opens_the_vhost_and_nothing_else() {
    let broker = broker_with_user();
    let close = try_login(&broker, &USER);
    assert_eq!(
        (close.code, &*close.text, (close.class, close.method)),
        (
            530,
            "NOT_ALLOWED - access to vhost '/' refused for user 'u'",
            (10, 40)
        )
    );
    permit(&broker, "", "", "");
    let channel = broker.connect_as(&USER).channel();
    assert_eq!(channel.refusal(declare("", "exclusive")).code, 403);
    assert_eq!(channel.refusal(exchange("e", "direct", "")).code, 403);
}

/// Proves: CON-033, CON-034, CON-035, LIM-001
#[test]
fn connection_limits_are_told_apart() {
    let broker = Broker::start_with(|options| options.limits.connection_max = Some(2));
    add_user(&broker);
    permit(&broker, "", "", "");
    let limit = |user: Option<i64>, vhost: Option<i64>| {
        broker.tell(async |handle| {
            handle.set_user_limit("u", "max-connections", user).await.unwrap();
            handle
                .set_vhost_limit("/", "max-connections", vhost)
                .await
                .unwrap();
        });
    };
    let first = broker.connect();
    for (user, vhost, text) in [
        (
            Some(0),
            None,
            "connection refused for user 'u': user connection limit (0) is reached",
        ),
        (
            Some(0),
            Some(1),
            "access to vhost '/' refused for user 'u': connection limit (1) is reached",
        ),
    ] {
        limit(user, vhost);
        let close = try_login(&broker, &USER);
        assert_eq!((close.code, close.text), (530, format!("NOT_ALLOWED - {text}")));
    }
    limit(Some(-1), Some(-1));
    let second = broker.connect_as(&USER);
    assert_eq!(
        try_login(&broker, &USER).text,
        "NOT_ALLOWED - connection refused: node connection limit (2) is reached"
    );
    second.close();
    limit(Some(1), Some(2));
    let third = eventually(|| Connection::try_open(broker.address(), &USER).ok());
    assert!(try_login(&broker, &USER).text.contains("limit (2) is reached"));
    drop((first, third));
}

/// A place is given back when the broker has noticed that a client is gone, which is soon.
fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::time::Instant::now() < deadline {
        if let Some(found) = attempt() {
            return found;
        }
        std::thread::yield_now();
    }
    panic!("it never happened");
}

/// Proves: CON-040, LIM-001
#[test]
fn a_user_has_only_so_many_channels_on_all_connections() {
    let broker = broker_with_user();
    permit(&broker, "", "", "");
    broker.tell(async |handle| handle.set_user_limit("u", "max-channels", Some(2)).await.unwrap());
    let (one, two) = (broker.connect_as(&USER), broker.connect_as(&USER));
    let first = one.channel();
    two.channel();
    first.close();
    one.channel();
    let close = two.refused_channel();
    assert_eq!(
        (close.code, &*close.text, (close.class, close.method)),
        (
            530,
            "NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed user limit of 2",
            (0, 0)
        )
    );
}

/// Proves: QUE-023, LIM-001
#[test]
fn a_vhost_and_the_broker_have_room_for_so_many_queues() {
    let broker = Broker::start_with(|options| options.limits.queue_max = Some(3));
    let set = |value| {
        broker.tell(async |handle| handle.set_vhost_limit("/", "max-queues", value).await.unwrap());
    };
    let channel = broker.channel();
    let text = |queue: &str, limit: &str| {
        format!("PRECONDITION_FAILED - cannot declare queue '{queue}': queue limit in {limit} is reached")
    };
    set(Some(0));
    channel.refuses(declare("a", ""), 406, &text("a", "vhost '/' (0)"));
    set(Some(2));
    channel.queue("a");
    channel.ok(declare("b", "exclusive"));
    channel.refuses(declare("c", ""), 406, &text("c", "vhost '/' (2)"));
    channel.queue("a");
    set(Some(-1));
    channel.queue("c");
    channel.refuses(declare("d", ""), 406, &text("d", "cluster (3)"));
    channel.queue("c");
}

/// Proves: QUE-024
#[test]
fn a_queue_without_a_type_gets_the_vhosts_as_far_as_it_can() {
    let broker = Broker::start();
    broker.tell(async |handle| {
        let spec = |kind: &str| VhostSpec {
            default_queue_type: Some(kind.to_owned()),
            ..VhostSpec::default()
        };
        handle.put_vhost("/", spec("classic")).await.unwrap();
        assert!(matches!(
            handle.put_vhost("/", spec("tape")).await,
            Err(AdminError::Invalid(_))
        ));
    });
    let channel = broker.channel();
    channel.ok(declare("q", "durable"));
    // What was injected does not stand in the way of who says it, or says nothing.
    channel.ok(declare("q", "durable").args([("x-queue-type", text("classic"))]));
    channel.ok(declare("q", "durable"));
}

/// Proves: CON-051, H59
#[test]
fn deleting_a_user_or_a_vhost_closes_its_connections() {
    let broker = broker_with_user();
    broker.tell(async |handle| {
        assert_eq!(
            handle.put_vhost("v", VhostSpec::default()).await.unwrap(),
            Change::Created
        );
        let guest = Permission {
            user: "guest".into(),
            vhost: "v".into(),
            ..permission(".*", ".*", ".*")
        };
        handle.set_permission(guest).await.unwrap();
    });
    permit(&broker, ".*", ".*", ".*");
    let guest = broker.connect_as(&Login {
        vhost: "v",
        ..Login::default()
    });
    guest.channel().ok(declare("q", "durable"));
    let user = broker.connect_as(&USER);
    broker.tell(async |handle| {
        handle.delete_user("u").await.unwrap();
        handle.delete_vhost("v").await.unwrap();
    });
    let closed = |connection: &Connection| {
        let close = connection.closed();
        (close.code, close.text)
    };
    assert_eq!(
        closed(&user),
        (320, "CONNECTION_FORCED - user 'u' is deleted".to_owned())
    );
    assert_eq!(
        closed(&guest),
        (320, "CONNECTION_FORCED - vhost 'v' is deleted".to_owned())
    );
    assert_eq!(try_login(&broker, &USER).code, 403);
    let open = |vhost| {
        try_login(
            &broker,
            &Login {
                vhost,
                ..Login::default()
            },
        )
    };
    assert_eq!(open("v").text, "NOT_ALLOWED - vhost v not found");
    // What comes anew under the old name is empty.
    broker.tell(async |handle| handle.put_vhost("v", VhostSpec::default()).await.unwrap());
    assert_eq!(
        open("v").text,
        "NOT_ALLOWED - access to vhost 'v' refused for user 'guest'"
    );
    assert_eq!(broker.server().counts().queues, 0);
}

/// Proves: H59
#[test]
fn a_consumer_whose_user_may_not_read_any_more_is_cancelled() {
    let broker = broker_with_user();
    permit(&broker, ".*", ".*", ".*");
    let channel = broker.connect_as(&USER).channel();
    for queue in ["a", "b"] {
        channel.queue(queue);
        channel.consume(queue, queue, "");
    }
    let cancelled = |channel: &Channel| match channel.next() {
        Event::Method(method) => format!("{method:?}"),
        other => panic!("{other:?}"),
    };
    permit(&broker, ".*", ".*", "^b$");
    assert!(cancelled(&channel).contains("consumer_tag: ShortString(\"a\")"));
    assert_eq!(broker.channel().count("a"), (0, 0));
    assert_eq!(broker.channel().count("b"), (0, 1));
    broker.tell(async |handle| handle.clear_permission("u", "/").await.unwrap());
    assert!(cancelled(&channel).contains("consumer_tag: ShortString(\"b\")"));
    channel.send(declare("c", ""));
    assert_eq!(channel.closed().code, 403);
}

/// Users, vhosts, permissions and their limits are kept.
#[test]
fn what_operators_set_survives_a_restart() {
    let mut broker = broker_with_user();
    permit(&broker, "^c", "^w", "^r");
    broker.tell(async |handle| {
        let spec = VhostSpec {
            description: Some("a place".to_owned()),
            tags: Some(vec!["t".to_owned()]),
            protected: Some(true),
            ..VhostSpec::default()
        };
        handle.put_vhost("v", spec).await.unwrap();
        handle.set_vhost_limit("v", "max-queues", Some(7)).await.unwrap();
        handle.set_user_limit("u", "max-channels", Some(3)).await.unwrap();
        handle
            .set_topic_permission(topic_permission("t", "a", "b"))
            .await
            .unwrap();
        handle.delete_user("guest").await.unwrap();
    });
    let seen = |broker: &Broker| {
        let handle = broker.server().handle();
        format!(
            "{:?} {:?} {:?} {:?}",
            handle.users(),
            handle.vhosts(),
            handle.permissions(),
            handle.topic_permissions()
        )
    };
    let before = seen(&broker);
    broker.restart();
    assert_eq!(seen(&broker), before);
    assert!(
        before.contains("a place") && !before.contains("guest"),
        "{before}"
    );
    let login = Login {
        user: "u",
        password: "pw",
        ..Login::default()
    };
    broker.connect_as(&login).close();
    broker.tell(async |handle| {
        let refused = handle.delete_vhost("v").await;
        assert!(matches!(refused, Err(AdminError::Protected(_))), "{refused:?}");
        let unknown = handle.delete_vhost("w").await;
        assert_eq!(unknown, Err(AdminError::Missing(Missing::Vhost, "w".to_owned())));
    });
}

/// Proves: QUE-016
#[test]
fn transient_queues_are_refused_when_the_operator_says_so() {
    let broker = Broker::start_with(|options| options.permits.transient_nonexcl_queues = false);
    let channel = broker.channel();
    channel.ok(declare("durable", "durable"));
    channel.ok(declare("exclusive", "exclusive"));
    let connection = channel.connection();
    channel.send(declare("transient", ""));
    let close = connection.closed();
    assert_eq!((close.code, (close.class, close.method)), (541, (50, 10)));
    assert!(
        close
            .text
            .starts_with("INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated"),
        "{close:?}"
    );
    // And by default they are not.
    Broker::start().channel().queue("transient");
}

/// Proves: DEP-001
#[test]
fn arguments_of_old_versions_are_answered_as_configured() {
    let strict = Broker::start_with(|options| options.permits.queue_master_locator = false);
    let lenient = Broker::start_with(|options| options.permits.classic_queue_version_1 = true);
    let versioned = |version: i32| declare("v", "durable").args([("x-queue-version", version.into())]);
    strict.channel().refuses(
        versioned(1),
        406,
        "PRECONDITION_FAILED - invalid arg 'x-queue-version' for queue 'v' in vhost '/': \"unsupported queue version '1'\"",
    );
    strict.channel().ok(versioned(2));
    lenient.channel().ok(versioned(1));
    let located = || declare("l", "durable").args([("x-queue-master-locator", text("min-masters"))]);
    lenient.channel().ok(located());
    let channel = strict.channel();
    channel.send(located());
    assert_eq!(channel.connection().closed().code, 541);
    // Stored, ignored.
    for (name, value) in [("x-queue-mode", text("lazy")), ("x-ha-policy", text("all"))] {
        let queue = format!("with {name}");
        lenient
            .channel()
            .ok(declare(&queue, "durable").args([(name, value)]));
    }
}

/// Proves: BAS-034
#[test]
fn a_channel_has_room_for_so_many_consumers() {
    let broker = Broker::start_with(|options| options.limits.consumer_max_per_channel = Some(2));
    let channel = broker.channel();
    channel.queue("q");
    for tag in ["a", "b", "c"] {
        if tag == "c" {
            // A cancelled one makes room.
            channel.ok(cancel("a"));
        }
        channel.ok(consume("q", tag, ""));
    }
    let other = channel.connection().channel();
    other.ok(consume("q", "a", ""));
    channel.fails(
        consume("q", "d", ""),
        530,
        "NOT_ALLOWED - reached maximum (2) of consumers per channel",
    );
}
