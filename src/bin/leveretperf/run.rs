//! One run from declaring to deleting: starts the workers, watches the clock, adds up.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use leveret::protocol::method::Method;

use crate::{
    clock::SECOND_NS,
    consumer::{self, Consumer},
    course::{Count, Course, Tally},
    error::PerfError,
    lap::{Lap, Message},
    latency::Latency,
    link::{CHANNEL, Link},
    pace::Pace,
    plan::{Length, Plan},
    publisher::Publisher,
    report::{Effort, Summary, progress_line},
    topology, usage,
};

/// Enough for the answers and confirms a publisher gets.
const PUBLISHER_READ_BYTES: usize = 64 * 1024;
/// A run of a given number of messages in which nothing moves for so long has failed.
const STALL_NS: u64 = 30 * SECOND_NS;
/// How often the main thread looks whether a given number of messages has arrived.
const WATCH_NS: u64 = SECOND_NS / 200;
const MILLISECOND_NS: u64 = SECOND_NS / 1_000;

type Worker = JoinHandle<Result<Latency, PerfError>>;

/// Runs the plan. Ends early, with what was measured until then, when `course` is ended from outside.
///
/// # Errors
/// The first thing that went wrong in any connection.
pub(crate) fn run(plan: &Plan, course: &Arc<Course>, progress: bool) -> Result<Summary, PerfError> {
    let mut control = Link::open(&plan.uri, "leveretperf control", PUBLISHER_READ_BYTES)?;
    let backlog = match topology::declare(&mut control, plan) {
        Ok(backlog) => backlog,
        Err(error) => {
            // The error has closed the channel; what was declared before it goes over another one.
            delete_over(
                Link::open(&plan.uri, "leveretperf control", PUBLISHER_READ_BYTES),
                plan,
            );
            return Err(error);
        }
    };
    let mut crew = Crew {
        plan,
        course,
        publishers: Vec::new(),
        consumers: Vec::new(),
        tallies: Vec::new(),
        progress,
    };
    let measured = crew.measure(backlog);
    let latencies = crew.dismiss();
    let deleted = topology::delete(&mut control, plan);
    // A worker's error explains an end that the main thread only noticed.
    let (confirm_latency, end_to_end_latency) = latencies?;
    let (count, effort) = measured?;
    deleted?;
    control.close(&course.clock, STALL_NS)?;
    Ok(Summary::new(
        count,
        &effort,
        confirm_latency.percentiles(),
        end_to_end_latency.percentiles(),
    ))
}

/// Tidies up after a failure that is already being reported.
fn delete_over(link: Result<Link, PerfError>, plan: &Plan) {
    if let Err(second) = link.and_then(|mut link| topology::delete(&mut link, plan)) {
        eprintln!("leveretperf: not everything was deleted: {second}");
    }
}

/// The workers of a run and what they have done.
struct Crew<'a> {
    plan: &'a Plan,
    course: &'a Arc<Course>,
    publishers: Vec<Worker>,
    consumers: Vec<Worker>,
    tallies: Vec<Arc<Tally>>,
    progress: bool,
}

/// Everything that is counted, at one moment.
struct Moment {
    at_ns: u64,
    count: Count,
    generator_cpu_seconds: Option<f64>,
    broker_cpu_seconds: Option<f64>,
}

impl Crew<'_> {
    fn measure(&mut self, backlog: u64) -> Result<(Count, Effort), PerfError> {
        let consume_only = self.plan.publishers == 0;
        let mut start = self.moment();
        if consume_only {
            self.course.measure(true);
        }
        self.start_consumers()?;
        let publishers = self.connect_publishers()?;
        if !consume_only {
            start = self.moment();
        }
        let mut ticker = Ticker::new(self);
        let (start, end_ns) = match self.plan.length {
            Length::Time {
                warm_up_seconds,
                seconds,
            } => {
                self.start_publishers(publishers)?;
                let measured_ns = self.course.clock.now_ns() + nanoseconds(warm_up_seconds);
                self.wait(measured_ns, &mut ticker);
                self.course.measure(true);
                let start = self.moment();
                self.wait(start.at_ns + nanoseconds(seconds), &mut ticker);
                (start, None)
            }
            Length::Messages { consumed, .. } => {
                self.course.measure(true);
                self.start_publishers(publishers)?;
                (start, self.watch(consumed, &mut ticker)?)
            }
            Length::Backlog => (start, self.watch(backlog, &mut ticker)?),
        };
        self.course.measure(false);
        let end = self.moment();
        Ok(self.between(&start, &end, end_ns))
    }

    /// What happened from `start` to `end`; `end_ns` is when the last of it did, if that is to be the end.
    fn between(&self, start: &Moment, end: &Moment, end_ns: Option<u64>) -> (Count, Effort) {
        let difference = |later: Option<f64>, earlier: Option<f64>| Some(later? - earlier?);
        let broker_memory = self
            .plan
            .broker_pid
            .map(|pid| usage::memory(&pid.to_string()))
            .unwrap_or_default();
        let effort = Effort {
            seconds: seconds(end_ns.unwrap_or(end.at_ns).saturating_sub(start.at_ns)),
            generator_cpu_seconds: difference(end.generator_cpu_seconds, start.generator_cpu_seconds),
            broker_cpu_seconds: difference(end.broker_cpu_seconds, start.broker_cpu_seconds),
            broker_memory,
        };
        (end.count.since(&start.count), effort)
    }

    fn start_consumers(&mut self) -> Result<(), PerfError> {
        let mut subscriptions = 0;
        for nth in 0..self.plan.consumers {
            let link = Link::open(
                &self.plan.uri,
                &format!("leveretperf consumer {nth}"),
                consumer::READ_BYTES,
            )?;
            let queues = self.plan.queues_of(nth);
            subscriptions += queues.len() as u64;
            let tally = self.new_tally();
            let consumer =
                Consumer::subscribe(link, &queues, self.plan.consumer, self.course.clone(), tally)?;
            let worker = spawn(self.course, format!("consumer {nth}"), || consumer.work())?;
            self.consumers.push(worker);
        }
        // Publishers wait for the last consumer, so that no run begins with a backlog.
        let patience_ns = self.course.clock.now_ns() + STALL_NS;
        while Count::of(self.tallies()).subscribed < subscriptions {
            let now_ns = self.course.clock.now_ns();
            if self.course.wait_until(now_ns + MILLISECOND_NS) || now_ns > patience_ns {
                return Err(PerfError::Stalled(
                    "the broker did not accept all consumers".into(),
                ));
            }
        }
        Ok(())
    }

    fn connect_publishers(&mut self) -> Result<Vec<Publisher>, PerfError> {
        let plan = self.plan;
        let total = match plan.length {
            Length::Messages { published, .. } => Some(published),
            Length::Time { .. } | Length::Backlog => None,
        };
        let mut publishers = Vec::new();
        for nth in 0..plan.publishers {
            let mut link = Link::open(
                &plan.uri,
                &format!("leveretperf publisher {nth}"),
                PUBLISHER_READ_BYTES,
            )?;
            if plan.confirm_window.is_some() {
                link.call(CHANNEL, &Method::ConfirmSelect { nowait: false })?;
            }
            let message = Message {
                channel: CHANNEL,
                exchange: plan
                    .exchange
                    .as_ref()
                    .map(|exchange| exchange.name.clone())
                    .unwrap_or_default(),
                persistent: plan.persistent,
                body_bytes: plan.body_bytes,
                frame_max_bytes: link.frame_max_bytes,
            };
            let at_once = plan
                .confirm_window
                .and_then(|window| usize::try_from(window).ok())
                .unwrap_or(usize::MAX);
            let mut lap = Lap::new(&message, &plan.routing_keys, at_once)?;
            lap.rotate_to(nth);
            publishers.push(Publisher {
                link,
                lap,
                messages: total.map_or(u64::MAX, |total| share(total, plan.publishers, nth)),
                confirm_window: plan.confirm_window,
                pace: None,
                course: self.course.clone(),
                tally: self.new_tally(),
            });
        }
        Ok(publishers)
    }

    fn start_publishers(&mut self, publishers: Vec<Publisher>) -> Result<(), PerfError> {
        // All schedules begin together, when the last thread should be up.
        let start_ns = self.course.clock.now_ns() + 10 * MILLISECOND_NS;
        for (nth, mut publisher) in (0..).zip(publishers) {
            publisher.pace = self
                .plan
                .rate
                .map(|rate| Pace::new(start_ns, rate, nth, self.plan.publishers));
            let worker = spawn(self.course, format!("publisher {nth}"), || publisher.work())?;
            self.publishers.push(worker);
        }
        Ok(())
    }

    /// Waits until `until_ns` or the end of the run, with a line of progress every second.
    fn wait(&self, until_ns: u64, ticker: &mut Ticker) {
        while self.course.clock.now_ns() < until_ns && !self.course.wait_until(until_ns.min(ticker.next_ns)) {
            ticker.tick(self);
        }
    }

    /// Waits until the publishers are done and `consumed` messages have arrived. Gives the time the last of it
    /// happened.
    fn watch(&self, consumed: u64, ticker: &mut Ticker) -> Result<Option<u64>, PerfError> {
        let mut seen = Count::default();
        let mut moved_ns = self.course.clock.now_ns();
        loop {
            let now_ns = self.course.clock.now_ns();
            let count = Count::of(self.tallies());
            let published = self.publishers.iter().all(JoinHandle::is_finished);
            if published && count.consumed >= consumed {
                // Unconfirmed and unconsumed, a message is done when the publisher's close is answered, not when
                // it was written.
                let proven = self.plan.consumers > 0 || self.plan.confirm_window.is_some();
                return Ok((proven && count.last_ns > 0).then_some(count.last_ns));
            }
            if count != seen {
                (seen, moved_ns) = (count, now_ns);
            } else if now_ns - moved_ns > STALL_NS {
                let Count {
                    published,
                    consumed: arrived,
                    ..
                } = count;
                return Err(PerfError::Stalled(format!(
                    "nothing moved for 30 s: {published} published, {arrived} of {consumed} consumed"
                )));
            }
            if self.course.wait_until(now_ns + WATCH_NS) {
                return Ok(None);
            }
            ticker.tick(self);
        }
    }

    /// Ends all workers and adds up their latencies: confirm, end to end.
    fn dismiss(&mut self) -> Result<(Latency, Latency), PerfError> {
        self.course.stop_publishing();
        let confirm = join_all(self.publishers.drain(..));
        self.course.stop_consuming();
        let end_to_end = join_all(self.consumers.drain(..));
        Ok((confirm?, end_to_end?))
    }

    fn moment(&self) -> Moment {
        Moment {
            at_ns: self.course.clock.now_ns(),
            count: Count::of(self.tallies()),
            generator_cpu_seconds: usage::cpu_seconds("self"),
            broker_cpu_seconds: self
                .plan
                .broker_pid
                .and_then(|pid| usage::cpu_seconds(&pid.to_string())),
        }
    }

    fn new_tally(&mut self) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        self.tallies.push(tally.clone());
        tally
    }

    fn tallies(&self) -> impl Iterator<Item = &Tally> {
        self.tallies.iter().map(Arc::as_ref)
    }
}

/// Prints what happened in each second, if somebody wants to know.
struct Ticker {
    start_ns: u64,
    last_ns: u64,
    next_ns: u64,
    last: Count,
}

impl Ticker {
    fn new(crew: &Crew<'_>) -> Self {
        let now_ns = crew.course.clock.now_ns();
        Self {
            start_ns: now_ns,
            last_ns: now_ns,
            next_ns: now_ns + SECOND_NS,
            last: Count::of(crew.tallies()),
        }
    }

    fn tick(&mut self, crew: &Crew<'_>) {
        let now_ns = crew.course.clock.now_ns();
        if now_ns < self.next_ns {
            return;
        }
        let count = Count::of(crew.tallies());
        if crew.progress {
            let elapsed = seconds(now_ns - self.start_ns);
            let line = progress_line(elapsed, &count.since(&self.last), seconds(now_ns - self.last_ns));
            eprintln!("{line}");
        }
        self.last = count;
        self.last_ns = now_ns;
        self.next_ns = now_ns + SECOND_NS;
    }
}

/// Starts a worker; if it fails, the run ends.
fn spawn(
    course: &Arc<Course>,
    name: String,
    work: impl FnOnce() -> Result<Latency, PerfError> + Send + 'static,
) -> Result<Worker, PerfError> {
    let course = course.clone();
    let worker = thread::Builder::new().name(name).spawn(move || {
        let outcome = work();
        if outcome.is_err() {
            course.end();
        }
        outcome
    })?;
    Ok(worker)
}

fn join_all(workers: impl Iterator<Item = Worker>) -> Result<Latency, PerfError> {
    let mut sum = Latency::new()?;
    let mut first_error = None;
    for worker in workers {
        let outcome = worker
            .join()
            .map_err(|_panic| PerfError::Local("a thread panicked".into()));
        match outcome.flatten() {
            Ok(latency) => sum.add(&latency)?,
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    first_error.map_or(Ok(sum), Err)
}

/// The `nth` of `parts` shares of `total`, which add up to it.
fn share(total: u64, parts: u64, nth: u64) -> u64 {
    total / parts + u64::from(nth < total % parts)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a run has fewer than 2^53 nanoseconds, which is a hundred days"
)]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the options allow 0 to 1e7 seconds"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (total, parts) in [(10, 3), (2, 5), (9, 9), (1_000_001, 7)] {
            let shares: Vec<u64> = (0..parts).map(|nth| share(total, parts, nth)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
