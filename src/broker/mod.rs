//! The AMQP model: values and functions. No sockets, no files, no clock, no task.

pub mod confirm;
pub mod definition;
pub mod ids;
pub mod message;
