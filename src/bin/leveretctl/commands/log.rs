//! The broker's log: its level, for all of it or for parts, and its lines.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    call::Call,
    command::{Spec, value},
    failure::{Failure, exit},
    interrupt::Interrupt,
    output::{Output, cell, print_on},
    program::tools::{CTL, DIAGNOSTICS, OURS},
};

const GROUP: &str = "Configuration and Environment";
const MONITORING: &str = "Monitoring, observability and health checks";

pub(super) static COMMANDS: [Spec; 5] = [
    Spec {
        name: "set_log_level",
        tools: CTL,
        group: GROUP,
        args: "<log_level>",
        options: &[value(
            "target",
            "part",
            "only of this part: server, storage, management, broker, auth, or a path such as leveret::server::relay",
        )],
        about: "Sets the log level: debug, info, warning, error, none, or a filter for parts of the broker",
        run: set_log_level,
    },
    Spec {
        name: "log_level",
        tools: OURS,
        group: GROUP,
        args: "",
        options: &[],
        about: "The log level as it is now",
        run: log_level,
    },
    Spec {
        name: "rotate_logs",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "The log goes to stderr: does nothing",
        run: rotate_logs,
    },
    Spec {
        name: "log_tail",
        tools: DIAGNOSTICS,
        group: MONITORING,
        args: "",
        options: &[value("number", "lines", "so many lines [default: 50]").short('N')],
        about: "The last lines of the log",
        run: log_tail,
    },
    Spec {
        name: "log_tail_stream",
        tools: DIAGNOSTICS,
        group: MONITORING,
        args: "",
        options: &[value("duration", "seconds", "end after so long [default: never]").short('d')],
        about: "Lines of the log as they are written, until Ctrl-C",
        run: log_tail_stream,
    },
];

/// Between two looks at the log.
const PAUSE: Duration = Duration::from_millis(200);

/// RabbitMQ's levels, and what they are to us.
const LEVELS: [(&str, &str); 8] = [
    ("debug", "debug"),
    ("info", "info"),
    ("notice", "info"),
    ("warning", "warn"),
    ("error", "error"),
    ("critical", "error"),
    ("none", "off"),
    ("trace", "trace"),
];

fn set_log_level(call: &mut Call) -> Result<Output, Failure> {
    let asked = call.arg("log_level").to_owned();
    let known = LEVELS.iter().find(|(name, _)| *name == asked);
    let target = call.option("target").map(ToOwned::to_owned);
    // `leveret::server=debug` is for parts of the broker.
    let filter = match known {
        Some((_, filter)) => (*filter).to_owned(),
        None if asked.contains('=') && target.is_none() => asked.clone(),
        None => {
            let text = format!(
                "level {asked} is not supported. Try one of debug, info, warning, error, critical, none"
            );
            return Err(Failure::unavailable(text));
        }
    };
    let (filter, of) = match target {
        None => (filter, String::new()),
        Some(target) => {
            let path = if target.contains("::") || target == "leveret" {
                target.clone()
            } else {
                format!("leveret::{target}")
            };
            let now = call.client.get("/leveret/log-level")?;
            let now = now.get("level").and_then(Value::as_str).unwrap_or("info");
            (of_part(now, &path, &filter), format!(" of {target}"))
        }
    };
    call.banner(format!("Setting log level{of} to \"{asked}\" ..."));
    call.client.put("/leveret/log-level", &json!({"level": filter}))?;
    Ok(Output::Done { node: call.node() })
}

/// A filter with another level for a part, and all else as it is.
fn of_part(filter: &str, path: &str, level: &str) -> String {
    let others = filter.split(',').map(str::trim).filter(|directive| {
        let part = directive.split_once('=').map(|(part, _)| part);
        !directive.is_empty() && part != Some(path)
    });
    let mut directives: Vec<&str> = others.collect();
    let own = format!("{path}={level}");
    directives.push(&own);
    directives.join(",")
}

fn log_level(call: &mut Call) -> Result<Output, Failure> {
    let json = call.client.get("/leveret/log-level")?;
    let text = json.get("level").map(cell).unwrap_or_default();
    Ok(Output::Report { text, json })
}

fn rotate_logs(_: &mut Call) -> Result<Output, Failure> {
    Err(Failure::unavailable(
        "This command does not rotate logs anymore [deprecated]",
    ))
}

/// Lines and the number of the next.
fn lines(call: &Call, query: &str) -> Result<(Vec<String>, u64), Failure> {
    let told = call.client.get(&format!("/leveret/log?{query}"))?;
    let lines = told.get("lines").and_then(Value::as_array).into_iter().flatten();
    let lines = lines.filter_map(Value::as_str).map(ToOwned::to_owned).collect();
    let next = told.get("next").and_then(Value::as_u64).unwrap_or(0);
    Ok((lines, next))
}

fn number(call: &Call, option: &str) -> Result<Option<u64>, Failure> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|_no_number| Failure::argument(exit::USAGE, format!("--{option} is a number.")))
    };
    call.option(option)
        .filter(|text| *text != "infinity")
        .map(parse)
        .transpose()
}

fn log_tail(call: &mut Call) -> Result<Output, Failure> {
    let count = number(call, "number")?.unwrap_or(50);
    let node = call.node();
    call.banner(format!("Last {count} log lines on node {node} ... "));
    let (lines, _) = lines(call, &format!("lines={count}"))?;
    Ok(Output::Report {
        text: lines.join("\n"),
        json: json!(lines),
    })
}

fn log_tail_stream(call: &mut Call) -> Result<Output, Failure> {
    let until = number(call, "duration")?.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let node = call.node();
    let mut interrupt = Interrupt::listen().map_err(|error| Failure::io("signals", &error))?;
    let (_, mut next) = lines(call, "lines=0")?;
    call.banner(match until {
        None => format!("Streaming logs from node {node} ..."),
        Some(_) => format!(
            "Streaming logs from node {node} for {} seconds ...",
            call.option("duration").unwrap_or_default()
        ),
    });
    call.print_banner()?;
    loop {
        let (lines, then) = lines(call, &format!("from={next}"))?;
        next = then;
        for line in lines {
            let line = if call.shape.format.is_json() {
                Value::from(line).to_string()
            } else {
                line
            };
            if !print_on(&format!("{line}\n"))? {
                return Ok(Output::Silent);
            }
        }
        if interrupt.wait(PAUSE) || until.is_some_and(|until| Instant::now() >= until) {
            return Ok(Output::Silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::of_part;

    #[test]
    fn a_part_gets_its_level_and_the_rest_keeps_its_own() {
        let path = "leveret::server";
        assert_eq!(of_part("info", path, "debug"), "info,leveret::server=debug");
        assert_eq!(
            of_part("info,leveret::server=debug, leveret::storage=warn", path, "off"),
            "info,leveret::storage=warn,leveret::server=off"
        );
    }
}
