//! Versions of what is on disk: refusing the ones we do not know, keeping a copy of the ones we change, and saying beforehand
//! what a start would do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::{DB, Options};

use crate::storage::{
    StoreError, StoreOptions, backup, keys,
    mark::Mark,
    recovery::is_fresh,
    rocks::{self, Family, Rocks},
    torn,
};

/// The format this version writes and reads. A change of any key or value raises it.
pub(super) const FORMAT_VERSION: u32 = 3;
/// Without deadlines, and without a family for messages that wait: still read, and from the first start on no longer what
/// older versions read.
const OLDER_FORMATS: [u32; 2] = [1, 2];

/// The families a database has. Reads its manifest only.
pub(super) fn families(path: &Path) -> Result<BTreeSet<String>, StoreError> {
    let names =
        DB::list_cf(&Options::default(), path).map_err(|error| StoreError::from_rocks(path, &error))?;
    Ok(names.into_iter().collect())
}

/// Before the database is opened: a store from the future may have families RocksDB would not open without being told, and
/// one of an older format lacks some, which opening creates; so its copy is taken here. Says whether one was.
pub(super) fn prepare(dir: &Path, path: &Path, options: &StoreOptions) -> Result<bool, StoreError> {
    let names = families(path)?;
    if names.iter().any(|name| !rocks::is_known_family(name)) {
        return Err(unknown(dir, read_only(path)?));
    }
    if names.len() == rocks::family_count() {
        return Ok(false);
    }
    let rocks = Rocks::open_with(path, options, &names)?;
    match stored(&rocks)? {
        Stored::Version(older) if OLDER_FORMATS.contains(&older) => {
            keep_copy(dir, &rocks, older).map(|()| true)
        }
        // Opening decides what the others are.
        _ => Ok(false),
    }
}

/// Behind the opening: the format is ours, or becomes ours.
pub(super) fn check(dir: &Path, rocks: &Rocks, fresh: bool, copied: bool) -> Result<(), StoreError> {
    match stored(rocks)? {
        Stored::Version(FORMAT_VERSION) => Ok(()),
        Stored::Version(older) if OLDER_FORMATS.contains(&older) => {
            let copy = copy_dir(dir, older);
            if !copied {
                keep_copy(dir, rocks, older)?;
            }
            write(rocks)?;
            tracing::warn!(
                "the store was of format {older} and is now of format {FORMAT_VERSION}, which older versions of Leveret do not \
                 read; as it was, it is kept in {}: go back with an older version and `leveret --data-dir NEW restore {}`, or \
                 delete that directory once you do not want to",
                copy.display(),
                copy.display()
            );
            Ok(())
        }
        Stored::Version(found) => Err(unknown(dir, found)),
        // A crash right behind the creation leaves a database without a format and without anything else.
        Stored::Nothing if fresh || rocks.db().latest_sequence_number() == 0 => write(rocks),
        Stored::Nothing | Stored::Damaged => {
            Err(rocks.corrupt("the store's format number is missing or damaged"))
        }
    }
}

enum Stored {
    Nothing,
    Damaged,
    Version(u32),
}

fn stored(rocks: &Rocks) -> Result<Stored, StoreError> {
    let stored = rocks.get(Family::Default, keys::FORMAT)?;
    Ok(match stored.as_deref() {
        None => Stored::Nothing,
        Some(value) => value.try_into().map_or(Stored::Damaged, |bytes| {
            Stored::Version(u32::from_le_bytes(bytes))
        }),
    })
}

fn write(rocks: &Rocks) -> Result<(), StoreError> {
    rocks
        .put_synced(Family::Default, keys::FORMAT, &FORMAT_VERSION.to_le_bytes())
        .map_err(|error| rocks.error(&error))
}

fn unknown(dir: &Path, found: u32) -> StoreError {
    StoreError::UnknownFormat {
        dir: dir.to_path_buf(),
        found,
        supported: FORMAT_VERSION,
    }
}

/// The format number, without writing a byte. Zero when there is none.
fn read_only(path: &Path) -> Result<u32, StoreError> {
    let db = rocks::open_to_look(path)?;
    let value = db
        .get(keys::FORMAT)
        .map_err(|error| StoreError::from_rocks(path, &error))?;
    Ok(value
        .and_then(|value| value.try_into().ok())
        .map_or(0, u32::from_le_bytes))
}

fn copy_dir(dir: &Path, format: u32) -> PathBuf {
    dir.join(format!("format-{format}-copy"))
}

/// Keeps the store as it is beside it, in hard links. One that is there already is of an earlier change to this format, or of
/// a start that was cut off: the store may have changed since, so it is made anew.
fn keep_copy(dir: &Path, rocks: &Rocks, format: u32) -> Result<(), StoreError> {
    let copy = copy_dir(dir, format);
    match fs::remove_dir_all(&copy) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(StoreError::from_io(&copy, error)),
    }
    tracing::info!(
        "the store is of format {format}: a copy is made in {} before it changes",
        copy.display()
    );
    backup::take(rocks, &copy)
}

/// What a start would do with what is there.
#[derive(Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing is there; a start makes a store.
    New,
    /// A start goes on with it.
    Ours,
    /// A start copies it into this directory and makes it ours.
    Older { format: u32, copy: PathBuf },
    /// A power cut tore the log's end off: a start cuts it off; only then the format can be read.
    TornEnd,
}

/// Says what a start on this directory would do. Writes nothing, and works beside a running broker.
///
/// # Errors
/// What the start would be refused with, as far as it can be seen.
pub fn outlook(dir: &Path) -> Result<Outlook, StoreError> {
    let path = dir.join("db");
    let mark = dir.join("synced");
    if is_fresh(&path, &mark, Mark::look(&mark)?)? {
        return Ok(Outlook::New);
    }
    let torn = torn::look(&path)?.filter(|end| !end.is_space());
    let known = families(&path)?.iter().all(|name| rocks::is_known_family(name));
    if torn.is_some() && known {
        return Ok(Outlook::TornEnd);
    }
    match read_only(&path)? {
        FORMAT_VERSION if known => Ok(Outlook::Ours),
        format if known && OLDER_FORMATS.contains(&format) => Ok(Outlook::Older {
            format,
            copy: copy_dir(dir, format),
        }),
        found => Err(unknown(dir, found)),
    }
}
