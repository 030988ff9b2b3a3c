//! The broker at a glance, again and again: rates, alarms, and the queues and connections that do most.

use std::{
    io::{IsTerminal, Read, Write},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use rustix::termios::tcgetwinsize;
use serde_json::{Value, json};

use crate::{
    call::Call,
    command::{Spec, switch, value},
    commands::status::Told,
    failure::{Failure, exit},
    output::{Output, cell},
    program::tools::OURS,
    terminal::{CTRL_C, Raw},
};

pub(super) static COMMANDS: [Spec; 1] = [Spec {
    name: "top",
    tools: OURS,
    group: "Monitoring, observability and health checks",
    args: "",
    options: &[
        value("interval", "seconds", "between two looks [default: 2]"),
        switch(
            "once",
            "print one look and end, as it does where there is no terminal",
        ),
    ],
    about: "A live view; keys: m messages, i incoming, o outgoing, c consumers, n name, q quit",
    run: top,
}];

/// What queues are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Messages,
    Incoming,
    Outgoing,
    Consumers,
    Name,
}

impl Sort {
    fn of_key(key: u8) -> Option<Self> {
        Some(match key {
            b'm' => Self::Messages,
            b'i' => Self::Incoming,
            b'o' => Self::Outgoing,
            b'c' => Self::Consumers,
            b'n' => Self::Name,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
            Self::Consumers => "consumers",
            Self::Name => "name",
        }
    }
}

/// What was seen at one look.
struct Look {
    told: Told,
    overview: Value,
    queues: Vec<Value>,
    connections: Vec<Value>,
}

impl Look {
    fn take(call: &Call) -> Result<Self, Failure> {
        Ok(Self {
            told: Told::ask(call)?,
            overview: call.client.get("/overview")?,
            queues: call.client.list("/queues")?,
            connections: call.client.list("/connections")?,
        })
    }
}

/// A number somewhere inside.
fn at(value: &Value, path: &[&str]) -> f64 {
    let found = path.iter().try_fold(value, |value, key| value.get(*key));
    found.and_then(Value::as_f64).unwrap_or(0.0)
}

fn rate(value: &Value, name: &str) -> f64 {
    at(value, &["message_stats", name, "rate"])
}

/// With a unit when it is large.
fn short(number: f64) -> String {
    for (scale, unit) in [(1e9, "G"), (1e6, "M"), (1e4, "k")] {
        if number >= scale {
            let scale = if unit == "k" { 1e3 } else { scale };
            return format!("{:.1}{unit}", number / scale);
        }
    }
    if number.fract() == 0.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}")
    }
}

fn bytes(number: f64) -> String {
    for (scale, unit) in [
        (f64::from(1 << 30), "GiB"),
        (f64::from(1 << 20), "MiB"),
        (1024.0, "KiB"),
    ] {
        if number >= scale {
            return format!("{:.1} {unit}", number / scale);
        }
    }
    format!("{number:.0} B")
}

/// The screen, in lines no wider and no more than there is room for.
fn frame(look: &Look, sort: Sort, width: usize, height: usize) -> Vec<String> {
    let told = &look.told;
    let alarms = told.alarms();
    let overview = &look.overview;
    let totals = |name: &str| short(at(overview, &["queue_totals", name]));
    let mut lines = vec![
        format!(
            "{}  up {} s  {}",
            told.node(),
            told.text_of("uptime"),
            if alarms.is_empty() {
                "no alarms".to_owned()
            } else {
                format!("ALARM: {}", alarms.join(", "))
            }
        ),
        format!(
            "connections {}  channels {}  queues {}  memory {} of {}  disk free {}",
            told.text_of("connections"),
            told.text_of("channels"),
            told.text_of("queues"),
            bytes(told.float("memory_used")),
            bytes(told.float("memory_limit")),
            bytes(told.float("disk_free"))
        ),
        format!(
            "ready {}  unacked {}  publish {}/s  deliver {}/s  ack {}/s  confirm {}/s",
            totals("messages_ready"),
            totals("messages_unacknowledged"),
            short(rate(overview, "publish_details")),
            short(rate(overview, "deliver_get_details")),
            short(rate(overview, "ack_details")),
            short(rate(overview, "confirm_details"))
        ),
        String::new(),
    ];
    let room = height.saturating_sub(lines.len() + 2);
    let for_queues = if look.connections.is_empty() {
        room
    } else {
        room * 2 / 3
    };
    queue_lines(&mut lines, &look.queues, sort, for_queues);
    lines.push(String::new());
    let room = height.saturating_sub(lines.len());
    connection_lines(&mut lines, &look.connections, room);
    lines.truncate(height);
    for line in &mut lines {
        *line = line.chars().take(width).collect();
    }
    lines
}

fn queue_lines(lines: &mut Vec<String>, queues: &[Value], sort: Sort, room: usize) {
    let number = |queue: &Value, key: &str| at(queue, &[key]);
    let mut rows: Vec<(&Value, f64, String)> = queues
        .iter()
        .map(|queue| {
            let key = match sort {
                Sort::Messages => number(queue, "messages"),
                Sort::Incoming => rate(queue, "publish_details"),
                Sort::Outgoing => rate(queue, "deliver_get_details"),
                Sort::Consumers => number(queue, "consumers"),
                Sort::Name => 0.0,
            };
            let part = |key: &str| queue.get(key).map(cell).unwrap_or_default();
            (queue, key, format!("{} ({})", part("name"), part("vhost")))
        })
        .collect();
    rows.sort_by(|left, right| right.1.total_cmp(&left.1).then_with(|| left.2.cmp(&right.2)));
    lines.push(format!(
        "{:<40} {:>9} {:>9} {:>9} {:>9} {:>9}",
        format!("QUEUE by {}", sort.name()),
        "ready",
        "unacked",
        "in/s",
        "out/s",
        "consumers"
    ));
    for (queue, _, name) in rows.iter().take(room) {
        lines.push(format!(
            "{:<40} {:>9} {:>9} {:>9} {:>9} {:>9}",
            name.chars().take(40).collect::<String>(),
            short(number(queue, "messages_ready")),
            short(number(queue, "messages_unacknowledged")),
            short(rate(queue, "publish_details")),
            short(rate(queue, "deliver_get_details")),
            short(number(queue, "consumers"))
        ));
    }
    if rows.len() > room {
        lines.push(format!("(and {} more)", rows.len() - room));
    }
}

fn connection_lines(lines: &mut Vec<String>, connections: &[Value], room: usize) {
    if connections.is_empty() || room < 2 {
        return;
    }
    let traffic =
        |row: &Value| at(row, &["recv_oct_details", "rate"]) + at(row, &["send_oct_details", "rate"]);
    let mut rows: Vec<&Value> = connections.iter().collect();
    rows.sort_by(|left, right| traffic(right).total_cmp(&traffic(left)));
    lines.push(format!(
        "{:<40} {:<12} {:>9} {:>12} {:>12}",
        "CONNECTION by bytes", "user", "channels", "in/s", "out/s"
    ));
    for row in rows.iter().take(room - 1) {
        let text = |key: &str| row.get(key).map(cell).unwrap_or_default();
        lines.push(format!(
            "{:<40} {:<12} {:>9} {:>12} {:>12}",
            text("name").chars().take(40).collect::<String>(),
            text("user").chars().take(12).collect::<String>(),
            text("channels"),
            bytes(at(row, &["recv_oct_details", "rate"])),
            bytes(at(row, &["send_oct_details", "rate"]))
        ));
    }
}

/// A terminal that gives keys as they are pressed and shows a screen of our own; as it was, when this goes.
struct Screen {
    _keys: Raw,
}

impl Screen {
    fn open() -> std::io::Result<Self> {
        let screen = Self { _keys: Raw::open()? };
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    fn show(lines: &[String]) -> std::io::Result<()> {
        let mut text = String::from("\x1b[H");
        for line in lines {
            text.push_str(line);
            text.push_str("\x1b[K\r\n");
        }
        text.push_str("\x1b[J");
        write(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(write("\x1b[?25h\x1b[?1049l"));
    }
}

fn write(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Keys, read by a thread that ends with the program.
fn keys() -> Receiver<u8> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for key in std::io::stdin().lock().bytes().map_while(Result::ok) {
            if send.send(key).is_err() {
                return;
            }
        }
    });
    receive
}

fn top(call: &mut Call) -> Result<Output, Failure> {
    let seconds: f64 = call
        .option("interval")
        .unwrap_or("2")
        .parse()
        .ok()
        .filter(|seconds: &f64| (0.1..=3600.0).contains(seconds))
        .ok_or_else(|| {
            Failure::argument(exit::USAGE, "--interval is a number of seconds from 0.1 to 3600.")
        })?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if call.switch("once") || !terminal || call.shape.format.is_json() {
        let look = Look::take(call)?;
        let lines = frame(&look, Sort::Messages, usize::MAX, usize::MAX / 4);
        let json = json!({"overview": look.overview, "queues": look.queues, "connections": look.connections});
        return Ok(Output::Report {
            text: lines.join("\n"),
            json,
        });
    }
    let failed = |error: std::io::Error| Failure::io("terminal", &error);
    // Before the screen changes, so that a broker that is not there is said in the ordinary way.
    let mut look = Look::take(call)?;
    let screen = Screen::open().map_err(failed)?;
    let keys = keys();
    let mut sort = Sort::Messages;
    loop {
        let size = tcgetwinsize(std::io::stdout()).map_err(|error| failed(error.into()))?;
        let (width, height) = (usize::from(size.ws_col).max(20), usize::from(size.ws_row).max(5));
        Screen::show(&frame(&look, sort, width, height - 1)).map_err(failed)?;
        match keys.recv_timeout(Duration::from_secs_f64(seconds)) {
            Ok(b'q' | CTRL_C) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(key) => sort = Sort::of_key(key).unwrap_or(sort),
            Err(RecvTimeoutError::Timeout) => look = Look::take(call)?,
        }
    }
    drop(screen);
    Ok(Output::Silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_screen_and_sorts_by_what_is_asked() {
        let queue = |name: &str, messages: u64, consumers: u64| json!({"name": name, "vhost": "/", "messages": messages, "messages_ready": messages, "consumers": consumers});
        let look = Look {
            told: Told(json!({"node": "n", "uptime": 5, "memory_used": 1048576, "memory_limit": 2097152})),
            overview: json!({"queue_totals": {"messages_ready": 12_000_000}}),
            queues: (0..50)
                .map(|at| queue(&format!("q{at:02}"), at, 50 - at))
                .collect(),
            connections: Vec::new(),
        };
        let lines = frame(&look, Sort::Messages, 60, 20);
        assert!(
            lines.len() <= 20 && lines.iter().all(|line| line.chars().count() <= 60),
            "{lines:?}"
        );
        assert!(lines[1].contains("memory 1.0 MiB of 2.0 MiB"), "{lines:?}");
        assert!(lines[2].contains("ready 12.0M"), "{lines:?}");
        assert!(lines[5].starts_with("q49 (/)"), "{lines:?}");
        let lines = frame(&look, Sort::Consumers, 60, 20);
        assert!(lines[5].starts_with("q00 (/)"), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("(and ")), "{lines:?}");
    }
}
