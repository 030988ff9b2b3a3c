//! What the broker does for a client, over a real socket, in the order of the specification's checklist
//! (amqp-behaviour 12). `Proves:` lines name the rows; `tests/conformance.rs` collects them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../client/mod.rs"]
mod client;

mod access;
mod announcements;
mod basic_ack;
mod basic_consume;
mod basic_publish;
mod basic_qos;
mod binding;
mod confirm;
mod consumer_timeout;
mod dead_letter;
mod deduplication;
mod delay;
mod durability;
mod exchange;
mod exchanges_more;
mod expiry;
mod hostile;
mod hostile_values;
mod lapin;
mod legacy;
mod length_limit;
mod policy;
mod properties;
mod queue;
mod queue_arguments;
mod quorum;
mod quorum_returns;
mod reply_to;
mod routing;
mod routing_headers;
mod routing_topic;
mod routing_types;
mod settle;
mod spill;
mod transaction;
