//! The options, checked and turned into names, keys and numbers.

use std::process;

use bytes::Bytes;
use leveret::protocol::field::{FieldTable, FieldValue, ShortString};

use crate::{consumer::ConsumerPlan, error::PerfError, options::Options, uri::Uri};

/// At full speed timing every delivery would cost more than counting it.
const LATENCY_EVERY_AT_FULL_SPEED: u64 = 64;
/// What AMQP allows is 255; the numbers that are added to names need some.
const NAME_MAX_BYTES: usize = 200;

pub(crate) struct Plan {
    pub(crate) uri: Uri,
    pub(crate) publishers: u64,
    pub(crate) consumers: u64,
    pub(crate) queues: Vec<String>,
    /// The queues are the run's own: made for it, deleted after it.
    pub(crate) own_queues: bool,
    /// Existing queues are drained; declaring them again would have to repeat their arguments.
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    pub(crate) queue_arguments: FieldTable,
    /// `None` is the default exchange.
    pub(crate) exchange: Option<ExchangePlan>,
    pub(crate) routing_keys: Vec<String>,
    pub(crate) body_bytes: usize,
    pub(crate) persistent: bool,
    pub(crate) confirm_window: Option<u64>,
    pub(crate) consumer: ConsumerPlan,
    pub(crate) rate: Option<u64>,
    pub(crate) length: Length,
    pub(crate) broker_pid: Option<u32>,
}

pub(crate) struct ExchangePlan {
    pub(crate) name: String,
    /// Declare it with this type; `None` takes it as it is.
    pub(crate) kind: Option<String>,
    /// It is the run's own: made for it, deleted after it.
    pub(crate) own: bool,
    /// Queue and key.
    pub(crate) bindings: Vec<(String, String)>,
}

/// How long to run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Length {
    Time {
        warm_up_seconds: f64,
        seconds: f64,
    },
    /// So many messages are published, and each consumed (by every queue of a fanout exchange).
    Messages {
        published: u64,
        consumed: u64,
    },
    /// As many as the queues hold at the start.
    Backlog,
}

impl Plan {
    /// # Errors
    /// Options that contradict each other, and names AMQP has no room for.
    pub(crate) fn new(options: &Options) -> Result<Self, PerfError> {
        check_names(options)?;
        if options.prefetch > 0 && !options.auto_ack && options.ack_every > u64::from(options.prefetch) {
            let text = "--ack-every is above --prefetch: the broker would wait for an ack that never comes";
            return Err(PerfError::Options(text.into()));
        }
        let own = format!("leveretperf-{}", process::id());
        let queues = numbered_names(options.queue.as_ref().unwrap_or(&own), options.queues);
        let exchange = exchange_plan(options, &own, &queues);
        let consumed_per_message = match &options.exchange_type {
            Some(kind) if kind == "fanout" => u64::from(options.queues),
            _ => 1,
        };
        let length = match (options.count, options.seconds) {
            (Some(count), _) => Length::Messages {
                published: if options.consume_only { 0 } else { count },
                consumed: if options.publish_only {
                    0
                } else {
                    count * consumed_per_message
                },
            },
            (None, None) if options.consume_only => Length::Backlog,
            (None, seconds) => Length::Time {
                warm_up_seconds: options.warm_up.unwrap_or(1.0),
                seconds: seconds.unwrap_or(10.0),
            },
        };
        let full_speed = options.rate.is_none() && options.confirm_window == 0;
        Ok(Self {
            uri: options.uri.clone(),
            publishers: if options.consume_only {
                0
            } else {
                options.publishers.into()
            },
            consumers: if options.publish_only {
                0
            } else {
                options.consumers.into()
            },
            routing_keys: routing_keys(options, exchange.as_ref(), &queues),
            queues,
            own_queues: options.queue.is_none(),
            passive: options.consume_only,
            durable: options.durable,
            queue_arguments: queue_arguments(&options.queue_arg)?,
            exchange,
            body_bytes: options.size as usize,
            persistent: options.persistent,
            confirm_window: (options.confirm_window > 0).then_some(options.confirm_window),
            consumer: ConsumerPlan {
                auto_ack: options.auto_ack,
                prefetch: options.prefetch,
                ack_every: options.ack_every,
                latency_every: if full_speed {
                    LATENCY_EVERY_AT_FULL_SPEED
                } else {
                    1
                },
            },
            rate: options.rate,
            length,
            broker_pid: options.broker_pid,
        })
    }

    /// The queues the `nth` consumer consumes from: all are consumed, and no consumer is idle.
    pub(crate) fn queues_of(&self, nth: u64) -> Vec<String> {
        let queues = self.queues.len() as u64;
        let mine = |queue: u64| {
            if queues >= self.consumers {
                queue % self.consumers == nth
            } else {
                nth % queues == queue
            }
        };
        (0..)
            .zip(&self.queues)
            .filter(|(queue, _)| mine(*queue))
            .map(|(_, name)| name.clone())
            .collect()
    }
}

fn check_names(options: &Options) -> Result<(), PerfError> {
    let names = [
        &options.queue,
        &options.exchange,
        &options.exchange_type,
        &options.binding_key,
        &options.routing_key,
    ];
    match names
        .into_iter()
        .flatten()
        .find(|name| name.len() > NAME_MAX_BYTES)
    {
        Some(name) => Err(PerfError::Options(format!(
            "'{name}' is longer than {NAME_MAX_BYTES} bytes"
        ))),
        None => Ok(()),
    }
}

fn numbered_names(base: &str, count: u32) -> Vec<String> {
    if count == 1 {
        vec![base.to_string()]
    } else {
        (0..count).map(|nth| format!("{base}-{nth}")).collect()
    }
}

fn exchange_plan(options: &Options, own: &str, queues: &[String]) -> Option<ExchangePlan> {
    if options.exchange.is_none() && options.exchange_type.is_none() {
        return None;
    }
    let count = options.bindings.unwrap_or(options.queues);
    let pattern =
        options
            .binding_key
            .as_deref()
            .unwrap_or(if is_topic(options) { "key.{}.*" } else { "key.{}" });
    Some(ExchangePlan {
        name: options.exchange.clone().unwrap_or_else(|| own.to_string()),
        kind: options.exchange_type.clone(),
        own: options.exchange.is_none(),
        bindings: queues
            .iter()
            .cycle()
            .cloned()
            .zip((0..count).map(|nth| numbered(pattern, nth)))
            .collect(),
    })
}

fn routing_keys(options: &Options, exchange: Option<&ExchangePlan>, queues: &[String]) -> Vec<String> {
    let default_count = exchange.map_or(options.queues, |_| options.bindings.unwrap_or(options.queues));
    let count = options.routing_keys.unwrap_or(default_count);
    match (&options.routing_key, exchange) {
        (Some(pattern), _) if pattern.contains("{}") => {
            (0..count).map(|nth| numbered(pattern, nth)).collect()
        }
        (Some(key), _) => vec![key.clone()],
        (None, None) => queues.to_vec(),
        (None, Some(_)) => {
            let pattern = if is_topic(options) { "key.{}.a" } else { "key.{}" };
            (0..count).map(|nth| numbered(pattern, nth)).collect()
        }
    }
}

fn is_topic(options: &Options) -> bool {
    options.exchange_type.as_deref() == Some("topic") || options.exchange.as_deref() == Some("amq.topic")
}

fn numbered(pattern: &str, nth: u32) -> String {
    pattern.replace("{}", &nth.to_string())
}

fn queue_arguments(pairs: &[String]) -> Result<FieldTable, PerfError> {
    let mut table = FieldTable::new();
    for pair in pairs {
        let bad = || PerfError::Options(format!("--queue-arg takes KEY=VALUE, not '{pair}'"));
        let (key, value) = pair.split_once('=').ok_or_else(bad)?;
        let key = ShortString::try_from(key.as_bytes()).map_err(|_too_long| bad())?;
        let value = match (value, value.parse::<i64>()) {
            (_, Ok(number)) => FieldValue::I64(number),
            ("true", _) => FieldValue::Bool(true),
            ("false", _) => FieldValue::Bool(false),
            (text, _) => FieldValue::LongString(Bytes::copy_from_slice(text.as_bytes())),
        };
        table.insert(key, value);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn plan(arguments: &str) -> Plan {
        let words = std::iter::once("leveretperf").chain(arguments.split_ascii_whitespace());
        Plan::new(&Options::try_parse_from(words).expect(arguments)).expect(arguments)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn lengths() {
        let time = Length::Time {
            warm_up_seconds: 1.0,
            seconds: 10.0,
        };
        assert_eq!(plan("").length, time);
        assert_eq!(plan("--consume-only --queue q").length, Length::Backlog);
        assert_eq!(
            plan("--count 5").length,
            Length::Messages {
                published: 5,
                consumed: 5
            }
        );
        assert_eq!(
            plan("--count 5 --publish-only").length,
            Length::Messages {
                published: 5,
                consumed: 0
            }
        );
        let consumed = plan("--count 5 --consume-only --queue q");
        assert_eq!(
            consumed.length,
            Length::Messages {
                published: 0,
                consumed: 5
            }
        );
        assert_eq!(
            (consumed.publishers, consumed.consumers, consumed.passive),
            (0, 1, true)
        );
        let fanout = plan("--count 5 --exchange-type fanout --queues 3");
        assert_eq!(
            fanout.length,
            Length::Messages {
                published: 5,
                consumed: 15
            }
        );
    }

    #[test]
    fn without_an_exchange_the_routing_keys_are_the_queues() {
        let several = plan("--queue q --queues 3");
        assert_eq!(several.queues, ["q-0", "q-1", "q-2"]);
        assert_eq!(several.routing_keys, several.queues);
        assert!(!several.own_queues);
        assert_eq!(plan("--queue q").queues, ["q"]);
        assert!(plan("").own_queues);
    }

    #[test]
    fn bindings_are_dealt_out_among_the_queues() {
        let topic = plan("--exchange-type topic --bindings 3 --queue q --queues 2");
        let exchange = topic.exchange.unwrap();
        let bindings: Vec<_> = exchange
            .bindings
            .iter()
            .map(|(queue, key)| (&**queue, &**key))
            .collect();
        assert_eq!(
            bindings,
            [("q-0", "key.0.*"), ("q-1", "key.1.*"), ("q-0", "key.2.*")]
        );
        assert_eq!(topic.routing_keys, ["key.0.a", "key.1.a", "key.2.a"]);
        assert!(exchange.own);
        let named =
            plan("--exchange amq.direct --routing-key k{} --routing-keys 2 --binding-key k{} --bindings 4");
        assert_eq!(named.routing_keys, ["k0", "k1"]);
        let exchange = named.exchange.unwrap();
        assert_eq!(
            (exchange.kind, exchange.own, exchange.bindings.len()),
            (None, false, 4)
        );
        assert_eq!(
            plan("--exchange-type fanout --routing-key same").routing_keys,
            ["same"]
        );
    }

    #[test]
    fn every_queue_has_a_consumer_and_every_consumer_a_queue() {
        for (queues, consumers) in [(1, 1), (1, 3), (3, 1), (3, 2), (2, 5), (7, 7)] {
            let plan = plan(&format!("--queue q --queues {queues} --consumers {consumers}"));
            let mut covered: Vec<String> = (0..consumers).flat_map(|nth| plan.queues_of(nth)).collect();
            assert!(
                (0..consumers).all(|nth| !plan.queues_of(nth).is_empty()),
                "{queues} {consumers}"
            );
            assert_eq!(covered.len() as u64, consumers.max(plan.queues.len() as u64));
            covered.sort_unstable();
            covered.dedup();
            assert_eq!(covered, plan.queues, "{queues} {consumers}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for arguments in [
            "--prefetch 10 --ack-every 11".to_string(),
            "--queue-arg x-max-length".into(),
            format!("--queue-arg {}=1", "k".repeat(256)),
            format!("--queue {}", "q".repeat(201)),
        ] {
            let words = std::iter::once("leveretperf").chain(arguments.split_ascii_whitespace());
            let options = Options::try_parse_from(words).expect(&arguments);
            assert!(
                matches!(Plan::new(&options), Err(PerfError::Options(_))),
                "{arguments}"
            );
        }
        for arguments in [
            "--publish-only --consume-only",
            "--consume-only",
            "--count 1 --seconds 2",
            "--rate 0",
            "--uri x",
        ] {
            let words = std::iter::once("leveretperf").chain(arguments.split_ascii_whitespace());
            assert!(Options::try_parse_from(words).is_err(), "{arguments}");
        }
    }

    #[test]
    fn queue_arguments_have_types() {
        let table = plan("--queue-arg x-max-length=10 --queue-arg x-queue-type=quorum --queue-arg a=true")
            .queue_arguments;
        assert_eq!(table.get("x-max-length"), Some(&FieldValue::I64(10)));
        assert_eq!(
            table.get("x-queue-type"),
            Some(&FieldValue::LongString("quorum".into()))
        );
        assert_eq!(table.get("a"), Some(&FieldValue::Bool(true)));
    }
}
