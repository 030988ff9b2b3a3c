//! Runtime parameters: JSON values that plugins and tools keep in the broker, per vhost or for all
//! (amqp-behaviour 6.3).

use serde_json::Value;

use crate::broker::definition::Name;

/// A value of one vhost.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    pub vhost: Name,
    pub component: Name,
    pub name: Name,
    pub value: Value,
}

/// A value of the whole broker.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalParameter {
    pub name: Name,
    pub value: Value,
}

/// Components whose parameters are kept though their feature is not built, so that definitions survive a migration.
const COMPONENTS: [&str; 3] = ["federation-upstream", "federation-upstream-set", "shovel"];

impl Parameter {
    /// Refuses unknown components, and those that have doors of their own.
    ///
    /// # Errors
    /// RabbitMQ's text.
    pub fn validate(&self) -> Result<(), String> {
        match &*self.component {
            "policy" | "operator_policy" => Err("policies may not be set using this method".to_owned()),
            known if COMPONENTS.contains(&known) => Ok(()),
            unknown => Err(format!("component {unknown} not found")),
        }
    }
}
