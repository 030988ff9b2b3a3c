//! Plugins. What RabbitMQ's plugins do is built in here, or is not there: nothing can be switched.

use serde_json::{Value, json};

use crate::{
    call::Call,
    command::{Opt, Spec, switch},
    commands::RABBITMQ_VERSION,
    failure::{Failure, exit},
    output::{Output, Table},
    program::tools::PLUGINS,
};

const GROUP: &str = "Plugin Management";

const WHERE: [Opt; 3] = [
    switch("online", "accepted for RabbitMQ's sake"),
    switch("offline", "unknown plugins are no error"),
    switch("all", "accepted for RabbitMQ's sake"),
];

pub(super) static COMMANDS: [Spec; 6] = [
    Spec {
        name: "list",
        tools: PLUGINS,
        group: GROUP,
        args: "[<pattern>]",
        options: &[
            switch("verbose", "more about each").short('v'),
            switch("minimal", "names only").short('m'),
            switch("enabled", "only those explicitly enabled").short('E'),
            switch("implicitly-enabled", "those enabled explicitly or not").short('e'),
        ],
        about: "Lists plugins and their state",
        run: list,
    },
    Spec {
        name: "enable",
        tools: PLUGINS,
        group: GROUP,
        args: "[<plugin>...]",
        options: &WHERE,
        about: "Enables plugins: what is built in is enabled already",
        run: enable,
    },
    Spec {
        name: "disable",
        tools: PLUGINS,
        group: GROUP,
        args: "[<plugin>...]",
        options: &WHERE,
        about: "Disables plugins: what is built in cannot be disabled here",
        run: disable,
    },
    Spec {
        name: "set",
        tools: PLUGINS,
        group: GROUP,
        args: "[<plugin>...]",
        options: &WHERE,
        about: "Enables these plugins and no others",
        run: enable,
    },
    Spec {
        name: "is_enabled",
        tools: PLUGINS,
        group: GROUP,
        args: "<plugin>...",
        options: &[
            switch("online", "accepted for RabbitMQ's sake"),
            switch("offline", "does not ask the broker"),
        ],
        about: "Exits with a non-zero code if a plugin is not enabled",
        run: is_enabled,
    },
    Spec {
        name: "directories",
        tools: PLUGINS,
        group: GROUP,
        args: "",
        options: &[
            switch("online", "accepted for RabbitMQ's sake"),
            switch("offline", "accepted for RabbitMQ's sake"),
        ],
        about: "There are no plugin directories: says so",
        run: directories,
    },
];

/// What is built in, by the names of RabbitMQ's plugins.
const BUILT_IN: [&str; 10] = [
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_delayed_message_exchange",
    "rabbitmq_event_exchange",
    "rabbitmq_management",
    "rabbitmq_management_agent",
    "rabbitmq_message_deduplication",
    "rabbitmq_prometheus",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
    "rabbitmq_web_dispatch",
];

/// Others that people's images and scripts enable; they are not here.
const ABSENT: [&str; 22] = [
    "rabbitmq_amqp1_0",
    "rabbitmq_auth_backend_cache",
    "rabbitmq_auth_backend_http",
    "rabbitmq_auth_backend_ldap",
    "rabbitmq_auth_backend_oauth2",
    "rabbitmq_auth_mechanism_ssl",
    "rabbitmq_federation",
    "rabbitmq_federation_management",
    "rabbitmq_jms_topic_exchange",
    "rabbitmq_mqtt",
    "rabbitmq_peer_discovery_k8s",
    "rabbitmq_sharding",
    "rabbitmq_shovel",
    "rabbitmq_shovel_management",
    "rabbitmq_stomp",
    "rabbitmq_stream",
    "rabbitmq_stream_management",
    "rabbitmq_top",
    "rabbitmq_tracing",
    "rabbitmq_trust_store",
    "rabbitmq_web_mqtt",
    "rabbitmq_web_stomp",
];

/// Needed by others, and not asked for by themselves.
fn is_implicit(name: &str) -> bool {
    matches!(name, "rabbitmq_management_agent" | "rabbitmq_web_dispatch")
}

fn list(call: &mut Call) -> Result<Output, Failure> {
    let pattern = if call.has("pattern") {
        call.arg("pattern")
    } else {
        ".*"
    }
    .to_owned();
    call.banner(format!("Listing plugins with pattern \"{pattern}\" ..."));
    // A regular expression in RabbitMQ; people give the beginning of a name.
    let wanted = pattern.replace(".*", "");
    let (explicit, any) = (call.switch("enabled"), call.switch("implicitly-enabled"));
    let mut rows: Vec<(&str, &str)> = BUILT_IN
        .iter()
        .filter(|name| !(explicit && is_implicit(name)))
        .map(|name| (*name, if is_implicit(name) { "e*" } else { "E*" }))
        .collect();
    if !explicit && !any {
        rows.extend(ABSENT.map(|name| (name, "  ")));
    }
    rows.retain(|(name, _)| name.contains(wanted.trim_matches(['^', '$'])));
    rows.sort_unstable();
    if call.shape.format.is_json() {
        let rows = rows.iter().map(|(name, state)| {
            let enabled = if state.starts_with('E') {
                "enabled"
            } else if state.starts_with('e') {
                "implicit"
            } else {
                "not_enabled"
            };
            vec![
                (*name).into(),
                enabled.into(),
                state.ends_with('*').into(),
                RABBITMQ_VERSION.into(),
            ]
        });
        return Ok(Table::new(&["name", "enabled", "running", "version"], rows.collect()).into());
    }
    if rows.is_empty() {
        return Ok(Output::Silent);
    }
    if call.switch("minimal") {
        let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
        return Ok(Output::sentence(names.join("\n")));
    }
    let mut lines = Vec::new();
    if !call.shape.quiet {
        lines.push(" Configured: E = explicitly enabled; e = implicitly enabled".to_owned());
        lines.push(format!(" | Status: * = running on {}", call.node()));
        lines.push(" |/".to_owned());
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, state) in rows {
        lines.push(format!("[{state}] {name:<width$} {RABBITMQ_VERSION}"));
    }
    Ok(Output::sentence(lines.join("\n")))
}

/// Names that no RabbitMQ has either, and names that are not here.
fn check(call: &Call) -> Result<Vec<String>, Failure> {
    let asked: Vec<String> = call.args("plugin").into_iter().map(ToOwned::to_owned).collect();
    let missing = |name: &&String| !BUILT_IN.contains(&name.as_str());
    let absent: Vec<&str> = asked.iter().filter(missing).map(String::as_str).collect();
    if absent.is_empty() || call.switch("offline") {
        return Ok(asked);
    }
    let listed: Vec<String> = absent.iter().map(|name| format!(":{name}")).collect();
    let known = absent.iter().all(|name| ABSENT.contains(name));
    let hint = if known {
        "\nThis broker does not have what it does."
    } else {
        ""
    };
    let text = format!("{{:plugins_not_found, [{}]}}{hint}", listed.join(", "));
    Err(Failure::new(exit::SOFTWARE, text))
}

fn enable(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    let asked: Vec<&str> = call.args("plugin");
    if asked.is_empty() && !call.switch("all") && call.spec.name == "enable" {
        return Err(Failure::argument(exit::USAGE, "not enough arguments."));
    }
    call.banner(format!("Enabling plugins on node {node}:\n{}", asked.join("\n")));
    let asked = check(call)?;
    let text = format!(
        "The following plugins have been configured:\n{}\nApplying plugin configuration to {node}...\n\
         Plugin configuration unchanged.",
        asked
            .iter()
            .map(|name| format!("  {name}"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    if call.shape.quiet && !call.shape.format.is_json() {
        return Ok(Output::Silent);
    }
    Ok(Output::Report {
        text,
        json: json!({"enabled": asked, "started": [], "set": BUILT_IN, "mode": "online"}),
    })
}

fn disable(call: &mut Call) -> Result<Output, Failure> {
    let built_in: Vec<&str> = call.args("plugin");
    let built_in: Vec<&str> = built_in
        .into_iter()
        .filter(|name| BUILT_IN.contains(name))
        .collect();
    if let Some(name) = built_in.first() {
        let text = format!(
            "{name} is built in: the settings of this broker decide about it, such as http.listen = \"none\""
        );
        return Err(Failure::unavailable(text));
    }
    if call.shape.format.is_json() {
        return Ok(Output::Report {
            text: String::new(),
            json: json!({"disabled": Vec::<Value>::new(), "mode": "online"}),
        });
    }
    Ok(Output::Remark(
        "Plugin configuration unchanged.".to_owned(),
        serde_json::Map::new(),
    ))
}

fn is_enabled(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    let asked: Vec<String> = call.args("plugin").into_iter().map(ToOwned::to_owned).collect();
    let (noun, verb) = if asked.len() > 1 {
        ("plugins", "are")
    } else {
        ("plugin", "is")
    };
    let names = asked.join(", ");
    call.banner(format!("Asking node {node} if {noun} {names} {verb} enabled..."));
    if !call.switch("offline") {
        call.client.get("/leveret/ping")?;
    }
    let missing: Vec<&str> = asked
        .iter()
        .map(String::as_str)
        .filter(|name| !BUILT_IN.contains(name))
        .collect();
    let noun = if asked.len() > 1 { "Plugins" } else { "Plugin" };
    if missing.is_empty() {
        return Ok(Output::sentence(format!(
            "{noun} {names} {verb} enabled on node {node}"
        )));
    }
    let text = format!(
        "{noun} {} {verb} not enabled on node {node}. Enabled plugins and dependencies: {}",
        missing.join(", "),
        BUILT_IN.join(", ")
    );
    Err(Failure::unavailable(text))
}

fn directories(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!("Listing plugin directories used by node {node}"));
    Ok(Output::sentence(
        "This broker has no plugins to load: what they do is built in",
    ))
}
