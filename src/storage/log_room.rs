//! Room ahead in the log: zeros behind the end of RocksDB's newest log file, which its next records overwrite. A sync of
//! blocks that are in use already costs 0.17 ms here and one of a file that grows 0.25 ms, because the file system has
//! nothing to put into its journal. Only small groups get it: for large ones writing twice costs more than it saves.
//!
//! What RocksDB finds behind its last record is what it knows from mapped files, a record of no kind and no length, and it
//! reads on to the file's end (`log_reader.cc`, `kZeroType`). When it closes a log it cuts off what it did not write. The
//! committer's thread calls, the only one that writes to the log: what was there when it looked at the size is there
//! still. Should another thread begin a new log meanwhile, the old one has zeros behind its end for ever, which do no harm.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// So much is written at once.
const ROOM: usize = 256 * 1024;
/// With less left there is more to come.
const LOW: usize = 16 * 1024;
/// A larger batch is no small one.
const SMALL: usize = 16 * 1024;
/// So many small synced batches without a large one between them: a publisher who waits for each confirm.
const SMALL_BATCHES: u32 = 64;
/// What RocksDB adds to each batch, about.
const RECORD_HEAD: usize = 7;

pub(super) struct LogRoom {
    /// Where the logs are.
    dir: PathBuf,
    log: Option<(u64, File)>,
    /// About so many zeros are left.
    left: usize,
    small_batches: u32,
}

impl LogRoom {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            log: None,
            left: 0,
            small_batches: 0,
        }
    }

    /// A batch of this size went to the log.
    pub(super) fn wrote(&mut self, bytes: usize, synced: bool) {
        self.left = self.left.saturating_sub(bytes + RECORD_HEAD);
        if bytes > SMALL {
            self.small_batches = 0;
        } else if synced {
            self.small_batches = self.small_batches.saturating_add(1);
        }
    }

    /// More room is wanted.
    pub(super) fn is_low(&self) -> bool {
        self.small_batches >= SMALL_BATCHES && self.left < LOW
    }

    /// Makes room, unsynced. An error is no loss: the log grows as it would anyway, and whoever writes to it next will be
    /// told what is wrong with the disk.
    pub(super) fn make(&mut self) {
        if let Err(error) = self.write_zeros() {
            tracing::debug!(%error, "no room was made in the log");
            self.small_batches = 0;
        }
    }

    fn write_zeros(&mut self) -> io::Result<()> {
        let newest = newest_log(&self.dir)?;
        let (number, path) = newest.ok_or(io::ErrorKind::NotFound)?;
        let known = self.log.take().filter(|(known, _)| *known == number);
        let log = match known {
            Some((_, log)) => log,
            None => File::options().write(true).open(path)?,
        };
        log.write_all_at(&vec![0; ROOM], log.metadata()?.len())?;
        self.log = Some((number, log));
        self.left += ROOM;
        Ok(())
    }
}

fn newest_log(dir: &Path) -> io::Result<Option<(u64, PathBuf)>> {
    let logs = fs::read_dir(dir)?.flatten().filter_map(|entry| {
        let path = entry.path();
        let is_log = path.extension().is_some_and(|ending| ending == "log");
        let number = path.file_stem()?.to_str()?.parse().ok()?;
        is_log.then_some((number, path))
    });
    Ok(logs.max())
}
