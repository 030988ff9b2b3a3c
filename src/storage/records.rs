//! Definitions as values of the `meta` family: `[version u8][kind u8][crc32c u32]`, names behind u16 lengths, flags,
//! then the argument table in the wire's own form. What operators set is in `admin_records.rs`.

use std::sync::Arc;

use bytes::BytesMut;

use crate::broker::{
    definition::{
        BindingDefinition, Definition, Destination, ExchangeDefinition, Name, QueueDefinition,
        VhostDefinition,
    },
    ids::QueueId,
};
use crate::protocol::field::FieldTable;
use crate::storage::{
    admin_records,
    codec::{Cursor, is_sealed, put_text, seal},
};

const VERSION: u8 = 1;
/// Of vhosts since they have metadata; before, a vhost was its name.
const VHOST_VERSION: u8 = 2;
const CHECKSUM_AT: usize = 2;
const VHOST: u8 = 1;
const EXCHANGE: u8 = 2;
const QUEUE: u8 = 3;
const BINDING: u8 = 4;
const USER: u8 = 5;
const PERMISSION: u8 = 6;
const TOPIC_PERMISSION: u8 = 7;
const POLICY: u8 = 8;
const PARAMETER: u8 = 9;
const GLOBAL_PARAMETER: u8 = 10;
const DURABLE: u8 = 1;
const AUTO_DELETE: u8 = 2;
const INTERNAL: u8 = 4;
const TO_EXCHANGE: u8 = 1;

pub(super) fn encode_definition(definition: &Definition) -> Vec<u8> {
    let (version, kind) = match definition {
        Definition::Vhost(_) => (VHOST_VERSION, VHOST),
        Definition::Exchange(_) => (VERSION, EXCHANGE),
        Definition::Queue(_) => (VERSION, QUEUE),
        Definition::Binding(_) => (VERSION, BINDING),
        Definition::User(_) => (VERSION, USER),
        Definition::Permission(_) => (VERSION, PERMISSION),
        Definition::TopicPermission(_) => (VERSION, TOPIC_PERMISSION),
        Definition::Policy(_) => (VERSION, POLICY),
        Definition::Parameter(_) => (VERSION, PARAMETER),
        Definition::GlobalParameter(_) => (VERSION, GLOBAL_PARAMETER),
    };
    let mut out = vec![version, kind, 0, 0, 0, 0];
    match definition {
        Definition::Vhost(vhost) => admin_records::put_vhost(&mut out, vhost),
        Definition::User(user) => admin_records::put_user(&mut out, user),
        Definition::Permission(permission) => admin_records::put_permission(&mut out, permission),
        Definition::TopicPermission(topic) => admin_records::put_topic_permission(&mut out, topic),
        Definition::Policy(policy) => admin_records::put_policy(&mut out, policy),
        Definition::Parameter(parameter) => admin_records::put_parameter(&mut out, parameter),
        Definition::GlobalParameter(parameter) => {
            admin_records::put_global_parameter(&mut out, parameter);
        }
        Definition::Exchange(exchange) => {
            out.push(
                flag(exchange.durable, DURABLE)
                    | flag(exchange.auto_delete, AUTO_DELETE)
                    | flag(exchange.internal, INTERNAL),
            );
            put_text(&mut out, &exchange.vhost);
            put_text(&mut out, &exchange.name);
            put_text(&mut out, &exchange.kind);
            put_table(&mut out, &exchange.arguments);
        }
        Definition::Queue(queue) => {
            out.push(flag(queue.durable, DURABLE) | flag(queue.auto_delete, AUTO_DELETE));
            out.extend_from_slice(&queue.id.0.to_le_bytes());
            put_text(&mut out, &queue.vhost);
            put_text(&mut out, &queue.name);
            put_table(&mut out, &queue.arguments);
        }
        Definition::Binding(binding) => {
            let (flags, destination) = match &binding.destination {
                Destination::Queue(name) => (0, name),
                Destination::Exchange(name) => (TO_EXCHANGE, name),
            };
            out.push(flags);
            put_text(&mut out, &binding.vhost);
            put_text(&mut out, &binding.source);
            put_text(&mut out, destination);
            put_text(&mut out, &binding.routing_key);
            put_table(&mut out, &binding.arguments);
        }
    }
    seal(&mut out, CHECKSUM_AT);
    out
}

/// `None` for anything [`encode_definition`] did not write.
pub(super) fn decode_definition(value: &[u8]) -> Option<Definition> {
    if !is_sealed(value, CHECKSUM_AT) {
        return None;
    }
    let mut cursor = Cursor::new(value);
    let (version, kind) = (cursor.u8()?, cursor.u8()?);
    cursor.u32()?;
    let definition = match (kind, version) {
        (VHOST, VERSION) => Definition::Vhost(VhostDefinition::new(name(&mut cursor)?)),
        (VHOST, VHOST_VERSION) => Definition::Vhost(admin_records::vhost(&mut cursor)?),
        (EXCHANGE, VERSION) => Definition::Exchange(exchange(&mut cursor)?),
        (QUEUE, VERSION) => Definition::Queue(queue(&mut cursor)?),
        (BINDING, VERSION) => Definition::Binding(binding(&mut cursor)?),
        (USER, VERSION) => Definition::User(admin_records::user(&mut cursor)?),
        (PERMISSION, VERSION) => Definition::Permission(admin_records::permission(&mut cursor)?),
        (TOPIC_PERMISSION, VERSION) => {
            Definition::TopicPermission(admin_records::topic_permission(&mut cursor)?)
        }
        (POLICY, VERSION) => Definition::Policy(admin_records::policy(&mut cursor)?),
        (PARAMETER, VERSION) => Definition::Parameter(admin_records::parameter(&mut cursor)?),
        (GLOBAL_PARAMETER, VERSION) => {
            Definition::GlobalParameter(admin_records::global_parameter(&mut cursor)?)
        }
        _ => return None,
    };
    cursor.is_empty().then_some(definition)
}

fn exchange(cursor: &mut Cursor<'_>) -> Option<ExchangeDefinition> {
    let flags = cursor.u8()?;
    Some(ExchangeDefinition {
        vhost: name(cursor)?,
        name: name(cursor)?,
        kind: name(cursor)?,
        durable: flags & DURABLE != 0,
        auto_delete: flags & AUTO_DELETE != 0,
        internal: flags & INTERNAL != 0,
        arguments: table(cursor)?,
    })
}

fn queue(cursor: &mut Cursor<'_>) -> Option<QueueDefinition> {
    let flags = cursor.u8()?;
    let id = QueueId(cursor.u64()?);
    Some(QueueDefinition {
        vhost: name(cursor)?,
        name: name(cursor)?,
        id,
        durable: flags & DURABLE != 0,
        auto_delete: flags & AUTO_DELETE != 0,
        arguments: table(cursor)?,
    })
}

fn binding(cursor: &mut Cursor<'_>) -> Option<BindingDefinition> {
    let to_exchange = cursor.u8()? & TO_EXCHANGE != 0;
    let (vhost, source, destination) = (name(cursor)?, name(cursor)?, name(cursor)?);
    Some(BindingDefinition {
        vhost,
        source,
        destination: if to_exchange {
            Destination::Exchange(destination)
        } else {
            Destination::Queue(destination)
        },
        routing_key: name(cursor)?,
        arguments: table(cursor)?,
    })
}

fn flag(on: bool, bit: u8) -> u8 {
    if on { bit } else { 0 }
}

pub(super) fn name(cursor: &mut Cursor<'_>) -> Option<Name> {
    cursor.text().map(Arc::from)
}

fn put_table(out: &mut Vec<u8>, table: &FieldTable) {
    let mut bytes = BytesMut::new();
    table.encode(&mut bytes);
    out.extend_from_slice(&bytes);
}

fn table(cursor: &mut Cursor<'_>) -> Option<FieldTable> {
    let (table, used) = FieldTable::parse(cursor.rest()).ok()?;
    cursor.take(used)?;
    Some(table)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::field::FieldValue;

    fn tables() -> impl Strategy<Value = FieldTable> {
        prop::collection::vec((0_u8..5, any::<bool>()), 0..3).prop_map(|entries| {
            let mut table = FieldTable::default();
            for (key, value) in entries {
                table.insert(format!("x-{key}").as_str(), FieldValue::Bool(value));
            }
            table
        })
    }

    fn definitions() -> impl Strategy<Value = Definition> {
        (
            0..5,
            any::<[bool; 3]>(),
            "\\PC{0,6}",
            "\\PC{0,6}",
            any::<u64>(),
            tables(),
        )
            .prop_map(
                |(kind, [durable, auto_delete, internal], name, other, id, arguments)| {
                    let (vhost, name, other): (Name, Name, Name) = ("/".into(), name.into(), other.into());
                    let binding = |destination| {
                        let (vhost, source) = (vhost.clone(), name.clone());
                        let (routing_key, arguments) = (other.clone(), arguments.clone());
                        Definition::Binding(BindingDefinition {
                            vhost,
                            source,
                            destination,
                            routing_key,
                            arguments,
                        })
                    };
                    match kind {
                        0 => Definition::Vhost(VhostDefinition::new(name)),
                        1 => binding(Destination::Queue(other.clone())),
                        2 => binding(Destination::Exchange(other.clone())),
                        3 => Definition::Exchange(ExchangeDefinition {
                            vhost,
                            name,
                            kind: other,
                            durable,
                            auto_delete,
                            internal,
                            arguments,
                        }),
                        _ => {
                            let id = QueueId(id);
                            Definition::Queue(QueueDefinition {
                                vhost,
                                name,
                                id,
                                durable,
                                auto_delete,
                                arguments,
                            })
                        }
                    }
                },
            )
    }

    /// What a store of version 0.1.0 holds: the name only.
    #[test]
    fn a_vhost_written_before_there_was_metadata_is_read() {
        let mut value = vec![VERSION, VHOST, 0, 0, 0, 0];
        put_text(&mut value, "old");
        seal(&mut value, CHECKSUM_AT);
        let expected = Definition::Vhost(VhostDefinition::new("old"));
        assert_eq!(decode_definition(&value), Some(expected));
        value[0] = VHOST_VERSION + 1;
        seal(&mut value, CHECKSUM_AT);
        assert_eq!(decode_definition(&value), None, "an unknown version is refused");
    }

    proptest! {
        #[test]
        fn a_definition_reads_back_and_every_damage_is_refused(definition in definitions()) {
            let mut value = encode_definition(&definition);
            prop_assert_eq!(decode_definition(&value), Some(definition));
            for cut in 0..value.len() {
                prop_assert_eq!(decode_definition(&value[..cut]), None);
            }
            for bit in 0..value.len() * 8 {
                value[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(decode_definition(&value), None, "bit {}", bit);
                value[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
