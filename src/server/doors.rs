//! The door for AMQP clients. It opens when the broker starts and shuts when it stops; in between operators shut and open
//! it again (`suspend_listeners`, `stop_app`).

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::server::{Broker, Handle, listener};

/// Where clients come in.
pub(super) struct Doors {
    state: Mutex<State>,
    /// An operator said `stop_app`: nobody is served until `start_app`.
    app_stopped: AtomicBool,
}

struct State {
    /// With port 0 asked for, the one that was chosen, so that the door opens again where it was. `None` listens nowhere.
    address: Option<SocketAddr>,
    accepting: Option<JoinHandle<()>>,
}

impl Doors {
    pub(super) fn new(address: Option<SocketAddr>) -> Self {
        Self {
            state: Mutex::new(State {
                address,
                accepting: None,
            }),
            app_stopped: AtomicBool::new(false),
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.state.lock().address
    }

    /// Listens, unless it does already.
    ///
    /// # Errors
    /// The address and the system's reason, when it is taken or not ours.
    pub(super) fn open(&self, broker: &Arc<Broker>) -> Result<(), (SocketAddr, io::Error)> {
        let mut state = self.state.lock();
        let Some(address) = state.address else {
            return Ok(());
        };
        if state.accepting.is_some() {
            return Ok(());
        }
        let listening = listener::listen(address).map_err(|source| (address, source))?;
        state.address = listening.local_addr().ok().or(state.address);
        state.accepting = Some(tokio::spawn(listener::accept_loop(Arc::clone(broker), listening)));
        Ok(())
    }

    /// Stops listening. When it returns the port is free and new clients are refused.
    pub(super) async fn shut(&self) {
        let accepting = self.state.lock().accepting.take();
        if let Some(task) = accepting {
            task.abort();
            // It ends as cancelled, which is what was asked for; by then its socket is closed.
            drop(task.await);
        }
    }
}

impl Handle {
    /// Refuses new AMQP clients; those that are connected stay.
    pub async fn suspend_listeners(&self) {
        self.broker.doors.shut().await;
        tracing::info!("listeners suspended: new clients are refused");
    }

    /// Takes new AMQP clients again.
    ///
    /// # Errors
    /// When somebody else listens there by now.
    pub fn resume_listeners(&self) -> Result<(), String> {
        self.broker
            .doors
            .open(&self.broker)
            .map_err(|(address, source)| format!("cannot listen on {address}: {source}"))?;
        tracing::info!("listeners resumed");
        Ok(())
    }

    /// Closes all clients and takes no more, as RabbitMQ's `stop_app`. The store stays open.
    pub async fn stop_app(&self) {
        self.broker.doors.app_stopped.store(true, Ordering::Relaxed);
        self.broker.doors.shut().await;
        self.close_connections("broker forced connection closure with reason 'shutdown'", |_| {
            true
        });
        tracing::info!("application stopped: clients are closed and refused until it is started again");
    }

    /// Takes clients again after [`Handle::stop_app`].
    ///
    /// # Errors
    /// When somebody else listens there by now.
    pub fn start_app(&self) -> Result<(), String> {
        self.resume_listeners()?;
        self.broker.doors.app_stopped.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether clients are served, as far as operators are concerned.
    pub fn is_app_running(&self) -> bool {
        !self.broker.doors.app_stopped.load(Ordering::Relaxed)
    }

    /// Where AMQP clients connect, when there is a listener.
    pub fn amqp_address(&self) -> Option<SocketAddr> {
        self.broker.doors.address()
    }
}
