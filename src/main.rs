//! The server as a checklist: options, tracing, config, start, announce, wait, drain.

use std::{io::Write, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use leveret::{
    config::{Config, Flags},
    log::Log,
    management::{self, Management, Operator},
    operator::{self, Program, Signals, StopSignals},
    server::{Handle, Server, StartError, StoreFailed},
    storage::StoreError,
    supervisor::Supervisor,
    tools::{self, ToolError},
};

/// Exit codes of sysexits.h: supervisors and scripts tell failures apart by them.
mod exit {
    pub(super) const DATA: u8 = 65;
    pub(super) const MISSING: u8 = 66;
    pub(super) const UNAVAILABLE: u8 = 69;
    pub(super) const IO: u8 = 74;
    pub(super) const FULL: u8 = 75;
    pub(super) const FORMAT: u8 = 76;
    pub(super) const NO_PERMISSION: u8 = 77;
    pub(super) const CONFIG: u8 = 78;
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let config = match Config::load(&flags) {
        Ok(config) => config,
        Err(error) => return fail(&format!("{error}"), exit::CONFIG),
    };
    let log = Log::start(
        &config.log_filter,
        config.log_json,
        config.server.log_exchange.clone(),
    );
    if flags.dry_run {
        return match tools::dry_run(config.file.as_deref(), &config.notes, &config.data_dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail_tool(error),
        };
    }
    if let Some(command) = &flags.command {
        return match tools::run(command, &config.data_dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail_tool(error),
        };
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(flags, config, log)),
        Err(error) => fail(&format!("cannot start threads: {error}"), 1),
    }
}

async fn run(flags: Flags, config: Config, log: Log) -> ExitCode {
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot listen for signals: {error}"), 1),
    };
    let data_dir = config.data_dir.display().to_string();
    let server = match Server::start(config.server).await {
        Ok(server) => server,
        Err(error) => return fail(&hint(&error), exit_code(&error)),
    };
    let program = Program::new(
        flags,
        config.settings,
        config.log_filter,
        server.handle(),
        log.set_filter,
        log.kept,
    );
    tokio::spawn(log.repeats.tell());
    tokio::spawn(signals.hangup.reload(Arc::clone(&program)));
    let management = management::Options {
        http_listen: config.http_listen,
        metrics_listen: config.metrics_listen,
        control_socket: Some(config.data_dir.join("control.sock")),
        data_dir: config.data_dir,
        amqp_address: server.amqp_address(),
        body_bytes_max: config.http_body_bytes_max,
        operator: Some(Arc::clone(&program) as Arc<dyn Operator>),
        config_file: config.file.clone(),
        collector: config.collector,
        cors: config.cors,
    };
    if let Err(problem) = finish_imports(server.handle(), management.data_dir.clone()).await {
        server
            .stop("broker forced connection closure with reason 'shutdown'")
            .await;
        return fail(&problem, exit::IO);
    }
    let management = match Management::start(&server.handle(), management) {
        Ok(management) => management,
        Err(error) => {
            server
                .stop("broker forced connection closure with reason 'shutdown'")
                .await;
            let advice = "stop what listens there or choose another address (see --help)";
            return fail(&format!("{error}; {advice}"), exit::UNAVAILABLE);
        }
    };
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    if let Some(file) = config.definitions {
        let taken = take_in_definitions(server.handle(), file).await;
        if let Err(problem) = taken {
            server
                .stop("broker forced connection closure with reason 'shutdown'")
                .await;
            return fail(&problem, exit::CONFIG);
        }
    }
    announce(&server, &management, &data_dir, config.file.as_deref());
    serve(server, &program, signals.stop, config.supervisor).await
}

/// Until somebody wants the end, or the store comes to one.
async fn serve(server: Server, program: &Program, mut stop: StopSignals, supervisor: Supervisor) -> ExitCode {
    supervisor.ready("serving clients");
    tokio::spawn(supervisor.clone().keep_alive());
    let failed = tokio::select! {
        () = stop.recv() => None,
        () = program.asked_to_stop() => None,
        failed = server.store_failed() => Some(failed),
    };
    if let Some(StoreFailed { reason, full }) = failed {
        let (advice, code) = store_failed(full);
        return fail(&format!("the store failed: {reason}; {advice}"), code);
    }
    supervisor.stopping();
    tracing::info!("stopping; a second signal exits at once");
    let drained = server.stop("broker forced connection closure with reason 'shutdown'");
    tokio::select! {
        failed = drained => match failed {
            None => tracing::info!("stopped"),
            Some(StoreFailed { reason, full }) => {
                let (advice, code) = store_failed(full);
                return fail(&format!("the store failed at the end: {reason}; {advice}"), code);
            }
        },
        () = stop.recv() => tracing::warn!("stopped at once by a second signal"),
    }
    ExitCode::SUCCESS
}

/// When to start again after the store failed, and the exit code.
fn store_failed(full: bool) -> (&'static str, u8) {
    if full {
        ("restart once there is space, or a larger quota", exit::FULL)
    } else {
        ("restart once the disk is healthy", exit::IO)
    }
}

/// What was being imported when the broker last ended.
async fn finish_imports(handle: Handle, data_dir: PathBuf) -> Result<(), String> {
    let finishing = tokio::task::spawn_blocking(move || Management::finish_imports(&handle, &data_dir));
    let finished = finishing.await.map_err(|error| error.to_string())?;
    finished.map_err(|error| format!("the imports of definitions that were interrupted: {error}"))
}

/// What the configuration wants to be there.
async fn take_in_definitions(handle: Handle, file: PathBuf) -> Result<(), String> {
    let taking = tokio::task::spawn_blocking(move || operator::take_in_definitions(&handle, &file));
    taking.await.map_err(|error| error.to_string())?
}

/// One screen: what runs, where, and what was found.
fn announce(server: &Server, management: &Management, data_dir: &str, file: Option<&std::path::Path>) {
    let found = server.found();
    tracing::info!("Leveret {}", env!("CARGO_PKG_VERSION"));
    match file {
        Some(file) => tracing::info!("configuration: {}", file.display()),
        None => tracing::info!("configuration: built-in defaults"),
    }
    tracing::info!(
        "data directory: {data_dir}{}",
        if found.fresh { " (new)" } else { "" }
    );
    tracing::info!(
        "recovered {} queues with {} messages in {:.0?}",
        found.queues,
        found.messages,
        found.took
    );
    match server.amqp_address() {
        Some(address) => tracing::info!("AMQP 0-9-1 listens on {address}"),
        None => tracing::info!("AMQP 0-9-1 is switched off"),
    }
    if let Some(address) = management.http_address() {
        tracing::info!("HTTP API listens on {address}");
    }
    if let Some(address) = management.metrics_address() {
        tracing::info!("Metrics are served on {address}");
    }
    tracing::info!("Server startup complete");
}

fn fail(message: &str, code: u8) -> ExitCode {
    // Nothing is left to try when even stderr is gone.
    drop(writeln!(std::io::stderr(), "leveret: {message}"));
    ExitCode::from(code)
}

fn fail_tool(error: ToolError) -> ExitCode {
    match error {
        ToolError::Store(error) => {
            let error = StartError::Store(error);
            fail(&hint(&error), exit_code(&error))
        }
        ToolError::Findings(_) | ToolError::Line { .. } => fail(&error.to_string(), exit::DATA),
        ToolError::NoQueue { .. } => fail(&error.to_string(), 1),
        ToolError::Io(_) => fail(&error.to_string(), exit::IO),
    }
}

/// The error, and what to do next.
fn hint(error: &StartError) -> String {
    let advice = match error {
        StartError::Store(StoreError::Locked { .. }) => {
            "; stop the other broker or choose another directory with --data-dir"
        }
        StartError::Store(StoreError::NotWritable { .. }) => {
            "; make it writable for this user or choose another directory with --data-dir"
        }
        StartError::Store(StoreError::UnknownFormat { .. }) => {
            "; start the version of Leveret that wrote it, or a newer one"
        }
        StartError::Store(StoreError::Full { .. }) => "; free some space and start again",
        StartError::Listen { .. } => "; stop what listens there or choose another address (see --help)",
        StartError::Store(StoreError::Corrupt { .. } | StoreError::Missing { .. }) => {
            "; put the file back as it was, or restore a backup: leveretctl restore --replace BACKUP; or see what of a damaged \
             log can be kept: leveret salvage"
        }
        StartError::Store(StoreError::NoBackup { .. }) => {
            "; name the directory that `leveretctl backup` made"
        }
        StartError::Store(StoreError::Io { .. }) | StartError::Definition(_) => "",
    };
    format!("{error}{advice}")
}

fn exit_code(error: &StartError) -> u8 {
    match error {
        StartError::Store(StoreError::Locked { .. }) | StartError::Listen { .. } => exit::UNAVAILABLE,
        StartError::Store(StoreError::NotWritable { .. }) => exit::NO_PERMISSION,
        StartError::Store(StoreError::UnknownFormat { .. }) => exit::FORMAT,
        StartError::Store(StoreError::Missing { .. } | StoreError::NoBackup { .. }) => exit::MISSING,
        StartError::Store(StoreError::Corrupt { .. }) | StartError::Definition(_) => exit::DATA,
        StartError::Store(StoreError::Full { .. }) => exit::FULL,
        StartError::Store(StoreError::Io { .. }) => exit::IO,
    }
}
