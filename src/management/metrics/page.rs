//! The text format of Prometheus, version 0.0.4: each family once, its series together, labels escaped.

/// What a family measures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Untyped,
    Histogram,
    Summary,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Untyped => "untyped",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// One family of objects: its name behind the prefix, its kind, what it says, and how to read it from an object.
pub(super) type Column<T> = (&'static str, Kind, &'static str, fn(&T) -> u64);

/// The labels of an object.
pub(super) type Labels<T> = for<'a> fn(&'a T) -> Vec<(&'static str, &'a str)>;

/// A page being written.
#[derive(Default)]
pub(super) struct Page {
    out: String,
}

impl Page {
    pub(super) fn finish(self) -> String {
        self.out
    }

    /// Begins a family.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        self.push(&[
            "# TYPE ",
            name,
            " ",
            kind.name(),
            "\n# HELP ",
            name,
            " ",
            help,
            "\n",
        ]);
    }

    /// One series of the family begun last. Labels are given as pairs.
    pub(super) fn series(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.out.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            self.push(&[label, "=\""]);
            escape(&mut self.out, text);
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        self.push(&[
            " ",
            &value.to_string(),
            "
",
        ]);
    }

    /// A family with one series.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.series(name, &[], value);
    }

    /// Families of objects: summed to one series each, or one series per object.
    pub(super) fn objects<T>(
        &mut self,
        prefix: &str,
        columns: &[Column<T>],
        rows: &[T],
        labels: Option<Labels<T>>,
    ) {
        for (name, kind, help, read) in columns {
            let name = format!("{prefix}{name}");
            self.family(&name, *kind, help);
            match labels {
                None => self.series(&name, &[], rows.iter().map(read).sum::<u64>()),
                Some(labels) => {
                    for row in rows {
                        self.series(&name, &labels(row), read(row));
                    }
                }
            }
        }
    }

    fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.out.push_str(part));
    }
}

fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_objects_summed_or_listed() {
        let rows = [("a\"b\\c\nd", 1_u64), ("e", 2)];
        let columns: [Column<(&str, u64)>; 1] = [("things", Kind::Gauge, "Things", |row| row.1)];
        let mut page = Page::default();
        page.objects("x_", &columns, &rows, None);
        assert_eq!(
            page.finish(),
            "# TYPE x_things gauge\n# HELP x_things Things\nx_things 3\n"
        );
        let mut page = Page::default();
        page.objects("x_", &columns, &rows, Some(|row| vec![("name", row.0)]));
        let text = page.finish();
        assert!(text.contains("x_things{name=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
        assert!(text.ends_with("x_things{name=\"e\"} 2\n"), "{text}");
    }
}
