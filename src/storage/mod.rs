//! What survives a restart. The broker logs operations; one committer thread packs them into groups, one
//! RocksDB batch and at most one sync each, and then releases the confirms. No sockets, no async runtime.

mod error;
mod ops;
mod options;

pub use error::{StoreError, StoreFailure};
pub use ops::{
    DefinitionKey, Done, Loaded, Op, ReadRequest, Recovered, RecoveredQueue, StoreEvents, Target,
};
pub use options::StoreOptions;
