//! The result, for people and for programs.

use std::{
    fmt,
    io::{self, Write},
};

use serde::Serialize;

use crate::{course::Count, latency::Percentiles, usage::Memory};

/// What one run has measured. The names are the keys of the JSON output.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// Seconds the counts below were counted for.
    pub(crate) seconds: f64,
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    /// Confirmed negatively.
    pub(crate) nacked: u64,
    pub(crate) consumed: u64,
    pub(crate) published_per_second: f64,
    pub(crate) confirmed_per_second: f64,
    pub(crate) consumed_per_second: f64,
    pub(crate) confirm_latency: Option<Percentiles>,
    pub(crate) end_to_end_latency: Option<Percentiles>,
    /// Of this program, user and kernel.
    pub(crate) generator_cpu_seconds: Option<f64>,
    pub(crate) generator_cpu_seconds_per_million: Option<f64>,
    /// Of the process given with --broker-pid.
    pub(crate) broker_cpu_seconds: Option<f64>,
    pub(crate) broker_cpu_seconds_per_million: Option<f64>,
    pub(crate) broker_rss_bytes: Option<u64>,
    pub(crate) broker_peak_rss_bytes: Option<u64>,
}

/// What the counts have to be put in relation to.
pub(crate) struct Effort {
    pub(crate) seconds: f64,
    pub(crate) generator_cpu_seconds: Option<f64>,
    pub(crate) broker_cpu_seconds: Option<f64>,
    pub(crate) broker_memory: Memory,
}

impl Summary {
    /// CPU time is put in relation to the messages that went all the way: the consumed ones, or the published
    /// ones if nothing was consumed.
    pub(crate) fn new(
        count: Count,
        effort: &Effort,
        confirm_latency: Option<Percentiles>,
        end_to_end_latency: Option<Percentiles>,
    ) -> Self {
        let whole = if count.consumed > 0 {
            count.consumed
        } else {
            count.published
        };
        let per_second = |messages: u64| rounded(ratio(number(messages), effort.seconds).unwrap_or(0.0), 1e1);
        let per_million =
            |cpu: Option<f64>| ratio(cpu?, number(whole) / 1e6).map(|seconds| rounded(seconds, 1e4));
        Self {
            seconds: rounded(effort.seconds, 1e6),
            published: count.published,
            confirmed: count.confirmed,
            nacked: count.nacked,
            consumed: count.consumed,
            published_per_second: per_second(count.published),
            confirmed_per_second: per_second(count.confirmed),
            consumed_per_second: per_second(count.consumed),
            confirm_latency,
            end_to_end_latency,
            generator_cpu_seconds: effort.generator_cpu_seconds.map(|seconds| rounded(seconds, 1e2)),
            generator_cpu_seconds_per_million: per_million(effort.generator_cpu_seconds),
            broker_cpu_seconds: effort.broker_cpu_seconds.map(|seconds| rounded(seconds, 1e2)),
            broker_cpu_seconds_per_million: per_million(effort.broker_cpu_seconds),
            broker_rss_bytes: effort.broker_memory.rss_bytes,
            broker_peak_rss_bytes: effort.broker_memory.peak_rss_bytes,
        }
    }

    pub(crate) fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer(&mut out, self)?;
            writeln!(out)
        } else {
            write!(out, "{self}")
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "measured            {:.2} s", self.seconds)?;
        for (name, messages, per_second) in [
            ("published", self.published, self.published_per_second),
            ("confirmed", self.confirmed, self.confirmed_per_second),
            ("consumed", self.consumed, self.consumed_per_second),
        ] {
            if messages > 0 {
                writeln!(
                    out,
                    "{name:<19} {:>13} {:>13}/s",
                    grouped(messages),
                    grouped_float(per_second)
                )?;
            }
        }
        if self.nacked > 0 {
            writeln!(out, "refused with nack   {:>13}", grouped(self.nacked))?;
        }
        for (name, latency) in [
            ("confirm latency", &self.confirm_latency),
            ("end-to-end latency", &self.end_to_end_latency),
        ] {
            if let Some(latency) = latency {
                writeln!(out, "{name:<19} {latency}")?;
            }
        }
        for (name, cpu, per_million) in [
            (
                "generator CPU",
                self.generator_cpu_seconds,
                self.generator_cpu_seconds_per_million,
            ),
            (
                "broker CPU",
                self.broker_cpu_seconds,
                self.broker_cpu_seconds_per_million,
            ),
        ] {
            if let (Some(cpu), Some(per_million)) = (cpu, per_million) {
                writeln!(
                    out,
                    "{name:<19} {cpu:.2} s, {per_million:.3} s per million messages"
                )?;
            }
        }
        if let (Some(now), Some(peak)) = (self.broker_rss_bytes, self.broker_peak_rss_bytes) {
            let mebibytes = |bytes| number(bytes) / 1_048_576.0;
            writeln!(
                out,
                "broker memory       {:.1} MiB, peak {:.1} MiB",
                mebibytes(now),
                mebibytes(peak)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50_ms,
            p99_ms,
            p999_ms,
            max_ms,
            samples,
        } = self;
        write!(
            out,
            "p50 {p50_ms:.3}  p99 {p99_ms:.3}  p99.9 {p999_ms:.3}  max {max_ms:.3} ms"
        )?;
        write!(out, "  ({} samples)", grouped(*samples))
    }
}

/// One line of progress: what happened in the last `seconds`.
pub(crate) fn progress_line(at_seconds: f64, count: &Count, seconds: f64) -> String {
    let rate = |messages: u64| grouped_float(ratio(number(messages), seconds).unwrap_or(0.0));
    let mut line = format!("{at_seconds:6.1} s  published {:>11}/s", rate(count.published));
    if count.confirmed + count.nacked > 0 {
        line += &format!("  confirmed {:>11}/s", rate(count.confirmed));
    }
    line + &format!("  consumed {:>11}/s", rate(count.consumed))
}

#[expect(clippy::cast_precision_loss, reason = "counts and sizes stay far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

fn ratio(of: f64, to: f64) -> Option<f64> {
    (to > 0.0).then(|| of / to)
}

fn rounded(value: f64, places: f64) -> f64 {
    (value * places).round() / places
}

fn grouped_float(value: f64) -> String {
    // Above 100 a fraction of a message is noise.
    if value < 100.0 {
        format!("{value:.1}")
    } else {
        group(&format!("{value:.0}"))
    }
}

fn grouped(value: u64) -> String {
    group(&value.to_string())
}

fn group(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(consumed: u64) -> Summary {
        let count = Count {
            published: 2_000_000,
            consumed,
            ..Count::default()
        };
        let effort = Effort {
            seconds: 4.0,
            generator_cpu_seconds: Some(0.5),
            broker_cpu_seconds: None,
            broker_memory: Memory::default(),
        };
        Summary::new(count, &effort, None, None)
    }

    #[test]
    fn rates_and_prices() {
        let got = summary(1_000_000);
        assert_eq!(
            (got.published_per_second, got.consumed_per_second),
            (500_000.0, 250_000.0)
        );
        assert_eq!(got.generator_cpu_seconds_per_million, Some(0.5));
        assert_eq!(got.broker_cpu_seconds_per_million, None);
        assert_eq!(summary(0).generator_cpu_seconds_per_million, Some(0.25));
    }

    #[test]
    fn the_text_leaves_out_what_was_not_measured() {
        let text = summary(1_000_000).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "measured            4.00 s",
                "published               2,000,000       500,000/s",
                "consumed                1,000,000       250,000/s",
                "generator CPU       0.50 s, 0.500 s per million messages",
            ]
        );
    }

    #[test]
    fn a_run_of_no_time_has_no_rates() {
        let effort = Effort {
            seconds: 0.0,
            generator_cpu_seconds: Some(0.1),
            broker_cpu_seconds: None,
            broker_memory: Memory::default(),
        };
        let got = Summary::new(Count::default(), &effort, None, None);
        assert_eq!(
            (got.published_per_second, got.generator_cpu_seconds_per_million),
            (0.0, None)
        );
    }

    #[test]
    fn numbers_are_grouped_in_threes() {
        for (value, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(value), expected);
        }
    }
}
