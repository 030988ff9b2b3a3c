//! Users and their permissions in memory. Readers take a short lock; whoever asks per message keeps a [`Grants`] and looks
//! at the generation, one atomic load.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ahash::AHashMap;
use parking_lot::RwLock;

use crate::broker::{
    definition::{Definition, Name},
    permission::{Grants, Permission, TopicPermission},
    user::User,
};

/// All users and permissions.
#[derive(Default)]
pub struct Access {
    tables: RwLock<Tables>,
    /// Counts changes, so that kept grants know when they are stale.
    generation: AtomicU64,
}

#[derive(Default)]
struct Tables {
    users: AHashMap<Name, Arc<User>>,
    /// By user, then vhost.
    rights: AHashMap<Name, AHashMap<Name, Rights>>,
}

/// What one user may do in one vhost. Topic permissions may exist before the permission, and mean nothing then.
#[derive(Default)]
struct Rights {
    permission: Option<Permission>,
    topics: Vec<TopicPermission>,
    grants: Option<Arc<Grants>>,
}

impl Rights {
    fn compile(&mut self) {
        self.grants = self
            .permission
            .as_ref()
            .map(|permission| Arc::new(Grants::new(permission, &self.topics)));
    }

    fn is_empty(&self) -> bool {
        self.permission.is_none() && self.topics.is_empty()
    }
}

/// Permissions that went with a user or a vhost.
#[derive(Debug, Default)]
pub struct Removed {
    pub permissions: Vec<Permission>,
    pub topics: Vec<TopicPermission>,
}

impl Access {
    /// What the store kept.
    pub fn restored(definitions: &[Definition]) -> Self {
        let access = Self::default();
        for definition in definitions {
            match definition {
                Definition::User(user) => {
                    access.put_user(user.clone());
                }
                Definition::Permission(permission) => access.set_permission(permission.clone()),
                Definition::TopicPermission(topic) => access.set_topic_permission(topic.clone()),
                _ => {}
            }
        }
        access
    }

    /// Changes with every change; relaxed readers see a change at the latest with their next read of a socket.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.tables.read().users.get(name).cloned()
    }

    /// All users, by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        let mut users: Vec<Arc<User>> = self.tables.read().users.values().cloned().collect();
        users.sort_by(|left, right| left.name.cmp(&right.name));
        users
    }

    /// Adds or replaces a user; true when it is new.
    pub fn put_user(&self, user: User) -> bool {
        let name = Name::clone(&user.name);
        let new = self.tables.write().users.insert(name, Arc::new(user)).is_none();
        self.changed();
        new
    }

    /// Removes a user with all permissions; `None` when there was none.
    pub fn remove_user(&self, name: &str) -> Option<Removed> {
        let mut tables = self.tables.write();
        tables.users.remove(name)?;
        let mut removed = Removed::default();
        for rights in tables
            .rights
            .remove(name)
            .into_iter()
            .flat_map(AHashMap::into_values)
        {
            removed.permissions.extend(rights.permission);
            removed.topics.extend(rights.topics);
        }
        drop(tables);
        self.changed();
        Some(removed)
    }

    /// Removes everybody's permissions in a vhost.
    pub fn remove_vhost(&self, vhost: &str) -> Removed {
        let mut removed = Removed::default();
        for rights in self.tables.write().rights.values_mut() {
            if let Some(rights) = rights.remove(vhost) {
                removed.permissions.extend(rights.permission);
                removed.topics.extend(rights.topics);
            }
        }
        self.changed();
        removed
    }

    fn change(&self, user: &Name, vhost: &Name, change: impl FnOnce(&mut Rights)) {
        let mut tables = self.tables.write();
        let vhosts = tables.rights.entry(Name::clone(user)).or_default();
        let rights = vhosts.entry(Name::clone(vhost)).or_default();
        change(rights);
        rights.compile();
        if rights.is_empty() {
            vhosts.remove(vhost);
        }
        drop(tables);
        self.changed();
    }

    pub fn set_permission(&self, permission: Permission) {
        let (user, vhost) = (Name::clone(&permission.user), Name::clone(&permission.vhost));
        self.change(&user, &vhost, |rights| rights.permission = Some(permission));
    }

    /// False when there was none.
    pub fn clear_permission(&self, user: &Name, vhost: &Name) -> bool {
        let mut found = false;
        self.change(user, vhost, |rights| found = rights.permission.take().is_some());
        found
    }

    pub fn set_topic_permission(&self, topic: TopicPermission) {
        let (user, vhost) = (Name::clone(&topic.user), Name::clone(&topic.vhost));
        self.change(&user, &vhost, |rights| {
            rights.topics.retain(|known| known.exchange != topic.exchange);
            rights.topics.push(topic);
        });
    }

    /// Removes a user's topic permissions in a vhost, of one exchange or of all, and gives them back.
    pub fn clear_topic_permissions(
        &self,
        user: &Name,
        vhost: &Name,
        exchange: Option<&str>,
    ) -> Vec<TopicPermission> {
        let mut gone = Vec::new();
        self.change(user, vhost, |rights| {
            let (removed, kept) = std::mem::take(&mut rights.topics)
                .into_iter()
                .partition(|topic| exchange.is_none_or(|exchange| &*topic.exchange == exchange));
            (gone, rights.topics) = (removed, kept);
        });
        gone
    }

    /// All permissions, by vhost and user.
    pub fn permissions(&self) -> Vec<Permission> {
        let tables = self.tables.read();
        let rights = tables.rights.values().flat_map(|vhosts| vhosts.values());
        let mut found: Vec<Permission> = rights.filter_map(|rights| rights.permission.clone()).collect();
        found.sort_by(|left, right| (&left.vhost, &left.user).cmp(&(&right.vhost, &right.user)));
        found
    }

    pub fn permission(&self, user: &str, vhost: &str) -> Option<Permission> {
        let tables = self.tables.read();
        tables.rights.get(user)?.get(vhost)?.permission.clone()
    }

    /// All topic permissions, by vhost, user and exchange.
    pub fn topic_permissions(&self) -> Vec<TopicPermission> {
        let tables = self.tables.read();
        let rights = tables.rights.values().flat_map(|vhosts| vhosts.values());
        let mut found: Vec<TopicPermission> = rights.flat_map(|rights| rights.topics.clone()).collect();
        found.sort_by(|left, right| {
            (&left.vhost, &left.user, &left.exchange).cmp(&(&right.vhost, &right.user, &right.exchange))
        });
        found
    }

    /// What a user may do in a vhost; `None` without a permission there, and for a user that does not exist.
    pub fn grants(&self, user: &str, vhost: &str) -> Option<Arc<Grants>> {
        let tables = self.tables.read();
        tables.users.get(user)?;
        tables.rights.get(user)?.get(vhost)?.grants.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{
        limits::UserLimits,
        permission::Verb,
        user::{HashingAlgorithm, PasswordHash},
    };

    fn user(name: &str) -> User {
        User {
            name: name.into(),
            password: PasswordHash {
                algorithm: HashingAlgorithm::Sha256,
                bytes: Vec::new(),
            },
            tags: Vec::new(),
            limits: UserLimits::default(),
        }
    }

    fn permission(user: &str, vhost: &str) -> Permission {
        Permission {
            user: user.into(),
            vhost: vhost.into(),
            configure: String::new(),
            write: ".*".to_owned(),
            read: String::new(),
        }
    }

    #[test]
    fn permissions_go_with_their_user_and_their_vhost() {
        let access = Access::default();
        let before = access.generation();
        assert!(access.put_user(user("a")));
        assert!(!access.put_user(user("a")));
        assert!(access.grants("a", "v").is_none());
        for vhost in ["v", "w"] {
            access.set_permission(permission("a", vhost));
        }
        access.set_topic_permission(TopicPermission {
            user: "a".into(),
            vhost: "w".into(),
            exchange: "t".into(),
            write: "^x".to_owned(),
            read: String::new(),
        });
        assert!(access.generation() > before);
        let grants = access.grants("a", "w").unwrap();
        assert!(grants.may(Verb::Write, "q") && !grants.may_topic(Verb::Write, "t", "y"));
        assert_eq!(access.remove_vhost("v").permissions, [permission("a", "v")]);
        assert!(access.grants("a", "v").is_none());
        let removed = access.remove_user("a").unwrap();
        assert_eq!((removed.permissions.len(), removed.topics.len()), (1, 1));
        assert!(access.grants("a", "w").is_none() && access.remove_user("a").is_none());
        assert!(access.permissions().is_empty());
    }

    #[test]
    fn a_permission_of_nobody_grants_nothing() {
        let access = Access::default();
        access.set_permission(permission("ghost", "v"));
        assert!(access.grants("ghost", "v").is_none());
    }
}
