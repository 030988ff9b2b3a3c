//! Wakes queues when something in them expires. One task sleeps until the earliest of all deadlines.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::ids::{QueueId, Timestamp};
use crate::server::{
    announcer::INTERNAL_USER, clock, queue_cell::QueueHandle, queues::Queues, registry::DeleteIf,
};

/// So many queues are woken before others get the processor.
const STRIDE: usize = 64;

/// At most one deadline of each queue.
#[derive(Default)]
pub(super) struct Timers {
    /// Changed under a queue's lock, so no queue's lock may be taken while it is held.
    due: Mutex<BTreeSet<(Timestamp, QueueId)>>,
    /// Wakes the task: there is an earlier deadline than the one it sleeps for.
    earlier: Notify,
}

impl Timers {
    /// Sets a queue's timer; `was` is what it was set to before.
    pub(super) fn set(&self, queue: QueueId, was: Timestamp, next: Timestamp) {
        let mut due = self.due.lock();
        if was.is_some() {
            due.remove(&(was, queue));
        }
        due.insert((next, queue));
        if due.first() == Some(&(next, queue)) {
            self.earlier.notify_one();
        }
    }

    /// The task, which never ends.
    pub(super) async fn run(self: Arc<Self>, queues: Arc<Queues>) {
        loop {
            for queue in self.ring() {
                if let Some(queue) = queues.get(queue) {
                    wake(&queue);
                }
            }
            let next = self.due.lock().first().map(|(at, _)| *at);
            let sleep = next.map(|next| Duration::from_millis(next.0.saturating_sub(clock::now().0)));
            match sleep {
                Some(Duration::ZERO) => tokio::task::yield_now().await,
                Some(sleep) => tokio::select! {
                    () = tokio::time::sleep(sleep) => {}
                    () = self.earlier.notified() => {}
                },
                None => self.earlier.notified().await,
            }
        }
    }

    /// Takes out queues whose time has come.
    fn ring(&self) -> Vec<QueueId> {
        let now = clock::now();
        let mut due = self.due.lock();
        let mut ringing = Vec::new();
        while ringing.len() < STRIDE
            && let Some(first) = due.first().filter(|(at, _)| *at <= now).copied()
        {
            due.remove(&first);
            ringing.push(first.1);
        }
        ringing
    }
}

/// Lets the queue expire what is due, or deletes it when it was unused for too long.
fn wake(queue: &QueueHandle) {
    if !queue.due() {
        return;
    }
    let only = DeleteIf {
        expired: true,
        ..DeleteIf::default()
    };
    let Some(vhost) = queue.vhost() else { return };
    match vhost.delete_queue(queue, only, INTERNAL_USER) {
        Ok(_) => {
            tracing::info!(queue = %queue.name(), vhost = %queue.definition.vhost, "an unused queue expired")
        }
        Err(error) => {
            tracing::error!(queue = %queue.name(), %error, "an expired queue could not be deleted; rabbitmqctl delete_queue tries again")
        }
    }
}
