#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#[path = "../client/mod.rs"]
mod client;
mod dead_letter;
mod delay;
mod expiry;
mod length_limit;
mod quorum;
