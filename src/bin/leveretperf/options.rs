//! The command line as the user writes it. `plan.rs` turns it into what the run needs.

use clap::{Parser, builder::NonEmptyStringValueParser};

use crate::uri::Uri;

const EXAMPLES: &str = "\
Examples:
  Throughput of small transient messages:
    leveretperf --auto-ack
  Persistent messages with at most 100 unconfirmed, an ack for every 100 deliveries:
    leveretperf --durable --persistent --size 1024 --confirm-window 100 --ack-every 100
  Latency at 1,000 messages per second:
    leveretperf --auto-ack --rate 1000
  Fill a queue with a million messages, then drain it:
    leveretperf --queue backlog --durable --persistent --publish-only --count 1000000
    leveretperf --queue backlog --consume-only --ack-every 100
  A topic exchange with 1,000 bindings to one queue:
    leveretperf --auto-ack --exchange-type topic --bindings 1000

Queues and exchanges without a name given are the run's own and are deleted at its end; named ones stay.
Latency is end to end (from writing a message to reading it) and confirm (from writing it to reading its
confirm). With --rate, a message that fell due while the broker blocked the publisher counts from when it
was due. At full speed without confirms end-to-end latency is the depth of the queue, and one delivery in
64 is timed.
Exit codes: 0 measured, 1 the run failed, 2 wrong usage.";

/// Puts load on any AMQP 0-9-1 broker and measures it.
#[derive(Debug, Parser)]
#[command(name = "leveretperf", version, after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The broker, as amqp://user:password@host:port/vhost
    #[arg(long, default_value = "amqp://guest:guest@localhost:5672")]
    pub(crate) uri: Uri,

    /// Publishing connections, each with a channel and a thread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20_000), help_heading = "Load")]
    pub(crate) publishers: u32,
    /// Consuming connections, each with a channel and a thread; the queues are dealt out among them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20_000), help_heading = "Load")]
    pub(crate) consumers: u32,
    /// Bytes of a body; from 8 on it carries the time it was sent
    #[arg(long, default_value_t = 16, help_heading = "Load")]
    pub(crate) size: u32,
    /// Mark messages persistent (delivery mode 2)
    #[arg(long, help_heading = "Load")]
    pub(crate) persistent: bool,
    /// Publisher confirms with at most so many messages unconfirmed per publisher; 0 for no confirms
    #[arg(long, default_value_t = 0, value_name = "MESSAGES", help_heading = "Load")]
    pub(crate) confirm_window: u64,
    /// Publish so many messages per second, all publishers together, evenly spaced
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Load")]
    pub(crate) rate: Option<u64>,
    /// Only publish; nothing is consumed
    #[arg(long, conflicts_with = "consume_only", help_heading = "Load")]
    pub(crate) publish_only: bool,
    /// Only consume from --queue; without --seconds or --count, as many messages as it holds at the start
    #[arg(long, requires = "queue", help_heading = "Load")]
    pub(crate) consume_only: bool,

    /// Measure for so long [default: 10]
    #[arg(long, conflicts_with = "count", value_parser = seconds, help_heading = "Length")]
    pub(crate) seconds: Option<f64>,
    /// Run for so long before measuring [default: 1 with --seconds]
    #[arg(long, conflicts_with = "count", value_name = "SECONDS", value_parser = seconds, help_heading = "Length")]
    pub(crate) warm_up: Option<f64>,
    /// Send so many messages (all publishers together) and measure until the last has been received
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Length")]
    pub(crate) count: Option<u64>,

    /// No acks: the broker forgets a message when it has sent it
    #[arg(long, help_heading = "Consumers")]
    pub(crate) auto_ack: bool,
    /// Write one ack for every so many deliveries (multiple when above 1)
    #[arg(long, default_value_t = 1, value_name = "MESSAGES", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Consumers")]
    pub(crate) ack_every: u64,
    /// Unacked deliveries a consumer may hold; 0 for any number
    #[arg(
        long,
        default_value_t = 0,
        value_name = "MESSAGES",
        help_heading = "Consumers"
    )]
    pub(crate) prefetch: u16,

    /// Number of queues; messages are spread over them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Queues and exchange")]
    pub(crate) queues: u32,
    /// Name of the queue (NAME-0, NAME-1 ... when there are several)
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), help_heading = "Queues and exchange")]
    pub(crate) queue: Option<String>,
    /// Declare queues and exchange durable
    #[arg(long, help_heading = "Queues and exchange")]
    pub(crate) durable: bool,
    /// An argument of the queues, such as x-max-length=1000; may be repeated. Whole numbers, true and false are
    /// sent as such, everything else as text
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Queues and exchange")]
    pub(crate) queue_arg: Vec<String>,
    /// Publish to this exchange instead of the default one; it has to exist unless --exchange-type is given
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), help_heading = "Queues and exchange")]
    pub(crate) exchange: Option<String>,
    /// Declare an exchange of this type: direct, fanout, topic ...
    #[arg(long, value_name = "TYPE", help_heading = "Queues and exchange")]
    pub(crate) exchange_type: Option<String>,
    /// Number of bindings of the exchange, dealt out among the queues [default: one per queue]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000), help_heading = "Queues and exchange")]
    pub(crate) bindings: Option<u32>,
    /// Key of the bindings; {} is the binding's number [default: key.{}, for topic exchanges key.{}.*]
    #[arg(long, value_name = "KEY", help_heading = "Queues and exchange")]
    pub(crate) binding_key: Option<String>,
    /// Key to publish with; {} counts through --routing-keys [default: key.{}, for topic exchanges key.{}.a]
    #[arg(long, value_name = "KEY", help_heading = "Queues and exchange")]
    pub(crate) routing_key: Option<String>,
    /// How many routing keys to go through in turn [default: as many as bindings]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000_000), help_heading = "Queues and exchange")]
    pub(crate) routing_keys: Option<u32>,

    /// Print the result as one JSON object
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Print the rates of every second to standard error, also when that is not a terminal
    #[arg(long, help_heading = "Output")]
    pub(crate) progress: bool,
    /// Process id of the broker: adds its CPU time and memory to the result
    #[arg(long, value_name = "PID", help_heading = "Output")]
    pub(crate) broker_pid: Option<u32>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e7).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds, at most 10,000,000".into()),
    }
}
