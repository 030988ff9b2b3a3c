//! What a migration has done so far, and how it is told.

use std::{collections::BTreeMap, time::Instant};

use serde_json::{Map, Value, json};

use crate::output::{Bar, cell, eprint};

/// Where there is no terminal, a line at least so many seconds after the last one.
const LINE_EVERY_S: u64 = 10;

/// One queue's part.
#[derive(Default)]
pub(super) struct Row {
    pub(super) moved: u64,
    /// At the last look.
    pub(super) consumers: u32,
    /// Why messages stay where they are.
    pub(super) stays: Option<String>,
}

/// A queue: its vhost and its name.
pub(super) type Name = (String, String);

pub(super) struct Tally {
    pub(super) rows: BTreeMap<Name, Row>,
    pub(super) moved: u64,
    /// With what was seen waiting.
    pub(super) whole: u64,
    pub(super) definitions: Map<String, Value>,
    pub(super) notes: Vec<String>,
    bar: Bar,
    lines: bool,
    begun: Instant,
    told: Instant,
}

impl Tally {
    pub(super) fn new(quiet: bool) -> Self {
        let bar = Bar::new(quiet);
        Self {
            rows: BTreeMap::new(),
            moved: 0,
            whole: 0,
            definitions: Map::new(),
            notes: Vec::new(),
            lines: !quiet && !bar.is_on(),
            bar,
            begun: Instant::now(),
            told: Instant::now(),
        }
    }

    pub(super) fn row(&mut self, name: &Name) -> &mut Row {
        self.rows.entry(name.clone()).or_default()
    }

    pub(super) fn moved(&mut self, name: &Name, count: u64) {
        self.row(name).moved += count;
        self.moved += count;
        self.whole = self.whole.max(self.moved);
        self.show(&at(name));
    }

    /// What is going on, where somebody watches.
    pub(super) fn show(&mut self, beside: &str) {
        self.bar.show(self.moved, self.whole, beside);
        if self.lines && self.told.elapsed().as_secs() >= LINE_EVERY_S {
            self.line(&format!(
                "{} of {} messages moved, now {beside}",
                self.moved, self.whole
            ));
        }
    }

    /// A line of its own, beside the bar.
    pub(super) fn line(&mut self, text: &str) {
        self.bar.end();
        if self.lines || self.bar.is_on() {
            eprint(&format!("{text}\n"));
            self.told = Instant::now();
        }
    }

    /// A queue has been worked off.
    pub(super) fn worked_off(&mut self, name: &Name, moved: u64) {
        if self.lines && moved > 0 {
            self.line(&format!("{}: {moved} messages moved", at(name)));
        }
    }

    pub(super) fn end(&mut self) {
        self.bar.end();
    }

    /// The whole of it, in words and as JSON.
    pub(super) fn report(&self, state: &str) -> (String, Value) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let mut lines = Vec::new();
        let names = [
            ("vhosts", "vhosts"),
            ("users", "users"),
            ("exchanges", "exchanges"),
            ("queues", "queues"),
            ("bindings", "bindings"),
            ("policies", "policies"),
        ];
        let taken: Vec<String> = names
            .iter()
            .filter_map(|(key, name)| Some(format!("{} {name}", self.definitions.get(*key)?)))
            .collect();
        if !taken.is_empty() {
            lines.push(format!("Definitions: {}", taken.join(", ")));
        }
        lines.extend(self.notes.iter().cloned());
        let queues = self.rows.values().filter(|row| row.moved > 0).count();
        lines.push(format!(
            "{state}: {} messages of {queues} queues moved in {seconds:.1} s",
            self.moved
        ));
        let mut busy = 0;
        for (name, row) in &self.rows {
            if let Some(why) = &row.stays {
                lines.push(format!("{}: {why}", at(name)));
            }
            busy += u32::from(row.consumers > 0);
        }
        if busy > 0 {
            lines.push(format!(
                "{busy} queues still have consumers at the other broker: what these hold unacknowledged is there until they go"
            ));
        }
        let rows = self.rows.iter().map(|((vhost, name), row)| {
            json!({
                "vhost": vhost, "name": name, "moved": row.moved,
                "consumers": row.consumers, "stays": row.stays,
            })
        });
        let json = json!({
            "state": state, "moved": self.moved, "seconds": seconds, "definitions": self.definitions,
            "notes": self.notes, "queues": rows.collect::<Vec<_>>(),
        });
        (lines.join("\n"), json)
    }
}

/// A queue in a line for people.
pub(super) fn at((vhost, name): &Name) -> String {
    let text = |text: &str| cell(&Value::from(text));
    format!("queue '{}' in vhost '{}'", text(name), text(vhost))
}
