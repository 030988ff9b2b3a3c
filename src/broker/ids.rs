//! The broker's own numbers. Each is a type, so that one cannot be passed for another.

/// A queue's number: from a durable counter, never reused. A queue deleted and declared again gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId(pub u64);

/// A message's place in one queue: from 1, ascending, assigned at enqueue, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The place behind this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
