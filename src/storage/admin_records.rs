//! What operators set, as values of the `meta` family: vhosts, users, permissions, policies, parameters. `records.rs`
//! writes the head and the checksum; JSON values are kept as their text.

use serde_json::Value;

use crate::broker::{
    definition::VhostDefinition,
    limits::{Limit, UserLimits, VhostLimits},
    parameter::{GlobalParameter, Parameter},
    permission::{Permission, TopicPermission},
    policy::{ApplyTo, Policy, PolicyKind},
    user::{HashingAlgorithm, PasswordHash, User},
};
use crate::storage::{
    codec::{Cursor, put_long, put_text},
    records::name,
};

const PROTECTED: u8 = 1;
const HAS_QUEUE_TYPE: u8 = 2;

pub(super) fn put_vhost(out: &mut Vec<u8>, vhost: &VhostDefinition) {
    let queue_type = vhost.default_queue_type.as_deref();
    let protected = u8::from(vhost.protected) * PROTECTED;
    out.push(protected | (u8::from(queue_type.is_some()) * HAS_QUEUE_TYPE));
    put_text(out, &vhost.name);
    put_long(out, vhost.description.as_bytes());
    put_list(out, &vhost.tags);
    put_long(out, queue_type.unwrap_or("").as_bytes());
    put_limits(out, [vhost.limits.max_connections, vhost.limits.max_queues]);
}

pub(super) fn vhost(cursor: &mut Cursor<'_>) -> Option<VhostDefinition> {
    let flags = cursor.u8()?;
    let name = name(cursor)?;
    let (description, tags) = (long_text(cursor)?, list(cursor)?);
    let queue_type = long_text(cursor)?;
    let [max_connections, max_queues] = limits(cursor)?;
    Some(VhostDefinition {
        name,
        description,
        tags,
        default_queue_type: (flags & HAS_QUEUE_TYPE != 0).then_some(queue_type),
        limits: VhostLimits {
            max_connections,
            max_queues,
        },
        protected: flags & PROTECTED != 0,
    })
}

pub(super) fn put_user(out: &mut Vec<u8>, user: &User) {
    put_text(out, &user.name);
    put_text(out, user.password.algorithm.name());
    put_long(out, &user.password.bytes);
    put_list(out, &user.tags);
    put_limits(out, [user.limits.max_connections, user.limits.max_channels]);
}

pub(super) fn user(cursor: &mut Cursor<'_>) -> Option<User> {
    let name = name(cursor)?;
    let algorithm = HashingAlgorithm::parse(cursor.text()?)?;
    let bytes = cursor.long()?.to_vec();
    let tags = list(cursor)?;
    let [max_connections, max_channels] = limits(cursor)?;
    Some(User {
        name,
        password: PasswordHash { algorithm, bytes },
        tags,
        limits: UserLimits {
            max_connections,
            max_channels,
        },
    })
}

pub(super) fn put_permission(out: &mut Vec<u8>, permission: &Permission) {
    put_text(out, &permission.user);
    put_text(out, &permission.vhost);
    for pattern in [&permission.configure, &permission.write, &permission.read] {
        put_long(out, pattern.as_bytes());
    }
}

pub(super) fn permission(cursor: &mut Cursor<'_>) -> Option<Permission> {
    Some(Permission {
        user: name(cursor)?,
        vhost: name(cursor)?,
        configure: long_text(cursor)?,
        write: long_text(cursor)?,
        read: long_text(cursor)?,
    })
}

pub(super) fn put_topic_permission(out: &mut Vec<u8>, topic: &TopicPermission) {
    put_text(out, &topic.user);
    put_text(out, &topic.vhost);
    put_text(out, &topic.exchange);
    put_long(out, topic.write.as_bytes());
    put_long(out, topic.read.as_bytes());
}

pub(super) fn topic_permission(cursor: &mut Cursor<'_>) -> Option<TopicPermission> {
    Some(TopicPermission {
        user: name(cursor)?,
        vhost: name(cursor)?,
        exchange: name(cursor)?,
        write: long_text(cursor)?,
        read: long_text(cursor)?,
    })
}

pub(super) fn put_policy(out: &mut Vec<u8>, policy: &Policy) {
    out.push(u8::from(policy.kind == PolicyKind::Operator));
    put_text(out, &policy.vhost);
    put_text(out, &policy.name);
    put_long(out, policy.pattern.as_bytes());
    put_text(out, policy.apply_to.name());
    out.extend_from_slice(&policy.priority.to_le_bytes());
    put_json(out, &Value::Object(policy.definition.clone()));
}

pub(super) fn policy(cursor: &mut Cursor<'_>) -> Option<Policy> {
    let kind = match cursor.u8()? {
        0 => PolicyKind::User,
        1 => PolicyKind::Operator,
        _ => return None,
    };
    let (vhost, name) = (name(cursor)?, name(cursor)?);
    let pattern = long_text(cursor)?;
    let apply_to = ApplyTo::parse(cursor.text()?)?;
    let priority = cursor.i64()?;
    let Value::Object(definition) = json(cursor)? else {
        return None;
    };
    Some(Policy {
        vhost,
        name,
        kind,
        pattern,
        apply_to,
        priority,
        definition,
    })
}

pub(super) fn put_parameter(out: &mut Vec<u8>, parameter: &Parameter) {
    put_text(out, &parameter.vhost);
    put_text(out, &parameter.component);
    put_text(out, &parameter.name);
    put_json(out, &parameter.value);
}

pub(super) fn parameter(cursor: &mut Cursor<'_>) -> Option<Parameter> {
    Some(Parameter {
        vhost: name(cursor)?,
        component: name(cursor)?,
        name: name(cursor)?,
        value: json(cursor)?,
    })
}

pub(super) fn put_global_parameter(out: &mut Vec<u8>, parameter: &GlobalParameter) {
    put_text(out, &parameter.name);
    put_json(out, &parameter.value);
}

pub(super) fn global_parameter(cursor: &mut Cursor<'_>) -> Option<GlobalParameter> {
    Some(GlobalParameter {
        name: name(cursor)?,
        value: json(cursor)?,
    })
}

fn put_json(out: &mut Vec<u8>, value: &Value) {
    put_long(out, value.to_string().as_bytes());
}

fn json(cursor: &mut Cursor<'_>) -> Option<Value> {
    serde_json::from_slice(cursor.long()?).ok()
}

fn long_text(cursor: &mut Cursor<'_>) -> Option<String> {
    std::str::from_utf8(cursor.long()?).ok().map(str::to_owned)
}

fn put_list(out: &mut Vec<u8>, words: &[String]) {
    let count = u32::try_from(words.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for word in words {
        put_long(out, word.as_bytes());
    }
}

fn list(cursor: &mut Cursor<'_>) -> Option<Vec<String>> {
    // Nothing is reserved for the announced count: it may be damaged.
    (0..cursor.u32()?).map(|_| long_text(cursor)).collect()
}

fn put_limits(out: &mut Vec<u8>, limits: [Limit; 2]) {
    for limit in limits {
        out.push(u8::from(limit.is_some()));
        out.extend_from_slice(&limit.unwrap_or(0).to_le_bytes());
    }
}

fn limits(cursor: &mut Cursor<'_>) -> Option<[Limit; 2]> {
    let mut limit = || {
        let set = cursor.u8()? != 0;
        let value = cursor.i64()?;
        Some(set.then_some(value))
    };
    Some([limit()?, limit()?])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        broker::definition::Definition,
        storage::records::{decode_definition, encode_definition},
    };

    fn samples() -> Vec<Definition> {
        let password = PasswordHash {
            algorithm: HashingAlgorithm::Sha512,
            bytes: vec![1, 2, 3],
        };
        let limits = UserLimits {
            max_connections: Some(-1),
            max_channels: None,
        };
        let Value::Object(definition) = json!({"max-length": 5, "overflow": "drop-head"}) else {
            unreachable!()
        };
        vec![
            Definition::Vhost(VhostDefinition {
                description: "déscription".to_owned(),
                tags: vec!["a".to_owned(), String::new()],
                default_queue_type: Some("quorum".to_owned()),
                limits: VhostLimits {
                    max_connections: None,
                    max_queues: Some(0),
                },
                protected: true,
                ..VhostDefinition::new("v")
            }),
            Definition::User(User {
                name: "u".into(),
                password,
                tags: vec!["administrator".to_owned()],
                limits,
            }),
            Definition::Permission(Permission {
                user: "u".into(),
                vhost: "v".into(),
                configure: ".*".to_owned(),
                write: String::new(),
                read: "x".repeat(70_000),
            }),
            Definition::TopicPermission(TopicPermission {
                user: "u".into(),
                vhost: "v".into(),
                exchange: "e".into(),
                write: "w".to_owned(),
                read: "r".to_owned(),
            }),
            Definition::Policy(Policy {
                vhost: "v".into(),
                name: "p".into(),
                kind: PolicyKind::Operator,
                pattern: "^a".to_owned(),
                apply_to: ApplyTo::QuorumQueues,
                priority: i64::MIN,
                definition,
            }),
            Definition::Parameter(Parameter {
                vhost: "v".into(),
                component: "shovel".into(),
                name: "s".into(),
                value: json!({"src-uri": ["a", null, {"b": true}]}),
            }),
            Definition::GlobalParameter(GlobalParameter {
                name: "cluster_name".into(),
                value: json!("rabbit"),
            }),
        ]
    }

    #[test]
    fn what_operators_set_reads_back_and_every_cut_is_refused() {
        for definition in samples() {
            let value = encode_definition(&definition);
            for cut in (0..value.len()).rev().take(300) {
                assert_eq!(
                    decode_definition(&value[..cut]),
                    None,
                    "{definition:?} cut at {cut}"
                );
            }
            assert_eq!(decode_definition(&value), Some(definition));
        }
    }
}
