//! Policies: settings that an operator lays over queues and exchanges by name (amqp-behaviour 6.1, 6.2). Which policy
//! applies, and what a user's and an operator's policy make together; `keys.rs` knows the settings and what they may hold.

mod effective;
mod keys;

use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use crate::broker::definition::Name;
use crate::protocol::field::{FieldTable, FieldValue};

pub use self::{
    effective::{EffectivePolicy, Overflow, RetryType},
    keys::{PolicyRules, term},
};

/// Bytes of a pattern.
const PATTERN_MAX: usize = 1024;
/// Bytes a compiled pattern may take: patterns come over HTTP.
const COMPILED_MAX: usize = 1 << 20;

/// The settings of a policy as written: a JSON object.
pub type Settings = Map<String, Value>;

/// What kind of queue: policies with settings that a type does not know do not apply to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    Classic,
    Quorum,
    Stream,
}

impl QueueType {
    /// The type that `x-queue-type` asks for; anything unknown or absent is the classic one.
    pub fn of(arguments: &FieldTable) -> Self {
        match arguments.get("x-queue-type") {
            Some(FieldValue::LongString(text)) => match &**text {
                b"quorum" => Self::Quorum,
                b"stream" => Self::Stream,
                _ => Self::Classic,
            },
            _ => Self::Classic,
        }
    }
}

/// What a policy is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Queue(QueueType),
    Exchange,
}

/// To what a policy applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplyTo {
    #[default]
    All,
    Exchanges,
    Queues,
    ClassicQueues,
    QuorumQueues,
    Streams,
}

impl ApplyTo {
    const ALL: [(&'static str, Self); 6] = [
        ("all", Self::All),
        ("exchanges", Self::Exchanges),
        ("queues", Self::Queues),
        ("classic_queues", Self::ClassicQueues),
        ("quorum_queues", Self::QuorumQueues),
        ("streams", Self::Streams),
    ];

    /// The word of the HTTP API.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("all", |(name, _)| name)
    }

    /// Reads the word of the HTTP API.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, kind)| *kind)
    }

    fn covers(self, subject: Subject) -> bool {
        match (self, subject) {
            (Self::All, _) | (Self::Exchanges, Subject::Exchange) | (Self::Queues, Subject::Queue(_)) => true,
            (Self::ClassicQueues, Subject::Queue(kind)) => kind == QueueType::Classic,
            (Self::QuorumQueues, Subject::Queue(kind)) => kind == QueueType::Quorum,
            (Self::Streams, Subject::Queue(kind)) => kind == QueueType::Stream,
            _ => false,
        }
    }
}

/// Whose policy: an operator's bounds what users set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    User,
    Operator,
}

/// A policy as it was set.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub vhost: Name,
    pub name: Name,
    pub kind: PolicyKind,
    /// A regular expression, searched anywhere in the name.
    pub pattern: String,
    pub apply_to: ApplyTo,
    /// The highest one wins.
    pub priority: i64,
    pub definition: Settings,
}

impl Policy {
    /// Refuses what RabbitMQ refuses, one line per problem.
    ///
    /// # Errors
    /// The problems' text, without `Validation failed`.
    pub fn validate(&self, rules: PolicyRules) -> Result<(), String> {
        let mut problems = Vec::new();
        if let Err(problem) = compile(&self.pattern) {
            problems.push(format!(
                "pattern should be regular expression but is invalid: {problem}"
            ));
        }
        problems.extend(keys::validate(self.kind, &self.definition, rules));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.join("\n"))
        }
    }

    /// Whether it applies to a thing of this kind at all.
    fn covers(&self, subject: Subject) -> bool {
        let known = match subject {
            Subject::Exchange => true,
            Subject::Queue(kind) => !self.definition.keys().any(|key| keys::is_unsupported(key, kind)),
        };
        known && self.apply_to.covers(subject)
    }
}

/// Compiles a pattern of a policy or permission.
///
/// # Errors
/// What is wrong with it, on one line.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_MAX {
        return Err(format!("longer than {PATTERN_MAX} bytes"));
    }
    RegexBuilder::new(pattern)
        .size_limit(COMPILED_MAX)
        .build()
        .map_err(|error| {
            let text = error.to_string();
            text.lines().last().unwrap_or("invalid").trim().to_owned()
        })
}

struct Compiled {
    policy: Policy,
    pattern: Regex,
}

/// The names of the policies that apply to something: the user's and the operator's.
type Pair = (Option<Name>, Option<Name>);

/// A vhost's policies.
#[derive(Default)]
pub struct Policies {
    /// By kind, then highest priority first, then by name.
    policies: Vec<Compiled>,
    /// What each pair of policies makes together: a hundred thousand queues share a few values.
    merged: Mutex<AHashMap<Pair, Arc<EffectivePolicy>>>,
}

impl Policies {
    /// Adds a policy or replaces the one of its name and kind.
    ///
    /// # Errors
    /// When its pattern is no regular expression.
    pub fn set(&mut self, policy: Policy) -> Result<(), String> {
        let pattern = compile(&policy.pattern)?;
        self.clear(policy.kind, &policy.name);
        self.policies.push(Compiled { policy, pattern });
        self.policies.sort_by(|left, right| {
            let (left, right) = (&left.policy, &right.policy);
            let priority = right.priority.cmp(&left.priority);
            left.kind
                .cmp(&right.kind)
                .then(priority)
                .then_with(|| left.name.cmp(&right.name))
        });
        Ok(())
    }

    /// Removes a policy; false when there was none.
    pub fn clear(&mut self, kind: PolicyKind, name: &str) -> bool {
        let before = self.policies.len();
        self.policies
            .retain(|known| known.policy.kind != kind || &*known.policy.name != name);
        self.merged.get_mut().clear();
        self.policies.len() < before
    }

    /// All of one kind, by name.
    pub fn list(&self, kind: PolicyKind) -> Vec<Policy> {
        let mut policies: Vec<Policy> = self.of(kind).map(|known| known.policy.clone()).collect();
        policies.sort_by(|left, right| left.name.cmp(&right.name));
        policies
    }

    pub fn get(&self, kind: PolicyKind, name: &str) -> Option<&Policy> {
        self.of(kind)
            .map(|known| &known.policy)
            .find(|policy| &*policy.name == name)
    }

    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    fn of(&self, kind: PolicyKind) -> impl Iterator<Item = &Compiled> {
        self.policies
            .iter()
            .filter(move |known| known.policy.kind == kind)
    }

    fn best(&self, kind: PolicyKind, subject: Subject, name: &str) -> Option<&Policy> {
        self.of(kind)
            .find(|known| known.policy.covers(subject) && known.pattern.is_match(name))
            .map(|known| &known.policy)
    }

    /// What applies to a queue or exchange of this name: the best user policy and the best operator policy, merged.
    pub fn effective(&self, subject: Subject, name: &str) -> Option<Arc<EffectivePolicy>> {
        let user = self.best(PolicyKind::User, subject, name);
        let operator = self.best(PolicyKind::Operator, subject, name);
        if user.is_none() && operator.is_none() {
            return None;
        }
        let pair = (
            user.map(|policy| Name::clone(&policy.name)),
            operator.map(|policy| Name::clone(&policy.name)),
        );
        let mut merged = self.merged.lock();
        let effective = merged
            .entry(pair)
            .or_insert_with(|| Arc::new(EffectivePolicy::merge(user, operator)));
        Some(Arc::clone(effective))
    }
}

#[cfg(test)]
mod tests;
