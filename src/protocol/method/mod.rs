//! Every method of 0-9-1 and of RabbitMQ's extensions, read and written. `list.rs` is the list itself; this
//! file holds what is common, `hot.rs` the few that are written or read per message.

mod hot;
mod list;
mod wire_type;

#[cfg(test)]
mod tests;

use std::fmt;

pub use self::{
    hot::{
        PublishFields, decode_ack, decode_nack, decode_publish, decode_reject, encode_ack, encode_deliver,
        encode_nack,
    },
    list::Method,
};
use super::{
    field::FieldError,
    wire::{Reader, Truncated},
};

/// Which method it is. The numbers' names stand beside the methods in `list.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodId {
    /// The class, 60 for basic.
    pub class: u16,
    /// The method within its class.
    pub method: u16,
}

impl MethodId {
    /// For closes that no method caused.
    pub const NONE: Self = Self { class: 0, method: 0 };

    /// Reads the two numbers a method frame's payload opens with, and gives the fields behind them.
    ///
    /// # Errors
    /// [`MethodError::Short`] when there are fewer than four bytes.
    #[inline]
    pub fn split(payload: &[u8]) -> Result<(Self, &[u8]), MethodError> {
        let mut reader = Reader::new(payload);
        let mut next = || reader.u16().map_err(|Truncated| MethodError::Short);
        let id = Self {
            class: next()?,
            method: next()?,
        };
        Ok((id, reader.remaining()))
    }
}

/// The name, or the numbers of a method nobody knows.
impl fmt::Display for MethodId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => out.write_str(name),
            None => write!(out, "{}.{}", self.class, self.method),
        }
    }
}

/// Why a payload is not a method. All of them end the connection (amqp-behaviour 1.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    #[error("a method frame has fewer than four bytes")]
    Short,
    #[error("unknown method {0}")]
    Unknown(MethodId),
    #[error("{0} ends before its fields do")]
    Truncated(MethodId),
    #[error("{0} has bytes after its last field")]
    TrailingBytes(MethodId),
    #[error("{0} has a short string that is not UTF-8")]
    InvalidUtf8(MethodId),
    #[error("{0} has a bad table: {1}")]
    Table(MethodId, #[source] FieldError),
}

impl MethodError {
    /// The method it happened in, when that much could be read.
    pub fn method_id(&self) -> Option<MethodId> {
        match *self {
            Self::Short => None,
            Self::Unknown(id)
            | Self::Truncated(id)
            | Self::TrailingBytes(id)
            | Self::InvalidUtf8(id)
            | Self::Table(id, _) => Some(id),
        }
    }
}
