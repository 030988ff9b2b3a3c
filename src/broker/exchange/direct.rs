//! Direct: the routing key equals the binding key, byte for byte.

use ahash::AHashMap;

use super::{Counted, Hop, Hops, QueueRef};

pub(super) struct Direct<Q>(AHashMap<Box<[u8]>, Counted<Q>>);

impl<Q> Default for Direct<Q> {
    fn default() -> Self {
        Self(AHashMap::new())
    }
}

impl<Q: QueueRef> Direct<Q> {
    pub(super) fn insert(&mut self, key: &[u8], hop: Hop<Q>) {
        self.0.entry(key.into()).or_default().insert(hop);
    }

    pub(super) fn remove(&mut self, key: &[u8], hop: &Hop<Q>) {
        if let Some(counted) = self.0.get_mut(key) {
            counted.remove(hop);
            if counted.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn matches(&self, routing_key: &[u8], hops: &mut Hops<Q>) {
        if let Some(counted) = self.0.get(routing_key) {
            counted.append_to(hops);
        }
    }
}
