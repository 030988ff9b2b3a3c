//! What polite clients cannot send, over raw sockets: hostile and broken input, and what RabbitMQ answers to it
//! (amqp-behaviour 0 to 2.1, hostile-input 4). After every row a canary must still publish, confirm and consume.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod broker;
mod bytes;
mod peer;

mod channels;
mod content;
mod ending;
mod frames;
mod header;
mod heartbeat;
mod large;
mod login;
mod mutation;
mod opening;
mod properties;
mod semantics;
mod stalled;
