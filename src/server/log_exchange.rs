//! The log exchange: lines of the broker's log, published to `amq.rabbitmq.log` of the default vhost with their level for
//! routing key, as RabbitMQ does with `log.exchange = true`. The log exists before the broker and sends nothing until then.

use std::{
    fmt::{Debug, Write},
    sync::{Arc, OnceLock},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::protocol::field::{FieldTable, FieldValue};
use crate::server::{
    Broker,
    announcer::{Announcement, Announcer, LOG_EXCHANGE},
};

/// Bytes of a line; the rest is cut off.
const LINE_MAX: usize = 16 * 1024;

/// A layer of the program's log, and its end in the broker.
#[derive(Clone, Default)]
pub struct LogExchange {
    /// Set when a broker with a log exchange has started.
    broker: Arc<OnceLock<(Arc<Announcer>, String)>>,
}

impl LogExchange {
    fn publish(&self, level: Level, line: String) {
        let Some((announcer, node)) = self.broker.get() else {
            return;
        };
        let mut headers = FieldTable::default();
        headers.insert("level", text(name(level)));
        headers.insert("node", text(node));
        announcer.post(Announcement {
            vhost: None,
            exchange: LOG_EXCHANGE,
            routing_key: name(level).to_owned(),
            headers,
            about: None,
            text: Some(line),
        });
    }
}

fn text(value: &str) -> FieldValue {
    FieldValue::LongString(value.to_owned().into())
}

/// RabbitMQ's names of the levels.
fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

impl<S: Subscriber> Layer<S> for LogExchange {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // What is finer happens for every message, those with log lines included.
        if self.broker.get().is_none() || *event.metadata().level() == Level::TRACE {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        self.publish(*event.metadata().level(), line.message + &line.fields);
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.message.len() + self.fields.len() > LINE_MAX {
            return;
        }
        // Writing to a string cannot fail.
        let _written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl Broker {
    /// Creates the exchange in the default vhost and publishes the log there from now on.
    pub(super) fn enable_log_exchange(&self, default_vhost: &str, log: &LogExchange) {
        let Some(vhost) = self.vhost(default_vhost) else {
            return;
        };
        vhost.ensure_system_exchange(LOG_EXCHANGE);
        let announcer = Arc::clone(&self.queues.announcer);
        // A program has one broker; of several the first has the log.
        drop(log.broker.set((announcer, self.cluster_name())));
    }
}
