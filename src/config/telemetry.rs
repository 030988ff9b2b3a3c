//! The settings of OpenTelemetry spans.

use serde::Deserialize;

use super::{ConfigError, bad};
use crate::management::Collector;
use crate::server::SpanOptions;

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOtel {
    endpoint: String,
    headers: Vec<String>,
    service_name: String,
    sample_ratio: f64,
    root_sample_ratio: f64,
    waiting_max: usize,
}

impl RawOtel {
    /// What is recorded and who is sent it; `None` when spans are off.
    pub(super) fn check(self) -> Result<Option<(SpanOptions, Collector)>, ConfigError> {
        for (key, ratio) in [
            ("otel.sample_ratio", self.sample_ratio),
            ("otel.root_sample_ratio", self.root_sample_ratio),
        ] {
            if !(0.0..=1.0).contains(&ratio) {
                return Err(bad(key, format!("{ratio} is not between 0 and 1")));
            }
        }
        if self.endpoint.is_empty() {
            return Ok(None);
        }
        let collector = Collector::new(&self.endpoint, &self.headers, &self.service_name)
            .map_err(|problem| bad("otel.endpoint", problem))?;
        let options = SpanOptions {
            sample_ratio: self.sample_ratio,
            root_sample_ratio: self.root_sample_ratio,
            waiting_max: self.waiting_max,
        };
        Ok(Some((options, collector)))
    }
}
