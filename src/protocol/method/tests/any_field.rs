//! Any value of each type a method's field can have.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, strategy::BoxedStrategy};

use crate::protocol::field::{
    FieldTable, ShortString,
    strategies::{any_short_string, any_table, any_text},
};

/// A type a method's field can have, for [`Method::any`].
pub(in crate::protocol::method) trait AnyField: Sized {
    fn any_field() -> BoxedStrategy<Self>;
}

pub(in crate::protocol::method) fn any_field<T: AnyField>() -> BoxedStrategy<T> {
    T::any_field()
}

impl AnyField for u8 {
    fn any_field() -> BoxedStrategy<Self> {
        any::<Self>().boxed()
    }
}

impl AnyField for u16 {
    fn any_field() -> BoxedStrategy<Self> {
        any::<Self>().boxed()
    }
}

impl AnyField for u32 {
    fn any_field() -> BoxedStrategy<Self> {
        any::<Self>().boxed()
    }
}

impl AnyField for u64 {
    fn any_field() -> BoxedStrategy<Self> {
        any::<Self>().boxed()
    }
}

impl AnyField for String {
    fn any_field() -> BoxedStrategy<Self> {
        // A character has at most four bytes, so these fit.
        any_text(63).boxed()
    }
}

impl AnyField for ShortString {
    fn any_field() -> BoxedStrategy<Self> {
        any_short_string().boxed()
    }
}

impl AnyField for Bytes {
    fn any_field() -> BoxedStrategy<Self> {
        vec(any::<u8>(), 0..300).prop_map(Self::from).boxed()
    }
}

impl AnyField for FieldTable {
    fn any_field() -> BoxedStrategy<Self> {
        any_table().boxed()
    }
}
