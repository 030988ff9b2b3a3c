//! Forgetting everything, as RabbitMQ's `reset`: the broker is afterwards as a new one.

use crate::broker::definition::Definition;
use crate::server::{
    Handle, VhostSpec,
    admin::{AccessOptions, AdminError, NewPassword, UserSpec, first_boot::first_boot},
};

/// What a new broker begins with.
pub(in crate::server) struct Birth {
    access: AccessOptions,
    default_vhost: String,
}

impl Birth {
    pub(in crate::server) fn new(access: AccessOptions, default_vhost: &str) -> Self {
        Self {
            access,
            default_vhost: default_vhost.to_owned(),
        }
    }
}

impl Handle {
    /// Deletes all vhosts with their queues and messages, users, permissions, policies and parameters, protected ones
    /// too, and makes the default vhost and user anew. Not one operation: when the broker dies meanwhile, part of it is
    /// done, and it can be asked for again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reset(&self) -> Result<(), AdminError> {
        for vhost in self.vhosts() {
            let spec = VhostSpec {
                protected: Some(false),
                ..VhostSpec::default()
            };
            gone_is_fine(self.put_vhost(&vhost.name, spec).await.map(|_| ()))?;
            gone_is_fine(self.delete_vhost(&vhost.name).await)?;
        }
        for user in self.users() {
            gone_is_fine(self.delete_user(&user.name).await)?;
        }
        for parameter in self.global_parameters() {
            gone_is_fine(self.clear_global_parameter(&parameter.name).await)?;
        }
        let birth = &self.broker.birth;
        for definition in first_boot(&birth.access, &birth.default_vhost, &[]) {
            match definition {
                Definition::Vhost(vhost) => {
                    self.put_vhost(&vhost.name, VhostSpec::default()).await?;
                }
                Definition::User(user) => {
                    let spec = UserSpec {
                        password: NewPassword::Hash(user.password),
                        tags: user.tags,
                        ..UserSpec::new(&user.name, "")
                    };
                    self.put_user(spec).await?;
                }
                Definition::Permission(permission) => {
                    self.set_permission(permission).await?;
                }
                Definition::GlobalParameter(parameter) => {
                    self.set_global_parameter(parameter).await?;
                }
                _ => {}
            }
        }
        tracing::warn!("reset: everything was deleted");
        Ok(())
    }
}

/// Somebody else may have deleted it meanwhile.
fn gone_is_fine(result: Result<(), AdminError>) -> Result<(), AdminError> {
    match result {
        Err(AdminError::Missing(..)) => Ok(()),
        other => other,
    }
}
