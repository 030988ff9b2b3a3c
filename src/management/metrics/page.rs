//! The text format of Prometheus, version 0.0.4: each family once, its series together, labels escaped. A page is written
//! piece by piece to whoever takes it, so that its length, a line for every number of every object, is never held.

use std::fmt::{Display, Write};

use smallvec::SmallVec;

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

/// Labels with their values.
pub(super) type LabelList<'a> = SmallVec<[(&'static str, &'a str); 4]>;

/// The labels of an object.
pub(super) type Labels<K> = for<'a> fn(&'a K) -> LabelList<'a>;

/// Takes pieces of the page; false when nobody wants the rest.
pub(super) trait Taker {
    fn take(&mut self, piece: String) -> bool;
}

/// A page that is wanted whole.
impl Taker for String {
    fn take(&mut self, piece: String) -> bool {
        self.push_str(&piece);
        true
    }
}

/// Pieces are about this long.
const PIECE_BYTES: usize = 64 * 1024;
/// Room for the line that completes a piece.
const LINE_BYTES: usize = 2048;

/// The labels of many objects, one after another as they stand in the page: written once for all families of the objects,
/// and read in the order in which they lie in memory.
#[derive(Default)]
struct Written {
    text: String,
    ends: Vec<usize>,
}

impl Written {
    fn add(&mut self, labels: &[(&str, &str)]) {
        write_labels(&mut self.text, labels);
        self.ends.push(self.text.len());
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .filter_map(|(start, end)| self.text.get(start..*end))
    }
}

/// A page being written.
pub(super) struct Page<'a> {
    piece: String,
    taker: &'a mut dyn Taker,
    wanted: bool,
}

/// Numbers of many objects, seven bits an octet: most are 0 or small, and there are millions.
#[derive(Clone, Default)]
struct Values(Vec<u8>);

const MORE: u8 = 0x80;

impl Values {
    fn add(&mut self, mut value: u64) {
        while let [low, ..] = value.to_le_bytes()
            && value >= MORE.into()
        {
            self.0.push(low | MORE);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.0.push(low);
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        let mut octets = self.0.iter();
        std::iter::from_fn(move || {
            let (mut value, mut shift) = (0, 0);
            loop {
                let octet = *octets.next()?;
                value |= u64::from(octet & !MORE) << shift;
                shift += 7;
                if octet & MORE == 0 {
                    return Some(value);
                }
            }
        })
    }
}

impl<'a> Page<'a> {
    pub(super) fn to(taker: &'a mut dyn Taker) -> Self {
        Self {
            piece: String::with_capacity(PIECE_BYTES + LINE_BYTES),
            taker,
            wanted: true,
        }
    }

    /// Gives away what is left.
    pub(super) fn finish(mut self) {
        self.give();
    }

    fn give(&mut self) {
        let next = String::with_capacity(PIECE_BYTES + LINE_BYTES);
        let piece = std::mem::replace(&mut self.piece, next);
        self.wanted = self.wanted && self.taker.take(piece);
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
    pub(super) fn series(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.piece.push_str(name);
        write_labels(&mut self.piece, labels);
        // Writing to a string cannot fail.
        writeln!(self.piece, " {value}").unwrap_or_default();
        self.give_when_long();
    }

    /// As [`Page::series`], with labels that are written already.
    fn line(&mut self, name: &str, labels: &str, value: u64) {
        let mut digits = itoa::Buffer::new();
        self.push(&[name, labels, " ", digits.format(value), "\n"]);
        self.give_when_long();
    }

    fn give_when_long(&mut self) {
        if self.piece.len() >= PIECE_BYTES {
            self.give();
        }
    }

    /// A family with one series.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.series(name, &[], value);
    }

    /// Families of objects, summed to one series each.
    pub(super) fn sums<T>(&mut self, prefix: &str, columns: &[Column<T>], rows: impl Iterator<Item = T>) {
        let mut sums = vec![0_u64; columns.len()];
        for row in rows {
            for (sum, (.., read)) in sums.iter_mut().zip(columns) {
                *sum = sum.saturating_add(read(&row));
            }
        }
        for ((name, kind, help, _), sum) in columns.iter().zip(sums) {
            self.single(&format!("{prefix}{name}"), *kind, help, sum);
        }
    }

    /// Families of objects, one series per object. An object is looked at once; only its numbers and its labels are kept
    /// until its last family is written.
    pub(super) fn objects<K, T>(
        &mut self,
        prefix: &str,
        columns: &[Column<T>],
        rows: impl Iterator<Item = (K, T)>,
        labels: Labels<K>,
    ) {
        let mut written = Written::default();
        let mut families = vec![Values::default(); columns.len()];
        for (name, row) in rows {
            written.add(&labels(&name));
            for (values, (.., read)) in families.iter_mut().zip(columns) {
                values.add(read(&row));
            }
        }
        for ((name, kind, help, _), values) in columns.iter().zip(families) {
            let name = format!("{prefix}{name}");
            self.family(&name, *kind, help);
            for (labels, value) in written.iter().zip(values.iter()) {
                self.line(&name, labels, value);
                if !self.wanted {
                    return;
                }
            }
        }
    }

    fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.piece.push_str(part));
    }
}

fn write_labels(out: &mut String, labels: &[(&str, &str)]) {
    for (at, (label, text)) in labels.iter().enumerate() {
        out.push(if at == 0 { '{' } else { ',' });
        out.push_str(label);
        out.push_str("=\"");
        escape(out, text);
        out.push('"');
    }
    if !labels.is_empty() {
        out.push('}');
    }
}

fn escape(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut characters = special.chars();
        match characters.next() {
            Some('\n') => out.push_str("\\n"),
            Some(other) => out.extend(['\\', other]),
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column<u64>; 2] = [
        ("things", Kind::Gauge, "Things", |row| *row),
        ("twice", Kind::Counter, "Twice", |row| 2 * *row),
    ];

    #[test]
    fn numbers_of_any_size_are_kept() {
        let numbers = [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ];
        let mut values = Values::default();
        numbers.iter().for_each(|number| values.add(*number));
        assert_eq!(values.iter().collect::<Vec<_>>(), numbers);
    }

    #[test]
    fn objects_are_summed() {
        let mut text = String::new();
        let mut page = Page::to(&mut text);
        page.sums("x_", &COLUMNS, [1, 2].into_iter());
        page.finish();
        assert_eq!(
            text,
            "# TYPE x_things gauge\n# HELP x_things Things\nx_things 3\n\
             # TYPE x_twice counter\n# HELP x_twice Twice\nx_twice 6\n"
        );
    }

    #[test]
    fn objects_are_listed_family_by_family_and_labels_escaped() {
        let rows = [("a\"b\\c\nd", 1_u64), ("e", 2)];
        let mut text = String::new();
        let mut page = Page::to(&mut text);
        page.objects("x_", &COLUMNS, rows.into_iter(), |name| {
            LabelList::from_iter([("name", *name)])
        });
        page.finish();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                r#"x_things{name="a\"b\\c\nd"} 1"#,
                r#"x_things{name="e"} 2"#,
                r#"x_twice{name="a\"b\\c\nd"} 2"#,
                r#"x_twice{name="e"} 4"#,
            ]
        );
    }

    #[test]
    fn nothing_long_is_held_and_nothing_written_that_nobody_wants() {
        #[derive(Default)]
        struct Twice {
            pieces: Vec<usize>,
        }
        impl Taker for Twice {
            fn take(&mut self, piece: String) -> bool {
                self.pieces.push(piece.len());
                self.pieces.len() < 2
            }
        }
        let mut twice = Twice::default();
        let mut page = Page::to(&mut twice);
        page.objects("x_", &COLUMNS, (0..100_000_u64).map(|n| (n, n)), |_| {
            LabelList::from_iter([("name", "x")])
        });
        page.finish();
        assert_eq!(twice.pieces.len(), 2);
        assert!(twice.pieces.iter().all(|len| *len < PIECE_BYTES + 100));
    }
}
