//! Users: their passwords, tags and limits.

use std::sync::Arc;

use super::{AdminError, Change, Missing, check_name, define, stored, undefine, undefine_permissions};
use crate::auth;
use crate::broker::{
    definition::{Definition, Name},
    limits::UserLimits,
    user::{HashingAlgorithm, PasswordHash, User},
};
use crate::server::handle::Handle;
use crate::storage::DefinitionKey;

/// Bytes of a clear password: what a SASL response can hold is less.
const PASSWORD_MAX: usize = 4096;
const TAGS_MAX: usize = 64;

/// A user's password as an operator gives it.
#[derive(Clone, PartialEq, Eq)]
pub enum NewPassword {
    /// Hashed by the broker's algorithm.
    Clear(String),
    /// From a definitions file.
    Hash(PasswordHash),
    /// Nobody can log in with a password.
    None,
    /// As it was; a new user gets none.
    Keep,
}

/// A user as an operator wants it.
#[derive(Clone)]
pub struct UserSpec {
    pub name: String,
    pub password: NewPassword,
    pub tags: Vec<String>,
    /// `None` leaves them as they were.
    pub limits: Option<UserLimits>,
}

impl UserSpec {
    /// A user with a clear password and no tags.
    pub fn new(name: &str, password: &str) -> Self {
        Self {
            name: name.to_owned(),
            password: NewPassword::Clear(password.to_owned()),
            tags: Vec::new(),
            limits: None,
        }
    }
}

impl Handle {
    /// All users, by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        self.broker.access().users()
    }

    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.broker.access().user(name)
    }

    /// Hashes a password by the given algorithm or the broker's.
    ///
    /// # Errors
    /// [`AdminError::Invalid`] when it is too long.
    pub async fn hash_password(
        &self,
        password: String,
        algorithm: Option<HashingAlgorithm>,
    ) -> Result<PasswordHash, AdminError> {
        if password.len() > PASSWORD_MAX {
            return Err(AdminError::Invalid(format!(
                "a password may have {PASSWORD_MAX} bytes"
            )));
        }
        let algorithm = algorithm.unwrap_or(self.broker.password_hashing());
        tokio::task::spawn_blocking(move || auth::hash(algorithm, password.as_bytes()))
            .await
            .map_err(|error| AdminError::Invalid(error.to_string()))
    }

    /// Adds a user or changes it.
    ///
    /// # Errors
    /// [`AdminError::Invalid`] for names, tags and passwords that cannot be.
    pub async fn put_user(&self, spec: UserSpec) -> Result<Change, AdminError> {
        check_name("a user's name", &spec.name)?;
        if spec.tags.len() > TAGS_MAX || spec.tags.iter().any(|tag| tag.len() > super::NAME_MAX) {
            return Err(AdminError::Invalid("Too many tags".to_owned()));
        }
        let password = match spec.password {
            NewPassword::Clear(password) => Some(self.hash_password(password, None).await?),
            NewPassword::Hash(hash) => Some(hash),
            NewPassword::None => Some(self.no_password()),
            NewPassword::Keep => None,
        };
        let (created, durable) = {
            let _changing = self.administer();
            let old = self.user(&spec.name);
            let old_password = old.as_ref().map(|user| user.password.clone());
            let limits = spec.limits.or(old.as_ref().map(|user| user.limits));
            let user = User {
                name: spec.name.into(),
                password: password.or(old_password).unwrap_or_else(|| self.no_password()),
                tags: spec.tags,
                limits: limits.unwrap_or_default(),
            };
            let durable = self.log(vec![define(Definition::User(user.clone()))]);
            let created = self.broker.access().put_user(user.clone());
            self.tell_user(old.as_deref(), &user);
            (created, durable)
        };
        stored(durable).await?;
        Ok(Change::new(created))
    }

    fn no_password(&self) -> PasswordHash {
        PasswordHash {
            algorithm: self.broker.password_hashing(),
            bytes: Vec::new(),
        }
    }

    /// Deletes a user with all permissions and closes its connections.
    ///
    /// # Errors
    /// [`AdminError::Missing`].
    pub async fn delete_user(&self, name: &str) -> Result<(), AdminError> {
        let durable = {
            let _changing = self.administer();
            let removed = self
                .broker
                .access()
                .remove_user(name)
                .ok_or_else(|| AdminError::Missing(Missing::User, name.to_owned()))?;
            let user = undefine(DefinitionKey::User(name.into()));
            self.tell_user_deleted(name);
            self.log(
                std::iter::once(user)
                    .chain(undefine_permissions(removed))
                    .collect(),
            )
        };
        self.broker
            .admissions()
            .close_user(name, &format!("user '{name}' is deleted"));
        stored(durable).await
    }

    /// Sets `max-connections` or `max-channels` of a user; `None` clears it, a negative number lifts it.
    ///
    /// # Errors
    /// [`AdminError::Missing`] without such a user, [`AdminError::Invalid`] for another limit.
    pub async fn set_user_limit(
        &self,
        user: &str,
        limit: &str,
        value: Option<i64>,
    ) -> Result<(), AdminError> {
        let durable = {
            let _changing = self.administer();
            let old = self
                .user(user)
                .ok_or_else(|| AdminError::Missing(Missing::User, user.to_owned()))?;
            let mut user = User::clone(&old);
            let place = user
                .limits
                .named(limit)
                .ok_or_else(|| AdminError::Invalid(format!("Unknown user limit '{limit}'")))?;
            *place = value;
            let durable = self.log(vec![define(Definition::User(user.clone()))]);
            self.broker.access().put_user(user.clone());
            self.tell_user(Some(&old), &user);
            durable
        };
        stored(durable).await
    }

    /// Connections and channels of a user.
    pub fn user_limits(&self, user: &str) -> Option<UserLimits> {
        self.user(user).map(|user| user.limits)
    }

    /// Whether any user holds a permission in no vhost: what `users/without-permissions` lists.
    pub fn users_without_permissions(&self) -> Vec<Arc<User>> {
        let permitted: std::collections::HashSet<Name> = self
            .permissions()
            .into_iter()
            .map(|permission| permission.user)
            .collect();
        let mut users = self.users();
        users.retain(|user| !permitted.contains(&user.name));
        users
    }
}
