//! How much of bodies may be under assembly at once, over all connections. A connection that would go over stops being read
//! until there is room, first come first served. When there is none, one at a time has the turn: it may go on whatever it
//! takes, so that somebody always finishes and gives back. What has arrived counts, not what was announced: who announces
//! much and sends nothing holds up nobody.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use crate::server::admission::Control;
use crate::storage::Store;

/// What each connection may gather uncounted: as much as one read of it takes anyway.
const FREE: usize = 128 * 1024;
/// What is counted is counted in steps of this.
const STEP: usize = 256 * 1024;
/// The part of the memory limit, one in so many, that bodies under assembly may take.
const PART: u64 = 4;
/// With less than this to write, the store frees no memory that is worth waiting for.
const CALM_BYTES: usize = 4 * 1024 * 1024;
/// And what became of the last body shows after so long.
const REST: Duration = Duration::from_millis(200);
/// Who has the turn while others wait must bring a step in this time.
const SLOW_AFTER: Duration = Duration::from_secs(30);

pub(super) struct Intake {
    /// Counted now.
    held: AtomicUsize,
    /// What may be, without the turn.
    limit: AtomicUsize,
    /// What a connection may gather when it has the turn, if that is not one message.
    most: AtomicUsize,
    /// Somebody waits: who comes now goes behind.
    crowded: AtomicBool,
    line: Mutex<Line>,
    /// What is complete takes memory until it is written.
    store: Option<Store>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiter>,
    turn: Option<Turn>,
    /// When the last turn ended.
    ended: Option<Instant>,
    /// Memory is short because of bodies under assembly only: whoever finishes makes room.
    may_finish: bool,
}

struct Waiter {
    wanted: usize,
    /// Room is not enough: an alarm is on.
    needs_turn: bool,
    /// The connection holds the other end.
    leave: oneshot::Sender<Leave>,
    control: Arc<Control>,
}

struct Turn {
    control: Arc<Control>,
    /// When its holder last brought a step.
    since: Instant,
}

/// So much more may be gathered. Not taken, it goes back.
struct Leave {
    intake: Arc<Intake>,
    bytes: usize,
    turn: bool,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.intake
            .give_back(std::mem::take(&mut self.bytes), std::mem::take(&mut self.turn));
    }
}

impl Intake {
    /// Nothing is limited before the first [`Self::measure`].
    pub(super) fn new(store: Option<Store>) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            most: AtomicUsize::new(usize::MAX),
            crowded: AtomicBool::new(false),
            line: Mutex::default(),
            store,
        })
    }

    /// Bytes of bodies under assembly, as far as they are counted.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::SeqCst) as u64
    }

    /// So much memory is used, of so much. What other things need is left to them. Whoever waits is served: called again and
    /// again.
    pub(super) fn measure(self: &Arc<Self>, used: u64, memory_limit: u64) {
        let others = used.saturating_sub(self.held());
        let most = memory_limit / 10 * 9;
        let room = most.saturating_sub(others);
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        self.limit
            .store(bytes(room.min(memory_limit / PART)), Ordering::SeqCst);
        self.most.store(bytes(memory_limit / 2), Ordering::Relaxed);
        // Near the limit the next one waits: what is complete leaves memory by being written and paged out.
        let calm = self.unwritten() < CALM_BYTES && others < memory_limit;
        let mut line = self.line.lock();
        let rested = calm && line.ended.is_none_or(|ended| ended.elapsed() >= REST);
        line.may_finish = used < most || rested;
        drop(line);
        self.serve();
    }

    fn unwritten(&self) -> usize {
        self.store.as_ref().map_or(0, Store::pending_bytes)
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::SeqCst).saturating_sub(self.unwritten())
    }

    /// Somebody waits.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::SeqCst)
    }

    fn take(&self, bytes: usize) -> bool {
        let limit = self.limit();
        let grown = |held: usize| held.checked_add(bytes).filter(|held| *held <= limit);
        !self.crowded.load(Ordering::SeqCst)
            && self
                .held
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, grown)
                .is_ok()
    }

    /// The holder of the turn takes more.
    fn take_in_turn(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::SeqCst);
        if let Some(turn) = &mut self.line.lock().turn {
            turn.since = Instant::now();
        }
    }

    fn give_back(self: &Arc<Self>, bytes: usize, turn: bool) {
        if bytes == 0 && !turn {
            return;
        }
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        if turn {
            let mut line = self.line.lock();
            line.turn = None;
            line.ended = Some(Instant::now());
        }
        self.serve();
    }

    fn queue_up(
        self: &Arc<Self>,
        wanted: usize,
        needs_turn: bool,
        control: &Arc<Control>,
    ) -> oneshot::Receiver<Leave> {
        let (leave, place) = oneshot::channel();
        // Bounded by the connections: each waits for one.
        self.line.lock().waiting.push_back(Waiter {
            wanted,
            needs_turn,
            leave,
            control: Arc::clone(control),
        });
        self.crowded.store(true, Ordering::SeqCst);
        self.serve();
        place
    }

    /// Gives leave to those who waited longest, as far as there is room, or to one who finishes without.
    fn serve(self: &Arc<Self>) {
        if !self.crowded.load(Ordering::SeqCst) {
            return;
        }
        let mut leaves = Vec::new();
        let mut line = self.line.lock();
        let limit = self.limit();
        loop {
            while line.waiting.front().is_some_and(|it| it.leave.is_closed()) {
                line.waiting.pop_front();
            }
            let Some(first) = line.waiting.front() else {
                self.crowded.store(false, Ordering::SeqCst);
                break;
            };
            let held = self.held.load(Ordering::SeqCst);
            let fits = !first.needs_turn && held.saturating_add(first.wanted) <= limit;
            let turn = !fits && line.turn.is_none() && line.may_finish;
            if !fits && !turn {
                break;
            }
            let Some(waiter) = line.waiting.pop_front() else {
                break;
            };
            self.held.fetch_add(waiter.wanted, Ordering::SeqCst);
            if turn {
                let since = Instant::now();
                line.turn = Some(Turn {
                    control: waiter.control,
                    since,
                });
            }
            let leave = Leave {
                intake: Arc::clone(self),
                bytes: waiter.wanted,
                turn,
            };
            leaves.push((waiter.leave, leave));
        }
        drop(line);
        for (place, leave) in leaves {
            // Who went meanwhile does not take it, and it goes back.
            drop(place.send(leave));
        }
    }

    /// Somebody has waited for long: a holder of the turn that brings nearly nothing has to go.
    fn hurry(&self, now: Instant) {
        let line = self.line.lock();
        if let Some(turn) = &line.turn
            && now.duration_since(turn.since) >= SLOW_AFTER
        {
            turn.control
                .close("a message's body came too slowly while others waited for memory");
        }
    }
}

/// What one connection gathers. Dropped, it gives everything back.
pub(super) struct Share {
    intake: Arc<Intake>,
    control: Arc<Control>,
    /// Octets of the bodies that its channels assemble.
    bytes: usize,
    /// Counted for them.
    taken: usize,
    turn: bool,
}

/// Whether octets may be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    Yes,
    /// Not before [`Share::queue_up`] has given leave.
    NotYet,
    /// The connection assembles more at once than there can be room for.
    Never,
}

/// A place in the line.
pub(super) struct Place {
    leave: oneshot::Receiver<Leave>,
    intake: Arc<Intake>,
}

impl Place {
    /// Waits for leave. May be called again when it was not waited for to the end.
    pub(super) async fn leave(&mut self) -> Granted {
        loop {
            match tokio::time::timeout(SLOW_AFTER, &mut self.leave).await {
                Ok(leave) => return Granted(leave.ok()),
                Err(_elapsed) => self.intake.hurry(Instant::now()),
            }
        }
    }
}

/// What was waited for, for [`Share::accept`].
pub(super) struct Granted(Option<Leave>);

impl Share {
    pub(super) fn new(intake: &Arc<Intake>, control: &Arc<Control>) -> Self {
        Self {
            intake: Arc::clone(intake),
            control: Arc::clone(control),
            bytes: 0,
            taken: 0,
            turn: false,
        }
    }

    /// Adds octets of a body, of which one may have `body_max` in all.
    #[inline]
    pub(super) fn add(&mut self, octets: usize, body_max: u64) -> Room {
        let bytes = self.bytes.saturating_add(octets);
        if bytes > self.taken.saturating_add(FREE) {
            return self.grow(bytes, body_max);
        }
        self.bytes = bytes;
        Room::Yes
    }

    #[cold]
    fn grow(&mut self, bytes: usize, body_max: u64) -> Room {
        let wanted = self.wanted(bytes);
        if self.turn {
            // A connection that fills many channels at once and finishes none would take all memory in its turn.
            let most = self.intake.most.load(Ordering::Relaxed);
            if bytes > most && bytes as u64 > body_max {
                return Room::Never;
            }
            self.intake.take_in_turn(wanted);
        } else if !self.intake.take(wanted) {
            return Room::NotYet;
        }
        self.taken += wanted;
        self.bytes = bytes;
        Room::Yes
    }

    /// What must be counted beyond what is, to hold so many bytes.
    fn wanted(&self, bytes: usize) -> usize {
        bytes
            .saturating_sub(FREE + self.taken)
            .checked_next_multiple_of(STEP)
            .unwrap_or(usize::MAX)
    }

    /// Gets in line for so many octets more; `needs_turn` when room alone does not help.
    pub(super) fn queue_up(&self, octets: usize, needs_turn: bool) -> Place {
        let wanted = self.wanted(self.bytes.saturating_add(octets));
        Place {
            leave: self.intake.queue_up(wanted, needs_turn, &self.control),
            intake: Arc::clone(&self.intake),
        }
    }

    pub(super) fn accept(&mut self, granted: Granted) {
        if let Some(mut leave) = granted.0 {
            self.taken += std::mem::take(&mut leave.bytes);
            self.turn |= std::mem::take(&mut leave.turn);
        }
    }

    /// A body is complete, or given up, of which so many octets had arrived.
    #[inline]
    pub(super) fn give_back(&mut self, octets: u64) {
        let octets = usize::try_from(octets).unwrap_or(usize::MAX);
        self.bytes = self.bytes.saturating_sub(octets);
        if self.taken > 0 {
            self.settle();
        }
    }

    #[cold]
    fn settle(&mut self) {
        let needed = self.bytes.saturating_sub(FREE).next_multiple_of(STEP);
        let over = self.taken.saturating_sub(needed);
        self.taken -= over;
        self.intake.give_back(over, std::mem::take(&mut self.turn));
    }

    /// It cannot go on for another reason.
    pub(super) fn end_turn(&mut self) {
        self.intake.give_back(0, std::mem::take(&mut self.turn));
    }

    pub(super) fn has_turn(&self) -> bool {
        self.turn
    }

    /// It holds more than everybody may.
    pub(super) fn is_counted(&self) -> bool {
        self.taken > 0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.intake.give_back(self.taken, std::mem::take(&mut self.turn));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    /// With room for so many MiB.
    fn intake(room: usize) -> Arc<Intake> {
        let intake = Intake::new(None);
        intake.measure(0, (room * MIB) as u64 * PART);
        intake
    }

    fn share(intake: &Arc<Intake>) -> Share {
        Share::new(intake, &Arc::default())
    }

    fn given(place: &mut Place) -> Option<Granted> {
        place.leave.try_recv().ok().map(|leave| Granted(Some(leave)))
    }

    #[test]
    fn small_bodies_are_not_counted_and_whatever_ends_gives_back() {
        let intake = intake(4);
        let mut one = share(&intake);
        assert_eq!(one.add(FREE, 0), Room::Yes);
        assert_eq!(intake.held(), 0);
        assert_eq!(one.add(1, 0), Room::Yes);
        assert_eq!(intake.held(), STEP as u64);
        one.give_back(FREE as u64);
        assert_eq!((intake.held(), one.is_counted()), (0, false));
        assert_eq!(one.add(3 * MIB, 0), Room::Yes);
        let mut gone = one.queue_up(MIB, false);
        drop(one);
        assert!(given(&mut gone).is_some());
        drop(gone);
        assert_eq!(intake.held(), 0, "what was given and not taken went back");
    }

    #[test]
    fn who_came_first_goes_first_and_one_may_always_finish() {
        let intake = intake(4);
        let [mut one, mut two, mut three] = [(); 3].map(|()| share(&intake));
        assert_eq!(one.add(2 * MIB, 0), Room::Yes);
        assert_eq!(two.add(2 * MIB, 0), Room::Yes);
        assert_eq!(one.add(MIB, 0), Room::NotYet);
        let mut first = one.queue_up(MIB, false);
        let mut second = two.queue_up(MIB, false);
        // There would be room for this one, but it came later.
        assert_eq!(three.add(FREE + 1, 0), Room::NotYet);
        let mut third = three.queue_up(FREE + 1, false);
        one.accept(given(&mut first).unwrap());
        assert!(one.has_turn() && given(&mut second).is_none() && given(&mut third).is_none());
        assert_eq!(one.add(100 * MIB, 200 * MIB as u64), Room::Yes);
        one.give_back(102 * MIB as u64);
        assert!(!one.has_turn());
        two.accept(given(&mut second).unwrap());
        three.accept(given(&mut third).unwrap());
        assert!(!two.has_turn() && !three.has_turn(), "there was room");
        drop((two, three));
        assert_eq!(intake.held(), 0);
    }

    #[test]
    fn nobody_fills_memory_in_his_turn_without_finishing() {
        let intake = intake(4);
        let mut one = share(&intake);
        assert_eq!(one.add(5 * MIB, 0), Room::NotYet);
        let mut place = one.queue_up(5 * MIB, false);
        one.accept(given(&mut place).unwrap());
        assert_eq!(one.add(8 * MIB, 0), Room::Yes);
        assert_eq!(one.add(MIB, 0), Room::Never);
        assert_eq!(one.add(MIB, 20 * MIB as u64), Room::Yes, "one message may");
    }

    #[test]
    fn who_brings_nothing_in_his_turn_has_to_go_when_others_wait() {
        let intake = intake(4);
        let slow = Arc::<Control>::default();
        let one = Share::new(&intake, &slow);
        let mut place = one.queue_up(5 * MIB, false);
        let granted = given(&mut place);
        intake.hurry(Instant::now());
        assert!(!slow.is_told());
        intake.hurry(Instant::now() + SLOW_AFTER);
        assert!(slow.is_told());
        drop(granted);
    }

    #[test]
    fn when_other_things_take_the_memory_nobody_gets_the_turn() {
        let intake = intake(4);
        let (mut one, two) = (share(&intake), share(&intake));
        assert_eq!(one.add(3 * MIB, 0), Room::Yes);
        intake.measure(19 * MIB as u64, 16 * MIB as u64);
        let mut first = two.queue_up(MIB, false);
        assert!(given(&mut first).is_none());
        intake.measure(18 * MIB as u64, 16 * MIB as u64);
        assert!(given(&mut first).is_some());
        let mut second = two.queue_up(0, true);
        assert!(given(&mut second).is_some_and(|it| it.0.is_some_and(|leave| leave.turn)));
    }
}
