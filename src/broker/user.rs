//! A user as it is stored: no rule about passwords here, only their hash (amqp-behaviour 7.4 to 7.6).

use crate::broker::{definition::Name, limits::UserLimits};

/// How a password was hashed; the names are those of definition files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashingAlgorithm {
    /// Memory-hard, and no RabbitMQ understands it.
    #[default]
    Argon2id,
    Sha256,
    Sha512,
    /// Of RabbitMQ before 3.6.
    Md5,
}

impl HashingAlgorithm {
    const ALL: [(&'static str, Self); 4] = [
        ("leveret_password_hashing_argon2id", Self::Argon2id),
        ("rabbit_password_hashing_sha256", Self::Sha256),
        ("rabbit_password_hashing_sha512", Self::Sha512),
        ("rabbit_password_hashing_md5", Self::Md5),
    ];

    /// The name in definition files and the HTTP API.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, algorithm)| *algorithm == self)
            .map_or("", |(name, _)| name)
    }

    /// Reads the long name, or its last word: `sha256`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(name, _)| *name == text || name.rsplit('_').next() == Some(text))
            .map(|(_, algorithm)| *algorithm)
    }
}

/// A salted hash. Empty bytes: nobody can log in with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    pub algorithm: HashingAlgorithm,
    pub bytes: Vec<u8>,
}

/// Hashes do not belong into logs.
impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "PasswordHash({:?})", self.algorithm)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: Name,
    pub password: PasswordHash,
    pub tags: Vec<String>,
    pub limits: UserLimits,
}

impl User {
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|mine| mine == tag)
    }
}
