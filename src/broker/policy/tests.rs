use serde_json::json;

use super::*;

fn policy(name: &str, pattern: &str, definition: Value) -> Policy {
    let Value::Object(definition) = definition else {
        panic!("a definition is an object")
    };
    Policy {
        vhost: "/".into(),
        name: name.into(),
        kind: PolicyKind::User,
        pattern: pattern.to_owned(),
        apply_to: ApplyTo::All,
        priority: 0,
        definition,
    }
}

fn operator(name: &str, definition: Value) -> Policy {
    Policy {
        kind: PolicyKind::Operator,
        ..policy(name, "", definition)
    }
}

fn applied(policies: &Policies, subject: Subject, name: &str) -> Option<String> {
    policies
        .effective(subject, name)
        .and_then(|effective| effective.policy.as_ref().map(|name| name.to_string()))
}

const CLASSIC: Subject = Subject::Queue(QueueType::Classic);
const QUORUM: Subject = Subject::Queue(QueueType::Quorum);

#[test]
fn the_highest_priority_that_matches_and_applies_wins() {
    let mut policies = Policies::default();
    let settings = json!({"max-length": 5});
    for (name, pattern, priority, apply_to) in [
        ("low", ".*", 0, ApplyTo::All),
        ("high", "^a", 5, ApplyTo::Queues),
        ("higher", "b$", 9, ApplyTo::QuorumQueues),
        ("exchanges", "x", 7, ApplyTo::Exchanges),
    ] {
        let made = policy(name, pattern, settings.clone());
        policies
            .set(Policy {
                priority,
                apply_to,
                ..made
            })
            .unwrap();
    }
    let cases = [
        (CLASSIC, "ab", Some("high")),
        (QUORUM, "ab", Some("higher")),
        (CLASSIC, "zb", Some("low")),
        (CLASSIC, "zx", Some("low")),
        (Subject::Exchange, "ax", Some("exchanges")),
        (Subject::Exchange, "a", Some("low")),
    ];
    for (subject, name, expected) in cases {
        assert_eq!(
            applied(&policies, subject, name).as_deref(),
            expected,
            "{subject:?} {name}"
        );
    }
    assert!(policies.clear(PolicyKind::User, "low"));
    assert!(!policies.clear(PolicyKind::User, "low"));
    assert_eq!(applied(&policies, CLASSIC, "z"), None);
}

#[test]
fn a_policy_with_a_setting_the_queue_type_lacks_does_not_apply_at_all() {
    let mut policies = Policies::default();
    policies
        .set(Policy {
            priority: 2,
            ..policy("quorum", "", json!({"delivery-limit": 3, "max-length": 1}))
        })
        .unwrap();
    policies
        .set(Policy {
            priority: 1,
            ..policy("lazy", "", json!({"queue-mode": "lazy"}))
        })
        .unwrap();
    assert_eq!(applied(&policies, CLASSIC, "q").as_deref(), Some("lazy"));
    assert_eq!(applied(&policies, QUORUM, "q").as_deref(), Some("quorum"));
    assert_eq!(applied(&policies, Subject::Queue(QueueType::Stream), "q"), None);
}

#[test]
fn operator_policies_bound_what_users_set() {
    let cases = [
        ("max-length", json!(10), json!(5), json!(5)),
        ("message-ttl", json!(3), json!(5), json!(3)),
        ("delivery-limit", json!(3), json!(5), json!(3)),
        ("delivery-limit", json!(-1), json!(5), json!(5)),
        ("delivery-limit", json!(7), json!(-1), json!(7)),
        ("target-group-size", json!(3), json!(5), json!(5)),
        ("delayed-retry-min", json!(3), json!(5), json!(5)),
        ("delayed-retry-max", json!(3), json!(5), json!(3)),
        (
            "overflow",
            json!("drop-head"),
            json!("reject-publish"),
            json!("reject-publish"),
        ),
    ];
    for (key, users, operators, expected) in cases {
        let user = policy("u", "", json!({key: users}));
        let operator = operator("o", json!({key: operators, "expires": 9}));
        let effective = EffectivePolicy::merge(Some(&user), Some(&operator));
        assert_eq!(effective.definition.get(key), Some(&expected), "{key}");
        assert_eq!(effective.expires_ms, Some(9), "a key of one side is kept");
        assert_eq!(effective.policy.as_deref(), Some("u"));
        assert_eq!(effective.operator_policy.as_deref(), Some("o"));
    }
}

#[test]
fn definitions_are_refused_in_rabbitmqs_words() {
    let cases = [
        (
            json!({"message-ttl": "abc"}),
            "<<\"abc\">> is not a valid message TTL",
        ),
        (json!({"message-ttl": -1}), "-1 is not a valid message TTL"),
        (json!({"expires": 0}), "0 is not a valid queue expiry"),
        (json!({"max-length": 1.5}), "1.5 is not a valid maximum length"),
        (
            json!({"foo": 1}),
            "[{<<\"foo\">>,1}] are not recognised policy settings",
        ),
        (
            json!({"ha-mode": "all"}),
            "[{<<\"ha-mode\">>,<<\"all\">>}] are not recognised policy settings",
        ),
        (json!({}), "no policy provided"),
        (
            json!({"overflow": "x"}),
            "<<\"x\">> is not a valid overflow value",
        ),
        (json!({"max-age": "0D"}), "<<\"0D\">> is not a valid max age"),
        (
            json!({"dead-letter-exchange": [1, {"a": null}]}),
            "[1,[{<<\"a\">>,null}]] is not a valid dead letter exchange name",
        ),
        (
            json!({"stream-filter-size-bytes": 256}),
            "256 is not a valid filter size. Valid range is 16-255",
        ),
    ];
    for (definition, expected) in cases {
        let error = policy("p", "", definition).validate(PolicyRules::default());
        assert_eq!(error.unwrap_err(), expected);
    }
    let both = policy("p", "(", json!({"expires": 0}))
        .validate(PolicyRules::default())
        .unwrap_err();
    assert!(
        both.starts_with("pattern should be regular expression but is invalid: ")
            && both.ends_with("\n0 is not a valid queue expiry"),
        "{both}"
    );
    assert!(
        operator("o", json!({"dead-letter-exchange": "x"}))
            .validate(PolicyRules::default())
            .is_err(),
        "operators only bound"
    );
    for good in [
        json!({"message-ttl": 0, "max-length": 18_446_744_073_709_551_615_u64, "delivery-limit": -1}),
        json!({"max-age": "7D", "alternate-exchange": "", "queue-leader-locator": "balanced"}),
    ] {
        assert_eq!(
            policy("p", "^a.*b", good).validate(PolicyRules::default()),
            Ok(())
        );
    }
    let rules = PolicyRules { ignore_ha: true };
    let mirrored = policy("p", "", json!({"ha-mode": "all", "max-length": 1}));
    assert_eq!(mirrored.validate(rules), Ok(()));
    assert_eq!(
        EffectivePolicy::merge(Some(&mirrored), None).definition,
        *json!({"max-length": 1}).as_object().unwrap()
    );
}

/// A client that cannot send a fraction in an argument writes text; so may a policy.
#[test]
fn retries_are_set_in_numbers_or_in_text() {
    for definition in [
        json!({"delayed-retry-multiplier": 1.5, "delayed-retry-jitter": 0.2, "delayed-retry-schedule": [5, 60]}),
        json!({"delayed-retry-multiplier": "1.5", "delayed-retry-jitter": " 0.2", "delayed-retry-schedule": "5, 60"}),
    ] {
        let policy = policy("p", "", definition);
        assert_eq!(policy.validate(PolicyRules::default()), Ok(()));
        let effective = EffectivePolicy::merge(Some(&policy), None);
        assert_eq!(effective.delayed_retry_multiplier, Some(1.5));
        assert_eq!(effective.delayed_retry_jitter, Some(0.2));
        assert_eq!(effective.delayed_retry_schedule_ms.as_deref(), Some(&[5, 60][..]));
    }
    for (key, wrong) in [
        ("multiplier", "0.5"),
        ("jitter", "x"),
        ("schedule", "5,"),
        ("schedule", ""),
    ] {
        let policy = policy("p", "", json!({format!("delayed-retry-{key}"): wrong}));
        assert!(policy.validate(PolicyRules::default()).is_err(), "{key} {wrong}");
    }
}

#[test]
fn a_pattern_cannot_be_made_expensive() {
    assert!(compile(&"a".repeat(PATTERN_MAX + 1)).is_err());
    assert!(compile("((a{1000}){1000}){1000}").is_err());
    assert!(compile("(?=a)b").is_err(), "look-ahead needs backtracking");
}
