//! The methods that come and go with every message, read without copying and written without building a
//! [`super::Method`]. `tests.rs` holds them to what the list says.

use bytes::{BufMut, BytesMut};

use super::{MethodError, MethodId};
use crate::protocol::wire::{Reader, Truncated, put_short_string};

/// What basic.publish says, borrowed from the frame. The names need not be UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishFields<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
    pub mandatory: bool,
    pub immediate: bool,
}

/// Reads basic.publish from behind its ids.
///
/// # Errors
/// When the fields end early or bytes follow them.
#[inline]
pub fn decode_publish(fields: &[u8]) -> Result<PublishFields<'_>, MethodError> {
    const ID: MethodId = MethodId::BASIC_PUBLISH;
    let mut reader = Reader::new(fields);
    let publish = read_publish(&mut reader).map_err(|Truncated| MethodError::Truncated(ID))?;
    if !reader.is_empty() {
        return Err(MethodError::TrailingBytes(ID));
    }
    Ok(publish)
}

#[inline]
fn read_publish<'a>(reader: &mut Reader<'a>) -> Result<PublishFields<'a>, Truncated> {
    let _ticket = reader.u16()?;
    let exchange = reader.short_string()?;
    let routing_key = reader.short_string()?;
    let bits = reader.u8()?;
    Ok(PublishFields {
        exchange,
        routing_key,
        mandatory: bits & 1 != 0,
        immediate: bits & 2 != 0,
    })
}

/// Reads basic.ack from behind its ids: the delivery tag, and the octet whose bit 0 is `multiple`.
///
/// # Errors
/// When the fields end early or bytes follow them.
#[inline]
pub fn decode_ack(fields: &[u8]) -> Result<(u64, u8), MethodError> {
    decode_tag_and_bits(MethodId::BASIC_ACK, fields)
}

/// Reads basic.nack from behind its ids: the delivery tag, and the octet whose bit 0 is `multiple`, bit 1
/// `requeue`.
///
/// # Errors
/// When the fields end early or bytes follow them.
#[inline]
pub fn decode_nack(fields: &[u8]) -> Result<(u64, u8), MethodError> {
    decode_tag_and_bits(MethodId::BASIC_NACK, fields)
}

/// Reads basic.reject from behind its ids: the delivery tag, and the octet whose bit 0 is `requeue`.
///
/// # Errors
/// When the fields end early or bytes follow them.
#[inline]
pub fn decode_reject(fields: &[u8]) -> Result<(u64, u8), MethodError> {
    decode_tag_and_bits(MethodId::BASIC_REJECT, fields)
}

#[inline]
fn decode_tag_and_bits(id: MethodId, fields: &[u8]) -> Result<(u64, u8), MethodError> {
    let mut reader = Reader::new(fields);
    let mut read = || Ok((reader.u64()?, reader.u8()?));
    let tag_and_bits = read().map_err(|Truncated| MethodError::Truncated(id))?;
    if !reader.is_empty() {
        return Err(MethodError::TrailingBytes(id));
    }
    Ok(tag_and_bits)
}

/// Writes basic.deliver, ids and fields. The names have at most 255 bytes.
#[inline]
pub fn encode_deliver(
    out: &mut BytesMut,
    consumer_tag: &[u8],
    delivery_tag: u64,
    redelivered: bool,
    exchange: &[u8],
    routing_key: &[u8],
) {
    // Ids, tag, bits and the three length octets.
    const FIXED: usize = 4 + 8 + 1 + 3;
    out.reserve(FIXED + consumer_tag.len() + exchange.len() + routing_key.len());
    put_id(out, MethodId::BASIC_DELIVER);
    put_short_string(out, consumer_tag);
    out.put_u64(delivery_tag);
    out.put_u8(u8::from(redelivered));
    put_short_string(out, exchange);
    put_short_string(out, routing_key);
}

/// Writes basic.ack, ids and fields: as the broker sends it, a publisher confirm.
#[inline]
pub fn encode_ack(out: &mut BytesMut, delivery_tag: u64, multiple: bool) {
    put_id(out, MethodId::BASIC_ACK);
    out.put_u64(delivery_tag);
    out.put_u8(u8::from(multiple));
}

/// Writes basic.nack, ids and fields: as the broker sends it, a publisher's message refused.
#[inline]
pub fn encode_nack(out: &mut BytesMut, delivery_tag: u64, multiple: bool, requeue: bool) {
    put_id(out, MethodId::BASIC_NACK);
    out.put_u64(delivery_tag);
    out.put_u8(u8::from(multiple) | u8::from(requeue) << 1);
}

#[inline]
fn put_id(out: &mut BytesMut, id: MethodId) {
    out.put_u32(u32::from(id.class) << 16 | u32::from(id.method));
}
