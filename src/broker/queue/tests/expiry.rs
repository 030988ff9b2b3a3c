//! Scripts about time: `m@50` is a message with an expiration of 50 ms, `at 20` is 20 ms after the beginning
//! (amqp-behaviour 4.5).

use super::bench::check;

/// Proves: TTL-001
#[test]
fn the_shorter_of_both_times_to_live_counts() {
    check(
        "settings message-ttl=100 dlx | publish a b@50 c@500 | next | at 50 | next | at 99 | at 100 | next | counts",
        "next 50 | dead b@50 expired | next 100 | dead a expired | dead c@500 expired | never \
         | ready 0 unacked 0 consumers 0",
    );
    check("publish a@10 | at 9 | get | get", "got a@10 0 | empty");
    check("publish a@10 | at 11 | get", "empty");
    check("publish a b | next", "never");
}

/// Proves: TTL-002
#[test]
fn an_expired_message_leaves_from_behind_a_live_one() {
    check(
        "settings dlx | publish a b@10 c d@5 e | at 5 | at 10 | counts | get | get | get | get",
        "dead d@5 expired | dead b@10 expired | ready 3 unacked 0 consumers 0 | got a 2 | got c 1 | got e 0 | empty",
    );
    check("store a b@10 c | at 10", "erase b@10");
}

/// Proves: TTL-003
#[test]
fn what_may_not_wait_is_handed_over_or_gone() {
    check(
        "settings message-ttl=0 dlx | consume x prefetch=1 | publish a b",
        "deliver x a | dead b expired",
    );
    check(
        "settings dlx | publish a@0 | counts",
        "dead a@0 expired | ready 0 unacked 0 consumers 0",
    );
}

/// Proves: TTL-004
#[test]
fn what_is_handed_out_does_not_expire_until_it_comes_back() {
    check(
        "settings dlx | publish a@10 b@20 | get | get | at 30 | counts | requeue get a@10 | requeue get b@20",
        "got a@10 1 | got b@20 0 | ready 0 unacked 2 consumers 0 | dead a@10 expired | dead b@20 expired",
    );
    check(
        "publish a@50 b@10 | get | get | requeue get a@50 | requeue get b@10 | at 10 | counts | next",
        "got a@50 1 | got b@10 0 | ready 1 unacked 0 consumers 0 | next 50",
    );
    check(
        "settings message-ttl=10 | publish a | at 5 | publish b | get | at 8 | requeue get a | next | at 10 | next",
        "got a 1 | next 10 | next 15",
    );
}

/// Proves: TTL-005
#[test]
fn another_time_to_live_is_for_later_messages() {
    check(
        "settings message-ttl=100 dlx | publish a | settings message-ttl=10 dlx | publish b | next | at 10 | next \
         | settings dlx | publish c | at 100 | next | counts",
        "next 10 | dead b expired | next 100 | dead a expired | never | ready 1 unacked 0 consumers 0",
    );
}

#[test]
fn priorities_do_not_hide_what_expired() {
    check(
        "priorities 5 | settings message-ttl=10 dlx | publish a:5 b:1 | at 5 | publish c:5 | at 10 | next",
        "dead a:5 expired | dead b:1 expired | next 15",
    );
}

// Three large messages fill the memory of these tests; the first two stay there.

#[test]
fn messages_on_disk_expire_in_order() {
    check(
        "settings message-ttl=10 | store-large a b c d | at 1 | store-large e | commit e | at 10 | answer | next | at 11",
        "erase a | erase b | read | erase c | erase d | next 11 | erase e",
    );
}

#[test]
fn messages_on_disk_expire_wherever_they_stand() {
    check(
        "store-large a b c@10 d e@20 | commit e@20 | next | at 10 | counts | next | at 20 | get | get | get | answer | get | get",
        "next 10 | ready 4 unacked 0 consumers 0 | next 20 | got a 2 | got b 1 | read | got d 0 | empty",
    );
    // To be dead-lettered they are read first.
    check(
        "settings dlx | store-large a b c d@10 e | commit e | at 10 | counts | answer | counts",
        "read | ready 4 unacked 0 consumers 0 | dead d@10 expired | ready 4 unacked 0 consumers 0",
    );
}

#[test]
fn neighbours_on_disk_are_read_together_to_be_dead_lettered() {
    let begin = "settings dlx | store-large a b c@20 d e@10 f@10 g | commit g | at 10";
    check(
        &format!("{begin} | answer | counts | at 20 | answer | counts"),
        "read | dead e@10 expired | dead f@10 expired | ready 5 unacked 0 consumers 0 \
         | read | dead c@20 expired | ready 4 unacked 0 consumers 0",
    );
    // What one answer lacks is asked for again.
    check(
        &format!("{begin} | answer 1 | counts | answer"),
        "read | dead e@10 expired | read | ready 5 unacked 0 consumers 0 | dead f@10 expired",
    );
}

#[test]
fn the_store_hears_of_those_on_disk_later_and_all_at_once() {
    let begin = "store-large a b c@10 d@20 e f@30 | commit f@30";
    check(
        &format!("{begin} | at 10 | next | at 30 | next | at 120011 | next"),
        "next 20 | next 120011 | erase c@10 | erase d@20 | erase f@30 | never",
    );
    // A purge counts what is left of the ranges it names.
    check(
        &format!("{begin} | at 20 | purge | next"),
        "erase c@10 | erase d@20 | erase a | erase b | erase e..f@30 | purged 4 | never",
    );
}

#[test]
fn deadlines_on_disk_are_found_after_a_restart() {
    check(
        "recover a b@30 c d@10 | at 0 | answer 2 | next | answer | next | at 10 | counts | next | consume x | answer | at 30",
        "read | read | next 30 | next 10 | ready 3 unacked 0 consumers 0 | next 30 | read \
         | deliver x a | deliver x b@30 | deliver x c",
    );
}

#[test]
fn a_purge_forgets_deadlines() {
    check("publish a@10 | purge | next | at 20", "purged 1 | never");
    check(
        "publish a@10 b@20 | get | purge | next | requeue get a@10 | next | at 10 | counts",
        "got a@10 1 | purged 1 | never | next 10 | ready 0 unacked 0 consumers 0",
    );
}
