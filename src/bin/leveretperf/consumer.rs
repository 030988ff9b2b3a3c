//! One consuming connection: large reads, counted deliveries, acks in bulk. One thread.

use std::{io::Write, net::TcpStream, sync::Arc};

use leveret::protocol::{
    field::FieldTable,
    method::{Method, encode_ack},
};

use crate::{
    clock::SECOND_NS,
    course::{Course, PATIENCE_NS, Tally},
    error::PerfError,
    frames::{Event, FRAME_METHOD, Inbox},
    lap::push_frame,
    latency::Latency,
    link::{CHANNEL, LOOK_UP, Link, is_timeout, method_frame, read_method},
};

/// One read takes what the broker has sent, up to this. Large reads mean few of them.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// A message older than a day was not sent to measure its latency.
const OLDEST_STAMP_NS: u64 = 24 * 3_600 * SECOND_NS;

/// What the options say about consumers.
#[derive(Clone, Copy)]
pub(crate) struct ConsumerPlan {
    pub(crate) auto_ack: bool,
    /// Unacked deliveries the broker may send ahead; 0 is any number.
    pub(crate) prefetch: u16,
    /// An ack is written for every so many deliveries.
    pub(crate) ack_every: u64,
    /// Every so manieth delivery has its latency recorded.
    pub(crate) latency_every: u64,
}

pub(crate) struct Consumer {
    link: Link,
    plan: ConsumerPlan,
    course: Arc<Course>,
    tally: Arc<Tally>,
    latency: Latency,
}

/// The consumer's place in its channel's delivery tags, which count from 1.
struct Progress {
    tag: u64,
    acked: u64,
    until_sample: u64,
}

impl Consumer {
    /// Asks for deliveries of `queues`. The answers come in between deliveries and are counted in the tally.
    pub(crate) fn subscribe(
        mut link: Link,
        queues: &[String],
        plan: ConsumerPlan,
        course: Arc<Course>,
        tally: Arc<Tally>,
    ) -> Result<Self, PerfError> {
        if plan.prefetch > 0 {
            let qos = Method::BasicQos {
                prefetch_size: 0,
                prefetch_count: plan.prefetch,
                global: false,
            };
            link.call(CHANNEL, &qos)?;
        }
        link.stream.set_read_timeout(Some(LOOK_UP))?;
        let consume = |queue: &String| {
            let method = Method::BasicConsume {
                queue: queue.clone(),
                consumer_tag: String::new(),
                no_local: false,
                no_ack: plan.auto_ack,
                exclusive: false,
                nowait: false,
                arguments: FieldTable::new(),
            };
            method_frame(CHANNEL, &method)
        };
        let frames: Vec<u8> = queues.iter().flat_map(consume).collect();
        link.stream.write_all(&frames)?;
        Ok(Self {
            link,
            plan,
            course,
            tally,
            latency: Latency::new()?,
        })
    }

    /// Consumes until the main thread says stop.
    pub(crate) fn work(mut self) -> Result<Latency, PerfError> {
        let mut progress = Progress {
            tag: 0,
            acked: 0,
            until_sample: 1,
        };
        let mut acks = Vec::new();
        while !self.course.consuming_over() {
            let idle = !read(&mut self.link.inbox, &mut self.link.stream)?;
            self.take_in(&mut progress, &mut acks)?;
            if idle && !self.plan.auto_ack && progress.acked < progress.tag {
                progress.acked = progress.tag;
                push_ack(&mut acks, progress.tag, true);
            }
            self.link.stream.write_all(&acks)?;
            acks.clear();
        }
        if !self.plan.auto_ack && progress.acked < progress.tag {
            push_ack(&mut acks, progress.tag, true);
            self.link.stream.write_all(&acks)?;
        }
        let clock = self.course.clock;
        self.link.close(&clock, PATIENCE_NS)?;
        Ok(self.latency)
    }

    /// Counts all whole messages received and notes the acks they ask for.
    fn take_in(&mut self, progress: &mut Progress, acks: &mut Vec<u8>) -> Result<(), PerfError> {
        let Self {
            link,
            plan,
            course,
            tally,
            latency,
        } = self;
        let now_ns = course.clock.now_ns();
        let measuring = course.measuring();
        let before = progress.tag;
        link.inbox.walk(|event| {
            match event {
                Event::Delivered { tag, stamp } => {
                    if tag != progress.tag + 1 {
                        let last = progress.tag;
                        return Err(PerfError::protocol(format!("delivery tag {tag} after {last}")));
                    }
                    progress.tag = tag;
                    progress.until_sample -= 1;
                    if progress.until_sample == 0 {
                        progress.until_sample = plan.latency_every;
                        if let Some(stamp_ns) =
                            stamp.filter(|stamp_ns| measuring && is_stamp(*stamp_ns, now_ns))
                        {
                            latency.record(stamp_ns, now_ns);
                        }
                    }
                    if !plan.auto_ack && tag - progress.acked >= plan.ack_every {
                        progress.acked = tag;
                        push_ack(acks, tag, plan.ack_every > 1);
                    }
                }
                Event::Method(payload) => {
                    if matches!(read_method(payload)?, Method::BasicConsumeOk { .. }) {
                        tally.subscribed();
                    }
                }
                Event::Confirmed(_) => return Err(PerfError::protocol("a publisher confirm to a consumer")),
            }
            Ok(())
        })?;
        if progress.tag > before {
            tally.consumed(progress.tag - before, now_ns);
        }
        Ok(())
    }
}

/// Reads once; false if nothing came for a while.
fn read(inbox: &mut Inbox, stream: &mut TcpStream) -> Result<bool, PerfError> {
    match inbox.read_from(stream) {
        Ok(0) => Err(PerfError::Eof {
            during: "while consuming",
        }),
        Ok(_) => Ok(true),
        Err(cause) if is_timeout(&cause) => Ok(false),
        Err(cause) => Err(cause.into()),
    }
}

/// Whether the first bytes of a body can be a stamp: someone else's messages begin with anything.
fn is_stamp(stamp_ns: u64, now_ns: u64) -> bool {
    stamp_ns <= now_ns && now_ns - stamp_ns < OLDEST_STAMP_NS
}

fn push_ack(out: &mut Vec<u8>, tag: u64, multiple: bool) {
    let mut payload = bytes::BytesMut::with_capacity(16);
    encode_ack(&mut payload, tag, multiple);
    push_frame(out, FRAME_METHOD, CHANNEL, &payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_times_of_the_last_day_are_stamps() {
        let now_ns = 1_790_000_000 * SECOND_NS;
        for (stamp_ns, expected) in [
            (now_ns, true),
            (now_ns - 1, true),
            (now_ns + 1, false),
            (now_ns - OLDEST_STAMP_NS, false),
            (0, false),
            (u64::MAX, false),
        ] {
            assert_eq!(is_stamp(stamp_ns, now_ns), expected, "{stamp_ns}");
        }
    }
}
