//! Whether the log ends as a power cut leaves it: whole records, then something that is none, and no record behind.
//! RocksDB's careful recovery takes a log that is cut short, but not one whose last blocks were allocated and never
//! written; its trusting one takes anything and drops all that follows (hostile-input-and-faults N1). Both read for ever
//! where a byte that is no record's looks like the head of a recycled one. So we look ourselves, before RocksDB does.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::storage::StoreError;

/// Records never cross the end of a block; a longer one is written in parts.
const BLOCK: usize = 32 * 1024;
/// `[masked crc32c u32][length u16][kind u8]`, little-endian.
const HEAD: usize = 7;
const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// The newest log's end that no write completed.
pub(super) struct TornEnd {
    log: PathBuf,
    at: u64,
    rest: Vec<u8>,
}

/// Reads every log that RocksDB is going to read.
///
/// # Errors
/// [`StoreError::Corrupt`], with the place, for any damage but a torn end; or the disk's failure.
pub(super) fn look(db: &Path) -> Result<Option<TornEnd>, StoreError> {
    if let Some(manifest) = manifest(db)?
        && let Some(Damage { at, cut: false, .. }) = damage(&manifest)?
    {
        return Err(StoreError::corrupt(&manifest, format!("no record at byte {at}")));
    }
    let mut logs = logs(db)?;
    let Some(newest) = logs.pop() else {
        return Ok(None);
    };
    for log in logs {
        // One that ends in half a record is RocksDB's to judge: the manifest knows how much of it was synced. Space behind
        // whole records was made ahead and never used.
        if let Some(Damage {
            at,
            cut: false,
            within,
        }) = damage(&log)?
            && (within || !is_space(&read_from(&log, at)?))
        {
            return Err(StoreError::corrupt(&log, format!("no record at byte {at}")));
        }
    }
    match damage(&newest)? {
        None | Some(Damage { cut: true, .. }) => Ok(None),
        Some(Damage { at, .. }) => {
            let rest = read_from(&newest, at)?;
            if has_record_behind(&rest, at) {
                let what = format!("no record at byte {at}, but behind it: confirmed messages would be lost");
                return Err(StoreError::corrupt(&newest, what));
            }
            Ok(Some(TornEnd {
                log: newest,
                at,
                rest,
            }))
        }
    }
}

impl TornEnd {
    /// RocksDB has no trouble with space.
    pub(super) fn is_space(&self) -> bool {
        is_space(&self.rest)
    }
}

/// [`look`], and a torn end is cut off and kept in `aside`. It was never synced, hence never confirmed; the caller compares
/// what is recovered with the mark, which tells if that was not so.
///
/// # Errors
/// Those of [`look`].
pub(super) fn mend(db: &Path, aside: &Path) -> Result<(), StoreError> {
    match look(db)? {
        Some(end) => cut(&end, aside),
        None => Ok(()),
    }
}

/// A log that is damaged before its end.
pub(super) struct Wound {
    pub(super) log: PathBuf,
    pub(super) at: u64,
    pub(super) behind: Behind,
    /// Logs that follow it, whose records build on what is lost.
    pub(super) later: Vec<PathBuf>,
}

/// What stands behind a damage.
#[derive(Default)]
pub(super) struct Behind {
    pub(super) bytes: u64,
    /// That begin there and are whole, and the operations in them.
    pub(super) records: u64,
    pub(super) operations: u64,
}

/// The damage that [`look`] refuses a log for, if any.
///
/// # Errors
/// When the disk fails.
pub(super) fn wound(db: &Path) -> Result<Option<Wound>, StoreError> {
    let logs = logs(db)?;
    for (number, log) in logs.iter().enumerate() {
        let Some(Damage {
            at,
            cut: false,
            within,
        }) = damage(log)?
        else {
            continue;
        };
        let rest = read_from(log, at)?;
        let later = logs.get(number + 1..).unwrap_or_default().to_vec();
        let refused = if later.is_empty() {
            has_record_behind(&rest, at)
        } else {
            within || !is_space(&rest)
        };
        if !refused {
            continue;
        }
        let mut behind = Behind::default();
        behind.count(&rest, at);
        for log in &later {
            behind.count(&read_from(log, 0)?, 0);
        }
        let log = log.clone();
        return Ok(Some(Wound {
            log,
            at,
            behind,
            later,
        }));
    }
    Ok(None)
}

impl Behind {
    /// Adds what these bytes hold, which begin at `start` of their file.
    fn count(&mut self, bytes: &[u8], start: u64) {
        self.bytes += bytes.len() as u64;
        let mut at = 0;
        while at < bytes.len() {
            match begins_record(bytes, start, at) {
                Some((len, payload)) => {
                    self.records += 1;
                    // A batch: `[sequence u64][operations u32]`, little-endian.
                    let operations = payload.get(8..12).and_then(|count| count.try_into().ok());
                    self.operations += u64::from(operations.map_or(0, u32::from_le_bytes));
                    at += len;
                }
                None => at += 1,
            }
        }
    }
}

/// The first thing that is no record.
struct Damage {
    at: u64,
    /// The file ends within it.
    cut: bool,
    /// The parts of a record before it are not all.
    within: bool,
}

/// Keeps the torn end, unless it is empty space, and cuts the log before it.
fn cut(TornEnd { log, at, rest }: &TornEnd, aside: &Path) -> Result<(), StoreError> {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    let kept = aside.join(format!("torn-end-of-{name}"));
    if !is_space(rest) {
        fs::write(&kept, rest).map_err(|error| StoreError::from_io(&kept, error))?;
        tracing::warn!(
            "the log {} ends in the middle of a write, as after a power cut: that end, never confirmed, is now in {}, which \
             can be deleted",
            log.display(),
            kept.display()
        );
    } else {
        tracing::debug!(
            "the log {} ends in space that was never written: it is cut off",
            log.display()
        );
    }
    OpenOptions::new()
        .write(true)
        .open(log)
        .and_then(|file| file.set_len(*at).and_then(|()| file.sync_all()))
        .map_err(|error| StoreError::from_io(log, error))
}

/// Allocated, or made ahead, and never written.
fn is_space(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The manifest in use.
fn manifest(db: &Path) -> Result<Option<PathBuf>, StoreError> {
    let current = db.join("CURRENT");
    let name = match fs::read(&current) {
        Ok(name) => name,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::from_io(&current, error)),
    };
    let name = String::from_utf8_lossy(&name).trim_end().to_owned();
    let manifest = db.join(&name);
    // RocksDB names what is wrong with a CURRENT that points to nothing.
    Ok((name.starts_with("MANIFEST-") && manifest.is_file()).then_some(manifest))
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

fn read_from(log: &Path, at: u64) -> Result<Vec<u8>, StoreError> {
    let read = || {
        let mut file = File::open(log)?;
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| StoreError::from_io(log, error))
}

/// Where the first thing that is no record begins, if anywhere. Reads a block at a time.
fn damage(log: &Path) -> Result<Option<Damage>, StoreError> {
    let failed = |error| StoreError::from_io(log, error);
    let mut file = File::open(log).map_err(failed)?;
    let mut block = vec![0; BLOCK];
    let (mut start, mut within) = (0, false);
    loop {
        let mut len = 0;
        while let Some(room) = block.get_mut(len..).filter(|room| !room.is_empty()) {
            match file.read(room).map_err(failed)? {
                0 => break,
                read => len += read,
            }
        }
        let block = block.get(..len).unwrap_or_default();
        let mut at = 0;
        while BLOCK - at >= HEAD && at < block.len() {
            match record_at(block, at) {
                Some((kind, len)) => {
                    at += len;
                    within = matches!(kind, FIRST | MIDDLE);
                }
                None => {
                    return Ok(Some(Damage {
                        at: start + at as u64,
                        cut: is_cut(block.get(at..).unwrap_or_default(), BLOCK - at),
                        within,
                    }));
                }
            }
        }
        if len < BLOCK {
            return Ok(None);
        }
        start += BLOCK as u64;
    }
}

/// Whether these bytes, the last of the file, are the beginning of a record for which the block has `room`.
fn is_cut(bytes: &[u8], room: usize) -> bool {
    match bytes {
        [_, _, _, _, low, high, kind, ..] => {
            let len = HEAD + usize::from(u16::from_le_bytes([*low, *high]));
            (WHOLE..=LAST).contains(kind) && len <= room && len > bytes.len()
        }
        _ => true,
    }
}

/// Whether a record begins anywhere behind the damage, which begins these bytes. Parts of a longer one do not count: they
/// belong to what is torn. `start` is where the bytes stand in the file.
fn has_record_behind(bytes: &[u8], start: u64) -> bool {
    (1..bytes.len()).any(|at| begins_record(bytes, start, at).is_some())
}

/// Length and payload of the record, or the first part of one, that begins at `at` of these bytes, which begin at `start` of
/// their file.
fn begins_record(bytes: &[u8], start: u64, at: usize) -> Option<(usize, &[u8])> {
    let within = usize::try_from(start % BLOCK as u64).unwrap_or_default();
    let left = BLOCK - (within + at) % BLOCK;
    let block = bytes.get(at..bytes.len().min(at + left))?;
    // Checksums are taken only where the kind is right: junk is long.
    if !matches!(block.get(HEAD - 1), Some(&(WHOLE | FIRST))) {
        return None;
    }
    let (_, len) = record_at(block, 0)?;
    Some((len, block.get(HEAD..len)?))
}

/// Kind and length of the record that begins here, head included.
fn record_at(block: &[u8], at: usize) -> Option<(u8, usize)> {
    let (head, rest) = block.get(at..)?.split_at_checked(HEAD)?;
    let [c0, c1, c2, c3, l0, l1, kind] = head.try_into().ok()?;
    if kind == 0 {
        return None;
    }
    let len = usize::from(u16::from_le_bytes([l0, l1]));
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

    /// What is left of a log, or the refusal.
    fn mended(log: &[u8]) -> Result<usize, String> {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        fs::create_dir(&db).unwrap();
        fs::write(db.join("000007.log"), record(WHOLE, b"older")).unwrap();
        fs::write(db.join("000011.log"), log).unwrap();
        mend(&db, dir.path()).map_err(|error| error.to_string())?;
        let left = fs::read(db.join("000011.log")).unwrap();
        if let Ok(aside) = fs::read(dir.path().join("torn-end-of-000011.log")) {
            assert_eq!([left.clone(), aside].concat(), log);
        }
        Ok(left.len())
    }

    #[test]
    fn an_end_of_zeros_or_junk_goes_and_a_hole_is_refused_with_its_place() {
        let whole = [record(WHOLE, b"one"), record(WHOLE, &[7; 300])].concat();
        let len = whole.len();
        assert_eq!(mended(&whole), Ok(len), "nothing is wrong with it");
        assert_eq!(mended(&[whole.clone(), vec![0; 500]].concat()), Ok(len));
        assert_eq!(mended(&[whole.clone(), vec![0xee; 500]].concat()), Ok(len));
        assert_eq!(
            mended(&whole[..len - 1]),
            Ok(len - 1),
            "RocksDB knows what to do with it"
        );
        let mut flipped = whole.clone();
        flipped[8] ^= 1;
        let refusal = mended(&flipped).unwrap_err();
        assert!(
            refusal.contains("000011.log: no record at byte 0, but behind it"),
            "{refusal}"
        );
        let mut last = whole;
        *last.last_mut().unwrap() ^= 1;
        assert_eq!(mended(&last), Ok(10));
    }

    #[test]
    fn parts_in_many_blocks_are_followed() {
        let part = |kind| record(kind, &[kind; BLOCK - HEAD]);
        let long = [part(FIRST), part(3), part(3), record(4, b"end")].concat();
        let log = [long.clone(), record(WHOLE, b"behind")].concat();
        assert_eq!(mended(&log), Ok(log.len()));
        // A head that RocksDB takes for a recycled record's, and reads for ever.
        let mut junk = log;
        junk[2 * BLOCK + 6] = 5;
        junk[2 * BLOCK + 100] ^= 1;
        assert!(mended(&junk).unwrap_err().contains("at byte 65536"));
        assert_eq!(mended(&junk[..3 * BLOCK]), Ok(2 * BLOCK));
    }

    #[test]
    fn space_never_used_in_an_older_log_is_no_damage() {
        let behind = |older: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("000007.log"), older).unwrap();
            fs::write(dir.path().join("000011.log"), record(WHOLE, b"one")).unwrap();
            look(dir.path()).is_ok()
        };
        let space = vec![0; 70_000];
        assert!(behind(&[record(WHOLE, b"older"), space.clone()].concat()));
        assert!(!behind(&[record(FIRST, b"a part"), space.clone()].concat()));
        assert!(!behind(&[record(WHOLE, b"older"), space, vec![1]].concat()));
    }

    #[test]
    fn damage_in_an_older_log_or_in_the_manifest_is_no_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("000007.log"), [9; 100]).unwrap();
        fs::write(dir.path().join("000011.log"), [9; 100]).unwrap();
        let refusal = mend(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(refusal.contains("000007.log: no record at byte 0"), "{refusal}");
        fs::write(dir.path().join("CURRENT"), "MANIFEST-000003\n").unwrap();
        fs::write(dir.path().join("MANIFEST-000003"), [5; 100]).unwrap();
        let refusal = mend(dir.path(), dir.path()).unwrap_err().to_string();
        assert!(
            refusal.contains("MANIFEST-000003: no record at byte 0"),
            "{refusal}"
        );
    }
}
