//! Checking passwords: slow hashes on threads of their own, at most a few at a time, and remembered for a moment, so that
//! clients which connect again and again neither wait nor stop the others.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::AHashMap;
use parking_lot::Mutex;
use rand::RngCore;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::{
    access::Access,
    password::{is_slow, nobody, verify},
};
use crate::broker::{
    definition::Name,
    user::{HashingAlgorithm, PasswordHash, User},
};

/// How long a password that was right is not hashed again.
const REMEMBER: Duration = Duration::from_secs(60);
/// Users remembered; beyond, the stale ones are forgotten, then all.
const REMEMBERED_MAX: usize = 1024;

/// Who logged in, and the rules of logging in.
pub struct Logins {
    /// Users who may come only from this machine.
    loopback_only: Vec<String>,
    /// Verified against when the user is unknown, so that an unknown name takes as long as a wrong password.
    nobody: PasswordHash,
    /// Bounds the memory and the processor time of slow hashes.
    permits: Arc<Semaphore>,
    remembered: Mutex<AHashMap<Name, Remembered>>,
    /// Of this process: what is remembered about passwords is of no use outside it.
    secret: [u8; 32],
}

struct Remembered {
    /// Over secret, stored hash and password: a changed password is another digest.
    digest: [u8; 32],
    until: Instant,
}

impl Logins {
    /// `algorithm` is that of most users.
    pub fn new(loopback_only: Vec<String>, algorithm: HashingAlgorithm) -> Self {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            loopback_only,
            nobody: nobody(algorithm),
            permits: Arc::new(Semaphore::new(threads)),
            remembered: Mutex::default(),
            secret,
        }
    }

    /// The user, when this password is theirs and they may come from there. Nothing tells why not.
    pub async fn login(
        &self,
        access: &Access,
        user: &str,
        password: &[u8],
        from: IpAddr,
        now: Instant,
    ) -> Option<Arc<User>> {
        let known = self.authenticate(access, user, password, now).await;
        known.filter(|_| self.may_come_from(user, from))
    }

    /// The user, when this password is theirs; where they come from is another question.
    pub async fn authenticate(
        &self,
        access: &Access,
        user: &str,
        password: &[u8],
        now: Instant,
    ) -> Option<Arc<User>> {
        let known = access.user(user);
        let stored = known.as_ref().map_or(&self.nobody, |user| &user.password);
        let digest = self.digest(stored, password);
        if !self.remembers(user, &digest, now) {
            let known = || self.remembers(user, &digest, now);
            if !self.verify(stored.clone(), password, known).await {
                return None;
            }
            self.remember(user, digest, now);
        }
        known
    }

    /// Whether a user is not bound to this machine, or is on it.
    pub fn may_come_from(&self, user: &str, from: IpAddr) -> bool {
        is_loopback(from) || !self.loopback_only.iter().any(|name| name == user)
    }

    /// `known` tells whether the answer is known by now.
    async fn verify(&self, hash: PasswordHash, password: &[u8], known: impl Fn() -> bool) -> bool {
        if !is_slow(&hash) {
            return verify(&hash, password);
        }
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return false;
        };
        // A crowd that comes with the same password waits here: the first of them hashes for all.
        if known() {
            return true;
        }
        let password = password.to_vec();
        // The permit goes along: a client that hangs up does not end the work.
        let verified = tokio::task::spawn_blocking(move || {
            let right = verify(&hash, &password);
            drop(permit);
            right
        });
        verified.await.unwrap_or(false)
    }

    fn digest(&self, hash: &PasswordHash, password: &[u8]) -> [u8; 32] {
        let len = u64::try_from(hash.bytes.len()).unwrap_or(u64::MAX);
        Sha256::new()
            .chain_update(self.secret)
            .chain_update(len.to_le_bytes())
            .chain_update(&hash.bytes)
            .chain_update(password)
            .finalize()
            .into()
    }

    fn remembers(&self, user: &str, digest: &[u8; 32], now: Instant) -> bool {
        let remembered = self.remembered.lock();
        remembered
            .get(user)
            .is_some_and(|known| known.until > now && known.digest == *digest)
    }

    fn remember(&self, user: &str, digest: [u8; 32], now: Instant) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, known| known.until > now);
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let until = now + REMEMBER;
        remembered.insert(user.into(), Remembered { digest, until });
    }
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::password::hash, broker::limits::UserLimits};

    fn access(users: &[(&str, &str)]) -> Access {
        let access = Access::default();
        for (name, password) in users {
            access.put_user(User {
                name: (*name).into(),
                password: hash(HashingAlgorithm::Argon2id, password.as_bytes()),
                tags: Vec::new(),
                limits: UserLimits::default(),
            });
        }
        access
    }

    /// Proves: CON-019
    #[tokio::test]
    async fn only_the_right_password_from_the_right_place_logs_in() {
        let access = access(&[("guest", "secret"), ("blank", ""), ("app", "b")]);
        let logins = Logins::new(vec!["guest".to_owned()], HashingAlgorithm::Argon2id);
        let now = Instant::now();
        // Twice: the second time from memory.
        for _ in 0..2 {
            for (user, password, from, expected) in [
                ("guest", "secret", "127.0.0.1", true),
                ("guest", "secret", "::ffff:127.0.0.2", true),
                ("guest", "secret", "10.0.0.1", false),
                ("guest", "wrong", "127.0.0.1", false),
                ("nobody", "", "127.0.0.1", false),
                ("nobody", "x", "127.0.0.1", false),
                ("blank", "", "127.0.0.1", false),
                ("app", "b", "10.0.0.1", true),
            ] {
                let from = from.parse().unwrap();
                let user_found = logins.login(&access, user, password.as_bytes(), from, now).await;
                assert_eq!(user_found.is_some(), expected, "{user} {password} {from}");
            }
        }
    }

    #[tokio::test]
    async fn a_changed_password_is_not_remembered() {
        let access = access(&[("a", "old")]);
        let logins = Logins::new(Vec::new(), HashingAlgorithm::Argon2id);
        let (now, here) = (Instant::now(), "127.0.0.1".parse().unwrap());
        assert!(logins.login(&access, "a", b"old", here, now).await.is_some());
        access.put_user(User {
            password: hash(HashingAlgorithm::Argon2id, b"new"),
            ..User::clone(&access.user("a").unwrap())
        });
        assert!(logins.login(&access, "a", b"old", here, now).await.is_none());
        assert!(logins.login(&access, "a", b"new", here, now).await.is_some());
        access.remove_user("a");
        assert!(logins.login(&access, "a", b"new", here, now).await.is_none());
    }
}
