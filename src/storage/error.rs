//! What can go wrong between the broker and its disk. The server maps [`StoreError`] to exit codes and log lines.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the store. Every variant names the file or directory an operator has to look at.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process works on this directory.
    #[error("data directory {} is in use by another process{}", dir.display(), pid_text(*pid))]
    Locked {
        dir: PathBuf,
        /// The owner, when the lock file tells it.
        pid: Option<u32>,
    },
    /// The directory cannot be created or written.
    #[error("data directory {} is not writable: {source}", path.display())]
    NotWritable { path: PathBuf, source: io::Error },
    /// Written by a version of Leveret this one does not know.
    #[error("{} holds store format {found}; this version reads format {supported}", dir.display())]
    UnknownFormat {
        dir: PathBuf,
        found: u32,
        supported: u32,
    },
    /// The bytes on disk are not what was written.
    #[error("damaged data in {}: {what}", path.display())]
    Corrupt { path: PathBuf, what: String },
    /// A file that must be there is not.
    #[error("{} is missing: {what}", path.display())]
    Missing { path: PathBuf, what: String },
    /// What was to be restored is no copy of a store.
    #[error("{} is no backup: it has no db/CURRENT", path.display())]
    NoBackup { path: PathBuf },
    /// The file system has no room left.
    #[error("no space left for {}: {what}", path.display())]
    Full { path: PathBuf, what: String },
    /// Any other failure of the disk or of the file system.
    #[error("{}: {what}", path.display())]
    Io { path: PathBuf, what: String },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl StoreError {
    /// A file operation that failed, sorted by what an operator can do about it.
    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, source }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full {
                path,
                what: source.to_string(),
            },
            _ => Self::Io {
                path,
                what: source.to_string(),
            },
        }
    }

    /// An answer of RocksDB. Its messages carry the file they speak of; `path` is the database.
    pub(crate) fn from_rocks(path: &Path, error: &rocksdb::Error) -> Self {
        let what = error.as_ref().to_owned();
        let path = path.to_path_buf();
        match error.kind() {
            _ if what.contains("No such file or directory") => Self::Missing {
                path: missing_file(&path, &what),
                what,
            },
            rocksdb::ErrorKind::Corruption => Self::Corrupt { path, what },
            _ if is_full(error) => Self::Full { path, what },
            _ => Self::Io { path, what },
        }
    }

    /// A directory that ought to hold a store and does not.
    pub(crate) fn no_store(dir: &Path) -> Self {
        Self::Missing {
            path: dir.join("db/CURRENT"),
            what: "there is no store here".to_owned(),
        }
    }

    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }
}

/// The file RocksDB speaks of, which it names in full or, in tables, by `/` and its name; else the database.
fn missing_file(db: &Path, what: &str) -> PathBuf {
    let words = what.split([' ', ':', ',', '"', '\'']);
    let named = words
        .filter(|word| word.starts_with('/'))
        .map(|word| {
            let path = Path::new(word);
            if path.starts_with(db) {
                path.to_path_buf()
            } else {
                db.join(word.trim_start_matches('/'))
            }
        })
        .find(|path| path.parent() == Some(db) && !path.exists());
    named.unwrap_or_else(|| db.to_path_buf())
}

/// Whether RocksDB failed for want of space, the one write error that time may mend (storage-design B11).
pub(crate) fn is_full(error: &rocksdb::Error) -> bool {
    let text: &str = error.as_ref();
    text.contains("No space left") || text.contains("Disk quota exceeded") || text.contains("Out of space")
}

/// Why something that waited for the disk was not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreFailure {
    /// A write or sync failed; nothing later will be stored either.
    #[error("the store failed and takes no more writes")]
    Failed,
    /// The store was closed before the operation reached it.
    #[error("the store is closed")]
    Closed,
}
