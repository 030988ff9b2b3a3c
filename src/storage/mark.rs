//! The high-water mark: a small file beside the database that says how far it was known to be synced. RocksDB opens a
//! log that was cleanly cut short without a word; the mark turns that into a refusal (hostile-input-and-faults N1).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::storage::{
    StoreError,
    codec::{is_sealed, seal},
};

/// `[sequence u64][crc32c u32]`. Two slots, written in turn, in different sectors: a torn write spoils one.
const SLOT: usize = 12;
const CHECKSUM_AT: usize = 8;
const SLOT_DISTANCE: u64 = 4096;

/// The open mark file.
pub(super) struct Mark {
    file: File,
    path: PathBuf,
    sequence: u64,
    next_slot: u64,
    /// When it was last written before this start.
    written: Option<SystemTime>,
}

impl Mark {
    /// Opens or creates the file and reads the highest sequence it holds, 0 when it holds none.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| StoreError::from_io(path, error))?;
        let metadata = file
            .metadata()
            .map_err(|error| StoreError::from_io(path, error))?;
        let slots = [read_slot(&file, 0), read_slot(&file, 1)];
        let (next_slot, sequence) = if slots[0] >= slots[1] {
            (1, slots[0])
        } else {
            (0, slots[1])
        };
        Ok(Self {
            file,
            path: path.to_path_buf(),
            sequence: sequence.unwrap_or(0),
            next_slot,
            written: metadata.modified().ok(),
        })
    }

    /// The highest sequence of a file that may be missing; writes nothing.
    pub(super) fn look(path: &Path) -> Result<u64, StoreError> {
        match File::open(path) {
            Ok(file) => Ok(read_slot(&file, 0).max(read_slot(&file, 1)).unwrap_or(0)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(StoreError::from_io(path, error)),
        }
    }

    pub(super) fn written(&self) -> Option<SystemTime> {
        self.written.filter(|_| self.sequence > 0)
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Records that everything up to `sequence` is synced. Synced itself.
    pub(super) fn raise(&mut self, sequence: u64) -> Result<(), StoreError> {
        if sequence <= self.sequence {
            return Ok(());
        }
        let mut slot = [0; SLOT];
        let (number, _) = slot.split_at_mut(CHECKSUM_AT);
        number.copy_from_slice(&sequence.to_le_bytes());
        seal(&mut slot, CHECKSUM_AT);
        self.file
            .write_all_at(&slot, self.next_slot * SLOT_DISTANCE)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| StoreError::from_io(&self.path, error))?;
        self.sequence = sequence;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

fn read_slot(file: &File, slot: u64) -> Option<u64> {
    let mut bytes = [0; SLOT];
    file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE).ok()?;
    if !is_sealed(&bytes, CHECKSUM_AT) {
        return None;
    }
    bytes.first_chunk::<8>().map(|number| u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_mark_survives_and_a_torn_one_leaves_the_older() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("synced");
        let mut mark = Mark::open(&path).unwrap();
        assert_eq!(mark.sequence(), 0);
        for sequence in [5, 9, 7] {
            mark.raise(sequence).unwrap();
        }
        assert_eq!(Mark::open(&path).unwrap().sequence(), 9);
        let mut mark = Mark::open(&path).unwrap();
        mark.raise(12).unwrap();
        assert_eq!(Mark::open(&path).unwrap().sequence(), 12);
        // 5 went to the second slot, 9 to the first, 12 to the second.
        mark.file.write_all_at(&[0xff], SLOT_DISTANCE + 3).unwrap();
        assert_eq!(Mark::open(&path).unwrap().sequence(), 9);
    }
}
