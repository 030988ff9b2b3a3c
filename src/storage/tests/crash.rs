//! The committer stopped at each of its steps, and a power cut that takes the unsynced end of the log.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::check::check;
use super::{Bench, Told, options};
use crate::storage::{Store, options::StepHook, writer::Step};

/// A committer that stops at a step of the next group, once armed.
#[derive(Default)]
struct StopAt {
    state: Mutex<StopState>,
    changed: Condvar,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum StopState {
    #[default]
    Unarmed,
    /// The next group has not begun.
    Armed,
    /// It has, and will go on through so many of the step.
    InGroup(u32),
    Stopped,
}

impl StopAt {
    /// Stops at the `nth` time, from 0, that the group comes to `step`.
    fn hook(self: &Arc<Self>, step: Step, nth: u32) -> StepHook {
        let stop = self.clone();
        Arc::new(move |found| {
            let mut state = stop.state.lock();
            if *state == StopState::Armed && found == Step::Built {
                *state = StopState::InGroup(nth);
            }
            match *state {
                StopState::InGroup(0) if found == step => *state = StopState::Stopped,
                StopState::InGroup(left) if found == step => *state = StopState::InGroup(left - 1),
                _ => {}
            }
            stop.changed.notify_all();
            *state != StopState::Stopped
        })
    }

    fn arm(&self) {
        *self.state.lock() = StopState::Armed;
    }

    fn wait(&self) {
        let mut state = self.state.lock();
        while *state != StopState::Stopped {
            self.changed.wait(&mut state);
        }
    }
}

#[test]
fn a_crash_at_any_step_leaves_all_or_nothing_of_a_group() {
    for (step, nth, stored) in [
        (Step::Built, 0, false),
        (Step::PieceWritten, 2, false),
        (Step::Written, 0, true),
        (Step::Released, 0, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        let stop = Arc::new(StopAt::default());
        options.on_step = Some(stop.hook(step, nth));
        let bench = Bench::with(dir, options);
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
        stop.arm();
        bench.store.log(&mut ops);
        stop.wait();
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

pub(super) fn newest_wal(dir: &Path) -> PathBuf {
    let logs = fs::read_dir(dir.join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max()
        .unwrap()
}

pub(super) fn copy(from: &Path, to: &Path) {
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

/// A small tmpfs, unmounted when dropped. `None` where mounting is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
            .arg(dir.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(dir))
    }

    /// Leaves no byte free.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "{} stays mounted",
            self.0.path().display()
        );
    }
}

#[test]
fn a_full_disk_delays_confirms_and_a_close_meanwhile_gives_none() {
    let Some(disk) = SmallDisk::mount() else {
        println!("SKIPPED: mounting a tmpfs is not allowed here");
        return;
    };
    let data = disk.0.path().join("data");
    let open = || {
        let (store, recovered) = Store::open(options(&data)).unwrap();
        let told = Arc::new(Told::default());
        store.start(told.clone()).unwrap();
        Bench {
            dir: tempfile::tempdir().unwrap(),
            store,
            told,
            recovered,
        }
    };
    let bench = open();
    let queue = bench.queue("q");
    bench.sync();
    // RocksDB's log has room ahead, and files it no longer needs make some; in the end the disk is full.
    let publish_until_full = |from: u64| {
        let mut seq = from;
        loop {
            bench.publish_confirmed(&[(queue, seq)], &vec![1; 900_000], seq);
            if bench.told.wait_for_confirm_or_full(seq) {
                return seq;
            }
            seq += 1;
        }
    };
    let ballast = disk.fill();
    let stuck = publish_until_full(1);
    assert!(!bench.told.confirmed().contains(&stuck));
    // Reads do not wait for the disk.
    assert_eq!(bench.seqs(queue), (1..stuck).collect::<Vec<_>>());
    fs::remove_file(ballast).unwrap();
    bench.told.wait_for_confirm(stuck);
    bench.told.wait_for_full(false);
    assert_eq!(bench.seqs(queue), (1..=stuck).collect::<Vec<_>>());

    let ballast = disk.fill();
    let stuck = publish_until_full(stuck + 1);
    bench.store.close();
    assert!(bench.told.wait_for_failure().contains("full"));
    let confirmed = bench.told.confirmed();
    assert!(!confirmed.contains(&stuck));
    fs::remove_file(ballast).unwrap();
    let bench = open();
    assert!(bench.seqs(queue).starts_with(&confirmed));
    bench.store.close();
    check(&data);
}
