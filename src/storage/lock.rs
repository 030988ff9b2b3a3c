//! The lock file: two brokers on one directory would destroy it. The kernel drops the lock with the process.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::Access;

use crate::storage::StoreError;

/// Holds the directory until dropped.
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Creates the directory when it is missing, and takes its lock.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|error| StoreError::from_io(dir, error))?;
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| StoreError::from_io(&path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked(dir, &mut file)),
            Err(TryLockError::Error(error)) => return Err(StoreError::from_io(&path, error)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|error| StoreError::from_io(&path, error))?;
        Ok(Self { _file: file })
    }
}

/// Whether a broker could take the directory now, or make it where it is missing. Writes nothing.
///
/// # Errors
/// [`StoreError::Locked`] or [`StoreError::NotWritable`], as a start would be refused.
pub fn holder(dir: &Path) -> Result<(), StoreError> {
    let existing = dir
        .ancestors()
        .find(|place| place.exists())
        .unwrap_or(Path::new("."));
    rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| StoreError::from_io(existing, error.into()))?;
    let path = dir.join("lock");
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::from_io(&path, error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(locked(dir, &mut file)),
        Err(TryLockError::Error(error)) => Err(StoreError::from_io(&path, error)),
    }
}

fn locked(dir: &Path, file: &mut File) -> StoreError {
    let mut text = String::new();
    // Only for the message; an owner that has not written its pid yet stays nameless.
    let pid = file
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse().ok());
    StoreError::Locked {
        dir: dir.to_path_buf(),
        pid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_and_told_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::take(dir.path()).unwrap();
        let Err(StoreError::Locked { dir: named, pid }) = DirLock::take(dir.path()) else {
            panic!("locked twice");
        };
        assert_eq!((named.as_path(), pid), (dir.path(), Some(std::process::id())));
        drop(held);
        assert!(DirLock::take(dir.path()).is_ok());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, "").unwrap();
        let error = DirLock::take(&path).err().unwrap();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
