//! How long a consumer may take to settle a delivery, and what happens when it does not: `x-consumer-timeout` and
//! `x-consumer-timeout-action` of queues and consumers, and the policy `consumer-timeout` (amqp-behaviour 4.3, 4.11).

use crate::broker::policy::EffectivePolicy;
use crate::protocol::field::{FieldTable, FieldValue};

pub const TIMEOUT: &str = "x-consumer-timeout";
pub const ACTION: &str = "x-consumer-timeout-action";
/// The words of [`ACTION`].
pub const ACTIONS: &[&str] = &["close", "cancel", "requeue"];

/// What happens to a delivery that is not settled in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutAction {
    /// The channel is closed, and everything it holds goes back.
    Close,
    /// The consumer is cancelled, and what is overdue goes back.
    Cancel,
    /// What is overdue goes back, and nothing else happens: a visibility timeout.
    Requeue,
}

impl TimeoutAction {
    fn parse(value: &FieldValue) -> Option<Self> {
        match value.as_str_bytes()? {
            b"close" => Some(Self::Close),
            b"cancel" => Some(Self::Cancel),
            b"requeue" => Some(Self::Requeue),
            _ => None,
        }
    }
}

/// What a queue or a consumer says; nothing leaves it to the next.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AckTimeout {
    /// 0 is for ever.
    pub timeout_ms: Option<u64>,
    pub action: Option<TimeoutAction>,
}

impl AckTimeout {
    /// What the arguments of a queue or a consumer say.
    pub fn of(arguments: &FieldTable) -> Self {
        let timeout = arguments.get(TIMEOUT).and_then(FieldValue::as_integer);
        Self {
            timeout_ms: timeout.and_then(|ms| u64::try_from(ms).ok()),
            action: arguments.get(ACTION).and_then(TimeoutAction::parse),
        }
    }

    /// A queue's, of whose own timeout and the policy's the shorter holds.
    pub fn of_queue(arguments: &FieldTable, policy: Option<&EffectivePolicy>) -> Self {
        let own = Self::of(arguments);
        let policy = policy.and_then(|policy| policy.consumer_timeout_ms);
        Self {
            timeout_ms: own.timeout_ms.into_iter().chain(policy).min(),
            action: own.action,
        }
    }

    /// What is not said here is as said there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            timeout_ms: self.timeout_ms.or(other.timeout_ms),
            action: self.action.or(other.action),
        }
    }
}
