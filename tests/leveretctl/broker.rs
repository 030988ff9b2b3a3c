//! A broker process on ports and a directory of its own, and the programs that talk to it.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::process::CommandExt,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use tempfile::TempDir;

pub(crate) struct Broker {
    process: Child,
    pub(crate) amqp: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) dir: TempDir,
    /// What it has logged so far.
    pub(crate) log: Arc<Mutex<String>>,
}

/// How a run of `leveretctl` ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::start_with(&[], &[])
    }

    /// With more flags and variables.
    pub(crate) fn start_with(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
        command.arg("--data-dir").arg(dir.path().join("data")).args([
            "--amqp-listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "none",
        ]);
        command.env("LEVERET_ALARMS__DISK_FREE_LIMIT", "0");
        command.args(flags).envs(variables.iter().copied());
        let mut process = command
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let (mut amqp, mut http) = (None, None);
        let log = Arc::new(Mutex::new(String::new()));
        for line in lines.by_ref() {
            let line = line.unwrap();
            *log.lock().unwrap() += &line;
            let address = |words: &str| {
                line.split_once(words)
                    .and_then(|(_, found)| found.trim().parse().ok())
            };
            amqp = amqp.or_else(|| address("AMQP 0-9-1 listens on "));
            http = http.or_else(|| address("HTTP API listens on "));
            if line.contains("Server startup complete") {
                break;
            }
        }
        // Read on, or the broker would stand still at a full pipe.
        let further = Arc::clone(&log);
        let keep = move |line: String| *further.lock().unwrap() += &line;
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(keep));
        Self {
            process,
            amqp: amqp.expect("the log names the AMQP address"),
            http: http.expect("the log names the HTTP address"),
            dir,
            log,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Runs a tool under one of its names on the control socket, with an input.
    pub(crate) fn run_with(&self, name: &str, arguments: &[&str], input: &str) -> Ran {
        let data_dir = self.dir.path().join("data");
        run(
            name,
            arguments,
            input,
            &[("LEVERET_DATA_DIR", data_dir.to_str().unwrap())],
        )
    }

    pub(crate) fn run(&self, name: &str, arguments: &[&str]) -> Ran {
        self.run_with(name, arguments, "")
    }

    /// As `rabbitmqctl`, with words of a line; `''` is an empty word, quotes hold words together.
    pub(crate) fn ctl(&self, line: &str) -> Ran {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.run("rabbitmqctl", &words)
    }

    /// What a quiet `rabbitmqctl` prints; it must succeed.
    pub(crate) fn quiet(&self, line: &str) -> String {
        let ran = self.ctl(&format!("-q {line}"));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}: {ran:?}");
        ran.out
    }

    pub(crate) fn uri(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.amqp)
    }

    /// The name of the node, which has the machine's in it.
    pub(crate) fn node(&self) -> String {
        self.quiet("eval node().").trim().trim_matches('\'').to_owned()
    }

    /// The broker ends by itself.
    pub(crate) fn wait(&mut self) -> i32 {
        self.process.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Runs a tool under one of its names.
pub(crate) fn run(name: &str, arguments: &[&str], input: &str, variables: &[(&str, &str)]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_leveretctl"))
        .arg0(name)
        .args(arguments)
        .env_remove("LEVERETCTL_URL")
        .env_remove("LEVERETCTL_SOCKET")
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may be gone by now.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    Ran {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// The words of a line; single quotes hold words together.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut inside, mut begun) = (false, false);
    for character in line.chars() {
        match character {
            '\'' => {
                if !inside && !begun {
                    words.push(String::new());
                }
                (inside, begun) = (!inside, true);
            }
            ' ' if !inside => begun = false,
            other => {
                if !begun {
                    words.push(String::new());
                    begun = true;
                }
                words.last_mut().unwrap().push(other);
            }
        }
    }
    words
}
