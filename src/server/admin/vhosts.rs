//! Vhosts: made, described, bounded and deleted while the broker runs.

use super::{AdminError, Change, Missing, check_name, define, stored, undefine, undefine_permissions};
use crate::broker::{
    definition::{Definition, Name, VhostDefinition},
    limits::is_reached,
};
use crate::server::handle::Handle;
use crate::storage::{DefinitionKey, Op};

/// A vhost as an operator wants it; `None` leaves a field as it was.
#[derive(Clone, Debug, Default)]
pub struct VhostSpec {
    pub description: Option<String>,
    pub tags: Option<Vec<String>>,
    pub default_queue_type: Option<String>,
    pub protected: Option<bool>,
}

/// Queue types a vhost may have for its default.
const QUEUE_TYPES: [&str; 3] = ["classic", "quorum", "stream"];

impl Handle {
    /// All vhosts, by name.
    pub fn vhosts(&self) -> Vec<VhostDefinition> {
        let mut vhosts: Vec<VhostDefinition> = self
            .broker
            .vhosts()
            .iter()
            .map(|vhost| vhost.definition())
            .collect();
        vhosts.sort_by(|left, right| left.name.cmp(&right.name));
        vhosts
    }

    pub fn vhost_definition(&self, name: &str) -> Option<VhostDefinition> {
        self.broker.vhost(name).map(|vhost| vhost.definition())
    }

    /// Makes a vhost or changes what is said about it.
    ///
    /// # Errors
    /// [`AdminError::Invalid`]: a bad name or queue type, or too many vhosts.
    pub async fn put_vhost(&self, name: &str, spec: VhostSpec) -> Result<Change, AdminError> {
        check_name("a virtual host's name", name)?;
        if let Some(kind) = &spec.default_queue_type
            && kind != "undefined"
            && !QUEUE_TYPES.contains(&&**kind)
        {
            return Err(AdminError::Invalid(format!("Unsupported queue type: {kind}")));
        }
        let (created, durable) = {
            let _changing = self.administer();
            let existing = self.broker.vhost(name);
            if existing.is_none() {
                self.check_vhost_count(name)?;
            }
            let mut definition = existing
                .as_ref()
                .map_or_else(|| VhostDefinition::new(name), |vhost| vhost.definition());
            if let Some(description) = spec.description {
                definition.description = description;
            }
            if let Some(tags) = spec.tags {
                definition.tags = tags;
            }
            if let Some(kind) = spec.default_queue_type {
                definition.default_queue_type = (kind != "undefined").then_some(kind);
            }
            if let Some(protected) = spec.protected {
                definition.protected = protected;
            }
            let durable = self.log(vec![define(Definition::Vhost(definition.clone()))]);
            let created = existing.is_none();
            let old = existing.as_ref().map(|vhost| vhost.definition());
            match existing {
                Some(vhost) => vhost.redefine(definition.clone()),
                None => self.broker.add_vhost(self.broker.new_vhost(definition.clone())),
            }
            self.tell_vhost(old.as_ref(), &definition);
            (created, durable)
        };
        stored(durable).await?;
        Ok(Change::new(created))
    }

    fn check_vhost_count(&self, name: &str) -> Result<(), AdminError> {
        let count = self.broker.vhosts().len();
        match is_reached(self.broker.limits().vhost_max, count) {
            Some(limit) => Err(AdminError::Invalid(format!(
                "cannot create vhost '{name}': vhost limit of {limit} is reached"
            ))),
            None => Ok(()),
        }
    }

    /// Deletes a vhost with everything in it and closes its connections.
    ///
    /// # Errors
    /// [`AdminError::Missing`], [`AdminError::Protected`].
    pub async fn delete_vhost(&self, name: &str) -> Result<(), AdminError> {
        let durable = {
            let _changing = self.administer();
            let vhost = self.existing_vhost(name)?;
            if vhost.definition().protected {
                return Err(AdminError::Protected(format!(
                    "Cannot delete virtual host '{name}' because it is protected from deletion"
                )));
            }
            // First nobody finds it any more, then it loses what it holds.
            self.broker.remove_vhost(name);
            self.tell_vhost_deleted(name);
            let mut ops: Vec<Op> = vec![undefine(DefinitionKey::Vhost(Name::clone(&vhost.name)))];
            ops.extend(undefine_permissions(self.broker.access().remove_vhost(name)));
            let parameters = self.broker.parameters().write().remove_vhost(name);
            ops.extend(parameters.into_iter().map(undefine));
            vhost.destroy(ops)
        };
        self.broker
            .admissions()
            .close_vhost(name, &format!("vhost '{name}' is deleted"));
        stored(durable).await
    }

    /// Sets `max-connections` or `max-queues` of a vhost; `None` clears it, a negative number lifts it.
    ///
    /// # Errors
    /// [`AdminError::Missing`] without such a vhost, [`AdminError::Invalid`] for another limit.
    pub async fn set_vhost_limit(
        &self,
        vhost: &str,
        limit: &str,
        value: Option<i64>,
    ) -> Result<(), AdminError> {
        let durable = {
            let _changing = self.administer();
            let vhost = self.existing_vhost(vhost)?;
            let mut definition = vhost.definition();
            let place = definition
                .limits
                .named(limit)
                .ok_or_else(|| AdminError::Invalid(format!("Unknown vhost limit '{limit}'")))?;
            *place = value;
            let durable = self.log(vec![define(Definition::Vhost(definition.clone()))]);
            self.tell_vhost(Some(&vhost.definition()), &definition);
            vhost.redefine(definition);
            durable
        };
        stored(durable).await
    }
}

impl Missing {
    /// Whether it is the surroundings that are missing, rather than the thing itself.
    pub fn is_context(self) -> bool {
        matches!(self, Self::User | Self::Vhost)
    }
}
