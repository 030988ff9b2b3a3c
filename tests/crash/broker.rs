//! The real program as a child process: started on a directory, watched, killed.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, OnceLock},
};

/// A running broker.
pub(crate) struct Broker {
    process: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
}

/// A start that did not come to listening.
pub(crate) struct Refused {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

impl Broker {
    /// Starts the program with these variables for the shim; without any, without it. Returns when it listens.
    pub(crate) fn start(data_dir: &Path, shim: &[(&str, OsString)]) -> Result<Self, Refused> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
        command.arg("--data-dir").arg(data_dir).args([
            "--amqp-listen",
            "127.0.0.1:0",
            "--http-listen",
            "none",
            "--metrics-listen",
            "none",
        ]);
        command.env("LEVERET_ALARMS__DISK_FREE_LIMIT", "0");
        if !shim.is_empty() {
            command.env("LD_PRELOAD", preload()).env("SHIM_DIR", data_dir);
            command.envs(shim.iter().map(|(name, value)| (name, value)));
        }
        command.stderr(Stdio::piped()).stdin(Stdio::null());
        let mut process = command.spawn().expect("the program starts");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut address = None;
        for line in lines.by_ref() {
            let line = line.unwrap_or_default();
            if let Some((_, found)) = line.split_once("AMQP 0-9-1 listens on ") {
                address = found.trim().parse().ok();
            }
            let ready = line.contains("Server startup complete");
            keep(&log, &line);
            if ready {
                break;
            }
        }
        let Some(address) = address else {
            let status = process.wait().expect("a child of ours");
            let log = log.lock().expect("no panic").clone();
            return Err(Refused { status, log });
        };
        let kept = Arc::clone(&log);
        std::thread::spawn(move || lines.for_each(|line| keep(&kept, &line.unwrap_or_default())));
        Ok(Self {
            process,
            address,
            log,
        })
    }

    pub(crate) fn kill(mut self) {
        // It may have died at a point of the shim's already.
        drop(self.process.kill());
        self.process.wait().expect("a child of ours");
    }

    /// SIGTERM, and the clean end it asks for.
    pub(crate) fn terminate(self) {
        let (status, log) = self.stop();
        assert!(status.success(), "{status}: {log}");
    }

    /// SIGTERM, and whatever end comes.
    pub(crate) fn stop(self) -> (ExitStatus, String) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").arg(&pid).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {pid}");
        self.wait()
    }

    /// Waits for the program to end by itself.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = self.process.wait().expect("a child of ours");
        (status, self.log.lock().expect("no panic").clone())
    }

    /// Returns when the log has these words; the program must not end before.
    pub(crate) fn says(&mut self, words: &str) {
        loop {
            let ended = self.has_ended();
            let log = self.log.lock().expect("no panic").clone();
            if log.contains(words) {
                return;
            }
            assert!(!ended, "it ended without '{words}': {log}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|status| status.is_some())
    }
}

fn keep(log: &Mutex<String>, line: &str) {
    let mut log = log.lock().expect("no panic");
    log.push_str(line);
    log.push('\n');
}

/// The shim, compiled once. The linker that made this test is a C compiler, so there is one.
fn preload() -> &'static Path {
    static PRELOAD: OnceLock<PathBuf> = OnceLock::new();
    PRELOAD.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shim-{}.so", std::process::id()));
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/shim.c"))
            .arg("-ldl")
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "cc compiles the shim"
        );
        library
    })
}
