//! Disk space comes back.

use std::time::Duration;

use super::check::check;
use super::{Bench, options};

#[test]
fn what_was_drained_is_given_back_once_it_is_calm() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.reclaim_calm_bytes = 1 << 20;
    options.reclaim_calm = Duration::ZERO;
    let bench = Bench::with(dir, options);
    let queue = bench.queue("q");
    for seq in 1..=400 {
        bench.publish(&[(queue, seq)], &[7; 30_000]);
        if seq % 20 == 0 {
            bench.sync();
        }
    }
    let all: Vec<u64> = (1..=400).collect();
    bench.ack(queue, &all);
    bench.sync();
    while bench.store.stats().reclaims == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let left = bench.store.stats().disk_bytes;
    assert!(left < 2 << 20, "{left} bytes of 12 million are left");
    bench.store.close();
    check(bench.dir.path());
}
