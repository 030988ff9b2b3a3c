//! All queues of the broker by number, for the store's answers, and what is counted and told of them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize},
};

use ahash::AHashMap;
use parking_lot::RwLock;

use crate::broker::{ids::QueueId, queue::RESIDENT_BYTES};
use crate::server::{announcer::Announcer, queue_cell::QueueHandle, stats::Churn};

pub(super) struct Queues {
    by_id: RwLock<AHashMap<QueueId, QueueHandle>>,
    /// How much memory each may keep ready messages in; changed by the alarms' task only.
    pub(super) share: AtomicUsize,
    pub(super) churn: Churn,
    /// What consumers may hold unsettled is limited; changed by the alarms' task only.
    pub(super) bounds_unacked: AtomicBool,
    /// Told what comes and goes.
    pub(super) announcer: Arc<Announcer>,
}

impl Queues {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            by_id: RwLock::default(),
            share: AtomicUsize::new(RESIDENT_BYTES),
            churn: Churn::default(),
            bounds_unacked: AtomicBool::new(false),
            announcer: Arc::default(),
        })
    }

    pub(super) fn get(&self, id: QueueId) -> Option<QueueHandle> {
        self.by_id.read().get(&id).cloned()
    }

    pub(super) fn insert(&self, queue: &QueueHandle) {
        self.by_id.write().insert(queue.id(), queue.clone());
    }

    pub(super) fn remove(&self, id: QueueId) {
        self.by_id.write().remove(&id);
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.read().len()
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> Vec<QueueHandle> {
        self.by_id.read().values().cloned().collect()
    }

    /// Lets queues for which time matters set their timers: the store runs now and answers reads.
    pub(super) fn wake_timed(&self) {
        for queue in self.all() {
            let mut queue = queue.lock();
            if queue.state.is_timed() {
                queue.dispatch();
            }
        }
    }

    /// Messages ready and unacked in all queues.
    pub(super) fn message_counts(&self) -> (u64, u64) {
        self.all().iter().fold((0, 0), |(ready, unacked), queue| {
            let queue = queue.lock();
            (
                ready + queue.state.ready_count(),
                unacked + queue.state.unacked_count(),
            )
        })
    }

    /// Memory that messages take, waiting or handed out.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.all()
            .iter()
            .map(|queue| queue.lock().state.memory_bytes())
            .sum()
    }
}
