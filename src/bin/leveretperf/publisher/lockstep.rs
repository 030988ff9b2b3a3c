//! Publishing with a confirm window at full speed: fill the window, wait for a confirm, fill it again. One thread,
//! so that at a window of 1 no wake-up between threads is measured along with the broker.

use std::{net::TcpStream, time::Duration};

use super::{GraceTime, Publisher, settle, write_messages};
use crate::{
    course::{Course, PATIENCE_NS, Tally},
    error::PerfError,
    frames::{Event, Inbox},
    latency::Latency,
    ledger::Ledger,
    link::{LOOK_UP, Link, is_timeout, read_method},
};

/// How long to look for confirms when the socket takes no more messages.
const GLANCE: Duration = Duration::from_millis(1);

/// What is waiting to be confirmed, and how long confirms took.
struct Confirms {
    ledger: Ledger,
    latency: Latency,
}

pub(super) fn publish(mut publisher: Publisher, ledger: Ledger) -> Result<Latency, PerfError> {
    let mut confirms = Confirms {
        ledger,
        latency: Latency::new()?,
    };
    let mut grace = GraceTime::default();
    let mut sent = 0;
    loop {
        let over = publisher.over(sent);
        if over && confirms.ledger.outstanding() == 0 {
            break;
        }
        let room = if over {
            0
        } else {
            confirms.ledger.room().min(publisher.messages - sent)
        };
        if room > 0 {
            sent += send(&mut publisher, &mut confirms, room)?;
        }
        if room == 0 || confirms.ledger.room() == 0 {
            let Publisher {
                link, course, tally, ..
            } = &mut publisher;
            confirms.receive(&link.stream, &mut link.inbox, course, tally)?;
            grace.check(course, over, "confirms are still missing")?;
        }
    }
    let clock = publisher.course.clock;
    publisher.link.close(&clock, PATIENCE_NS)?;
    Ok(confirms.latency)
}

/// Writes at most `room` messages and returns how many.
fn send(publisher: &mut Publisher, confirms: &mut Confirms, room: u64) -> Result<u64, PerfError> {
    let Publisher {
        link,
        lap,
        course,
        tally,
        ..
    } = publisher;
    let Link { stream, inbox, .. } = link;
    let messages = lap.take(room);
    let now_ns = course.clock.now_ns();
    for nth in messages.clone() {
        lap.stamp(nth, now_ns);
        confirms.ledger.sent(now_ns);
    }
    write_messages(stream, lap, &messages, || {
        // The broker may be waiting for us to read before it reads on.
        stream.set_read_timeout(Some(GLANCE))?;
        confirms.receive(stream, inbox, course, tally)?;
        stream.set_read_timeout(Some(LOOK_UP))?;
        Ok(())
    })?;
    let count = messages.len() as u64;
    tally.published(count, now_ns);
    Ok(count)
}

impl Confirms {
    /// One read, and what it brought. Nothing within the socket's read timeout is no error.
    fn receive(
        &mut self,
        mut stream: &TcpStream,
        inbox: &mut Inbox,
        course: &Course,
        tally: &Tally,
    ) -> Result<(), PerfError> {
        match inbox.read_from(&mut stream) {
            Ok(0) => {
                return Err(PerfError::Eof {
                    during: "while publishing",
                });
            }
            Ok(_) => {}
            Err(cause) if is_timeout(&cause) => return Ok(()),
            Err(cause) => return Err(cause.into()),
        }
        let now_ns = course.clock.now_ns();
        inbox.walk(|event| match event {
            Event::Confirmed(confirm) => settle(
                &mut self.ledger,
                confirm,
                course,
                tally,
                &mut self.latency,
                now_ns,
            ),
            Event::Method(payload) => read_method(payload).map(drop),
            Event::Delivered { .. } => Err(PerfError::protocol("a delivery to a publisher")),
        })
    }
}
