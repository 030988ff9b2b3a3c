//! Definitions out and in.

use std::{fs, io::Write, path::Path};

use serde_json::Value;

use crate::{
    call::Call,
    command::{Spec, switch},
    failure::{Failure, exit},
    output::Output,
    program::tools::CTL,
};

const GROUP: &str = "Definitions";

pub(super) static COMMANDS: [Spec; 2] = [
    Spec {
        name: "export_definitions",
        tools: CTL,
        group: GROUP,
        args: "<file>",
        options: &[],
        about: "Exports definitions in JSON to a file, or to stdout for `-`",
        run: export,
    },
    Spec {
        name: "import_definitions",
        tools: CTL,
        group: GROUP,
        args: "[<file>]",
        options: &[switch(
            "skip-if-unchanged",
            "nothing is done when all definitions are there already",
        )],
        about: "Imports definitions in JSON from a file, or from stdin",
        run: import,
    },
];

fn export(call: &mut Call) -> Result<Output, Failure> {
    let file = call.arg("file").to_owned();
    if file == "-" {
        return Ok(Output::Document(call.client.get("/definitions")?.to_string()));
    }
    let directory = Path::new(&file)
        .parent()
        .filter(|path| !path.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        let text = format!("Bad argument: Directory {} does not exist", directory.display());
        return Err(Failure::argument(exit::DATA, text));
    }
    call.banner(format!(
        "Exporting definitions in JSON to a file at \"{file}\" ..."
    ));
    let definitions = call.client.get("/definitions")?;
    write_whole(Path::new(&file), &definitions.to_string()).map_err(|error| Failure::io(&file, &error))?;
    Ok(Output::Done { node: call.node() })
}

/// The file is there whole, or as it was. Passwords' hashes are in it: it is for its owner only.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = Path::new(&beside);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, path)
}

fn import(call: &mut Call) -> Result<Output, Failure> {
    let file = if call.has("file") { call.arg("file") } else { "-" }.to_owned();
    if file != "-" && !Path::new(&file).exists() {
        let text = format!("Bad argument: File {file} does not exist");
        return Err(Failure::argument(exit::DATA, text));
    }
    if file == "-" {
        call.banner("Importing definitions in JSON from standard input ...");
    } else {
        call.banner(format!(
            "Importing definitions in JSON from a file at \"{file}\" ..."
        ));
    }
    let text = Call::read(&file)?;
    let definitions: Value = serde_json::from_str(&text).map_err(|error| {
        let text = format!("Failed to deserialise input (format: JSON) (error: {error})");
        Failure::new(exit::DATA, text)
    })?;
    if call.switch("skip-if-unchanged") && contains(&call.client.get("/definitions")?, &definitions) {
        return Ok(Output::sentence(
            "Definitions are unchanged: nothing was imported",
        ));
    }
    call.client
        .post_text("/definitions", text)
        .map_err(|mut failure| {
            if failure
                .reason
                .as_ref()
                .is_some_and(|refusal| refusal.status == 400)
            {
                failure.code = exit::DATA;
            }
            failure
        })?;
    Ok(Output::sentence("Successfully imported definitions."))
}

/// Every list's every row is among what the broker has. Rows may have fields there that the file does not mention.
fn contains(whole: &Value, part: &Value) -> bool {
    let Value::Object(part) = part else { return false };
    part.iter().all(|(key, value)| match (whole.get(key), value) {
        (Some(Value::Array(have)), Value::Array(wanted)) => wanted
            .iter()
            .all(|row| have.iter().any(|known| covers(known, row))),
        (_, Value::Array(wanted)) => wanted.is_empty(),
        // What is no list describes the file.
        _ => true,
    })
}

fn covers(known: &Value, wanted: &Value) -> bool {
    match (known, wanted) {
        (Value::Object(known), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| known.get(key).is_some_and(|known| covers(known, value))),
        _ => known == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn unchanged_is_what_is_contained() {
        let whole = json!({"queues": [{"name": "a", "vhost": "/", "durable": true}, {"name": "b"}], "rabbit_version": "1"});
        for (part, expected) in [
            (json!({"queues": [{"name": "b"}], "rabbit_version": "2"}), true),
            (
                json!({"queues": [{"name": "a", "durable": true}], "users": []}),
                true,
            ),
            (json!({"queues": [{"name": "a", "durable": false}]}), false),
            (json!({"users": [{"name": "u"}]}), false),
            (json!([]), false),
        ] {
            assert_eq!(super::contains(&whole, &part), expected, "{part}");
        }
    }
}
