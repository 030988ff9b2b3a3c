//! The HTTP API over real sockets: status codes, headers and bodies as RabbitMQ's tools expect them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod admin;
mod browse;
mod client;
mod control;
mod definitions;
mod generated;
mod lists;
mod messages;
mod metrics;
mod refusals;
mod roles;
mod scheduled;
mod spans;
mod topology;
