//! Messages of queues that the store has no definition of: kept while the store is open, gone after the next start.

use smallvec::smallvec;

use super::check::check;
use super::{Bench, message, parts, publish, undefine};
use crate::broker::{
    ids::{QueueId, Seq},
    message::{Message, MessageParts},
};
use crate::storage::Op;

/// A durable queue and what stands beside it, with messages 1 to 40, each third of them persistent.
fn mixed() -> (Bench, QueueId) {
    let bench = Bench::new();
    let queue = bench.queue("q");
    bench.log(Op::Spill {
        queue: bench.store.next_queue_id(),
        beside: Some(queue),
    });
    for seq in 1..=40 {
        let parts = MessageParts {
            persistent: false,
            ..parts()
        };
        let body = format!("number {seq}");
        let message = match seq % 3 {
            0 => message(body.as_bytes()),
            _ => Message::new(&parts, body.as_bytes(), &mut Vec::new()),
        };
        bench.log(publish(&[(queue, seq)], message, None));
        if seq % 7 == 0 {
            bench.sync();
        }
    }
    bench.sync();
    (bench, queue)
}

#[test]
fn transient_messages_beside_a_durable_queue_are_part_of_it_until_a_start() {
    let (bench, queue) = mixed();
    let all: Vec<u64> = (1..=40).collect();
    assert_eq!(bench.seqs(queue), all);
    for step in [1, 100, 1_000] {
        let found = bench.read(queue, 0, 0, 41, step);
        assert!(found.iter().map(|(seq, _)| *seq).eq(1..=40), "in steps of {step}");
        assert_eq!(found[9].1, b"number 10");
    }
    bench.ack(queue, &[1, 3, 40]);
    bench.log(Op::Purge {
        queue,
        ranges: smallvec![(0, Seq(10), Seq(20))],
        count: 10,
        bytes: 90,
    });
    let left: Vec<u64> = all
        .into_iter()
        .filter(|seq| ![1, 3, 40].contains(seq) && !(10..20).contains(seq))
        .collect();
    assert_eq!(bench.seqs(queue), left);
    let bench = bench.crash();
    let persistent: Vec<u64> = left.into_iter().filter(|seq| seq % 3 == 0).collect();
    let rows: Vec<_> = bench
        .recovered
        .queues
        .iter()
        .map(|row| (row.id, row.messages))
        .collect();
    assert_eq!(rows, [(queue, persistent.len() as u64)]);
    assert_eq!(bench.seqs(queue), persistent);
    bench.sync();
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn what_stands_beside_a_queue_goes_with_it() {
    let (bench, queue) = mixed();
    bench.log(undefine("q", queue));
    bench.sync();
    assert!(bench.seqs(queue).is_empty());
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn a_spilled_queue_is_read_back_and_gone_after_a_start() {
    let bench = Bench::new();
    let kept = bench.queue("q");
    let spilled = QueueId(kept.0 + 1);
    bench.publish(&[(spilled, 1)], b"too early");
    bench.log(Op::Spill {
        queue: spilled,
        beside: None,
    });
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
    bench.log(Op::Spill {
        queue: spilled,
        beside: None,
    });
    bench.publish_confirmed(&[(spilled, 1)], b"gone", 1);
    bench.told.wait_for_confirm(1);
    bench.log(Op::Forget { queue: spilled });
    bench.sync();
    assert!(bench.seqs(spilled).is_empty());
    bench.store.close();
    check(bench.dir.path());
}
