//! The tree's own rules, which the compiler does not check: which way dependencies point, and how long a file may be.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The layers in the order in which they may use each other.
const LAYERS: [&str; 6] = ["protocol", "broker", "storage", "auth", "server", "management"];
const LINES_MAX: usize = 600;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    assert!(!found.is_empty(), "{folder} holds no Rust file");
    found
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn a_layer_uses_only_those_before_it() {
    for (at, layer) in LAYERS.iter().enumerate() {
        for (path, text) in sources(&format!("src/{layer}")) {
            for later in LAYERS.iter().skip(at + 1).chain(&["config"]) {
                let import = format!("crate::{later}::");
                assert!(!text.contains(&import), "{} uses {import}", path.display());
            }
        }
    }
}

#[test]
fn the_core_knows_no_task_no_file_and_no_clock() {
    for layer in ["src/protocol", "src/broker"] {
        for (path, text) in sources(layer) {
            for word in [
                "tokio::",
                "rocksdb::",
                "std::fs",
                "std::net",
                "Instant::now",
                "SystemTime::now",
            ] {
                assert!(!text.contains(word), "{} names {word}", path.display());
            }
        }
    }
}

#[test]
fn only_the_protocol_layer_names_nom() {
    for layer in LAYERS.iter().skip(1) {
        for (path, text) in sources(&format!("src/{layer}")) {
            assert!(
                !text.contains("nom::") && !text.contains("amq_protocol"),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn files_stay_readable() {
    for (path, text) in sources("src") {
        let lines = text.lines().count();
        assert!(
            lines <= LINES_MAX,
            "{} has {lines} lines: look for the second noun inside",
            path.display()
        );
        for word in ["todo!(", "unimplemented!(", "dbg!("] {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}
