//! One publishing connection. `lockstep` is for a confirm window at full speed, one thread that writes what the
//! window allows and reads what was confirmed; `stream` is for everything else, a thread that writes and one that
//! listens.

mod lockstep;
mod stream;

use std::{
    io::{self, Write},
    net::TcpStream,
    ops::Range,
    sync::Arc,
};

use crate::{
    course::{Course, PATIENCE_NS, Tally},
    error::PerfError,
    lap::Lap,
    latency::Latency,
    ledger::{Confirm, Ledger},
    link::{LOOK_UP, Link, is_timeout},
    pace::Pace,
};

pub(crate) struct Publisher {
    /// In confirm mode if there is a window.
    pub(crate) link: Link,
    pub(crate) lap: Lap,
    /// How many messages to publish; `u64::MAX` is until told to stop.
    pub(crate) messages: u64,
    pub(crate) confirm_window: Option<u64>,
    pub(crate) pace: Option<Pace>,
    pub(crate) course: Arc<Course>,
    pub(crate) tally: Arc<Tally>,
}

impl Publisher {
    /// Publishes until all messages are sent or the main thread says stop, then waits for the confirms that are
    /// missing and for the broker to have read everything. Gives the confirm latencies.
    pub(crate) fn work(mut self) -> Result<Latency, PerfError> {
        self.link.stream.set_read_timeout(Some(LOOK_UP))?;
        self.link.stream.set_write_timeout(Some(LOOK_UP))?;
        match (self.confirm_window, self.pace.take()) {
            (Some(window), None) => lockstep::publish(self, Ledger::new(window)),
            (window, pace) => stream::publish(self, window.map(Ledger::new), pace),
        }
    }

    fn over(&self, sent: u64) -> bool {
        sent >= self.messages || self.course.publishing_over()
    }
}

/// Takes confirmed messages from the ledger and counts them.
fn settle(
    ledger: &mut Ledger,
    confirm: Confirm,
    course: &Course,
    tally: &Tally,
    latency: &mut Latency,
    now_ns: u64,
) -> Result<(), PerfError> {
    let measuring = course.measuring();
    let count = ledger.settle(confirm, |stamp_ns| {
        if measuring {
            latency.record(stamp_ns, now_ns);
        }
    })?;
    tally.confirmed(confirm.positive, count, now_ns);
    Ok(())
}

/// Writes messages of the lap. Whenever the socket takes nothing for [`LOOK_UP`], `blocked` may read or give up.
fn write_messages(
    mut stream: &TcpStream,
    lap: &Lap,
    messages: &Range<usize>,
    mut blocked: impl FnMut() -> Result<(), PerfError>,
) -> Result<(), PerfError> {
    let mut rest = lap.bytes(messages);
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(0) => return Err(PerfError::Socket(io::ErrorKind::WriteZero.into())),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(cause) if is_timeout(&cause) => blocked()?,
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(())
}

/// Starts to count when publishing should be over; an error once patience has ended.
#[derive(Default)]
struct GraceTime {
    since_ns: Option<u64>,
}

impl GraceTime {
    fn check(&mut self, course: &Course, over: bool, what: &str) -> Result<(), PerfError> {
        if !over {
            return Ok(());
        }
        let now_ns = course.clock.now_ns();
        let since_ns = *self.since_ns.get_or_insert(now_ns);
        if now_ns - since_ns > PATIENCE_NS {
            return Err(PerfError::Stalled(format!(
                "the run was over 30 s ago, but {what}"
            )));
        }
        Ok(())
    }
}
