//! Topic exchanges: the specification's table, cell by cell.

use crate::client::{Broker, Channel, access_request, bind, exchange, unbind};

/// Which of `keys` a queue bound with `pattern` gets.
fn matched(channel: &Channel, pattern: &str, keys: &[&str]) -> Vec<String> {
    channel.ok(bind("q", "e", pattern));
    for key in keys {
        channel.publish("e", key, key);
    }
    channel.ok(access_request());
    channel.ok(unbind("q", "e", pattern));
    channel.drain("q")
}

fn check(cases: &[(&str, &[&str], &[&str])]) {
    let broker = Broker::start();
    let channel = broker.channel();
    channel.ok(exchange("e", "topic", ""));
    channel.queue("q");
    for (pattern, matching, others) in cases {
        let keys: Vec<&str> = matching.iter().chain(*others).copied().collect();
        assert_eq!(
            matched(&channel, pattern, &keys),
            *matching,
            "pattern '{pattern}'"
        );
    }
}

/// Proves: RTE-004
#[test]
fn the_table_of_patterns_and_keys_holds() {
    check(&[
        ("#", &["", "a", "a.b", ".", "a..b.c"], &[]),
        ("", &[""], &[".", "a"]),
        ("*", &["a", "abc", "*", "#"], &["", "a.b"]),
        ("*.*", &["a.b", ".", "a."], &["a", "a.b.c", ""]),
        ("a.#", &["a", "a.b", "a.b.c", "a."], &["", "ab", "b.a"]),
        ("#.a", &["a", "x.a", "..a", "a.a"], &["a.x", ""]),
        ("a.*.b", &["a.x.b", "a..b"], &["a.b", "a.x.y.b"]),
        ("#.#", &["", "a", "a.b", "."], &[]),
        ("*.#", &["a", "a.b", "a.b.c", "."], &[""]),
        ("#.*.#", &["a", "a.b", ".", "a.b.c"], &[""]),
        (
            "a.#.b",
            &["a.b", "a.x.b", "a.x.y.b", "a..b"],
            &["a", "b", "a.b.c"],
        ),
        ("a.b", &["a.b"], &["A.b", "a.b.", "a", "a.*"]),
        (
            "*.b.#.d",
            &["a.b.d", "a.b.c.d", "x.b.c.c.d"],
            &["b.d", "a.b.c", "a.c.d"],
        ),
    ]);
}

/// Proves: RTE-005
#[test]
fn an_empty_key_is_no_word() {
    check(&[
        ("", &[""], &["."]),
        ("*", &[], &[""]),
        ("#", &[""], &[]),
        ("#.*", &["."], &[""]),
    ]);
}

/// Proves: RTE-006
#[test]
fn empty_words_are_words() {
    check(&[
        ("a..b", &["a..b"], &["a.b", "a.x.b"]),
        ("a.*.b", &["a..b"], &["a.b"]),
        (".", &["."], &["", "a."]),
        ("a.", &["a."], &["a", "a.b"]),
        ("*.*.*", &["..", "a.b.c", ".b."], &["."]),
    ]);
}

/// Proves: RTE-007
#[test]
fn wildcards_count_only_as_whole_words() {
    check(&[
        ("a*", &["a*"], &["ab", "a", "a.b"]),
        ("foo#", &["foo#"], &["foo", "foobar", "foo.bar"]),
        ("#a.b", &["#a.b"], &["a.b", "x.a.b"]),
        ("**", &["**"], &["a.b", "a"]),
    ]);
}
