//! The service manager that started us, if one did: told when the broker is ready, reloading or stopping, and, for its
//! watchdog, that it is alive. The protocol of sd_notify: a datagram of `KEY=VALUE` lines.

use std::{
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    time::Duration,
};

/// Where to tell what. Without a socket nothing is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supervisor {
    /// A path, or an abstract name that begins with `@`.
    pub socket: Option<OsString>,
    /// We are killed when we say nothing for so long.
    pub watchdog: Option<Duration>,
}

impl Supervisor {
    /// Clients can connect.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Says that the program lives, twice as often as it has to, for as long as it does: a runtime that is stuck, or whose
    /// threads all wait, says nothing.
    pub async fn keep_alive(self) {
        let Some(watchdog) = self.watchdog.filter(|_| self.socket.is_some()) else {
            return;
        };
        loop {
            let supervisor = self.clone();
            if tokio::task::spawn_blocking(move || supervisor.tell("WATCHDOG=1"))
                .await
                .is_err()
            {
                return;
            }
            tokio::time::sleep(watchdog / 2).await;
        }
    }

    /// A service manager that does not listen is no reason to stop.
    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = send(socket, state)
        {
            tracing::warn!(%error, "the service manager cannot be told: {state}; NOTIFY_SOCKET is where it should listen");
        }
    }
}

fn send(socket: &OsString, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(Path::new(socket))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_in_a_datagram_at_a_path_or_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("leveret-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, listener) in [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&abstract_name).unwrap(),
            ),
        ] {
            let supervisor = Supervisor {
                socket: Some(socket),
                watchdog: None,
            };
            supervisor.ready("serving");
            let mut buffer = [0; 64];
            let length = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=serving");
        }
        Supervisor::default().ready("nobody listens");
    }
}
