//! The HTTP API over real sockets: status codes, headers and bodies as RabbitMQ's tools expect them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod client;
mod control;
mod lists;
mod messages;
mod metrics;
mod refusals;
mod scheduled;
mod topology;
