//! Fanout: every binding, whatever its key.

use super::{Counted, Hop, Hops, QueueRef};

pub(super) struct Fanout<Q>(Counted<Q>);

impl<Q> Default for Fanout<Q> {
    fn default() -> Self {
        Self(Counted::default())
    }
}

impl<Q: QueueRef> Fanout<Q> {
    pub(super) fn insert(&mut self, hop: Hop<Q>) {
        self.0.insert(hop);
    }

    pub(super) fn remove(&mut self, hop: &Hop<Q>) {
        self.0.remove(hop);
    }

    pub(super) fn matches(&self, hops: &mut Hops<Q>) {
        self.0.append_to(hops);
    }
}
