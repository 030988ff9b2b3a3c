//! How far the committer is, for readers that must see what was logged before their request.

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// Ops whose group is written.
    written: u64,
    /// The committer is stuck or gone: readers take what is there.
    stalled: bool,
}

impl Progress {
    pub(super) fn advance(&self, ops: u64) {
        self.state.lock().written += ops;
        self.moved.notify_all();
    }

    pub(super) fn set_stalled(&self, stalled: bool) {
        self.state.lock().stalled = stalled;
        self.moved.notify_all();
    }

    /// Returns when the first `ops` operations are written, or will not be.
    pub(super) fn wait_for(&self, ops: u64) {
        let mut state = self.state.lock();
        while state.written < ops && !state.stalled {
            self.moved.wait(&mut state);
        }
    }
}
