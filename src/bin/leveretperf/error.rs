//! Everything that ends a run early. Printed once by `main`, which then exits with 1.

use std::io;

use thiserror::Error;

#[derive(Debug, Error)]
pub(crate) enum PerfError {
    #[error("{0}")]
    Options(String),
    #[error("cannot connect to {address}: {cause}")]
    Connect { address: String, cause: io::Error },
    #[error("the broker closed the connection without a word {during}")]
    Eof { during: &'static str },
    #[error("the broker closed the connection: {code} {text}")]
    ConnectionClosed { code: u16, text: String },
    #[error("the broker closed the channel: {code} {text}")]
    ChannelClosed { code: u16, text: String },
    #[error("the broker cancelled the consumer (was its queue deleted?)")]
    ConsumerCancelled,
    #[error("the broker sent what AMQP 0-9-1 does not allow: {0}")]
    Protocol(String),
    #[error("the broker confirmed delivery tag {tag}, but the outstanding ones are {oldest} to {newest}")]
    Confirm { tag: u64, oldest: u64, newest: u64 },
    #[error("{0}")]
    Stalled(String),
    #[error("the connection to the broker broke: {0}")]
    Socket(#[from] io::Error),
    #[error("{0}")]
    Local(String),
}

impl PerfError {
    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Self::Protocol(text.into())
    }
}
