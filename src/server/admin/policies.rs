//! Policies and operator policies: set, cleared, and laid over what exists at once (amqp-behaviour 6.1, 6.2).

use super::{AdminError, Change, Missing, check_name, define, stored, undefine};
use crate::broker::{
    definition::{Definition, Name},
    policy::{Policy, PolicyKind},
};
use crate::server::handle::Handle;
use crate::storage::DefinitionKey;

impl Handle {
    /// A vhost's policies by name, or those of all vhosts.
    pub fn policies(&self, kind: PolicyKind, vhost: Option<&str>) -> Vec<Policy> {
        let mut vhosts = self.broker.vhosts();
        vhosts.retain(|known| vhost.is_none_or(|vhost| &*known.name == vhost));
        vhosts.sort_by(|left, right| left.name.cmp(&right.name));
        vhosts
            .iter()
            .flat_map(|vhost| vhost.policies(|policies| policies.list(kind)))
            .collect()
    }

    pub fn policy(&self, kind: PolicyKind, vhost: &str, name: &str) -> Option<Policy> {
        let vhost = self.broker.vhost(vhost)?;
        vhost.policies(|policies| policies.get(kind, name).cloned())
    }

    /// Sets a policy and applies it to every queue and exchange it concerns.
    ///
    /// # Errors
    /// [`AdminError::Missing`] vhost; [`AdminError::Invalid`] with RabbitMQ's `Validation failed` text.
    pub async fn set_policy(&self, policy: Policy) -> Result<Change, AdminError> {
        check_name("a policy's name", &policy.name)?;
        let failed = |problems| AdminError::Invalid(format!("Validation failed\n\n{problems}"));
        policy.validate(self.policy_rules()).map_err(failed)?;
        let (change, durable) = {
            let _changing = self.administer();
            let vhost = self.existing_vhost(&policy.vhost)?;
            let old = self.policy(policy.kind, &policy.vhost, &policy.name);
            vhost
                .change_policies(|policies| policies.set(policy.clone()))
                .map_err(failed)?;
            self.tell_policy(&policy);
            (
                Change::new(old.is_none()),
                self.log(vec![define(Definition::Policy(policy))]),
            )
        };
        stored(durable).await?;
        Ok(change)
    }

    /// Clears a policy; what it applied to falls back to the next best.
    ///
    /// # Errors
    /// [`AdminError::Missing`].
    pub async fn clear_policy(&self, kind: PolicyKind, vhost: &str, name: &str) -> Result<(), AdminError> {
        let durable = {
            let _changing = self.administer();
            let vhost = self.existing_vhost(vhost)?;
            if !vhost.change_policies(|policies| policies.clear(kind, name)) {
                return Err(AdminError::Missing(Missing::Policy, name.to_owned()));
            }
            self.tell_policy_cleared(kind, &vhost.name, name);
            self.log(vec![undefine(DefinitionKey::Policy {
                vhost: Name::clone(&vhost.name),
                kind,
                name: name.into(),
            })])
        };
        stored(durable).await
    }
}
