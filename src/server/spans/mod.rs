//! OpenTelemetry spans of messages on their way through the broker: publish, route, enqueue, deliver, settle and
//! dead-letter. Whoever looks at a message asks first whether [`Spans`] exist at all; when they do not, that branch is all
//! a message pays. What is recorded waits in a bounded buffer for its exporter, and what finds no room is counted.
//!
//! A message carries nothing for this beside its own headers. The number of an enqueue follows from the trace, the queue
//! and the place in it, that of a deliver from the channel and the tag, so that later spans name their parents without
//! anybody remembering them, and across restarts. Only between a publish and its queues is there a short memory.

mod births;
mod context;
mod record;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use rand::RngCore;
use tokio::sync::Notify;

pub(super) use self::record::{Handed, Outcome};
use self::{
    births::Births,
    context::{SpanId, TraceId},
};
pub use self::{context::in_hex, record::SPAN_NAMES};

use crate::server::handle::Handle;

/// An exporter is woken when so many wait, and need not be before.
const WAKE_AT: usize = 512;

/// What of the traffic is recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpanOptions {
    /// Share of the traces that messages bring along as recorded ones. Decided by the trace's number, so that all brokers
    /// and all messages of a trace agree.
    pub sample_ratio: f64,
    /// Share of the messages without a trace for which one begins here; they get a `traceparent`.
    pub root_sample_ratio: f64,
    /// Spans that wait for the exporter.
    pub waiting_max: usize,
}

/// One step of a message.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub parent: Option<SpanId>,
    /// The `tracestate` of the trace, to be carried on.
    pub state: String,
    /// One of [`SPAN_NAMES`].
    pub operation: &'static str,
    /// What it happened at: an exchange or a queue.
    pub destination: String,
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    pub end_ns: u64,
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// A value of a span's attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    Text(String),
    Number(u64),
    Texts(Vec<String>),
}

/// What became of spans, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    pub recorded: u64,
    pub exported: u64,
    /// There was no room for them.
    pub overflowed: u64,
    /// The collector did not take them.
    pub refused: u64,
    /// Waiting now.
    pub waiting: u64,
}

/// The recorder. There is none while spans are switched off.
pub struct Spans {
    /// Traces whose number is below it are recorded.
    sampled_below: u64,
    /// Random numbers below it begin a trace.
    rooted_below: u64,
    waiting_max: usize,
    waiting: Mutex<Vec<Span>>,
    wake: Notify,
    births: Mutex<Births>,
    /// Tells this run's connections from those of other runs.
    run: u64,
    recorded: AtomicU64,
    exported: AtomicU64,
    overflowed: AtomicU64,
    refused: AtomicU64,
}

impl Spans {
    pub(super) fn new(options: SpanOptions) -> Arc<Self> {
        Arc::new(Self {
            sampled_below: bound(options.sample_ratio),
            rooted_below: bound(options.root_sample_ratio),
            waiting_max: options.waiting_max,
            waiting: Mutex::default(),
            wake: Notify::new(),
            births: Mutex::default(),
            run: rand::rng().next_u64(),
            recorded: AtomicU64::new(0),
            exported: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    fn push(&self, spans: impl IntoIterator<Item = Span>) {
        let mut waiting = self.waiting.lock();
        for span in spans {
            if waiting.len() >= self.waiting_max {
                self.overflowed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            self.recorded.fetch_add(1, Ordering::Relaxed);
            waiting.push(span);
        }
        let wake = waiting.len() >= WAKE_AT;
        drop(waiting);
        if wake {
            self.wake.notify_one();
        }
    }

    /// The oldest spans that wait, at most so many.
    pub fn take(&self, at_most: usize) -> Vec<Span> {
        let mut waiting = self.waiting.lock();
        let len = waiting.len().min(at_most);
        waiting.drain(..len).collect()
    }

    /// Resolves when a worthwhile number waits.
    pub async fn worth_taking(&self) {
        self.wake.notified().await;
    }

    /// The collector has them.
    pub fn note_exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// The collector does not take them, now or ever.
    pub fn note_refused(&self, spans: usize) {
        self.refused.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub fn counts(&self) -> SpanCounts {
        SpanCounts {
            recorded: self.recorded.load(Ordering::Relaxed),
            exported: self.exported.load(Ordering::Relaxed),
            overflowed: self.overflowed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            waiting: self.waiting.lock().len() as u64,
        }
    }
}

impl Handle {
    /// Who records spans; `None` while they are switched off.
    pub fn spans(&self) -> Option<Arc<Spans>> {
        self.broker.spans.clone()
    }
}

/// A share of all 63-bit numbers; the specification of OpenTelemetry compares so many bits of a trace's number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the conversion saturates, and a share is not exact"
)]
fn bound(ratio: f64) -> u64 {
    const ALL: u64 = 1 << 63;
    if ratio >= 1.0 {
        return ALL;
    }
    (ratio * ALL as f64) as u64
}
