//! The HTTP API that RabbitMQ's tools expect: one file per resource, each with a table of its routes. Resources see a
//! [`call::Call`] and answer with an [`answer::Answer`]; sockets and headers are the listener's. Everything is done
//! through the server's [`Handle`].

mod answer;
mod api;
mod auth;
mod bindings;
mod browse;
mod call;
mod channels;
mod cli;
mod connections;
mod consumers;
mod control;
mod control_socket;
mod cors;
mod definitions;
mod exchanges;
mod filter;
mod health;
mod jobs;
mod json;
mod list;
mod listener;
mod messages;
mod meta;
mod metrics;
mod nodes;
mod openapi;
mod otlp;
mod overview;
mod policies;
mod process;
mod queue_order;
mod queues;
mod route;
mod samples;
mod scheduled;
mod take_in;
mod users;
mod vhosts;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::JoinHandle;

use control_socket::ControlSocket;

pub use control::{LogFrom, Operator};
pub use cors::Cors;
pub use otlp::Collector;

use crate::server::{Handle, listen};

/// How the HTTP listeners behave.
pub struct Options {
    /// For the API; `None` serves none.
    pub http_listen: Option<SocketAddr>,
    /// For Prometheus; `None` serves none.
    pub metrics_listen: Option<SocketAddr>,
    pub data_dir: PathBuf,
    /// Where the server listens for AMQP, for lists of listeners.
    pub amqp_address: Option<SocketAddr>,
    /// Octets of a request's body.
    pub body_bytes_max: usize,
    /// Where the operator of this machine finds the API without a password; `None` serves none.
    pub control_socket: Option<PathBuf>,
    /// The program around the broker, if it wants to be steered.
    pub operator: Option<Arc<dyn Operator>>,
    /// The file that the settings came from, for reports.
    pub config_file: Option<PathBuf>,
    /// Who is sent the spans that the broker records.
    pub collector: Option<Collector>,
    /// Which pages of other origins may use the API.
    pub cors: Cors,
}

/// Nothing is served.
impl Default for Options {
    fn default() -> Self {
        Self {
            http_listen: None,
            metrics_listen: None,
            data_dir: PathBuf::new(),
            amqp_address: None,
            body_bytes_max: 10 * 1024 * 1024,
            control_socket: None,
            operator: None,
            config_file: None,
            collector: None,
            cors: Cors::default(),
        }
    }
}

/// What the resources know beside the broker.
struct Settings {
    data_dir: PathBuf,
    body_bytes_max: usize,
    /// Protocol and address of every listener.
    listeners: Vec<(&'static str, SocketAddr)>,
    operator: Option<Arc<dyn Operator>>,
    config_file: Option<String>,
    jobs: jobs::Jobs,
    cors: Cors,
}

/// Running HTTP listeners. They end with the broker.
pub struct Management {
    http_address: Option<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
    /// Serves the metrics, if they are served; ends when this is dropped.
    #[expect(dead_code, reason = "it runs as long as it is held")]
    aside: Option<metrics::Aside>,
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for HTTP: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl Management {
    /// Opens the listeners and serves.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn start(handle: &Handle, options: Options) -> Result<Self, ListenError> {
        let open = |address: Option<SocketAddr>| {
            address
                .map(|address| listen(address).map_err(|source| ListenError { address, source }))
                .transpose()
        };
        let http = open(options.http_listen)?;
        let aside = start_aside(options.metrics_listen)?;
        let metrics = match &aside {
            Some(aside) => aside.open(|| open(options.metrics_listen))?,
            None => None,
        };
        let address = |listener: &Option<tokio::net::TcpListener>| {
            listener.as_ref().and_then(|listener| listener.local_addr().ok())
        };
        let (http_address, metrics_address) = (address(&http), address(&metrics));
        let listeners = [
            ("amqp", options.amqp_address),
            ("http", http_address),
            ("http/prometheus", metrics_address),
        ];
        let settings = Arc::new(Settings {
            data_dir: options.data_dir,
            body_bytes_max: options.body_bytes_max,
            operator: options.operator,
            jobs: jobs::Jobs::default(),
            cors: options.cors,
            config_file: options.config_file.map(|file| file.display().to_string()),
            listeners: listeners
                .into_iter()
                .filter_map(|(protocol, address)| Some((protocol, address?)))
                .collect(),
        });
        let serve = |listener, respond: listener::Respond| {
            listener::serve(handle.clone(), Arc::clone(&settings), listener, respond)
        };
        let mut tasks = Vec::new();
        if let Some(listener) = http {
            tasks.push(tokio::spawn(serve(listener, api::respond)));
        }
        if let (Some(listener), Some(aside)) = (metrics, &aside) {
            tasks.extend(aside.spawn(serve(listener, metrics::respond)));
        }
        if let Some(path) = options.control_socket {
            match ControlSocket::open(&path) {
                Ok(socket) => tasks.push(tokio::spawn(socket.serve(handle.clone(), settings))),
                // The broker serves its clients without; operators have the HTTP listener.
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "no control socket: leveretctl needs --url http://user:password@host:15672 to reach this broker")
                }
            }
        }
        if let (Some(spans), Some(collector)) = (handle.spans(), options.collector) {
            tasks.push(tokio::spawn(otlp::export(handle.clone(), spans, collector)));
        }
        Ok(Self {
            http_address,
            metrics_address,
            tasks,
            aside,
        })
    }

    /// Where the API is served; with port 0 asked for, the one that was chosen.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Where metrics are served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Takes a definitions file in, as a POST to `/api/definitions` does: checked whole before anything is done. For a
    /// thread that may wait.
    ///
    /// # Errors
    /// What is wrong with the definitions, in the words of the API.
    pub fn import(handle: &Handle, document: Vec<u8>) -> Result<(), String> {
        definitions::take_in_locally(handle, &document).map_err(|error| error.to_string())
    }

    /// Carries out the imports of definitions that were begun when the broker last ended. For a thread that may wait,
    /// before clients are served.
    ///
    /// # Errors
    /// When the folder of imports cannot be read or cleared.
    pub fn finish_imports(handle: &Handle, data_dir: &Path) -> io::Result<()> {
        definitions::finish_imports(handle, data_dir)
    }

    /// Ends the listeners at once.
    pub fn stop(self) {
        for task in self.tasks {
            task.abort();
        }
    }
}

/// Threads for the metrics, where they are served.
fn start_aside(listen: Option<SocketAddr>) -> Result<Option<metrics::Aside>, ListenError> {
    listen
        .map(|address| metrics::Aside::start().map_err(|source| ListenError { address, source }))
        .transpose()
}
