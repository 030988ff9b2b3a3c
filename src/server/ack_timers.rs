//! Wakes connections whose consumers take too long (amqp-behaviour 4.11). Channels with timeouts of their own set a timer;
//! for the timeout that holds for all, a tick marks every channel that has anything outstanding. What happens then is the
//! connection's own business (`channel/timeouts.rs`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::{
    ids::Timestamp,
    queue::timeout::{AckTimeout, TimeoutAction},
};
use crate::server::{Broker, admission::Control, clock, consumer_port::ChannelOut, queue_cell::ConnectionId};

/// The tick for the timeout of all is a part of it, within these bounds.
const TICKS: u32 = 32;
const TICK_MIN: Duration = Duration::from_millis(20);
const TICK_MAX: Duration = Duration::from_secs(60);
/// Between two looks at whether somebody has set a timer, when nobody has.
const IDLE: Duration = Duration::from_secs(3600);

/// One timer for each channel that needs one.
#[derive(Default)]
pub(super) struct AckTimers {
    due: Mutex<BTreeMap<(Timestamp, ConnectionId, u16), Weak<Control>>>,
    /// Wakes the task: there is an earlier time than the one it sleeps for.
    earlier: Notify,
}

/// A queue's timeout, read with every hand-out: milliseconds and action.
pub(super) struct SharedAckTimeout([AtomicU64; 2]);

/// No timeout is said.
const UNSAID: u64 = u64::MAX;

impl SharedAckTimeout {
    pub(super) fn new(timeout: AckTimeout) -> Self {
        let shared = Self([AtomicU64::new(UNSAID), AtomicU64::new(0)]);
        shared.set(timeout);
        shared
    }

    pub(super) fn set(&self, timeout: AckTimeout) {
        let [ms, action] = &self.0;
        ms.store(timeout.timeout_ms.unwrap_or(UNSAID), Ordering::Relaxed);
        let word = match timeout.action {
            None => 0,
            Some(TimeoutAction::Close) => 1,
            Some(TimeoutAction::Cancel) => 2,
            Some(TimeoutAction::Requeue) => 3,
        };
        action.store(word, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn get(&self) -> AckTimeout {
        let [ms, action] = &self.0;
        let ms = ms.load(Ordering::Relaxed);
        AckTimeout {
            timeout_ms: (ms != UNSAID).then_some(ms),
            action: match action.load(Ordering::Relaxed) {
                1 => Some(TimeoutAction::Close),
                2 => Some(TimeoutAction::Cancel),
                3 => Some(TimeoutAction::Requeue),
                _ => None,
            },
        }
    }
}

/// A channel's end of it.
pub(super) struct AckTimer {
    timers: Arc<AckTimers>,
    control: Arc<Control>,
    /// When the channel is looked at next, in ms since 1970; 0 is never.
    armed: AtomicU64,
}

impl AckTimer {
    pub(super) fn new(timers: &Arc<AckTimers>, control: &Arc<Control>) -> Self {
        Self {
            timers: Arc::clone(timers),
            control: Arc::clone(control),
            armed: AtomicU64::new(0),
        }
    }

    /// Something is due at this time. A timer that rings early does no harm, so it is only ever set earlier.
    pub(super) fn set(&self, channel: &ChannelOut, due: Timestamp) {
        let armed = Timestamp(self.armed.load(Ordering::Acquire));
        if due.is_some() && armed.earlier(due) != armed {
            self.armed.store(due.0, Ordering::Release);
            let key = |at| (at, channel.connection, channel.id);
            let mut timers = self.timers.due.lock();
            timers.remove(&key(armed));
            timers.insert(key(due), Arc::downgrade(&self.control));
            if timers
                .first_key_value()
                .is_some_and(|(first, _)| *first == key(due))
            {
                self.timers.earlier.notify_one();
            }
        }
    }

    /// The channel is looked at now.
    pub(super) fn rang(&self) {
        self.armed.store(0, Ordering::Release);
    }

    fn ring(&self) {
        self.control.check_timeouts();
    }
}

impl AckTimers {
    /// The task, which ends with the broker.
    pub(super) async fn run(self: Arc<Self>, broker: Weak<Broker>) {
        let mut tick_at = None;
        loop {
            let Some(broker) = broker.upgrade() else { return };
            let timeout = broker.limits().consumer_timeout;
            let tick = timeout.map(|timeout| (timeout / TICKS).clamp(TICK_MIN, TICK_MAX));
            if let (Some(timeout), Some(tick)) = (timeout, tick)
                && tick_at.is_none_or(|at| tokio::time::Instant::now() >= at)
            {
                mark_all(&broker, timeout);
                tick_at = Some(tokio::time::Instant::now() + tick);
            }
            drop(broker);
            self.ring();
            let next = self.due.lock().first_key_value().map(|((at, ..), _)| *at);
            let timer = next.map_or(IDLE, |next| {
                Duration::from_millis(next.0.saturating_sub(clock::now().0))
            });
            let timer = tokio::time::Instant::now() + timer;
            tokio::select! {
                () = tokio::time::sleep_until(tick_at.map_or(timer, |tick| tick.min(timer))) => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    /// Tells the connections whose time has come.
    fn ring(&self) {
        let now = clock::now();
        let mut due = self.due.lock();
        while let Some(first) = due.first_entry().filter(|first| first.key().0 <= now) {
            if let Some(control) = first.remove().upgrade() {
                control.check_timeouts();
            }
        }
    }
}

/// Notes on every channel which deliveries are there by now, and rings for those that may hold one for too long.
fn mark_all(broker: &Broker, timeout: Duration) {
    let (now, timeout_ms) = (
        clock::now(),
        u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    );
    for client in broker.connections.all() {
        for (_, channel) in client.channels() {
            let mut unacked = channel.unacked.lock();
            // Most channels hold nothing at any moment: they cost a glance.
            if unacked.mark(now, timeout_ms) {
                drop(unacked);
                channel.ack_timer.ring();
            }
        }
    }
}
