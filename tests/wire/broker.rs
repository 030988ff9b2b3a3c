//! A broker in this process, and the canary: a client that was there before the trouble and must not notice it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use leveret::server::{Alarms, Counts, Handle, Options, Server};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::{
    bytes::{Args, BASIC_ACK, BASIC_CONSUME, BASIC_CONSUME_OK, BASIC_DELIVER, Fields, publish},
    peer::{Close, Peer},
};

/// A broker of its own; stopped when dropped.
pub(crate) struct Broker {
    address: SocketAddr,
    server: Option<Server>,
    runtime: Option<Runtime>,
    _dir: TempDir,
}

/// The broker most tests share. What bores tests with waiting is short here.
static SHARED: LazyLock<Broker> = LazyLock::new(|| Broker::start(|_| ()));

/// The shared broker's address.
pub(crate) fn shared() -> SocketAddr {
    SHARED.address
}

impl Broker {
    /// Starts a broker; `adjust` changes the options, in which the pauses for failures are already short.
    pub(crate) fn start(adjust: impl FnOnce(&mut Options)) -> Self {
        // The shared broker is never dropped: where it lies is swept out by `cargo clean`.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut options = Options::local(dir.path());
        options.limits.failure_delay = Duration::from_millis(100);
        options.limits.login_failures_per_minute = 0;
        adjust(&mut options);
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(Server::start(options)).unwrap();
        Self {
            address: server.amqp_address().unwrap(),
            server: Some(server),
            runtime: Some(runtime),
            _dir: dir,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn counts(&self) -> Counts {
        self.server.as_ref().unwrap().counts()
    }

    pub(crate) fn handle(&self) -> Handle {
        self.server.as_ref().unwrap().handle()
    }

    pub(crate) fn alarms(&self) -> Arc<Alarms> {
        self.server.as_ref().unwrap().alarms()
    }

    /// Waits until the counts are as wished: clients go in their own time.
    pub(crate) fn await_counts(&self, wished: impl Fn(&Counts) -> bool) {
        let end = std::time::Instant::now() + crate::peer::PATIENCE;
        while !wished(&self.counts()) {
            assert!(std::time::Instant::now() < end, "{:?}", self.counts());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Begins to stop, in the background; the broker waits for its clients.
    pub(crate) fn stop(&mut self, reason: &'static str) {
        if let (Some(server), Some(runtime)) = (self.server.take(), &self.runtime) {
            runtime.spawn(async move { server.stop(reason).await });
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let (Some(server), Some(runtime)) = (self.server.take(), &self.runtime) {
            runtime.block_on(server.stop("the test is over"));
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// A connection with a consumer on a queue of its own.
pub(crate) struct Canary {
    peer: Peer,
    queue: String,
    sung: u64,
}

impl Canary {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut peer = Peer::with_channel(address);
        peer.select_confirms(1);
        let queue = peer.exclusive_queue(1);
        let args = Args::new().short(0).str(&queue).str("canary").octet(0).long(0);
        peer.call(1, BASIC_CONSUME, args, BASIC_CONSUME_OK);
        Self { peer, queue, sung: 0 }
    }

    /// Publishes, is confirmed, consumes and acks, over the connection that saw everything.
    pub(crate) fn sings(&mut self) {
        self.sung += 1;
        let song = format!("song {}", self.sung);
        self.peer.send(&publish(1, "", &self.queue, song.as_bytes()));
        let (mut confirmed, mut heard) = (false, false);
        while !(confirmed && heard) {
            let frame = self.peer.next().expect("the canary's connection lives");
            match frame.id() {
                Some(BASIC_ACK) => confirmed = true,
                Some(BASIC_DELIVER) => {
                    let message = self.peer.content(1, frame.payload[4..].to_vec());
                    let mut fields = Fields(&message.args);
                    assert_eq!(fields.str(), "canary");
                    assert_eq!(fields.longlong(), self.sung, "nothing was delivered twice");
                    assert_eq!(message.body, song.as_bytes());
                    heard = true;
                }
                _ => panic!("the canary was told {frame:?}"),
            }
        }
        self.peer
            .method(1, BASIC_ACK, Args::new().longlong(self.sung).octet(0));
    }
}

/// A name that no other test uses.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Bytes that end the connection, and how.
pub(crate) struct Row {
    pub(crate) bytes: Vec<u8>,
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) id: (u16, u16),
}

/// A row of a table.
pub(crate) fn row(bytes: impl Into<Vec<u8>>, code: u16, text: impl Into<String>, id: (u16, u16)) -> Row {
    Row {
        bytes: bytes.into(),
        code,
        text: text.into(),
        id,
    }
}

/// Sends each row's bytes over a fresh connection with channel 1 open, which must be closed as the row says while the
/// canary notices nothing. The codes here are all of the connection.
pub(crate) fn check_connection_closes(rows: Vec<Row>) {
    let mut canary = Canary::new(shared());
    for Row {
        bytes,
        code,
        text,
        id,
    } in rows
    {
        let mut peer = Peer::with_channel(shared());
        peer.send(&bytes);
        let close = peer.expect_connection_close();
        assert_eq!(
            close,
            Close { code, text, id },
            "after {:?}",
            &bytes[..bytes.len().min(40)]
        );
        canary.sings();
    }
}

/// The same for closes of channel 1: the connection and its channel 2 live on.
pub(crate) fn check_channel_closes(rows: Vec<Row>) {
    let mut canary = Canary::new(shared());
    let mut peer = Peer::with_channel(shared());
    peer.open_channel(2);
    for Row {
        bytes,
        code,
        text,
        id,
    } in rows
    {
        peer.send(&bytes);
        let close = peer.expect_channel_close(1);
        assert_eq!(
            close,
            Close { code, text, id },
            "after {:?}",
            &bytes[..bytes.len().min(40)]
        );
        peer.open_channel(1);
        peer.exclusive_queue(2);
        canary.sings();
    }
}
