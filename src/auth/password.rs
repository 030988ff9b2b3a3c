//! Password hashes: RabbitMQ's for what was imported, argon2id for our own (amqp-behaviour 7.6).

use argon2::{Algorithm, Argon2, Params, Version};
use md5::Md5;
use rand::RngCore;
use sha2::{Digest, Sha256, Sha512};

use crate::broker::user::{HashingAlgorithm, PasswordHash};

/// RabbitMQ's salt.
const SALT: usize = 4;
/// Of an argon2id record: memory in KiB as u32, passes, lanes, then the salt, then the digest.
const ARGON2_HEAD: usize = 6;
const ARGON2_SALT: usize = 16;
const ARGON2_DIGEST: usize = 32;
/// 12 MiB and three passes: one of OWASP's equal choices, the one that needs about 30 ms and little memory.
const ARGON2_MEMORY_KIB: u32 = 12 * 1024;
const ARGON2_PASSES: u8 = 3;
/// An imported record may not ask for more memory or passes than these.
const ARGON2_MEMORY_KIB_MAX: u32 = 64 * 1024;
const ARGON2_PASSES_MAX: u8 = 16;

/// Hashes a new password under a new salt.
pub fn hash(algorithm: HashingAlgorithm, password: &[u8]) -> PasswordHash {
    let mut bytes = Vec::new();
    match algorithm {
        HashingAlgorithm::Argon2id => {
            let mut salt = [0; ARGON2_SALT];
            rand::rng().fill_bytes(&mut salt);
            bytes.extend_from_slice(&ARGON2_MEMORY_KIB.to_le_bytes());
            bytes.extend_from_slice(&[ARGON2_PASSES, 1]);
            bytes.extend_from_slice(&salt);
            // Without a digest nobody can log in, which is what a failure of ours should mean.
            if let Some(digest) = argon2id(&bytes, password) {
                bytes.extend_from_slice(&digest);
            }
        }
        HashingAlgorithm::Sha256 | HashingAlgorithm::Sha512 | HashingAlgorithm::Md5 => {
            let mut salt = [0; SALT];
            rand::rng().fill_bytes(&mut salt);
            bytes.extend_from_slice(&salt);
            bytes.extend_from_slice(&salted(algorithm, &salt, password));
        }
    }
    PasswordHash { algorithm, bytes }
}

/// A record that no password fits, and that takes as long to find out.
pub(super) fn nobody(algorithm: HashingAlgorithm) -> PasswordHash {
    let len = match algorithm {
        HashingAlgorithm::Argon2id => ARGON2_SALT + ARGON2_DIGEST,
        HashingAlgorithm::Sha256 => SALT + 32,
        HashingAlgorithm::Sha512 => SALT + 64,
        HashingAlgorithm::Md5 => SALT + 16,
    };
    let mut random = vec![0; len];
    rand::rng().fill_bytes(&mut random);
    let mut bytes = Vec::new();
    if algorithm == HashingAlgorithm::Argon2id {
        bytes.extend_from_slice(&ARGON2_MEMORY_KIB.to_le_bytes());
        bytes.extend_from_slice(&[ARGON2_PASSES, 1]);
    }
    bytes.extend_from_slice(&random);
    PasswordHash { algorithm, bytes }
}

/// A hash from a definitions file or the HTTP API, decoded from base64. Empty bytes are a user without password.
///
/// # Errors
/// When it is too short or long for its algorithm or asks for absurd work.
pub fn import(algorithm: HashingAlgorithm, bytes: Vec<u8>) -> Result<PasswordHash, String> {
    let fits = bytes.is_empty()
        || match algorithm {
            HashingAlgorithm::Argon2id => {
                bytes.len() == ARGON2_HEAD + ARGON2_SALT + ARGON2_DIGEST && params(&bytes).is_some()
            }
            HashingAlgorithm::Sha256 => bytes.len() == SALT + 32,
            HashingAlgorithm::Sha512 => bytes.len() == SALT + 64,
            HashingAlgorithm::Md5 => bytes.len() == SALT + 16,
        };
    if fits {
        Ok(PasswordHash { algorithm, bytes })
    } else {
        Err(format!("the password hash is no {} hash", algorithm.name()))
    }
}

/// Whether this is the password. A user without one never has the right one, and a blank password never is.
pub fn verify(hash: &PasswordHash, password: &[u8]) -> bool {
    if password.is_empty() {
        return false;
    }
    match hash.algorithm {
        HashingAlgorithm::Argon2id => {
            let digest = hash.bytes.get(ARGON2_HEAD + ARGON2_SALT..).unwrap_or_default();
            digest.len() == ARGON2_DIGEST
                && argon2id(&hash.bytes, password).is_some_and(|found| equal(&found, digest))
        }
        algorithm => hash
            .bytes
            .split_at_checked(SALT)
            .is_some_and(|(salt, digest)| equal(&salted(algorithm, salt, password), digest)),
    }
}

/// Takes milliseconds rather than microseconds: not for a task's thread.
pub(super) fn is_slow(hash: &PasswordHash) -> bool {
    hash.algorithm == HashingAlgorithm::Argon2id
}

fn salted(algorithm: HashingAlgorithm, salt: &[u8], password: &[u8]) -> Vec<u8> {
    fn digest<D: Digest>(salt: &[u8], password: &[u8]) -> Vec<u8> {
        D::new()
            .chain_update(salt)
            .chain_update(password)
            .finalize()
            .to_vec()
    }
    match algorithm {
        HashingAlgorithm::Md5 => digest::<Md5>(salt, password),
        HashingAlgorithm::Sha512 => digest::<Sha512>(salt, password),
        HashingAlgorithm::Sha256 | HashingAlgorithm::Argon2id => digest::<Sha256>(salt, password),
    }
}

fn params(record: &[u8]) -> Option<Params> {
    let (memory, rest) = record.split_first_chunk::<4>()?;
    let memory = u32::from_le_bytes(*memory);
    let (passes, lanes) = (*rest.first()?, *rest.get(1)?);
    if memory > ARGON2_MEMORY_KIB_MAX || passes > ARGON2_PASSES_MAX || lanes != 1 {
        return None;
    }
    Params::new(memory, passes.into(), lanes.into(), Some(ARGON2_DIGEST)).ok()
}

/// The digest that a record's parameters and salt make of a password.
fn argon2id(record: &[u8], password: &[u8]) -> Option<[u8; ARGON2_DIGEST]> {
    let salt = record.get(ARGON2_HEAD..ARGON2_HEAD + ARGON2_SALT)?;
    let mut digest = [0; ARGON2_DIGEST];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params(record)?)
        .hash_password_into(password, salt, &mut digest)
        .ok()?;
    Some(digest)
}

/// Compares all bytes whatever the first difference, so that time tells nothing.
fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .fold(0, |difference, (left, right)| difference | (left ^ right))
            == 0
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;

    const ALL: [HashingAlgorithm; 4] = [
        HashingAlgorithm::Argon2id,
        HashingAlgorithm::Sha256,
        HashingAlgorithm::Sha512,
        HashingAlgorithm::Md5,
    ];

    #[test]
    fn only_the_right_password_fits_its_hash() {
        for algorithm in ALL {
            let made = hash(algorithm, b"s3cret");
            assert!(verify(&made, b"s3cret"), "{algorithm:?}");
            assert!(!verify(&made, b"S3cret"), "{algorithm:?}");
            assert_ne!(
                made,
                hash(algorithm, b"s3cret"),
                "{algorithm:?}: the salt is random"
            );
            let imported = import(algorithm, made.bytes.clone()).unwrap();
            assert!(verify(&imported, b"s3cret"), "{algorithm:?}");
            assert!(import(algorithm, made.bytes[1..].to_vec()).is_err());
            assert!(
                !verify(&hash(algorithm, b""), b""),
                "{algorithm:?}: a blank password is refused"
            );
            assert!(
                import(algorithm, nobody(algorithm).bytes).is_ok(),
                "{algorithm:?}"
            );
            assert!(!verify(&nobody(algorithm), b"s3cret"), "{algorithm:?}");
            let nobody = import(algorithm, Vec::new()).unwrap();
            assert!(!verify(&nobody, b"") && !verify(&nobody, b"x"), "{algorithm:?}");
        }
    }

    /// Salt 908DC60A and password test12 are the worked example of RabbitMQ's documentation.
    ///
    /// Proves: PRM-007
    #[test]
    fn hashes_of_rabbitmq_verify() {
        let documented = STANDARD
            .decode("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR")
            .unwrap();
        let cases = [
            (HashingAlgorithm::Sha256, documented),
            // Salt 01020304, then `printf '\1\2\3\4test12' | md5sum`, and sha512sum.
            (
                HashingAlgorithm::Md5,
                STANDARD.decode("AQIDBDeBuuH8ubD+6IsvjTP2It8=").unwrap(),
            ),
            (
                HashingAlgorithm::Sha512,
                STANDARD
                    .decode(concat!(
                        "AQIDBEasi57qQmKrKS3hT/tToZQTSGe0aIxheFJPzONWfcZL",
                        "ALq7JlkjIrc4zKmzoCl2i5ligSzH2lxUTbywDEUALuc="
                    ))
                    .unwrap(),
            ),
        ];
        for (algorithm, bytes) in cases {
            let hash = import(algorithm, bytes).unwrap();
            assert!(verify(&hash, b"test12"), "{algorithm:?}");
            assert!(!verify(&hash, b"test13"), "{algorithm:?}");
        }
    }

    #[test]
    fn an_imported_record_cannot_ask_for_absurd_work() {
        let mut record = hash(HashingAlgorithm::Argon2id, b"x").bytes;
        record[3] = 0xff;
        assert!(import(HashingAlgorithm::Argon2id, record).is_err());
    }
}
