//! The queue's rules as scripts: commands on the left, all their effects on the right. `model.rs` plays random commands
//! against a plain map.

mod bench;
mod disk;
mod expiry;
mod limits;
mod model;
mod returns;
mod schedule;
mod timed;

use self::bench::check;
use crate::broker::{
    ids::Timestamp,
    queue::{ConsumerOptions, Removed},
};

#[test]
fn a_message_larger_than_all_the_memory_there_is_for_them_can_be_had() {
    let mut bench = bench::Bench::new(true);
    let body = bytes::Bytes::from(vec![0; 4 * 1024 * 1024]);
    let parts = crate::broker::message::MessageParts {
        exchange: b"",
        routing_key: b"a",
        properties: &[0, 0],
        persistent: true,
        priority: 0,
    };
    let message = crate::broker::message::Message::with_large_body(&parts, vec![body], &mut Vec::new());
    let place = bench.queue.enqueue(message.clone(), Timestamp::NONE).unwrap();
    bench.disk.messages.insert((place.lane, place.seq), message);
    let mut removed = Removed::new();
    for _ in 0..3 {
        assert_eq!(bench.queue.dispatch(Timestamp::NONE, &mut removed), None);
        bench.queue.committed(place.seq);
        match bench.queue.get(false, &mut removed) {
            Ok(delivery) => {
                assert_eq!(delivery.unwrap().entry.seq, place.seq);
                return;
            }
            Err(read) => bench.disk.ask(read),
        }
        let paged = bench.disk.answer(1).unwrap();
        bench.queue.paged_in(paged);
    }
    panic!("it never came");
}

#[test]
fn messages_wait_in_order_for_a_consumer() {
    check("publish a b c | counts", "ready 3 unacked 0 consumers 0");
    check(
        "publish a b | consume x | publish c",
        "deliver x a | deliver x b | deliver x c",
    );
    check(
        "publish a b | consume x | counts",
        "deliver x a | deliver x b | ready 0 unacked 2 consumers 1",
    );
}

/// Proves: H48
#[test]
fn consumers_that_hold_too_much_get_no_more_until_they_settle_some() {
    let mut bench = bench::Bench::new(true);
    bench.queue.set_unacked_limit(0);
    bench::check_on(
        bench,
        "consume x | publish a | publish b c | counts | ack x a | counts",
        "deliver x a | ready 2 unacked 1 consumers 1 | deliver x b | deliver x c | ready 0 unacked 2 consumers 1",
    );
}

/// Proves: BAS-031
#[test]
fn equal_consumers_take_turns() {
    check(
        "consume x | consume y | consume z | publish a b c d e",
        "deliver x a | deliver y b | deliver z c | deliver x d | deliver y e",
    );
    // Whose turn it was is remembered from one dispatch to the next.
    check(
        "consume x | consume y | publish a | publish b | publish c",
        "deliver x a | deliver y b | deliver x c",
    );
}

#[test]
fn a_consumer_holds_no_more_than_its_prefetch() {
    check(
        "consume x prefetch=2 | publish a b c d | counts | ack x a | ack x b c",
        "deliver x a | deliver x b | ready 2 unacked 2 consumers 1 | deliver x c | deliver x d",
    );
    check(
        "consume x prefetch=1 | consume y | publish a b c",
        "deliver x a | deliver y b | deliver y c",
    );
    // Without acks there is nothing to count.
    check(
        "consume x prefetch=1 no-ack | publish a b",
        "deliver x a | deliver x b",
    );
}

#[test]
fn a_requeued_message_returns_to_its_old_place() {
    check(
        "publish a b c | consume x prefetch=2 | requeue x a",
        "deliver x a | deliver x b | deliver x a redelivered",
    );
    check(
        "publish a b c d | consume x prefetch=3 | cancel x | requeue x c a | get | get | get | get",
        "deliver x a | deliver x b | deliver x c | unused | got a redelivered 2 | got c redelivered 1 | got d 0 | empty",
    );
    check(
        "publish a b | get | publish c | requeue get a | consume x",
        "got a 1 | deliver x a redelivered | deliver x b | deliver x c",
    );
}

#[test]
fn a_requeue_serves_whoever_is_next() {
    check(
        "consume x prefetch=1 | consume y prefetch=1 | publish a b | requeue x a | ack y b",
        "deliver x a | deliver y b | deliver x a redelivered",
    );
    check(
        "consume x prefetch=1 | publish a | consume y prefetch=1 | cancel x | requeue x a",
        "deliver x a | deliver y a redelivered",
    );
}

/// Proves: BAS-037
#[test]
fn the_highest_priority_with_credit_goes_first() {
    check(
        "consume low | consume high priority=5 prefetch=2 | publish a b c | ack high a | publish d e",
        "deliver high a | deliver high b | deliver low c | deliver high d | deliver low e",
    );
    check(
        "consume x priority=-1 | consume y | consume z | publish a b c",
        "deliver y a | deliver z b | deliver y c",
    );
}

#[test]
fn exclusive_use_is_exclusive() {
    check(
        "consume x exclusive | consume y | consume z exclusive",
        "refused y | refused z",
    );
    check("consume x | consume y exclusive", "refused y");
    check(
        "consume x exclusive | cancel x | consume y | publish a",
        "unused | deliver y a",
    );
}

#[test]
fn only_the_last_consumer_leaves_the_queue_unused() {
    check("consume x | consume y | cancel x | cancel y", "unused");
    check(
        "consume x | consume y | cancel x | cancel x | publish a",
        "deliver y a",
    );
}

#[test]
fn what_a_cancelled_consumer_holds_stays_outstanding() {
    check(
        "consume x | publish a b | cancel x | counts | ack x a | requeue x b | counts",
        "deliver x a | deliver x b | unused | ready 0 unacked 2 consumers 0 | ready 1 unacked 0 consumers 0",
    );
}

#[test]
fn get_tells_what_is_left() {
    check(
        "publish a b | get | get no-ack | get | counts",
        "got a 1 | got b 0 | empty | ready 0 unacked 1 consumers 0",
    );
}

#[test]
fn stored_messages_are_erased_when_they_leave() {
    check("store a | consume x | ack x a", "deliver x a | erase a");
    check(
        "store a | publish b | get no-ack | get no-ack",
        "erase a | got a 1 | got b 0",
    );
    check(
        "consume x no-ack | store a | publish b",
        "erase a | deliver x a | deliver x b",
    );
    check("transient-queue | store a | consume x | ack x a", "deliver x a");
    check(
        "store a | publish b | store c | get | purge",
        "got a 2 | erase c | purged 2",
    );
}

#[test]
fn a_purge_leaves_what_is_handed_out() {
    check(
        "publish a b c | get | purge | counts | requeue get a | get",
        "got a 2 | purged 2 | ready 0 unacked 1 consumers 0 | got a redelivered 0",
    );
}

#[test]
fn a_deleted_queue_tells_its_consumers_and_takes_nothing() {
    check(
        "store a b | consume x prefetch=1 | delete | publish c | ack x a | counts",
        "deliver x a | cancelled x | deleted 1 | lost c | ready 0 unacked 0 consumers 0",
    );
    check(
        "publish a | get | delete | requeue get a | counts",
        "got a 0 | deleted 0 | ready 0 unacked 0 consumers 0",
    );
}

#[test]
fn a_consumer_without_room_waits_and_the_others_do_not() {
    check(
        "consume x | room x 0 | publish a | consume y | publish b | room x 1000000 | resume | publish c d",
        "stalled x | deliver y a | deliver y b | deliver y c | deliver x d",
    );
    // Room of one octet still takes one message: a large one must pass as well.
    check("consume x | room x 1 | publish a b", "deliver x a | stalled x");
}

#[test]
fn the_highest_place_handed_out_is_reported_when_it_rose() {
    check(
        "store a b | delivered | get | delivered | delivered | requeue get a | get | delivered | get | delivered",
        "got a 1 | delivered a | got a redelivered 1 | got b 0 | delivered b",
    );
    check("transient-queue | publish a | get | delivered", "got a 0");
}

// A large message costs a quarter of the memory limit of these tests; the limit is 3 MiB, of which a paged queue keeps
// the first 2 MiB (two large ones) in memory.

#[test]
fn a_deep_queue_leaves_its_middle_to_the_store() {
    check(
        "store-large a b c d e | commit e | counts | get | get | get | answer | get | get | get | get",
        "ready 5 unacked 0 consumers 0 | got a 4 | got b 3 | read | got c 2 | got d 1 | got e 0 | empty",
    );
}

#[test]
fn consumers_read_ahead_before_memory_runs_out() {
    check(
        "store-large a b c d e f | commit f | consume x prefetch=2 | ack x a b | answer 1 | ack x c | answer",
        "deliver x a | deliver x b | read | erase a | erase b | deliver x c | read | erase c | deliver x d | deliver x e",
    );
}

#[test]
fn what_is_not_on_disk_yet_stays_in_memory() {
    // The gap holds nothing, so there is nothing to read.
    check(
        "store-large a b c d e | consume x",
        "deliver x a | deliver x b | deliver x c | deliver x d | deliver x e",
    );
    check(
        "store-large a b c d e | commit c | consume x | answer",
        "deliver x a | deliver x b | read | deliver x c | deliver x d | deliver x e",
    );
}

#[test]
fn messages_committed_during_a_read_are_not_lost() {
    check(
        "store-large a b c d e | commit c | consume x | commit e | answer | answer",
        "deliver x a | deliver x b | read | deliver x c | read | deliver x d | deliver x e",
    );
    check(
        "store-large a b c d e | commit c | get no-ack | get no-ack | get | commit e | answer | get | get | answer | get",
        "erase a | got a 4 | erase b | got b 3 | read | got c 2 | read | got d 1",
    );
}

#[test]
fn transient_messages_keep_their_place_in_a_deep_queue() {
    check(
        "store-large a b c | publish t | store-large d e | publish u | commit e | counts | consume x | answer",
        "ready 7 unacked 0 consumers 0 | deliver x a | deliver x b | read | deliver x c | deliver x t | deliver x d \
         | deliver x e | deliver x u",
    );
}

#[test]
fn a_message_returns_in_front_of_what_is_on_disk() {
    check(
        "store-large a b c d e | commit e | get | get | requeue get b | get | requeue get a b | consume x | answer",
        "got a 4 | got b 3 | got b redelivered 3 | deliver x a redelivered | deliver x b redelivered | read \
         | deliver x c | deliver x d | deliver x e",
    );
}

#[test]
fn a_purge_reaches_what_is_on_disk() {
    check(
        "store-large a b c d e | publish t | commit e | get | purge | counts | store f | get",
        "got a 5 | erase b | erase t | erase c..e | purged 5 | ready 0 unacked 1 consumers 0 | got f 0",
    );
    // An answer that comes too late brings nothing back.
    check(
        "store-large a b c d | commit d | consume x | purge | answer | counts",
        "deliver x a | deliver x b | read | erase c..d | purged 2 | ready 0 unacked 2 consumers 1",
    );
}

#[test]
fn a_failed_read_is_asked_for_again() {
    check(
        "store-large a b c d | commit d | get | get | get | fail | get | answer | get",
        "got a 3 | got b 2 | read | read | got c 1",
    );
}

#[test]
fn a_recovered_queue_reads_from_the_store_and_marks_what_was_handed_out() {
    check(
        "recover a b c delivered=b | counts | consume x | answer | delivered | store d",
        "ready 3 unacked 0 consumers 0 | read | deliver x a redelivered | deliver x b redelivered | deliver x c \
         | delivered c | deliver x d",
    );
    check("recover | get | counts", "empty | ready 0 unacked 0 consumers 0");
}

/// Proves: PRI-001, PRI-003
#[test]
fn higher_levels_go_first_and_each_keeps_its_order() {
    check(
        "priorities 3 | publish a b:1 c:3 d:1 e:7 f | consume x prefetch=5 | requeue x b:1 | ack x c:3 e:7",
        "deliver x c:3 | deliver x e:7 | deliver x b:1 | deliver x d:1 | deliver x a | deliver x b:1 redelivered \
         | deliver x f",
    );
    check(
        "priorities 9 | publish a:2 b:2 | get | publish c:2 d:5 | requeue get a:2 | get | get | get | get",
        "got a:2 1 | got d:5 3 | got a:2 redelivered 2 | got b:2 1 | got c:2 0",
    );
    // Without priorities, and with one level, a priority means nothing.
    check("publish a b:9 | get | get", "got a 1 | got b:9 0");
    check("priorities 0 | publish a b:9 | get | get", "got a 1 | got b:9 0");
}

#[test]
fn every_level_of_a_deep_queue_has_its_own_middle_on_disk() {
    check(
        "priorities 1 | store-large a b c A:1 B:1 C:1 | commit C:1 | counts | get no-ack | get no-ack | answer | get no-ack \
         | get no-ack | get | get",
        "ready 6 unacked 0 consumers 0 | erase A:1 | got A:1 5 | read | erase B:1 | got B:1 4 | erase C:1 | got C:1 3 \
         | got a 2 | read",
    );
}

#[test]
fn a_purge_reaches_every_level_on_disk() {
    check(
        "priorities 1 | store-large a b c A:1 B:1 C:1 | commit C:1 | get | purge | counts | store d:1 | get",
        "got A:1 5 | erase a | erase B:1..c | purged 5 | ready 0 unacked 1 consumers 0 | got d:1 0",
    );
}

#[test]
fn a_recovered_queue_knows_its_levels() {
    check(
        "recover a b:4 c d:4 delivered=b:4 | counts | get | answer | get | get | get | answer | get \
         | get no-ack | get",
        "ready 4 unacked 0 consumers 0 | read | got b:4 redelivered 3 | got d:4 2 | read | got a redelivered 1 \
         | erase c | got c 0 | empty",
    );
}

#[test]
fn levels_nobody_uses_cost_nothing() {
    let mut bench = bench::Bench::new(true);
    bench.queue.set_max_priority(255);
    assert_eq!(bench.queue.lanes.count(), 1);
    for priority in [0, 7, 7, 255] {
        bench.queue.enqueue(
            bench::message(&format!("m:{priority}"), false, false),
            Timestamp::NONE,
        );
    }
    assert_eq!(bench.queue.lanes.count(), 3);
}

/// Proves: SAC-001
#[test]
fn a_single_active_consumer_is_followed_by_the_next_in_rank() {
    check(
        "single-active | consume x | consume y | consume z priority=1 | consume u exclusive | publish a b | cancel x \
         | publish c | cancel z | publish d | cancel y | publish e",
        "refused u | deliver x a | deliver x b | deliver z c | deliver y d | unused",
    );
    // What the active one has no credit for waits: nobody else is asked.
    check(
        "single-active | consume x prefetch=1 | consume y | publish a b | counts | ack x a | cancel y | cancel x",
        "deliver x a | ready 1 unacked 1 consumers 2 | deliver x b | unused",
    );
    // A consumer that waits may leave; one that comes late and ranks higher waits all the same.
    check(
        "single-active | consume x | consume y | cancel y | consume z priority=9 | publish a | get",
        "deliver x a | empty",
    );
}

/// Proves: SAC-001
#[test]
fn a_single_active_consumer_gives_way_to_one_of_a_higher_priority() {
    check(
        "single-active yielding | consume x prefetch=2 | publish a b | consume y priority=5 | publish c | counts | ack x a \
         | ack x b | cancel y | publish d",
        "deliver x a | deliver x b | ready 1 unacked 2 consumers 2 | deliver y c | deliver x d",
    );
    // What it returns is for the other.
    check(
        "single-active yielding | consume x | publish a | consume y priority=1 | consume z priority=1 | requeue x a | ack y a \
         | publish b",
        "deliver x a | deliver y a redelivered | deliver y b",
    );
    // The other may leave before its turn.
    check(
        "single-active yielding | consume x | publish a | consume y priority=1 | publish b | cancel y | publish c",
        "deliver x a | deliver x b | deliver x c",
    );
    check(
        "single-active yielding | consume x no-ack | consume y priority=1 | publish a | cancel y | consume z | publish b",
        "deliver y a | deliver x b",
    );
}

#[test]
fn consumers_come_and_go_without_a_trace() {
    let mut bench = bench::Bench::new(true);
    let options = ConsumerOptions {
        no_ack: true,
        prefetch: 0,
        exclusive: false,
        priority: 0,
    };
    let stay = bench.queue.consume(options, bench.probe()).unwrap();
    for priority in 0..10_000 {
        let options = ConsumerOptions {
            priority: priority % 7,
            ..options
        };
        let id = bench.queue.consume(options, bench.probe()).unwrap();
        bench.queue.cancel(id);
    }
    assert!(bench.queue.consumers.line_len() < 100);
    bench
        .queue
        .enqueue(bench::message("a", false, false), Timestamp::NONE);
    bench.queue.dispatch(Timestamp::NONE, &mut Removed::new());
    assert_eq!(bench.wire.lock().delivered[0].0, stay);
}
