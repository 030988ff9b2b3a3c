//! A copy of the whole store at one moment, taken while it serves: RocksDB's checkpoint, hard links where it can. The copy is
//! itself a data directory.

use std::fs;
use std::path::Path;

use rocksdb::checkpoint::Checkpoint;

use crate::storage::{StoreError, rocks::Rocks};

/// Makes `target`, which must not exist, a data directory that holds what was confirmed before this call.
pub(super) fn take(rocks: &Rocks, target: &Path) -> Result<(), StoreError> {
    fs::create_dir(target).map_err(|error| StoreError::from_io(target, error))?;
    Checkpoint::new(rocks.db())
        .and_then(|checkpoint| checkpoint.create_checkpoint(target.join("db")))
        .map_err(|error| StoreError::from_rocks(target, &error))?;
    // The links must be there after a power cut, too.
    fs::File::open(target)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| StoreError::from_io(target, error))
}

/// Puts a backup where a broker looks for its data: `target` must be empty or not exist.
///
/// # Errors
/// When the backup is none, the target holds something, or the disk fails.
pub fn restore(backup: &Path, target: &Path) -> Result<(), StoreError> {
    if !backup.join("db/CURRENT").exists() {
        return Err(StoreError::Missing {
            path: backup.join("db/CURRENT"),
            what: "this is no backup".to_owned(),
        });
    }
    fs::create_dir_all(target).map_err(|error| StoreError::from_io(target, error))?;
    let mut entries = fs::read_dir(target).map_err(|error| StoreError::from_io(target, error))?;
    if entries.next().is_some() {
        let what = "it is not empty; move its content away or choose another directory".to_owned();
        return Err(StoreError::Io {
            path: target.to_path_buf(),
            what,
        });
    }
    let part = target.join("db.part");
    copy_files(&backup.join("db"), &part)?;
    // Renamed when whole: a restore that was cut off is never taken for a store.
    fs::rename(&part, target.join("db"))
        .and_then(|()| fs::File::open(target)?.sync_all())
        .map_err(|error| StoreError::from_io(target, error))
}

fn copy_files(from: &Path, to: &Path) -> Result<(), StoreError> {
    let copy = || -> std::io::Result<()> {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let target = to.join(entry?.file_name());
            let source = from.join(target.file_name().unwrap_or_default());
            fs::copy(source, &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
        fs::File::open(to)?.sync_all()
    };
    copy().map_err(|error| StoreError::from_io(to, error))
}
