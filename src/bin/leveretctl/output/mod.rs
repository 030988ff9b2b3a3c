//! What a command answers, in the format that was asked for.

mod bar;
mod grid;
mod term;

use std::io::{self, IsTerminal, Write};

use serde_json::{Map, Value};

use crate::{
    failure::{Failure, exit},
    program::Program,
};

pub(crate) use bar::Bar;
pub(crate) use term::{cell, typed};

/// A formatter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns with a tab between.
    Tabs,
    /// Columns aligned with spaces, for people.
    Aligned,
    /// Boxes.
    Pretty,
    Csv,
    Json,
    JsonStream,
}

impl Format {
    /// Under our own name people get aligned columns; in a pipe, and under RabbitMQ's names, there are tabs.
    pub(crate) fn parse(name: Option<&str>, program: Program) -> Result<Self, Failure> {
        Ok(match name {
            None if !program.is_compatible() && io::stdout().is_terminal() => Self::Aligned,
            None | Some("table" | "tsv" | "string" | "string_per_line" | "report" | "plugins") => Self::Tabs,
            Some("pretty_table" | "pretty") => Self::Pretty,
            Some("csv") => Self::Csv,
            Some("json") => Self::Json,
            Some("json_stream") => Self::JsonStream,
            Some(other) => {
                let text = format!(
                    "unknown formatter '{other}': there are table, tsv, pretty_table, csv, json and json_stream."
                );
                return Err(Failure::argument(exit::USAGE, text));
            }
        })
    }

    /// Nothing but the answer is printed then.
    pub(crate) fn is_for_machines(self) -> bool {
        matches!(self, Self::Csv | Self::Json | Self::JsonStream)
    }

    pub(crate) fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::JsonStream)
    }
}

/// How answers are written.
pub(crate) struct Shape {
    pub(crate) format: Format,
    pub(crate) headers: bool,
    pub(crate) quiet: bool,
}

/// A command's answer.
#[derive(Debug)]
pub(crate) enum Output {
    /// Done, nothing to say; JSON says so.
    Done { node: String },
    /// Nothing at all, in any format.
    Silent,
    /// A sentence; JSON has it as `message`, with these fields beside.
    Sentence(String, Map<String, Value>),
    /// A line that people want to see, unless they asked for quiet.
    Remark(String, Map<String, Value>),
    /// A report with a JSON form of its own.
    Report { text: String, json: Value },
    /// Rows of columns.
    Table(Table),
    /// A document that is printed as it is in every format.
    Document(String),
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
    /// Without rows there is no header either, and for some lists a blank line, as in RabbitMQ's tools.
    pub(crate) blank_when_empty: bool,
}

impl Table {
    pub(crate) fn new(columns: &[&str], rows: Vec<Vec<Value>>) -> Self {
        Self {
            columns: columns.iter().map(ToString::to_string).collect(),
            rows,
            blank_when_empty: true,
        }
    }

    /// One that prints nothing when it has no rows.
    pub(crate) fn streamed(columns: &[&str], rows: Vec<Vec<Value>>) -> Self {
        Self {
            blank_when_empty: false,
            ..Self::new(columns, rows)
        }
    }
}

impl From<Table> for Output {
    fn from(table: Table) -> Self {
        Self::Table(table)
    }
}

impl Output {
    pub(crate) fn sentence(text: impl Into<String>) -> Self {
        Self::Sentence(text.into(), Map::new())
    }

    /// The answer as JSON.
    pub(crate) fn into_value(self) -> Value {
        match self {
            Self::Silent | Self::Done { .. } => Value::Null,
            Self::Sentence(text, mut fields) | Self::Remark(text, mut fields) => {
                fields.insert("message".to_owned(), text.into());
                fields.into()
            }
            Self::Report { json, .. } => json,
            Self::Document(text) => text.into(),
            Self::Table(table) => {
                let row = |row: Vec<Value>| -> Value {
                    table
                        .columns
                        .iter()
                        .cloned()
                        .zip(row)
                        .collect::<Map<_, _>>()
                        .into()
                };
                table.rows.into_iter().map(row).collect()
            }
        }
    }

    /// Writes the answer to stdout.
    pub(crate) fn show(self, shape: &Shape) -> Result<(), Failure> {
        let json = shape.format.is_json();
        let text = match self {
            Self::Silent => return Ok(()),
            Self::Done { node } if json => {
                format!("{}\n", serde_json::json!({"result": "ok", "node": node}))
            }
            Self::Done { .. } => return Ok(()),
            Self::Sentence(text, mut fields) | Self::Remark(text, mut fields) if json => {
                fields.insert("message".to_owned(), text.into());
                format!("{}\n", Value::Object(fields))
            }
            Self::Remark(..) if shape.quiet => return Ok(()),
            Self::Sentence(text, _) | Self::Remark(text, _) => format!("{text}\n"),
            Self::Report { json: value, .. } if json => format!("{value}\n"),
            Self::Report { text, .. } | Self::Document(text) => {
                let end = if text.ends_with('\n') { "" } else { "\n" };
                format!("{text}{end}")
            }
            Self::Table(table) => grid::render(&table, shape),
        };
        print(&text)
    }
}

/// Writes to stdout. A reader that has gone, as `head` does, wants no more and is no failure of ours.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(drop)
}

/// As [`print`], for what would go on; false when the reader has gone.
pub(crate) fn print_on(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::io("stdout", &error)),
    }
}

/// Writes to stderr, if there is one.
pub(crate) fn eprint(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}
