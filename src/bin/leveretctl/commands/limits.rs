//! Limits of vhosts and users.

use serde_json::{Value, json};

use crate::{
    call::Call,
    client::segment,
    command::{Spec, switch, value},
    commands::{policies::validation, users, vhosts},
    failure::{Failure, exit},
    output::{Output, Table},
    program::tools::{BOTH, CTL},
};

const GROUP: &str = "Limits";

pub(super) static COMMANDS: [Spec; 6] = [
    Spec {
        name: "set_vhost_limits",
        tools: CTL,
        group: GROUP,
        args: "<definition>",
        options: &[],
        about: "Sets virtual host limits: {\"max-connections\": 100, \"max-queues\": 100}",
        run: set_vhost,
    },
    Spec {
        name: "clear_vhost_limits",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "Clears virtual host limits",
        run: clear_vhost,
    },
    Spec {
        name: "list_vhost_limits",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[switch("global", "those of all virtual hosts")],
        about: "Displays configured virtual host limits",
        run: list_vhost,
    },
    Spec {
        name: "set_user_limits",
        tools: CTL,
        group: GROUP,
        args: "<username> <definition>",
        options: &[],
        about: "Sets user limits: {\"max-connections\": 100, \"max-channels\": 100}",
        run: set_user,
    },
    Spec {
        name: "clear_user_limits",
        tools: CTL,
        group: GROUP,
        args: "<username> <limit>",
        options: &[],
        about: "Clears a limit of a user, or `all`",
        run: clear_user,
    },
    Spec {
        name: "list_user_limits",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[
            value("user", "username", "those of this user"),
            switch("global", "those of all users"),
        ],
        about: "Displays configured user limits",
        run: list_user,
    },
];

/// The limits in the argument, by name: all are looked at before any is set.
fn definition(call: &Call, known: [&str; 2]) -> Result<Vec<(String, i64)>, Failure> {
    let Value::Object(limits) = call.json("definition")? else {
        return Err(Failure::unavailable(
            "Validation failed\n\nlimits are a JSON object\n",
        ));
    };
    let mut found = Vec::new();
    for (name, value) in limits {
        let number = value.as_i64().filter(|_| known.contains(&name.as_str()));
        let Some(number) = number else {
            let text =
                format!("Validation failed\n\nUnrecognised terms [{{\"{name}\",{value}}}] in limits\n");
            return Err(Failure::unavailable(text));
        };
        found.push((name, number));
    }
    Ok(found)
}

fn set_vhost(call: &mut Call) -> Result<Output, Failure> {
    let vhost = call.vhost().to_owned();
    call.banner(format!(
        "Setting vhost limits to \"{}\" for vhost \"{vhost}\" ...",
        call.arg("definition")
    ));
    for (name, value) in definition(call, ["max-connections", "max-queues"])? {
        let path = format!("/vhost-limits/{}/{name}", segment(&vhost));
        let set = call.client.put(&path, &json!({"value": value}));
        set.map_err(|failure| {
            let failure = validation(failure);
            if failure.is_missing() || failure.code == exit::DATA {
                vhosts::missing(&vhost)
            } else {
                failure
            }
        })?;
    }
    Ok(Output::Done { node: call.node() })
}

fn clear_vhost(call: &mut Call) -> Result<Output, Failure> {
    let vhost = call.vhost().to_owned();
    call.banner(format!("Clearing vhost \"{vhost}\" limits ..."));
    let rows = limits_of_vhosts(call)?;
    let Some((_, limits)) = rows.iter().find(|(name, _)| *name == vhost) else {
        return Err(Failure::unavailable("Parameter does not exist"));
    };
    for name in limits.as_object().into_iter().flat_map(|limits| limits.keys()) {
        call.client
            .delete(&format!("/vhost-limits/{}/{name}", segment(&vhost)))?;
    }
    Ok(Output::Done { node: call.node() })
}

/// Names, and limits as an object.
fn limits_of_vhosts(call: &Call) -> Result<Vec<(String, Value)>, Failure> {
    named(&call.client.list("/vhost-limits")?, "vhost", "value")
}

fn named(rows: &[Value], name: &str, limits: &str) -> Result<Vec<(String, Value)>, Failure> {
    let pair = |row: &Value| {
        let name = row.get(name)?.as_str()?.to_owned();
        let limits = row.get(limits)?.clone();
        limits
            .as_object()
            .is_some_and(|limits| !limits.is_empty())
            .then_some((name, limits))
    };
    Ok(rows.iter().filter_map(pair).collect())
}

/// One object's limits are printed as they are, those of all as a table.
fn show(rows: Vec<(String, Value)>, name: &str, one: bool) -> Output {
    if one {
        return match rows.into_iter().next() {
            Some((_, limits)) => Output::sentence(limits.to_string()),
            None => Table::new(&[name, "limits"], Vec::new()).into(),
        };
    }
    let rows = rows
        .into_iter()
        .map(|(name, limits)| vec![name.into(), limits.to_string().into()]);
    Table::new(&[name, "limits"], rows.collect()).into()
}

fn list_vhost(call: &mut Call) -> Result<Output, Failure> {
    let global = call.switch("global");
    let mut rows;
    if global {
        call.banner("Listing limits for all vhosts ...");
        rows = limits_of_vhosts(call)?;
    } else {
        call.banner(format!("Listing limits for vhost \"{}\" ...", call.vhost()));
        rows = limits_of_vhosts(call)?;
        rows.retain(|(name, _)| name == call.vhost());
    }
    Ok(show(rows, "vhost", !global))
}

fn set_user(call: &mut Call) -> Result<Output, Failure> {
    let user = call.arg("username").to_owned();
    call.banner(format!(
        "Setting user limits to \"{}\" for user \"{user}\" ...",
        call.arg("definition")
    ));
    for (name, value) in definition(call, ["max-connections", "max-channels"])? {
        let path = format!("/user-limits/{}/{name}", segment(&user));
        let set = call.client.put(&path, &json!({"value": value}));
        set.map_err(|failure| {
            if failure.is_missing() || failure.code == exit::NO_USER {
                users::missing(&user)
            } else {
                validation(failure)
            }
        })?;
    }
    Ok(Output::Done { node: call.node() })
}

fn limits_of_users(call: &Call) -> Result<Vec<(String, Value)>, Failure> {
    named(&call.client.list("/user-limits")?, "user", "value")
}

fn clear_user(call: &mut Call) -> Result<Output, Failure> {
    let (user, limit) = (call.arg("username").to_owned(), call.arg("limit").to_owned());
    if limit == "all" {
        call.banner(format!("Clearing all limits for user \"{user}\" ..."));
    } else {
        call.banner(format!("Clearing \"{limit}\" limit for user \"{user}\" ..."));
    }
    let rows = limits_of_users(call)?;
    let set = rows.iter().find(|(name, _)| *name == user);
    let names = set.and_then(|(_, limits)| limits.as_object()).into_iter();
    for name in names.flat_map(|limits| limits.keys()) {
        if limit == "all" || *name == limit {
            call.client
                .delete(&format!("/user-limits/{}/{name}", segment(&user)))?;
        }
    }
    Ok(Output::Done { node: call.node() })
}

fn list_user(call: &mut Call) -> Result<Output, Failure> {
    let user = call.option("user").map(ToOwned::to_owned);
    let Some(user) = user.filter(|_| !call.switch("global")) else {
        call.banner("Listing limits for all users ...");
        return Ok(show(limits_of_users(call)?, "user", false));
    };
    call.banner(format!("Listing limits for user \"{user}\" ..."));
    let known = call.client.get(&format!("/users/{}", segment(&user)));
    known.map_err(|failure| {
        if failure.is_missing() {
            users::missing(&user)
        } else {
            failure
        }
    })?;
    let mut rows = limits_of_users(call)?;
    rows.retain(|(name, _)| *name == user);
    if rows.is_empty() {
        return Ok(Output::sentence("{}"));
    }
    Ok(show(rows, "user", true))
}
