//! Vhosts.

use serde_json::{Map, Value, json};

use crate::{
    call::Call,
    client::segment,
    command::{Opt, Spec, value},
    commands::{lists, not_empty},
    failure::{Failure, exit},
    output::{Output, Table},
    program::tools::{BOTH, CTL},
};

const GROUP: &str = "Virtual hosts";

const METADATA: [Opt; 3] = [
    value("description", "description", "what the virtual host is for"),
    value("tags", "tag,...", "tags, with commas between"),
    value(
        "default-queue-type",
        "type",
        "what queues become that ask for no type",
    ),
];

pub(super) static COMMANDS: [Spec; 10] = [
    Spec {
        name: "add_vhost",
        tools: CTL,
        group: GROUP,
        args: "<vhost>",
        options: &METADATA,
        about: "Creates a virtual host",
        run: add,
    },
    Spec {
        name: "delete_vhost",
        tools: CTL,
        group: GROUP,
        args: "<vhost>",
        options: &[],
        about: "Deletes a virtual host with everything in it",
        run: delete,
    },
    Spec {
        name: "list_vhosts",
        tools: BOTH,
        group: GROUP,
        args: "[<column>...]",
        options: &[],
        about: "Lists virtual hosts",
        run: list,
    },
    Spec {
        name: "update_vhost_metadata",
        tools: CTL,
        group: GROUP,
        args: "<vhost>",
        options: &METADATA,
        about: "Changes description, tags or default queue type of a virtual host",
        run: update,
    },
    Spec {
        name: "set_vhost_tags",
        tools: CTL,
        group: GROUP,
        args: "<vhost> [<tag>...]",
        options: &[],
        about: "Sets virtual host tags",
        run: set_tags,
    },
    Spec {
        name: "restart_vhost",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "Virtual hosts run as long as the node: says so",
        run: restart,
    },
    Spec {
        name: "enable_vhost_deletion_protection",
        tools: CTL,
        group: GROUP,
        args: "<vhost>",
        options: &[],
        about: "Protects a virtual host from deletion",
        run: protect,
    },
    Spec {
        name: "disable_vhost_deletion_protection",
        tools: CTL,
        group: GROUP,
        args: "<vhost>",
        options: &[],
        about: "Lifts the protection of a virtual host from deletion",
        run: unprotect,
    },
    Spec {
        name: "trace_on",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "Copies every publish and delivery of a virtual host to its amq.rabbitmq.trace",
        run: trace_on,
    },
    Spec {
        name: "trace_off",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "Ends the tracing of a virtual host",
        run: trace_off,
    },
];

fn path(vhost: &str) -> String {
    format!("/vhosts/{}", segment(vhost))
}

/// In the words of RabbitMQ's tools, which leave the word error out here.
pub(super) fn missing(vhost: &str) -> Failure {
    Failure::plain(exit::DATA, format!("Virtual host '{vhost}' does not exist"))
}

/// Maps a missing vhost.
fn known<T>(vhost: &str, result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|failure| {
        if failure.is_missing() {
            missing(vhost)
        } else {
            failure
        }
    })
}

/// The rows of `/WHAT/VHOST`.
pub(super) fn of_vhost(call: &Call, what: &str) -> Result<Vec<Value>, Failure> {
    let vhost = call.vhost();
    known(vhost, call.client.list(&format!("/{what}/{}", segment(vhost))))
}

/// The rows of `/vhosts/VHOST/WHAT`.
pub(super) fn part_of(call: &Call, what: &str) -> Result<Vec<Value>, Failure> {
    let vhost = call.vhost();
    known(vhost, call.client.list(&format!("{}/{what}", path(vhost))))
}

fn metadata(call: &Call) -> Map<String, Value> {
    let mut body = Map::new();
    for (option, key) in [
        ("description", "description"),
        ("tags", "tags"),
        ("default-queue-type", "default_queue_type"),
    ] {
        if let Some(text) = call.option(option) {
            body.insert(key.to_owned(), text.into());
        }
    }
    body
}

fn add(call: &mut Call) -> Result<Output, Failure> {
    let vhost = call.arg("vhost").to_owned();
    not_empty("vhost", &vhost)?;
    call.banner(format!("Adding vhost \"{vhost}\" ..."));
    call.client.put(&path(&vhost), &Value::Object(metadata(call)))?;
    Ok(Output::Done { node: call.node() })
}

fn update(call: &mut Call) -> Result<Output, Failure> {
    let vhost = call.arg("vhost").to_owned();
    call.banner(format!("Updating metadata of vhost \"{vhost}\" ..."));
    let body = metadata(call);
    if body.is_empty() {
        return Err(Failure::argument(exit::USAGE, "not enough arguments."));
    }
    known(&vhost, call.client.get(&path(&vhost)))?;
    call.client.put(&path(&vhost), &Value::Object(body))?;
    Ok(Output::Done { node: call.node() })
}

fn set_tags(call: &mut Call) -> Result<Output, Failure> {
    let vhost = call.arg("vhost").to_owned();
    let tags: Vec<String> = call.args("tag").into_iter().map(ToOwned::to_owned).collect();
    let listed = tags.join(", ");
    call.banner(format!(
        "Setting tags for virtual host \"{vhost}\" to [{listed}] ..."
    ));
    known(&vhost, call.client.get(&path(&vhost)))?;
    call.client.put(&path(&vhost), &json!({"tags": tags}))?;
    Ok(Output::Done { node: call.node() })
}

fn delete(call: &mut Call) -> Result<Output, Failure> {
    let vhost = call.arg("vhost").to_owned();
    call.banner(format!("Deleting vhost \"{vhost}\" ..."));
    known(&vhost, call.client.delete(&path(&vhost))).map_err(|mut failure| {
        if failure
            .reason
            .as_ref()
            .is_some_and(|refusal| refusal.status == 412)
        {
            failure.code = exit::DATA;
        }
        failure
    })?;
    Ok(Output::Done { node: call.node() })
}

const COLUMNS: [&str; 8] = [
    "name",
    "description",
    "tags",
    "default_queue_type",
    "protected_from_deletion",
    "tracing",
    "cluster_state",
    "metadata",
];

fn list(call: &mut Call) -> Result<Output, Failure> {
    let columns = lists::columns(call, &COLUMNS, &["name"])?;
    call.banner("Listing vhosts ...");
    let vhosts = call.client.list("/vhosts?disable_stats=true")?;
    let rows = vhosts.iter().map(|vhost| {
        let cell = |column: &String| match (column.as_str(), vhost.get(column)) {
            // A proplist in RabbitMQ's text, an object in its JSON.
            ("cluster_state", Some(Value::Object(nodes))) if !call.shape.format.is_json() => {
                let nodes = nodes
                    .iter()
                    .map(|(node, state)| format!("{{'{node}', {}}}", state.as_str().unwrap_or_default()));
                format!("[{}]", nodes.collect::<Vec<_>>().join(", ")).into()
            }
            (_, value) => value.cloned().unwrap_or_default(),
        };
        columns.iter().map(cell).collect()
    });
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    Ok(Table::new(&names, rows.collect()).into())
}

fn restart(call: &mut Call) -> Result<Output, Failure> {
    let (vhost, node) = (call.vhost().to_owned(), call.node());
    call.banner(format!("Trying to restart vhost '{vhost}' on node '{node}' ..."));
    known(&vhost, call.client.get(&path(&vhost)))?;
    Ok(Output::sentence(format!(
        "Vhost '{vhost}' is already running on node '{node}'"
    )))
}

fn set_protection(call: &mut Call, on: bool) -> Result<Output, Failure> {
    let vhost = call.arg("vhost").to_owned();
    let verb = if on { "Enabling" } else { "Disabling" };
    call.banner(format!(
        "{verb} deletion protection for virtual host \"{vhost}\" ..."
    ));
    let path = format!("{}/deletion/protection", path(&vhost));
    if on {
        known(&vhost, call.client.post(&path, &json!({})))?;
    } else {
        known(&vhost, call.client.delete(&path))?;
    }
    Ok(Output::Done { node: call.node() })
}

fn protect(call: &mut Call) -> Result<Output, Failure> {
    set_protection(call, true)
}

fn unprotect(call: &mut Call) -> Result<Output, Failure> {
    set_protection(call, false)
}

fn set_tracing(call: &mut Call, on: bool) -> Result<Output, Failure> {
    let vhost = call.vhost().to_owned();
    let (starting, enabled) = if on {
        ("Starting", "enabled")
    } else {
        ("Stopping", "disabled")
    };
    call.banner(format!("{starting} tracing for vhost \"{vhost}\" ..."));
    let path = format!("/leveret/tracing/{}", segment(&vhost));
    known(&vhost, call.client.put(&path, &json!({"on": on})))?;
    Ok(Output::Remark(
        format!("Trace {enabled} for vhost {vhost}"),
        Map::new(),
    ))
}

fn trace_on(call: &mut Call) -> Result<Output, Failure> {
    set_tracing(call, true)
}

fn trace_off(call: &mut Call) -> Result<Output, Failure> {
    set_tracing(call, false)
}
