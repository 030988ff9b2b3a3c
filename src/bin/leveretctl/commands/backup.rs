//! A copy of the store of a broker that goes on serving.

use serde_json::json;

use crate::{
    call::Call,
    client::Target,
    command::Spec,
    failure::{Failure, exit},
    output::Output,
    program::tools::OURS,
};

pub(super) static COMMANDS: [Spec; 1] = [Spec {
    name: "backup",
    tools: OURS,
    group: "Operations",
    args: "<directory>",
    options: &[],
    about: "Copies the store of the running broker into a new directory on its machine; `leveret restore` puts it back",
    run: backup,
}];

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
        "The copy is in {shown}; leveret --data-dir NEW restore {shown} makes a broker of it"
    )))
}
