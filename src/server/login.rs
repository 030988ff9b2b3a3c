//! Logins over HTTP: the same users as over AMQP.

use std::net::IpAddr;

use crate::broker::definition::Name;
use crate::server::Handle;

/// Why somebody may not log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRefusal {
    /// No such user, or another password.
    Credentials,
    /// This user may only come from this machine.
    Loopback,
}

impl Handle {
    /// The tags of the user with this name and password. Takes as long as the password's hash.
    ///
    /// # Errors
    /// [`LoginRefusal`].
    pub fn login(&self, user: &str, password: &[u8], from: IpAddr) -> Result<Vec<String>, LoginRefusal> {
        let users = self.broker.users();
        if users.login(user, password, from) {
            return Ok(vec!["administrator".to_owned()]);
        }
        let near = IpAddr::from([127, 0, 0, 1]);
        Err(if users.login(user, password, near) {
            LoginRefusal::Loopback
        } else {
            LoginRefusal::Credentials
        })
    }

    /// Whether a user has any access to a vhost.
    pub fn may_enter(&self, _user: &str, vhost: &str) -> bool {
        self.vhost_names().iter().any(|name: &Name| &**name == vhost)
    }
}
