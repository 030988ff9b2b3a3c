//! x-modulus-hash: the hash of the routing keys, modulo the number of bindings, chooses one of them.

use super::{Hop, Hops, QueueRef, Routable, hash::hash_keys};
use crate::broker::definition::{BindingDefinition, Destination};

/// Ascending by destination, so that a restart does not change where a key goes.
pub(super) struct ModulusHash<Q>(Vec<(Destination, Hop<Q>)>);

impl<Q> Default for ModulusHash<Q> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<Q: QueueRef> ModulusHash<Q> {
    pub(super) fn insert(&mut self, binding: &BindingDefinition, hop: Hop<Q>) {
        let at = self.0.partition_point(|(known, _)| *known <= binding.destination);
        self.0.insert(at, (binding.destination.clone(), hop));
    }

    pub(super) fn remove(&mut self, binding: &BindingDefinition) {
        if let Ok(at) = self
            .0
            .binary_search_by(|(known, _)| known.cmp(&binding.destination))
        {
            self.0.remove(at);
        }
    }

    pub(super) fn matches(&self, message: &Routable<'_>, hops: &mut Hops<Q>) {
        let count = self.0.len() as u64;
        if count > 0 {
            let at = usize::try_from(hash_keys(message.keys) % count).unwrap_or(0);
            hops.extend(self.0.get(at).map(|(_, hop)| hop.clone()));
        }
    }
}
