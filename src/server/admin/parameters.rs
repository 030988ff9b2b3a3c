//! Runtime parameters of vhosts and of the whole broker (amqp-behaviour 6.3). The limits of a vhost are seen as the
//! parameter `limits` of the component `vhost-limits` too, as RabbitMQ keeps them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AdminError, Change, Missing, check_name, define, stored, undefine};
use crate::broker::{
    definition::{Definition, Name},
    limits::VhostLimits,
    parameter::{GlobalParameter, Parameter},
};
use crate::server::handle::Handle;
use crate::storage::DefinitionKey;

const VHOST_LIMITS: &str = "vhost-limits";
const LIMITS: &str = "limits";

/// All parameters, by vhost, component and name.
#[derive(Default)]
pub(in crate::server) struct Parameters {
    values: BTreeMap<(Name, Name, Name), Value>,
    global: BTreeMap<Name, Value>,
}

impl Parameters {
    /// What the store kept.
    pub(in crate::server) fn restored(definitions: &[Definition]) -> Self {
        let mut parameters = Self::default();
        for definition in definitions {
            match definition {
                Definition::Parameter(parameter) => {
                    parameters.set(parameter.clone());
                }
                Definition::GlobalParameter(parameter) => {
                    parameters.set_global(parameter.clone());
                }
                _ => {}
            }
        }
        parameters
    }

    fn set(&mut self, parameter: Parameter) -> bool {
        let key = (parameter.vhost, parameter.component, parameter.name);
        self.values.insert(key, parameter.value).is_none()
    }

    pub(super) fn set_global(&mut self, parameter: GlobalParameter) -> bool {
        self.global.insert(parameter.name, parameter.value).is_none()
    }

    pub(in crate::server) fn global(&self, name: &str) -> Option<&Value> {
        self.global.get(name)
    }

    pub(super) fn remove_vhost(&mut self, vhost: &str) -> Vec<DefinitionKey> {
        let mut gone = Vec::new();
        self.values.retain(|(of, component, name), _| {
            let keep = &**of != vhost;
            if !keep {
                gone.push(DefinitionKey::Parameter {
                    vhost: Name::clone(of),
                    component: Name::clone(component),
                    name: Name::clone(name),
                });
            }
            keep
        });
        gone
    }
}

fn limits_value(limits: &VhostLimits) -> Value {
    let fields = limits.listed();
    Value::Object(
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect(),
    )
}

impl Handle {
    /// Parameters of all vhosts, those that are a vhost's limits included.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut found: Vec<Parameter> = self
            .broker
            .parameters()
            .read()
            .values
            .iter()
            .map(|((vhost, component, name), value)| Parameter {
                vhost: Name::clone(vhost),
                component: Name::clone(component),
                name: Name::clone(name),
                value: value.clone(),
            })
            .collect();
        let limited = self.vhosts().into_iter().filter(|vhost| !vhost.limits.is_empty());
        found.extend(limited.map(|vhost| Parameter {
            vhost: vhost.name,
            component: VHOST_LIMITS.into(),
            name: LIMITS.into(),
            value: limits_value(&vhost.limits),
        }));
        found
    }

    pub fn parameter(&self, vhost: &str, component: &str, name: &str) -> Option<Parameter> {
        let mut all = self.parameters().into_iter();
        all.find(|parameter| {
            (&*parameter.vhost, &*parameter.component, &*parameter.name) == (vhost, component, name)
        })
    }

    /// Sets a parameter of a vhost.
    ///
    /// # Errors
    /// [`AdminError::Missing`] vhost; [`AdminError::Invalid`] for unknown components and bad limits.
    pub async fn set_parameter(&self, parameter: Parameter) -> Result<Change, AdminError> {
        check_name("a parameter's name", &parameter.name)?;
        let failed = |problems| AdminError::Invalid(format!("Validation failed\n\n{problems}"));
        if &*parameter.component == VHOST_LIMITS {
            let limits = VhostLimits::parse(&parameter.value).map_err(failed)?;
            return self.replace_vhost_limits(&parameter.vhost, limits).await;
        }
        parameter.validate().map_err(failed)?;
        let (created, durable) = {
            let _changing = self.administer();
            self.existing_vhost(&parameter.vhost)?;
            let durable = self.log(vec![define(Definition::Parameter(parameter.clone()))]);
            self.tell_parameter(&parameter);
            (self.broker.parameters().write().set(parameter), durable)
        };
        stored(durable).await?;
        Ok(Change::new(created))
    }

    /// Replaces all limits of a vhost.
    ///
    /// # Errors
    /// [`AdminError::Missing`] vhost.
    pub async fn replace_vhost_limits(&self, vhost: &str, limits: VhostLimits) -> Result<Change, AdminError> {
        let (created, durable) = {
            let _changing = self.administer();
            let vhost = self.existing_vhost(vhost)?;
            let mut definition = vhost.definition();
            let created = definition.limits.is_empty();
            definition.limits = limits;
            let durable = self.log(vec![define(Definition::Vhost(definition.clone()))]);
            self.tell_vhost(Some(&vhost.definition()), &definition);
            vhost.redefine(definition);
            (created, durable)
        };
        stored(durable).await?;
        Ok(Change::new(created))
    }

    /// Clears a parameter of a vhost.
    ///
    /// # Errors
    /// [`AdminError::Missing`].
    pub async fn clear_parameter(&self, vhost: &str, component: &str, name: &str) -> Result<(), AdminError> {
        if component == VHOST_LIMITS {
            return self
                .replace_vhost_limits(vhost, VhostLimits::default())
                .await
                .map(|_| ());
        }
        let durable = {
            let _changing = self.administer();
            let key: (Name, Name, Name) = (vhost.into(), component.into(), name.into());
            if self.broker.parameters().write().values.remove(&key).is_none() {
                return Err(AdminError::Missing(Missing::Parameter, name.to_owned()));
            }
            self.tell_parameter_cleared(&key);
            let (vhost, component, name) = key;
            self.log(vec![undefine(DefinitionKey::Parameter {
                vhost,
                component,
                name,
            })])
        };
        stored(durable).await
    }

    /// The whole broker's parameters, by name; `cluster_name` is always among them.
    pub fn global_parameters(&self) -> Vec<GlobalParameter> {
        let mut all = self.broker.parameters().read().global.clone();
        let cluster_name = || Value::from(self.broker.cluster_name());
        all.entry("cluster_name".into()).or_insert_with(cluster_name);
        all.into_iter()
            .map(|(name, value)| GlobalParameter { name, value })
            .collect()
    }

    /// Sets a parameter of the whole broker.
    ///
    /// # Errors
    /// [`AdminError::Invalid`] name, or a cluster name that is no text.
    pub async fn set_global_parameter(&self, parameter: GlobalParameter) -> Result<Change, AdminError> {
        check_name("a parameter's name", &parameter.name)?;
        if &*parameter.name == "cluster_name" && !parameter.value.is_string() {
            return Err(AdminError::Invalid(
                "the cluster name must be a string".to_owned(),
            ));
        }
        let (created, durable) = {
            let _changing = self.administer();
            let durable = self.log(vec![define(Definition::GlobalParameter(parameter.clone()))]);
            self.tell_global_parameter(&parameter);
            (self.broker.parameters().write().set_global(parameter), durable)
        };
        stored(durable).await?;
        Ok(Change::new(created))
    }

    /// Clears a parameter of the whole broker.
    ///
    /// # Errors
    /// [`AdminError::Missing`].
    pub async fn clear_global_parameter(&self, name: &str) -> Result<(), AdminError> {
        let durable = {
            let _changing = self.administer();
            if self.broker.parameters().write().global.remove(name).is_none() {
                return Err(AdminError::Missing(Missing::Parameter, name.to_owned()));
            }
            self.tell_global_parameter_cleared(name);
            self.log(vec![undefine(DefinitionKey::GlobalParameter(name.into()))])
        };
        stored(durable).await
    }
}
