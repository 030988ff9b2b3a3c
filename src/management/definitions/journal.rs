//! An import that was begun is kept in a file beside the store until it has ended. A broker that ends between, however,
//! finds it when it starts and carries it out then: forward and not back, because clients may have published to queues that
//! the first part made, and been told that their messages are safe.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{carry_out, difference, plan::Plan};
use crate::management::answer::ApiError;
use crate::server::Handle;

/// Imports that were begun, each a file.
const FOLDER: &str = "imports";

/// An import that is on its way.
pub(super) struct Journal {
    file: PathBuf,
}

impl Journal {
    /// Keeps what is wanted, and what of it is not there yet. On disk when this returns.
    pub(super) fn begin(
        data_dir: &Path,
        definitions: &Map<String, Value>,
        vhost: Option<&str>,
        new: &Value,
    ) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        // It may hold passwords.
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => sync_folder(data_dir)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let number: u64 = rand::random();
        let unfinished = folder.join(format!("{number:016x}.unfinished"));
        let file = folder.join(format!("{number:016x}.json"));
        let begun = json!({"vhost": vhost, "definitions": definitions, "new": new});
        let written = write(&unfinished, &begun).and_then(|()| fs::rename(&unfinished, &file));
        if let Err(error) = written.and_then(|()| sync_folder(&folder)) {
            // What is left of it is no import.
            drop(fs::remove_file(&unfinished));
            drop(fs::remove_file(&file));
            return Err(error);
        }
        Ok(Self { file })
    }

    /// It has ended, one way or the other: it must not happen again.
    pub(super) fn end(self) -> io::Result<()> {
        fs::remove_file(&self.file)?;
        self.file.parent().map_or(Ok(()), sync_folder)
    }
}

fn write(file: &Path, value: &Value) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    file.write_all(value.to_string().as_bytes())?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Carries out what was begun when the broker last ended. For a thread that may wait.
///
/// # Errors
/// When the files cannot be read or removed. An import that is refused now is undone and only logged.
pub(super) fn finish(handle: &Handle, data_dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(data_dir.join(FOLDER)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "json") {
            match finish_one(handle, &fs::read(&file)?) {
                Ok(()) => tracing::info!("an import of definitions that was interrupted is complete"),
                Err(error) => {
                    tracing::error!(%error, "an import of definitions that was interrupted is undone")
                }
            }
        }
        fs::remove_file(&file)?;
    }
    sync_folder(&data_dir.join(FOLDER))
}

fn finish_one(handle: &Handle, bytes: &[u8]) -> Result<(), ApiError> {
    let begun: Value =
        serde_json::from_slice(bytes).map_err(|error| ApiError::internal(error.to_string()))?;
    let vhost = begun.get("vhost").and_then(Value::as_str);
    let empty = Map::new();
    let definitions = begun.get("definitions").and_then(Value::as_object);
    let plan = Plan::read(definitions.unwrap_or(&empty), vhost)?;
    let made = Made::of(begun.get("new").unwrap_or(&Value::Null));
    carry_out::carry_out(handle, plan, &made)
}

/// What an import that was interrupted found missing, and may have made since: undoing it takes that away too.
#[derive(Default)]
pub(super) struct Made(HashSet<String>);

impl Made {
    fn of(new: &Value) -> Self {
        let categories = new.as_object().into_iter().flatten();
        let objects = categories.flat_map(|(category, objects)| {
            let objects = objects.as_array().into_iter().flatten();
            objects.map(move |object| format!("{category} {object}"))
        });
        Self(objects.collect())
    }

    /// `object` as [`difference`] names it.
    pub(super) fn has(&self, category: &str, object: impl FnOnce() -> Value) -> bool {
        !self.0.is_empty() && self.0.contains(&format!("{category} {}", object()))
    }
}

/// Carries a checked plan out so that it happens whole or not at all, whenever the broker ends.
///
/// # Errors
/// Why a step failed, or that the journal could not be kept; then nothing is done.
pub(super) fn carry_out(
    handle: &Handle,
    data_dir: &Path,
    definitions: &Map<String, Value>,
    vhost: Option<&str>,
    plan: Plan,
) -> Result<(), ApiError> {
    let unkept = |error: io::Error| {
        tracing::error!(%error, "the journal of an import");
        ApiError::unavailable("the import cannot be kept on disk; see the broker's log")
    };
    let new = difference::new(&plan, handle);
    let journal = Journal::begin(data_dir, definitions, vhost, &new).map_err(unkept)?;
    let result = carry_out::carry_out(handle, plan, &Made::default());
    journal.end().map_err(unkept)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_there_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let definitions = json!({"queues": [{"name": "q", "vhost": "/"}]});
        let begin = || {
            Journal::begin(
                dir.path(),
                definitions.as_object().unwrap(),
                Some("v"),
                &json!({}),
            )
            .unwrap()
        };
        let (first, second) = (begin(), begin());
        let files = || fs::read_dir(dir.path().join(FOLDER)).unwrap().count();
        assert_eq!(files(), 2);
        let kept: Value = serde_json::from_slice(&fs::read(&first.file).unwrap()).unwrap();
        assert_eq!(kept["definitions"], definitions);
        assert_eq!(kept["vhost"], "v");
        first.end().unwrap();
        second.end().unwrap();
        assert_eq!(files(), 0);
    }

    #[test]
    fn what_was_missing_is_known_by_its_name() {
        let made = Made::of(&json!({"users": ["alice"], "queues": [{"vhost": "/", "name": "q"}]}));
        assert!(made.has("users", || json!("alice")));
        assert!(made.has("queues", || json!({"name": "q", "vhost": "/"})));
        assert!(!made.has("exchanges", || json!({"name": "q", "vhost": "/"})));
        assert!(!Made::default().has("users", || json!("alice")));
    }
}
