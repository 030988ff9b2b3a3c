//! A copy of the whole store at one moment, taken while it serves: RocksDB's checkpoint, hard links where it can. The copy is
//! itself a data directory.

use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rocksdb::checkpoint::Checkpoint;

use crate::storage::{StoreError, lock::DirLock, rocks::Rocks};

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

/// Puts a backup where a broker looks for its data. A store that is there already is refused, or with `replace` kept beside
/// the new one; gives where. The files get the owner of the directory, so that root can restore for the broker's user.
/// Whatever this is cut off by, the directory has its old store or the whole of the new one, and the same call goes through
/// afterwards.
///
/// # Errors
/// When the backup is none, a broker runs on the target, it has a store, or the disk fails.
pub fn restore(backup: &Path, target: &Path, replace: bool) -> Result<Option<PathBuf>, StoreError> {
    if !backup.join("db/CURRENT").exists() {
        return Err(StoreError::NoBackup {
            path: backup.to_path_buf(),
        });
    }
    let failed = |error| StoreError::from_io(target, error);
    let _lock = DirLock::take(target)?;
    let db = target.join("db");
    if db.exists() && !replace {
        let what = "it is not empty: there is a store in it; --replace keeps that beside the restored one, or choose another \
                    directory";
        return Err(StoreError::Io {
            path: target.to_path_buf(),
            what: what.to_owned(),
        });
    }
    let part = target.join("db.part");
    if part.exists() {
        // Of a restore that was cut off.
        fs::remove_dir_all(&part).map_err(failed)?;
    }
    copy_files(&backup.join("db"), &part)?;
    // Renamed when whole: a restore that was cut off is never taken for a store.
    let aside = put_aside(target).map_err(failed)?;
    fs::rename(&part, &db)
        .and_then(|()| fs::File::open(target)?.sync_all())
        .and_then(|()| give_to_owner(target))
        .map_err(failed)?;
    Ok(aside)
}

/// Moves a store, and the mark of how far it was synced, into a data directory of their own inside of this one.
fn put_aside(target: &Path) -> io::Result<Option<PathBuf>> {
    let parts = ["db", "synced"].map(|name| (target.join(name), name));
    if !parts.iter().any(|(path, _)| path.exists()) {
        return Ok(None);
    }
    let mut number = 1_u32;
    let aside = loop {
        let name = target.join(format!("replaced-{number}"));
        if !name.exists() {
            break name;
        }
        number += 1;
    };
    fs::create_dir(&aside)?;
    for (path, name) in parts {
        if path.exists() {
            fs::rename(path, aside.join(name))?;
        }
    }
    fs::File::open(&aside)?.sync_all()?;
    Ok(Some(aside))
}

/// Gives the files of a data directory to its owner: what root did to a store, the broker's user can go on with. Every
/// offline tool ends with it.
///
/// # Errors
/// The file system's.
pub fn give_to_owner(dir: &Path) -> io::Result<()> {
    let owner = match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_folder = entry.file_type()?.is_dir();
        if is_folder && (name == "db" || name == "db.part") {
            for file in fs::read_dir(entry.path())? {
                files.push(file?.path());
            }
        }
        if name == "lock" || name == "synced" || is_folder && name != "lost+found" {
            files.push(entry.path());
        }
    }
    for path in files {
        // Links are not followed: they may lead to what is none of the owner's.
        let found = fs::symlink_metadata(&path)?;
        if (found.uid(), found.gid()) != (owner.uid(), owner.gid()) {
            lchown(&path, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> Result<(), StoreError> {
    let copy = || -> io::Result<()> {
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
