//! Whether the log ends as a power cut leaves it: whole records, then something that is none, and no record behind.
//! RocksDB's careful recovery takes a log that is cut short, but not one whose last blocks were allocated and never
//! written; its trusting one takes anything and drops all that follows (hostile-input-and-faults N1). So we look ourselves.

use std::fs;
use std::path::{Path, PathBuf};

use crate::storage::StoreError;

/// Records never cross the end of a block; a longer one is written in parts.
const BLOCK: usize = 32 * 1024;
/// `[masked crc32c u32][length u16][kind u8]`, little-endian.
const HEAD: usize = 7;
const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;

/// True when only the newest log is broken, and only its end: dropping it loses nothing that a record follows. What was
/// synced may still be in it; the caller compares what is recovered with the mark.
pub(super) fn only_the_end_is_torn(db: &Path) -> Result<bool, StoreError> {
    let mut logs = logs(db)?;
    let Some(newest) = logs.pop() else {
        return Ok(false);
    };
    for log in logs {
        let bytes = read(&log)?;
        if damaged_at(&bytes).is_some_and(|damage| !damage.is_room(&bytes)) {
            return Ok(false);
        }
    }
    let bytes = read(&newest)?;
    Ok(damaged_at(&bytes).is_some_and(|damage| !has_record_behind(&bytes, damage.at)))
}

fn logs(db: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(db).map_err(|error| StoreError::from_io(db, error))?;
    let mut logs: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .collect();
    // RocksDB numbers files with leading zeros.
    logs.sort();
    Ok(logs)
}

fn read(log: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(log).map_err(|error| StoreError::from_io(log, error))
}

/// Where the first thing that is no record begins.
struct Damage {
    at: usize,
    /// The parts of a record before it are not all.
    within: bool,
}

impl Damage {
    /// No damage at all: room that was made ahead (`log_room`) and never used.
    fn is_room(&self, bytes: &[u8]) -> bool {
        !self.within && bytes.iter().skip(self.at).all(|byte| *byte == 0)
    }
}

fn damaged_at(bytes: &[u8]) -> Option<Damage> {
    let (mut at, mut within) = (0, false);
    while at < bytes.len() {
        let left = BLOCK - at % BLOCK;
        if left < HEAD {
            at += left;
            continue;
        }
        match record_at(bytes, at) {
            Some((kind, len)) => {
                at += len;
                within = matches!(kind, FIRST | MIDDLE);
            }
            None => return Some(Damage { at, within }),
        }
    }
    None
}

/// Whether a record begins anywhere behind the damage. Parts of a longer one do not count: they belong to what is torn.
fn has_record_behind(bytes: &[u8], damage: usize) -> bool {
    (damage + 1..bytes.len())
        .any(|at| record_at(bytes, at).is_some_and(|(kind, _)| matches!(kind, WHOLE | FIRST)))
}

/// Kind and length of the record that begins here, head included.
fn record_at(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let left = BLOCK - at % BLOCK;
    let (head, rest) = bytes.get(at..)?.split_at_checked(HEAD)?;
    let [c0, c1, c2, c3, l0, l1, kind] = head.try_into().ok()?;
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    if kind == 0 || HEAD + len > left {
        return None;
    }
    let payload = rest.get(..len)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    (u32::from_le_bytes([c0, c1, c2, c3]) == masked).then_some((kind, HEAD + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload);
        let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
        let len = u16::try_from(payload.len()).unwrap();
        [&masked.to_le_bytes()[..], &len.to_le_bytes(), &[kind], payload].concat()
    }

    fn torn(log: &[u8]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("000007.log"), record(WHOLE, b"older")).unwrap();
        fs::write(dir.path().join("000011.log"), log).unwrap();
        only_the_end_is_torn(dir.path()).unwrap()
    }

    #[test]
    fn an_end_of_zeros_or_junk_is_torn_and_a_hole_is_not() {
        let whole = [record(WHOLE, b"one"), record(WHOLE, &[7; 300])].concat();
        assert!(!torn(&whole), "nothing is wrong with it");
        assert!(torn(&[whole.clone(), vec![0; 500]].concat()));
        assert!(torn(&[whole.clone(), vec![0xee; 500]].concat()));
        let mut flipped = whole.clone();
        flipped[8] ^= 1;
        assert!(!torn(&flipped), "a record follows the damage");
        let mut last = whole;
        *last.last_mut().unwrap() ^= 1;
        assert!(torn(&last));
    }

    #[test]
    fn room_never_used_in_an_older_log_is_no_damage() {
        let newest = [record(WHOLE, b"one"), vec![0xee; 500]].concat();
        let torn_behind = |older: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("000007.log"), older).unwrap();
            fs::write(dir.path().join("000011.log"), &newest).unwrap();
            only_the_end_is_torn(dir.path()).unwrap()
        };
        let room = vec![0; 70_000];
        assert!(torn_behind(&[record(WHOLE, b"older"), room.clone()].concat()));
        assert!(!torn_behind(&[record(FIRST, b"a part"), room.clone()].concat()));
        assert!(!torn_behind(&[record(WHOLE, b"older"), room, vec![1]].concat()));
    }

    #[test]
    fn damage_in_an_older_log_is_no_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("000007.log"), [9; 100]).unwrap();
        fs::write(dir.path().join("000011.log"), [9; 100]).unwrap();
        assert!(!only_the_end_is_torn(dir.path()).unwrap());
    }
}
