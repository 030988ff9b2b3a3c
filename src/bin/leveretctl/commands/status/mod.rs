//! Reports about the node: status, cluster status, memory, versions.

mod cluster;
mod node;

use serde_json::{Map, Value, json};

use crate::{
    call::Call,
    command::{Opt, Spec, switch, value},
    failure::{Failure, exit},
    output::{Output, Table},
    program::tools::{BOTH, DIAGNOSTICS},
};

const GROUP: &str = "Monitoring, observability and health checks";

const UNIT: Opt = value(
    "unit",
    "bytes|mb|mib|gb|gib|tb|tib",
    "of amounts of memory and disk [default: gb]",
);

pub(super) static COMMANDS: [Spec; 11] = [
    Spec {
        name: "status",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[UNIT],
        about: "Displays status of a node",
        run: node::status,
    },
    Spec {
        name: "cluster_status",
        tools: BOTH,
        group: "Cluster",
        args: "",
        options: &[],
        about: "Displays the nodes of the cluster: there is one",
        run: cluster::cluster_status,
    },
    Spec {
        name: "memory_breakdown",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "",
        options: &[UNIT],
        about: "Displays where the broker's memory went",
        run: memory_breakdown,
    },
    Spec {
        name: "server_version",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "",
        options: &[],
        about: "Displays the version of RabbitMQ that the broker stands in for",
        run: server_version,
    },
    Spec {
        name: "erlang_version",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "",
        options: &[switch("details", "accepted for RabbitMQ's sake")],
        about: "There is no Erlang here: says so",
        run: erlang_version,
    },
    Spec {
        name: "list_node_auth_attempt_stats",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[switch(
            "by-source",
            "by address and user, which the broker does not track",
        )],
        about: "Lists authentication attempts",
        run: auth_attempts,
    },
    Spec {
        name: "log_location",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "",
        options: &[switch("all", "accepted for RabbitMQ's sake").short('a')],
        about: "Where the log goes: to stderr",
        run: log_location,
    },
    Spec {
        name: "os_env",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "",
        options: &[],
        about: "The settings that came from the environment",
        run: os_env,
    },
    Spec {
        name: "report",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[],
        about: "A report of everything, for support",
        run: report,
    },
    Spec {
        name: "tls_versions",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "",
        options: &[],
        about: "The broker does not speak TLS yet: lists none",
        run: no_tls,
    },
    Spec {
        name: "cipher_suites",
        tools: DIAGNOSTICS,
        group: GROUP,
        args: "",
        options: &[],
        about: "The broker does not speak TLS yet: lists none",
        run: no_tls,
    },
];

/// What the broker says of itself.
pub(super) struct Told(pub(super) Value);

impl Told {
    pub(super) fn ask(call: &Call) -> Result<Self, Failure> {
        call.client.get("/leveret/status").map(Self)
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, key: &str) -> u64 {
        self.0.get(key).and_then(Value::as_u64).unwrap_or(0)
    }

    /// As text, whatever it is.
    pub(super) fn text_of(&self, key: &str) -> String {
        self.0.get(key).map(crate::output::cell).unwrap_or_default()
    }

    pub(super) fn float(&self, key: &str) -> f64 {
        self.0.get(key).and_then(Value::as_f64).unwrap_or(0.0)
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn rows(&self, key: &str) -> Vec<Value> {
        self.0
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    }

    pub(super) fn node(&self) -> &str {
        self.text("node")
    }

    /// `memory`, `disk`: the alarms that are on.
    pub(super) fn alarms(&self) -> Vec<&'static str> {
        let on = [("memory_alarm", "memory"), ("disk_alarm", "disk")];
        on.into_iter()
            .filter(|(key, _)| self.flag(key))
            .map(|(_, name)| name)
            .collect()
    }
}

/// Sections of a report: a heading, then lines.
struct Report(String);

impl Report {
    fn section(&mut self, heading: &str, lines: &[String]) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(&format!("{heading}\n\n"));
        for line in lines {
            self.0.push_str(&format!("{line}\n"));
        }
    }
}

/// An amount in a unit, with four digits after the point at most, as RabbitMQ writes it.
fn amount(bytes: u64, unit: &str) -> Result<String, Failure> {
    let scale: u64 = match unit {
        "bytes" => return Ok(format!("{bytes} bytes")),
        "mb" => 1_000_000,
        "mib" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        "tb" => 1_000_000_000_000,
        "tib" => 1 << 40,
        _ => {
            let text = format!(
                "unit '{unit}' is not supported. Please use one of: bytes, mb, mib, gb, gib, tb, tib"
            );
            return Err(Failure::argument(exit::USAGE, text));
        }
    };
    Ok(format!("{} {unit}", rounded(bytes, scale, 4)))
}

/// A quotient, rounded, without zeros at its end but for one.
fn rounded(part: u64, whole: u64, digits: u32) -> String {
    let power = 10_u128.pow(digits);
    let whole = u128::from(whole.max(1));
    let scaled = (u128::from(part) * power + whole / 2) / whole;
    let width = usize::try_from(digits).unwrap_or(0);
    let fraction = format!("{:0width$}", scaled % power);
    let fraction = fraction.trim_end_matches('0');
    format!(
        "{}.{}",
        scaled / power,
        if fraction.is_empty() { "0" } else { fraction }
    )
}

fn percent(part: u64, whole: u64) -> String {
    rounded(part.saturating_mul(100), whole, 2)
}

/// Kinds of memory and their bytes, the most first.
fn memory(call: &Call, node: &str) -> Result<(Vec<(String, u64)>, u64), Failure> {
    let path = format!("/nodes/{}/memory", crate::client::segment(node));
    let answer = call.client.get(&path)?;
    let kinds = answer
        .get("memory")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let total = kinds
        .get("total")
        .and_then(|total| total.get("rss")?.as_u64())
        .unwrap_or(0);
    let mut kinds: Vec<(String, u64)> = kinds
        .into_iter()
        .filter_map(|(kind, bytes)| Some((kind, bytes.as_u64()?)))
        .collect();
    kinds.sort_by(|left, right| (right.1, &left.0).cmp(&(left.1, &right.0)));
    Ok((kinds, total))
}

fn listener_lines(told: &Told, with_node: bool) -> Vec<String> {
    let line = |listener: &Value| {
        let text = |key: &str| listener.get(key).and_then(Value::as_str).unwrap_or_default();
        let (interface, port) = (
            text("interface"),
            listener.get("port").cloned().unwrap_or_default(),
        );
        let prefix = if with_node {
            format!("Node: {}, interface", told.node())
        } else {
            "Interface".to_owned()
        };
        format!(
            "{prefix}: {interface}, port: {port}, protocol: {}, purpose: {}",
            text("protocol"),
            text("purpose")
        )
    };
    told.rows("listeners").iter().map(line).collect()
}

pub(super) fn alarm_lines(told: &Told) -> Vec<String> {
    let on = told.alarms();
    if on.is_empty() {
        return vec!["(none)".to_owned()];
    }
    let line = |alarm: &&str| match *alarm {
        "memory" => format!("Memory alarm on node {}", told.node()),
        _ => format!("Free disk space alarm on node {}", told.node()),
    };
    on.iter().map(line).collect()
}

const RUNTIME: &str = concat!("Leveret ", env!("CARGO_PKG_VERSION"), ", without Erlang");

fn memory_breakdown(call: &mut Call) -> Result<Output, Failure> {
    let unit = call.option("unit").unwrap_or("gb").to_lowercase();
    amount(0, &unit)?;
    let node = call.node();
    call.banner(format!("Reporting memory breakdown on node {node}..."));
    let (kinds, total) = memory(call, &node)?;
    let mut lines = Vec::new();
    let mut json = Map::new();
    for (kind, bytes) in kinds {
        let percentage = percent(bytes, total);
        lines.push(format!("{kind}: {} ({percentage}%)", amount(bytes, &unit)?));
        let number: f64 = percentage.parse().unwrap_or(0.0);
        json.insert(kind, json!({"bytes": bytes, "percentage": number}));
    }
    Ok(Output::Report {
        text: lines.join("\n"),
        json: Value::Object(json),
    })
}

fn server_version(call: &mut Call) -> Result<Output, Failure> {
    let told = Told::ask(call)?;
    call.banner(format!("Asking node {} for its RabbitMQ version...", told.node()));
    Ok(Output::sentence(told.text("rabbitmq_version")))
}

fn erlang_version(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!("Asking node {node} for its Erlang/OTP version..."));
    Ok(Output::sentence(RUNTIME))
}

fn auth_attempts(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!(
        "Listing authentication\n attempts for node \"{node}\" ..."
    ));
    let rows = call
        .client
        .list(&format!("/auth/attempts/{}", crate::client::segment(&node)))?;
    let columns = [
        "protocol",
        "auth_attempts",
        "auth_attempts_failed",
        "auth_attempts_succeeded",
    ];
    let rows = rows.iter().map(|row| {
        let cell = |column: &&str| row.get(*column).cloned().unwrap_or_default();
        columns.iter().map(cell).collect()
    });
    Ok(Table::new(&columns, rows.collect()).into())
}

fn log_location(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!("Log file location(s) on node {node} ..."));
    Ok(Output::sentence("<stderr>"))
}

fn os_env(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!(
        "Listing environment variables that set something on node {node}..."
    ));
    let settings = call.client.list("/leveret/environment")?;
    let text = |row: &Value, key: &str| {
        row.get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let lines: Vec<String> = settings
        .iter()
        .filter(|row| text(row, "origin") == "environment")
        .map(|row| {
            let name = text(row, "key").replace('.', "__").to_uppercase();
            format!(
                "LEVERET_{name}={}",
                row.get("value").map(crate::output::cell).unwrap_or_default()
            )
        })
        .collect();
    if lines.is_empty() {
        return Ok(Output::Silent);
    }
    Ok(Output::sentence(lines.join("\n")))
}

fn no_tls(call: &mut Call) -> Result<Output, Failure> {
    call.banner("This broker does not speak TLS yet");
    Ok(Table::streamed(&["name"], Vec::new()).into())
}

/// What a support report is made of.
const PARTS: [&[&str]; 14] = [
    &["status"],
    &["cluster_status"],
    &["environment"],
    &["list_connections"],
    &["list_channels"],
    &["list_users"],
    &["list_vhosts", "name", "description", "tags"],
    &[
        "list_queues",
        "name",
        "durable",
        "type",
        "policy",
        "messages",
        "consumers",
        "state",
    ],
    &[
        "list_exchanges",
        "name",
        "type",
        "durable",
        "auto_delete",
        "policy",
    ],
    &["list_bindings"],
    &["list_permissions"],
    &["list_policies"],
    &["list_parameters"],
    &["list_global_parameters"],
];

fn report(call: &mut Call) -> Result<Output, Failure> {
    let node = call.node();
    call.banner(format!("Reporting server status of node {node} ..."));
    call.print_banner()?;
    let mut all = serde_json::Map::new();
    for words in PARTS {
        let name = words.first().copied().unwrap_or_default();
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let (spec, matches) = crate::arguments::parse(call.program, &words)?;
        let mut part = Call::new(call.program, spec, matches)?;
        std::mem::swap(&mut part.client, &mut call.client);
        let output = (spec.run)(&mut part);
        std::mem::swap(&mut part.client, &mut call.client);
        if call.shape.format.is_json() {
            all.insert(name.to_owned(), output?.into_value());
        } else {
            part.show(output?)?;
            crate::output::print("\n")?;
        }
    }
    if call.shape.format.is_json() {
        return Ok(Output::Report {
            text: String::new(),
            json: all.into(),
        });
    }
    Ok(Output::Silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_as_rabbitmq_writes_them() {
        for (bytes, unit, expected) in [
            (129_847_300, "mb", "129.8473 mb"),
            (50_000_000, "mb", "50.0 mb"),
            (50_000_000, "gb", "0.05 gb"),
            (0, "gb", "0.0 gb"),
            (1 << 30, "gib", "1.0 gib"),
            (7, "bytes", "7 bytes"),
        ] {
            assert_eq!(amount(bytes, unit).unwrap(), expected);
        }
        assert!(amount(1, "stone").is_err());
        assert_eq!(percent(1, 3), "33.33");
        assert_eq!(percent(0, 0), "0.0");
    }
}
