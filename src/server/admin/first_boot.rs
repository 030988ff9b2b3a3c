//! What a broker with an empty store begins with: a vhost, a user who may do everything in it, and a name of its own
//! (amqp-behaviour 7.4). Never again after that, so that a user who was deleted stays deleted.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::RngCore;
use serde_json::Value;

use crate::auth;
use crate::broker::{
    definition::{Definition, VhostDefinition},
    limits::UserLimits,
    parameter::GlobalParameter,
    permission::Permission,
    user::{HashingAlgorithm, User},
};

/// Its presence tells that the store has been prepared.
const CLUSTER_ID: &str = "internal_cluster_id";

/// Who may enter a new broker, and how passwords are kept.
#[derive(Clone)]
pub struct AccessOptions {
    pub default_user: String,
    pub default_password: String,
    pub default_tags: Vec<String>,
    /// Users who may come only from this machine.
    pub loopback_users: Vec<String>,
    /// For passwords set from now on.
    pub password_hashing: HashingAlgorithm,
}

impl Default for AccessOptions {
    fn default() -> Self {
        Self {
            default_user: "guest".to_owned(),
            default_password: "guest".to_owned(),
            default_tags: vec!["administrator".to_owned()],
            loopback_users: vec!["guest".to_owned()],
            password_hashing: HashingAlgorithm::default(),
        }
    }
}

/// Decides what an empty store, or one of a version without users, begins with.
pub(in crate::server) fn first_boot(
    options: &AccessOptions,
    default_vhost: &str,
    stored: &[Definition],
) -> Vec<Definition> {
    let prepared = stored.iter().any(|definition| {
        matches!(definition, Definition::GlobalParameter(parameter) if &*parameter.name == CLUSTER_ID)
    });
    if prepared {
        return Vec::new();
    }
    let vhost = VhostDefinition::new(default_vhost);
    let everything = || ".*".to_owned();
    let permission = Permission {
        user: options.default_user.as_str().into(),
        vhost: default_vhost.into(),
        configure: everything(),
        write: everything(),
        read: everything(),
    };
    let user = User {
        name: options.default_user.as_str().into(),
        password: auth::hash(options.password_hashing, options.default_password.as_bytes()),
        tags: options.default_tags.clone(),
        limits: UserLimits::default(),
    };
    let mut id = [0; 16];
    rand::rng().fill_bytes(&mut id);
    let id = format!("rabbitmq-cluster-id-{}", URL_SAFE_NO_PAD.encode(id));
    vec![
        Definition::Vhost(vhost),
        Definition::User(user),
        Definition::Permission(permission),
        Definition::GlobalParameter(GlobalParameter {
            name: CLUSTER_ID.into(),
            value: Value::from(id),
        }),
    ]
}
