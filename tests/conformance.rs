//! The checklist of behaviours against the tests that prove them. A test names its rows in a doc comment line directly
//! above its attribute (`Proves` and a colon, then ids); `conformance/rows.txt` says what each row is and where we
//! stand; `conformance/TABLE.md` is the result, checked in, and written anew by `UPDATE_TABLE=1`
//! (with one thread, `-- --test-threads=1`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// Rows of the page on hostile input (H), faults (F) and invariants (I): tests name them, their text stays on that page.
const HOSTILE_ROWS: std::ops::RangeInclusive<u32> = 1..=99;

struct Row {
    id: String,
    section: String,
    status: String,
    behaviour: String,
}

/// A test that names rows; `test` is empty outside Rust, where a file stands for its tests.
struct Proof {
    file: String,
    test: String,
    ids: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("tests/conformance/rows.txt")).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.splitn(4, " | ").map(str::to_owned);
            let mut part = || {
                parts
                    .next()
                    .unwrap_or_else(|| panic!("a row has four parts: {line}"))
            };
            Row {
                id: part(),
                section: part(),
                status: part(),
                behaviour: part(),
            }
        })
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "node_modules", "__pycache__"].contains(&&*name) {
                sources(&path, found);
            }
        } else if [".rs", ".py", ".js", ".java", ".go"]
            .iter()
            .any(|ending| name.ends_with(ending))
        {
            found.push(path);
        }
    }
}

fn proofs() -> Vec<Proof> {
    // Put together here, so that this file names no row.
    let marker = concat!("Proves", ":");
    let mut found = Vec::new();
    for folder in ["src", "tests", "interop"] {
        sources(&root().join(folder), &mut found);
    }
    found.sort();
    let mut proofs = Vec::new();
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.strip_prefix(root()).unwrap().display().to_string();
        let mut lines = text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            let Some((before, ids)) = line.split_once(marker) else {
                continue;
            };
            if !["///", "//", "#", "*"].contains(&before.trim()) {
                continue;
            }
            let mut test = String::new();
            if file.ends_with(".rs") {
                let below = lines.clone().map(|(_, line)| line.trim());
                test = test_name(below).unwrap_or_else(|| panic!("{file}:{}: no test follows", at + 1));
                if test.is_empty() {
                    continue;
                }
            }
            proofs.push(Proof {
                file: file.clone(),
                test,
                ids: ids.split(',').map(|id| id.trim().to_owned()).collect(),
            });
        }
    }
    proofs
}

/// The name of the test that begins here: attributes and doc lines, among them a test attribute, then the function. A
/// test that is ignored proves nothing: its name is empty.
fn test_name<'a>(below: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut is_test = false;
    for line in below {
        if line.starts_with("#[ignore") {
            return Some(String::new());
        }
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, rest)) = line.split_once("fn ") {
            let name = rest.split(['(', '<']).next()?;
            return is_test.then(|| name.to_owned());
        } else if !is_test && !line.starts_with("///") && !line.starts_with("#[") {
            return None;
        }
    }
    None
}

fn is_hostile_row(id: &str) -> bool {
    id.strip_prefix(['H', 'F', 'I'])
        .and_then(|number| number.parse().ok())
        .is_some_and(|number| HOSTILE_ROWS.contains(&number))
}

/// Letter first, then by number.
fn hostile_key(id: &str) -> (char, u32) {
    let (letter, number) = id.split_at(1);
    (letter.chars().next().unwrap(), number.parse().unwrap())
}

/// The tests of each row, as the table shows them.
fn by_row(proofs: &[Proof]) -> BTreeMap<&str, Vec<String>> {
    let mut tests: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for proof in proofs {
        let shown = if proof.test.is_empty() {
            format!("`{}`", proof.file)
        } else {
            format!("`{}` {}", proof.file, proof.test)
        };
        for id in &proof.ids {
            tests.entry(id).or_default().push(shown.clone());
        }
    }
    tests
}

/// With `UPDATE_TABLE=1`, rows that a test proves since are no longer `not yet`.
fn promote(proofs: &[Proof]) {
    let path = root().join("tests/conformance/rows.txt");
    let tests = by_row(proofs);
    let text = fs::read_to_string(&path).unwrap();
    let promoted: Vec<String> = text
        .lines()
        .map(|line| match line.splitn(4, " | ").collect::<Vec<_>>()[..] {
            [id, section, status, behaviour] if status.starts_with("not yet") && tests.contains_key(id) => {
                format!("{id} | {section} | pass | {behaviour}")
            }
            _ => line.to_owned(),
        })
        .collect();
    fs::write(path, promoted.join("\n") + "\n").unwrap();
}

#[test]
fn what_the_list_claims_is_what_the_tests_name() {
    let proofs = proofs();
    if env::var_os("UPDATE_TABLE").is_some() {
        promote(&proofs);
    }
    let rows = rows();
    let tests = by_row(&proofs);
    let mut problems = Vec::new();
    for (id, named_by) in &tests {
        if !is_hostile_row(id) && !rows.iter().any(|row| row.id == *id) {
            problems.push(format!("{id} is no row: {}", named_by.join("; ")));
        }
    }
    for row in &rows {
        let proven = tests.contains_key(&*row.id);
        let reason = |kind| {
            row.status
                .strip_prefix(kind)
                .is_some_and(|reason| !reason.trim().is_empty())
        };
        if row.status == "pass" {
            if !proven {
                problems.push(format!("{} passes, says the list, but no test names it", row.id));
            }
        } else if reason("not yet:") {
            if proven {
                problems.push(format!("{} is proven, yet the list says {}", row.id, row.status));
            }
        } else if !reason("deviates:") {
            problems.push(format!("{} has no status: {}", row.id, row.status));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_table_is_up_to_date() {
    let path = root().join("tests/conformance/TABLE.md");
    let proofs = proofs();
    if env::var_os("UPDATE_TABLE").is_some() {
        promote(&proofs);
    }
    let rows = rows();
    let table = table(&rows, &by_row(&proofs));
    if env::var_os("UPDATE_TABLE").is_some() {
        fs::write(&path, &table).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == table,
        "tests/conformance/TABLE.md is stale: run this test with UPDATE_TABLE=1"
    );
}

fn table(rows: &[Row], tests: &BTreeMap<&str, Vec<String>>) -> String {
    let count = |status: &str| rows.iter().filter(|row| row.status.starts_with(status)).count();
    let mut out = String::new();
    writeln!(
        out,
        "# Conformance\n\n\
         The checklist of AMQP 0-9-1 behaviour as RabbitMQ 4.x shows it, and the tests that prove it here. Generated by \
         `tests/conformance.rs` from `rows.txt` and the tests; do not edit.\n\n\
         {} rows: {} pass, {} deviate, {} not yet.\n\n\
         | row | behaviour | status | proven by |\n|---|---|---|---|",
        rows.len(),
        count("pass"),
        count("deviates"),
        count("not yet"),
    )
    .unwrap();
    let none = Vec::new();
    for row in rows {
        let tests = tests.get(&*row.id).unwrap_or(&none).join("<br>");
        writeln!(
            out,
            "| {} | {} (§{}) | {} | {tests} |",
            row.id, row.behaviour, row.section, row.status
        )
        .unwrap();
    }
    writeln!(
        out,
        "\n## Hostile input and faults\n\n| row | proven by |\n|---|---|"
    )
    .unwrap();
    let mut hostile: Vec<_> = tests.iter().filter(|(id, _)| is_hostile_row(id)).collect();
    hostile.sort_by_key(|(id, _)| hostile_key(id));
    for (id, tests) in hostile {
        writeln!(out, "| {id} | {} |", tests.join("<br>")).unwrap();
    }
    out
}
