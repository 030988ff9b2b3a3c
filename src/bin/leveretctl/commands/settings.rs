//! Settings of a running broker: alarms, configuration, its name.

use serde_json::{Value, json};

use crate::{
    call::Call,
    client::nothing,
    command::Spec,
    failure::{Failure, exit},
    output::{Output, Table, cell},
    program::tools::{BOTH, CTL, OURS},
};

const GROUP: &str = "Configuration and Environment";

pub(super) static COMMANDS: [Spec; 6] = [
    Spec {
        name: "environment",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[],
        about: "Every setting of the broker, its value, and where it comes from",
        run: environment,
    },
    Spec {
        name: "reload",
        tools: OURS,
        group: GROUP,
        args: "",
        options: &[],
        about: "Reads the configuration again and takes over what can change, all or nothing",
        run: reload,
    },
    Spec {
        name: "set_cluster_name",
        tools: CTL,
        group: GROUP,
        args: "<name>",
        options: &[],
        about: "Sets the cluster name",
        run: set_cluster_name,
    },
    Spec {
        name: "set_disk_free_limit",
        tools: CTL,
        group: GROUP,
        args: "<disk_limit> [<fraction>]",
        options: &[],
        about: "Sets the free disk space that raises the alarm: SIZE, or mem_relative FRACTION",
        run: set_disk_free_limit,
    },
    Spec {
        name: "set_vm_memory_high_watermark",
        tools: CTL,
        group: GROUP,
        args: "<fraction> [<value>]",
        options: &[],
        about: "Sets the memory that raises the alarm: FRACTION, or absolute SIZE",
        run: set_memory,
    },
    Spec {
        name: "force_gc",
        tools: CTL,
        group: GROUP,
        args: "",
        options: &[],
        about: "There is no garbage to collect: does nothing",
        run: force_gc,
    },
];

fn environment(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!("Application environment of node {node} ..."));
    let settings = call.client.list("/leveret/environment")?;
    let rows = settings.iter().map(|setting| {
        let cell = |key: &str| setting.get(key).cloned().unwrap_or_default();
        vec![cell("key"), cell("value"), cell("origin")]
    });
    Ok(Table::new(&["key", "value", "origin"], rows.collect()).into())
}

fn reload(call: &mut Call) -> Result<Output, Failure> {
    call.banner("Reloading the configuration ...");
    let told = call
        .client
        .post("/leveret/reload", &nothing())
        .map_err(|mut failure| {
            if failure
                .reason
                .as_ref()
                .is_some_and(|refusal| refusal.status == 400)
            {
                failure.code = exit::DATA;
                failure.text.push_str("\nNothing was changed.");
            }
            failure
        })?;
    let mut text = String::new();
    for (key, what) in [
        ("changed", "Changed"),
        ("needs_restart", "Changed in the file, and waits for a restart"),
    ] {
        let names = told.get(key).and_then(Value::as_array).into_iter().flatten();
        let rows: Vec<String> = names
            .filter_map(Value::as_str)
            .map(|name| change(name, &told))
            .collect();
        if !rows.is_empty() {
            text.push_str(&format!("{what}: {}\n", rows.join(", ")));
        }
    }
    if text.is_empty() {
        text.push_str("Nothing has changed");
    }
    Ok(Output::Report { text, json: told })
}

/// `amqp.heartbeat (60 -> 30)`.
fn change(name: &str, told: &Value) -> String {
    let Some(values) = told.get("values").and_then(|values| values.get(name)) else {
        return name.to_owned();
    };
    let value = |key: &str| values.get(key).map(cell).unwrap_or_default();
    format!("{name} ({} -> {})", value("from"), value("to"))
}

fn set_cluster_name(call: &mut Call) -> Result<Output, Failure> {
    let name = call.arg("name").to_owned();
    super::not_empty("cluster name", &name)?;
    call.banner(format!("Setting cluster name to {name} ..."));
    call.client.put("/cluster-name", &json!({"name": name}))?;
    Ok(Output::Done { node: call.node() })
}

fn bad_argument() -> Failure {
    Failure::argument(exit::DATA, "Bad argument.")
}

/// Sets a limit that the broker may find to be none.
fn set_limit(call: &mut Call, which: &str, limit: &str) -> Result<Output, Failure> {
    let set = call
        .client
        .put(&format!("/leveret/limits/{which}"), &json!({"limit": limit}));
    set.map_err(|failure| match &failure.reason {
        Some(refusal) if refusal.status == 400 => bad_argument(),
        _ => failure,
    })?;
    Ok(Output::Done { node: call.node() })
}

/// A share as the broker reads it: with a point, so that 1 is not taken for a byte.
fn share(text: &str) -> Option<f64> {
    text.parse::<f64>()
        .ok()
        .filter(|share| share.is_finite() && *share >= 0.0)
}

fn with_point(share: f64) -> String {
    let text = share.to_string();
    if text.contains('.') {
        text
    } else {
        format!("{text}.0")
    }
}

/// Digits and perhaps a unit.
fn looks_like_a_size(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
}

fn set_disk_free_limit(call: &mut Call) -> Result<Output, Failure> {
    let (limit, fraction) = (call.arg("disk_limit").to_owned(), call.arg("fraction").to_owned());
    let node = call.node();
    if limit == "mem_relative" {
        let fraction = share(&fraction).ok_or_else(bad_argument)?;
        call.banner(format!(
            "Setting disk free limit on {node} to {fraction} times the total RAM ..."
        ));
        return set_limit(call, "disk", &with_point(fraction));
    }
    if !fraction.is_empty() {
        return Err(Failure::argument(exit::USAGE, "too many arguments."));
    }
    if !looks_like_a_size(&limit) {
        return Err(bad_argument());
    }
    call.banner(format!("Setting disk free limit on {node} to {limit} bytes ..."));
    set_limit(call, "disk", &limit)
}

fn set_memory(call: &mut Call) -> Result<Output, Failure> {
    let (fraction, value) = (call.arg("fraction").to_owned(), call.arg("value").to_owned());
    let node = call.node();
    if fraction == "absolute" {
        if !looks_like_a_size(&value) {
            return Err(bad_argument());
        }
        call.banner(format!("Setting memory threshold on {node} to {value} bytes ..."));
        return set_limit(call, "memory", &value);
    }
    if !value.is_empty() {
        return Err(Failure::argument(exit::USAGE, "too many arguments."));
    }
    let share = share(&fraction).ok_or_else(bad_argument)?;
    if share > 1.0 {
        let text = "Bad argument: The threshold should be a fraction between 0.0 and 1.0";
        return Err(Failure::argument(exit::DATA, text));
    }
    call.banner(format!("Setting memory threshold on {node} to {fraction} ..."));
    set_limit(call, "memory", &with_point(share))
}

fn force_gc(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!(
        "Will ask all processes on node {node} to schedule a full sweep GC"
    ));
    call.client.get("/leveret/ping")?;
    Ok(Output::Done { node })
}
