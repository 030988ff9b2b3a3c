//! A store whose log is damaged before its end does not open: what stands behind the damage was written, and some of it may
//! have been confirmed. This is the way on for an operator who accepts that it is lost. Everything before the damage is kept;
//! what is behind it is not replayed, for each operation builds on those before it. The files stay aside as they were.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::storage::{
    StoreError, StoreOptions,
    format::families,
    lock::DirLock,
    mark::Mark,
    rocks::{self, Rocks},
    torn::{self, Wound},
};

/// What a damaged log costs.
#[derive(Debug, PartialEq, Eq)]
pub struct Loss {
    /// The log, and where the damage begins.
    pub log: PathBuf,
    pub at: u64,
    /// From there on, and in later logs.
    pub bytes: u64,
    /// Groups of operations that are whole behind the damage, and the operations in them.
    pub groups: u64,
    pub operations: u64,
    /// Logs behind the damaged one.
    pub later: Vec<PathBuf>,
}

/// What was done.
#[derive(Debug)]
pub struct Salvaged {
    pub loss: Option<Loss>,
    /// Operations that were known to be synced and are not there: what was confirmed is among them.
    pub synced_lost: u64,
    /// Where the files are as they were.
    pub aside: PathBuf,
}

impl From<Wound> for Loss {
    fn from(wound: Wound) -> Self {
        Self {
            log: wound.log,
            at: wound.at,
            bytes: wound.behind.bytes,
            groups: wound.behind.records,
            operations: wound.behind.operations,
            later: wound.later,
        }
    }
}

/// What would be lost; `None` when the logs are whole, or torn as a power cut leaves them. Writes nothing.
///
/// # Errors
/// When there is no store, or the disk fails.
pub fn loss(data_dir: &Path) -> Result<Option<Loss>, StoreError> {
    let db = data_dir.join("db");
    if !db.join("CURRENT").exists() {
        return Err(StoreError::no_store(data_dir));
    }
    Ok(torn::wound(&db)?.map(Loss::from))
}

/// Makes the store open again, without what is behind the damage. `None` when a start has nothing against the logs.
///
/// # Errors
/// When the damage is elsewhere: in the manifest, in tables, in a store of another version. Nothing is changed then.
pub fn salvage(data_dir: &Path) -> Result<Option<Salvaged>, StoreError> {
    let options = StoreOptions::new(data_dir);
    let (db, synced) = (data_dir.join("db"), data_dir.join("synced"));
    let wound = loss(data_dir)?;
    let _lock = DirLock::take(data_dir)?;
    let names = families(&db)?;
    if names.len() != rocks::family_count() || !names.iter().all(|name| rocks::is_known_family(name)) {
        let what = "its log can only be salvaged by the version of Leveret that wrote it";
        return Err(StoreError::corrupt(&db, what));
    }
    let marked = Mark::look(&synced)?;
    if wound.is_none() {
        torn::mend(&db, data_dir)?;
        // Read only: whether the log was cut short is seen without changing anything.
        if rocks::open_to_look(&db)?.latest_sequence_number() >= marked {
            return Ok(None);
        }
    }
    let aside = aside(data_dir)?;
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |error| StoreError::from_io(&path, error)
    };
    if marked > 0 {
        keep(&synced, &aside)?;
    }
    if let Some(loss) = &wound {
        keep(&loss.log, &aside)?;
        for later in &loss.later {
            keep(later, &aside)?;
        }
        sync_dir(&aside)?;
        let file = File::options()
            .write(true)
            .open(&loss.log)
            .map_err(failed(&loss.log))?;
        file.set_len(loss.at)
            .and_then(|()| file.sync_all())
            .map_err(failed(&loss.log))?;
        for later in &loss.later {
            fs::remove_file(later).map_err(failed(later))?;
        }
        sync_dir(&db)?;
    }
    let rocks = Rocks::open_cut_short(&db, &options)?;
    // Nothing depends on the logs any more.
    rocks.flush_all().map_err(|error| rocks.error(&error))?;
    let found = rocks.db().latest_sequence_number();
    drop(rocks);
    if marked > 0 {
        fs::remove_file(&synced).map_err(failed(&synced))?;
    }
    Mark::open(&synced)?.raise(found)?;
    sync_dir(data_dir)?;
    Ok(Some(Salvaged {
        loss: wound,
        synced_lost: marked.saturating_sub(found),
        aside,
    }))
}

/// A directory that did not exist.
fn aside(data_dir: &Path) -> Result<PathBuf, StoreError> {
    let mut number = 1;
    loop {
        let dir = data_dir.join(format!("before-salvage-{number}"));
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(StoreError::from_io(&dir, error)),
        }
    }
}

/// Copies a file, safely on disk before anything happens to it.
fn keep(file: &Path, aside: &Path) -> Result<(), StoreError> {
    let copy = aside.join(file.file_name().unwrap_or_default());
    fs::copy(file, &copy)
        .and_then(|_| File::open(&copy)?.sync_all())
        .map_err(|error| StoreError::from_io(&copy, error))
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| StoreError::from_io(dir, error))
}
