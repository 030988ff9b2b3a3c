//! Opening a store: the lock, the database, the checks, and one row per queue. What a restart must refuse, it refuses here,
//! by name (hostile-input-and-faults F9-F12, N1).

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rocksdb::{Direction, IteratorMode, WriteBatch};

use crate::broker::{
    definition::Definition,
    ids::{QueueId, Seq, Timestamp},
    queue::Deadlines,
};
use crate::storage::{
    Op, Recovered, RecoveredQueue, StoreError, StoreOptions,
    bodies::Bodies,
    format, keys,
    ledger::{Ledger, QueueLedger},
    lock::DirLock,
    mark::Mark,
    records,
    recovering::{Recovering, Stage},
    returned,
    rocks::{self, Family, Rocks},
    row::{MIXED, Row},
    schedule, torn,
};

/// All a store needs to start.
pub(super) struct Opened {
    pub(super) rocks: Arc<Rocks>,
    pub(super) lock: DirLock,
    pub(super) mark: Mark,
    pub(super) ledger: Ledger,
    pub(super) bodies: Bodies,
    /// The first queue id that was never reserved.
    pub(super) next_queue_id: u64,
    pub(super) recovered: Recovered,
}

pub(super) fn open(options: &StoreOptions) -> Result<Opened, StoreError> {
    let start = Instant::now();
    let dir = &options.data_dir;
    let lock = DirLock::take(dir)?;
    let recovering = Recovering::begin(dir);
    let mark = Mark::open(&dir.join("synced"))?;
    let path = dir.join("db");
    let fresh = is_fresh(&path, mark.path(), mark.sequence())?;
    let copied = !fresh && {
        torn::mend(&path, dir)?;
        format::prepare(dir, &path, options)?
    };
    let rocks = Rocks::open(&path, options)?;
    format::check(dir, &rocks, fresh, copied)?;
    check_mark(&rocks, &mark)?;
    recovering.stage(Stage::Queues);
    let definitions = read_definitions(&rocks)?;
    let (mut ledger, queues) = read_rows(&rocks, &recovering)?;
    sweep_orphaned_pieces(&rocks)?;
    let next_queue_id = read_counter(&rocks, keys::NEXT_QUEUE_ID)?;
    let bodies = Bodies::new(read_counter(&rocks, keys::NEXT_BODY_ID)?);
    let mut recovered = Recovered {
        definitions,
        queues,
        took: start.elapsed(),
        fresh,
        last_written: mark.written(),
    };
    recovering.stage(Stage::Returned);
    returned::recover(&rocks, &mut ledger, &mut recovered)?;
    schedule::recover(&rocks, &mut ledger, &mut recovered)?;
    recovered.took = start.elapsed();
    Ok(Opened {
        rocks: Arc::new(rocks),
        lock,
        mark,
        ledger,
        bodies,
        next_queue_id,
        recovered,
    })
}

/// Rows without a definition are of queues that were not durable and had left messages to the store; the operations that
/// remove them.
pub(super) fn take_orphans(recovered: &mut Recovered) -> Vec<Op> {
    let defined: HashSet<QueueId, ahash::RandomState> = recovered
        .definitions
        .iter()
        .filter_map(|definition| match definition {
            Definition::Queue(queue) => Some(queue.id),
            _ => None,
        })
        .collect();
    let mut orphans = Vec::new();
    recovered.queues.retain(|queue| {
        let known = defined.contains(&queue.id);
        if !known {
            orphans.push(Op::Forget { queue: queue.id });
        }
        known
    });
    orphans
}

/// Whether nothing is there yet. A database that should be there and is not must never be replaced by an empty one.
pub(super) fn is_fresh(path: &Path, mark: &Path, marked: u64) -> Result<bool, StoreError> {
    if path.join("CURRENT").exists() {
        return Ok(false);
    }
    let has_files = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(StoreError::from_io(path, error)),
    };
    if has_files {
        return Err(StoreError::Missing {
            path: path.join("CURRENT"),
            what: "the rest of the database is there".to_owned(),
        });
    }
    if marked > 0 {
        return Err(StoreError::Missing {
            path: path.to_path_buf(),
            what: format!("{} says there was a database", mark.display()),
        });
    }
    Ok(true)
}

fn check_mark(rocks: &Rocks, mark: &Mark) -> Result<(), StoreError> {
    let found = rocks.db().latest_sequence_number();
    if found >= mark.sequence() {
        return Ok(());
    }
    Err(rocks.corrupt(format!(
        "the log ends at {found}, but was synced up to {} according to {}: its end was lost",
        mark.sequence(),
        mark.path().display()
    )))
}

fn read_definitions(rocks: &Rocks) -> Result<Vec<Definition>, StoreError> {
    let mut definitions = Vec::new();
    let mode = IteratorMode::From(keys::FIRST_DEFINITION, Direction::Forward);
    for item in rocks.db().iterator_cf(rocks.family(Family::Meta), mode) {
        let (key, value) = item.map_err(|error| rocks.error(&error))?;
        let definition = records::decode_definition(&value).ok_or_else(|| {
            rocks.corrupt(format!(
                "the definition under {:?} is damaged",
                String::from_utf8_lossy(&key)
            ))
        })?;
        definitions.push(definition);
    }
    Ok(definitions)
}

fn read_rows(rocks: &Rocks, recovering: &Recovering) -> Result<(Ledger, Vec<RecoveredQueue>), StoreError> {
    let mut ledger = Ledger::default();
    let mut queues = Vec::new();
    for item in rocks
        .db()
        .iterator_cf(rocks.family(Family::QueueRow), IteratorMode::Start)
    {
        let (key, value) = item.map_err(|error| rocks.error(&error))?;
        let damaged = || rocks.corrupt(format!("the row of queue {:?} is damaged", keys::parse_u64(&key)));
        let id = QueueId(keys::parse_u64(&key).ok_or_else(damaged)?);
        let row = Row::decode(&value).ok_or_else(damaged)?;
        ledger.queues.insert(id, QueueLedger::recovered(&row));
        queues.push(recovered_queue(id, &row));
        recovering.queue_read();
    }
    Ok((ledger, queues))
}

fn recovered_queue(id: QueueId, row: &Row) -> RecoveredQueue {
    RecoveredQueue {
        id,
        messages: row.messages,
        bytes: row.bytes,
        low: Seq(row
            .lanes
            .iter()
            .map(|lane| lane.low)
            .min()
            .unwrap_or(row.next_seq)),
        next_seq: Seq(row.next_seq),
        deadlines: match row.deadlines {
            MIXED => Deadlines::Mixed,
            last => Deadlines::InOrder(Timestamp(last)),
        },
        // Messages that were not stored may have gone further.
        delivered_through: Seq(row.delivered.min(row.next_seq.saturating_sub(1))),
        lanes: row.lanes.iter().map(|lane| (lane.lane, Seq(lane.low))).collect(),
        returned: Vec::new(),
        scheduled: (0, 0),
    }
}

fn read_counter(rocks: &Rocks, key: &[u8]) -> Result<u64, StoreError> {
    match rocks.get(Family::Meta, key)? {
        None => Ok(1),
        Some(value) => value
            .as_ref()
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_wrong_length| rocks.corrupt("an id counter is damaged")),
    }
}

/// Pieces are written ahead of their group; a crash between the two leaves pieces without a count. Their ids are above
/// all that have one, because ids ascend and everything later was lost as well.
fn sweep_orphaned_pieces(rocks: &Rocks) -> Result<(), StoreError> {
    let mut counts = rocks.db().raw_iterator_cf(rocks.family(Family::BodyCount));
    counts.seek_to_last();
    let first_orphan = counts
        .key()
        .and_then(keys::parse_u64)
        .map_or(0, |highest| highest + 1);
    counts.status().map_err(|error| rocks.error(&error))?;
    let mut batch = WriteBatch::default();
    let mut pieces = rocks.db().raw_iterator_cf(rocks.family(Family::Body));
    pieces.seek(keys::body(first_orphan));
    while let Some(key) = pieces.key() {
        batch.single_delete_cf(rocks.family(Family::Body), key);
        pieces.next();
    }
    pieces.status().map_err(|error| rocks.error(&error))?;
    if batch.is_empty() {
        return Ok(());
    }
    tracing::info!(
        pieces = batch.len(),
        "swept pieces of bodies whose publish was never stored"
    );
    rocks
        .db()
        .write_opt(batch, &rocks::write_options(true))
        .map_err(|error| rocks.error(&error))
}
