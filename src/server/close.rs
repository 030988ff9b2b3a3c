//! Any error to channel.close or connection.close: the one place that decides what a peer is told
//! (amqp-behaviour 0, 1.8, 1.9).

use crate::broker::error::BrokerError;
use crate::protocol::{
    assembler::AssemblyError,
    frame::{self, FrameError},
    method::{Method, MethodError, MethodId},
    reply_code::ReplyCode,
};

/// Why a channel or a connection ends. Returned, never sent on the spot.
#[derive(Debug)]
pub(super) enum Fault {
    /// The channel is closed, the connection goes on.
    Channel { channel: u16, close: Close },
    /// The connection is closed.
    Connection(Close),
}

/// The fields of a close method.
#[derive(Debug)]
pub(super) struct Close {
    pub(super) code: ReplyCode,
    pub(super) text: String,
    pub(super) id: MethodId,
}

impl Close {
    pub(super) fn new(code: ReplyCode, explanation: impl std::fmt::Display, id: MethodId) -> Self {
        Self {
            code,
            text: cut(format!("{} - {explanation}", code.name())),
            id,
        }
    }

    pub(super) fn channel_method(&self) -> Method {
        Method::ChannelClose {
            reply_code: self.code.number(),
            reply_text: self.text.clone(),
            class_id: self.id.class,
            method_id: self.id.method,
        }
    }

    pub(super) fn connection_method(&self) -> Method {
        Method::ConnectionClose {
            reply_code: self.code.number(),
            reply_text: self.text.clone(),
            class_id: self.id.class,
            method_id: self.id.method,
        }
    }
}

/// A close text travels as a short string: at most 255 bytes, `...` where it was cut.
fn cut(mut text: String) -> String {
    const MAX: usize = 255;
    if text.len() > MAX {
        let mut end = MAX - 3;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

impl Fault {
    /// A refusal while handling `id` on a channel: soft codes close the channel, hard ones the connection.
    pub(super) fn refuse(channel: u16, error: &BrokerError, id: MethodId) -> Self {
        let close = Close::new(error.reply_code(), error, id);
        if close.code.is_hard() {
            Self::Connection(close)
        } else {
            Self::Channel { channel, close }
        }
    }

    pub(super) fn connection(code: ReplyCode, explanation: impl std::fmt::Display, id: MethodId) -> Self {
        Self::Connection(Close::new(code, explanation, id))
    }

    /// Bytes that are no frame.
    pub(super) fn frame(error: &FrameError) -> Self {
        Self::connection(ReplyCode::FrameError, error, MethodId::NONE)
    }

    /// A frame that cannot come at this point of a channel. `payload` is the frame's.
    pub(super) fn assembly(error: &AssemblyError, payload: &[u8], pending: MethodId) -> Self {
        match error {
            AssemblyError::Method(error) => Self::method(error, payload),
            AssemblyError::TooLarge(_) | AssemblyError::BodyOverflow => {
                Self::connection(ReplyCode::FrameError, error, pending)
            }
            AssemblyError::ExpectedMethod
            | AssemblyError::WrongClass(_)
            | AssemblyError::ExpectedHeader
            | AssemblyError::ExpectedBody => Self::connection(ReplyCode::UnexpectedFrame, error, pending),
        }
    }

    /// A content whose header announces more octets than we take. Refused before they arrive: they would only fill
    /// memory, and what follows on a closed channel is read over anyway.
    pub(super) fn oversized(channel: u16, method: &Method, size: u64, max: u64) -> Self {
        let id = method.id();
        match method {
            Method::BasicPublish { immediate: true, .. } => {
                Self::connection(ReplyCode::NotImplemented, "immediate=true", id)
            }
            Method::BasicPublish { .. } => {
                Self::refuse(channel, &BrokerError::MessageTooLarge { size, max }, id)
            }
            _ => Self::connection(ReplyCode::CommandInvalid, "unimplemented method", id),
        }
    }

    /// A method frame whose payload is no method.
    pub(super) fn method(error: &MethodError, payload: &[u8]) -> Self {
        let id = error.method_id().unwrap_or(MethodId::NONE);
        match error {
            // RabbitMQ drops the connection without a word here; a close tells the client's author why.
            MethodError::Unknown(_) => Self::connection(ReplyCode::CommandInvalid, error, id),
            MethodError::InvalidUtf8(_) => {
                Self::connection(ReplyCode::FrameError, "Malformed UTF-8 in shortstr", id)
            }
            MethodError::Table(_, table) => Self::connection(ReplyCode::FrameError, table, id),
            MethodError::Short | MethodError::Truncated(_) | MethodError::TrailingBytes(_) => {
                let octets = frame::snippet(payload);
                Self::connection(ReplyCode::FrameError, format!("cannot decode {octets}"), id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_a_character_boundary_within_255_bytes() {
        let close = Close::new(ReplyCode::NotFound, "é".repeat(200), MethodId::NONE);
        assert!(
            close.text.len() <= 255 && close.text.ends_with("..."),
            "{} bytes",
            close.text.len()
        );
    }

    #[test]
    fn hard_codes_close_the_connection_and_soft_ones_the_channel() {
        let soft = Fault::refuse(3, &BrokerError::UnknownDeliveryTag(9), MethodId::BASIC_ACK);
        assert!(
            matches!(soft, Fault::Channel { channel: 3, close } if close.text == "PRECONDITION_FAILED - unknown delivery tag 9")
        );
        let hard = Fault::refuse(
            3,
            &BrokerError::ConsumerTagReused("t".into()),
            MethodId::BASIC_CONSUME,
        );
        assert!(
            matches!(hard, Fault::Connection(close) if close.text == "NOT_ALLOWED - attempt to reuse consumer tag 't'")
        );
    }
}
