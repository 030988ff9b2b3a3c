//! A broker inside the test's process, on a port of its own and a directory that goes with it.

use std::{net::SocketAddr, path::Path};

use leveret::server::{Handle, Options, Server};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::{Channel, Connection, Login};

pub(crate) struct Broker {
    /// `None` only while it is stopped.
    running: Option<(Runtime, Server)>,
    data_dir: TempDir,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Starts with other options than the defaults.
    pub(crate) fn start_with(change: impl FnOnce(&mut Options) + Send) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let running = Some(run(data_dir.path(), change));
        Self { running, data_dir }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.running.as_ref().unwrap().1
    }

    /// Asks or tells the broker something by its own door, as an operator would, and waits for the answer.
    pub(crate) fn tell<T>(&self, order: impl AsyncFnOnce(Handle) -> T) -> T {
        let (runtime, server) = self.running.as_ref().unwrap();
        runtime.block_on(order(server.handle()))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server().amqp_address().unwrap()
    }

    pub(crate) fn uri(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address())
    }

    pub(crate) fn connect(&self) -> Connection {
        self.connect_as(&Login::default())
    }

    pub(crate) fn connect_as(&self, login: &Login<'_>) -> Connection {
        Connection::open(self.address(), login)
    }

    /// A channel on a connection of its own.
    pub(crate) fn channel(&self) -> Channel {
        self.connect().channel()
    }

    /// Stops the broker and starts it on the same directory. Connections are closed with 320.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.running = Some(run(self.data_dir.path(), |_| {}));
    }

    fn stop(&mut self) {
        if let Some((runtime, server)) = self.running.take() {
            // A test may be asynchronous itself, and a runtime cannot be blocked on inside another.
            let stopping = std::thread::spawn(move || {
                runtime.block_on(server.stop("the test is over"));
                runtime.shutdown_background();
            });
            stopping.join().unwrap();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.stop();
    }
}

fn run(data_dir: &Path, change: impl FnOnce(&mut Options) + Send) -> (Runtime, Server) {
    let mut options = Options::local(data_dir);
    change(&mut options);
    let start = || {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(Server::start(options)).unwrap();
        (runtime, server)
    };
    std::thread::scope(|scope| scope.spawn(start).join().unwrap())
}
