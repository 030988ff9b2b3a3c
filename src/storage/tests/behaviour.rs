//! What each operation does, one at a time.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use smallvec::SmallVec;

use super::check::check;
use super::{Bench, Told, ack, body_of, define, message, one, options, parts, publish, undefine};
use crate::broker::{
    confirm::{ConfirmSink, ConfirmToken},
    definition::{BindingDefinition, Definition, Destination, ExchangeDefinition, VhostDefinition},
    ids::{QueueId, Seq, Timestamp},
    message::Message,
    queue::Deadlines,
};
use crate::protocol::field::FieldTable;
use crate::storage::{DefinitionKey, Op, ReadRequest, RecoveredQueue, Store, StoreFailure, Target};

#[test]
fn a_confirmed_message_is_there_after_a_crash() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    bench.publish_confirmed(&[(queue, 1)], b"hello", 7);
    bench.told.wait_for_confirm(7);
    let bench = bench.crash();
    let row = RecoveredQueue {
        deadlines: Deadlines::InOrder(Timestamp::NONE),
        id: queue,
        messages: 1,
        bytes: 5,
        low: Seq(1),
        next_seq: Seq(2),
        delivered_through: Seq(0),
        lanes: vec![(0, Seq(1))],
        returned: Vec::new(),
        scheduled: (0, 0),
    };
    assert_eq!(bench.recovered.queues, [row]);
    assert!(!bench.recovered.fresh);
    assert_eq!(bench.read_all(queue), [(1, b"hello".to_vec())]);
}

#[test]
fn what_is_published_and_acked_in_one_group_never_reaches_the_disk() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    bench.sync();
    let before = bench.store.stats();
    let sink: Arc<dyn ConfirmSink> = bench.told.clone();
    let token = ConfirmToken { sink, tag: 3 };
    bench.store.log(&mut vec![
        publish(&[(queue, 1)], message(b"x"), Some(token)),
        ack(queue, 0, &[1]),
    ]);
    bench.told.wait_for_confirm(3);
    let after = bench.store.stats();
    assert_eq!(
        (after.bytes, after.syncs, after.messages),
        (before.bytes, before.syncs, before.messages)
    );
    assert_eq!(after.holes, 1);
    assert_eq!(bench.seqs(queue), [0_u64; 0]);
}

#[test]
fn a_hole_in_the_middle_of_a_page_stays_a_hole() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    let mut ops: Vec<_> = (1..=6)
        .map(|seq| publish(&[(queue, seq)], message(b"x"), None))
        .collect();
    ops.push(ack(queue, 0, &[1, 3, 6]));
    bench.store.log(&mut ops);
    assert_eq!(bench.seqs(queue), [2, 4, 5]);
    let bench = bench.reopen();
    assert_eq!(bench.seqs(queue), [2, 4, 5]);
    assert_eq!(bench.recovered.queues[0].messages, 3);
    bench.ack(queue, &[2, 4, 5]);
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn acks_in_any_order_survive_and_unknown_ones_are_ignored() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    let mut ops: Vec<_> = (1..=200)
        .map(|seq| publish(&[(queue, seq)], message(b"abc"), None))
        .collect();
    bench.store.log(&mut ops);
    bench.sync();
    bench.ack(queue, &[1, 2, 3, 50, 7, 7, 199, 999, 0]);
    bench.ack(QueueId(12345), &[1]);
    let left: Vec<u64> = (1..=200)
        .filter(|seq| ![1, 2, 3, 50, 7, 199].contains(seq))
        .collect();
    assert_eq!(bench.seqs(queue), left);
    let bench = bench.crash();
    assert_eq!(bench.seqs(queue), left);
    assert_eq!(
        (
            bench.recovered.queues[0].messages,
            bench.recovered.queues[0].bytes
        ),
        (194, 582)
    );
    assert_eq!(bench.recovered.queues[0].low, Seq(4));
    // Acked again after the restart: known now, and gone.
    bench.ack(queue, &[50, 4]);
    bench.ack(queue, &left);
    let bench = bench.reopen();
    assert_eq!(bench.recovered.queues[0].messages, 0);
    assert_eq!(bench.recovered.queues[0].low, Seq(201));
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn a_fan_out_stores_its_body_once_and_drops_it_with_the_last_reference() {
    let bench = Bench::new();
    let queues: Vec<_> = (0..10).map(|n| bench.queue(&format!("q{n}"))).collect();
    let targets: Vec<_> = queues.iter().map(|queue| (*queue, 1)).collect();
    bench.sync();
    let before = bench.store.stats().bytes;
    let body = vec![9; 20_000];
    bench.publish(&targets, &body);
    bench.sync();
    assert!(
        bench.store.stats().bytes - before < 30_000,
        "ten queues, one body"
    );
    let bench = bench.reopen();
    for queue in &queues {
        assert_eq!(bench.read_all(*queue), [(1, body.clone())]);
    }
    for queue in &queues[1..] {
        bench.ack(*queue, &[1]);
    }
    let bench = bench.crash();
    assert_eq!(bench.read_all(queues[0]), [(1, body)]);
    bench.ack(queues[0], &[1]);
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn large_bodies_come_back_in_whole() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    let bodies: Vec<Vec<u8>> = [65_537, 300_000, 1 << 20, (1 << 20) + 1, 3_000_000]
        .iter()
        .map(|len| (0..=252).cycle().take(*len).collect())
        .collect();
    for (seq, body) in (1..).zip(&bodies) {
        bench.publish_confirmed(&[(queue, seq)], body, seq);
    }
    bench.log(publish(
        &[(queue, 6)],
        Message::with_large_body(&parts(), Vec::<Bytes>::new(), &mut Vec::new()),
        None,
    ));
    bench.told.wait_for_confirm(5);
    let bench = bench.crash();
    let found = bench.read_all(queue);
    assert_eq!(found.len(), 6);
    assert!(found.iter().zip(&bodies).all(|((_, found), body)| found == body));
    assert_eq!(found[5].1, b"");
    let total: usize = bodies.iter().map(Vec::len).sum();
    assert_eq!(bench.recovered.queues[0].bytes, total as u64);
    bench.ack(queue, &[1, 2, 3, 4, 5, 6]);
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn definitions_of_every_kind_come_back_until_they_are_removed() {
    let binding = BindingDefinition {
        vhost: "/".into(),
        source: "ex".into(),
        destination: Destination::Queue("q".into()),
        routing_key: "a.*".into(),
        arguments: FieldTable::default(),
    };
    let to_exchange = BindingDefinition {
        destination: Destination::Exchange("q".into()),
        ..binding.clone()
    };
    let exchange = ExchangeDefinition {
        vhost: "/".into(),
        name: "ex".into(),
        kind: "topic".into(),
        durable: true,
        auto_delete: false,
        internal: true,
        arguments: FieldTable::default(),
    };
    let definitions = [
        Definition::Vhost(VhostDefinition::new("/")),
        Definition::Exchange(exchange),
        Definition::Binding(to_exchange),
        Definition::Binding(binding.clone()),
    ];
    let bench = Bench::new();
    assert!(bench.recovered.fresh);
    for definition in &definitions {
        bench
            .outcome(|done| Op::Define {
                definition: definition.clone(),
                done: Some(done),
            })
            .unwrap();
    }
    let bench = bench.crash();
    assert_eq!(bench.recovered.definitions.len(), 4);
    assert!(
        definitions
            .iter()
            .all(|definition| bench.recovered.definitions.contains(definition))
    );
    let key = DefinitionKey::Binding(binding.clone());
    bench
        .outcome(|done| Op::Undefine {
            key,
            done: Some(done),
        })
        .unwrap();
    let bench = bench.crash();
    assert_eq!(bench.recovered.definitions.len(), 3);
    assert!(
        !bench
            .recovered
            .definitions
            .contains(&Definition::Binding(binding))
    );
}

#[test]
fn a_deleted_queue_takes_its_messages_along_and_a_new_one_starts_empty() {
    let bench = Bench::new();
    let old = bench.queue("q");
    for seq in 1..=300 {
        bench.publish(&[(old, seq)], &[1; 700]);
    }
    bench.publish(&[(old, 301)], &vec![2; 200_000]);
    let bench = bench.reopen();
    bench.log(undefine("q", old));
    let new = bench.queue("q");
    assert_ne!(old, new);
    bench.publish(&[(old, 302)], b"to nowhere");
    bench.publish(&[(new, 1)], b"new");
    bench.sync();
    let bench = bench.crash();
    assert_eq!(bench.seqs(old), [0_u64; 0]);
    assert_eq!(bench.read_all(new), [(1, b"new".to_vec())]);
    assert_eq!(bench.recovered.queues.len(), 1);
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn a_publish_to_a_deleted_queue_is_confirmed_without_a_write() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    let sink: Arc<dyn ConfirmSink> = bench.told.clone();
    let token = ConfirmToken { sink, tag: 1 };
    bench.store.log(&mut vec![
        publish(&[(queue, 1)], message(b"x"), Some(token)),
        undefine("q", queue),
    ]);
    bench.told.wait_for_confirm(1);
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn a_purge_removes_its_range_and_nothing_else_before_and_after_a_restart() {
    for restart in [false, true] {
        let mut bench = Bench::new();
        let queue = bench.queue("q");
        for page in 0..10 {
            let seqs = page * 10 + 1..=page * 10 + 10;
            bench.store.log(
                &mut seqs
                    .map(|seq| publish(&[(queue, seq)], message(b"ab"), None))
                    .collect(),
            );
            bench.sync();
        }
        bench.ack(queue, &[1, 2, 45]);
        if restart {
            bench = bench.reopen();
        }
        let range = (Seq(25), Seq(77));
        bench.log(Op::Purge {
            queue,
            ranges: smallvec::smallvec![(0, range.0, range.1)],
            count: 51,
            bytes: 102,
        });
        let left: Vec<u64> = (3..25).chain(77..=100).collect();
        assert_eq!(bench.seqs(queue), left, "restart {restart}");
        let bench = bench.crash();
        assert_eq!(bench.seqs(queue), left, "restart {restart}");
        assert_eq!(
            (
                bench.recovered.queues[0].messages,
                bench.recovered.queues[0].bytes
            ),
            (46, 92)
        );
        bench.store.close();
        check(bench.dir.path());
    }
}

#[test]
fn a_purge_of_a_deep_queue_nobody_looked_at_counts_its_bodies_down() {
    let bench = Bench::new();
    let (queue, other) = (bench.queue("q"), bench.queue("other"));
    for seq in 1..=100 {
        bench.publish(&[(queue, seq), (other, seq)], &vec![1; 9_000]);
    }
    let bench = bench.reopen();
    bench.log(Op::Purge {
        queue,
        ranges: smallvec::smallvec![(0, Seq(1), Seq(101))],
        count: 100,
        bytes: 900_000,
    });
    assert_eq!(bench.seqs(queue), [0_u64; 0]);
    assert_eq!(bench.seqs(other).len(), 100);
    let bench = bench.reopen();
    assert_eq!(
        bench
            .recovered
            .queues
            .iter()
            .find(|row| row.id == queue)
            .unwrap()
            .messages,
        0
    );
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn lanes_are_separate_and_a_seq_is_found_in_its_own() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    for (seq, lane) in [(1, 3), (2, 0), (3, 3), (4, 9)] {
        let targets = smallvec::smallvec![Target {
            queue,
            lane,
            seq: Seq(seq),
            expires_at: Timestamp::NONE,
        }];
        bench.log(Op::Publish {
            message: message(&[lane]),
            targets,
            confirm: None,
        });
    }
    bench.log(ack(queue, 0, &[1]));
    bench.log(ack(queue, 3, &[1]));
    let bench = bench.reopen();
    let lanes = &bench.recovered.queues[0].lanes;
    assert_eq!(*lanes, [(0, Seq(2)), (3, Seq(3)), (9, Seq(4))]);
    assert_eq!(bench.read(queue, 3, 0, 100, 1000), [(3, vec![3])]);
    assert_eq!(bench.read(queue, 9, 0, 100, 1000), [(4, vec![9])]);
    assert_eq!(bench.read(queue, 1, 0, 100, 1000), []);
    bench.store.close();
    check(bench.dir.path());
}

#[test]
fn a_read_keeps_to_its_range_and_its_size() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    for seq in 1..=40 {
        bench.publish(&[(queue, seq)], &[0; 1000]);
        if seq % 10 == 0 {
            bench.sync();
        }
    }
    let request = ReadRequest {
        queue,
        lane: 0,
        from: Seq(15),
        until: Seq(35),
        max_bytes: 5_000,
        settled: true,
    };
    let loaded = bench.read_some(request).unwrap();
    let seqs: Vec<u64> = loaded.entries.iter().map(|(seq, _)| seq.0).collect();
    assert_eq!(seqs.first(), Some(&15));
    assert!(seqs.len() < 20 && loaded.next.is_some_and(|next| next.0 == seqs[seqs.len() - 1] + 1));
    assert_eq!(bench.read(queue, 0, 15, 35, 1).len(), 20);
    assert_eq!(body_of(&loaded.entries[0].1), [0; 1000]);
}

#[test]
fn delivered_rides_on_the_next_row() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    bench.publish(&[(queue, 1)], b"a");
    bench.sync();
    bench.log(Op::Delivered {
        queue,
        through: Seq(1),
    });
    bench.publish(&[(queue, 2)], b"b");
    let bench = bench.reopen();
    assert_eq!(bench.recovered.queues[0].delivered_through, Seq(1));
}

#[test]
fn a_transaction_is_in_one_group() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    bench.publish(&[(queue, 1)], b"a");
    let ops = vec![
        publish(&[(queue, 2)], message(b"b"), None),
        ack(queue, 0, &[1]),
        publish(&[(queue, 3)], message(b"c"), None),
    ];
    bench
        .outcome(|done| Op::Tx {
            ops,
            done: Some(done),
        })
        .unwrap();
    assert_eq!(bench.crash().seqs(queue), [2, 3]);
}

#[test]
fn queue_ids_are_never_given_twice() {
    let mut bench = Bench::new();
    let mut highest = 0;
    for crash in [true, false, true] {
        for _ in 0..1_500 {
            let id = bench.store.next_queue_id();
            assert!(id.0 > highest);
            highest = id.0;
        }
        bench.log(define("q", QueueId(highest)));
        bench.sync();
        bench = if crash { bench.crash() } else { bench.reopen() };
    }
}

#[test]
fn many_threads_share_groups_and_each_is_confirmed_in_order() {
    const THREADS: u64 = 8;
    const EACH: u64 = 400;
    let bench = Bench::new();
    let queues: Vec<_> = (0..THREADS).map(|n| bench.queue(&format!("q{n}"))).collect();
    let sinks: Vec<_> = queues.iter().map(|_| Arc::new(Told::default())).collect();
    thread::scope(|scope| {
        for (queue, sink) in queues.iter().zip(&sinks) {
            let store = bench.store.clone();
            scope.spawn(move || {
                for seq in 1..=EACH {
                    let token = ConfirmToken {
                        sink: sink.clone(),
                        tag: seq,
                    };
                    store.log(&mut vec![Op::Publish {
                        message: message(&seq.to_be_bytes()),
                        targets: one(*queue, seq),
                        confirm: Some(token),
                    }]);
                    if seq % 20 == 0 {
                        sink.wait_for_confirm(seq);
                    }
                }
            });
        }
    });
    for sink in &sinks {
        assert_eq!(sink.confirmed(), (1..=EACH).collect::<Vec<_>>());
    }
    let stats = bench.store.stats();
    assert_eq!(stats.confirms, THREADS * EACH);
    assert!(stats.syncs < THREADS * EACH / 2, "{} syncs", stats.syncs);
    let bench = bench.crash();
    for queue in queues {
        assert_eq!(bench.seqs(queue), (1..=EACH).collect::<Vec<_>>());
    }
}

#[test]
fn committed_is_told_for_every_queue_of_a_group() {
    let bench = Bench::new();
    let (first, second) = (bench.queue("a"), bench.queue("b"));
    bench.publish(&[(first, 1), (second, 1)], b"x");
    bench.publish(&[(second, 2)], b"x");
    bench.sync();
    let committed = bench.told.state.lock().committed.clone();
    assert!(committed.contains(&(first, Seq(1))));
    assert_eq!(committed.last(), Some(&(second, Seq(2))));
}

#[test]
fn an_op_bigger_than_a_group_is_not_split() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.group_max_bytes = 10_000;
    let bench = Bench::with(dir, options);
    let queue = bench.queue("q");
    let mut ops: Vec<_> = (1..=100)
        .map(|seq| publish(&[(queue, seq)], message(&[0; 1000]), None))
        .collect();
    ops.push(Op::Tx {
        ops: (101..=150)
            .map(|seq| publish(&[(queue, seq)], message(&[0; 1000]), None))
            .collect(),
        done: None,
    });
    bench.store.log(&mut ops);
    bench.sync();
    assert_eq!(bench.seqs(queue).len(), 150);
    assert!(bench.store.stats().groups >= 11);
}

#[test]
fn closing_stores_what_was_logged_and_later_ops_are_never_done() {
    let bench = Bench::new();
    let queue = bench.queue("q");
    let ops: SmallVec<[u64; 8]> = (1..=5).collect();
    for seq in ops {
        bench.publish(&[(queue, seq)], b"x");
    }
    bench.store.close();
    bench.store.close();
    let (store, recovered) = Store::open(options(bench.dir.path())).unwrap();
    assert_eq!(recovered.queues[0].messages, 5);
    drop(store);
    let late = bench.outcome(|done| Op::Barrier { done });
    assert_eq!(late, Err(StoreFailure::Closed));
}

#[test]
fn deadlines_are_given_back_and_their_order_is_known() {
    let bench = Bench::new();
    let (plain, ordered, mixed) = (bench.queue("plain"), bench.queue("ordered"), bench.queue("mixed"));
    let put = |queue, deadlines: &[u64]| {
        for (seq, deadline) in (1..).zip(deadlines) {
            let targets = smallvec::smallvec![Target {
                queue,
                lane: 0,
                seq: Seq(seq),
                expires_at: Timestamp(*deadline),
            }];
            bench.log(Op::Publish {
                message: message(b"m"),
                targets,
                confirm: None,
            });
        }
    };
    put(plain, &[0, 0]);
    put(ordered, &[5, 5, 9]);
    put(mixed, &[0, 7, 0, 3]);
    let bench = bench.reopen();
    let found = |queue| {
        let rows = &bench.recovered.queues;
        rows.iter().find(|row| row.id == queue).unwrap().deadlines
    };
    assert_eq!(found(plain), Deadlines::InOrder(Timestamp::NONE));
    assert_eq!(found(ordered), Deadlines::InOrder(Timestamp(9)));
    assert_eq!(found(mixed), Deadlines::Mixed);
    let request = ReadRequest {
        queue: mixed,
        lane: 0,
        from: Seq(1),
        until: Seq(5),
        max_bytes: 1000,
        settled: true,
    };
    let loaded = bench.read_some(request).unwrap();
    assert_eq!(loaded.deadlines, [(Seq(2), Timestamp(7)), (Seq(4), Timestamp(3))]);
}
