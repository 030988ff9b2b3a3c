//! Publishing without waiting: at full speed without confirms, or at a given rate with or without them. One thread
//! writes what is due, another listens for confirms and for the broker's complaints.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use leveret::protocol::method::Method;
use parking_lot::{Condvar, Mutex};

use super::{GraceTime, Publisher, settle, write_messages};
use crate::{
    clock::{SECOND_NS, sleep_precisely},
    course::{Course, PATIENCE_NS, Tally},
    error::PerfError,
    frames::{Event, Inbox},
    lap::Lap,
    latency::Latency,
    ledger::Ledger,
    link::{LOOK_UP, Link, close_method, is_timeout, method_frame, read_method},
    pace::Pace,
};

/// What the two threads share.
struct Shared {
    /// `None` without confirms.
    ledger: Mutex<Option<Ledger>>,
    /// The listener settled something, or has ended: the writer may look again.
    settled: Condvar,
    /// The listener has ended, by itself only if the connection has.
    listener_ended: AtomicBool,
}

/// Why the writer cannot send right now.
enum Due {
    Messages(u64),
    NotBefore(u64),
    WindowFull,
}

pub(super) fn publish(
    publisher: Publisher,
    ledger: Option<Ledger>,
    pace: Option<Pace>,
) -> Result<Latency, PerfError> {
    let shared = Shared {
        ledger: Mutex::new(ledger),
        settled: Condvar::new(),
        listener_ended: AtomicBool::new(false),
    };
    let Publisher {
        link,
        lap,
        messages,
        course,
        tally,
        ..
    } = publisher;
    let Link { stream, inbox, .. } = link;
    let writer = Writer {
        stream: &stream,
        shared: &shared,
        course: &course,
        tally: &tally,
        lap,
        messages,
        pace,
    };
    thread::scope(|scope| {
        let listener = thread::Builder::new()
            .name("listener".into())
            .spawn_scoped(scope, || {
                let outcome = listen(&stream, inbox, &shared, &course, &tally);
                shared.listener_ended.store(true, Ordering::Release);
                shared.settled.notify_all();
                outcome
            })?;
        let written = writer.write_all();
        if written.is_err() {
            // Wakes the listener out of its read; what it has to say explains more than a broken pipe.
            drop(stream.shutdown(Shutdown::Both));
        }
        let listened = listener
            .join()
            .map_err(|_panic| PerfError::Local("a thread panicked".into()))?;
        match (written, listened) {
            (Ok(()), listened) => listened,
            (Err(cause), Ok(_) | Err(PerfError::Eof { .. } | PerfError::Socket(_))) => Err(cause),
            (Err(_), Err(said)) => Err(said),
        }
    })
}

struct Writer<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
    course: &'a Course,
    tally: &'a Tally,
    lap: Lap,
    messages: u64,
    pace: Option<Pace>,
}

impl Writer<'_> {
    /// Publishes, waits for what is unconfirmed and says goodbye. The listener ends with the broker's answer.
    fn write_all(mut self) -> Result<(), PerfError> {
        if self.pace.is_some() {
            sleep_precisely();
        }
        let mut sent = 0;
        while sent < self.messages && !self.course.publishing_over() && !self.listener_ended() {
            let now_ns = self.course.clock.now_ns();
            match self.due(now_ns, self.messages - sent) {
                Due::Messages(count) => sent += self.send(count, now_ns)?,
                Due::NotBefore(due_ns) => {
                    // Woken now and then, to see whether the run is over.
                    self.course.clock.sleep_until(due_ns.min(now_ns + SECOND_NS / 5));
                }
                Due::WindowFull => {
                    self.wait_for_confirms();
                    if let Some(pace) = &mut self.pace {
                        pace.unblocked(self.course.clock.now_ns());
                    }
                }
            }
        }
        let mut grace = GraceTime::default();
        while self
            .shared
            .ledger
            .lock()
            .as_ref()
            .is_some_and(|ledger| ledger.outstanding() > 0)
        {
            if self.listener_ended() {
                return Ok(());
            }
            self.wait_for_confirms();
            grace.check(self.course, true, "confirms are still missing")?;
        }
        self.stream
            .set_write_timeout(Some(Duration::from_nanos(PATIENCE_NS)))?;
        let mut stream = self.stream;
        stream.write_all(&method_frame(0, &close_method()))?;
        Ok(())
    }

    fn listener_ended(&self) -> bool {
        self.shared.listener_ended.load(Ordering::Acquire)
    }

    fn due(&self, now_ns: u64, left: u64) -> Due {
        let due = self
            .pace
            .as_ref()
            .map_or(u64::MAX, |pace| pace.due_count(now_ns))
            .min(left);
        if due == 0 {
            return Due::NotBefore(self.pace.as_ref().map_or(now_ns, |pace| pace.due_ns(0)));
        }
        let room = self.shared.ledger.lock().as_ref().map_or(u64::MAX, Ledger::room);
        if room == 0 {
            Due::WindowFull
        } else {
            Due::Messages(due.min(room))
        }
    }

    /// Until the listener has settled something, or for [`LOOK_UP`].
    fn wait_for_confirms(&self) {
        let mut ledger = self.shared.ledger.lock();
        if ledger.as_ref().is_some_and(|ledger| ledger.outstanding() > 0) && !self.listener_ended() {
            self.shared.settled.wait_for(&mut ledger, LOOK_UP);
        }
    }

    fn send(&mut self, wanted: u64, now_ns: u64) -> Result<u64, PerfError> {
        let messages = self.lap.take(wanted);
        let mut ledger = self.shared.ledger.lock();
        for (ahead, nth) in (0..).zip(messages.clone()) {
            let stamp_ns = self
                .pace
                .as_ref()
                .map_or(now_ns, |pace| pace.stamp_ns(ahead, now_ns));
            self.lap.stamp(nth, stamp_ns);
            if let Some(ledger) = ledger.as_mut() {
                ledger.sent(stamp_ns);
            }
        }
        drop(ledger);
        let mut grace = GraceTime::default();
        write_messages(self.stream, &self.lap, &messages, || {
            if self.listener_ended() {
                return Err(PerfError::Eof {
                    during: "while publishing",
                });
            }
            grace.check(
                self.course,
                self.course.publishing_over(),
                "the broker takes no messages",
            )
        })?;
        let count = messages.len() as u64;
        let written_ns = self.course.clock.now_ns();
        self.tally.published(count, written_ns);
        if let Some(pace) = &mut self.pace {
            pace.sent(count);
            pace.unblocked(written_ns);
        }
        Ok(count)
    }
}

/// Reads until the broker has answered our connection.close.
fn listen(
    mut stream: &TcpStream,
    mut inbox: Inbox,
    shared: &Shared,
    course: &Course,
    tally: &Tally,
) -> Result<Latency, PerfError> {
    let mut latency = Latency::new()?;
    let mut grace = GraceTime::default();
    let mut closed = false;
    while !closed {
        match inbox.read_from(&mut stream) {
            Ok(0) => {
                return Err(PerfError::Eof {
                    during: "while publishing",
                });
            }
            Ok(_) => {}
            Err(cause) if is_timeout(&cause) => {
                grace.check(
                    course,
                    course.publishing_over(),
                    "the broker has not read everything",
                )?;
                continue;
            }
            Err(cause) => return Err(cause.into()),
        }
        let now_ns = course.clock.now_ns();
        let mut ledger = shared.ledger.lock();
        inbox.walk(|event| {
            match (event, ledger.as_mut()) {
                (Event::Confirmed(confirm), Some(ledger)) => {
                    settle(ledger, confirm, course, tally, &mut latency, now_ns)?;
                }
                (Event::Confirmed(_), None) => return Err(PerfError::protocol("a confirm nobody asked for")),
                (Event::Method(payload), _) => {
                    closed |= read_method(payload)? == Method::ConnectionCloseOk;
                }
                (Event::Delivered { .. }, _) => return Err(PerfError::protocol("a delivery to a publisher")),
            }
            Ok(())
        })?;
        drop(ledger);
        shared.settled.notify_all();
    }
    Ok(latency)
}
