//! A copy of what flows, as it flows: through the firehose, so that no consumer notices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    call::Call,
    client::segment,
    command::{Spec, switch, value},
    failure::{Failure, exit},
    interrupt::Interrupt,
    output::{Output, cell, print_on},
    program::tools::OURS,
};

pub(super) static COMMANDS: [Spec; 1] = [Spec {
    name: "tail",
    tools: OURS,
    group: "Messages",
    args: "<name>",
    options: &[
        switch(
            "exchange",
            "the name is an exchange's, not a queue's; the default exchange's is ''",
        ),
        value("limit", "number", "end after so many messages"),
        value("seconds", "number", "end after so long"),
    ],
    about: "Shows a copy of what is published to a queue or exchange, until Ctrl-C; switches the firehose of the virtual host on meanwhile",
    run: tail,
}];

/// The queue that takes the copies goes by itself when nobody asks for them any more.
const EXPIRES_MS: u64 = 60_000;
/// When we are too slow, the oldest copies go.
const COPIES_MAX: u64 = 10_000;
const PAGE: u64 = 200;
const PAUSE: Duration = Duration::from_millis(100);
const TRACE: &str = "amq.rabbitmq.trace";

/// The copies' queue and the firehose; both end with it.
struct Tap {
    vhost: String,
    queue: String,
    /// Somebody else had switched it on.
    was_on: bool,
}

impl Tap {
    fn open(call: &Call, key: &str) -> Result<Self, Failure> {
        let vhost = call.vhost().to_owned();
        let tracing = format!("/leveret/tracing/{}", segment(&vhost));
        let now = call.client.get(&tracing).map_err(|failure| {
            if failure.is_missing() {
                super::vhosts::missing(&vhost)
            } else {
                failure
            }
        })?;
        let queue = format!(
            "leveretctl.tail.{}.{:08x}",
            std::process::id(),
            rand::random::<u32>()
        );
        let tap = Self {
            vhost,
            queue,
            was_on: now.get("on").and_then(Value::as_bool).unwrap_or(false),
        };
        let path = format!("/queues/{}/{}", segment(&tap.vhost), segment(&tap.queue));
        let arguments = json!({"x-expires": EXPIRES_MS, "x-max-length": COPIES_MAX});
        call.client
            .put(&path, &json!({"durable": true, "arguments": arguments}))?;
        let path = format!(
            "/bindings/{}/e/{TRACE}/q/{}",
            segment(&tap.vhost),
            segment(&tap.queue)
        );
        let opened = call
            .client
            .post(&path, &json!({"routing_key": key}))
            .and_then(|_| call.client.put(&tracing, &json!({"on": true})));
        match opened {
            Ok(_) => Ok(tap),
            Err(failure) => {
                tap.close(call)?;
                Err(failure)
            }
        }
    }

    fn take(&self, call: &Call) -> Result<Vec<Value>, Failure> {
        let path = format!("/queues/{}/{}/get", segment(&self.vhost), segment(&self.queue));
        let body =
            json!({"count": PAGE, "ackmode": "ack_requeue_false", "encoding": "auto", "truncate": 50_000});
        match call.client.post(&path, &body)? {
            Value::Array(messages) => Ok(messages),
            _ => Ok(Vec::new()),
        }
    }

    fn close(&self, call: &Call) -> Result<(), Failure> {
        if !self.was_on {
            let tracing = format!("/leveret/tracing/{}", segment(&self.vhost));
            call.client.put(&tracing, &json!({"on": false}))?;
        }
        call.client.delete(&format!(
            "/queues/{}/{}",
            segment(&self.vhost),
            segment(&self.queue)
        ))
    }
}

/// What the firehose says of a message.
fn describe(copy: &Value, json: bool) -> String {
    let headers = copy
        .get("properties")
        .and_then(|properties| properties.get("headers"));
    let header = |key: &str| {
        headers
            .and_then(|headers| headers.get(key))
            .cloned()
            .unwrap_or_default()
    };
    let first_key = header("routing_keys").get(0).cloned().unwrap_or_default();
    let queues = header("routed_queues");
    if json {
        let line = json!({
            "exchange": header("exchange_name"),
            "routing_key": first_key,
            "queues": queues,
            "user": header("user"),
            "connection": header("connection"),
            "properties": header("properties"),
            "payload": copy.get("payload"),
            "payload_bytes": copy.get("payload_bytes"),
        });
        return format!("{line}\n");
    }
    let exchange = cell(&header("exchange_name"));
    format!(
        "{}\t{}\t-> {}\t{}\t{}\n",
        if exchange.is_empty() {
            "(default)"
        } else {
            &exchange
        },
        cell(&first_key),
        cell(&queues),
        copy.get("payload_bytes").map(cell).unwrap_or_default(),
        copy.get("payload").map(cell).unwrap_or_default()
    )
}

fn routed_to(copy: &Value, queue: &str) -> bool {
    let headers = copy
        .get("properties")
        .and_then(|properties| properties.get("headers"));
    let queues = headers.and_then(|headers| headers.get("routed_queues")?.as_array());
    queues.is_some_and(|queues| queues.iter().any(|name| name == queue))
}

fn tail(call: &mut Call) -> Result<Output, Failure> {
    let name = call.arg("name").to_owned();
    let exchange = call.switch("exchange");
    let number = |option: &str| {
        let parse = |text: &str| {
            text.parse::<u64>()
                .map_err(|_no_number| Failure::argument(exit::USAGE, format!("--{option} is a number.")))
        };
        call.option(option).map(parse).transpose()
    };
    let limit = number("limit")?.unwrap_or(u64::MAX);
    let until = number("seconds")?.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let kind = if exchange { "exchange" } else { "queue" };
    let shown = if exchange && name.is_empty() {
        "amq.default"
    } else {
        &name
    };
    let path = format!("/{kind}s/{}/{}", segment(call.vhost()), segment(shown));
    call.client.get(&path).map_err(|failure| {
        if failure.is_missing() {
            Failure::unavailable(format!("no {kind} '{name}' in vhost '{}'", call.vhost()))
        } else {
            failure
        }
    })?;
    let mut interrupt = Interrupt::listen().map_err(|error| Failure::io("signals", &error))?;
    let key = if exchange {
        format!("publish.{name}")
    } else {
        "publish.#".to_owned()
    };
    let tap = Tap::open(call, &key)?;
    call.banner(format!("What is published to {kind} '{name}' ..."));
    let followed = call.print_banner().and_then(|()| {
        follow(
            call,
            &tap,
            (!exchange).then_some(&name),
            limit,
            until,
            &mut interrupt,
        )
    });
    tap.close(call)?;
    followed.map(|()| Output::Silent)
}

/// Prints until it is enough.
fn follow(
    call: &Call,
    tap: &Tap,
    queue: Option<&String>,
    limit: u64,
    until: Option<Instant>,
    interrupt: &mut Interrupt,
) -> Result<(), Failure> {
    let mut shown = 0;
    loop {
        let copies = tap.take(call)?;
        let many = copies.len() as u64 == PAGE;
        for copy in &copies {
            if queue.is_some_and(|queue| !routed_to(copy, queue)) {
                continue;
            }
            let read = print_on(&describe(copy, call.shape.format.is_json()))?;
            shown += 1;
            if shown >= limit || !read {
                return Ok(());
            }
        }
        let pause = if many { Duration::ZERO } else { PAUSE };
        if interrupt.wait(pause) || until.is_some_and(|until| Instant::now() >= until) {
            return Ok(());
        }
    }
}
