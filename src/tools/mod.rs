//! What `leveret` does with a store while no broker runs on it: check, export, import, restore, salvage. Thin: the store knows how,
//! and the directory's lock keeps a running broker safe from us.

mod dry_run;
mod json_lines;
mod salvage;
mod transfer;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;

pub use self::dry_run::dry_run;
use crate::storage::{self, Outlook, StoreError};

/// The subcommands; without one `leveret` is the broker.
#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    /// Compare a stopped store's counts, references and checksums; exit code 65 when something does not agree
    Check,
    /// Write a queue's messages to standard output, one JSON object a line; the store stays as it is
    Export {
        queue: String,
        #[arg(long, default_value = "/")]
        vhost: String,
    },
    /// Append messages from standard input, as `export` wrote them, to a durable queue that exists
    Import {
        queue: String,
        #[arg(long, default_value = "/")]
        vhost: String,
    },
    /// Say what a log that is damaged before its end would cost, or go on without it
    Salvage {
        /// Keep what stands before the damage and give up what is behind it; the files are kept aside as they were
        #[arg(long)]
        accept_data_loss: bool,
    },
    /// Fill the data directory from a backup, while no broker runs on it
    Restore {
        backup: PathBuf,
        /// Put a store that is there aside, in the same directory
        #[arg(long)]
        replace: bool,
    },
}

/// Why a subcommand did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("there is no durable queue '{queue}' in vhost '{vhost}'")]
    NoQueue { queue: String, vhost: String },
    #[error("line {line}: {problem}; the lines before it are imported")]
    Line { line: u64, problem: String },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0} findings")]
    Findings(u64),
}

/// Carries a subcommand out and reports on standard error; `data_dir` is the configured one.
///
/// # Errors
/// [`ToolError`].
pub fn run(command: &Command, data_dir: &std::path::Path) -> Result<(), ToolError> {
    let outcome = carry_out(command, data_dir);
    // A store is opened, and written to, by looking into it.
    storage::give_to_owner(data_dir)?;
    outcome
}

fn carry_out(command: &Command, data_dir: &std::path::Path) -> Result<(), ToolError> {
    let mut report = io::stderr();
    match command {
        Command::Check => {
            let found = storage::check(data_dir).inspect_err(|_| salvage::foretell(data_dir, &mut report))?;
            for finding in &found.findings {
                writeln!(report, "{finding}")?;
            }
            writeln!(
                report,
                "{} queues, {} messages in {} pages, {} bodies apart: {} findings",
                found.queues, found.messages, found.pages, found.bodies, found.findings_count
            )?;
            match found.findings_count {
                0 => Ok(()),
                count => Err(ToolError::Findings(count)),
            }
        }
        Command::Salvage { accept_data_loss } => salvage::run(data_dir, *accept_data_loss, &mut report),
        Command::Export { queue, vhost } => {
            let out = io::BufWriter::new(io::stdout().lock());
            let count = transfer::export(data_dir, vhost, queue, out)?;
            Ok(writeln!(report, "{count} messages exported")?)
        }
        Command::Import { queue, vhost } => {
            let count = transfer::import(data_dir, vhost, queue, io::stdin().lock())?;
            Ok(writeln!(report, "{count} messages imported")?)
        }
        Command::Restore { backup, replace } => {
            let aside = storage::restore(backup, data_dir, *replace)?;
            if let Some(aside) = aside {
                writeln!(
                    report,
                    "what was there is kept in {}; delete it once the restored store serves",
                    aside.display()
                )?;
            }
            if let Outlook::Older { format, .. } = storage::outlook(data_dir)? {
                // The check would change it, and it may be wanted as it was.
                return Ok(writeln!(report, "a store of format {format} restored")?);
            }
            let found = storage::check(data_dir)?;
            Ok(writeln!(
                report,
                "{} queues with {} messages restored",
                found.queues, found.messages
            )?)
        }
    }
}
