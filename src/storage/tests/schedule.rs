//! Messages that wait for their time are kept in its order, counted, and go with their queue.

use smallvec::smallvec;

use super::{Bench, body_of, define, message, undefine};
use crate::broker::{
    ids::{QueueId, Seq, Timestamp},
    message::Message,
    queue::{ScheduleRead, Turn},
};
use crate::storage::{Op, Target, schedule};

const NAME: &str = "amq.delayed.1";

pub(super) fn holding(bench: &Bench) -> QueueId {
    let id = bench.store.next_queue_id();
    bench.log(define(NAME, id));
    id
}

pub(super) fn publish(bench: &Bench, queue: QueueId, due: u64, seq: u64, message: Message) {
    bench.log(Op::Publish {
        message,
        targets: smallvec![Target {
            queue,
            lane: 0,
            seq: Seq(seq),
            expires_at: Timestamp(due),
        }],
        confirm: None,
    });
}

fn turn(due: u64, seq: u64) -> Turn {
    (Timestamp(due), Seq(seq))
}

fn waiting(bench: &Bench, queue: QueueId) -> Vec<(Turn, Vec<u8>)> {
    let page = bench.store.scheduled_page(queue, turn(0, 0), 100).unwrap();
    page.into_iter()
        .map(|(turn, message)| (turn, body_of(&message)))
        .collect()
}

#[test]
fn they_are_kept_by_time_and_survive_a_crash() {
    let bench = Bench::new();
    let queue = holding(&bench);
    publish(&bench, queue, 500, 1, message(b"late"));
    publish(&bench, queue, 300, 2, message(b"soon"));
    publish(&bench, queue, 300, 3, message(&[7; 300_000]));
    publish(&bench, queue, 100, 4, message(b"gone"));
    bench.log(Op::Unschedule {
        queue,
        turn: turn(100, 4),
        bytes: 4,
    });
    bench.sync();
    let bench = bench.crash();
    let row = &bench.recovered.queues[0];
    assert_eq!((row.scheduled, row.messages), ((3, 300_008), 0));
    assert_eq!(row.next_seq, Seq(5), "numbers are not given twice");
    let found = waiting(&bench, queue);
    let turns: Vec<Turn> = found.iter().map(|(turn, _)| *turn).collect();
    assert_eq!(turns, [turn(300, 2), turn(300, 3), turn(500, 1)]);
    assert_eq!((&found[0].1[..], &found[2].1[..]), (&b"soon"[..], &b"late"[..]));
    assert_eq!(found[1].1, [7; 300_000]);
}

#[test]
fn a_read_ends_at_its_time_and_says_what_comes_next() {
    let bench = Bench::new();
    let queue = holding(&bench);
    for seq in 1..=5 {
        publish(&bench, queue, seq * 100, seq, message(b"m"));
    }
    bench.sync();
    bench.store.close();
    let dir = bench.dir;
    let rocks =
        crate::storage::rocks::Rocks::open(&dir.path().join("db"), &super::options(dir.path())).unwrap();
    let read = |from, until| {
        let until = Timestamp(until);
        schedule::read(&ScheduleRead { queue, from, until }, &rocks).unwrap()
    };
    let loaded = read(turn(200, 2), 400);
    let turns: Vec<Turn> = loaded.entries.iter().map(|(turn, _)| *turn).collect();
    assert_eq!(turns, [turn(200, 2), turn(300, 3)]);
    assert_eq!(loaded.next, Some(turn(400, 4)));
    assert_eq!(read(turn(500, 6), 900).next, None);
}

#[test]
fn they_go_with_their_queue() {
    let bench = Bench::new();
    let queue = holding(&bench);
    publish(&bench, queue, 500, 1, message(b"m"));
    bench.sync();
    bench.log(undefine(NAME, queue));
    bench.sync();
    assert_eq!(waiting(&bench, queue), []);
    let bench = bench.crash();
    assert!(bench.recovered.queues.is_empty());
}
