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

/// A moment: milliseconds since 1970. Where a moment is optional, 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// No moment.
    pub const NONE: Self = Self(0);

    /// Whole seconds, as the wire's timestamps count.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// This many milliseconds later.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    pub fn is_some(self) -> bool {
        self.0 != 0
    }

    /// The earlier of two optional moments.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (0, _) => other,
            (_, 0) => self,
            _ => self.min(other),
        }
    }
}
