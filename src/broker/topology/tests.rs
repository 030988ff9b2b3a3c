//! What a vhost's declarations allow, what deletions take along, and where messages go across exchanges.

use super::*;
use crate::protocol::properties::RawProperties;

/// A vhost whose queues are their own names.
type Plain = Topology<&'static str>;

fn topology() -> Plain {
    Topology::new("/".into())
}

/// A definition as `direct durable auto-delete internal alternate=x` says.
fn exchange(name: &str, how: &str) -> ExchangeDefinition {
    let mut words = how.split(' ');
    let kind = words.next().unwrap_or_default();
    let mut arguments = FieldTable::default();
    if let Some(alternate) = how
        .split_once("alternate=")
        .map(|(_, name)| name.split(' ').next().unwrap())
    {
        arguments.insert(
            "alternate-exchange",
            FieldValue::LongString(alternate.to_owned().into()),
        );
    }
    ExchangeDefinition {
        vhost: "/".into(),
        name: name.into(),
        kind: kind.into(),
        durable: how.contains("durable"),
        auto_delete: how.contains("auto-delete"),
        internal: how.contains("internal"),
        arguments,
    }
}

fn declare(topology: &mut Plain, name: &str, how: &str) {
    assert_eq!(topology.declare_exchange(exchange(name, how)), Ok(true), "{name}");
}

fn refused(topology: &mut Plain, name: &str, how: &str) -> String {
    topology
        .declare_exchange(exchange(name, how))
        .unwrap_err()
        .to_string()
}

/// `q` is a queue, `>e` an exchange.
fn binding(source: &str, destination: &str, key: &str) -> BindingDefinition {
    let destination = match destination.strip_prefix('>') {
        Some(exchange) => Destination::Exchange(exchange.into()),
        None => Destination::Queue(destination.into()),
    };
    BindingDefinition {
        vhost: "/".into(),
        source: source.into(),
        destination,
        routing_key: key.into(),
        arguments: FieldTable::default(),
    }
}

fn bind(topology: &mut Plain, source: &str, destination: &str, key: &str) {
    assert_eq!(
        topology.bind(binding(source, destination, key)),
        Ok(true),
        "{source} to {destination}"
    );
}

fn routed(topology: &Plain, exchange: &str, key: &str) -> Result<Vec<&'static str>, String> {
    let mut route = Route::new();
    let message = Routable {
        keys: &[key.as_bytes()],
        properties: RawProperties::new(&[0, 0]),
        now: Timestamp(0),
    };
    topology
        .route(exchange.as_bytes(), &message, &mut route)
        .map_err(|error| error.to_string())?;
    Ok(route.to_vec())
}

#[test]
fn the_default_exchange_is_every_queues_name() {
    let mut topology = topology();
    topology.add_queue("q", "q");
    assert_eq!(routed(&topology, "", "q"), Ok(vec!["q"]));
    assert_eq!(routed(&topology, "", "r"), Ok(vec![]));
    for error in [
        topology.bind(binding("", "q", "k")).unwrap_err(),
        topology.unbind(&binding("", "q", "k")).unwrap_err(),
        topology.bind(binding("amq.direct", ">", "k")).unwrap_err(),
        topology.declare_exchange(exchange("", "direct")).unwrap_err(),
        topology.delete_exchange("", false).unwrap_err(),
        topology.check_exchange("").unwrap_err(),
    ] {
        assert_eq!(error, BrokerError::DefaultExchange);
    }
}

#[test]
fn predeclared_exchanges_exist_and_stay() {
    let mut topology = topology();
    for (name, kind) in PREDECLARED {
        assert_eq!(&*topology.exchange(name).unwrap().definition().kind, kind);
        assert_eq!(
            topology.delete_exchange(name, false).unwrap_err().to_string(),
            format!("deletion of system exchange '{name}' in vhost '/' not allowed")
        );
    }
    assert_eq!(
        topology.declare_exchange(exchange("amq.direct", "direct durable")),
        Ok(false)
    );
    assert_eq!(
        refused(&mut topology, "amq.mine", "direct"),
        "exchange name 'amq.mine' contains reserved prefix 'amq.*'"
    );
    assert_eq!(
        routed(&topology, "amq.rabbitmq.trace", "k"),
        Err("cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'".to_owned())
    );
}

#[test]
fn a_redeclaration_must_be_equivalent() {
    let mut topology = topology();
    declare(&mut topology, "e", "direct durable alternate=a");
    assert_eq!(
        topology.declare_exchange(exchange("e", "direct durable alternate=a")),
        Ok(false)
    );
    let cases = [
        (
            "fanout durable alternate=a",
            "'type'",
            "'fanout' but current is 'direct'",
        ),
        ("direct alternate=a", "'durable'", "'false' but current is 'true'"),
        (
            "direct durable auto-delete alternate=a",
            "'auto_delete'",
            "'true' but current is 'false'",
        ),
        (
            "direct durable internal alternate=a",
            "'internal'",
            "'true' but current is 'false'",
        ),
        (
            "direct durable",
            "'alternate-exchange'",
            "none but current is the value 'a' of type 'longstr'",
        ),
        (
            "direct durable alternate=b",
            "'alternate-exchange'",
            "the value 'b' of type 'longstr' but current is the value 'a' of type 'longstr'",
        ),
        // The first difference is the one reported.
        ("topic auto-delete", "'type'", "'topic' but current is 'direct'"),
    ];
    for (how, field, values) in cases {
        assert_eq!(
            refused(&mut topology, "e", how),
            format!("inequivalent arg {field} for exchange 'e' in vhost '/': received {values}")
        );
    }
    assert_eq!(
        refused(&mut topology, "e", "mystery"),
        "unknown exchange type 'mystery'"
    );
}

#[test]
fn an_alternate_exchange_must_be_named_by_a_string() {
    let mut definition = exchange("e", "direct");
    definition
        .arguments
        .insert("alternate-exchange", FieldValue::I32(1));
    assert_eq!(
        topology().declare_exchange(definition).unwrap_err().to_string(),
        "invalid type 'signedint' for arg 'alternate-exchange' in exchange 'e' in vhost '/'"
    );
}

#[test]
fn bindings_are_checked_source_first() {
    let mut topology = topology();
    let no = |kind: &str, name: &str| format!("no {kind} '{name}' in vhost '/'");
    let refused = |topology: &mut Plain, source, destination| {
        topology
            .bind(binding(source, destination, "k"))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(&mut topology, "e", "q"), no("exchange", "e"));
    assert_eq!(refused(&mut topology, "amq.direct", "q"), no("queue", "q"));
    assert_eq!(refused(&mut topology, "amq.direct", ">e"), no("exchange", "e"));
    // What is missing counts as unbound.
    for (source, destination) in [("e", "q"), ("amq.direct", "q"), ("amq.direct", ">e")] {
        assert!(
            topology
                .unbind(&binding(source, destination, "k"))
                .unwrap()
                .bindings
                .is_empty()
        );
    }
}

#[test]
fn the_same_binding_twice_is_one() {
    let mut topology = topology();
    topology.add_queue("q", "q");
    bind(&mut topology, "amq.direct", "q", "k");
    assert_eq!(topology.bind(binding("amq.direct", "q", "k")), Ok(false));
    let removals = topology.unbind(&binding("amq.direct", "q", "k")).unwrap();
    assert_eq!(removals.bindings, [binding("amq.direct", "q", "k")]);
    assert_eq!(routed(&topology, "amq.direct", "k"), Ok(vec![]));
}

#[test]
fn a_queue_gets_one_copy_however_many_ways_lead_to_it() {
    let mut topology = topology();
    topology.add_queue("q", "q");
    topology.add_queue("p", "p");
    for (name, how) in [("a", "fanout"), ("b", "fanout"), ("c", "topic")] {
        declare(&mut topology, name, how);
    }
    bind(&mut topology, "a", ">b", "");
    bind(&mut topology, "a", ">c", "");
    bind(&mut topology, "b", "q", "");
    bind(&mut topology, "c", "q", "#");
    bind(&mut topology, "c", "q", "k");
    bind(&mut topology, "c", "p", "*");
    assert_eq!(
        routed(&topology, "a", "k"),
        Ok(vec!["p", "q"]),
        "ascending, each once"
    );
    assert_eq!(routed(&topology, "a", "k.k"), Ok(vec!["q"]));
}

#[test]
fn a_cycle_of_exchanges_ends() {
    let mut topology = topology();
    topology.add_queue("q", "q");
    for name in ["a", "b", "c"] {
        declare(&mut topology, name, "fanout");
    }
    for (source, destination) in [("a", ">b"), ("b", ">c"), ("c", ">a"), ("a", ">a"), ("c", "q")] {
        bind(&mut topology, source, destination, "");
    }
    for name in ["a", "b", "c"] {
        assert_eq!(routed(&topology, name, ""), Ok(vec!["q"]));
    }
}

#[test]
fn an_alternate_exchange_takes_what_nothing_else_did() {
    let mut topology = topology();
    topology.add_queue("q", "q");
    topology.add_queue("lost", "lost");
    declare(&mut topology, "e", "direct alternate=second");
    declare(&mut topology, "second", "direct alternate=last");
    assert_eq!(
        routed(&topology, "e", "k"),
        Ok(vec![]),
        "a missing alternate is skipped"
    );
    declare(&mut topology, "last", "fanout alternate=e");
    assert_eq!(
        routed(&topology, "e", "k"),
        Ok(vec![]),
        "a circle of alternates ends"
    );
    bind(&mut topology, "last", "lost", "");
    bind(&mut topology, "e", "q", "k");
    assert_eq!(routed(&topology, "e", "k"), Ok(vec!["q"]));
    assert_eq!(routed(&topology, "e", "other"), Ok(vec!["lost"]));
    // An exchange that routed on, to nothing in the end, did route.
    declare(&mut topology, "deaf", "direct");
    bind(&mut topology, "e", ">deaf", "other");
    assert_eq!(routed(&topology, "e", "other"), Ok(vec![]));
}

#[test]
fn if_unused_asks_for_bindings_from_it_not_to_it() {
    let mut topology = topology();
    topology.add_queue("q", "q");
    declare(&mut topology, "e", "fanout");
    bind(&mut topology, "e", "q", "");
    assert_eq!(
        topology.delete_exchange("e", true).unwrap_err().to_string(),
        "exchange 'e' in vhost '/' in use"
    );
    topology.unbind(&binding("e", "q", "")).unwrap();
    bind(&mut topology, "amq.fanout", ">e", "");
    let removals = topology.delete_exchange("e", true).unwrap();
    assert_eq!(
        removals.bindings,
        [binding("amq.fanout", ">e", "")],
        "bindings to it go as well"
    );
    assert_eq!(removals.exchanges.len(), 1);
    assert!(
        topology.delete_exchange("e", true).unwrap().exchanges.is_empty(),
        "gone already is fine"
    );
}

#[test]
fn auto_delete_exchanges_fall_like_dominoes() {
    let mut topology = topology();
    topology.add_queue("q", "q");
    for name in ["a", "b", "c"] {
        declare(&mut topology, name, "fanout auto-delete");
    }
    declare(&mut topology, "stays", "fanout");
    bind(&mut topology, "a", ">b", "");
    bind(&mut topology, "stays", ">a", "");
    bind(&mut topology, "b", ">c", "");
    bind(&mut topology, "c", "q", "");
    assert!(
        topology.exchange("a").is_some(),
        "an unbound one waits for its first binding"
    );
    let (_, removals) = topology.remove_queue("q").unwrap();
    let mut gone: Vec<&str> = removals
        .exchanges
        .iter()
        .map(|exchange| &*exchange.name)
        .collect();
    gone.sort_unstable();
    assert_eq!(gone, ["a", "b", "c"]);
    assert_eq!(removals.bindings.len(), 4);
    assert!(topology.exchange("stays").is_some());
    assert_eq!(routed(&topology, "stays", ""), Ok(vec![]));
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding() {
    let mut topology = topology();
    topology.add_queue("q", "q");
    declare(&mut topology, "e", "direct auto-delete");
    bind(&mut topology, "e", "q", "a");
    bind(&mut topology, "e", "q", "b");
    assert!(
        topology
            .unbind(&binding("e", "q", "a"))
            .unwrap()
            .exchanges
            .is_empty()
    );
    assert!(
        topology
            .unbind(&binding("e", "q", "missing"))
            .unwrap()
            .exchanges
            .is_empty()
    );
    assert_eq!(
        topology.unbind(&binding("e", "q", "b")).unwrap().exchanges.len(),
        1
    );
    assert_eq!(
        routed(&topology, "e", "a"),
        Err("no exchange 'e' in vhost '/'".to_owned())
    );
}

#[test]
fn a_removed_queue_takes_its_bindings_along_and_nobody_elses() {
    let mut topology = topology();
    for queue in ["p", "q"] {
        topology.add_queue(queue, queue);
        bind(&mut topology, "amq.direct", queue, "k");
        bind(&mut topology, "amq.topic", queue, "#");
    }
    let (queue, removals) = topology.remove_queue("q").unwrap();
    assert_eq!(
        (queue, removals.bindings.len(), removals.exchanges.len()),
        ("q", 2, 0)
    );
    assert_eq!(routed(&topology, "amq.direct", "k"), Ok(vec!["p"]));
    assert_eq!(routed(&topology, "amq.topic", "k"), Ok(vec!["p"]));
    assert!(topology.remove_queue("q").is_none());
    // A queue of the same name is a new one, without bindings.
    topology.add_queue("q", "q");
    assert_eq!(routed(&topology, "amq.direct", "k"), Ok(vec!["p"]));
}
