//! The list of methods. An entry gives the name of the id, of the variant, the numbers, the name in texts,
//! and the fields in the order of the wire; the field's type says how it is written (`wire_type.rs`).

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    MethodError, MethodId,
    wire_type::{WireError, WireType},
};
use crate::protocol::{
    field::{FieldTable, ShortString},
    wire::Reader,
};

/// Reads and forgets a reserved field, whose content nobody may depend on.
fn skip<T: WireType>(reader: &mut Reader<'_>) -> Result<(), WireError> {
    T::read(reader).map(drop)
}

fn write_reserved<T: WireType + Default>(out: &mut BytesMut) {
    T::default().write(out);
}

/// The bit fields of a method, packed into one octet from the lowest bit on. Bits without a name are ignored.
struct Bits(u8);

impl Bits {
    fn next(&mut self) -> bool {
        let bit = self.0 & 1 != 0;
        self.0 >>= 1;
        bit
    }

    fn pack<const N: usize>(bits: [bool; N]) -> u8 {
        bits.into_iter()
            .rev()
            .fold(0, |octet, bit| (octet << 1) | u8::from(bit))
    }
}

/// An entry is `ID Variant (class, method) "name" { fields }`, where fields, all optional, are
/// `(reserved types) name: Type, ... [bits] name: Type, ... ; (reserved types)`.
/// Methods without a field that we keep come in the second list.
macro_rules! methods {
    (
        with_fields { $(
            $(#[$doc:meta])*
            $id:ident $name:ident ($class:literal, $method:literal) $text:literal {
                $( ( $($before:ty),+ ) )?
                $($field:ident: $type:ty,)*
                $( [ $($bit:ident),+ ] $($late:ident: $late_type:ty,)* )?
                $( ; ( $($after:ty),+ ) )?
            }
        )+ }
        bare { $(
            $(#[$bare_doc:meta])*
            $bare_id:ident $bare_name:ident ($bare_class:literal, $bare_method:literal) $bare_text:literal
            { $( ( $($reserved:ty),+ ) )? }
        )+ }
    ) => {
        /// A method with its fields. Tickets and reserved fields are read over and written as zero.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Method {
            $(
                $(#[$doc])*
                $name { $($field: $type,)* $( $($bit: bool,)+ $($late: $late_type,)* )? },
            )+
            $(
                $(#[$bare_doc])*
                $bare_name,
            )+
        }

        #[cfg(test)]
        impl Method {
            /// Any method with this id, for property tests.
            pub(super) fn any(id: MethodId) -> proptest::strategy::BoxedStrategy<Self> {
                use proptest::prelude::{Just, Strategy, any};
                use super::tests::any_field;
                match id {
                    $(
                        MethodId::$id => (
                            $( any_field::<$type>(), )*
                            $(
                                $( { let _bit = stringify!($bit); any::<bool>() }, )+
                                $( any_field::<$late_type>(), )*
                            )?
                        )
                            .prop_map(|( $($field,)* $( $($bit,)+ $($late,)* )? )| {
                                Self::$name { $($field,)* $( $($bit,)+ $($late,)* )? }
                            })
                            .boxed(),
                    )+
                    $( MethodId::$bare_id => Just(Self::$bare_name).boxed(), )+
                    unknown => panic!("no method {unknown}"),
                }
            }
        }

        impl MethodId {
            $( pub const $id: Self = Self { class: $class, method: $method }; )+
            $( pub const $bare_id: Self = Self { class: $bare_class, method: $bare_method }; )+

            /// All methods there are.
            pub const ALL: &[Self] = &[ $(Self::$id,)+ $(Self::$bare_id,)+ ];

            /// Class and method as the specification names them, `queue.declare`. `None` for an unknown id.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $( Self::$id => Some($text), )+
                    $( Self::$bare_id => Some($bare_text), )+
                    _ => None,
                }
            }
        }

        impl Method {
            /// Which method it is.
            pub fn id(&self) -> MethodId {
                match self {
                    $( Self::$name { .. } => MethodId::$id, )+
                    $( Self::$bare_name => MethodId::$bare_id, )+
                }
            }

            /// The specification's name, `queue.declare`.
            pub fn name(&self) -> &'static str {
                match self {
                    $( Self::$name { .. } => $text, )+
                    $( Self::$bare_name => $bare_text, )+
                }
            }

            fn read_fields(id: MethodId, reader: &mut Reader<'_>) -> Result<Option<Self>, WireError> {
                Ok(Some(match id {
                    $(
                        MethodId::$id => {
                            $( $( skip::<$before>(reader)?; )+ )?
                            $( let $field = <$type>::read(reader)?; )*
                            $(
                                let mut bits = Bits(reader.u8()?);
                                $( let $bit = bits.next(); )+
                                $( let $late = <$late_type>::read(reader)?; )*
                            )?
                            $( $( skip::<$after>(reader)?; )+ )?
                            Self::$name { $($field,)* $( $($bit,)+ $($late,)* )? }
                        }
                    )+
                    $(
                        MethodId::$bare_id => {
                            $( $( skip::<$reserved>(reader)?; )+ )?
                            Self::$bare_name
                        }
                    )+
                    _ => return Ok(None),
                }))
            }

            fn write_fields(&self, out: &mut BytesMut) {
                match self {
                    $(
                        Self::$name { $($field,)* $( $($bit,)+ $($late,)* )? } => {
                            $( $( write_reserved::<$before>(out); )+ )?
                            $( $field.write(out); )*
                            $(
                                out.put_u8(Bits::pack([ $(*$bit),+ ]));
                                $( $late.write(out); )*
                            )?
                            $( $( write_reserved::<$after>(out); )+ )?
                        }
                    )+
                    $(
                        Self::$bare_name => {
                            $( $( write_reserved::<$reserved>(out); )+ )?
                        }
                    )+
                }
            }
        }
    };
}

impl Method {
    /// Reads the payload of a method frame: class id, method id, fields, and nothing behind them.
    ///
    /// # Errors
    /// When the method is unknown or its fields are not what the method has.
    pub fn decode(payload: &[u8]) -> Result<Self, MethodError> {
        let (id, fields) = MethodId::split(payload)?;
        Self::decode_fields(id, fields)
    }

    /// Reads a method whose id has been taken off with [`MethodId::split`].
    ///
    /// # Errors
    /// As [`Method::decode`].
    pub fn decode_fields(id: MethodId, fields: &[u8]) -> Result<Self, MethodError> {
        let mut reader = Reader::new(fields);
        let method = Self::read_fields(id, &mut reader).map_err(|error| error.within(id))?;
        let method = method.ok_or(MethodError::Unknown(id))?;
        if !reader.is_empty() {
            return Err(MethodError::TrailingBytes(id));
        }
        Ok(method)
    }

    /// Writes the payload of a method frame: class id, method id, fields.
    pub fn encode(&self, out: &mut BytesMut) {
        let id = self.id();
        out.put_u16(id.class);
        out.put_u16(id.method);
        self.write_fields(out);
    }
}

methods! {
    with_fields {
        /// Mechanisms and locales are names separated by spaces.
        CONNECTION_START ConnectionStart (10, 10) "connection.start" {
            version_major: u8, version_minor: u8, server_properties: FieldTable,
            mechanisms: Bytes, locales: Bytes,
        }
        CONNECTION_START_OK ConnectionStartOk (10, 11) "connection.start-ok" {
            client_properties: FieldTable, mechanism: String, response: Bytes, locale: String,
        }
        CONNECTION_SECURE ConnectionSecure (10, 20) "connection.secure" { challenge: Bytes, }
        CONNECTION_SECURE_OK ConnectionSecureOk (10, 21) "connection.secure-ok" { response: Bytes, }
        /// Limits offered by the server: 0 is none. Heartbeat in seconds.
        CONNECTION_TUNE ConnectionTune (10, 30) "connection.tune" {
            channel_max: u16, frame_max: u32, heartbeat: u16,
        }
        /// Limits chosen by the client, as in tune.
        CONNECTION_TUNE_OK ConnectionTuneOk (10, 31) "connection.tune-ok" {
            channel_max: u16, frame_max: u32, heartbeat: u16,
        }
        CONNECTION_OPEN ConnectionOpen (10, 40) "connection.open" { virtual_host: String, ; (String, u8) }
        /// `class_id` and `method_id` are those of the method that failed, or 0.
        CONNECTION_CLOSE ConnectionClose (10, 50) "connection.close" {
            reply_code: u16, reply_text: String, class_id: u16, method_id: u16,
        }
        CONNECTION_BLOCKED ConnectionBlocked (10, 60) "connection.blocked" { reason: String, }
        CONNECTION_UPDATE_SECRET ConnectionUpdateSecret (10, 70) "connection.update-secret" {
            new_secret: Bytes, reason: String,
        }

        CHANNEL_FLOW ChannelFlow (20, 20) "channel.flow" { [active] }
        CHANNEL_FLOW_OK ChannelFlowOk (20, 21) "channel.flow-ok" { [active] }
        /// As connection.close.
        CHANNEL_CLOSE ChannelClose (20, 40) "channel.close" {
            reply_code: u16, reply_text: String, class_id: u16, method_id: u16,
        }

        ACCESS_REQUEST AccessRequest (30, 10) "access.request" {
            realm: String, [exclusive, passive, active, write, read]
        }
        ACCESS_REQUEST_OK AccessRequestOk (30, 11) "access.request-ok" { ticket: u16, }

        EXCHANGE_DECLARE ExchangeDeclare (40, 10) "exchange.declare" {
            (u16) exchange: String, kind: String,
            [passive, durable, auto_delete, internal, nowait] arguments: FieldTable,
        }
        EXCHANGE_DELETE ExchangeDelete (40, 20) "exchange.delete" {
            (u16) exchange: String, [if_unused, nowait]
        }
        EXCHANGE_BIND ExchangeBind (40, 30) "exchange.bind" {
            (u16) destination: String, source: String, routing_key: String, [nowait] arguments: FieldTable,
        }
        EXCHANGE_UNBIND ExchangeUnbind (40, 40) "exchange.unbind" {
            (u16) destination: String, source: String, routing_key: String, [nowait] arguments: FieldTable,
        }

        QUEUE_DECLARE QueueDeclare (50, 10) "queue.declare" {
            (u16) queue: String, [passive, durable, exclusive, auto_delete, nowait] arguments: FieldTable,
        }
        QUEUE_DECLARE_OK QueueDeclareOk (50, 11) "queue.declare-ok" {
            queue: String, message_count: u32, consumer_count: u32,
        }
        QUEUE_BIND QueueBind (50, 20) "queue.bind" {
            (u16) queue: String, exchange: String, routing_key: String, [nowait] arguments: FieldTable,
        }
        QUEUE_PURGE QueuePurge (50, 30) "queue.purge" { (u16) queue: String, [nowait] }
        QUEUE_PURGE_OK QueuePurgeOk (50, 31) "queue.purge-ok" { message_count: u32, }
        QUEUE_DELETE QueueDelete (50, 40) "queue.delete" {
            (u16) queue: String, [if_unused, if_empty, nowait]
        }
        QUEUE_DELETE_OK QueueDeleteOk (50, 41) "queue.delete-ok" { message_count: u32, }
        QUEUE_UNBIND QueueUnbind (50, 50) "queue.unbind" {
            (u16) queue: String, exchange: String, routing_key: String, arguments: FieldTable,
        }

        BASIC_QOS BasicQos (60, 10) "basic.qos" { prefetch_size: u32, prefetch_count: u16, [global] }
        BASIC_CONSUME BasicConsume (60, 20) "basic.consume" {
            (u16) queue: String, consumer_tag: String,
            [no_local, no_ack, exclusive, nowait] arguments: FieldTable,
        }
        BASIC_CONSUME_OK BasicConsumeOk (60, 21) "basic.consume-ok" { consumer_tag: String, }
        BASIC_CANCEL BasicCancel (60, 30) "basic.cancel" { consumer_tag: String, [nowait] }
        BASIC_CANCEL_OK BasicCancelOk (60, 31) "basic.cancel-ok" { consumer_tag: String, }
        BASIC_PUBLISH BasicPublish (60, 40) "basic.publish" {
            (u16) exchange: ShortString, routing_key: ShortString, [mandatory, immediate]
        }
        BASIC_RETURN BasicReturn (60, 50) "basic.return" {
            reply_code: u16, reply_text: ShortString, exchange: ShortString, routing_key: ShortString,
        }
        BASIC_DELIVER BasicDeliver (60, 60) "basic.deliver" {
            consumer_tag: ShortString, delivery_tag: u64, [redelivered]
            exchange: ShortString, routing_key: ShortString,
        }
        BASIC_GET BasicGet (60, 70) "basic.get" { (u16) queue: String, [no_ack] }
        /// `message_count` is what remains ready behind this one.
        BASIC_GET_OK BasicGetOk (60, 71) "basic.get-ok" {
            delivery_tag: u64, [redelivered]
            exchange: ShortString, routing_key: ShortString, message_count: u32,
        }
        BASIC_ACK BasicAck (60, 80) "basic.ack" { delivery_tag: u64, [multiple] }
        BASIC_REJECT BasicReject (60, 90) "basic.reject" { delivery_tag: u64, [requeue] }
        BASIC_RECOVER_ASYNC BasicRecoverAsync (60, 100) "basic.recover-async" { [requeue] }
        BASIC_RECOVER BasicRecover (60, 110) "basic.recover" { [requeue] }
        BASIC_NACK BasicNack (60, 120) "basic.nack" { delivery_tag: u64, [multiple, requeue] }

        CONFIRM_SELECT ConfirmSelect (85, 10) "confirm.select" { [nowait] }
    }
    bare {
        CONNECTION_OPEN_OK ConnectionOpenOk (10, 41) "connection.open-ok" { (String) }
        CONNECTION_CLOSE_OK ConnectionCloseOk (10, 51) "connection.close-ok" {}
        CONNECTION_UNBLOCKED ConnectionUnblocked (10, 61) "connection.unblocked" {}
        CONNECTION_UPDATE_SECRET_OK ConnectionUpdateSecretOk (10, 71) "connection.update-secret-ok" {}
        CHANNEL_OPEN ChannelOpen (20, 10) "channel.open" { (String) }
        CHANNEL_OPEN_OK ChannelOpenOk (20, 11) "channel.open-ok" { (Bytes) }
        CHANNEL_CLOSE_OK ChannelCloseOk (20, 41) "channel.close-ok" {}
        EXCHANGE_DECLARE_OK ExchangeDeclareOk (40, 11) "exchange.declare-ok" {}
        EXCHANGE_DELETE_OK ExchangeDeleteOk (40, 21) "exchange.delete-ok" {}
        EXCHANGE_BIND_OK ExchangeBindOk (40, 31) "exchange.bind-ok" {}
        /// 51 and not 41: the id RabbitMQ gave it.
        EXCHANGE_UNBIND_OK ExchangeUnbindOk (40, 51) "exchange.unbind-ok" {}
        QUEUE_BIND_OK QueueBindOk (50, 21) "queue.bind-ok" {}
        QUEUE_UNBIND_OK QueueUnbindOk (50, 51) "queue.unbind-ok" {}
        BASIC_QOS_OK BasicQosOk (60, 11) "basic.qos-ok" {}
        BASIC_GET_EMPTY BasicGetEmpty (60, 72) "basic.get-empty" { (String) }
        BASIC_RECOVER_OK BasicRecoverOk (60, 111) "basic.recover-ok" {}
        CONFIRM_SELECT_OK ConfirmSelectOk (85, 11) "confirm.select-ok" {}
        TX_SELECT TxSelect (90, 10) "tx.select" {}
        TX_SELECT_OK TxSelectOk (90, 11) "tx.select-ok" {}
        TX_COMMIT TxCommit (90, 20) "tx.commit" {}
        TX_COMMIT_OK TxCommitOk (90, 21) "tx.commit-ok" {}
        TX_ROLLBACK TxRollback (90, 30) "tx.rollback" {}
        TX_ROLLBACK_OK TxRollbackOk (90, 31) "tx.rollback-ok" {}
    }
}
