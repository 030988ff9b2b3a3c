//! Every method beside amq-protocol's: the same fields give the same bytes, and each reads the other's.

use amq_protocol::protocol::{
    AMQPClass, access, basic, channel, confirm, connection, exchange, gen_class, parse_class, queue, tx,
};

use super::encoded;
use crate::protocol::{
    field::{FieldTable, FieldValue},
    method::{Method, MethodId},
    oracle,
};

/// What an entry's fields draw from: bits, and a table of arguments.
struct Sample {
    bits: [bool; 5],
    table: FieldTable,
}

/// One value, in our type or in theirs.
trait Value<T> {
    fn value(self) -> T;
}

/// Text, as a short or long string.
impl<T: From<&'static str>> Value<T> for &'static str {
    fn value(self) -> T {
        T::from(self)
    }
}

impl Value<FieldTable> for &FieldTable {
    fn value(self) -> FieldTable {
        self.clone()
    }
}

impl Value<amq_protocol::types::FieldTable> for &FieldTable {
    fn value(self) -> amq_protocol::types::FieldTable {
        oracle::table(self)
    }
}

/// Our method and theirs from one list of fields, which have the same names in both. Bits take their values
/// from the sample, in their order.
macro_rules! pairs {
    ($sample:ident: $(
        $ours:ident = $class:ident::$module:ident::$theirs:ident
        { $($text:ident: $value:expr),* $(; $($number:ident = $plain:expr),+)? $(; [$($bit:ident),+])? }
    )+) => {
        vec![$({
            $(
                let mut bits = $sample.bits.into_iter();
                $( let $bit = bits.next().unwrap(); )+
            )?
            let ours = Method::$ours {
                $($text: Value::value($value),)* $( $($number: $plain,)+ )? $( $($bit,)+ )?
            };
            let theirs = $module::$theirs {
                $($text: Value::value($value),)* $( $($number: $plain,)+ )? $( $($bit,)+ )?
            };
            (ours, AMQPClass::$class($module::AMQPMethod::$theirs(theirs)))
        },)+]
    };
}

/// All methods whose fields are the same in both.
fn pairs(sample: &Sample) -> Vec<(Method, AMQPClass)> {
    [connection_to_exchange(sample), queue_to_tx(sample)].concat()
}

fn connection_to_exchange(sample: &Sample) -> Vec<(Method, AMQPClass)> {
    let arguments = &sample.table;
    pairs! { sample:
        ConnectionStart = Connection::connection::Start {
            server_properties: arguments, mechanisms: "PLAIN AMQPLAIN", locales: "en_US";
            version_major = 0, version_minor = 9
        }
        ConnectionStartOk = Connection::connection::StartOk {
            client_properties: arguments, mechanism: "PLAIN", response: "\0guest\0secret", locale: "en_US"
        }
        ConnectionSecure = Connection::connection::Secure { challenge: "who" }
        ConnectionSecureOk = Connection::connection::SecureOk { response: "me" }
        ConnectionTune = Connection::connection::Tune {
            ; channel_max = 2047, frame_max = 131_072, heartbeat = 60
        }
        ConnectionTuneOk = Connection::connection::TuneOk {
            ; channel_max = 100, frame_max = 8192, heartbeat = 5
        }
        ConnectionOpen = Connection::connection::Open { virtual_host: "/" }
        ConnectionOpenOk = Connection::connection::OpenOk {}
        ConnectionClose = Connection::connection::Close {
            reply_text: "bye"; reply_code = 320, class_id = 50, method_id = 10
        }
        ConnectionCloseOk = Connection::connection::CloseOk {}
        ConnectionBlocked = Connection::connection::Blocked { reason: "low on memory" }
        ConnectionUnblocked = Connection::connection::Unblocked {}
        ConnectionUpdateSecret = Connection::connection::UpdateSecret { new_secret: "s3cret", reason: "old" }
        ConnectionUpdateSecretOk = Connection::connection::UpdateSecretOk {}
        ChannelOpen = Channel::channel::Open {}
        ChannelOpenOk = Channel::channel::OpenOk {}
        ChannelFlow = Channel::channel::Flow { ; [active] }
        ChannelFlowOk = Channel::channel::FlowOk { ; [active] }
        ChannelClose = Channel::channel::Close {
            reply_text: "none"; reply_code = 404, class_id = 60, method_id = 40
        }
        ChannelCloseOk = Channel::channel::CloseOk {}
        AccessRequest = Access::access::Request { realm: "/data"; [exclusive, passive, active, write, read] }
        ExchangeDeclare = Exchange::exchange::Declare {
            exchange: "e", kind: "topic", arguments: arguments;
            [passive, durable, auto_delete, internal, nowait]
        }
        ExchangeDeclareOk = Exchange::exchange::DeclareOk {}
        ExchangeDelete = Exchange::exchange::Delete { exchange: "e"; [if_unused, nowait] }
        ExchangeDeleteOk = Exchange::exchange::DeleteOk {}
        ExchangeBind = Exchange::exchange::Bind {
            destination: "to", source: "from", routing_key: "k", arguments: arguments; [nowait]
        }
        ExchangeBindOk = Exchange::exchange::BindOk {}
        ExchangeUnbind = Exchange::exchange::Unbind {
            destination: "to", source: "from", routing_key: "k", arguments: arguments; [nowait]
        }
        ExchangeUnbindOk = Exchange::exchange::UnbindOk {}
    }
}

fn queue_to_tx(sample: &Sample) -> Vec<(Method, AMQPClass)> {
    let arguments = &sample.table;
    pairs! { sample:
        QueueDeclare = Queue::queue::Declare {
            queue: "q", arguments: arguments; [passive, durable, exclusive, auto_delete, nowait]
        }
        QueueDeclareOk = Queue::queue::DeclareOk { queue: "q"; message_count = 7, consumer_count = 3 }
        QueueBind = Queue::queue::Bind {
            queue: "q", exchange: "e", routing_key: "k", arguments: arguments; [nowait]
        }
        QueueBindOk = Queue::queue::BindOk {}
        QueuePurge = Queue::queue::Purge { queue: "q"; [nowait] }
        QueuePurgeOk = Queue::queue::PurgeOk { ; message_count = 7 }
        QueueDelete = Queue::queue::Delete { queue: "q"; [if_unused, if_empty, nowait] }
        QueueDeleteOk = Queue::queue::DeleteOk { ; message_count = 7 }
        QueueUnbind = Queue::queue::Unbind {
            queue: "q", exchange: "e", routing_key: "k", arguments: arguments
        }
        QueueUnbindOk = Queue::queue::UnbindOk {}
        BasicQosOk = Basic::basic::QosOk {}
        BasicConsume = Basic::basic::Consume {
            queue: "q", consumer_tag: "c", arguments: arguments; [no_local, no_ack, exclusive, nowait]
        }
        BasicConsumeOk = Basic::basic::ConsumeOk { consumer_tag: "c" }
        BasicCancel = Basic::basic::Cancel { consumer_tag: "c"; [nowait] }
        BasicCancelOk = Basic::basic::CancelOk { consumer_tag: "c" }
        BasicPublish = Basic::basic::Publish { exchange: "e", routing_key: "k"; [mandatory, immediate] }
        BasicReturn = Basic::basic::Return {
            reply_text: "NO_ROUTE", exchange: "e", routing_key: "k"; reply_code = 312
        }
        BasicDeliver = Basic::basic::Deliver {
            consumer_tag: "c", exchange: "e", routing_key: "k"; delivery_tag = 1 << 40; [redelivered]
        }
        BasicGet = Basic::basic::Get { queue: "q"; [no_ack] }
        BasicGetOk = Basic::basic::GetOk {
            exchange: "e", routing_key: "k"; delivery_tag = 1 << 40, message_count = 7; [redelivered]
        }
        BasicGetEmpty = Basic::basic::GetEmpty {}
        BasicAck = Basic::basic::Ack { ; delivery_tag = 1 << 40; [multiple] }
        BasicReject = Basic::basic::Reject { ; delivery_tag = 1 << 40; [requeue] }
        BasicRecoverAsync = Basic::basic::RecoverAsync { ; [requeue] }
        BasicRecover = Basic::basic::Recover { ; [requeue] }
        BasicRecoverOk = Basic::basic::RecoverOk {}
        BasicNack = Basic::basic::Nack { ; delivery_tag = 1 << 40; [multiple, requeue] }
        ConfirmSelect = Confirm::confirm::Select { ; [nowait] }
        ConfirmSelectOk = Confirm::confirm::SelectOk {}
        TxSelect = Tx::tx::Select {}
        TxSelectOk = Tx::tx::SelectOk {}
        TxCommit = Tx::tx::Commit {}
        TxCommitOk = Tx::tx::CommitOk {}
        TxRollback = Tx::tx::Rollback {}
        TxRollbackOk = Tx::tx::RollbackOk {}
    }
}

fn check(ours: &Method, theirs: &AMQPClass) {
    let bytes = encoded(ours);
    assert_eq!(oracle::written(|out| gen_class(theirs)(out)), bytes, "{ours:?}");
    let (rest, read) = parse_class(&bytes[..]).unwrap();
    assert!(rest.is_empty(), "{ours:?}");
    assert_eq!(&read, theirs);
    assert_eq!(Method::decode(&bytes).as_ref(), Ok(ours));
}

fn arguments() -> FieldTable {
    let entries = [
        ("alternate-exchange", FieldValue::LongString("ae".into())),
        ("x-expires", FieldValue::I32(5)),
    ];
    entries
        .into_iter()
        .map(|(key, value)| (key.into(), value))
        .collect()
}

#[test]
fn amq_protocol_writes_and_reads_the_same_methods() {
    for table in [FieldTable::new(), arguments()] {
        // No bit, then each alone, so that none can be mistaken for its neighbour.
        let single_bits = (0..5).map(|set| std::array::from_fn(|at| at == set));
        for bits in [[false; 5]].into_iter().chain(single_bits) {
            for (ours, theirs) in pairs(&Sample {
                bits,
                table: table.clone(),
            }) {
                check(&ours, &theirs);
            }
        }
    }
}

#[test]
fn two_methods_have_a_field_amq_protocol_leaves_out() {
    for global in [false, true] {
        let ours = Method::BasicQos {
            prefetch_size: 0,
            prefetch_count: 300,
            global,
        };
        let theirs = basic::Qos {
            prefetch_count: 300,
            global,
        };
        check(&ours, &AMQPClass::Basic(basic::AMQPMethod::Qos(theirs)));
    }
    let granted = AMQPClass::Access(access::AMQPMethod::RequestOk(access::RequestOk {}));
    check(&Method::AccessRequestOk { ticket: 1 }, &granted);
}

#[test]
fn no_method_is_left_out_here() {
    let sample = Sample {
        bits: [false; 5],
        table: FieldTable::new(),
    };
    let mut ids: Vec<MethodId> = pairs(&sample).iter().map(|(ours, _)| ours.id()).collect();
    ids.extend([MethodId::BASIC_QOS, MethodId::ACCESS_REQUEST_OK]);
    ids.sort();
    let mut all = MethodId::ALL.to_vec();
    all.sort();
    assert_eq!(ids, all);
}
