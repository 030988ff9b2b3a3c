//! Counters. Whoever moves messages adds to them once per batch; nobody reads them but management, so all are relaxed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ahash::AHashMap;
use parking_lot::RwLock;

use crate::broker::definition::Name;
use crate::server::registry::Vhost;

/// What is counted of messages, in RabbitMQ's terms (`message_stats`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Publish,
    Confirm,
    ReturnUnroutable,
    DropUnroutable,
    Get,
    GetNoAck,
    GetEmpty,
    Deliver,
    DeliverNoAck,
    Redeliver,
    Ack,
}

/// How many [`Count`]s there are.
pub(super) const COUNTS: usize = 11;

/// All of one object's counts at one moment, in the order of [`Count`].
pub type Tally = [u64; 11];

/// An object's counts.
#[derive(Default, Debug)]
pub(super) struct Counters([AtomicU64; COUNTS]);

impl Counters {
    /// Adds, whoever else does the same.
    pub(super) fn add(&self, count: Count, amount: u64) {
        if let Some(counter) = self.0.get(count as usize) {
            counter.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// Adds where only one task at a time can: under the object's lock, or in the task that owns it. As cheap as an
    /// ordinary addition.
    pub(super) fn bump(&self, count: Count, amount: u64) {
        if let Some(counter) = self.0.get(count as usize) {
            counter.store(
                counter.load(Ordering::Relaxed).wrapping_add(amount),
                Ordering::Relaxed,
            );
        }
    }

    pub(super) fn read(&self) -> Tally {
        std::array::from_fn(|at| {
            self.0
                .get(at)
                .map_or(0, |counter| counter.load(Ordering::Relaxed))
        })
    }
}

/// Comings and goings on this node since its start.
#[derive(Default)]
pub struct Churn {
    pub(super) connections_created: AtomicU64,
    pub(super) connections_closed: AtomicU64,
    pub(super) channels_created: AtomicU64,
    pub(super) channels_closed: AtomicU64,
    pub(super) queues_declared: AtomicU64,
    pub(super) queues_created: AtomicU64,
    pub(super) queues_deleted: AtomicU64,
}

impl Churn {
    /// The names of what [`Self::read`] gives.
    pub const NAMES: [&'static str; 7] = [
        "connection_created",
        "connection_closed",
        "channel_created",
        "channel_closed",
        "queue_declared",
        "queue_created",
        "queue_deleted",
    ];

    pub fn read(&self) -> [u64; 7] {
        [
            &self.connections_created,
            &self.connections_closed,
            &self.channels_created,
            &self.channels_closed,
            &self.queues_declared,
            &self.queues_created,
            &self.queues_deleted,
        ]
        .map(|counter| counter.load(Ordering::Relaxed))
    }
}

pub(super) fn add_one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Over which protocol somebody logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Amqp,
    Http,
}

/// Logins tried over one protocol.
#[derive(Default)]
pub(super) struct Attempts {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Attempts {
    pub(super) fn note(&self, success: bool) {
        add_one(if success { &self.succeeded } else { &self.failed });
    }

    /// Succeeded and failed.
    pub(super) fn read(&self) -> (u64, u64) {
        (
            self.succeeded.load(Ordering::Relaxed),
            self.failed.load(Ordering::Relaxed),
        )
    }

    pub(super) fn reset(&self) {
        self.succeeded.store(0, Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
    }
}

/// What went into an exchange, and out of it to queues.
#[derive(Default, Debug)]
pub(super) struct ExchangeCounters {
    pub(super) publish_in: AtomicU64,
    pub(super) publish_out: AtomicU64,
}

/// A vhost's exchanges that have seen a message. Entries of deleted exchanges are dropped by the sampler.
#[derive(Default)]
pub(super) struct ExchangeTraffic(RwLock<AHashMap<Name, Arc<ExchangeCounters>>>);

impl ExchangeTraffic {
    fn of(&self, exchange: &str) -> Arc<ExchangeCounters> {
        if let Some(known) = self.0.read().get(exchange) {
            return Arc::clone(known);
        }
        Arc::clone(self.0.write().entry(exchange.into()).or_default())
    }

    /// In and out; `None` before the first message.
    pub(super) fn read(&self, exchange: &str) -> Option<(u64, u64)> {
        self.0.read().get(exchange).map(|counters| {
            (
                counters.publish_in.load(Ordering::Relaxed),
                counters.publish_out.load(Ordering::Relaxed),
            )
        })
    }

    pub(super) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.0.write().retain(|name, _| exists(name));
    }

    pub(super) fn names(&self) -> Vec<Name> {
        self.0.read().keys().cloned().collect()
    }
}

/// What a connection published since its last read, not yet added to the counters that connections share. Publishers
/// repeat their exchange, so a message pays a comparison of its name.
#[derive(Default)]
pub(super) struct PublishTally {
    exchange: Vec<u8>,
    generation: u64,
    counters: Option<Arc<ExchangeCounters>>,
    published: u64,
    routed: u64,
    sizes: [u64; BUCKETS],
    bytes: u64,
}

/// Upper bounds of body sizes, bytes, and their labels: those that dashboards query.
pub const SIZE_BOUNDS: [(u64, &str); 8] = [
    (100, "100.0"),
    (1000, "1000.0"),
    (10_000, "10000.0"),
    (100_000, "100000.0"),
    (1_000_000, "1e+06"),
    (10_000_000, "1e+07"),
    (50_000_000, "5e+07"),
    (100_000_000, "1e+08"),
];
/// The bounds and one for what is larger.
pub(super) const BUCKETS: usize = SIZE_BOUNDS.len() + 1;

/// How many messages of which size were published.
#[derive(Default)]
pub(super) struct Sizes {
    buckets: [AtomicU64; BUCKETS],
    bytes: AtomicU64,
}

impl Sizes {
    /// The count of each bucket, and all bytes.
    pub(super) fn read(&self) -> ([u64; BUCKETS], u64) {
        let buckets = self
            .buckets
            .each_ref()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        (buckets, self.bytes.load(Ordering::Relaxed))
    }
}

impl PublishTally {
    /// A message of so many bytes was published that goes to so many queues.
    pub(super) fn count(&mut self, vhost: &Vhost, exchange: &[u8], queues: usize, size: u64) {
        if self.exchange != exchange || self.counters.is_none() {
            self.flush(vhost);
            self.exchange.clear();
            self.exchange.extend_from_slice(exchange);
            let name = String::from_utf8_lossy(exchange);
            self.counters = Some(vhost.exchange_traffic.of(&name));
            self.generation = vhost.generation();
        }
        let bucket = SIZE_BOUNDS.iter().position(|(bound, _)| size <= *bound);
        if let Some(count) = self.sizes.get_mut(bucket.unwrap_or(BUCKETS - 1)) {
            *count += 1;
        }
        self.bytes += size;
        self.published += 1;
        self.routed += queues as u64;
    }

    /// Adds what was counted to the exchange and the vhost.
    pub(super) fn flush(&mut self, vhost: &Vhost) {
        if self.published == 0 {
            return;
        }
        let (published, routed) = (
            std::mem::take(&mut self.published),
            std::mem::take(&mut self.routed),
        );
        vhost.counters.add(Count::Publish, published);
        vhost.routed.fetch_add(routed, Ordering::Relaxed);
        let shared = &vhost.sizes;
        for (sum, count) in shared.buckets.iter().zip(&mut self.sizes) {
            if *count > 0 {
                sum.fetch_add(std::mem::take(count), Ordering::Relaxed);
            }
        }
        shared
            .bytes
            .fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        if let Some(counters) = &self.counters {
            counters.publish_in.fetch_add(published, Ordering::Relaxed);
            counters.publish_out.fetch_add(routed, Ordering::Relaxed);
        }
        // The exchange may have been deleted and declared anew: look it up again.
        if vhost.generation() != self.generation {
            self.counters = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_apart() {
        let counters = Counters::default();
        counters.add(Count::Publish, 2);
        counters.bump(Count::Ack, 3);
        counters.bump(Count::Ack, 1);
        let mut expected = Tally::default();
        expected[Count::Publish as usize] = 2;
        expected[Count::Ack as usize] = 4;
        assert_eq!(counters.read(), expected);
    }
}
