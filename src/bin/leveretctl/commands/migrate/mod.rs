//! From a live RabbitMQ to this broker while both serve: its definitions, then the messages of its queues. A message is
//! acknowledged there once it is durable here, so that nothing is lost whatever ends in between; what was moved and not
//! acknowledged when the migration is killed comes twice. There is nothing to remember between two runs: what is still to
//! be moved is what is still there.

mod definitions;
#[path = "../../../../protocol/frame.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the broker's own file: this program is not linked with the library, which would bring RocksDB along"
)]
mod frame;
mod source;
mod tally;
#[path = "../../../leveretperf/uri.rs"]
mod uri;
mod wire;

use std::{cell::RefCell, time::Duration};

use axum::body::Bytes;
use serde_json::Value;

use crate::{
    call::Call,
    client::{Client, Target, segment},
    command::{Spec, switch, value},
    failure::{Failure, exit},
    interrupt::Interrupt,
    output::Output,
    program::tools::OURS,
};

use source::{Batch, Source, Trouble};
use tally::{Name, Tally};
use uri::Uri;

pub(super) static COMMANDS: [Spec; 1] = [Spec {
    name: "migrate",
    tools: OURS,
    group: "Operations",
    args: "",
    options: &[
        value(
            "from",
            "uri",
            "the RabbitMQ to leave, as amqp://user:password@host:5672; with a /vhost only that one [env: LEVERETCTL_FROM]",
        ),
        value(
            "from-http",
            "url",
            "its HTTP API [default: http://, with user, password and host of --from, port 15672]",
        ),
        value("queue", "name", "messages of this queue only"),
        switch(
            "skip-definitions",
            "messages only, of queues that are here already",
        ),
        switch("only-definitions", "no messages"),
        switch("follow", "go on moving what comes in there, until Ctrl-C"),
    ],
    about: "Takes over definitions and messages of a live RabbitMQ while both serve; run again, it goes on; Ctrl-C ends it between two batches",
    run: migrate,
}];

/// Between two looks at queues that were empty, and at a broker that takes nothing just now.
const PAUSE: Duration = Duration::from_secs(1);
const FROM_VARIABLE: &str = "LEVERETCTL_FROM";
/// Where RabbitMQ's HTTP API is unless it was moved.
const HTTP_PORT: u16 = 15672;

/// Why it ended early.
enum Stop {
    Interrupted,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

struct Migration<'a> {
    call: &'a Call,
    uri: Uri,
    /// Only this one.
    vhost: Option<String>,
    interrupt: RefCell<Interrupt>,
    tally: RefCell<Tally>,
}

fn migrate(call: &mut Call) -> Result<Output, Failure> {
    // A flag is seen by everybody on the machine, and there is a password in it.
    let variable = std::env::var(FROM_VARIABLE).ok();
    let Some(from) = call.option("from").or(variable.as_deref()) else {
        let text = "say which broker to leave: --from amqp://user:password@host:5672";
        return Err(Failure::argument(exit::USAGE, text));
    };
    let uri: Uri = from
        .parse()
        .map_err(|error| Failure::argument(exit::USAGE, format!("--from: {error}.")))?;
    let path = from
        .trim_start_matches("amqp://")
        .split_once('/')
        .map_or("", |(_, path)| path);
    let named = !path.is_empty() && !path.starts_with(['?', '#']);
    let interrupt = Interrupt::listen().map_err(|error| Failure::io("signals", &error))?;
    // Nobody to bring it to is told before anything is asked of the other broker.
    call.client.get("/leveret/ping")?;
    call.banner(format!("Migrating from {uri} ..."));
    call.print_banner()?;
    let migration = Migration {
        vhost: named.then(|| uri.vhost.clone()),
        uri,
        interrupt: RefCell::new(interrupt),
        tally: RefCell::new(Tally::new(call.shape.quiet)),
        call,
    };
    let ended = migration.run();
    let mut tally = migration.tally.borrow_mut();
    tally.end();
    let (state, failure) = match ended {
        Ok(()) => ("finished", None),
        Err(Stop::Interrupted) => ("interrupted", Some(Failure::interrupted())),
        Err(Stop::Failed(failure)) => ("failed", Some(failure)),
    };
    let (text, json) = tally.report(state);
    let report = Output::Report { text, json };
    match failure {
        None => Ok(report),
        Some(failure) => {
            call.show(report)?;
            Err(failure)
        }
    }
}

impl Migration<'_> {
    fn run(&self) -> Result<(), Stop> {
        if !self.call.switch("skip-definitions") {
            self.take_definitions()?;
        }
        if self.call.switch("only-definitions") {
            return Ok(());
        }
        loop {
            let before = self.tally.borrow().moved;
            let waiting = self.scan()?;
            self.drain_all(&waiting)?;
            let moved = self.tally.borrow().moved > before;
            if moved {
                continue;
            }
            if !self.call.switch("follow") {
                return Ok(());
            }
            if self.wait(PAUSE) {
                return Err(Stop::Interrupted);
            }
        }
    }

    /// True when somebody wants the end.
    fn wait(&self, pause: Duration) -> bool {
        self.interrupt.borrow_mut().wait(pause)
    }

    fn take_definitions(&self) -> Result<(), Stop> {
        let uri = &self.uri;
        let url = match self.call.option("from-http") {
            Some(url) => url.to_owned(),
            None => format!(
                "http://{}:{}@{}:{HTTP_PORT}",
                segment(&uri.user),
                segment(&uri.password),
                if uri.host.contains(':') {
                    format!("[{}]", uri.host)
                } else {
                    uri.host.clone()
                }
            ),
        };
        let other = Client::new(Target::parse(&url)?, self.call.timeout());
        let of_vhost = |vhost: &String| format!("/definitions/{}", segment(vhost));
        let path = self.vhost.as_ref().map_or("/definitions".to_owned(), of_vhost);
        let mut definitions = other.get(&path).map_err(|mut failure| {
            if failure.unreachable {
                failure.text = format!(
                    "Error:\nno HTTP API answers at {}: switch the management plugin on there (rabbitmq-plugins enable \
                     rabbitmq_management), say where it is with --from-http, or import its definitions by hand and use \
                     --skip-definitions",
                    other.target.describe()
                );
                failure.unreachable = false;
            }
            match &self.vhost {
                // RabbitMQ says so with 400.
                Some(vhost) if failure.is_missing() || plain(&failure) == "vhost_not_found" => {
                    Failure::unavailable(format!("{uri} has no vhost '{vhost}'"))
                }
                _ => failure,
            }
        })?;
        let notes = definitions::adapt(&mut definitions, self.vhost.as_deref());
        if let Some(vhost) = &self.vhost {
            self.call
                .client
                .put(&format!("/vhosts/{}", segment(vhost)), &serde_json::json!({}))?;
        }
        self.call
            .client
            .post(&path, &definitions)
            .map_err(|mut failure| {
                failure.text.push_str(
                    "\nNone of the definitions was taken in. An export of them can be edited and imported by hand; \
                     --skip-definitions then moves the messages.",
                );
                failure
            })?;
        let mut tally = self.tally.borrow_mut();
        tally.definitions = definitions::count(&definitions);
        tally.line("Definitions taken over");
        for note in &notes {
            tally.line(note);
        }
        tally.notes = notes;
        Ok(())
    }

    /// Queues that are here, by vhost.
    fn queues(&self) -> Result<Vec<Name>, Failure> {
        let path = match &self.vhost {
            Some(vhost) => format!("/queues/{}?disable_stats=true", segment(vhost)),
            None => "/queues?disable_stats=true".to_owned(),
        };
        let rows = self.call.client.list(&path)?;
        let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
        let mut names: Vec<Name> = rows
            .iter()
            .filter_map(|row| Some((text(row, "vhost")?, text(row, "name")?)))
            .filter(|(_, name)| self.call.option("queue").is_none_or(|only| only == name))
            .collect();
        names.sort();
        if let (true, Some(only)) = (names.is_empty(), self.call.option("queue")) {
            return Err(Failure::unavailable(format!("there is no queue '{only}' here")));
        }
        Ok(names)
    }

    /// Queues that have something to move, and how much.
    fn scan(&self) -> Result<Vec<(Name, u64)>, Stop> {
        let mut waiting = Vec::new();
        let names = self.queues()?;
        let look = || self.wait(Duration::ZERO);
        for names in names.chunk_by(|left, right| left.0 == right.0) {
            let mut source = self.open(names, &look)?;
            for name in names {
                match source.enter(&name.1) {
                    Ok((ready, consumers)) => {
                        self.tally.borrow_mut().row(name).consumers = consumers;
                        if ready > 0 {
                            waiting.push((name.clone(), u64::from(ready)));
                        }
                        source.leave().map_err(|trouble| self.stop(trouble))?;
                    }
                    // A queue that was never there, or is gone.
                    Err(Trouble::Channel { code: 404, .. }) => {}
                    Err(Trouble::Channel { text, .. }) => {
                        self.tally.borrow_mut().row(name).stays = Some(text);
                    }
                    Err(trouble) => return Err(self.stop(trouble)),
                }
            }
            source.close().map_err(|trouble| self.stop(trouble))?;
        }
        let mut tally = self.tally.borrow_mut();
        tally.whole = tally.moved + waiting.iter().map(|(_, ready)| ready).sum::<u64>();
        Ok(waiting)
    }

    fn open<'b>(&self, names: &[Name], look: &'b dyn Fn() -> bool) -> Result<Source<'b>, Stop> {
        let vhost = names.first().map_or("/", |(vhost, _)| vhost);
        Source::open(&self.uri, vhost, look).map_err(|trouble| self.stop(trouble))
    }

    fn drain_all(&self, waiting: &[(Name, u64)]) -> Result<(), Stop> {
        let look = || self.wait(Duration::ZERO);
        for of_vhost in waiting.chunk_by(|left, right| left.0.0 == right.0.0) {
            let names: Vec<Name> = of_vhost.iter().map(|(name, _)| name.clone()).collect();
            let mut source = self.open(&names, &look)?;
            for (name, ready) in of_vhost {
                match source.enter(&name.1) {
                    Ok(_) => self.drain(&mut source, name, *ready)?,
                    Err(Trouble::Channel { .. }) => {}
                    Err(trouble) => return Err(self.stop(trouble)),
                }
            }
            source.close().map_err(|trouble| self.stop(trouble))?;
        }
        Ok(())
    }

    /// Moves about so many messages of a queue: as many as there were when it was looked at, so that the next queue has
    /// its turn though this one goes on filling.
    fn drain(&self, source: &mut Source<'_>, name: &Name, ready: u64) -> Result<(), Stop> {
        let mut moved = 0;
        let mut larger = 0;
        let mut stays = None;
        while moved < ready && stays.is_none() {
            let batch = match source.fetch(&name.1) {
                Ok(batch) => batch,
                // Deleted meanwhile.
                Err(Trouble::Channel { text, .. }) => {
                    self.tally.borrow_mut().row(name).stays = Some(text);
                    return Ok(());
                }
                Err(trouble) => return Err(self.stop(trouble)),
            };
            if !batch.messages.is_empty() {
                let brought = self.bring(name, &batch, 0..batch.messages.len())?;
                let all = brought.taken.len() == batch.messages.len() && larger == 0;
                source
                    .acknowledge(&brought.taken, all)
                    .map_err(|trouble| self.stop(trouble))?;
                moved += brought.taken.len() as u64;
                larger += brought.larger;
                stays = brought.stays;
                self.tally.borrow_mut().moved(name, brought.taken.len() as u64);
            }
            if self.wait(Duration::ZERO) {
                source.leave().map_err(|trouble| self.stop(trouble))?;
                return Err(Stop::Interrupted);
            }
            if batch.empty {
                break;
            }
        }
        if larger > 0 && stays.is_none() {
            stays = Some(format!(
                "{larger} messages are larger than this broker takes (amqp.max_message_size) and stay there"
            ));
        }
        source.leave().map_err(|trouble| self.stop(trouble))?;
        let mut tally = self.tally.borrow_mut();
        tally.row(name).stays = stays;
        tally.worked_off(name, moved);
        Ok(())
    }

    /// Brings messages of a batch to their queue here.
    fn bring(&self, name: &Name, batch: &Batch, which: std::ops::Range<usize>) -> Result<Brought, Stop> {
        let messages = batch.messages.get(which.clone()).unwrap_or_default();
        let begin = which
            .start
            .checked_sub(1)
            .and_then(|before| batch.messages.get(before))
            .map_or(0, |(_, end)| *end);
        let end = messages.last().map_or(begin, |(_, end)| *end);
        let bytes = Bytes::copy_from_slice(batch.bytes.get(begin..end).unwrap_or_default());
        let path = format!(
            "/leveret/queues/{}/{}/messages/take-in",
            segment(&name.0),
            segment(&name.1)
        );
        let mut told = false;
        let answer = loop {
            let failure = match self.call.client.post_bytes(&path, bytes.clone()) {
                Ok(answer) => break answer,
                Err(failure) => failure,
            };
            match failure.reason.as_ref().map(|refusal| refusal.status) {
                Some(503) => {
                    if !told {
                        self.tally
                            .borrow_mut()
                            .line(&format!("waiting: {}", plain(&failure)));
                        told = true;
                    }
                    if self.wait(PAUSE) {
                        return Err(Stop::Interrupted);
                    }
                }
                Some(404) => return Ok(Brought::nothing("there is no such queue here".to_owned())),
                // Too much for the HTTP API at once: in halves.
                Some(413) if messages.len() > 1 => {
                    let middle = which.start + messages.len() / 2;
                    let mut first = self.bring(name, batch, which.start..middle)?;
                    if first.stays.is_none() {
                        let second = self.bring(name, batch, middle..which.end)?;
                        first.taken.extend(second.taken);
                        first.larger += second.larger;
                        first.stays = second.stays;
                    }
                    return Ok(first);
                }
                Some(413) => {
                    return Ok(Brought {
                        larger: 1,
                        ..Brought::default()
                    });
                }
                _ => return Err(failure.into()),
            }
        };
        Ok(Brought::read(&answer, messages))
    }

    fn stop(&self, trouble: Trouble) -> Stop {
        match trouble {
            Trouble::Interrupted => Stop::Interrupted,
            Trouble::Channel { code, text } => {
                Failure::unavailable(format!("{} refuses: {code} {text}", self.uri)).into()
            }
            Trouble::Connection(text) => {
                let text = format!("{}: {text}; what was not moved is still there", self.uri);
                Failure::unavailable(text).into()
            }
        }
    }
}

/// What became of a batch.
#[derive(Default)]
struct Brought {
    /// Delivery tags.
    taken: Vec<u64>,
    /// Messages that are too large for this broker.
    larger: u64,
    /// Why no more of this queue is moved now.
    stays: Option<String>,
}

impl Brought {
    fn nothing(why: String) -> Self {
        Self {
            stays: Some(why),
            ..Self::default()
        }
    }

    fn read(answer: &Value, messages: &[(u64, usize)]) -> Self {
        let numbers = |key: &str| -> Vec<u64> {
            let numbers = answer.get(key).and_then(Value::as_array).into_iter().flatten();
            numbers.filter_map(Value::as_u64).collect()
        };
        let (refused, too_large) = (numbers("refused"), numbers("too_large"));
        let taken = messages.iter().zip(0_u64..).filter_map(|((tag, _), number)| {
            let stays = refused.contains(&number) || too_large.contains(&number);
            (!stays).then_some(*tag)
        });
        Self {
            taken: taken.collect(),
            larger: too_large.len() as u64,
            stays: (!refused.is_empty()).then(|| "the queue is full here and takes no more".to_owned()),
        }
    }
}

/// What the broker said, without the word for scripts.
fn plain(failure: &Failure) -> &str {
    failure
        .reason
        .as_ref()
        .map_or(failure.text.as_str(), |refusal| refusal.reason.as_str())
}
