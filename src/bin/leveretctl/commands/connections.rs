//! Closing connections.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::{
    call::Call,
    client::segment,
    command::{Spec, switch, value},
    commands::lists::pid,
    failure::{Failure, exit},
    output::Output,
    program::tools::CTL,
};

const GROUP: &str = "Operations";

pub(super) static COMMANDS: [Spec; 3] = [
    Spec {
        name: "close_connection",
        tools: CTL,
        group: GROUP,
        args: "<connection> <explanation>",
        options: &[],
        about: "Closes a connection, given by its pid or its name",
        run: close,
    },
    Spec {
        name: "close_all_connections",
        tools: CTL,
        group: GROUP,
        args: "<explanation>",
        options: &[
            switch("global", "those of all virtual hosts"),
            value("per-connection-delay", "ms", "how long to wait after each"),
            value("limit", "number", "no more than so many"),
        ],
        about: "Closes all connections of a virtual host, or of the whole node",
        run: close_all,
    },
    Spec {
        name: "close_all_user_connections",
        tools: CTL,
        group: GROUP,
        args: "<username> <explanation>",
        options: &[],
        about: "Closes all connections of a user",
        run: close_all_of_user,
    },
];

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn path(name: &str) -> String {
    format!("/connections/{}", segment(name))
}

fn close(call: &mut Call) -> Result<Output, Failure> {
    let (wanted, reason) = (
        call.arg("connection").to_owned(),
        call.arg("explanation").to_owned(),
    );
    call.banner(format!("Closing connection {wanted}, reason: {reason}..."));
    let rows = call.client.list("/connections")?;
    let found = rows.iter().find(|row| {
        let name = text(row, "name");
        name == wanted || pid(text(row, "node"), name, 0) == wanted
    });
    let Some(row) = found else {
        return Err(Failure::unavailable(format!("there is no connection {wanted}")));
    };
    call.client.close(&path(text(row, "name")), &reason)?;
    Ok(Output::Done { node: call.node() })
}

fn number(call: &Call, option: &str) -> Result<u64, Failure> {
    let text = call.option(option).unwrap_or("0");
    text.parse()
        .map_err(|_no_number| Failure::argument(exit::USAGE, format!("--{option} is not a number.")))
}

/// Closes these; those that went by themselves meanwhile are as good as closed.
fn close_rows(call: &Call, rows: &[Value], reason: &str) -> Result<(), Failure> {
    let pause = Duration::from_millis(number(call, "per-connection-delay")?);
    for row in rows {
        match call.client.close(&path(text(row, "name")), reason) {
            Err(failure) if !failure.is_missing() => return Err(failure),
            _ => thread::sleep(pause),
        }
    }
    Ok(())
}

fn close_all(call: &mut Call) -> Result<Output, Failure> {
    let (reason, global) = (call.arg("explanation").to_owned(), call.switch("global"));
    if global {
        let node = call.node();
        call.banner(format!(
            "Closing all connections to node {node} (across all vhosts), reason: {reason}..."
        ));
    } else {
        call.banner(format!(
            "Closing all connections in vhost {}, reason: {reason}...",
            call.vhost()
        ));
    }
    let mut rows = call.client.list("/connections")?;
    rows.retain(|row| global || text(row, "vhost") == call.vhost());
    let limit = usize::try_from(number(call, "limit")?).unwrap_or(usize::MAX);
    if limit > 0 {
        rows.truncate(limit);
    }
    close_rows(call, &rows, &reason)?;
    Ok(Output::sentence(format!("Closed {} connections", rows.len())))
}

fn close_all_of_user(call: &mut Call) -> Result<Output, Failure> {
    let (user, reason) = (
        call.arg("username").to_owned(),
        call.arg("explanation").to_owned(),
    );
    call.banner(format!("Closing connections of user {user}, reason: {reason}..."));
    call.client
        .close(&format!("/connections/username/{}", segment(&user)), &reason)?;
    Ok(Output::Done { node: call.node() })
}
