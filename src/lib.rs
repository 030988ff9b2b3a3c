//! Leveret, an AMQP 0-9-1 broker. The modules stand in the order a message meets them; a layer may use
//! those listed before it and never those after (`tests/tidy.rs` checks the imports).

pub mod protocol;

pub mod broker;

pub mod storage;

pub mod auth;

pub mod server;

pub mod management;

pub mod supervisor;

pub mod config;

pub mod log;

pub mod operator;

pub mod tools;
