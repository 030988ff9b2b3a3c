//! Permissions of users in vhosts, on names and on routing keys of topic exchanges.

use super::{AdminError, Change, Missing, define, stored, undefine};
use crate::broker::{
    definition::{Definition, Name},
    permission::{Permission, TopicPermission},
};
use crate::server::handle::Handle;
use crate::storage::DefinitionKey;

impl Handle {
    /// All permissions, by vhost and user.
    pub fn permissions(&self) -> Vec<Permission> {
        self.broker.access().permissions()
    }

    pub fn permission(&self, user: &str, vhost: &str) -> Option<Permission> {
        self.broker.access().permission(user, vhost)
    }

    /// All topic permissions, by vhost, user and exchange.
    pub fn topic_permissions(&self) -> Vec<TopicPermission> {
        self.broker.access().topic_permissions()
    }

    /// Sets a user's permissions in a vhost; live connections have them with their next operation.
    ///
    /// # Errors
    /// [`AdminError::Missing`] user or vhost, [`AdminError::Invalid`] patterns.
    pub async fn set_permission(&self, permission: Permission) -> Result<Change, AdminError> {
        permission.validate().map_err(AdminError::Invalid)?;
        let user = Name::clone(&permission.user);
        let (change, durable) = {
            let _changing = self.administer();
            self.existing_user(&permission.user)?;
            self.existing_vhost(&permission.vhost)?;
            let old = self.permission(&permission.user, &permission.vhost);
            let durable = self.log(vec![define(Definition::Permission(permission.clone()))]);
            self.broker.access().set_permission(permission.clone());
            self.tell_permission(&permission);
            (Change::new(old.is_none()), durable)
        };
        self.broker.admissions().recheck(&user);
        stored(durable).await?;
        Ok(change)
    }

    /// Takes a user's permissions in a vhost away: it can enter no more, and its consumers there are cancelled.
    ///
    /// # Errors
    /// [`AdminError::Missing`].
    pub async fn clear_permission(&self, user: &str, vhost: &str) -> Result<(), AdminError> {
        let durable = {
            let _changing = self.administer();
            let name = self.existing_user(user)?;
            let vhost = Name::clone(&self.existing_vhost(vhost)?.name);
            if !self.broker.access().clear_permission(&name, &vhost) {
                return Err(AdminError::Missing(Missing::Permission, user.to_owned()));
            }
            self.tell_permission_deleted(&name, &vhost);
            self.log(vec![undefine(DefinitionKey::Permission { user: name, vhost })])
        };
        self.broker.admissions().recheck(user);
        stored(durable).await
    }

    /// Sets which routing keys a user may use with a topic exchange.
    ///
    /// # Errors
    /// [`AdminError::Missing`] user or vhost, [`AdminError::Invalid`] patterns.
    pub async fn set_topic_permission(&self, topic: TopicPermission) -> Result<Change, AdminError> {
        topic.validate().map_err(AdminError::Invalid)?;
        let user = Name::clone(&topic.user);
        let (change, durable) = {
            let _changing = self.administer();
            self.existing_user(&topic.user)?;
            self.existing_vhost(&topic.vhost)?;
            let same = |known: &TopicPermission| {
                (&known.user, &known.vhost, &known.exchange) == (&topic.user, &topic.vhost, &topic.exchange)
            };
            let known = self.topic_permissions().iter().any(same);
            let durable = self.log(vec![define(Definition::TopicPermission(topic.clone()))]);
            self.broker.access().set_topic_permission(topic.clone());
            self.tell_topic_permission(&topic);
            (Change::new(!known), durable)
        };
        self.broker.admissions().recheck(&user);
        stored(durable).await?;
        Ok(change)
    }

    /// Lifts a user's topic permissions in a vhost: those of one exchange, or all.
    ///
    /// # Errors
    /// [`AdminError::Missing`].
    pub async fn clear_topic_permissions(
        &self,
        user: &str,
        vhost: &str,
        exchange: Option<&str>,
    ) -> Result<(), AdminError> {
        let durable = {
            let _changing = self.administer();
            let name = self.existing_user(user)?;
            let vhost = Name::clone(&self.existing_vhost(vhost)?.name);
            let gone = self
                .broker
                .access()
                .clear_topic_permissions(&name, &vhost, exchange);
            if gone.is_empty() {
                return Err(AdminError::Missing(Missing::Permission, user.to_owned()));
            }
            gone.iter()
                .for_each(|topic| self.tell_topic_permission_deleted(topic));
            let keys = gone.into_iter().map(|topic| {
                undefine(DefinitionKey::TopicPermission {
                    user: topic.user,
                    vhost: topic.vhost,
                    exchange: topic.exchange,
                })
            });
            self.log(keys.collect())
        };
        self.broker.admissions().recheck(user);
        stored(durable).await
    }
}
