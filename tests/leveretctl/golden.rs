//! Every command once with its text and once as JSON, against the real broker: `golden/*.txt` are sessions with what was
//! answered, and the last test here fails for a command that is in none of them.
//!
//! `$ ` begins a command, `! ` is its exit code when that is not 0, `> ` a line of stderr, and all other lines are stdout
//! (those that could be taken for something else have a bar before). `& ` is something that the session needs: `broker`
//! starts one, with variables; `other` keeps it and starts a second one; `queues`, `publish`, `schedule` and `connect` are what
//! clients do; `gone` waits until the broker has ended. Long answers are kept up to their first lines, and end in `...`.
//!
//! `UPDATE_GOLDEN=1` writes the files anew; there `$$ ` runs a line both ways. What changes from run to run has a name in
//! capitals (see [`Session::plain`]).

use std::{collections::BTreeSet, fs, path::PathBuf};

use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{
        BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use regex::Regex;
use tokio::runtime::Runtime;

use crate::broker::{Broker, Ran, run, words};

/// Lines that are kept of a long answer, and when an answer is long.
const KEPT: usize = 12;
const LONG: usize = 150;

/// Commands without an answer of one kind, and why.
const WITHOUT: [(&str, &str, &str); 4] = [
    (
        "bench",
        "text",
        "another program: its own tests look at what it prints",
    ),
    (
        "bench",
        "json",
        "another program: its own tests look at what it prints",
    ),
    ("completions", "json", "a script for a shell has no other form"),
    (
        "help",
        "json",
        "usage is for people; RabbitMQ's has no other form either",
    ),
];

/// Numbers that no two runs have in common, by their key in JSON.
const NUMBERS: &str = "rate|pid|erlang|used|msg_index|uptime|rss|total|total_used|total_limit|sockets_used|sockets_limit|allocated|bytes|percentage|\
    disk_free|disk_free_limit|vm_memory_high_watermark_limit|processes|seconds|peer_port|other_system|run_queue|NODE|\
    mem_used|mem_limit|fd_used|fd_total|sockets_total|proc_used|memory_used|memory_limit|free_disk";

struct Session {
    runtime: Runtime,
    broker: Option<Broker>,
    other: Option<Broker>,
    client: Option<(Connection, lapin::Channel, Option<lapin::Consumer>)>,
    node: String,
    /// With what is to be written, when files are written anew.
    written: String,
}

impl Session {
    fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("& broker comes first")
    }

    fn prepare(&mut self, line: &str) {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (what, rest) = words.split_first().unwrap();
        match *what {
            "broker" | "other" => {
                self.other = self.broker.take().filter(|_| *what == "other");
                let variables: Vec<(&str, &str)> =
                    rest.iter().filter_map(|word| word.split_once('=')).collect();
                self.broker = Some(Broker::start_with(&[], &variables));
                self.node = self.broker().node();
            }
            "queues" => {
                let channel = self.channel();
                for name in rest {
                    let options = QueueDeclareOptions::durable();
                    let name = name.replace("\\t", "\t");
                    let declared = channel.queue_declare(name.into(), options, FieldTable::default());
                    self.runtime.block_on(declared).unwrap();
                }
                self.disconnect();
            }
            "publish" => self.publish(rest, None),
            "schedule" => self.publish(rest, Some(3_600_000)),
            "connect" => self.connect(rest[0]),
            "gone" => assert_eq!(self.broker.as_mut().unwrap().wait(), 0),
            other => panic!("& {other}"),
        }
    }

    fn channel(&mut self) -> lapin::Channel {
        self.disconnect();
        let connecting = async {
            let connection = Connection::connect(&self.broker().uri(), ConnectionProperties::default())
                .await
                .unwrap();
            let channel = connection.create_channel().await.unwrap();
            (connection, channel)
        };
        let (connection, channel) = self.runtime.block_on(connecting);
        self.client = Some((connection, channel.clone(), None));
        channel
    }

    /// A queue and bodies; what has a delay waits for its time.
    fn publish(&mut self, words: &[&str], delay_ms: Option<i64>) {
        let channel = self.channel();
        self.runtime.block_on(async {
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await
                .unwrap();
            for body in &words[1..] {
                let mut headers = FieldTable::default();
                if let Some(delay_ms) = delay_ms {
                    headers.insert("x-opt-delivery-delay".into(), AMQPValue::LongLongInt(delay_ms));
                }
                let properties = BasicProperties::default().with_delivery_mode(2);
                let properties = match delay_ms {
                    None => properties,
                    Some(_) => properties.with_headers(headers),
                };
                let options = BasicPublishOptions::default();
                let confirm = channel
                    .basic_publish("".into(), words[0].into(), options, body.as_bytes(), properties)
                    .await
                    .unwrap();
                confirm.await.unwrap();
            }
        });
        self.disconnect();
    }

    /// Leaves a connection open whose consumer holds what is in a queue.
    fn connect(&mut self, queue: &str) {
        let channel = self.channel();
        let consumer = self.runtime.block_on(async {
            channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
            let options = BasicConsumeOptions::default();
            channel
                .basic_consume(queue.into(), "tag1".into(), options, FieldTable::default())
                .await
                .unwrap()
        });
        if let Some((_, _, kept)) = &mut self.client {
            *kept = Some(consumer);
        }
    }

    /// Until the broker has no connection, so that lists of them do not depend on luck.
    fn disconnect(&mut self) {
        if let Some((connection, ..)) = self.client.take() {
            drop(self.runtime.block_on(connection.close(200, "done".into())));
        }
        while !self.broker().quiet("list_connections pid -s").is_empty() {}
    }

    fn run(&self, line: &str) -> Ran {
        let broker = self.broker();
        let dir = broker.dir.path();
        let mut line = line
            .replace("DIR", dir.to_str().unwrap())
            .replace("\\t", "\t")
            .replace("NODE", &self.node);
        if let Some(other) = &self.other {
            line = line
                .replace("OTHERHTTP", &other.http.to_string())
                .replace("OTHER", &other.amqp.to_string());
        }
        line = line.replace("HTTP", &broker.http.to_string());
        if line.contains("CONNECTION") {
            line = line.replace("CONNECTION", broker.quiet("list_connections pid -s").trim());
        }
        if line.contains("SCHEDULED") {
            let listed = broker.run("leveretctl", &["-s", "list_scheduled", "q"]).out;
            line = line.replace("SCHEDULED", listed.split('\t').next().unwrap());
        }
        let words = words(&line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let data = dir.join("data");
        let ran = run(
            words[0],
            &words[1..],
            "",
            &[("LEVERET_DATA_DIR", data.to_str().unwrap())],
        );
        Ran {
            out: self.plain(&ran.out),
            err: self.plain(&ran.err),
            code: ran.code,
        }
    }

    /// Without what differs from run to run.
    fn plain(&self, text: &str) -> String {
        let broker = self.broker();
        let mut text = text
            .replace(broker.dir.path().to_str().unwrap(), "DIR")
            .replace(&self.node, "NODE");
        let host = self.node.split_once('@').map_or("", |(_, host)| host);
        for (number, name) in [
            (u32::from(broker.amqp.port()), "AMQP_PORT"),
            (u32::from(broker.http.port()), "HTTP_PORT"),
            (broker.pid(), "PID"),
        ] {
            text = replaced(&text, &format!(r"\b{number}\b"), name);
        }
        if let Some(other) = &self.other {
            text = text
                .replace(&other.amqp.to_string(), "OTHER")
                .replace(&other.http.to_string(), "OTHERHTTP");
        }
        for (pattern, name) in [
            (r"127\.0\.0\.1:\d{4,}", "127.0.0.1:PORT"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME"),
            (r"\b1[6-9]\d{11}-(\d+)", "TIME-$1"),
            (r"\b1[6-9]\d{11}\b", "MILLISECONDS"),
            (r"<NODE\.[0-9.]+>", "<CLIENT>"),
            (r"\b\d+(\.\d+)? s\b", "N s"),
            (
                r"(Uptime \(seconds\)|Threads|Total|Sockets|limit|CPU cores|cluster-wide): \d+",
                "$1: N",
            ),
            (r"(guest\t127\.0\.0\.1\t)\d+", "${1}PORT"),
            (r"rabbitmq-cluster-id-[A-Za-z0-9_-]{22}", "CLUSTER_ID"),
            (r"[A-Za-z0-9+/]{48,}=*", "HASH"),
            (r"(?i)\b\d+(\.\d+)? ?(gb|mb|kb|gib|mib|kib|tib|bytes)\b", "N $2"),
            (r"\d+(\.\d+)? ?%", "N%"),
        ] {
            text = replaced(&text, pattern, name);
        }
        text = replaced(&text, &format!("\"({NUMBERS})\":-?[0-9.e]+"), "\"$1\":N");
        replaced(&text, &format!(r"\b{}\b", regex::escape(host)), "HOST")
    }

    /// Adds a step with what was answered.
    fn write(&mut self, line: &str) {
        let ran = self.run(line);
        self.written += &format!("$ {line}\n");
        if ran.code != 0 {
            self.written += &format!("! {}\n", ran.code);
        }
        for line in ran.err.lines() {
            self.written += format!("> {line}").trim_end();
            self.written.push('\n');
        }
        self.written += &shown(&ran.out);
    }
}

fn replaced(text: &str, pattern: &str, name: &str) -> String {
    Regex::new(pattern).unwrap().replace_all(text, name).into_owned()
}

/// An answer as a session has it.
fn shown(out: &str) -> String {
    let mut shown = String::new();
    let lines: Vec<&str> = out.lines().collect();
    let kept = if lines.len() > LONG { KEPT } else { lines.len() };
    for line in &lines[..kept] {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with(['$', '!', '>', '&', '|', '#']) || line == "..." {
            shown.push('|');
        }
        shown += line;
        shown.push('\n');
    }
    if kept < lines.len() {
        shown += "...\n";
    }
    shown
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/leveretctl/golden")
        .join(format!("{name}.txt"))
}

/// Runs a session, and compares the whole of it with the file.
fn golden(name: &str) {
    let path = path(name);
    let before = fs::read_to_string(&path).unwrap();
    let mut session = Session {
        runtime: Runtime::new().unwrap(),
        broker: None,
        other: None,
        client: None,
        node: String::new(),
        written: String::new(),
    };
    for line in before.lines() {
        if let Some(command) = line.strip_prefix("$$ ") {
            session.write(command);
            session.write(&format!("{command} --formatter json"));
        } else if let Some(command) = line.strip_prefix("$ ") {
            session.write(command);
        } else if let Some(preparation) = line.strip_prefix("& ") {
            session.written += &format!("{line}\n");
            session.prepare(preparation);
        } else if line.starts_with('#') {
            session.written += &format!("{line}\n");
        }
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &session.written).unwrap();
        return;
    }
    let step = |text: &str, at: usize| {
        let lines: Vec<&str> = text.lines().take(at + 1).collect();
        let from = lines.iter().rposition(|line| line.starts_with("$ ")).unwrap_or(0);
        lines[from..].join("\n")
    };
    let differs = session
        .written
        .lines()
        .zip(before.lines())
        .position(|(now, then)| now != then);
    if let Some(at) = differs {
        panic!(
            "{name}.txt line {}:\n--- expected\n{}\n--- was\n{}",
            at + 1,
            step(&before, at),
            step(&session.written, at)
        );
    }
    assert_eq!(
        session.written.lines().count(),
        before.lines().count(),
        "{name}.txt"
    );
}

macro_rules! sessions {
    ($($name:ident),*) => {
        const SESSIONS: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            golden(stringify!($name));
        })*
    };
}

sessions!(
    definitions,
    foreign,
    health,
    life,
    lists,
    messages,
    mistakes,
    policies,
    reports,
    settings,
    users,
    vhosts
);

/// The commands that there are, by what the tools say themselves: their help is made from the tables that clap parses with.
fn commands() -> BTreeSet<String> {
    let tools = [
        "leveretctl",
        "rabbitmqctl",
        "rabbitmq-diagnostics",
        "rabbitmq-queues",
        "rabbitmq-plugins",
        "rabbitmq-upgrade",
        "rabbitmq-streams",
    ];
    let mut found = BTreeSet::new();
    for tool in tools {
        let help = run(tool, &["help"], "", &[]).out;
        let listed = help.lines().filter_map(|line| line.strip_prefix("   "));
        found.extend(
            listed
                .filter_map(|line| line.split_whitespace().next())
                .map(ToOwned::to_owned),
        );
    }
    found
}

#[test]
fn every_command_has_a_session_with_its_text_and_its_json() {
    let (mut text, mut json) = (BTreeSet::new(), BTreeSet::new());
    for name in SESSIONS {
        let file = fs::read_to_string(path(name)).unwrap();
        for line in file.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let command = line.split(' ').skip(1).find(|word| !word.starts_with('-'));
            let of = if line.ends_with(" --formatter json") {
                &mut json
            } else {
                &mut text
            };
            of.insert(command.unwrap().to_owned());
        }
    }
    let commands = commands();
    assert!(commands.len() > 150, "help lists them: {commands:?}");
    let mut missing = Vec::new();
    for (kind, seen) in [("text", &text), ("json", &json)] {
        for command in &commands {
            let excused = WITHOUT.iter().any(|(name, of, _)| name == command && *of == kind);
            match (seen.contains(command), excused) {
                (false, false) => missing.push(format!("{command}: no {kind}")),
                (true, true) => missing.push(format!("{command}: has {kind}, and is excused from it")),
                _ => {}
            }
        }
    }
    missing.extend(
        WITHOUT
            .iter()
            .filter(|(name, _, _)| !commands.contains(*name))
            .map(|(name, _, _)| format!("{name}: is no command any more")),
    );
    assert_eq!(missing, Vec::<String>::new());
    // A file that nobody runs proves nothing.
    let files = fs::read_dir(path("x").parent().unwrap()).unwrap().count();
    assert_eq!(files, SESSIONS.len());
}
