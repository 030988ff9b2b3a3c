//! The committer stopped at each of its steps, and a power cut that takes the unsynced end of the log.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

use super::check::check;
use super::{Bench, options};
use crate::storage::Store;
use crate::storage::writer::Step;

/// Stops the committer at the n-th time it reaches a step, and tells that it did.
fn stop_at(
    step: Step,
    nth: u64,
) -> (
    Arc<dyn Fn(Step) -> bool + Send + Sync>,
    Arc<(Mutex<bool>, Condvar)>,
) {
    let reached = Arc::new((Mutex::new(false), Condvar::new()));
    let tell = reached.clone();
    let count = AtomicU64::new(0);
    let hook = move |found: Step| {
        if found != step || count.fetch_add(1, Ordering::Relaxed) + 1 != nth {
            return true;
        }
        *tell.0.lock() = true;
        tell.1.notify_all();
        false
    };
    (Arc::new(hook), reached)
}

#[test]
fn a_crash_at_any_step_leaves_all_or_nothing_of_a_group() {
    for (step, nth, stored) in [
        (Step::Built, 3, false),
        (Step::PieceWritten, 2, false),
        (Step::Written, 3, true),
        (Step::Released, 3, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        let (hook, reached) = stop_at(step, nth);
        options.on_step = Some(hook);
        let bench = Bench::with(dir, options);
        // Group 1: the queue. Group 2: a message. Group 3: a big body and small ones.
        let queue = bench.queue("q");
        bench.sync();
        bench.publish_confirmed(&[(queue, 1)], b"first", 1);
        bench.told.wait_for_confirm(1);
        let big = vec![7; 2_000_000];
        let mut ops = vec![
            super::publish(&[(queue, 2)], super::message(&big), None),
            super::ack(queue, 0, &[1]),
            super::publish(&[(queue, 3)], super::message(b"third"), None),
        ];
        bench.store.log(&mut ops);
        {
            let mut stopped = reached.0.lock();
            while !*stopped {
                reached.1.wait(&mut stopped);
            }
        }
        let bench = bench.crash();
        let expected = if stored { vec![2, 3] } else { vec![1] };
        assert_eq!(bench.seqs(queue), expected, "{step:?}");
        if stored {
            assert_eq!(bench.read_all(queue)[0].1, big);
        }
        // The next generation works on what was left.
        let next = bench.recovered.queues[0].next_seq.0;
        bench.publish_confirmed(&[(queue, next)], &big, 2);
        bench.told.wait_for_confirm(2);
        let bench = bench.crash();
        assert_eq!(bench.seqs(queue).last(), Some(&next));
        bench.store.close();
        check(bench.dir.path());
    }
}

fn newest_wal(dir: &Path) -> PathBuf {
    let logs = fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max()
        .unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_power_cut_takes_only_what_was_not_synced() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    for seq in 1..=20 {
        bench.publish_confirmed(&[(queue, seq)], &[1; 300], seq);
    }
    bench.told.wait_for_confirm(20);
    let synced = fs::metadata(newest_wal(bench.dir.path())).unwrap().len();
    // Written but not synced: nobody waits for it. The read proves that it is written.
    for seq in 21..=24 {
        bench.publish(&[(queue, seq)], &[2; 300]);
        assert_eq!(bench.seqs(queue).last(), Some(&seq));
    }
    bench.store.abandon();
    let wal = newest_wal(bench.dir.path());
    let end = fs::metadata(&wal).unwrap().len();
    assert!(end > synced + 4 * 300);
    for cut in (synced..=end).step_by(97) {
        let image = tempfile::tempdir().unwrap();
        copy(bench.dir.path(), image.path());
        let log = fs::File::options()
            .write(true)
            .open(newest_wal(image.path()))
            .unwrap();
        log.set_len(cut).unwrap();
        let image = Bench::in_dir(image);
        let seqs = image.seqs(queue);
        assert!(
            seqs.len() >= 20,
            "cut at {cut} of {end}, synced to {synced}: {seqs:?}"
        );
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
        image.store.close();
        check(image.dir.path());
    }
}

#[test]
fn a_log_cut_below_the_mark_is_refused() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    bench.sync();
    let early = fs::metadata(newest_wal(bench.dir.path())).unwrap().len();
    for seq in 1..=20 {
        bench.publish_confirmed(&[(queue, seq)], &[1; 300], seq);
    }
    bench.told.wait_for_confirm(20);
    // A log without its end looks whole to RocksDB; only the mark knows better. It is written at the latest when the
    // store is idle.
    let mark = bench.dir.path().join("synced");
    let before = fs::read(&mark).unwrap();
    while fs::read(&mark).unwrap() == before {
        std::thread::yield_now();
    }
    bench.store.abandon();
    let wal = newest_wal(bench.dir.path());
    fs::File::options()
        .write(true)
        .open(&wal)
        .unwrap()
        .set_len(early)
        .unwrap();
    let error = Store::open(options(bench.dir.path())).err().unwrap().to_string();
    assert!(error.contains("synced"), "{error}");
}
