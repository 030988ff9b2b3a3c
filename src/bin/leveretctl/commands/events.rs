//! What happens in the broker, an object of JSON each: what the event exchange is told, through a queue of our own.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    call::Call,
    client::segment,
    command::{Spec, value},
    failure::{Failure, exit},
    interrupt::Interrupt,
    output::{Output, print_on},
    program::tools::DIAGNOSTICS,
};

pub(super) static COMMANDS: [Spec; 1] = [Spec {
    name: "consume_event_stream",
    tools: DIAGNOSTICS,
    group: "Monitoring, observability and health checks",
    args: "",
    options: &[
        value("duration", "seconds", "end after so long [default: never]").short('d'),
        value(
            "pattern",
            "pattern",
            "events of these names, such as queue.* [default: #]",
        ),
    ],
    about: "Events of the broker as they happen, until Ctrl-C; needs amqp.event_exchange (the vhost of the exchange is --vhost)",
    run: consume,
}];

const EXCHANGE: &str = "amq.rabbitmq.event";
/// The queue goes by itself when nobody asks for it any more.
const EXPIRES_MS: u64 = 60_000;
const EVENTS_MAX: u64 = 10_000;
const PAGE: u64 = 200;
const PAUSE: Duration = Duration::from_millis(100);

fn consume(call: &mut Call) -> Result<Output, Failure> {
    let parse = |text: &str| {
        text.parse()
            .map(Duration::from_secs)
            .map_err(|_no_number| Failure::argument(exit::USAGE, "--duration is a number of seconds."))
    };
    let duration = call.option("duration").filter(|text| *text != "infinity");
    let until = duration
        .map(parse)
        .transpose()?
        .map(|duration| Instant::now() + duration);
    let vhost = segment(call.vhost());
    call.client
        .get(&format!("/exchanges/{vhost}/{EXCHANGE}"))
        .map_err(|failure| {
            if failure.is_missing() {
                let text = format!(
                    "there is no exchange {EXCHANGE} in vhost '{}': set amqp.event_exchange = true and restart the broker",
                    call.vhost()
                );
                return Failure::unavailable(text);
            }
            failure
        })?;
    let mut interrupt = Interrupt::listen().map_err(|error| Failure::io("signals", &error))?;
    let name = format!(
        "leveretctl.events.{}.{:08x}",
        std::process::id(),
        rand::random::<u32>()
    );
    let queue = format!("/queues/{vhost}/{name}");
    let arguments = json!({"x-expires": EXPIRES_MS, "x-max-length": EVENTS_MAX});
    call.client
        .put(&queue, &json!({"durable": true, "arguments": arguments}))?;
    let key = call.option("pattern").unwrap_or("#").to_owned();
    let binding = format!("/bindings/{vhost}/e/{EXCHANGE}/q/{name}");
    let node = call.node();
    call.banner(format!("Streaming events from node {node} ..."));
    let followed = call
        .client
        .post(&binding, &json!({"routing_key": key}))
        .and_then(|_| call.print_banner())
        .and_then(|()| follow(call, &queue, &name, until, &mut interrupt));
    call.client.delete(&queue)?;
    followed.map(|()| Output::Silent)
}

fn follow(
    call: &Call,
    queue: &str,
    own: &str,
    until: Option<Instant>,
    interrupt: &mut Interrupt,
) -> Result<(), Failure> {
    let body = json!({"count": PAGE, "ackmode": "ack_requeue_false", "encoding": "auto"});
    loop {
        let events = call.client.post(&format!("{queue}/get"), &body)?;
        let events = events.as_array().cloned().unwrap_or_default();
        for event in &events {
            let line = describe(event);
            // That somebody watches is not worth watching.
            if !line.to_string().contains(own) && !print_on(&format!("{line}\n"))? {
                return Ok(());
            }
        }
        let pause = if events.is_empty() { PAUSE } else { Duration::ZERO };
        if interrupt.wait(pause) || until.is_some_and(|until| Instant::now() >= until) {
            return Ok(());
        }
    }
}

/// Name, time and properties, as RabbitMQ's tool writes an event.
fn describe(event: &Value) -> Value {
    let properties = event.get("properties").cloned().unwrap_or_default();
    let headers = properties.get("headers").cloned().unwrap_or_default();
    let mut line = json!({
        "event": event.get("routing_key"),
        "timestamp": properties.get("timestamp"),
    });
    if let (Value::Object(line), Value::Object(headers)) = (&mut line, headers) {
        for (key, value) in headers {
            if key == "timestamp_in_ms" {
                line.insert("timestamp".to_owned(), value);
            } else {
                line.entry(key).or_insert(value);
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn an_event_is_one_flat_object() {
        let event = json!({
            "routing_key": "queue.created",
            "properties": {"timestamp": 1, "headers": {"timestamp_in_ms": 1234, "name": "q"}}
        });
        let expected = json!({"event": "queue.created", "timestamp": 1234, "name": "q"});
        assert_eq!(super::describe(&event), expected);
    }
}
