//! The log: lines on stderr, the last of them kept for operators who ask over HTTP, a filter that can be changed while the
//! broker runs, and repeats that are counted and not written.

use std::{
    collections::VecDeque,
    fmt::{Debug, Write as _},
    hash::{BuildHasher, Hash, Hasher},
    io::{self, IsTerminal, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::{AHashMap, RandomState};
use parking_lot::Mutex;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::MakeWriter,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::server::LogExchange;

/// Changes the filter.
pub type SetFilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Lines that are kept.
const KEPT_LINES: usize = 2000;
/// What is kept of a line, bytes.
const KEPT_BYTES: usize = 4096;
/// The same line is written so often ...
const REPEATS_MAX: u32 = 20;
/// ... within this time; then the rest of it is counted.
const REPEATS_WITHIN: Duration = Duration::from_secs(10);
/// Different lines whose repeats are counted at a time.
const WATCHED_MAX: usize = 1024;

/// A running log.
pub struct Log {
    pub set_filter: SetFilter,
    pub kept: Kept,
    pub repeats: Repeats,
}

impl Log {
    /// Starts it for this program. A filter that does not parse becomes `info`: the configuration has checked it.
    pub fn start(filter: &str, json: bool, exchange: Option<LogExchange>) -> Self {
        let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
        let (kept, repeats) = (Kept::default(), Repeats::default());
        let lines = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(kept.clone());
        let set_filter: SetFilter = if json {
            let lines = lines.json().with_filter_reloading();
            let filter = lines.reload_handle();
            lines.finish().with(exchange).with(repeats.clone()).init();
            Box::new(move |text| change(text, |new| filter.reload(new)))
        } else {
            let lines = lines
                .with_ansi(io::stderr().is_terminal())
                .with_target(false)
                .with_filter_reloading();
            let filter = lines.reload_handle();
            lines.finish().with(exchange).with(repeats.clone()).init();
            Box::new(move |text| change(text, |new| filter.reload(new)))
        };
        Self {
            set_filter,
            kept,
            repeats,
        }
    }
}

fn change(
    text: &str,
    reload: impl Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error>,
) -> Result<(), String> {
    let filter = EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    reload(filter).map_err(|error| error.to_string())
}

/// The last lines of the log, numbered from 0 on.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    lines: VecDeque<String>,
    /// The number of the next line.
    next: u64,
}

impl Kept {
    fn keep(&self, line: &[u8]) {
        let line = plain(line.get(..KEPT_BYTES).unwrap_or(line));
        let mut kept = self.0.lock();
        if kept.lines.len() >= KEPT_LINES {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line);
        kept.next += 1;
    }

    /// The last `count` lines, and the number of the next one.
    pub fn last(&self, count: usize) -> (Vec<String>, u64) {
        let kept = self.0.lock();
        let skip = kept.lines.len().saturating_sub(count);
        (kept.lines.iter().skip(skip).cloned().collect(), kept.next)
    }

    /// Lines from that number on, as far as they are still kept, and the number of the next one.
    pub fn since(&self, number: u64) -> (Vec<String>, u64) {
        let kept = self.0.lock();
        let first = kept.next.saturating_sub(kept.lines.len() as u64);
        let skip = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        (kept.lines.iter().skip(skip).cloned().collect(), kept.next)
    }
}

/// A line without its colours and its end.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.trim_end().chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // A colour goes from `[` to `m`.
            characters.by_ref().take_while(|&part| part != 'm').for_each(drop);
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Writes a line to stderr and keeps it.
pub struct Writer<'a>(&'a Kept);

impl Write for Writer<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.keep(line);
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Writer<'a>;

    fn make_writer(&'a self) -> Writer<'a> {
        Writer(self)
    }
}

/// Holds back warnings and errors that repeat themselves, and counts them; those that differ only in numbers, such as a
/// port, are the same line. What comes and goes is told at lower levels, each time.
#[derive(Clone, Default)]
pub struct Repeats(Arc<Watched>);

#[derive(Default)]
struct Watched {
    hasher: RandomState,
    lines: Mutex<AHashMap<u64, Repeat>>,
}

struct Repeat {
    since: Instant,
    written: u32,
    held_back: u64,
    level: Level,
    text: String,
}

impl Repeats {
    /// Counts a line in; whether it is written.
    fn admits(&self, level: Level, text: &str, now: Instant) -> bool {
        let mut hasher = self.0.hasher.build_hasher();
        level.hash(&mut hasher);
        text.chars()
            .filter(|character| !character.is_ascii_digit())
            .for_each(|character| character.hash(&mut hasher));
        let mut lines = self.0.lines.lock();
        if lines.len() >= WATCHED_MAX {
            // Those that hold something back are told first, by `told`.
            lines.retain(|_, repeat| repeat.held_back > 0);
        }
        if lines.len() >= WATCHED_MAX {
            return true;
        }
        let repeat = lines.entry(hasher.finish()).or_insert_with(|| Repeat {
            since: now,
            written: 0,
            held_back: 0,
            level,
            text: String::new(),
        });
        if repeat.held_back == 0 && now.duration_since(repeat.since) >= REPEATS_WITHIN {
            repeat.since = now;
            repeat.written = 0;
        }
        if repeat.written < REPEATS_MAX {
            repeat.written += 1;
            return true;
        }
        repeat.held_back += 1;
        text.clone_into(&mut repeat.text);
        false
    }

    /// Takes out what has been held back for long enough: level, the last such line, and how many there were.
    fn take_due(&self, now: Instant) -> Vec<(Level, String, u64)> {
        let mut due = Vec::new();
        self.0.lines.lock().retain(|_, repeat| {
            let over = now.duration_since(repeat.since) >= REPEATS_WITHIN;
            if over && repeat.held_back > 0 {
                let text = std::mem::take(&mut repeat.text);
                due.push((repeat.level, text, repeat.held_back));
            }
            !over
        });
        due
    }

    /// Tells what was held back, for as long as the program runs.
    pub async fn tell(self) {
        loop {
            tokio::time::sleep(REPEATS_WITHIN / 2).await;
            for (level, text, count) in self.take_due(Instant::now()) {
                if level == Level::ERROR {
                    tracing::error!(target: TOLD, "{count} more of these: {text}");
                } else {
                    tracing::warn!(target: TOLD, "{count} more of these: {text}");
                }
            }
        }
    }
}

/// Lines about lines are not counted themselves.
const TOLD: &str = "leveret::log::repeats";

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let about = event.metadata();
        if *about.level() > Level::WARN || about.target() == TOLD {
            return true;
        }
        let mut line = Line::default();
        event.record(&mut line);
        self.admits(*about.level(), &(line.message + &line.fields), Instant::now())
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_a_few_times_and_then_counted() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let said =
            |text: &str, level, times: usize| (0..times).filter(|_| repeats.admits(level, text, now)).count();
        assert_eq!(said("disk is slow", Level::WARN, 100), 20);
        assert_eq!(
            said("disk is slow", Level::ERROR, 2),
            2,
            "another level is another line"
        );
        assert!(repeats.take_due(now).is_empty(), "not yet");
        let later = now + REPEATS_WITHIN;
        assert_eq!(
            repeats.take_due(later),
            [(Level::WARN, "disk is slow".to_owned(), 80)]
        );
        assert!(
            repeats.admits(Level::WARN, "disk is slow", later),
            "it begins anew"
        );
        assert!(repeats.take_due(later).is_empty(), "told once");
    }

    #[test]
    fn lines_that_differ_in_numbers_are_the_same() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let said =
            (0..100).filter(|port| repeats.admits(Level::WARN, &format!("no connection from {port}"), now));
        assert_eq!(said.count(), 20);
    }

    #[test]
    fn the_lines_that_are_watched_are_bounded() {
        let repeats = Repeats::default();
        let now = Instant::now();
        for length in 0..3 * WATCHED_MAX {
            assert!(repeats.admits(Level::WARN, &"x".repeat(length), now));
        }
        assert!(repeats.0.lines.lock().len() <= WATCHED_MAX);
    }

    #[test]
    fn the_last_lines_are_kept_without_colours() {
        let kept = Kept::default();
        for number in 0..KEPT_LINES + 3 {
            kept.keep(format!("\u{1b}[32mINFO\u{1b}[0m line {number}\n").as_bytes());
        }
        let next = KEPT_LINES as u64 + 3;
        assert_eq!(
            kept.last(2),
            (
                vec![
                    format!("INFO line {}", next - 2),
                    format!("INFO line {}", next - 1)
                ],
                next
            )
        );
        assert_eq!(kept.since(next - 1).0, [format!("INFO line {}", next - 1)]);
        assert_eq!(kept.since(next), (Vec::new(), next));
        assert_eq!(kept.since(0).0.len(), KEPT_LINES, "what is gone is gone");
    }
}
