//! How long returned messages wait for their next attempt: `x-delayed-retry-*` of arguments and policies. Type, least and
//! most are RabbitMQ's (amqp-behaviour 4.3); growth by a factor, a list of waits and jitter are ours, and all of them work
//! on every type of queue.

use std::sync::Arc;

use crate::broker::{
    ids::Seq,
    policy::{EffectivePolicy, RetryType},
    queue::Return,
};
use crate::protocol::field::{FieldTable, FieldValue};

pub const TYPE: &str = "x-delayed-retry-type";
pub const MIN: &str = "x-delayed-retry-min";
pub const MAX: &str = "x-delayed-retry-max";
pub const MULTIPLIER: &str = "x-delayed-retry-multiplier";
pub const SCHEDULE: &str = "x-delayed-retry-schedule";
pub const JITTER: &str = "x-delayed-retry-jitter";
/// A schedule has no more waits than this.
pub const SCHEDULE_MAX: usize = 64;
/// The largest factor.
const MULTIPLIER_MAX: f64 = 1000.0;

/// Which returned messages wait, and how long. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Those whose attempt failed.
    failed: bool,
    /// The others.
    returned: bool,
    growth: Growth,
    /// The longest wait.
    max_ms: Option<u64>,
    /// Waits are shorter by up to this share, in thousandths.
    jitter: u16,
}

/// How the wait depends on the number of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Growth {
    /// So long for the first and as much more for each further one, but always the first without a longest wait.
    Linear { min_ms: u64 },
    /// So long for the first, then times the factor, in thousandths, for each further one.
    Exponential { min_ms: u64, factor: u64 },
    /// One after the other, the last of them for all that follow. Never empty.
    Schedule(Arc<[u64]>),
}

impl Retry {
    /// What arguments and policy say together: the policy before the argument for type, factor, jitter and schedule, the
    /// smaller for the times. What does not fit together delays nothing.
    pub fn of(arguments: &FieldTable, policy: Option<&EffectivePolicy>) -> Option<Self> {
        let own = arguments
            .get(TYPE)
            .and_then(FieldValue::as_str_bytes)
            .and_then(|word| RetryType::parse(std::str::from_utf8(word).ok()?));
        let (failed, returned) = match policy.and_then(|policy| policy.delayed_retry_type).or(own)? {
            RetryType::Disabled => return None,
            RetryType::All => (true, true),
            RetryType::Failed => (true, false),
            RetryType::Returned => (false, true),
        };
        let smaller = |name: &str, policy: Option<u64>| {
            let own = arguments.get(name).and_then(FieldValue::as_integer);
            let own = own.and_then(|value| u64::try_from(value).ok());
            own.into_iter().chain(policy).min()
        };
        let min_ms = smaller(MIN, policy.and_then(|policy| policy.delayed_retry_min_ms));
        let max_ms = smaller(MAX, policy.and_then(|policy| policy.delayed_retry_max_ms));
        let schedule = policy
            .and_then(|policy| policy.delayed_retry_schedule_ms.clone())
            .or_else(|| arguments.get(SCHEDULE).and_then(|value| schedule(value).ok()));
        let factor = policy
            .and_then(|policy| policy.delayed_retry_multiplier)
            .or_else(|| arguments.get(MULTIPLIER).and_then(number))
            .and_then(multiplier);
        let jitter = policy
            .and_then(|policy| policy.delayed_retry_jitter)
            .or_else(|| arguments.get(JITTER).and_then(number))
            .and_then(share);
        let growth = match (schedule, factor, min_ms) {
            (Some(schedule), ..) => Growth::Schedule(schedule),
            (None, _, None) => return None,
            (None, Some(factor), Some(min_ms)) => Growth::Exponential { min_ms, factor },
            (None, None, Some(min_ms)) => Growth::Linear { min_ms },
        };
        let fits = |max| min_ms.is_none_or(|min| max >= min);
        max_ms.is_none_or(fits).then_some(Self {
            failed,
            returned,
            growth,
            max_ms,
            jitter: jitter.unwrap_or(0),
        })
    }

    /// How long a message waits that failed so often; `None` when it does not. `seq` is the chance in the jitter.
    pub(super) fn wait_ms(&self, seq: Seq, failed: u16, why: Return) -> Option<u64> {
        let waits = match why {
            Return::Failed | Return::RetryAt(_) => self.failed,
            Return::Postponed => self.returned,
        };
        if !waits {
            return None;
        }
        let attempt = u64::from(failed.max(1));
        let wait = match (&self.growth, self.max_ms) {
            (Growth::Linear { min_ms }, None) => *min_ms,
            (Growth::Linear { min_ms }, Some(_)) => min_ms.saturating_mul(attempt),
            (Growth::Exponential { min_ms, factor }, max) => {
                exponential(*min_ms, *factor, attempt, max.unwrap_or(u64::MAX))
            }
            (Growth::Schedule(waits), _) => {
                let at = usize::from(failed.max(1) - 1).min(waits.len().saturating_sub(1));
                waits.get(at).copied().unwrap_or(0)
            }
        };
        let wait = self.max_ms.map_or(wait, |max| wait.min(max));
        let spread = wait / 1000 * u64::from(self.jitter) + wait % 1000 * u64::from(self.jitter) / 1000;
        Some(wait - mixed(seq.0 ^ attempt << 48) % (spread + 1))
    }
}

/// `min` times the factor (in thousandths) for every attempt after the first, until it is more than `max`.
fn exponential(min_ms: u64, factor: u64, attempts: u64, max_ms: u64) -> u64 {
    let mut wait = min_ms;
    for _ in 1..attempts {
        let next = u128::from(wait) * u128::from(factor) / 1000;
        let next = u64::try_from(next).unwrap_or(u64::MAX);
        if next == wait || next >= max_ms {
            return next.min(max_ms);
        }
        wait = next;
    }
    wait
}

/// Numbers without a pattern from numbers that have one (splitmix64).
fn mixed(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// A number of any kind, or one in text.
pub(super) fn number(value: &FieldValue) -> Option<f64> {
    match value {
        FieldValue::F32(float) => Some(f64::from(*float)),
        FieldValue::F64(float) => Some(*float),
        FieldValue::LongString(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
        other => Some(f64::from(i32::try_from(other.as_integer()?).ok()?)),
    }
}

fn thousandths(number: f64) -> Option<u64> {
    format!("{:.0}", number * 1000.0).parse().ok()
}

/// A factor from 1 up, in thousandths.
pub(super) fn multiplier(number: f64) -> Option<u64> {
    (1.0..=MULTIPLIER_MAX)
        .contains(&number)
        .then(|| thousandths(number))?
}

/// A share from 0 to 1, in thousandths.
pub(super) fn share(number: f64) -> Option<u16> {
    (0.0..=1.0)
        .contains(&number)
        .then(|| u16::try_from(thousandths(number)?).ok())?
}

/// A list of waits, from an array or from text with commas.
///
/// # Errors
/// What is wrong with it, as queue.declare reports it.
pub(super) fn schedule(value: &FieldValue) -> Result<Arc<[u64]>, String> {
    let wrong = || "invalid_schedule".to_owned();
    let waits: Option<Vec<u64>> = match value {
        FieldValue::Array(waits) => waits
            .iter()
            .map(|wait| u64::try_from(wait.as_integer()?).ok())
            .collect(),
        FieldValue::LongString(text) => std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.split(',').map(|wait| wait.trim().parse().ok()).collect()),
        other => return Err(format!("{{unacceptable_type,{}}}", other.type_name())),
    };
    let waits = waits.ok_or_else(wrong)?;
    if waits.is_empty() || waits.len() > SCHEDULE_MAX {
        return Err(wrong());
    }
    Ok(waits.into())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn retry(more: &[(&str, FieldValue)]) -> Option<Retry> {
        let mut arguments = FieldTable::new();
        arguments.insert(TYPE, FieldValue::LongString(Bytes::from_static(b"failed")));
        for (name, value) in more {
            arguments.insert(*name, value.clone());
        }
        Retry::of(&arguments, None)
    }

    fn waits(more: &[(&str, FieldValue)]) -> Vec<u64> {
        let retry = retry(more).expect("they fit together");
        let wait = |failed| retry.wait_ms(Seq(1), failed, Return::Failed);
        (1..=5)
            .map(|failed| wait(failed).expect("failures wait"))
            .collect()
    }

    fn ms(ms: i32) -> FieldValue {
        FieldValue::I32(ms)
    }

    #[test]
    fn waits_grow_as_asked() {
        assert_eq!(waits(&[(MIN, ms(10))]), [10, 10, 10, 10, 10]);
        assert_eq!(waits(&[(MIN, ms(10)), (MAX, ms(35))]), [10, 20, 30, 35, 35]);
        assert_eq!(
            waits(&[(MIN, ms(10)), (MULTIPLIER, ms(2))]),
            [10, 20, 40, 80, 160]
        );
        assert_eq!(
            waits(&[(MIN, ms(100)), (MULTIPLIER, FieldValue::F64(1.5)), (MAX, ms(200))]),
            [100, 150, 200, 200, 200]
        );
        let list = FieldValue::Array(vec![ms(5), ms(60), ms(300)]);
        assert_eq!(waits(&[(SCHEDULE, list)]), [5, 60, 300, 300, 300]);
        let list = FieldValue::LongString(Bytes::from_static(b"5, 60"));
        assert_eq!(waits(&[(SCHEDULE, list), (MAX, ms(50))]), [5, 50, 50, 50, 50]);
    }

    #[test]
    fn growth_without_an_end_ends_at_the_largest_number() {
        let retry = retry(&[(MIN, ms(1000)), (MULTIPLIER, ms(1000))]).expect("fits");
        assert_eq!(retry.wait_ms(Seq(1), u16::MAX, Return::Failed), Some(u64::MAX));
        assert_eq!(retry.wait_ms(Seq(1), 1, Return::Postponed), None);
    }

    #[test]
    fn jitter_only_shortens_and_spreads() {
        let retry = retry(&[(MIN, ms(1000)), (JITTER, FieldValue::F64(0.25))]).expect("fits");
        let waits: Vec<u64> = (0..1000)
            .filter_map(|seq| retry.wait_ms(Seq(seq), 1, Return::Failed))
            .collect();
        assert!(waits.iter().all(|wait| (750..=1000).contains(wait)));
        let (early, late) = waits.iter().partition::<Vec<u64>, _>(|wait| **wait < 875);
        assert!(early.len() > 400 && late.len() > 400, "{} early", early.len());
    }

    #[test]
    fn what_does_not_fit_together_delays_nothing() {
        assert_eq!(retry(&[]), None);
        assert_eq!(retry(&[(MIN, ms(10)), (MAX, ms(5))]), None);
        assert_eq!(retry(&[(MULTIPLIER, ms(2))]), None);
    }
}
