//! x-random and x-local-random: one binding by chance, whatever its key. On a single node every queue is local, so
//! the two differ only in what they let be bound.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Hop, Hops, QueueRef};
use crate::broker::{
    definition::{BindingDefinition, Destination},
    error::BrokerError,
};

/// The odd constant of SplitMix64: its multiples visit every state.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

pub(super) struct Random<Q> {
    hops: Vec<Hop<Q>>,
    /// The generator's state; routing only reads the exchange, so it is stepped atomically.
    state: AtomicU64,
}

impl<Q: QueueRef> Random<Q> {
    /// `seed` decides all choices to come.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hops: Vec::new(),
            state: AtomicU64::new(seed),
        }
    }

    pub(super) fn insert(&mut self, hop: Hop<Q>) {
        self.hops.push(hop);
    }

    pub(super) fn remove(&mut self, hop: &Hop<Q>) {
        if let Some(at) = self.hops.iter().position(|known| known == hop) {
            self.hops.swap_remove(at);
        }
    }

    pub(super) fn matches(&self, hops: &mut Hops<Q>) {
        let count = self.hops.len() as u64;
        if count == 0 {
            return;
        }
        let chance = mix(self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP));
        let at = usize::try_from(chance % count).unwrap_or(0);
        hops.extend(self.hops.get(at).cloned());
    }
}

/// SplitMix64's output function.
pub(super) fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// x-local-random takes queues only, bound without a key (amqp-behaviour 3.3).
pub(super) fn check_local(binding: &BindingDefinition) -> Result<(), BrokerError> {
    if !binding.routing_key.is_empty() {
        return Err(BrokerError::InvalidBinding(format!(
            "Non empty binding '{}' key not permitted",
            binding.routing_key
        )));
    }
    match &binding.destination {
        Destination::Queue(_) => Ok(()),
        Destination::Exchange(_) => Err(BrokerError::InvalidBinding("Destination not found".to_owned())),
    }
}
