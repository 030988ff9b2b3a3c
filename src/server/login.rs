//! Logins over HTTP: the same users as over AMQP.

use std::net::IpAddr;

use crate::broker::permission::Verb;
use crate::server::Handle;

/// Why somebody may not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRefusal {
    /// No such user, or another password.
    Credentials,
    /// Too many failed from that address within a minute.
    TooManyFailures,
    /// This user may only come from this machine.
    Loopback,
}

impl Handle {
    /// The tags of the user with this name and password. Waits for slow hashes: for threads that may block, and belong to
    /// the runtime.
    ///
    /// # Errors
    /// [`LoginRefusal`].
    pub fn login(&self, user: &str, password: &[u8], from: IpAddr) -> Result<Vec<String>, LoginRefusal> {
        let now = tokio::time::Instant::now();
        let budget = self.broker.login_budget();
        if !budget.admits(from, now) {
            return Err(LoginRefusal::TooManyFailures);
        }
        let (logins, access) = (self.broker.logins(), self.broker.access());
        let found = logins.authenticate(access, user, password, now.into_std());
        match tokio::runtime::Handle::current().block_on(found) {
            None => {
                budget.failed(from, now);
                Err(LoginRefusal::Credentials)
            }
            Some(_) if !logins.may_come_from(user, from) => Err(LoginRefusal::Loopback),
            Some(user) => Ok(user.tags.clone()),
        }
    }

    /// Whether a user has any access to a vhost.
    pub fn may_enter(&self, user: &str, vhost: &str) -> bool {
        self.vhost_exists(vhost) && self.broker.access().grants(user, vhost).is_some()
    }

    /// Whether a user may do this to an exchange or queue of a vhost; the empty name is the default exchange.
    pub fn may(&self, user: &str, vhost: &str, verb: Verb, name: &str) -> bool {
        let name = if name.is_empty() { "amq.default" } else { name };
        let grants = self.broker.access().grants(user, vhost);
        grants.is_some_and(|grants| grants.may(verb, name))
    }
}
