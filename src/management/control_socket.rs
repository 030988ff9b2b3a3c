//! The API on a Unix socket, for the operator of this machine: root and the broker's own user need no password there.
//! Others whom the socket's permissions let in (its group) say who they are, as over TCP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::management::{
    Settings, api,
    listener::{ACCEPT_PAUSE, CONNECTIONS_MAX, Peer, client},
};
use crate::server::Handle;

/// For its owner and its group.
const MODE: u32 = 0o660;

/// A socket that clients can connect to.
pub(super) struct ControlSocket {
    listener: UnixListener,
    /// The user whose program this is.
    owner: u32,
    path: PathBuf,
}

impl ControlSocket {
    /// Makes the socket. One that a killed broker left is replaced: the data directory's lock is ours.
    ///
    /// # Errors
    /// The system's, such as a path of more than about 100 bytes.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
        let owner = std::fs::metadata(path)?.uid();
        Ok(Self {
            listener,
            owner,
            path: path.to_path_buf(),
        })
    }

    /// Serves until the broker stops, then removes the socket.
    pub(super) async fn serve(self, handle: Handle, settings: Arc<Settings>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = handle.stopping() => break,
            };
            match accepted {
                Ok((socket, _)) => {
                    let peer = Peer {
                        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                        trusted: self.trusts(&socket),
                    };
                    let (handle, settings) = (handle.clone(), Arc::clone(&settings));
                    tokio::spawn(async move {
                        client(handle, settings, socket, peer, api::respond).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection to the control socket; trying again (with too many open files: raise LimitNOFILE)");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "removing the control socket");
        }
    }

    fn trusts(&self, socket: &UnixStream) -> bool {
        socket
            .peer_cred()
            .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == self.owner)
    }
}
