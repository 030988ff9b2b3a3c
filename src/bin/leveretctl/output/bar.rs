//! How far something has come: a line that is drawn again and again on a terminal, and nothing elsewhere.

use std::io::{self, IsTerminal};

use crate::output::eprint;

const WIDTH: u64 = 30;

pub(crate) struct Bar {
    on: bool,
    /// Characters of the last line, which the next one must cover.
    drawn: usize,
}

impl Bar {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            on: !quiet && io::stderr().is_terminal(),
            drawn: 0,
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn show(&mut self, done: u64, whole: u64, beside: &str) {
        if !self.on {
            return;
        }
        let line = line(done, whole, beside);
        let length = line.chars().count();
        let rest = " ".repeat(self.drawn.saturating_sub(length));
        eprint(&format!("\r{line}{rest}"));
        self.drawn = length;
    }

    /// Leaves the last line standing.
    pub(crate) fn end(&mut self) {
        if self.drawn > 0 {
            eprint("\n");
            self.drawn = 0;
        }
    }
}

fn line(done: u64, whole: u64, beside: &str) -> String {
    let full = usize::try_from(done.min(whole) * WIDTH / whole.max(1)).unwrap_or(0);
    let rest = usize::try_from(WIDTH).unwrap_or(0).saturating_sub(full);
    let gap = if beside.is_empty() { "" } else { "  " };
    format!(
        "[{}{}] {done} of {whole}{gap}{beside}",
        "#".repeat(full),
        ".".repeat(rest)
    )
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(line(0, 0, ""), format!("[{}] 0 of 0", ".".repeat(30)));
        assert_eq!(
            line(5, 10, "x"),
            format!("[{}{}] 5 of 10  x", "#".repeat(15), ".".repeat(15))
        );
        assert_eq!(line(20, 10, ""), format!("[{}] 20 of 10", "#".repeat(30)));
    }
}
