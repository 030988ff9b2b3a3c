//! The first page of every tool (management-api 4.1).

use serde_json::{Map, Value, json};

use crate::broker::exchange;
use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    list::single,
    route::{Level, Route, get},
    samples::{self, Field, LENGTHS, OF_ALL},
};
use crate::server::{Handle, Subject, Tally};

pub(super) static ROUTES: [Route; 1] = [get("/overview", Level::Any, show, "Numbers of the whole broker")];

/// What clients are told to expect: tools branch on it.
pub(super) const RABBITMQ_VERSION: &str = "4.3.5";
/// Some join on it and print it; there is no Erlang here.
pub(super) const ERLANG_VERSION: &str = "27.0";

pub(super) static CHURN: [Field; 7] = [
    Field {
        name: "connection_created",
        places: &[0],
    },
    Field {
        name: "connection_closed",
        places: &[1],
    },
    Field {
        name: "channel_created",
        places: &[2],
    },
    Field {
        name: "channel_closed",
        places: &[3],
    },
    Field {
        name: "queue_declared",
        places: &[4],
    },
    Field {
        name: "queue_created",
        places: &[5],
    },
    Field {
        name: "queue_deleted",
        places: &[6],
    },
];

static DISK: [Field; 2] = [
    Field {
        name: "disk_reads",
        places: &[0],
    },
    Field {
        name: "disk_writes",
        places: &[1],
    },
];

/// Counts and lengths of some vhosts together.
pub(super) fn totals(handle: &Handle, vhosts: &[String]) -> (Tally, u64, u64) {
    let mut counts = Tally::default();
    let (mut ready, mut unacked) = (0, 0);
    for vhost in vhosts {
        for (sum, count) in counts.iter_mut().zip(handle.vhost_counts(vhost)) {
            *sum += count;
        }
        for queue in handle.queues_unsorted(vhost) {
            let lengths = queue.lengths();
            (ready, unacked) = (ready + lengths.ready, unacked + lengths.unacked);
        }
    }
    (counts, ready, unacked)
}

/// Exchange types and login mechanisms as lists show them.
pub(super) fn exchange_types() -> Value {
    let mut names: Vec<&str> = exchange::TYPES.to_vec();
    names.sort_unstable();
    names
        .iter()
        .map(|name| json!({"name": name, "description": format!("AMQP {name} exchange"), "enabled": true}))
        .collect()
}

fn show(call: &Call) -> Result<Answer, ApiError> {
    let handle = &call.handle;
    let stats = !call.query.is_true("disable_stats");
    let ranges = call.ranges()?;
    let vhosts = call.visible_vhosts();
    let mut object = identity(call);
    let mut set = |name: &str, value: Value| object.insert(name.to_owned(), value);
    if call.caller.is_monitor() || !stats {
        set("node", handle.node_name().into());
    }
    if call.caller.is_monitor() {
        set("listeners", listeners(call));
        set("contexts", contexts(call));
    }
    set("object_totals", object_totals(call, &vhosts, stats));
    if stats {
        let (counts, ready, unacked) = totals(handle, &vhosts);
        let row = samples::row(&counts, ready, unacked);
        let whole = call.vhost().is_none() && call.caller.is_monitor();
        let subject = match (&vhosts[..], whole) {
            ([vhost], false) => Subject::Vhost(vhost.as_str().into()),
            _ => Subject::Node,
        };
        let lengths = samples::with_details(handle, &subject, &LENGTHS, &row, ranges.lengths);
        set("queue_totals", Value::Object(lengths));
        let mut message_stats =
            samples::message_stats(handle, &subject, &OF_ALL, &counts, ranges.msg_rates).unwrap_or(json!({}));
        if let Value::Object(message_stats) = &mut message_stats
            && !message_stats.is_empty()
        {
            let store = handle.store_stats();
            let row = [store.pages_read, store.messages];
            // Kept by the store, not by our histories: totals without rates.
            message_stats.extend(samples::with_details(
                handle,
                &Subject::Queue(crate::broker::ids::QueueId(0)),
                &DISK,
                &row,
                None,
            ));
        }
        set("message_stats", message_stats);
        let churn = samples::with_details(handle, &Subject::Churn, &CHURN, &handle.churn(), ranges.lengths);
        set("churn_rates", Value::Object(churn));
    }
    Ok(single(call, Value::Object(object)))
}

fn identity(call: &Call) -> Map<String, Value> {
    let mut identity = json!({
        "management_version": RABBITMQ_VERSION,
        "rabbitmq_version": RABBITMQ_VERSION,
        "product_name": "Leveret",
        "product_version": env!("CARGO_PKG_VERSION"),
        "erlang_version": ERLANG_VERSION,
        "erlang_full_version": concat!("no Erlang: Leveret ", env!("CARGO_PKG_VERSION"), " is written in Rust"),
        "crypto_lib_version": "none",
        "cluster_name": call.handle.cluster_name(),
        "cluster_tags": {},
        "node_tags": {},
        "rates_mode": "basic",
        "sample_retention_policies": {
            "global": [600, 3600, 28800, 86400],
            "basic": [600, 3600],
            "detailed": [600],
        },
        "exchange_types": exchange_types(),
        "statistics_db_event_queue": 0,
        "disable_stats": false,
        "enable_queue_totals": false,
        "is_op_policy_updating_enabled": true,
        "require_definition_json_extension": false,
        "default_queue_type": "classic",
    });
    identity.as_object_mut().map(std::mem::take).unwrap_or_default()
}

fn object_totals(call: &Call, vhosts: &[String], stats: bool) -> Value {
    let handle = &call.handle;
    let count = |count: &dyn Fn(&str) -> usize| vhosts.iter().map(|vhost| count(vhost)).sum::<usize>();
    let mut totals = json!({
        "queues": count(&|vhost| handle.queue_count(vhost)),
        "exchanges": count(&|vhost| handle.exchange_count(vhost)),
    });
    let Value::Object(object) = &mut totals else {
        return totals;
    };
    if stats || call.caller.is_monitor() {
        object.insert("connections".to_owned(), visible_connections(call).into());
    }
    if stats {
        object.insert("channels".to_owned(), visible_channels(call).into());
        if call.caller.is_monitor() {
            let consumers = vhosts.iter().map(|vhost| handle.consumer_count(vhost));
            object.insert("consumers".to_owned(), consumers.sum::<usize>().into());
        }
    }
    totals
}

fn visible_connections(call: &Call) -> usize {
    if call.caller.is_monitor() && call.vhost().is_none() {
        return call.handle.connection_count();
    }
    let rows = call.handle.connections();
    rows.iter()
        .filter(|row| call.caller.sees_user(&row.user))
        .filter(|row| call.vhost().is_none_or(|vhost| row.vhost == vhost))
        .count()
}

fn visible_channels(call: &Call) -> usize {
    if call.caller.is_monitor() && call.vhost().is_none() {
        return call.handle.channel_count();
    }
    let rows = call.handle.connections();
    rows.iter()
        .filter(|row| call.caller.sees_user(&row.user))
        .filter(|row| call.vhost().is_none_or(|vhost| row.vhost == vhost))
        .map(|row| row.channels)
        .sum()
}

/// Where this broker listens.
fn listeners(call: &Call) -> Value {
    let node = call.handle.node_name();
    call.settings
        .listeners
        .iter()
        .map(|(protocol, address)| {
            json!({
                "node": node,
                "protocol": protocol,
                "ip_address": address.ip().to_string(),
                "port": address.port(),
                "socket_opts": {},
                "tls": false,
            })
        })
        .collect()
}

/// The listeners that speak HTTP.
pub(super) fn contexts(call: &Call) -> Value {
    let node = call.handle.node_name();
    call.settings
        .listeners
        .iter()
        .filter(|(protocol, _)| protocol.starts_with("http"))
        .map(|(protocol, address)| {
            let description = if *protocol == "http" {
                "RabbitMQ Management"
            } else {
                "RabbitMQ Prometheus"
            };
            json!({
                "node": node,
                "description": description,
                "path": "/",
                "port": address.port().to_string(),
                "ip": address.ip().to_string(),
                "ssl_opts": {},
                "cowboy_opts": "",
                "protocol": protocol,
            })
        })
        .collect()
}
