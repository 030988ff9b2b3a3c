//! Looks at a stopped store from below RocksDB's keys: counts, low ends, references and checksums must agree
//! (storage-design B8.6).

use std::collections::HashMap;
use std::path::Path;

use rocksdb::IteratorMode;

use crate::broker::ids::QueueId;
use crate::storage::{
    RecoveredQueue, StoreError, StoreOptions,
    bodies::{Count, pieces},
    keys,
    page::Page,
    page_meta::PageMeta,
    recovery,
    rocks::{Family, Rocks},
    row::Row,
    schedule,
};

/// Beyond so many findings the rest is only counted.
const LISTED_MAX: usize = 100;

/// What a check saw.
#[derive(Debug, Default)]
pub struct CheckReport {
    pub queues: u64,
    pub messages: u64,
    pub pages: u64,
    /// Bodies that stand apart from their pages.
    pub bodies: u64,
    /// What does not agree, a sentence each; the first hundred.
    pub findings: Vec<String>,
    /// All of them.
    pub findings_count: u64,
}

impl CheckReport {
    fn find(&mut self, text: String) {
        self.findings_count += 1;
        if self.findings.len() < LISTED_MAX {
            self.findings.push(text);
        }
    }
}

/// Opens the store of a stopped broker, which replays its log, and compares everything with everything.
///
/// # Errors
/// When the store cannot be opened; the error names the file.
pub fn check(data_dir: &Path) -> Result<CheckReport, StoreError> {
    if !data_dir.join("db/CURRENT").exists() {
        return Err(StoreError::no_store(data_dir));
    }
    let opened = recovery::open(&StoreOptions::new(data_dir))?;
    let mut report = CheckReport::default();
    let rows = rows(&opened.rocks, &mut report);
    let references = pages(&opened.rocks, &rows, &mut report);
    acks(&opened.rocks, &mut report);
    bodies(&opened.rocks, &references, &mut report);
    scheduled(&opened.rocks, &opened.recovered.queues, &mut report);
    Ok(report)
}

/// Calls `each` for every entry; one that cannot be read is a finding and ends the family.
fn each(
    rocks: &Rocks,
    family: Family,
    report: &mut CheckReport,
    mut each: impl FnMut(&[u8], &[u8], &mut CheckReport),
) {
    for item in rocks.db().iterator_cf(rocks.family(family), IteratorMode::Start) {
        match item {
            Ok((key, value)) => each(&key, &value, report),
            Err(error) => return report.find(format!("{family:?} cannot be read on: {error}")),
        }
    }
}

fn rows(rocks: &Rocks, report: &mut CheckReport) -> HashMap<QueueId, Row> {
    let mut rows = HashMap::new();
    each(rocks, Family::QueueRow, report, |key, value, report| {
        match (keys::parse_u64(key), Row::decode(value)) {
            (Some(id), Some(row)) => {
                report.queues += 1;
                rows.insert(QueueId(id), row);
            }
            (id, _) => report.find(format!("the row of queue {id:?} is damaged")),
        }
    });
    rows
}

/// All pages against the rows; gives how often each body is referred to.
fn pages(rocks: &Rocks, rows: &HashMap<QueueId, Row>, report: &mut CheckReport) -> HashMap<u64, u32> {
    let mut found: HashMap<QueueId, (u64, u64)> = HashMap::new();
    let mut references: HashMap<u64, u32> = HashMap::new();
    each(rocks, Family::Page, report, |key, value, report| {
        let Some((id, lane, first)) = keys::parse_page(key) else {
            return report.find("a page has a key that is none".to_owned());
        };
        let place = format!("queue {}, lane {lane}: page {first}", id.0);
        let head = rows
            .get(&id)
            .and_then(|row| Some((row, row.lanes.iter().find(|candidate| candidate.lane == lane)?)));
        let Some((row, head)) = head else {
            return report.find(format!("{place} is not in its queue's row"));
        };
        if first < head.head_page {
            report.find(format!("{place} lies below the head page {}", head.head_page));
        }
        let acks = match rocks.get(Family::Ack, key) {
            Ok(acks) => acks,
            Err(error) => return report.find(format!("{place}: its acks cannot be read: {error}")),
        };
        let page = Page::decode(value);
        let meta = page.and_then(|page| PageMeta::of_page(first, &page, acks.as_deref(), head.low));
        let Some(meta) = meta else {
            return report.find(format!("{place} is damaged"));
        };
        report.pages += 1;
        if meta.live() == 0 {
            report.find(format!("{place} holds nothing"));
        }
        if meta.end() > row.next_seq {
            report.find(format!("{place} goes beyond the next place {}", row.next_seq));
        }
        meta.each_live(|entry| {
            let sums = found.entry(id).or_default();
            *sums = (sums.0 + 1, sums.1 + entry.size);
            if let Some(body) = entry.body {
                *references.entry(body).or_default() += 1;
            }
        });
    });
    for (id, row) in rows {
        let sums = found.get(id).copied().unwrap_or_default();
        report.messages += sums.0;
        let counted = (row.messages, row.bytes);
        if counted != sums {
            report.find(format!(
                "queue {}: the row counts {counted:?} (messages, bytes), there are {sums:?}",
                id.0
            ));
        }
    }
    references
}

/// Messages that wait for their time against the counts of their queues.
fn scheduled(rocks: &Rocks, queues: &[RecoveredQueue], report: &mut CheckReport) {
    let mut found: HashMap<QueueId, (u64, u64)> = HashMap::new();
    each(
        rocks,
        Family::Scheduled,
        report,
        |key, value, report| match schedule::looked_at(key, value) {
            Some((queue, bytes)) => {
                let sums = found.entry(queue).or_default();
                *sums = (sums.0 + 1, sums.1 + bytes);
                report.messages += 1;
            }
            None => report.find(format!("a waiting message under {key:?} is damaged")),
        },
    );
    for queue in queues {
        let sums = found.remove(&queue.id).unwrap_or_default();
        if queue.scheduled != sums {
            report.find(format!(
                "queue {}: {:?} waiting messages are counted (messages, bytes), there are {sums:?}",
                queue.id.0, queue.scheduled
            ));
        }
    }
    for (id, (messages, _)) in found {
        report.find(format!(
            "{messages} messages wait in queue {}, which is not there",
            id.0
        ));
    }
}

fn acks(rocks: &Rocks, report: &mut CheckReport) {
    each(rocks, Family::Ack, report, |key, _, report| {
        if matches!(rocks.get(Family::Page, key), Ok(None)) {
            report.find(format!("acks without their page: {:?}", keys::parse_page(key)));
        }
    });
}

fn bodies(rocks: &Rocks, references: &HashMap<u64, u32>, report: &mut CheckReport) {
    let mut lens: HashMap<u64, (u64, u32)> = HashMap::new();
    each(rocks, Family::Body, report, |key, value, report| {
        let Some(id) = key.first_chunk::<8>().map(|id| u64::from_be_bytes(*id)) else {
            return report.find("a piece of a body has a key that is none".to_owned());
        };
        let sums = lens.entry(id).or_default();
        *sums = (sums.0 + value.len() as u64, sums.1 + 1);
    });
    let mut counted = 0;
    each(rocks, Family::BodyCount, report, |key, value, report| {
        let (Some(id), Some(count)) = (keys::parse_u64(key), Count::decode(value)) else {
            return report.find("a body's count is damaged".to_owned());
        };
        report.bodies += 1;
        let expected = references.get(&id).copied().unwrap_or(0);
        counted += u64::from(expected > 0);
        if count.left != expected {
            report.find(format!(
                "body {id} counts {} references, there are {expected}",
                count.left
            ));
        }
        let found = lens.remove(&id).unwrap_or_default();
        if found != (count.len, pieces(count.len)) {
            report.find(format!(
                "body {id} has {} bytes, stored are {found:?} (bytes, pieces)",
                count.len
            ));
        }
    });
    if counted != references.len() as u64 {
        report.find(format!(
            "{} bodies are referred to, {counted} are counted",
            references.len()
        ));
    }
    for id in lens.keys() {
        report.find(format!("body {id} is referred to by nobody"));
    }
}
