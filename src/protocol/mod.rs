//! Bytes to frames to methods, and back. No sockets, no clock, nothing of the broker's.

pub mod field;
pub mod method;
pub mod properties;
pub mod reply_code;
mod wire;

#[cfg(test)]
mod oracle;
