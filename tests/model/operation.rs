//! What a script may say. Names are few, so that operations meet.

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};

/// A queue as it is usually declared.
pub(crate) struct QueueKind {
    pub(crate) name: &'static str,
    pub(crate) flags: &'static str,
    pub(crate) max_length: Option<usize>,
    pub(crate) overflow: Overflow,
    /// The exchange of its dead letters, and their key if they get another.
    pub(crate) dead: Option<(&'static str, Option<&'static str>)>,
    pub(crate) max_priority: u8,
    /// It has a single active consumer.
    pub(crate) single: bool,
    /// It is of the quorum type, with this limit of failed deliveries.
    pub(crate) quorum: Option<u16>,
}

/// What a full queue does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    DropHead,
    Reject,
    /// The message refused is dead-lettered.
    Divert,
}

const fn plain(name: &'static str, flags: &'static str) -> QueueKind {
    QueueKind {
        name,
        flags,
        max_length: None,
        overflow: Overflow::DropHead,
        dead: None,
        max_priority: 0,
        single: false,
        quorum: None,
    }
}

pub(crate) const QUEUES: [QueueKind; 14] = [
    plain("plain", ""),
    plain("durable", "durable"),
    plain("temporary", "auto-delete"),
    plain("private", "exclusive"),
    plain("kept", "durable auto-delete"),
    QueueKind {
        max_length: Some(2),
        dead: Some(("", Some("dying"))),
        ..plain("short", "durable")
    },
    QueueKind {
        max_length: Some(2),
        overflow: Overflow::Reject,
        ..plain("refusing", "durable")
    },
    QueueKind {
        max_length: Some(1),
        overflow: Overflow::Divert,
        dead: Some(("", Some("dying"))),
        ..plain("diverting", "")
    },
    // With the fanout bound to them, its dead letters go round.
    QueueKind {
        dead: Some(("fanout", None)),
        ..plain("dying", "durable")
    },
    QueueKind {
        max_priority: 3,
        dead: Some(("", Some("aside"))),
        ..plain("ranked", "durable")
    },
    QueueKind {
        single: true,
        ..plain("single", "durable")
    },
    QueueKind {
        quorum: Some(2),
        dead: Some(("", Some("aside"))),
        ..plain("group", "durable")
    },
    QueueKind {
        quorum: Some(20),
        single: true,
        ..plain("line", "durable")
    },
    plain("aside", "durable"),
];

/// Exchange names with type and flags.
pub(crate) const EXCHANGES: [(&str, &str, &str); 4] = [
    ("direct", "direct", "durable"),
    ("fanout", "fanout", ""),
    ("topic", "topic", "durable"),
    ("passing", "direct", "auto-delete"),
];

/// Routing keys and binding keys; `*` and `#` are patterns in a topic binding.
pub(crate) const KEYS: [&str; 5] = ["a", "b", "a.b", "*", "#"];
pub(crate) const TAGS: [&str; 3] = ["x", "y", "z"];
pub(crate) const CHANNELS: usize = 3;
/// The channel with transactions; the others have confirms.
pub(crate) const TX: usize = 2;

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    Ack,
    Nack { requeue: bool },
    Reject { requeue: bool },
}

/// Which delivery tag is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// One that is outstanding, counted from the oldest; none outstanding makes it an unknown one.
    Outstanding(usize),
    Zero,
    Unknown,
}

/// Numbers stand for places in the tables above.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Declare {
        channel: usize,
        queue: usize,
    },
    /// With flags that may differ from what is there.
    Redeclare {
        channel: usize,
        queue: usize,
        like: usize,
    },
    DeleteQueue {
        channel: usize,
        queue: usize,
        if_unused: bool,
        if_empty: bool,
    },
    Purge {
        channel: usize,
        queue: usize,
    },
    DeclareExchange {
        channel: usize,
        exchange: usize,
    },
    DeleteExchange {
        channel: usize,
        exchange: usize,
        if_unused: bool,
    },
    Bind {
        channel: usize,
        queue: usize,
        exchange: usize,
        key: usize,
    },
    Unbind {
        channel: usize,
        queue: usize,
        exchange: usize,
        key: usize,
    },
    /// To an exchange, or to a queue by the default one.
    Publish {
        channel: usize,
        to: Target,
        persistent: bool,
        mandatory: bool,
        priority: Option<u8>,
    },
    /// Of the channel with transactions.
    Commit,
    Rollback,
    Consume {
        channel: usize,
        queue: usize,
        tag: usize,
        no_ack: bool,
        exclusive: bool,
        prefetch: u16,
        priority: i32,
    },
    Cancel {
        channel: usize,
        tag: usize,
    },
    Get {
        channel: usize,
        queue: usize,
        no_ack: bool,
    },
    Settle {
        channel: usize,
        which: Which,
        multiple: bool,
        how: Settle,
    },
    Recover {
        channel: usize,
    },
    /// Closed and opened again.
    CloseChannel {
        channel: usize,
    },
    /// The broker is stopped and started on its directory.
    Restart,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Exchange { exchange: usize, key: usize },
    Queue(usize),
}

pub(crate) fn script(steps: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(operation(), 1..=steps)
}

fn operation() -> impl Strategy<Value = Op> {
    let channel = || 0..CHANNELS;
    let queue = || 0..QUEUES.len();
    let exchange = || 0..EXCHANGES.len();
    let key = || 0..KEYS.len();
    let tag = || 0..TAGS.len();
    prop_oneof![
        16 => (channel(), queue()).prop_map(|(channel, queue)| Op::Declare { channel, queue }),
        2 => (channel(), queue(), queue()).prop_map(|(channel, queue, like)| Op::Redeclare { channel, queue, like }),
        2 => (channel(), queue(), any::<bool>(), any::<bool>())
            .prop_map(|(channel, queue, if_unused, if_empty)| Op::DeleteQueue { channel, queue, if_unused, if_empty }),
        2 => (channel(), queue()).prop_map(|(channel, queue)| Op::Purge { channel, queue }),
        4 => (channel(), exchange()).prop_map(|(channel, exchange)| Op::DeclareExchange { channel, exchange }),
        1 => (channel(), exchange(), any::<bool>())
            .prop_map(|(channel, exchange, if_unused)| Op::DeleteExchange { channel, exchange, if_unused }),
        8 => (channel(), queue(), exchange(), key())
            .prop_map(|(channel, queue, exchange, key)| Op::Bind { channel, queue, exchange, key }),
        2 => (channel(), queue(), exchange(), key())
            .prop_map(|(channel, queue, exchange, key)| Op::Unbind { channel, queue, exchange, key }),
        40 => (channel(), target(), any::<bool>(), any::<bool>(), prop::option::of(0..6_u8)).prop_map(
            |(channel, to, persistent, mandatory, priority)| {
                Op::Publish { channel, to, persistent, mandatory, priority }
            }
        ),
        6 => Just(Op::Commit),
        2 => Just(Op::Rollback),
        8 => (channel(), queue(), tag(), any::<bool>(), 0..8_u8, 0..4_u16, -1..2_i32).prop_map(
            |(channel, queue, tag, no_ack, exclusive, prefetch, priority)| {
                let exclusive = exclusive == 0;
                Op::Consume { channel, queue, tag, no_ack, exclusive, prefetch, priority }
            }
        ),
        3 => (channel(), tag()).prop_map(|(channel, tag)| Op::Cancel { channel, tag }),
        10 => (channel(), queue(), any::<bool>()).prop_map(|(channel, queue, no_ack)| Op::Get { channel, queue, no_ack }),
        16 => (channel(), which(), any::<bool>(), settle())
            .prop_map(|(channel, which, multiple, how)| Op::Settle { channel, which, multiple, how }),
        1 => channel().prop_map(|channel| Op::Recover { channel }),
        1 => channel().prop_map(|channel| Op::CloseChannel { channel }),
        1 => Just(Op::Restart),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        1 => (0..EXCHANGES.len(), 0..KEYS.len()).prop_map(|(exchange, key)| Target::Exchange { exchange, key }),
        2 => (0..QUEUES.len()).prop_map(Target::Queue),
    ]
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        20 => (0..6_usize).prop_map(Which::Outstanding),
        2 => Just(Which::Zero),
        1 => Just(Which::Unknown),
    ]
}

fn settle() -> impl Strategy<Value = Settle> {
    prop_oneof![
        3 => Just(Settle::Ack),
        2 => any::<bool>().prop_map(|requeue| Settle::Nack { requeue }),
        2 => any::<bool>().prop_map(|requeue| Settle::Reject { requeue }),
    ]
}
