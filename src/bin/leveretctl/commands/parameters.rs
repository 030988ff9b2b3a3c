//! Runtime parameters, of vhosts and of the whole broker.

use serde_json::{Value, json};

use crate::{
    call::Call,
    client::segment,
    command::Spec,
    commands::policies::{no_parameter, validation},
    failure::Failure,
    output::{Output, Table},
    program::tools::{BOTH, CTL},
};

const GROUP: &str = "Parameters";

pub(super) static COMMANDS: [Spec; 6] = [
    Spec {
        name: "set_parameter",
        tools: CTL,
        group: GROUP,
        args: "<component_name> <name> <value>",
        options: &[],
        about: "Sets a runtime parameter",
        run: set,
    },
    Spec {
        name: "clear_parameter",
        tools: CTL,
        group: GROUP,
        args: "<component_name> <name>",
        options: &[],
        about: "Clears a runtime parameter",
        run: clear,
    },
    Spec {
        name: "list_parameters",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[],
        about: "Lists runtime parameters for a virtual host",
        run: list,
    },
    Spec {
        name: "set_global_parameter",
        tools: CTL,
        group: GROUP,
        args: "<name> <value>",
        options: &[],
        about: "Sets a global runtime parameter",
        run: set_global,
    },
    Spec {
        name: "clear_global_parameter",
        tools: CTL,
        group: GROUP,
        args: "<name>",
        options: &[],
        about: "Clears a global runtime parameter",
        run: clear_global,
    },
    Spec {
        name: "list_global_parameters",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[],
        about: "Lists global runtime parameters",
        run: list_global,
    },
];

fn path(call: &Call) -> String {
    let (component, name) = (segment(call.arg("component_name")), segment(call.arg("name")));
    format!("/parameters/{component}/{}/{name}", segment(call.vhost()))
}

fn set(call: &mut Call) -> Result<Output, Failure> {
    call.banner(format!(
        "Setting runtime parameter \"{}\" for component \"{}\" to \"{}\" in vhost \"{}\" ...",
        call.arg("name"),
        call.arg("component_name"),
        call.arg("value"),
        call.vhost()
    ));
    let body = json!({"value": call.json("value")?});
    call.client.put(&path(call), &body).map_err(validation)?;
    Ok(Output::Done { node: call.node() })
}

fn clear(call: &mut Call) -> Result<Output, Failure> {
    call.banner(format!(
        "Clearing runtime parameter \"{}\" for component \"{}\" on vhost \"{}\" ...",
        call.arg("name"),
        call.arg("component_name"),
        call.vhost()
    ));
    call.client.delete(&path(call)).map_err(no_parameter)?;
    Ok(Output::Done { node: call.node() })
}

/// Values are JSON within JSON, as RabbitMQ's tools have it.
fn table(columns: &[&str], rows: &[Value]) -> Output {
    let row = |row: &Value| {
        let cell = |column: &&str| {
            let value = row.get(*column).cloned().unwrap_or_default();
            if *column == "value" {
                value.to_string().into()
            } else {
                value
            }
        };
        columns.iter().map(cell).collect()
    };
    Table::new(columns, rows.iter().map(row).collect()).into()
}

fn list(call: &mut Call) -> Result<Output, Failure> {
    call.banner(format!(
        "Listing runtime parameters for vhost \"{}\" ...",
        call.vhost()
    ));
    let mut rows = call.client.list("/parameters")?;
    rows.retain(|row| row.get("vhost").and_then(Value::as_str) == Some(call.vhost()));
    Ok(table(&["component", "name", "value"], &rows))
}

fn set_global(call: &mut Call) -> Result<Output, Failure> {
    let name = call.arg("name").to_owned();
    call.banner(format!(
        "Setting global runtime parameter \"{name}\" to \"{}\" ...",
        call.arg("value")
    ));
    let body = json!({"value": call.json("value")?});
    call.client
        .put(&format!("/global-parameters/{}", segment(&name)), &body)
        .map_err(validation)?;
    Ok(Output::Done { node: call.node() })
}

fn clear_global(call: &mut Call) -> Result<Output, Failure> {
    let name = call.arg("name").to_owned();
    call.banner(format!("Clearing global runtime parameter \"{name}\" ..."));
    call.client
        .delete(&format!("/global-parameters/{}", segment(&name)))
        .map_err(no_parameter)?;
    Ok(Output::Done { node: call.node() })
}

fn list_global(call: &mut Call) -> Result<Output, Failure> {
    call.banner("Listing global runtime parameters ...");
    Ok(table(
        &["name", "value"],
        &call.client.list("/global-parameters")?,
    ))
}
