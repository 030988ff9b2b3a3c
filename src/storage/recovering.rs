//! Says how far a start is when it takes longer than a moment: on the terminal and in the log, which are one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How often a start says where it is.
const EVERY: Duration = Duration::from_secs(1);

/// What a start is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Looking through the log, then RocksDB's work on it.
    Log,
    /// Definitions, then a row per queue.
    Queues,
    /// What came back to its queue, and what waits for its time.
    Returned,
}

struct Shared {
    /// `None` when it is over.
    stage: Mutex<Option<Stage>>,
    changed: Condvar,
    queues: AtomicU64,
}

/// Tells of a start until it is dropped.
pub(super) struct Recovering {
    shared: Arc<Shared>,
    teller: Option<JoinHandle<()>>,
}

impl Recovering {
    /// A start on this data directory.
    pub(super) fn begin(dir: &Path) -> Self {
        Self::telling(dir, EVERY, |text| tracing::info!("{text}"))
    }

    fn telling(dir: &Path, every: Duration, say: impl Fn(&str) + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            stage: Mutex::new(Some(Stage::Log)),
            changed: Condvar::new(),
            queues: AtomicU64::new(0),
        });
        let (watched, db) = (Arc::clone(&shared), dir.join("db"));
        // Without a thread a start is silent, and no worse for it.
        let teller = thread::Builder::new()
            .name("store-recovery".to_owned())
            .spawn(move || tell(&watched, &db, every, &say))
            .ok();
        Self { shared, teller }
    }

    pub(super) fn stage(&self, stage: Stage) {
        *self.shared.stage.lock() = Some(stage);
    }

    /// A queue's row was read.
    pub(super) fn queue_read(&self) {
        self.shared.queues.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Recovering {
    fn drop(&mut self) {
        *self.shared.stage.lock() = None;
        self.shared.changed.notify_all();
        // It only speaks; there is nothing to learn from its end.
        drop(self.teller.take().map(JoinHandle::join));
    }
}

fn tell(shared: &Shared, db: &Path, every: Duration, say: &dyn Fn(&str)) {
    let began = Instant::now();
    let mut next = began + every;
    let mut stage = shared.stage.lock();
    while let Some(now_in) = *stage {
        if !shared.changed.wait_until(&mut stage, next).timed_out() || stage.is_none() {
            continue;
        }
        next += every;
        let so_far = began.elapsed().as_secs_f64();
        let text = match now_in {
            Stage::Log => match replayed(db) {
                Some((done, total)) => format!(
                    "recovering the store: replaying its log, {} of {} MiB, {so_far:.0} s so far",
                    done >> 20,
                    total >> 20
                ),
                None => format!("recovering the store: opening its files, {so_far:.0} s so far"),
            },
            Stage::Queues => format!(
                "recovering the store: {} queues read, {so_far:.0} s so far",
                shared.queues.load(Ordering::Relaxed)
            ),
            Stage::Returned => {
                format!("recovering the store: reading what waits in queues, {so_far:.0} s so far")
            }
        };
        say(&text);
    }
}

/// Bytes of the logs that were read, and all of them: RocksDB does not tell, but the system knows where its file stands.
fn replayed(db: &Path) -> Option<(u64, u64)> {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "log");
    let mut reading = None;
    for entry in fs::read_dir("/proc/self/fd").ok()?.flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if target.parent() == Some(db) && is_log(&target) {
            let about = Path::new("/proc/self/fdinfo").join(entry.file_name());
            let about = fs::read_to_string(about).ok()?;
            let at = about.lines().find_map(|line| line.strip_prefix("pos:"))?;
            reading = Some((target, at.trim().parse::<u64>().ok()?));
        }
    }
    let (reading, at) = reading?;
    let logs = fs::read_dir(db).ok()?.flatten().map(|entry| entry.path());
    let (mut done, mut total) = (at, 0);
    for log in logs.filter(is_log) {
        let len = fs::metadata(&log).map_or(0, |about| about.len());
        total += len;
        if log < reading {
            done += len;
        }
    }
    Some((done, total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_long_start_says_where_it_is_and_a_short_one_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        fs::create_dir(&db).unwrap();
        let (sender, said) = mpsc::channel();
        let say = move |text: &str| sender.send(text.to_owned()).unwrap_or(());
        let recovering = Recovering::telling(dir.path(), Duration::from_millis(1), say);
        let until = |words: &str| {
            while !said.recv().unwrap().contains(words) {}
        };
        until("opening its files");
        fs::write(db.join("000007.log"), vec![0; 3 << 20]).unwrap();
        fs::write(db.join("000009.log"), vec![0; 5 << 20]).unwrap();
        let mut log = fs::File::open(db.join("000009.log")).unwrap();
        std::io::Seek::seek(&mut log, std::io::SeekFrom::Start(2 << 20)).unwrap();
        until("5 of 8 MiB");
        recovering.stage(Stage::Queues);
        recovering.queue_read();
        until("1 queues read");
        recovering.stage(Stage::Returned);
        until("what waits");
        drop(recovering);
        let short = Recovering::telling(dir.path(), Duration::from_secs(3600), |text| {
            panic!("said {text}")
        });
        drop(short);
    }
}
