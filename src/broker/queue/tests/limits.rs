//! Scripts about full queues and dead letters (amqp-behaviour 4.6, 4.7).

use super::bench::check;

/// Proves: LEN-001
#[test]
fn a_full_queue_drops_its_oldest() {
    check(
        "settings max-length=2 | publish a b c | counts | get | get | get",
        "ready 2 unacked 0 consumers 0 | got b 1 | got c 0 | empty",
    );
    check(
        "settings max-length=2 dlx | store a b c d",
        "dead a maxlen | dead b maxlen",
    );
    check("settings max-length=1 | store a b | store c", "erase a | erase b");
}

/// Proves: LEN-002
#[test]
fn bytes_of_bodies_are_limited_too() {
    // A large body has 786433 octets.
    check(
        "settings max-length-bytes=1600000 dlx | publish a b c d | store-large e f | store-large g",
        "dead a maxlen | dead b maxlen | dead c maxlen | dead d maxlen | dead e maxlen",
    );
    check(
        "settings max-length-bytes=10 dlx | store-large a",
        "dead a maxlen",
    );
}

/// Proves: LEN-003
#[test]
fn what_is_handed_out_does_not_count() {
    check(
        "settings max-length=1 dlx | publish a | get | publish b | requeue get a",
        "got a 0 | dead a maxlen",
    );
    check(
        "settings max-length=1 overflow=reject-publish | publish a | get | publish b | requeue get a | publish c | counts",
        "got a 0 | full c | ready 2 unacked 0 consumers 0",
    );
}

/// Proves: LEN-004
#[test]
fn a_full_queue_refuses_when_told_to() {
    check(
        "settings max-length=2 overflow=reject-publish dlx | publish a b c | get | publish d",
        "full c | got a 1",
    );
    check(
        "settings max-length=1 overflow=reject-publish-dlx dlx | store a b | get no-ack",
        "full b | dead b maxlen | erase a | got a 0",
    );
    check(
        "settings max-length=0 overflow=reject-publish | consume x | publish a",
        "full a",
    );
}

/// Proves: LEN-005
#[test]
fn a_lower_limit_takes_effect_at_once() {
    check(
        "publish a b c d | settings max-length=3 dlx | settings max-length=1 dlx",
        "dead a maxlen | dead b maxlen | dead c maxlen",
    );
    check(
        "publish a b c | settings max-length=1 overflow=reject-publish | counts",
        "ready 3 unacked 0 consumers 0",
    );
}

/// Proves: LEN-006
#[test]
fn a_queue_that_keeps_nothing_still_hands_over() {
    check(
        "settings max-length=0 dlx | consume x prefetch=1 | publish a | publish b | ack x a | publish c",
        "deliver x a | dead b maxlen | deliver x c",
    );
}

#[test]
fn a_full_queue_with_a_free_consumer_is_not_full() {
    check(
        "settings max-length=1 overflow=reject-publish | consume x prefetch=3 | publish a b c d e",
        "deliver x a | deliver x b | deliver x c | full e",
    );
}

/// Proves: DLX-001
#[test]
fn rejected_messages_are_dead_lettered_in_order() {
    check(
        "settings dlx | store a b c | consume x | reject x b a | reject x c",
        "deliver x a | deliver x b | deliver x c | dead b rejected | dead a rejected | dead c rejected",
    );
    check(
        "store a | get | reject get a | counts",
        "got a 0 | erase a | ready 0 unacked 0 consumers 0",
    );
}

/// Proves: DLX-011
#[test]
fn purged_and_deleted_messages_are_not_dead_lettered() {
    check("settings dlx | publish a b | purge", "purged 2");
    check(
        "settings dlx | publish a | get | delete | reject get a",
        "got a 0 | deleted 0",
    );
}

#[test]
fn the_excess_of_a_deep_queue_is_read_before_it_goes() {
    check(
        "store-large a b c d e | commit e | get no-ack | get no-ack | settings max-length=1 | answer",
        "erase a | got a 4 | erase b | got b 3 | read | erase c | erase d",
    );
}
