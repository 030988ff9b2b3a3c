//! What the store tells the broker, called from the store's threads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{Notify, watch};

use crate::broker::{
    ids::{QueueId, Seq},
    queue::ScheduleLoaded,
};
use crate::server::{alarms::Alarms, queues::Queues};
use crate::storage::{Loaded, Store, StoreError, StoreEvents};

/// Publishers wait above this many bytes between the broker and the disk (storage-design B11).
const LAG_BYTES: usize = 32 * 1024 * 1024;
/// And go on below this many.
const LAG_OVER_BYTES: usize = 16 * 1024 * 1024;

pub(super) struct Events {
    queues: Arc<Queues>,
    alarms: Arc<Alarms>,
    /// A publisher waits for the store.
    lagging: AtomicBool,
    caught_up: Notify,
    failed: watch::Sender<Option<StoreFailed>>,
}

/// The store takes no more, and the broker must stop.
#[derive(Clone, Debug)]
pub struct StoreFailed {
    pub reason: String,
    /// For want of space: of a quota, for a disk that fills up is waited out.
    pub full: bool,
}

impl Events {
    /// The receiver learns when the store has failed for good.
    pub(super) fn new(
        queues: Arc<Queues>,
        alarms: Arc<Alarms>,
    ) -> (Arc<Self>, watch::Receiver<Option<StoreFailed>>) {
        let (failed, receiver) = watch::channel(None);
        let lagging = AtomicBool::new(false);
        (
            Arc::new(Self {
                queues,
                alarms,
                lagging,
                caught_up: Notify::new(),
                failed,
            }),
            receiver,
        )
    }

    pub(super) async fn wait_for_store(&self, store: &Store) {
        if store.pending_bytes() <= LAG_BYTES {
            return;
        }
        loop {
            let caught_up = self.caught_up.notified();
            tokio::pin!(caught_up);
            caught_up.as_mut().enable();
            self.lagging.store(true, Ordering::SeqCst);
            if store.pending_bytes() <= LAG_OVER_BYTES || self.failed.borrow().is_some() {
                return;
            }
            caught_up.await;
        }
    }
}

impl StoreEvents for Events {
    fn committed(&self, queues: &[(QueueId, Seq)]) {
        for (id, through) in queues {
            if let Some(queue) = self.queues.get(*id) {
                queue.committed(*through);
            }
        }
        if self.lagging.swap(false, Ordering::SeqCst) {
            self.caught_up.notify_waiters();
        }
    }

    fn loaded(&self, queue: QueueId, loaded: Loaded) {
        if let Some(queue) = self.queues.get(queue) {
            queue.loaded(loaded);
        }
    }

    fn schedule_loaded(&self, queue: QueueId, loaded: ScheduleLoaded) {
        if let Some(queue) = self.queues.get(queue) {
            let mut queue = queue.lock();
            queue.state.schedule_loaded(loaded);
            queue.dispatch();
        }
    }

    fn read_failed(&self, id: QueueId, error: StoreError) {
        let Some(queue) = self.queues.get(id) else { return };
        tracing::error!(queue = %queue.name(), vhost = %queue.definition.vhost, %error, "messages cannot be read: the queue is closed; leveret check tells what is damaged, a backup has it whole");
        queue.read_failed();
    }

    fn failed(&self, error: StoreError) {
        tracing::error!(%error, "the store failed: nothing more is confirmed");
        self.failed.send_replace(Some(StoreFailed {
            reason: error.to_string(),
            full: matches!(error, StoreError::Full { .. }),
        }));
        self.caught_up.notify_waiters();
    }

    fn full(&self, full: bool) {
        self.alarms.set_disk_full(full);
        if full {
            tracing::error!(
                "the disk is full: publishes wait and nothing is confirmed until there is room; free some"
            );
        } else {
            tracing::info!("the disk has room again: commits go on");
        }
    }
}
