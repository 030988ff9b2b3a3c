//! What a queue leaves to the store because its memory is short, and how it comes back (`broker/queue/paging.rs` decides).

use std::sync::atomic::Ordering;

use crate::broker::{
    ids::Seq,
    queue::{PagedIn, ReadFrom},
};
use crate::server::queue_cell::{QueueCell, QueueGuard};
use crate::storage::{Loaded, Op, ReadRequest};

/// How much one read asks the store for.
const READ_BYTES: usize = 1024 * 1024;

impl QueueCell {
    /// The committer wrote the queue's messages up to `through`.
    pub(super) fn committed(&self, through: Seq) {
        self.committed.fetch_max(through.0, Ordering::Release);
        if self.paged.load(Ordering::Acquire) {
            self.lock().state.committed(through);
        }
    }

    /// A reader thread's answer.
    pub(super) fn loaded(&self, loaded: Loaded) {
        let mut queue = self.lock();
        queue.state.paged_in(PagedIn {
            lane: loaded.lane,
            from: loaded.from,
            until: loaded.until,
            entries: loaded.entries,
            deadlines: loaded.deadlines,
            next: loaded.next,
        });
        queue.dispatch();
        drop(queue);
        self.loaded.notify_waiters();
    }

    /// A read failed: only this queue suffers.
    /// Its consumers are cancelled and its users told, until it is purged or deleted, or the broker starts anew.
    pub(super) fn read_failed(&self) {
        self.damaged.store(true, Ordering::Release);
        let mut queue = self.lock();
        queue.state.read_failed();
        queue.state.cancel_consumers();
        drop(queue);
        self.loaded.notify_waiters();
    }

    /// Asks the store for messages.
    pub(super) fn read(&self, read: ReadFrom) {
        if !read.pending {
            self.around.store.read(ReadRequest {
                queue: read.queue,
                lane: read.lane,
                from: read.from,
                until: read.until,
                max_bytes: READ_BYTES,
                settled: false,
            });
        }
    }

    /// The queue was deleted: what it left to the store though it is not durable goes too.
    pub(super) fn forget_spilled(&self) {
        if self.spilled.load(Ordering::Acquire) {
            self.around.store.log(&mut vec![Op::Forget { queue: self.id() }]);
        }
    }
}

impl QueueGuard<'_> {
    /// After every change: the store and the committer learn whether the queue is paged now.
    pub(super) fn note_paging(&mut self) {
        let paged = self.state.is_paged();
        if paged == self.cell.paged.swap(paged, Ordering::AcqRel) {
            return;
        }
        if self.state.set_spilling(paged) {
            self.cell.spilled.store(true, Ordering::Release);
            let queue = self.cell.id();
            self.cell.around.store.log(&mut vec![Op::Spill { queue }]);
        }
        if paged {
            // Commits before this moment were only noted.
            let through = Seq(self.cell.committed.load(Ordering::Acquire));
            self.state.committed(through);
        }
    }
}
