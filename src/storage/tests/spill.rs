//! Messages of queues that the store has no definition of: kept while the store is open, gone after the next start.

use super::Bench;
use super::check::check;
use crate::broker::ids::QueueId;
use crate::storage::Op;

#[test]
fn a_spilled_queue_is_read_back_and_gone_after_a_start() {
    let bench = Bench::new();
    let kept = bench.queue("q");
    let spilled = QueueId(kept.0 + 1);
    bench.publish(&[(spilled, 1)], b"too early");
    bench.log(Op::Spill { queue: spilled });
    bench.publish_confirmed(&[(kept, 1), (spilled, 2)], b"both", 1);
    // Large enough to stand by itself.
    bench.publish_confirmed(&[(spilled, 3)], &[7; 200_000], 2);
    bench.told.wait_for_confirm(2);
    assert_eq!(bench.seqs(spilled), [2, 3]);
    let bench = bench.crash();
    let found: Vec<QueueId> = bench.recovered.queues.iter().map(|row| row.id).collect();
    assert_eq!(found, [kept]);
    bench.sync();
    assert!(bench.seqs(spilled).is_empty());
    assert_eq!(bench.seqs(kept), [1]);
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn a_forgotten_queue_leaves_nothing() {
    let bench = Bench::new();
    let spilled = QueueId(90);
    bench.log(Op::Spill { queue: spilled });
    bench.publish_confirmed(&[(spilled, 1)], b"gone", 1);
    bench.told.wait_for_confirm(1);
    bench.log(Op::Forget { queue: spilled });
    bench.sync();
    assert!(bench.seqs(spilled).is_empty());
    bench.store.close();
    check(bench.dir.path());
}
