//! What is known of messages that came back survives with them, and goes with them.

use super::Bench;
use crate::broker::{
    ids::{QueueId, Seq, Timestamp},
    queue::Returned,
};
use crate::storage::{DefinitionKey, Op};

fn returned(seq: u64, failed: u16) -> Returned {
    Returned {
        lane: 0,
        seq: Seq(seq),
        acquired: failed,
        failed,
        due: Timestamp(seq * 1000),
    }
}

fn log(bench: &Bench, queue: QueueId, seq: u64, failed: u16) {
    bench.log(Op::Returned {
        queue,
        returned: returned(seq, failed),
    });
}

#[test]
fn counts_survive_a_crash_and_go_with_their_message() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    for seq in 1..=4 {
        bench.publish_confirmed(&[(queue, seq)], b"m", seq);
        bench.told.wait_for_confirm(seq);
        log(&bench, queue, seq, 1);
    }
    log(&bench, queue, 3, 2);
    bench.log(Op::Ack {
        queue,
        lane: 0,
        seqs: [Seq(1)].into_iter().collect(),
    });
    bench.sync();
    let bench = bench.crash();
    let recovered = &bench.recovered.queues[0].returned;
    assert_eq!(*recovered, [returned(2, 1), returned(3, 2), returned(4, 1)]);
    bench.log(Op::Purge {
        queue,
        ranges: [(0, Seq(2), Seq(4))].into_iter().collect(),
        count: 2,
        bytes: 2,
    });
    bench.sync();
    let bench = bench.crash();
    assert_eq!(bench.recovered.queues[0].returned, [returned(4, 1)]);
    bench.log(Op::Undefine {
        key: DefinitionKey::Queue {
            vhost: "/".into(),
            name: "q".into(),
            id: queue,
        },
        done: None,
    });
    bench.sync();
    let bench = bench.crash();
    assert!(bench.recovered.queues.is_empty());
}
