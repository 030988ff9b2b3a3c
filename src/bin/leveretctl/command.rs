//! What a command is: a name, what it takes, and the function that carries it out. The tables of `commands` hold them; the
//! parser, the usage texts, completions and man pages are made from the same tables.

use crate::{call::Call, failure::Failure, output::Output, program::Program};

/// Carries a command out.
pub(crate) type Run = fn(&mut Call) -> Result<Output, Failure>;

/// An option of one command, beside those that all have.
pub(crate) struct Opt {
    /// Without dashes.
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    /// What its value is called; `None` for a switch.
    pub(crate) value: Option<&'static str>,
    pub(crate) about: &'static str,
}

pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// The programs that have it.
    pub(crate) tools: &'static [Program],
    /// Its heading in the list of commands.
    pub(crate) group: &'static str,
    /// Positional arguments: `<user> [<password>] [<tag>...]`.
    pub(crate) args: &'static str,
    pub(crate) options: &'static [Opt],
    pub(crate) about: &'static str,
    pub(crate) run: Run,
}

pub(crate) const fn switch(name: &'static str, about: &'static str) -> Opt {
    Opt {
        name,
        short: None,
        value: None,
        about,
    }
}

pub(crate) const fn value(name: &'static str, value: &'static str, about: &'static str) -> Opt {
    Opt {
        name,
        short: None,
        value: Some(value),
        about,
    }
}

impl Opt {
    pub(crate) const fn short(self, short: char) -> Self {
        Self {
            short: Some(short),
            ..self
        }
    }
}

/// A positional argument, read from [`Spec::args`].
pub(crate) struct Positional {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    pub(crate) many: bool,
}

impl Spec {
    pub(crate) fn positionals(&self) -> impl Iterator<Item = Positional> {
        self.args.split_whitespace().map(|word| {
            let required = !word.starts_with('[');
            let inner = word.trim_start_matches('[').trim_end_matches(']');
            Positional {
                name: inner
                    .trim_end_matches("...")
                    .trim_start_matches('<')
                    .trim_end_matches('>'),
                required,
                many: inner.ends_with("..."),
            }
        })
    }

    /// Does it in this program.
    pub(crate) fn belongs_to(&self, program: Program) -> bool {
        self.tools.contains(&program)
    }

    /// The line that tells how to call it.
    pub(crate) fn usage(&self, program: Program) -> String {
        let mut line = format!(
            "{} [--node <node>] [--longnames] [--quiet] {}",
            program.name(),
            self.name
        );
        for word in self.args.split_whitespace() {
            line.push(' ');
            line.push_str(word);
        }
        for option in self.options {
            match option.value {
                None => line.push_str(&format!(" [--{}]", option.name)),
                Some(value) => line.push_str(&format!(" [--{} <{value}>]", option.name)),
            }
        }
        line
    }
}
