//! Who is this: users, their passwords, and from where they may come.

use std::net::IpAddr;

use ahash::AHashMap;
use rand::RngCore;
use sha2::{Digest, Sha256};

/// A password as RabbitMQ stores it: four bytes of salt, then SHA-256 over salt and password (amqp-behaviour 7.6).
#[derive(Clone)]
struct PasswordHash {
    salt: [u8; 4],
    digest: [u8; 32],
}

impl PasswordHash {
    fn new(password: &[u8]) -> Self {
        let mut salt = [0; 4];
        rand::rng().fill_bytes(&mut salt);
        Self {
            salt,
            digest: digest(salt, password),
        }
    }

    /// Compares all bytes whatever the first difference, so that time tells nothing.
    fn verify(&self, password: &[u8]) -> bool {
        let other = digest(self.salt, password);
        self.digest
            .iter()
            .zip(other)
            .fold(0, |difference, (left, right)| difference | (left ^ right))
            == 0
    }
}

fn digest(salt: [u8; 4], password: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(salt)
        .chain_update(password)
        .finalize()
        .into()
}

/// The users who may log in. Until the management API exists there is the configured default user.
pub struct Users {
    users: AHashMap<String, PasswordHash>,
    loopback_only: Vec<String>,
    /// Verified against when the user is unknown, so that an unknown name takes as long as a wrong password.
    nobody: PasswordHash,
}

impl Users {
    /// One user; those in `loopback_only` may come only from this machine.
    pub fn new(name: &str, password: &str, loopback_only: Vec<String>) -> Self {
        let mut users = AHashMap::new();
        users.insert(name.to_owned(), PasswordHash::new(password.as_bytes()));
        Self {
            users,
            loopback_only,
            nobody: PasswordHash::new(b""),
        }
    }

    /// Whether this user with this password may log in from there. A blank password never works.
    pub fn login(&self, user: &str, password: &[u8], from: IpAddr) -> bool {
        let known = self.users.get(user);
        let right = known.unwrap_or(&self.nobody).verify(password);
        let near = is_loopback(from) || !self.loopback_only.iter().any(|name| name == user);
        known.is_some() && right && near && !password.is_empty()
    }
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
    }
}

/// User and password of a PLAIN response: NUL, user, NUL, password. `None` when malformed (amqp-behaviour 1.3).
pub fn plain(response: &[u8]) -> Option<(String, Vec<u8>)> {
    let rest = response.strip_prefix(&[0])?;
    let mut parts = rest.split(|byte| *byte == 0);
    let (user, password) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some((String::from_utf8(user.to_vec()).ok()?, password.to_vec()))
}

/// User and password of an AMQPLAIN response: a table without its length, with LOGIN and PASSWORD.
pub fn amqplain(response: &[u8]) -> Option<(String, Vec<u8>)> {
    let table = crate::protocol::field::FieldTable::parse_body(response).ok()?;
    let user = table.get("LOGIN")?.as_str_bytes()?.to_vec();
    let password = table.get("PASSWORD")?.as_str_bytes()?.to_vec();
    Some((String::from_utf8(user).ok()?, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_from_the_right_place_logs_in() {
        let users = Users::new("guest", "secret", vec!["guest".to_owned()]);
        let near: IpAddr = "127.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.2".parse().unwrap();
        let far: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(users.login("guest", b"secret", near));
        assert!(users.login("guest", b"secret", mapped));
        assert!(!users.login("guest", b"secret", far));
        assert!(!users.login("guest", b"wrong", near));
        assert!(!users.login("nobody", b"", near));
        assert!(
            !Users::new("a", "", Vec::new()).login("a", b"", near),
            "a blank password is refused"
        );
        assert!(Users::new("a", "b", Vec::new()).login("a", b"b", far));
    }

    #[test]
    fn sasl_responses_are_read_or_refused() {
        assert_eq!(
            plain(b"\0guest\0pass"),
            Some(("guest".to_owned(), b"pass".to_vec()))
        );
        for malformed in [
            &b""[..],
            b"guest\0pass",
            b"\0guest",
            b"\0guest\0pass\0more",
            b"z\0guest\0pass",
            b"\0\xff\0p",
        ] {
            assert_eq!(plain(malformed), None, "{malformed:?}");
        }
        let table = b"\x05LOGINS\x00\x00\x00\x05guest\x08PASSWORDS\x00\x00\x00\x04pass";
        assert_eq!(amqplain(table), Some(("guest".to_owned(), b"pass".to_vec())));
        assert_eq!(amqplain(&table[..16]), None, "no password");
        assert_eq!(amqplain(b"junk"), None);
    }
}
