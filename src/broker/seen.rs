//! A bounded memory of keys seen: what deduplication asks. Keys are kept as 128-bit fingerprints under a secret drawn
//! per memory, so that their length costs nothing and nobody can make two keys collide.

use std::collections::VecDeque;

use ahash::{AHashMap, RandomState};

/// Keys one memory holds at most, whatever size was asked for: some 80 MB.
const KEYS_MAX: usize = 1_000_000;

pub(super) type Fingerprint = (u64, u64);

/// Makes keys into fingerprints.
#[derive(Default)]
pub(super) struct Fingerprints(RandomState, RandomState);

impl Fingerprints {
    pub(super) fn of(&self, key: &[u8]) -> Fingerprint {
        (self.0.hash_one(key), self.1.hash_one(key))
    }
}

pub(super) struct Seen {
    fingerprints: Fingerprints,
    /// When each key is forgotten, `u64::MAX` for never.
    keys: AHashMap<Fingerprint, u64>,
    /// In the order of arrival, with the time each was entered for: the oldest leave when there is no room.
    order: VecDeque<(Fingerprint, u64)>,
    size: usize,
}

impl Seen {
    /// A memory for this many keys, [`KEYS_MAX`] at most.
    pub(super) fn new(size: usize) -> Self {
        Self {
            fingerprints: Fingerprints::default(),
            keys: AHashMap::new(),
            order: VecDeque::new(),
            size: size.clamp(1, KEYS_MAX),
        }
    }

    /// Enters a key; false when it is known and not yet to be forgotten. `expires_ms` is when to forget it.
    pub(super) fn is_new(&mut self, key: &[u8], expires_ms: Option<u64>, now_ms: u64) -> bool {
        let fingerprint = self.fingerprints.of(key);
        if self.keys.get(&fingerprint).is_some_and(|until| *until > now_ms) {
            return false;
        }
        let until = expires_ms.unwrap_or(u64::MAX);
        self.keys.insert(fingerprint, until);
        self.order.push_back((fingerprint, until));
        // Entries of keys that expired and came again are passed over: the key's own time is a later one.
        while self.keys.len() > self.size || self.order.len() > 2 * self.size {
            let Some((oldest, until)) = self.order.pop_front() else {
                break;
            };
            if self.keys.get(&oldest) == Some(&until) {
                self.keys.remove(&oldest);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_new_once_until_it_expires_or_is_pushed_out() {
        let mut seen = Seen::new(2);
        assert!(seen.is_new(b"a", None, 0));
        assert!(!seen.is_new(b"a", None, u64::MAX - 1));
        assert!(seen.is_new(b"b", Some(10), 0));
        assert!(!seen.is_new(b"b", Some(10), 9));
        assert!(seen.is_new(b"b", Some(20), 10), "it expired");
        assert!(seen.is_new(b"c", None, 10), "and pushes the oldest out");
        assert!(seen.is_new(b"a", None, 10), "which was this one");
    }

    #[test]
    fn memory_stays_bounded_when_keys_expire_and_come_again() {
        let mut seen = Seen::new(10);
        for now in 0..10_000 {
            seen.is_new(&[u8::try_from(now % 3).unwrap()], Some(now + 1), now);
            assert!(seen.keys.len() <= 10 && seen.order.len() <= 20);
        }
    }
}
