//! Keys of every family. Integers are big-endian, so that RocksDB's byte order is theirs.

use bytes::BytesMut;

use crate::broker::{
    definition::{BindingDefinition, Definition, Destination},
    ids::QueueId,
    policy::PolicyKind,
};
use crate::storage::DefinitionKey;

/// In `default`: u32 format version.
pub(super) const FORMAT: &[u8] = b"format";
/// In `default`: u64 number of the last batch; tells after a failed write whether it was applied.
pub(super) const BATCH: &[u8] = b"batch";
/// In `default`: written only to try whether the disk takes writes again.
pub(super) const PROBE: &[u8] = b"probe";
/// In `meta`: u64, queue ids below it may be in use. Sorts before every definition.
pub(super) const NEXT_QUEUE_ID: &[u8] = b"\x00next-queue-id";
/// In `meta`: u64, body ids below it may be in use.
pub(super) const NEXT_BODY_ID: &[u8] = b"\x00next-body-id";

/// In `meta`: begins the keys of returned messages, which go on like a page's. Sorts before every definition.
pub(super) const RETURNED: &[u8; 9] = b"\x00returned";

/// Keys of `meta` from here on are definitions.
pub(super) const FIRST_DEFINITION: &[u8] = &[KIND_VHOST];
const KIND_VHOST: u8 = 1;
const KIND_EXCHANGE: u8 = 2;
const KIND_QUEUE: u8 = 3;
const KIND_BINDING: u8 = 4;
const KIND_USER: u8 = 5;
const KIND_PERMISSION: u8 = 6;
const KIND_TOPIC_PERMISSION: u8 = 7;
const KIND_POLICY: u8 = 8;
const KIND_PARAMETER: u8 = 9;
const KIND_GLOBAL_PARAMETER: u8 = 10;

pub(super) fn queue(id: QueueId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// A page and its ack row have the same key, in their own families.
pub(super) fn page(id: QueueId, lane: u8, first_seq: u64) -> [u8; 17] {
    let mut key = [0; 17];
    let (queue, rest) = key.split_at_mut(8);
    queue.copy_from_slice(&id.0.to_be_bytes());
    if let Some((at, seq)) = rest.split_first_mut() {
        *at = lane;
        seq.copy_from_slice(&first_seq.to_be_bytes());
    }
    key
}

/// The record of a message that came back.
pub(super) fn returned(id: QueueId, lane: u8, seq: u64) -> [u8; 26] {
    let mut key = [0; 26];
    let (prefix, place) = key.split_at_mut(RETURNED.len());
    prefix.copy_from_slice(RETURNED);
    place.copy_from_slice(&page(id, lane, seq));
    key
}

/// Lane and first seq of a page key; `None` when it is none.
pub(super) fn parse_page(key: &[u8]) -> Option<(QueueId, u8, u64)> {
    let (queue, rest) = key.split_first_chunk::<8>()?;
    let (lane, seq) = rest.split_first()?;
    Some((
        QueueId(u64::from_be_bytes(*queue)),
        *lane,
        u64::from_be_bytes(seq.try_into().ok()?),
    ))
}

pub(super) fn parse_u64(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

pub(super) fn body_piece(body: u64, piece: u32) -> [u8; 12] {
    let mut key = [0; 12];
    let (id, at) = key.split_at_mut(8);
    id.copy_from_slice(&body.to_be_bytes());
    at.copy_from_slice(&piece.to_be_bytes());
    key
}

pub(super) fn body(body: u64) -> [u8; 8] {
    body.to_be_bytes()
}

pub(super) fn of_definition(definition: &Definition) -> Vec<u8> {
    match definition {
        Definition::Vhost(vhost) => named(KIND_VHOST, &[&vhost.name]),
        Definition::Exchange(exchange) => named(KIND_EXCHANGE, &[&exchange.vhost, &exchange.name]),
        Definition::Queue(queue) => named(KIND_QUEUE, &[&queue.vhost, &queue.name]),
        Definition::Binding(binding) => of_binding(binding),
        Definition::User(user) => named(KIND_USER, &[&user.name]),
        Definition::Permission(permission) => of_permission(&permission.user, &permission.vhost),
        Definition::TopicPermission(topic) => of_topic_permission(&topic.user, &topic.vhost, &topic.exchange),
        Definition::Policy(policy) => of_policy(&policy.vhost, policy.kind, &policy.name),
        Definition::Parameter(parameter) => {
            of_parameter(&parameter.vhost, &parameter.component, &parameter.name)
        }
        Definition::GlobalParameter(parameter) => named(KIND_GLOBAL_PARAMETER, &[&parameter.name]),
    }
}

pub(super) fn of_definition_key(key: &DefinitionKey) -> Vec<u8> {
    match key {
        DefinitionKey::Vhost(name) => named(KIND_VHOST, &[name]),
        DefinitionKey::Exchange { vhost, name } => named(KIND_EXCHANGE, &[vhost, name]),
        DefinitionKey::Queue { vhost, name, .. } => named(KIND_QUEUE, &[vhost, name]),
        DefinitionKey::Binding(binding) => of_binding(binding),
        DefinitionKey::User(name) => named(KIND_USER, &[name]),
        DefinitionKey::Permission { user, vhost } => of_permission(user, vhost),
        DefinitionKey::TopicPermission {
            user,
            vhost,
            exchange,
        } => of_topic_permission(user, vhost, exchange),
        DefinitionKey::Policy { vhost, kind, name } => of_policy(vhost, *kind, name),
        DefinitionKey::Parameter {
            vhost,
            component,
            name,
        } => of_parameter(vhost, component, name),
        DefinitionKey::GlobalParameter(name) => named(KIND_GLOBAL_PARAMETER, &[name]),
    }
}

fn of_permission(user: &str, vhost: &str) -> Vec<u8> {
    named(KIND_PERMISSION, &[vhost, user])
}

fn of_topic_permission(user: &str, vhost: &str, exchange: &str) -> Vec<u8> {
    named(KIND_TOPIC_PERMISSION, &[vhost, user, exchange])
}

fn of_policy(vhost: &str, kind: PolicyKind, name: &str) -> Vec<u8> {
    let kind = match kind {
        PolicyKind::User => "u",
        PolicyKind::Operator => "o",
    };
    named(KIND_POLICY, &[vhost, kind, name])
}

fn of_parameter(vhost: &str, component: &str, name: &str) -> Vec<u8> {
    named(KIND_PARAMETER, &[vhost, component, name])
}

/// All of a binding is its identity. Two tables with the same content are the same arguments, hence the sorting.
fn of_binding(binding: &BindingDefinition) -> Vec<u8> {
    let (kind, name) = match &binding.destination {
        Destination::Queue(name) => ("q", name),
        Destination::Exchange(name) => ("e", name),
    };
    let mut key = named(
        KIND_BINDING,
        &[&binding.vhost, &binding.source, kind, name, &binding.routing_key],
    );
    let mut arguments = BytesMut::new();
    binding.arguments.canonical().encode(&mut arguments);
    key.extend_from_slice(&arguments);
    key
}

fn named(kind: u8, names: &[&str]) -> Vec<u8> {
    let mut key = vec![kind];
    for name in names {
        crate::storage::codec::put_text(&mut key, name);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_sort_by_queue_then_lane_then_seq() {
        let ordered = [(1, 0, 255), (1, 0, 256), (1, 1, 1), (2, 0, 0), (256, 0, 0)];
        let keys = ordered.map(|(queue, lane, seq)| page(QueueId(queue), lane, seq));
        assert!(keys.is_sorted());
        for (key, (queue, lane, seq)) in keys.iter().zip(ordered) {
            assert_eq!(parse_page(key), Some((QueueId(queue), lane, seq)));
        }
        assert_eq!(parse_page(&keys[0][..16]), None);
    }
}
