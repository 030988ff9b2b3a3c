//! `leveret salvage`: what a log that is damaged before its end costs, and the way on without it.

use std::io::Write;
use std::path::Path;

use super::ToolError;
use crate::storage::{self, Loss, StoreError};

/// Says what would be lost, or goes on without it.
pub(super) fn run(data_dir: &Path, accepted: bool, report: &mut impl Write) -> Result<(), ToolError> {
    if !accepted {
        let Some(loss) = storage::loss(data_dir)? else {
            return Ok(writeln!(
                report,
                "the logs are whole as far as they go; with --accept-data-loss a log whose synced end is missing is accepted as it \
                 is"
            )?);
        };
        writeln!(report, "would be lost: {}", text(&loss))?;
        writeln!(
            report,
            "nothing was changed; --accept-data-loss goes on without it and keeps the files aside"
        )?;
        return Err(ToolError::Findings(1));
    }
    let Some(salvaged) = storage::salvage(data_dir)? else {
        return Ok(writeln!(report, "nothing to salvage: the logs are whole")?);
    };
    if let Some(loss) = &salvaged.loss {
        writeln!(report, "lost: {}", text(loss))?;
    }
    if salvaged.synced_lost > 0 {
        let lost = salvaged.synced_lost;
        writeln!(
            report,
            "lost: {lost} operations that were synced; messages that were confirmed are among them, and acks"
        )?;
    }
    writeln!(
        report,
        "the files are kept as they were in {}",
        salvaged.aside.display()
    )?;
    let found = storage::check(data_dir)?;
    for finding in &found.findings {
        writeln!(report, "{finding}")?;
    }
    writeln!(
        report,
        "kept: {} queues with {} messages",
        found.queues, found.messages
    )?;
    match found.findings_count {
        0 => Ok(()),
        count => Err(ToolError::Findings(count)),
    }
}

/// For a store that does not open: what could be given up to make it. What cannot be told is left to the error itself.
pub(super) fn foretell(data_dir: &Path, report: &mut impl Write) {
    let told: Result<(), StoreError> = storage::loss(data_dir).map(|loss| {
        if let Some(loss) = loss {
            drop(writeln!(report, "would be lost: {}", text(&loss)));
        }
    });
    drop(told);
}

fn text(loss: &Loss) -> String {
    let later = match loss.later.len() {
        0 => String::new(),
        count => format!(" and in {count} later logs"),
    };
    format!(
        "{} bytes of {} from byte {} on{later}; {} groups of operations behind the damage are whole, with {} operations",
        loss.bytes,
        loss.log.display(),
        loss.at,
        loss.groups,
        loss.operations
    )
}
