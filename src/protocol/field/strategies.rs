//! Any tables, for property tests.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::{FieldTable, FieldValue, ShortString};

/// Any text of at most `max_chars` characters.
pub(in crate::protocol) fn any_text(max_chars: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=max_chars).prop_map(String::from_iter)
}

/// Any bytes a short string can hold, often enough as many as it can.
pub(in crate::protocol) fn any_short_string() -> impl Strategy<Value = ShortString> {
    let bytes = prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 250..=255)];
    bytes.prop_map(|bytes| ShortString::try_from(bytes.as_slice()).unwrap())
}

/// Any table, keys of any bytes, perhaps twice.
pub(in crate::protocol) fn any_table() -> impl Strategy<Value = FieldTable> {
    let value = any_value(|value| table_of(any_short_string(), value).boxed());
    table_of(any_short_string(), value)
}

/// A table that other implementations can hold in a sorted map of text: inner tables as well.
pub(in crate::protocol) fn any_sorted_text_table() -> impl Strategy<Value = FieldTable> {
    fn sorted(value: BoxedStrategy<FieldValue>) -> BoxedStrategy<FieldTable> {
        let key = any_text(6).prop_map(|text| ShortString::from(text.as_str()));
        table_of(key, value).prop_map(|table| table.canonical()).boxed()
    }
    sorted(any_value(sorted))
}

fn table_of(
    key: impl Strategy<Value = ShortString>,
    value: impl Strategy<Value = FieldValue>,
) -> impl Strategy<Value = FieldTable> {
    vec((key, value), 0..5).prop_map(FieldTable::from_iter)
}

fn any_value(
    table_of: impl Fn(BoxedStrategy<FieldValue>) -> BoxedStrategy<FieldTable> + 'static,
) -> BoxedStrategy<FieldValue> {
    let bytes = || vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let leaf = prop_oneof![
        any::<bool>().prop_map(FieldValue::Bool),
        any::<i8>().prop_map(FieldValue::I8),
        any::<u8>().prop_map(FieldValue::U8),
        any::<i16>().prop_map(FieldValue::I16),
        any::<u16>().prop_map(FieldValue::U16),
        any::<i32>().prop_map(FieldValue::I32),
        any::<u32>().prop_map(FieldValue::U32),
        any::<i64>().prop_map(FieldValue::I64),
        any::<f32>().prop_map(FieldValue::F32),
        any::<f64>().prop_map(FieldValue::F64),
        any::<(u8, u32)>().prop_map(|(scale, value)| FieldValue::Decimal { scale, value }),
        bytes().prop_map(FieldValue::LongString),
        bytes().prop_map(FieldValue::Bytes),
        any::<u64>().prop_map(FieldValue::Timestamp),
        Just(FieldValue::Void),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(FieldValue::Array),
            table_of(inner.boxed()).prop_map(FieldValue::Table),
        ]
    })
    .boxed()
}
