//! What counters read at which time: short histories, from which rates and graphs are made. Objects that nobody uses
//! have none, so that a hundred thousand idle queues cost nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use ahash::AHashMap;
use parking_lot::Mutex;

use crate::broker::{
    definition::Name,
    ids::{QueueId, Timestamp},
};
use crate::server::{Broker, clock, queue_cell::ConnectionId, stats::COUNTS};

/// One sample of an object. What stands where depends on the kind of object, see [`Subject`].
pub(super) type Row = [u64; ROW];
pub(super) const ROW: usize = COUNTS + 5;

/// Time between samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

/// Objects that keep more than the two samples of a rate.
const HISTORIES_MAX: usize = 1000;
/// Seconds between samples and how many are kept: ten minutes, an hour, eight hours, a day.
const TIERS: [(u64, usize); 4] = [(5, 122), (60, 62), (600, 50), (1800, 50)];
/// Tiers that single objects keep.
const OBJECT_TIERS: usize = 2;
/// A history nobody added to is dropped after this.
const FORGET_MS: u64 = 3_660_000;

/// Whose history it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Row: counts, then messages ready, messages unacked, both, octets received, sent.
    Node,
    /// Row: the numbers of [`crate::server::stats::Churn::NAMES`].
    Churn,
    /// Row as of the node.
    Vhost(Name),
    /// Row as of the node, without octets.
    Queue(QueueId),
    /// Row: published in, out to queues. Vhost and name.
    Exchange(Name, Name),
    /// Row: counts. Connection and number.
    Channel(ConnectionId, u16),
    /// Row: octets received, sent.
    Connection(ConnectionId),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// Milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) row: Row,
}

#[derive(Clone, Debug)]
struct Tier {
    step_ms: u64,
    keep: usize,
    samples: VecDeque<Sample>,
}

/// One object's samples, finer ones for a shorter time.
#[derive(Clone, Debug)]
pub struct History {
    tiers: Vec<Tier>,
    changed_ms: u64,
}

impl History {
    fn new(tiers: usize, only_rate: bool) -> Self {
        let tiers = TIERS.iter().take(tiers).map(|(step, keep)| Tier {
            step_ms: step * 1000,
            keep: if only_rate { 2 } else { *keep },
            samples: VecDeque::new(),
        });
        Self {
            tiers: tiers.collect(),
            changed_ms: 0,
        }
    }

    fn push(&mut self, sample: Sample) {
        let last = self.tiers.first().and_then(|tier| tier.samples.back());
        if last.is_none_or(|last| last.row != sample.row) {
            self.changed_ms = sample.at_ms;
        }
        for tier in &mut self.tiers {
            // Half an interval of tolerance: ticks are not exact.
            let due = tier
                .samples
                .back()
                .is_none_or(|last| sample.at_ms + 2500 >= last.at_ms + tier.step_ms);
            if due {
                if tier.samples.len() == tier.keep {
                    tier.samples.pop_front();
                }
                tier.samples.push_back(sample);
            }
        }
    }

    /// When a sample last differed from the one before, milliseconds since 1970.
    pub fn changed_ms(&self) -> u64 {
        self.changed_ms
    }

    /// Change per second over the last interval; 0 when the last sample is old.
    pub fn rate(&self, at: usize, now_ms: u64) -> f64 {
        let Some(tier) = self.tiers.first() else {
            return 0.0;
        };
        let mut newest = tier.samples.iter().rev();
        let (Some(last), Some(before)) = (newest.next(), newest.next()) else {
            return 0.0;
        };
        if last.at_ms + 2 * tier.step_ms < now_ms {
            return 0.0;
        }
        per_second(*before, *last, at)
    }

    /// The values at the end of each `incr_ms`, newest first; `age_ms / incr_ms + 1` of them, fewer when the history is
    /// shorter. The end is rounded down to a multiple of the increment.
    pub fn range(&self, at: usize, age_ms: u64, incr_ms: u64, now_ms: u64) -> Vec<(u64, u64)> {
        let long_enough = |tier: &&Tier| tier.step_ms * (tier.keep as u64) >= age_ms;
        let Some(tier) = self.tiers.iter().find(long_enough).or(self.tiers.last()) else {
            return Vec::new();
        };
        let incr_ms = incr_ms.max(1);
        let end = now_ms / incr_ms * incr_ms;
        let mut found = Vec::new();
        for step in 0..=age_ms / incr_ms {
            let Some(moment) = end.checked_sub(step * incr_ms) else {
                break;
            };
            let upto = tier.samples.partition_point(|sample| sample.at_ms <= moment);
            let Some(sample) = upto.checked_sub(1).and_then(|upto| tier.samples.get(upto)) else {
                break;
            };
            found.push((moment, sample.row.get(at).copied().unwrap_or(0)));
        }
        found
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people; counters beyond 2^53 lose nothing that shows"
)]
fn per_second(before: Sample, after: Sample, at: usize) -> f64 {
    let value = |sample: Sample| sample.row.get(at).copied().unwrap_or(0);
    let millis = after.at_ms.saturating_sub(before.at_ms).max(1);
    // Lengths fall as well as rise.
    let (low, high) = (value(before), value(after));
    let change = if high >= low {
        (high - low) as f64
    } else {
        -((low - high) as f64)
    };
    change * 1000.0 / millis as f64
}

/// All histories. The sampling task writes, management reads.
#[derive(Default)]
pub(super) struct Sampler {
    histories: Mutex<AHashMap<Subject, History>>,
}

impl Sampler {
    /// Gives the object's history to `read`, if it has one.
    pub(super) fn with<T>(&self, subject: &Subject, read: impl FnOnce(&History) -> T) -> Option<T> {
        self.histories.lock().get(subject).map(read)
    }

    pub(super) fn reset(&self) {
        self.histories.lock().clear();
    }

    fn push(&self, subject: Subject, row: Row, now_ms: u64) {
        let mut histories = self.histories.lock();
        let only_rate = histories.len() >= HISTORIES_MAX;
        let tiers = match subject {
            Subject::Node | Subject::Churn | Subject::Vhost(_) => TIERS.len(),
            _ => OBJECT_TIERS,
        };
        histories
            .entry(subject)
            .or_insert_with(|| History::new(tiers, only_rate))
            .push(Sample { at_ms: now_ms, row });
    }

    fn has(&self, subject: &Subject) -> bool {
        self.histories.lock().contains_key(subject)
    }

    fn forget_old(&self, now_ms: u64, exists: impl Fn(&Subject) -> bool) {
        self.histories
            .lock()
            .retain(|subject, history| history.changed_ms + FORGET_MS > now_ms && exists(subject));
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    clock::now().0
}

/// Samples until the broker stops. Each round runs in the thread pool: with many queues it takes milliseconds.
pub(super) async fn sample(broker: Arc<Broker>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stopping = broker.shutdown_signal();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopping.wait_for(Option::is_some) => return,
        }
        let round = Arc::clone(&broker);
        if tokio::task::spawn_blocking(move || take(&round)).await.is_err() {
            return;
        }
    }
}

/// A row that begins with these numbers.
fn row(values: impl IntoIterator<Item = u64>) -> Row {
    let mut row = Row::default();
    for (place, value) in row.iter_mut().zip(values) {
        *place = value;
    }
    row
}

fn take(broker: &Broker) {
    let now = now_ms();
    let sampler = &broker.sampler;
    let mut node = Row::default();
    for vhost in broker.vhosts() {
        let (mut ready, mut unacked) = (0, 0);
        for queue in vhost.all_queues() {
            let lengths = queue.lengths();
            (ready, unacked) = (ready + lengths.ready, unacked + lengths.unacked);
            let subject = Subject::Queue(queue.id());
            let counts = queue.counters.read();
            let used = counts.iter().fold(0_u64, |sum, count| sum.wrapping_add(*count));
            if queue.sampled.swap(used, Ordering::Relaxed) != used || sampler.has(&subject) {
                let lengths = [lengths.ready, lengths.unacked, lengths.ready + lengths.unacked];
                sampler.push(subject, row(counts.into_iter().chain(lengths)), now);
            }
        }
        let counts = vhost.counters.read();
        let (received, sent) = broker.connections.octets(&vhost.name);
        let lengths = [ready, unacked, ready + unacked];
        let sample = row(counts.into_iter().chain(lengths).chain([received, sent]));
        for (sum, value) in node.iter_mut().zip(sample) {
            *sum += value;
        }
        sampler.push(Subject::Vhost(Name::clone(&vhost.name)), sample, now);
        vhost.forget_exchange_traffic();
        for name in vhost.exchange_traffic.names() {
            if let Some((publish_in, publish_out)) = vhost.exchange_traffic.read(&name) {
                let subject = Subject::Exchange(Name::clone(&vhost.name), name);
                sampler.push(subject, row([publish_in, publish_out]), now);
            }
        }
    }
    sampler.push(Subject::Node, node, now);
    sampler.push(Subject::Churn, row(broker.queues.churn.read()), now);
    for connection in broker.connections.all() {
        let (received, sent) = connection.octets();
        sampler.push(Subject::Connection(connection.id), row([received, sent]), now);
        for (number, channel) in connection.channels() {
            channel.unacked.lock().note_age(Timestamp(now));
            let subject = Subject::Channel(connection.id, number);
            let counts = channel.counters.read();
            if counts.iter().any(|count| *count > 0) || sampler.has(&subject) {
                sampler.push(subject, row(counts), now);
            }
        }
    }
    broker
        .connections
        .forget_vhosts(|vhost| broker.vhost(vhost).is_some());
    sampler.forget_old(now, |subject| match subject {
        Subject::Queue(id) => broker.queues.get(*id).is_some(),
        Subject::Connection(id) => broker.connections.get(*id).is_some(),
        Subject::Channel(id, number) => broker
            .connections
            .get(*id)
            .is_some_and(|connection| connection.has_channel(*number)),
        _ => true,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, value: u64) -> Sample {
        Sample {
            at_ms: second * 1000,
            row: row([value]),
        }
    }

    #[test]
    fn a_rate_is_the_change_of_the_last_interval_and_ends_with_it() {
        let mut history = History::new(OBJECT_TIERS, false);
        assert!(history.rate(0, 0).abs() < f64::EPSILON);
        history.push(sample(100, 10));
        history.push(sample(105, 60));
        assert!((history.rate(0, 106_000) - 10.0).abs() < 1e-9);
        history.push(sample(110, 50));
        assert!((history.rate(0, 111_000) + 2.0).abs() < 1e-9, "lengths fall");
        assert!(
            history.rate(0, 200_000).abs() < f64::EPSILON,
            "an old rate is none"
        );
    }

    #[test]
    fn a_range_is_newest_first_and_as_long_as_the_history() {
        let mut history = History::new(OBJECT_TIERS, false);
        for second in (0..=600).step_by(5) {
            history.push(sample(1_000_000 + second, second));
        }
        let now = 1_000_602_000;
        let range = history.range(0, 60_000, 5000, now);
        assert_eq!(range.len(), 13);
        assert_eq!(range.first(), Some(&(1_000_600_000, 600)));
        assert_eq!(range.last(), Some(&(1_000_540_000, 540)));
        let hour = history.range(0, 3_600_000, 60_000, now);
        assert_eq!(hour.len(), 10, "the whole minutes of ten minutes of history");
        assert!(history.range(0, 60_000, 0, now).len() > 10, "no increment of 0");
    }

    #[test]
    fn a_crowd_keeps_only_rates() {
        let mut history = History::new(OBJECT_TIERS, true);
        for second in (0..100).step_by(5) {
            history.push(sample(second, second));
        }
        assert!(history.tiers.iter().all(|tier| tier.samples.len() <= 2));
        assert!((history.rate(0, 96_000) - 1.0).abs() < 1e-9);
    }
}
