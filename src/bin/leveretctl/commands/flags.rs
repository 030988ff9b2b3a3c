//! Feature flags, `eval`, and other questions that exist for the sake of those who ask them.

use serde_json::{Value, json};

use crate::{
    call::Call,
    client::segment,
    command::{Spec, switch},
    commands::{self, RABBITMQ_VERSION, lists},
    failure::{Failure, exit},
    output::{Output, Table},
    program::tools::{ALL, BOTH, CTL},
};

const FLAGS: &str = "Feature flags";
const OPERATIONS: &str = "Operations";
const CLUSTER: &str = "Cluster";

pub(super) static COMMANDS: [Spec; 12] = [
    Spec {
        name: "enable_feature_flag",
        tools: CTL,
        group: FLAGS,
        args: "<feature_flag>",
        options: &[switch("opt-in", "accepted for RabbitMQ's sake")],
        about: "Enables a feature flag, or `all`: they all are",
        run: enable,
    },
    Spec {
        name: "list_feature_flags",
        tools: BOTH,
        group: FLAGS,
        args: "[<column>...]",
        options: &[],
        about: "Lists feature flags",
        run: list,
    },
    Spec {
        name: "list_deprecated_features",
        tools: BOTH,
        group: FLAGS,
        args: "[<column>...]",
        options: &[switch("used", "only those in use")],
        about: "Lists deprecated features",
        run: deprecated,
    },
    Spec {
        name: "eval",
        tools: CTL,
        group: OPERATIONS,
        args: "<expression>",
        options: &[],
        about: "Answers the few Erlang expressions that well-known scripts send; there is no Erlang here",
        run: eval,
    },
    Spec {
        name: "autocomplete",
        tools: ALL,
        group: "Help",
        args: "<prefix>",
        options: &[],
        about: "Provides command name autocomplete variants",
        run: autocomplete,
    },
    Spec {
        name: "help",
        tools: ALL,
        group: "Help",
        args: "[<command>]",
        options: &[],
        about: "Displays usage information for a command",
        run: help,
    },
    Spec {
        name: "version",
        tools: ALL,
        group: "Help",
        args: "",
        options: &[],
        about: "Displays the version",
        run: help,
    },
    Spec {
        name: "join_cluster",
        tools: CTL,
        group: CLUSTER,
        args: "<existing_cluster_member>",
        options: &[
            switch("disc", "accepted for RabbitMQ's sake"),
            switch("ram", "accepted for RabbitMQ's sake"),
        ],
        about: "This broker does not cluster yet: says so",
        run: no_cluster,
    },
    Spec {
        name: "forget_cluster_node",
        tools: CTL,
        group: CLUSTER,
        args: "<existing_cluster_member>",
        options: &[switch("offline", "accepted for RabbitMQ's sake")],
        about: "This broker does not cluster yet: says so",
        run: no_cluster,
    },
    Spec {
        name: "change_cluster_node_type",
        tools: CTL,
        group: CLUSTER,
        args: "<type>",
        options: &[],
        about: "This broker does not cluster yet: says so",
        run: no_cluster,
    },
    Spec {
        name: "rename_cluster_node",
        tools: CTL,
        group: CLUSTER,
        args: "<name>...",
        options: &[],
        about: "This broker does not cluster yet: says so",
        run: no_cluster,
    },
    Spec {
        name: "update_cluster_nodes",
        tools: CTL,
        group: CLUSTER,
        args: "<seed_node>",
        options: &[],
        about: "This broker does not cluster yet: says so",
        run: no_cluster,
    },
];

fn enable(call: &mut Call) -> Result<Output, Failure> {
    let flag = call.arg("feature_flag").to_owned();
    let node = call.node();
    if flag == "all" {
        call.banner("Enabling all feature flags ...");
    } else {
        call.banner(format!("Enabling feature flag \"{flag}\" ..."));
    }
    let path = format!("/feature-flags/{}/enable", segment(&flag));
    let enabled = call.client.put(&path, &json!({}));
    enabled.map_err(|failure| match &failure.reason {
        Some(refusal) if refusal.status == 400 => {
            let text = format!("This feature flag is not supported by node {node}");
            Failure::new(exit::USAGE, text)
        }
        _ => failure,
    })?;
    Ok(Output::Done { node })
}

fn table(call: &Call, path: &str, known: &[&str], default: &[&str]) -> Result<Output, Failure> {
    let columns = lists::columns(call, known, default)?;
    let rows = call.client.list(path)?;
    let rows = rows.iter().map(|row| {
        let cell = |column: &String| row.get(column).cloned().unwrap_or_else(|| "".into());
        columns.iter().map(cell).collect()
    });
    let names: Vec<&str> = columns.iter().map(String::as_str).collect();
    Ok(Table::new(&names, rows.collect()).into())
}

fn list(call: &mut Call) -> Result<Output, Failure> {
    let known = ["name", "state", "stability", "provided_by", "desc", "doc_url"];
    lists::columns(call, &known, &known)?;
    call.banner("Listing feature flags ...");
    table(call, "/feature-flags", &known, &["name", "state"])
}

fn deprecated(call: &mut Call) -> Result<Output, Failure> {
    let known = ["name", "deprecation_phase", "provided_by", "desc", "doc_url"];
    lists::columns(call, &known, &known)?;
    call.banner("Listing deprecated features ...");
    let path = if call.switch("used") {
        "/deprecated-features/used"
    } else {
        "/deprecated-features"
    };
    table(call, path, &known, &["name", "deprecation_phase"])
}

fn eval(call: &mut Call) -> Result<Output, Failure> {
    let asked = call.arg("expression").to_owned();
    super::not_empty("expression", &asked)?;
    let compact: String = asked.chars().filter(|part| !part.is_whitespace()).collect();
    let status = call.client.get("/leveret/status")?;
    let text = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or_default();
    let node = text("node");
    let answer = match compact.trim_end_matches('.') {
        "rabbit_nodes:reached_target_cluster_size()" => "true".to_owned(),
        "node()" => format!("'{node}'"),
        "rabbit_misc:version()" | "rabbit:version()" => format!("\"{RABBITMQ_VERSION}\""),
        "rabbit_nodes:cluster_name()" => format!("<<\"{}\">>", text("cluster_name")),
        "rabbit:is_running()" => status.get("running").map(Value::to_string).unwrap_or_default(),
        "rabbit_mnesia:is_clustered()" | "rabbit_nodes:is_clustered()" => "false".to_owned(),
        "nodes()" => "[]".to_owned(),
        "rabbit_nodes:list_running()" | "rabbit_nodes:all_running()" => format!("['{node}']"),
        _ => {
            let text = format!(
                "this broker is not written in Erlang and cannot evaluate '{asked}'; \
                 its HTTP API and the other commands of this tool tell what there is to know"
            );
            return Err(Failure::unavailable(text));
        }
    };
    Ok(Output::sentence(answer))
}

fn autocomplete(call: &mut Call) -> Result<Output, Failure> {
    let prefix = call.arg("prefix").to_owned();
    let names: Vec<&str> = commands::of(call.program)
        .map(|spec| spec.name)
        .filter(|name| name.starts_with(&prefix))
        .collect();
    if names.is_empty() {
        return Ok(Output::Silent);
    }
    Ok(Output::sentence(names.join("\n")))
}

/// Only reached in odd spellings: `usage` answers before a broker is looked for.
fn help(call: &mut Call) -> Result<Output, Failure> {
    Ok(Output::Document(crate::usage::all(call.program)))
}

fn no_cluster(call: &mut Call) -> Result<Output, Failure> {
    let text = format!(
        "{}: this broker runs on one node and does not cluster yet",
        call.spec.name
    );
    Err(Failure::unavailable(text))
}
