//! The course of a run, shared by the main thread and the workers: what is being counted, and when it is over.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::clock::{Clock, SECOND_NS};

/// How long publishers and consumers may take to finish after the main thread said so.
pub(crate) const PATIENCE_NS: u64 = 30 * SECOND_NS;

pub(crate) struct Course {
    pub(crate) clock: Clock,
    measuring: AtomicBool,
    publishing_over: AtomicBool,
    consuming_over: AtomicBool,
    /// A worker failed, or the user pressed Ctrl-C: the main thread wakes and ends the run.
    ended: Mutex<bool>,
    ended_changed: Condvar,
}

impl Course {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            measuring: AtomicBool::new(false),
            publishing_over: AtomicBool::new(false),
            consuming_over: AtomicBool::new(false),
            ended: Mutex::new(false),
            ended_changed: Condvar::new(),
        }
    }

    /// Latencies are recorded only while this holds: not in the warm-up, not while the run ends.
    pub(crate) fn measuring(&self) -> bool {
        self.measuring.load(Ordering::Relaxed)
    }

    pub(crate) fn measure(&self, measuring: bool) {
        self.measuring.store(measuring, Ordering::Relaxed);
    }

    pub(crate) fn publishing_over(&self) -> bool {
        self.publishing_over.load(Ordering::Relaxed)
    }

    pub(crate) fn stop_publishing(&self) {
        self.publishing_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn consuming_over(&self) -> bool {
        self.consuming_over.load(Ordering::Relaxed)
    }

    pub(crate) fn stop_consuming(&self) {
        self.consuming_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        *self.ended.lock() = true;
        self.ended_changed.notify_all();
    }

    pub(crate) fn ended(&self) -> bool {
        *self.ended.lock()
    }

    /// Waits until `until_ns` or until the run has been ended; tells whether it has.
    pub(crate) fn wait_until(&self, until_ns: u64) -> bool {
        let mut ended = self.ended.lock();
        while !*ended {
            let left_ns = until_ns.saturating_sub(self.clock.now_ns());
            if left_ns == 0 {
                break;
            }
            self.ended_changed
                .wait_for(&mut ended, Duration::from_nanos(left_ns));
        }
        *ended
    }
}

/// What one worker has done so far. The worker alone writes it, the main thread reads it now and then; it has its
/// own cache lines so that workers do not slow each other.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Tally {
    published: AtomicU64,
    confirmed: AtomicU64,
    nacked: AtomicU64,
    consumed: AtomicU64,
    subscribed: AtomicU64,
    last_ns: AtomicU64,
}

/// The sum of tallies at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) nacked: u64,
    pub(crate) consumed: u64,
    /// Subscriptions the broker has confirmed with basic.consume-ok.
    pub(crate) subscribed: u64,
    /// When the last of all this happened.
    pub(crate) last_ns: u64,
}

impl Tally {
    pub(crate) fn published(&self, count: u64, now_ns: u64) {
        add(&self.published, count);
        self.last_ns.store(now_ns, Ordering::Relaxed);
    }

    pub(crate) fn confirmed(&self, positive: bool, count: u64, now_ns: u64) {
        add(if positive { &self.confirmed } else { &self.nacked }, count);
        self.last_ns.store(now_ns, Ordering::Relaxed);
    }

    pub(crate) fn consumed(&self, count: u64, now_ns: u64) {
        add(&self.consumed, count);
        self.last_ns.store(now_ns, Ordering::Relaxed);
    }

    pub(crate) fn subscribed(&self) {
        add(&self.subscribed, 1);
    }
}

impl Count {
    pub(crate) fn of<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Self {
        tallies.into_iter().fold(Self::default(), |sum, tally| Self {
            published: sum.published + tally.published.load(Ordering::Relaxed),
            confirmed: sum.confirmed + tally.confirmed.load(Ordering::Relaxed),
            nacked: sum.nacked + tally.nacked.load(Ordering::Relaxed),
            consumed: sum.consumed + tally.consumed.load(Ordering::Relaxed),
            subscribed: sum.subscribed + tally.subscribed.load(Ordering::Relaxed),
            last_ns: sum.last_ns.max(tally.last_ns.load(Ordering::Relaxed)),
        })
    }

    /// What happened since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            published: self.published - earlier.published,
            confirmed: self.confirmed - earlier.confirmed,
            nacked: self.nacked - earlier.nacked,
            consumed: self.consumed - earlier.consumed,
            subscribed: self.subscribed - earlier.subscribed,
            last_ns: self.last_ns,
        }
    }
}

/// Only one thread writes, so reading first loses nothing and saves the price of an atomic addition. (The reader
/// thread of a publisher and its writer thread write different numbers.)
fn add(number: &AtomicU64, count: u64) {
    number.store(number.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}
