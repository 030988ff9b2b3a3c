//! The AMQP model: values and functions. No sockets, no files, no clock, no task.

pub mod ack_timeouts;
pub mod confirm;
pub mod confirms;
pub mod definition;
pub mod delay;
pub mod error;
pub mod exchange;
pub mod ids;
pub mod limits;
pub mod message;
pub mod parameter;
pub mod permission;
pub mod policy;
pub mod queue;
mod seen;
pub mod sender_selected;
pub mod settle;
pub mod topology;
pub mod unacked;
pub mod user;
