//! The real `leveretctl` against the real broker: what it prints, to where, and with which exit code. Texts and codes are
//! those of Debian's RabbitMQ 3.10 where that has the command (`interop/ctl.py` runs both).

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![expect(clippy::too_many_lines, reason = "a session is read from top to bottom")]

mod access;
mod broker;
mod golden;
mod health;
mod lists;
mod migrate;
mod node;
mod ours;
mod policies;
mod script;
mod secrets;
mod settings;
