//! Who may do what in a vhost.

use serde_json::{Value, json};

use crate::{
    call::Call,
    client::segment,
    command::Spec,
    commands::users,
    failure::{Failure, exit},
    output::{Output, Table},
    program::tools::{BOTH, CTL},
};

const GROUP: &str = "Access Control";

pub(super) static COMMANDS: [Spec; 9] = [
    Spec {
        name: "clear_permissions",
        tools: CTL,
        group: GROUP,
        args: "<username>",
        options: &[],
        about: "Revokes user permissions for a vhost",
        run: clear,
    },
    Spec {
        name: "clear_topic_permissions",
        tools: CTL,
        group: GROUP,
        args: "<username> [<exchange>]",
        options: &[],
        about: "Clears user topic permissions for a vhost or exchange",
        run: clear_topics,
    },
    Spec {
        name: "list_permissions",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[],
        about: "Lists user permissions in a virtual host",
        run: list,
    },
    Spec {
        name: "list_topic_permissions",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[],
        about: "Lists topic permissions in a virtual host",
        run: list_topics,
    },
    Spec {
        name: "list_user_permissions",
        tools: BOTH,
        group: GROUP,
        args: "<username>",
        options: &[],
        about: "Lists permissions of a user across all virtual hosts",
        run: list_user,
    },
    Spec {
        name: "list_user_topic_permissions",
        tools: BOTH,
        group: GROUP,
        args: "<username>",
        options: &[],
        about: "Lists user topic permissions",
        run: list_user_topics,
    },
    Spec {
        name: "set_permissions",
        tools: CTL,
        group: GROUP,
        args: "<username> <conf> <write> <read>",
        options: &[],
        about: "Sets user permissions for a vhost",
        run: set,
    },
    Spec {
        name: "set_permissions_globally",
        tools: CTL,
        group: GROUP,
        args: "<username> <conf> <write> <read>",
        options: &[],
        about: "Sets user permissions for all virtual hosts",
        run: set_globally,
    },
    Spec {
        name: "set_topic_permissions",
        tools: CTL,
        group: GROUP,
        args: "<username> <exchange> <write> <read>",
        options: &[],
        about: "Sets user topic permissions for an exchange",
        run: set_topics,
    },
];

fn path(call: &Call, user: &str) -> String {
    format!("/permissions/{}/{}", segment(call.vhost()), segment(user))
}

fn topics_path(call: &Call, user: &str) -> String {
    format!("/topic-permissions/{}/{}", segment(call.vhost()), segment(user))
}

/// Tells which of the two is missing, when one is.
fn check_both(call: &Call, user: &str) -> Result<(), Failure> {
    let vhost = call.vhost();
    let there = |path: String| match call.client.get(&path) {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_missing() => Ok(false),
        Err(failure) => Err(failure),
    };
    if !there(format!("/vhosts/{}", segment(vhost)))? {
        return Err(Failure::unavailable(format!(
            "Virtual host {vhost} does not exist"
        )));
    }
    if !there(format!("/users/{}", segment(user)))? {
        return Err(Failure::new(exit::NO_USER, format!("User {user} does not exist")));
    }
    Ok(())
}

fn set(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    let vhost = call.vhost().to_owned();
    call.banner(format!(
        "Setting permissions for user \"{user}\" in vhost \"{vhost}\" ..."
    ));
    check_both(call, &user)?;
    call.client.put(&path(call, &user), &patterns(call))?;
    Ok(Output::Done { node: call.node() })
}

fn patterns(call: &Call) -> Value {
    json!({"configure": call.arg("conf"), "write": call.arg("write"), "read": call.arg("read")})
}

fn set_globally(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    call.banner(format!(
        "Setting permissions for user \"{user}\" in all virtual hosts ..."
    ));
    for vhost in call.client.list("/vhosts?columns=name")? {
        let vhost = vhost.get("name").and_then(Value::as_str).unwrap_or_default();
        let path = format!("/permissions/{}/{}", segment(vhost), segment(&user));
        call.client.put(&path, &patterns(call))?;
    }
    Ok(Output::Done { node: call.node() })
}

fn clear(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    let vhost = call.vhost().to_owned();
    call.banner(format!(
        "Clearing permissions for user \"{user}\" in vhost \"{vhost}\" ..."
    ));
    check_both(call, &user)?;
    gone(call.client.delete(&path(call, &user)))?;
    Ok(Output::Done { node: call.node() })
}

/// What is not there need not be cleared.
fn gone(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(failure) if failure.is_missing() => Ok(()),
        other => other,
    }
}

fn set_topics(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    let (vhost, exchange) = (call.vhost().to_owned(), call.arg("exchange").to_owned());
    call.banner(format!(
        "Setting topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ..."
    ));
    check_both(call, &user)?;
    let body = json!({"exchange": exchange, "write": call.arg("write"), "read": call.arg("read")});
    call.client.put(&topics_path(call, &user), &body)?;
    Ok(Output::Done { node: call.node() })
}

fn clear_topics(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    let vhost = call.vhost().to_owned();
    let mut path = topics_path(call, &user);
    let mut on = String::new();
    if call.has("exchange") {
        let exchange = call.arg("exchange");
        path.push('/');
        path.push_str(&segment(if exchange.is_empty() {
            "amq.default"
        } else {
            exchange
        }));
        on = format!(" on \"{exchange}\"");
    }
    call.banner(format!(
        "Clearing topic permissions{on} for user \"{user}\" in vhost \"{vhost}\" ..."
    ));
    check_both(call, &user)?;
    gone(call.client.delete(&path))?;
    Ok(Output::Done { node: call.node() })
}

fn table(columns: &[&str], rows: &[Value]) -> Output {
    let row = |row: &Value| {
        let cell = |column: &&str| row.get(*column).cloned().unwrap_or_default();
        columns.iter().map(cell).collect()
    };
    Table::new(columns, rows.iter().map(row).collect()).into()
}

fn list(call: &mut Call) -> Result<Output, Failure> {
    call.banner(format!("Listing permissions for vhost \"{}\" ...", call.vhost()));
    let rows = super::vhosts::part_of(call, "permissions")?;
    Ok(table(&["user", "configure", "write", "read"], &rows))
}

fn list_topics(call: &mut Call) -> Result<Output, Failure> {
    call.banner(format!(
        "Listing topic permissions for vhost \"{}\" ...",
        call.vhost()
    ));
    let rows = super::vhosts::part_of(call, "topic-permissions")?;
    Ok(table(&["user", "exchange", "write", "read"], &rows))
}

fn of_user(call: &Call, what: &str) -> Result<Vec<Value>, Failure> {
    let user = call.arg("username");
    let rows = call.client.list(&format!("/users/{}/{what}", segment(user)));
    rows.map_err(|failure| {
        if failure.is_missing() {
            users::missing(user)
        } else {
            failure
        }
    })
}

fn list_user(call: &mut Call) -> Result<Output, Failure> {
    call.banner(format!(
        "Listing permissions for user \"{}\" ...",
        call.arg("username")
    ));
    let rows = of_user(call, "permissions")?;
    Ok(table(&["vhost", "configure", "write", "read"], &rows))
}

fn list_user_topics(call: &mut Call) -> Result<Output, Failure> {
    call.banner(format!(
        "Listing topic permissions for user \"{}\" ...",
        call.arg("username")
    ));
    let rows = of_user(call, "topic-permissions")?;
    Ok(table(&["vhost", "exchange", "write", "read"], &rows))
}
