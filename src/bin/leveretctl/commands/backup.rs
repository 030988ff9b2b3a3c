//! A copy of the store of a broker that goes on serving, and the way back.

use std::process::Command;

use serde_json::json;

use crate::{
    call::Call,
    client::Target,
    command::{Spec, switch},
    commands::beside,
    failure::{Failure, exit},
    interrupt::Interrupt,
    output::Output,
    program::tools::OURS,
};

pub(super) static COMMANDS: [Spec; 2] = [
    Spec {
        name: "backup",
        tools: OURS,
        group: "Operations",
        args: "<directory>",
        options: &[],
        about: "Copies the store of the running broker into a new directory on its machine; `restore` puts it back",
        run: backup,
    },
    Spec {
        name: "restore",
        tools: OURS,
        group: "Operations",
        args: "<directory>",
        options: &[switch(
            "replace",
            "keep a store that is in the data directory beside the restored one, under another name",
        )],
        about: "Makes a backup the store of a stopped broker, in --data-dir or where the broker's configuration says",
        run: restore,
    },
];

fn backup(call: &mut Call) -> Result<Output, Failure> {
    if !matches!(call.client.target, Target::Socket(_)) {
        let text =
            "a backup is written by the broker on its own machine: run this there, on the control socket";
        return Err(Failure::new(exit::USAGE, text));
    }
    let given = call.arg("directory").to_owned();
    let directory = std::path::absolute(&given).map_err(|error| Failure::io(&given, &error))?;
    let shown = directory.display().to_string();
    call.banner(format!("Copying the store to {shown} ..."));
    call.client
        .post("/leveret/backup", &json!({"directory": shown}))
        .map_err(|mut failure| {
            if failure
                .reason
                .as_ref()
                .is_some_and(|refusal| refusal.status == 400)
            {
                failure.code = exit::IO;
            }
            failure
        })?;
    Ok(Output::sentence(format!(
        "The copy is in {shown}; with the broker stopped, leveretctl restore {shown} puts it back"
    )))
}

/// The broker's own program does it, which knows its configuration and the store, and refuses where a broker runs.
fn restore(call: &mut Call) -> Result<Output, Failure> {
    if call.option("url").is_some() || call.option("socket").is_some() {
        let text = "a restore is made while the broker is stopped, on its machine: say --data-dir DIR for another directory than \
                    its configuration's";
        return Err(Failure::new(exit::USAGE, text));
    }
    let given = call.arg("directory").to_owned();
    let directory = std::path::absolute(&given).map_err(|error| Failure::io(&given, &error))?;
    call.banner(format!("Restoring {} ...", directory.display()));
    call.print_banner()?;
    let program = beside("leveret");
    let mut command = Command::new(&program);
    if let Some(dir) = call.option("data-dir") {
        command.args(["--data-dir", dir]);
    }
    command.arg("restore").arg(&directory);
    if call.switch("replace") {
        command.arg("--replace");
    }
    // Ctrl-C ends the other program, which we tell of.
    let _interrupt = Interrupt::listen().map_err(|error| Failure::io("signals", &error))?;
    let done = command
        .output()
        .map_err(|error| Failure::io(&program.display().to_string(), &error))?;
    let told = String::from_utf8_lossy(&done.stderr);
    if done.status.success() {
        return Ok(Output::sentence(told.trim_end()));
    }
    // Without a code a signal ended it; the same call goes through afterwards.
    let code = done.status.code().and_then(|code| u8::try_from(code).ok());
    let text = told.trim_end();
    Err(match code {
        Some(exit::UNAVAILABLE) => Failure::new(
            exit::UNAVAILABLE,
            format!(
                "{}\nStop it with leveretctl shutdown, or with systemctl stop leveret",
                text.strip_prefix("leveret: ").unwrap_or(text)
            ),
        ),
        Some(code) => Failure::new(code, text.strip_prefix("leveret: ").unwrap_or(text)),
        None => Failure::new(exit::TEMPORARY, "interrupted; nothing was changed, run it again"),
    })
}
