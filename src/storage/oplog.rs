//! The op log: what was logged and not yet taken by the committer. One short lock; the committer sleeps on it and says
//! what is worth waking it for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::storage::{Op, StoreFailure};

/// More waiting parties than there can be: a reader that needs what was logged.
const HURRY: usize = usize::MAX / 2;

/// Written by every logging thread, drained by the committer.
#[derive(Default)]
pub(super) struct OpLog {
    state: Mutex<State>,
    wake: Condvar,
    /// Bytes logged and not yet released by the committer.
    pending_bytes: AtomicUsize,
}

#[derive(Default)]
struct State {
    ops: VecDeque<Op>,
    bytes: usize,
    waiters: usize,
    /// Ops ever logged; a reader waits until so many are written.
    logged: u64,
    /// What the sleeping committer waits for; `None` while it works.
    sleeping: Option<Enough>,
    ending: Option<Ending>,
}

/// When it is worth waking the committer before its time.
#[derive(Clone, Copy)]
pub(super) struct Enough {
    pub(super) bytes: usize,
    /// Parties that wait for durability.
    pub(super) waiters: usize,
}

/// How the committer shall end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// After writing all that was logged.
    Drain,
    /// At once, as if the process had been killed.
    Abandon,
}

/// What the committer finds in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    pub(super) bytes: usize,
    pub(super) waiters: usize,
    pub(super) is_empty: bool,
    pub(super) ending: Option<Ending>,
}

impl OpLog {
    pub(super) fn log(&self, ops: &mut Vec<Op>) {
        if ops.is_empty() {
            return;
        }
        let (mut bytes, mut waiters) = (0, 0);
        for op in ops.iter() {
            bytes += op.pending_bytes();
            waiters += op.waiters();
        }
        let mut state = self.state.lock();
        if state.ending.is_some() {
            drop(state);
            for op in ops.drain(..) {
                op.refuse(StoreFailure::Closed);
            }
            return;
        }
        self.pending_bytes.fetch_add(bytes, Ordering::Relaxed);
        state.logged += ops.len() as u64;
        state.ops.extend(ops.drain(..));
        state.bytes += bytes;
        state.waiters += waiters;
        self.wake_if_enough(&mut state);
    }

    /// A reader needs everything logged so far on disk: gives the number of ops to wait for and lets the committer
    /// not dawdle.
    pub(super) fn hurry(&self) -> u64 {
        let mut state = self.state.lock();
        if !state.ops.is_empty() {
            state.waiters = HURRY;
            self.wake_if_enough(&mut state);
        }
        state.logged
    }

    /// Bytes waiting, those of the group being written included.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes.load(Ordering::Relaxed)
    }

    /// The committer is done with ops of so many bytes.
    pub(super) fn release(&self, bytes: usize) {
        self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn end(&self, ending: Ending) {
        let mut state = self.state.lock();
        state.ending.get_or_insert(ending);
        state.sleeping = None;
        self.wake.notify_all();
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        self.state.lock().ending
    }

    /// Waits until ops are there, enough of them, the log ends, or `until` has come; `None` waits without end.
    pub(super) fn wait(&self, enough: Enough, until: Option<Instant>) -> Backlog {
        let mut state = self.state.lock();
        let missing = |state: &State| state.bytes < enough.bytes && state.waiters < enough.waiters;
        while state.ending.is_none() && (state.ops.is_empty() || missing(&state)) {
            state.sleeping = Some(enough);
            let timed_out = match until {
                Some(until) => self.wake.wait_until(&mut state, until).timed_out(),
                None => {
                    self.wake.wait(&mut state);
                    false
                }
            };
            state.sleeping = None;
            if timed_out {
                break;
            }
        }
        Backlog {
            bytes: state.bytes,
            waiters: state.waiters,
            is_empty: state.ops.is_empty(),
            ending: state.ending,
        }
    }

    /// Takes everything; `taken` must be empty, its memory is used for what is logged next.
    /// Gives their bytes.
    pub(super) fn take(&self, taken: &mut VecDeque<Op>) -> usize {
        debug_assert!(taken.is_empty(), "ops taken earlier would be overtaken");
        let mut state = self.state.lock();
        std::mem::swap(&mut state.ops, taken);
        state.waiters = 0;
        std::mem::take(&mut state.bytes)
    }

    /// Parties waiting for ops that were not taken yet.
    pub(super) fn waiters(&self) -> usize {
        let waiters = self.state.lock().waiters;
        if waiters < HURRY { waiters } else { 0 }
    }

    /// Sleeps, but not longer than the log lives. `false` when it ended.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state.lock();
        while state.ending.is_none() && !self.wake.wait_until(&mut state, until).timed_out() {}
        state.ending.is_none()
    }

    fn wake_if_enough(&self, state: &mut State) {
        let enough = |enough: Enough| state.bytes >= enough.bytes || state.waiters >= enough.waiters;
        if state.sleeping.is_some_and(enough) {
            // Once is enough: the committer says anew what it waits for.
            state.sleeping = None;
            self.wake.notify_one();
        }
    }
}
