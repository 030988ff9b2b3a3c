//! How much memory the ready messages of all queues may take together, and each queue's share of it (storage-design B6):
//! a few deep queues are bounded by themselves, very many are not.

use std::sync::atomic::Ordering;

use crate::broker::queue::RESIDENT_BYTES;
use crate::server::queues::Queues;

/// What consumers of one queue may hold unsettled however many queues there are.
const UNACKED_MIN: usize = 1024 * 1024;
/// The part of the memory limit, one in so many, that ready messages may take.
const PART: u64 = 4;
/// A queue may keep this much however many there are: one page of the store, or one larger message.
const SHARE_MIN: usize = 64 * 1024;

/// What ready messages may take of this limit, bytes.
pub(super) fn of_messages(memory_limit: u64) -> u64 {
    memory_limit / PART
}

impl Queues {
    /// Gives each queue its share, and lets those above it leave messages to the store. Looks at queues only when so much
    /// memory is used that it may matter, or did.
    pub(super) fn share_memory(&self, memory_used: u64, memory_limit: u64) {
        let budget = of_messages(memory_limit);
        let before = self.share.load(Ordering::Relaxed);
        if memory_used < budget && before == RESIDENT_BYTES {
            return;
        }
        let queues = self.all();
        let (mut sizes, mut handed_out) = (Vec::with_capacity(queues.len()), 0);
        for queue in &queues {
            let queue = queue.lock();
            sizes.push(queue.state.resident_bytes());
            handed_out += queue.state.unacked_bytes();
        }
        // What is handed out stays until it is settled, and takes its part.
        let room = budget.saturating_sub(handed_out).max(budget / PART);
        // A queue may hold more than its share: a message is not divided.
        let crowded = sizes.iter().map(|size| *size as u64).sum::<u64>() > room;
        let share = next_share(&mut sizes, room, before);
        if share == before && share == RESIDENT_BYTES && !crowded {
            return;
        }
        if share != before {
            tracing::debug!(
                share,
                before,
                budget,
                "each queue's memory for ready messages changes"
            );
        }
        self.share.store(share, Ordering::Relaxed);
        for queue in queues {
            queue.give_memory(share);
        }
    }
}

impl Queues {
    /// While the memory alarm is on, consumers that hold much unsettled get no more of it: publishers wait, and what is
    /// handed out could otherwise fill the memory all the same.
    pub(super) fn bound_unacked(&self, alarm: bool, memory_limit: u64) {
        if !alarm {
            if self.bounds_unacked.swap(false, Ordering::Relaxed) {
                self.set_unacked_limit(u64::MAX);
            }
            return;
        }
        let queues = self.all();
        let held = queues.iter().map(|queue| queue.lock().state.unacked_memory());
        let mut held: Vec<usize> = held
            .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
            .collect();
        let room = of_messages(memory_limit);
        if held.iter().map(|bytes| *bytes as u64).sum::<u64>() > room {
            let share = fitting(&mut held, room).max(UNACKED_MIN);
            if !self.bounds_unacked.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    share,
                    "messages that consumers hold unacked fill the memory: each queue hands out no more above its share"
                );
            }
            self.set_unacked_limit(share as u64);
        }
    }

    fn set_unacked_limit(&self, bytes: u64) {
        for queue in self.all() {
            let mut queue = queue.lock();
            queue.state.set_unacked_limit(bytes);
            if queue.state.ready_count() > 0 {
                queue.dispatch();
            }
        }
    }
}

/// The share with which queues of these sizes fit into `room`. It falls at once and grows slowly, and only when there is
/// plenty of room.
fn next_share(sizes: &mut [usize], room: u64, before: usize) -> usize {
    let total: u64 = sizes.iter().map(|size| *size as u64).sum();
    if total > room {
        fitting(sizes, room).clamp(SHARE_MIN, before.max(SHARE_MIN))
    } else if total < room / 2 {
        before.saturating_mul(2).min(RESIDENT_BYTES)
    } else {
        before
    }
}

/// The most that each may keep so that all fit: small ones leave room for the others.
fn fitting(sizes: &mut [usize], room: u64) -> usize {
    sizes.sort_unstable();
    let (mut room, mut left) = (room, sizes.len() as u64);
    for size in sizes {
        let share = room / left;
        if share < *size as u64 {
            return usize::try_from(share).unwrap_or(usize::MAX);
        }
        room -= *size as u64;
        left -= 1;
    }
    RESIDENT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn all_fit_with_their_share_and_small_queues_lose_nothing() {
        assert_eq!(
            next_share(&mut [MIB, 16 * MIB, 16 * MIB], 100 * MIB as u64, RESIDENT_BYTES),
            RESIDENT_BYTES
        );
        assert_eq!(
            next_share(&mut [MIB, 16 * MIB, 16 * MIB], 21 * MIB as u64, RESIDENT_BYTES),
            10 * MIB
        );
        assert_eq!(
            next_share(&mut [MIB; 10_000], 100 * MIB as u64, RESIDENT_BYTES),
            SHARE_MIN
        );
        assert_eq!(next_share(&mut [], 0, RESIDENT_BYTES), RESIDENT_BYTES);
    }

    #[test]
    fn a_share_grows_again_step_by_step_when_there_is_room() {
        let mut share = SHARE_MIN;
        share = next_share(&mut [SHARE_MIN; 3], MIB as u64, share);
        assert_eq!(share, 2 * SHARE_MIN);
        assert_eq!(next_share(&mut [MIB; 3], 4 * MIB as u64, share), share);
        for _ in 0..10 {
            share = next_share(&mut [0; 3], MIB as u64, share);
        }
        assert_eq!(share, RESIDENT_BYTES);
    }
}
