//! How much a vhost or a user may hold (amqp-behaviour 6.4).

use serde_json::Value;

/// A limit as set: `None` was never set, a negative number lifts it, 0 allows nothing.
pub type Limit = Option<i64>;

/// Whether one more is too many.
pub fn is_reached(limit: Limit, count: usize) -> Option<u64> {
    let limit = u64::try_from(limit?).ok()?;
    (u64::try_from(count).unwrap_or(u64::MAX) >= limit).then_some(limit)
}

/// Limits of a vhost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostLimits {
    pub max_connections: Limit,
    pub max_queues: Limit,
}

/// Limits of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimits {
    pub max_connections: Limit,
    pub max_channels: Limit,
}

impl VhostLimits {
    /// The limit of that name in the HTTP API.
    pub fn named(&mut self, name: &str) -> Option<&mut Limit> {
        match name {
            "max-connections" => Some(&mut self.max_connections),
            "max-queues" => Some(&mut self.max_queues),
            _ => None,
        }
    }

    /// Those that were set, by name.
    pub fn listed(&self) -> Vec<(&'static str, i64)> {
        listed([
            ("max-connections", self.max_connections),
            ("max-queues", self.max_queues),
        ])
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads the JSON object of parameters and definitions.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let mut limits = Self::default();
        read(value, |name| limits.named(name).map(|_| ()))?
            .into_iter()
            .for_each(|(name, value)| {
                if let Some(limit) = limits.named(&name) {
                    *limit = Some(value);
                }
            });
        Ok(limits)
    }
}

impl UserLimits {
    /// The limit of that name in the HTTP API.
    pub fn named(&mut self, name: &str) -> Option<&mut Limit> {
        match name {
            "max-connections" => Some(&mut self.max_connections),
            "max-channels" => Some(&mut self.max_channels),
            _ => None,
        }
    }

    /// Those that were set, by name.
    pub fn listed(&self) -> Vec<(&'static str, i64)> {
        listed([
            ("max-connections", self.max_connections),
            ("max-channels", self.max_channels),
        ])
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Reads the JSON object of definitions.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let mut limits = Self::default();
        read(value, |name| limits.named(name).map(|_| ()))?
            .into_iter()
            .for_each(|(name, value)| {
                if let Some(limit) = limits.named(&name) {
                    *limit = Some(value);
                }
            });
        Ok(limits)
    }
}

fn listed<const N: usize>(limits: [(&'static str, Limit); N]) -> Vec<(&'static str, i64)> {
    limits
        .into_iter()
        .filter_map(|(name, limit)| Some((name, limit?)))
        .collect()
}

fn read(value: &Value, mut knows: impl FnMut(&str) -> Option<()>) -> Result<Vec<(String, i64)>, String> {
    let Value::Object(fields) = value else {
        return Err("limits should be an object".to_owned());
    };
    let mut found = Vec::new();
    for (name, value) in fields {
        if knows(name).is_none() {
            return Err(format!(
                "Unrecognised terms [{{<<\"{name}\">>,{value}}}] in limits"
            ));
        }
        let Some(number) = value.as_i64() else {
            let shown = crate::broker::policy::term(value);
            return Err(format!("{name} should be an integer, actually was {shown}"));
        };
        found.push((name.clone(), number));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zero_allows_nothing_and_a_negative_number_everything() {
        assert_eq!(is_reached(None, 1_000_000), None);
        assert_eq!(is_reached(Some(-1), 1_000_000), None);
        assert_eq!(is_reached(Some(0), 0), Some(0));
        assert_eq!(is_reached(Some(2), 1), None);
        assert_eq!(is_reached(Some(2), 2), Some(2));
    }

    #[test]
    fn limits_are_read_or_refused() {
        let limits = VhostLimits::parse(&json!({"max-queues": 3})).unwrap();
        assert_eq!(limits.listed(), vec![("max-queues", 3)]);
        assert!(VhostLimits::parse(&json!({"max-channels": 3})).is_err());
        assert!(UserLimits::parse(&json!({"max-channels": "3"})).is_err());
        assert!(UserLimits::parse(&json!([])).is_err());
    }
}
