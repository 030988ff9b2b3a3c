//! The readers and writers of `hot.rs` do what the list says.

use bytes::BytesMut;
use proptest::prelude::*;

use super::encoded;
use crate::protocol::{
    field::{ShortString, strategies::any_short_string},
    method::{
        Method, MethodError, MethodId, decode_ack, decode_nack, decode_publish, decode_reject, encode_ack,
        encode_deliver, encode_nack,
    },
};

/// The fields behind the four bytes of the ids.
fn fields(method: &Method) -> Vec<u8> {
    encoded(method).split_off(4)
}

proptest! {
    #[test]
    fn the_hot_readers_agree_with_the_list(
        publish in Method::any(MethodId::BASIC_PUBLISH),
        delivery_tag in any::<u64>(),
        multiple in any::<bool>(),
        requeue in any::<bool>(),
    ) {
        let bytes = fields(&publish);
        let read = decode_publish(&bytes).unwrap();
        let name = |bytes| ShortString::try_from(bytes).unwrap();
        let again = Method::BasicPublish {
            exchange: name(read.exchange),
            routing_key: name(read.routing_key),
            mandatory: read.mandatory,
            immediate: read.immediate,
        };
        prop_assert_eq!(again, publish);
        for cut in 0..bytes.len() {
            let refused = Err(MethodError::Truncated(MethodId::BASIC_PUBLISH));
            prop_assert_eq!(decode_publish(&bytes[..cut]), refused);
        }

        let ack = fields(&Method::BasicAck { delivery_tag, multiple });
        prop_assert_eq!(decode_ack(&ack), Ok((delivery_tag, u8::from(multiple))));
        let nack = fields(&Method::BasicNack { delivery_tag, multiple, requeue });
        prop_assert_eq!(decode_nack(&nack), Ok((delivery_tag, u8::from(multiple) + 2 * u8::from(requeue))));
        let reject = fields(&Method::BasicReject { delivery_tag, requeue });
        prop_assert_eq!(decode_reject(&reject), Ok((delivery_tag, u8::from(requeue))));
    }

    #[test]
    fn the_hot_writers_agree_with_the_list(
        consumer_tag in any_short_string(),
        exchange in any_short_string(),
        routing_key in any_short_string(),
        delivery_tag in any::<u64>(),
        bit in any::<bool>(),
        requeue in any::<bool>(),
    ) {
        let mut out = BytesMut::new();
        encode_deliver(
            &mut out, consumer_tag.as_bytes(), delivery_tag, bit, exchange.as_bytes(), routing_key.as_bytes(),
        );
        let redelivered = bit;
        let deliver = Method::BasicDeliver { consumer_tag, delivery_tag, redelivered, exchange, routing_key };
        prop_assert_eq!(out.to_vec(), encoded(&deliver));

        let mut out = BytesMut::new();
        encode_ack(&mut out, delivery_tag, bit);
        prop_assert_eq!(out.to_vec(), encoded(&Method::BasicAck { delivery_tag, multiple: bit }));
        let mut out = BytesMut::new();
        encode_nack(&mut out, delivery_tag, bit, requeue);
        prop_assert_eq!(out.to_vec(), encoded(&Method::BasicNack { delivery_tag, multiple: bit, requeue }));
    }
}

#[test]
fn the_hot_readers_refuse_bytes_behind_the_fields() {
    let extra = |method: Method| [fields(&method), vec![0]].concat();
    let publish = extra(Method::BasicPublish {
        exchange: "e".into(),
        routing_key: "k".into(),
        mandatory: false,
        immediate: false,
    });
    assert_eq!(
        decode_publish(&publish),
        Err(MethodError::TrailingBytes(MethodId::BASIC_PUBLISH))
    );
    let ack = extra(Method::BasicAck {
        delivery_tag: 1,
        multiple: false,
    });
    assert_eq!(
        decode_ack(&ack),
        Err(MethodError::TrailingBytes(MethodId::BASIC_ACK))
    );
    assert_eq!(
        decode_nack(&ack),
        Err(MethodError::TrailingBytes(MethodId::BASIC_NACK))
    );
    assert_eq!(
        decode_reject(&ack[..8]),
        Err(MethodError::Truncated(MethodId::BASIC_REJECT))
    );
}
