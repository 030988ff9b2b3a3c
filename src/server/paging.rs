//! What a queue leaves to the store because its memory is short, and how it comes back (`broker/queue/paging.rs` decides).

use std::sync::atomic::Ordering;

use smallvec::smallvec;

use crate::broker::{
    ids::Seq,
    queue::{PagedIn, ReadFrom},
};
use crate::server::queue_cell::{QueueCell, QueueGuard};
use crate::storage::{Done, Loaded, Op, ReadRequest, Target};

/// How much one read asks the store for, if the queue's memory is not very small.
pub(super) const READ_BYTES: usize = 1024 * 1024;

impl QueueCell {
    /// The committer wrote the queue's messages up to `through`.
    pub(super) fn committed(&self, through: Seq) {
        self.committed.fetch_max(through.0, Ordering::Release);
        if self.paged.load(Ordering::Acquire) {
            self.lock().state.committed(through);
        }
    }

    /// So much memory its ready messages may take from now on.
    pub(super) fn give_memory(&self, bytes: usize) {
        let mut queue = self.lock();
        if queue.state.resident_limit() != bytes {
            queue.state.set_resident_limit(bytes);
            self.read_bytes
                .store(READ_BYTES.min(bytes / 2), Ordering::Relaxed);
        }
        if queue.state.resident_bytes() > bytes {
            queue.dispatch();
            if queue.state.page_out_front() {
                queue.note_paging();
            }
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
                max_bytes: self.read_bytes.load(Ordering::Relaxed),
                settled: false,
            });
        }
    }

    /// The queue was deleted: what it left to the store though it is not durable goes too.
    pub(super) fn forget_spilled(&self) {
        if self.spilled.get() == Some(&self.id()) {
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
            self.spill();
        }
        if paged {
            // Commits before this moment were only noted.
            let through = Seq(self.cell.committed.load(Ordering::Acquire));
            self.state.committed(through);
        }
    }

    /// Messages that do not outlive the broker go to the store from now on, and those too that already wait in memory. A
    /// durable queue's stand beside it, so that a restart counts what is left.
    fn spill(&mut self) {
        let cell = self.cell;
        let queue = *cell.spilled.get_or_init(|| {
            if self.state.is_durable() {
                cell.around.store.next_queue_id()
            } else {
                cell.id()
            }
        });
        let beside = (queue != cell.id()).then(|| cell.id());
        let mut ops = vec![Op::Spill { queue, beside }];
        for (place, expires_at, message) in self.state.take_unstored() {
            let target = Target {
                queue: cell.id(),
                lane: place.lane,
                seq: place.seq,
                expires_at,
            };
            ops.push(Op::Publish {
                message,
                targets: smallvec![target],
                confirm: None,
            });
        }
        if ops.len() > 1 {
            let cell = cell.weak();
            let done: Done = Box::new(move |outcome| {
                // When the store failed, they stay where they are.
                if let (Ok(()), Some(cell)) = (outcome, cell.upgrade()) {
                    cell.lock().state.settled();
                }
            });
            ops.push(Op::Barrier { done });
        }
        cell.around.store.log(&mut ops);
    }
}
