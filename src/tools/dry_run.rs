//! What a start would do: the settings are read by then, so it is about the data directory. Nothing is changed, and a
//! running broker is not disturbed.

use std::io::{self, Write};
use std::path::Path;

use super::ToolError;
use crate::storage::{self, Outlook};

/// Reports on standard output.
///
/// # Errors
/// What a start would be refused with.
pub fn dry_run(file: Option<&Path>, notes: &[String], data_dir: &Path) -> Result<(), ToolError> {
    let mut out = io::stdout().lock();
    match file {
        Some(file) => writeln!(out, "configuration: {} is valid", file.display())?,
        None => writeln!(out, "configuration: built-in defaults")?,
    }
    for note in notes {
        writeln!(out, "note: {note}")?;
    }
    writeln!(out, "data directory: {}", data_dir.display())?;
    let store = match storage::outlook(data_dir)? {
        Outlook::New => "none yet; a start makes one".to_owned(),
        Outlook::Ours => "of this version's format; a start goes on with it".to_owned(),
        Outlook::Older { format, copy } => format!(
            "of format {format}; a start keeps a copy of it in {} and changes it to this version's format",
            copy.display()
        ),
        Outlook::TornEnd => {
            "its log ends in the middle of a write, as after a power cut; a start cuts that end off, \
                             which was never confirmed"
                .to_owned()
        }
    };
    writeln!(out, "store: {store}")?;
    storage::holder(data_dir)?;
    writeln!(out, "lock: free")?;
    Ok(writeln!(out, "nothing was changed")?)
}
