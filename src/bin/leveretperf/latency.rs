//! Latencies in nanoseconds, to three digits.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{clock::SECOND_NS, error::PerfError};

/// A day: what is longer counts as this long.
const LONGEST_NS: u64 = 24 * 3_600 * SECOND_NS;

pub(crate) struct Latency(Histogram<u64>);

/// Milliseconds.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Percentiles {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) samples: u64,
}

impl Latency {
    pub(crate) fn new() -> Result<Self, PerfError> {
        // It grows with what it has to hold: thousands of connections that measure nothing cost nothing.
        Histogram::new(3)
            .map(Self)
            .map_err(|cause| PerfError::Local(cause.to_string()))
    }

    pub(crate) fn record(&mut self, from_ns: u64, to_ns: u64) {
        self.0 += to_ns.saturating_sub(from_ns).min(LONGEST_NS);
    }

    pub(crate) fn add(&mut self, other: &Self) -> Result<(), PerfError> {
        self.0
            .add(&other.0)
            .map_err(|cause| PerfError::Local(cause.to_string()))
    }

    /// `None` if nothing was measured.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| milliseconds(self.0.value_at_quantile(quantile));
        (!self.0.is_empty()).then(|| Percentiles {
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(self.0.max()),
            samples: self.0.len(),
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a latency has fewer than 53 significant bits"
)]
fn milliseconds(ns: u64) -> f64 {
    // The histogram keeps three digits; below a microsecond nothing here is meaningful.
    (ns as f64 / 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut first = Latency::new().unwrap();
        let mut second = Latency::new().unwrap();
        assert_eq!(first.percentiles(), None);
        for nth in 1..=1_000 {
            let half = if nth % 2 == 0 { &mut first } else { &mut second };
            half.record(5_000_000, 5_000_000 + nth * 1_000_000);
        }
        first.add(&second).unwrap();
        let got = first.percentiles().unwrap();
        assert_eq!(got.samples, 1_000);
        for (value, expected) in [
            (got.p50_ms, 500.0),
            (got.p99_ms, 990.0),
            (got.p999_ms, 999.0),
            (got.max_ms, 1000.0),
        ] {
            assert!(
                (value - expected).abs() <= expected / 1000.0,
                "{value} is not {expected}"
            );
        }
    }

    #[test]
    fn a_stamp_from_the_future_counts_as_no_time_and_an_ancient_one_as_a_day() {
        let mut latency = Latency::new().unwrap();
        latency.record(10, 5);
        latency.record(0, u64::MAX);
        let got = latency.percentiles().unwrap();
        assert_eq!(got.samples, 2);
        assert!((86_400_000.0..86_500_000.0).contains(&got.max_ms), "{got:?}");
    }
}
