//! A power cut: every file of the store ends where it was last synced, or somewhere in what was written behind that.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use rand::{Rng, rngs::StdRng};

type Sizes = HashMap<PathBuf, u64>;

/// The sizes of the files that only ever grow.
pub(crate) fn sizes(data: &Path) -> Sizes {
    let entries = fs::read_dir(data.join("db")).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            [".log", ".sst", ".blob"]
                .iter()
                .any(|ending| name.ends_with(ending))
                || name.starts_with("MANIFEST-")
        })
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len())))
        .collect()
}

/// Cuts the files of a killed broker. What was there `before` it started is taken for synced; `synced` is what the shim
/// wrote down. Says what was done.
pub(crate) fn cut(data: &Path, before: &Sizes, synced: &Path, random: &mut StdRng) -> String {
    let mut safe = before.clone();
    for line in fs::read_to_string(synced).unwrap_or_default().lines() {
        if let Some((len, path)) = line.split_once(' ')
            && let Ok(len) = len.parse::<u64>()
        {
            let safe = safe.entry(PathBuf::from(path)).or_default();
            *safe = len.max(*safe);
        }
    }
    let mut said = String::from("power cut:");
    let now = sizes(data);
    let newest_log = now.keys().filter(|path| is_log(path)).max().cloned();
    for (path, len) in &now {
        let kept = safe.get(path).copied().unwrap_or(0);
        let len = if is_log(path) { written(path) } else { *len };
        if kept >= len {
            continue;
        }
        let torn = newest_log.as_ref() == Some(path);
        let how = tear(path, kept, len, torn, random);
        said.push_str(&format!(
            " {} {len} -> {how};",
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    said
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "log")
}

/// The length of a log without the room that was made ahead behind it.
fn written(log: &Path) -> u64 {
    let bytes = fs::read(log).expect("a log");
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at as u64 + 1)
}

/// The file's end is gone; of the newest log some of it may be there, or space without content, or anything.
fn tear(path: &Path, kept: u64, len: u64, torn: bool, random: &mut StdRng) -> String {
    let mut file = File::options()
        .write(true)
        .open(path)
        .expect("a file of the store");
    let way = if torn { random.random_range(0..4) } else { 0 };
    let end = match way {
        0 => kept,
        _ => random.random_range(kept..=len),
    };
    file.set_len(end).expect("a cut");
    match way {
        2 => {
            file.set_len(len).expect("zeros");
            format!("{end} and zeros")
        }
        3 => {
            let mut junk = vec![0; (len - end) as usize];
            random.fill(&mut junk[..]);
            file.seek(SeekFrom::Start(end))
                .and_then(|_| file.write_all(&junk))
                .expect("junk");
            format!("{end} and junk")
        }
        _ => format!("{end}"),
    }
}
