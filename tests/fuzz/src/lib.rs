//! The server's protocol layer, compiled without the server.

#[path = "../../../src/protocol/mod.rs"]
pub mod protocol;
