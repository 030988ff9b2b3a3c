//! Scripts about messages that come back: quorum queues, limits, waits (amqp-behaviour 4.3). `fail-back` is a reject with
//! requeue or a lost consumer, `requeue` a nack.

use super::bench::check;

/// Proves: QQ-004, QQ-005
#[test]
fn a_message_may_fail_as_often_as_the_limit_says() {
    let attempt = " | get | fail-back get a";
    let script = format!("settings queue-type=quorum dlx | store a{}", attempt.repeat(21));
    let first = "got a 0 | ";
    let again = "got a redelivered 0 | ".repeat(20);
    check(&script, &format!("{first}{again}dead a delivery_limit"));
    check(
        "settings queue-type=quorum delivery-limit=1 dlx | store a | get | requeue get a | get | requeue get a | get \
         | fail-back get a | get | fail-back get a",
        "got a 0 | got a redelivered 0 | got a redelivered 0 | got a redelivered 0 | dead a delivery_limit",
    );
    // Every type can have a limit.
    check(
        "settings delivery-limit=0 dlx | store a | get | fail-back get a",
        "got a 0 | dead a delivery_limit",
    );
}

/// Proves: QQ-007
#[test]
fn what_came_back_goes_first_in_the_order_of_return() {
    check(
        "settings queue-type=quorum | store a b c | get | get | requeue get b | requeue get a | get | get | get",
        "got a 2 | got b 1 | got b redelivered 2 | got a redelivered 1 | got c 0",
    );
    check(
        "settings queue-type=quorum | store a:9 b | get | requeue get a:9 | store c:20 | get | get | get",
        "got a:9 1 | got a:9 redelivered 2 | got c:20 1 | got b 0",
    );
}

/// Proves: QQ-008
#[test]
fn quorum_queues_have_priorities_undeclared() {
    check(
        "settings queue-type=quorum | store a b:5 c:3 d:31 e:200 | get | get | get | get | get",
        "got d:31 4 | got e:200 3 | got b:5 2 | got a 1 | got c:3 0",
    );
}

/// Proves: QQ-014
#[test]
fn a_failed_message_waits_for_its_next_attempt_and_holds_nobody_up() {
    check(
        "settings delayed-retry-type=failed delayed-retry-min=10 delayed-retry-max=25 delivery-limit=9 | store a b \
         | get | fail-back get a | counts | next | get | get | requeue get b | get | at 10 | get | fail-back get a \
         | next | at 30 | get | fail-back get a | next",
        "got a 1 | ready 2 unacked 0 consumers 0 | next 10 | got b 1 | empty | got b redelivered 1 | got a redelivered 0 \
         | next 30 | got a redelivered 0 | next 55",
    );
    check(
        "settings queue-type=quorum delayed-retry-type=all delayed-retry-min=5 | consume x | store a | requeue x a | at 5",
        "deliver x a | deliver x a redelivered",
    );
}

#[test]
fn waiting_messages_expire_and_are_purged() {
    check(
        "settings delayed-retry-type=all delayed-retry-min=50 dlx | store a@20 | get | requeue get a@20 | next | at 20",
        "got a@20 0 | next 20 | dead a@20 expired",
    );
    check(
        "settings queue-type=quorum delayed-retry-type=all delayed-retry-min=50 | store a b | get | requeue get a | purge | next",
        "got a 1 | erase b | erase a | purged 2 | never",
    );
}

#[test]
fn counts_and_waits_survive_a_restart() {
    check(
        "settings delivery-limit=1 dlx | store a b | get | fail-back get a | recover a b | settings delivery-limit=1 dlx \
         | get | answer | get | fail-back get a | get",
        "got a 1 | read | got a redelivered 1 | dead a delivery_limit | got b 0",
    );
    let retry = "settings delayed-retry-type=all delayed-retry-min=50";
    check(
        &format!(
            "{retry} | store a b | get | requeue get a | recover a b | {retry} | get | answer | next | get | get | at 50 | get"
        ),
        "got a 1 | read | next 50 | got b 1 | empty | got a redelivered 0",
    );
}

// What waits may take 4 MiB; a large message is three quarters of one.

#[test]
fn many_that_wait_are_left_to_the_store_until_their_time_is_near() {
    let begin =
        "settings delayed-retry-type=all delayed-retry-min=5000 | consume x | store-large a b c d e f g";
    let delivered =
        "deliver x a | deliver x b | deliver x c | deliver x d | deliver x e | deliver x f | deliver x g";
    let again = "deliver x a redelivered | deliver x b redelivered | deliver x c redelivered | deliver x d redelivered \
        | deliver x e redelivered | deliver x f redelivered | deliver x g redelivered";
    check(
        &format!(
            "{begin} | commit g | requeue x a b c d e f g | counts | next | at 4000 | next | answer 3 | answer \
             | counts | next | at 5000 | next"
        ),
        &format!(
            "{delivered} | ready 7 unacked 0 consumers 1 | next 4000 | read | next 5000 | read \
             | ready 7 unacked 0 consumers 1 | next 5000 | {again} | never"
        ),
    );
    // They go when they are committed, and a read that fails is asked for again.
    check(
        &format!(
            "{begin} | requeue x a b c d e f g | next | commit g | next | at 4500 | fail | at 5000 | answer"
        ),
        &format!(
            "{delivered} | next 5000 | next 4000 | read | deliver x a redelivered | deliver x b redelivered | read {}",
            again.trim_start_matches("deliver x a redelivered | deliver x b redelivered")
        ),
    );
    check(
        &format!("{begin} | commit g | requeue x a b c d e f g | purge | counts | next"),
        &format!(
            "{delivered} | erase a | erase b | erase g | erase c | erase d | erase e | erase f | purged 7 \
             | ready 0 unacked 0 consumers 1 | never"
        ),
    );
}
