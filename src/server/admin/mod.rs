//! What operators set: users, vhosts, permissions, policies, parameters and limits, as methods of the [`Handle`]. Every
//! change is checked, written to the store's log and made true under one lock, so that the log has changes in the order in
//! which they became true; it is answered once it is durable.

mod first_boot;
mod parameters;
mod permissions;
mod policies;
mod reset;
mod told;
mod users;
mod vhosts;

use parking_lot::MutexGuard;

use crate::auth::Removed;
use crate::broker::{
    definition::{Definition, Name},
    policy::PolicyRules,
};
use crate::server::{
    handle::Handle,
    registry::{Durable, Vhost, durable_done},
};
use crate::storage::{DefinitionKey, Op, Store};

pub use self::{
    first_boot::AccessOptions,
    users::{NewPassword, UserSpec},
    vhosts::VhostSpec,
};
pub(super) use self::{first_boot::first_boot, parameters::Parameters, reset::Birth};

/// Bytes of a name.
const NAME_MAX: usize = 255;

/// Whether a change made something or altered it: the HTTP API answers 201 or 204.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    Updated,
}

impl Change {
    fn new(created: bool) -> Self {
        if created { Self::Created } else { Self::Updated }
    }
}

/// What an operator named and does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    User,
    Vhost,
    Permission,
    Policy,
    Parameter,
    Limit,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The texts are those of RabbitMQ's tools.
    #[error("{}", missing(*.0, .1))]
    Missing(Missing, String),
    /// What was asked for makes no sense; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// A vhost that is protected from deletion.
    #[error("{0}")]
    Protected(String),
    #[error("the message store has failed: the broker is stopping")]
    StoreFailed,
}

fn missing(what: Missing, name: &str) -> String {
    match what {
        Missing::User => format!("User \"{name}\" does not exist"),
        Missing::Vhost => format!("Virtual host '{name}' does not exist"),
        Missing::Permission => "Permission does not exist".to_owned(),
        Missing::Policy => "Policy does not exist".to_owned(),
        Missing::Parameter => "Parameter does not exist".to_owned(),
        Missing::Limit => format!("Limit \"{name}\" does not exist"),
    }
}

/// Refuses an empty or too long name.
fn check_name(what: &str, name: &str) -> Result<(), AdminError> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(AdminError::Invalid(format!(
            "{what} must have 1 to {NAME_MAX} bytes"
        )));
    }
    Ok(())
}

pub(super) fn define(definition: Definition) -> Op {
    Op::Define {
        definition,
        done: None,
    }
}

fn undefine(key: DefinitionKey) -> Op {
    Op::Undefine { key, done: None }
}

fn undefine_permissions(removed: Removed) -> impl Iterator<Item = Op> {
    let permissions = removed.permissions.into_iter().map(|permission| {
        undefine(DefinitionKey::Permission {
            user: permission.user,
            vhost: permission.vhost,
        })
    });
    let topics = removed.topics.into_iter().map(|topic| {
        undefine(DefinitionKey::TopicPermission {
            user: topic.user,
            vhost: topic.vhost,
            exchange: topic.exchange,
        })
    });
    permissions.chain(topics)
}

/// Logs operations that are stored all or none.
fn log(store: &Store, ops: Vec<Op>) -> Durable {
    let (done, durable) = durable_done();
    store.log(&mut vec![Op::Tx {
        ops,
        done: Some(done),
    }]);
    durable
}

/// Waits until a change is on disk.
async fn stored(durable: Durable) -> Result<(), AdminError> {
    match durable.await {
        Ok(Ok(())) => Ok(()),
        _ => Err(AdminError::StoreFailed),
    }
}

impl Handle {
    /// Taken by every change, never across an await.
    fn administer(&self) -> MutexGuard<'_, ()> {
        self.broker.administration.lock()
    }

    fn existing_vhost(&self, name: &str) -> Result<std::sync::Arc<Vhost>, AdminError> {
        self.broker
            .vhost(name)
            .ok_or_else(|| AdminError::Missing(Missing::Vhost, name.to_owned()))
    }

    fn existing_user(&self, name: &str) -> Result<Name, AdminError> {
        self.broker
            .access()
            .user(name)
            .map(|user| Name::clone(&user.name))
            .ok_or_else(|| AdminError::Missing(Missing::User, name.to_owned()))
    }

    fn log(&self, ops: Vec<Op>) -> Durable {
        log(self.broker.store(), ops)
    }

    fn policy_rules(&self) -> PolicyRules {
        PolicyRules {
            ignore_ha: self.broker.permits().classic_queue_mirroring,
        }
    }
}
