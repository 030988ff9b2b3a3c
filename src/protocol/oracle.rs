//! Another implementation to be right against: amq-protocol, the codec of the lapin client.

use std::collections::BTreeMap;

use amq_protocol::{
    frame::{GenResult, WriteContext},
    types::{AMQPValue, DecimalValue, FieldTable as OracleTable, ShortString as OracleString},
};

use super::field::{FieldTable, FieldValue};

/// The bytes one of amq-protocol's `gen_` functions writes.
pub(super) fn written(
    write: impl for<'a> Fn(WriteContext<&'a mut [u8]>) -> GenResult<&'a mut [u8]>,
) -> Vec<u8> {
    let mut room = vec![0; 1 << 17];
    let end = write(WriteContext::from(room.as_mut_slice()))
        .expect("the oracle has room enough")
        .position;
    room.truncate(usize::try_from(end).unwrap());
    room
}

/// The same table in amq-protocol's types. Its keys are UTF-8, sorted and once.
pub(super) fn table(table: &FieldTable) -> OracleTable {
    let entries = table.iter().map(|(key, value)| {
        let key = String::from_utf8(key.as_bytes().to_vec()).unwrap();
        (OracleString::from(key), oracle_value(value))
    });
    OracleTable::from(entries.collect::<BTreeMap<_, _>>())
}

fn oracle_value(value: &FieldValue) -> AMQPValue {
    match value {
        FieldValue::Bool(value) => AMQPValue::Boolean(*value),
        FieldValue::I8(value) => AMQPValue::ShortShortInt(*value),
        FieldValue::U8(value) => AMQPValue::ShortShortUInt(*value),
        FieldValue::I16(value) => AMQPValue::ShortInt(*value),
        FieldValue::U16(value) => AMQPValue::ShortUInt(*value),
        FieldValue::I32(value) => AMQPValue::LongInt(*value),
        FieldValue::U32(value) => AMQPValue::LongUInt(*value),
        FieldValue::I64(value) => AMQPValue::LongLongInt(*value),
        FieldValue::F32(value) => AMQPValue::Float(*value),
        FieldValue::F64(value) => AMQPValue::Double(*value),
        FieldValue::Decimal { scale, value } => AMQPValue::DecimalValue(DecimalValue {
            scale: *scale,
            value: *value,
        }),
        FieldValue::LongString(bytes) => AMQPValue::LongString(bytes.to_vec().into()),
        FieldValue::Bytes(bytes) => AMQPValue::ByteArray(bytes.to_vec().into()),
        FieldValue::Array(values) => {
            AMQPValue::FieldArray(values.iter().map(oracle_value).collect::<Vec<_>>().into())
        }
        FieldValue::Table(inner) => AMQPValue::FieldTable(table(inner)),
        FieldValue::Timestamp(value) => AMQPValue::Timestamp(*value),
        FieldValue::Void => AMQPValue::Void,
    }
}
