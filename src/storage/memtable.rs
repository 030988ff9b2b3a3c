//! When the memtable of pages is written out before it is full. Pages of messages that are acked soon die in it and cost
//! no table, the more of them the larger it is; and a burst fills small ones sooner than they are written, which stops the
//! writers. With 24 instead of 64 MiB persistent messages that are acked within a tenth of a second cost a quarter more CPU.
//! A backlog that only grows gains nothing by a large one, which is memory, and log to be read at the next start. So
//! RocksDB gets a large one, and it is cut short once much of it is alive.

use std::sync::Arc;

use crate::storage::rocks::{Family, Rocks};

/// After so many bytes RocksDB is asked how large the memtable is.
const LOOK_EVERY: usize = 2 << 20;

/// The committer's view of the memtable that takes the pages.
pub(super) struct Memtable {
    rocks: Arc<Rocks>,
    /// With so many bytes alive in it, it is written out.
    live_max: u64,
    /// Written since it was looked at.
    written: usize,
    /// As it was looked at last.
    bytes: u64,
    /// Pages erased since it began, and since it was looked at last. Those of before it are among them, which a queue that
    /// keeps its length has erased for others that came.
    erased: (u64, u64),
}

impl Memtable {
    pub(super) fn new(rocks: Arc<Rocks>, live_max: usize) -> Self {
        Self {
            rocks,
            live_max: live_max as u64,
            written: 0,
            bytes: 0,
            erased: (0, 0),
        }
    }

    /// So much was written, and pages of so many bytes erased. Begins to write the memtable out when it is time.
    pub(super) fn wrote(&mut self, bytes: usize, erased: u64) {
        self.written += bytes;
        self.erased.0 += erased;
        self.erased.1 += erased;
        if self.written < LOOK_EVERY {
            return;
        }
        self.written = 0;
        let since = std::mem::take(&mut self.erased.1);
        let before = std::mem::replace(&mut self.bytes, self.rocks.page_memtable_bytes());
        if self.bytes < before {
            // RocksDB began another meanwhile.
            self.erased.0 = since;
        }
        // One at a time: while the disk does not keep up, it may as well grow.
        if self.bytes.saturating_sub(self.erased.0) >= self.live_max && self.rocks.is_calm(Family::Page) {
            self.bytes = 0;
            self.erased.0 = 0;
            self.rocks.begin_flush(Family::Page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StoreOptions;

    /// What is left in the memtable after 8 MiB, of which so much was erased as fast as it was written.
    fn left(erased_of_each: u64) -> u64 {
        const PAGE: usize = 16 << 10;
        let dir = tempfile::tempdir().unwrap();
        let rocks = Arc::new(Rocks::open(dir.path(), &StoreOptions::new(dir.path())).unwrap());
        let mut memtable = Memtable::new(rocks.clone(), 5 << 20);
        for number in 0..(8 << 20) / PAGE as u64 {
            rocks
                .db()
                .put_cf(rocks.family(Family::Page), number.to_be_bytes(), [7; PAGE])
                .unwrap();
            memtable.wrote(PAGE, erased_of_each);
        }
        rocks.page_memtable_bytes()
    }

    #[test]
    fn a_memtable_is_cut_short_once_much_of_it_is_alive() {
        assert!(left(0) < 6 << 20);
        assert!(left(16 << 10) >= 8 << 20);
    }
}
