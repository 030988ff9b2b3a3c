//! Who is this, and what may they do: users and their passwords, SASL responses, permissions.

mod access;
mod login;
mod password;
mod sasl;

pub use self::{
    access::{Access, Removed},
    login::Logins,
    password::{hash, import, verify},
    sasl::{amqplain, challenged, plain},
};
