//! A `rabbitmq.conf`, for those who come from RabbitMQ: its most used keys become our settings, those that have nothing to
//! do here are noted, and one that nobody knows stops the start, as it does there. Also the variables of RabbitMQ's image.

use std::{collections::BTreeMap, path::Path};

use config::{Map, Source, Value, ValueKind};

use crate::config::{ConfigError, nearest::nearest};

/// Settings read from elsewhere, as a source for the builder.
#[derive(Clone, Debug, Default)]
pub(super) struct Foreign {
    /// Our key, the value and where it was found.
    settings: Vec<(String, ValueKind, String)>,
    /// What an operator should know, a sentence each.
    pub(super) notes: Vec<String>,
}

impl Source for Foreign {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let value = |(key, kind, origin): &(String, ValueKind, String)| {
            (key.clone(), Value::new(Some(origin), kind.clone()))
        };
        Ok(self.settings.iter().map(value).collect())
    }
}

/// What one of RabbitMQ's keys is to us.
enum Meaning {
    /// This setting, with the value as it is.
    Is(&'static str),
    /// One of several values of this setting, each a line.
    Many(&'static str),
    /// The same, and the value is a flag.
    Flag(&'static str),
    /// The address or the port of a listener.
    Port(&'static str),
    Host(&'static str),
    /// A share of memory.
    Share(&'static str),
    Level,
    Format,
    /// Right, and without effect: what it tunes is not there, or is always so.
    Idle,
    /// What it asks for is not there yet; the text says so.
    Absent(&'static str),
}

use Meaning::{Absent, Flag, Format, Host, Idle, Is, Level, Many, Port, Share};

const NO_TLS: &str = "this broker does not speak TLS yet: put a proxy that ends it in front";

/// Keys, or their beginnings when they end in a point. The first that fits counts.
const KEYS: [(&str, Meaning); 70] = [
    ("listeners.tcp.default", Port("amqp.listen")),
    ("listeners.ssl.", Absent(NO_TLS)),
    ("ssl_options.", Absent(NO_TLS)),
    ("management.ssl.", Absent(NO_TLS)),
    ("prometheus.ssl.", Absent(NO_TLS)),
    ("management.tcp.port", Port("http.listen")),
    ("management.tcp.ip", Host("http.listen")),
    ("management.listener.port", Port("http.listen")),
    ("management.listener.ip", Host("http.listen")),
    ("management.cors.allow_origins.", Many("http.cors_allow_origins")),
    ("management.cors.max_age", Is("http.cors_max_age")),
    ("prometheus.tcp.port", Port("metrics.listen")),
    ("prometheus.tcp.ip", Host("metrics.listen")),
    ("default_user", Is("auth.default_user")),
    ("default_pass", Is("auth.default_password")),
    ("default_vhost", Is("auth.default_vhost")),
    ("default_queue_type", Is("auth.default_queue_type")),
    ("anonymous_login_user", Is("auth.anonymous_user")),
    ("anonymous_login_pass", Is("auth.anonymous_password")),
    ("heartbeat", Is("amqp.heartbeat")),
    ("frame_max", Is("amqp.frame_max")),
    ("channel_max", Is("amqp.channel_max")),
    ("max_message_size", Is("amqp.max_message_size")),
    ("handshake_timeout", Is("amqp.handshake_timeout_ms")),
    ("connection_max", Is("limits.connection_max")),
    ("channel_max_per_node", Is("limits.channel_max_per_node")),
    ("consumer_max_per_channel", Is("limits.consumer_max_per_channel")),
    ("vhost_max", Is("limits.vhost_max")),
    ("cluster_queue_limit", Is("limits.queue_max")),
    ("cluster_exchange_limit", Is("limits.exchange_max")),
    (
        "vm_memory_high_watermark.relative",
        Share("alarms.vm_memory_high_watermark"),
    ),
    (
        "vm_memory_high_watermark.absolute",
        Is("alarms.vm_memory_high_watermark"),
    ),
    ("disk_free_limit.relative", Share("alarms.disk_free_limit")),
    ("disk_free_limit.absolute", Is("alarms.disk_free_limit")),
    ("log.default.level", Level),
    ("log.console.level", Level),
    ("log.console.formatter", Format),
    ("log.exchange", Flag("amqp.log_exchange")),
    ("log.", Idle),
    ("load_definitions", Is("definitions.file")),
    ("definitions.local.path", Is("definitions.file")),
    ("management.load_definitions", Is("definitions.file")),
    ("definitions.import_backend", Idle),
    ("definitions.skip_if_unchanged", Idle),
    (
        "deprecated_features.permit.transient_nonexcl_queues",
        Flag("deprecated_features.permit.transient_nonexcl_queues"),
    ),
    (
        "deprecated_features.permit.queue_master_locator",
        Flag("deprecated_features.permit.queue_master_locator"),
    ),
    (
        "deprecated_features.permit.classic_queue_mirroring",
        Flag("deprecated_features.permit.classic_queue_mirroring"),
    ),
    ("deprecated_features.permit.", Idle),
    ("cluster_formation.", Absent("this broker does not cluster yet")),
    ("cluster_partition_handling", Idle),
    ("cluster_name", Absent("set it with leveretctl set_cluster_name")),
    (
        "auth_backends.",
        Absent("users are those of the broker: other backends are not there yet"),
    ),
    (
        "auth_ldap.",
        Absent("users are those of the broker: LDAP is not there yet"),
    ),
    (
        "auth_oauth2.",
        Absent("users are those of the broker: OAuth 2 is not there yet"),
    ),
    (
        "auth_http.",
        Absent("users are those of the broker: HTTP backends are not there yet"),
    ),
    ("mqtt.", Absent("this broker does not speak MQTT yet")),
    ("stomp.", Absent("this broker does not speak STOMP yet")),
    ("stream.", Absent("this broker has no streams yet")),
    ("auth_mechanisms.", Idle),
    ("tcp_listen_options.", Idle),
    ("num_acceptors.", Idle),
    ("collect_statistics", Idle),
    ("collect_statistics_interval", Idle),
    ("management.", Idle),
    ("management_agent.", Idle),
    ("prometheus.", Idle),
    ("queue_master_locator", Idle),
    ("classic_queue.", Idle),
    ("raft.", Idle),
    ("quorum_queue.", Idle),
];

/// More that is right and without effect.
const IDLE: [&str; 17] = [
    "vm_memory_calculation_strategy",
    "vm_memory_high_watermark_paging_ratio",
    "total_memory_available_override_value",
    "net_ticktime",
    "reverse_dns_lookups",
    "mnesia_table_loading_retry_timeout",
    "mnesia_table_loading_retry_limit",
    "queue_index_embed_msgs_below",
    "memory_monitor_interval",
    "background_gc_enabled",
    "background_gc_target_interval",
    "cluster_keepalive_interval",
    "queue_leader_locator",
    "consumer_timeout",
    "credit_flow_default_credit",
    "num_tcp_acceptors",
    "proxy_protocol",
];

/// Reads a file in RabbitMQ's format.
///
/// # Errors
/// [`ConfigError::Foreign`] with the line of what is no setting, or of a key that RabbitMQ has not either.
pub(super) fn read(path: &Path) -> Result<Foreign, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Foreign {
        place: path.display().to_string(),
        problem: error.to_string(),
    })?;
    parse(&text, &path.display().to_string())
}

fn parse(text: &str, path: &str) -> Result<Foreign, ConfigError> {
    let mut foreign = Foreign::default();
    let mut listeners = Listeners::default();
    let mut tags: Option<Vec<Value>> = None;
    for (at, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", at + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |problem: String| ConfigError::Foreign {
            place: place.clone(),
            problem,
        };
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| wrong("a setting looks like key = value".to_owned()))?;
        let (key, value) = (key.trim(), unquoted(value.trim()));
        if let Some(tag) = key.strip_prefix("default_user_tags.") {
            if value == "true" {
                tags.get_or_insert_default().push(Value::new(Some(&place), tag));
            }
            continue;
        }
        if key == "loopback_users" || key.starts_with("loopback_users.") {
            foreign.loopback(key, value, &place);
            continue;
        }
        if let Some(name) = key.strip_prefix("listeners.tcp") {
            listeners.add(name, value, &place, &mut foreign.notes);
            continue;
        }
        foreign.take(key, value, &place, &mut listeners).map_err(wrong)?;
    }
    if let Some(tags) = tags {
        let kind = ValueKind::Array(tags);
        foreign
            .settings
            .push(("auth.default_user_tags".to_owned(), kind, path.to_owned()));
    }
    listeners.finish(&mut foreign.settings);
    Ok(foreign)
}

fn unquoted(value: &str) -> &str {
    for quote in ['\'', '"'] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|value| value.strip_suffix(quote))
        {
            return inner;
        }
    }
    value
}

impl Foreign {
    fn set(&mut self, key: &str, value: impl Into<ValueKind>, place: &str) {
        self.settings
            .push((key.to_owned(), value.into(), place.to_owned()));
    }

    fn add(&mut self, key: &str, value: &str, place: &str) {
        let value = Value::new(Some(&place.to_owned()), value);
        let known = self.settings.iter_mut().find(|(known, ..)| known == key);
        match known {
            Some((_, ValueKind::Array(values), _)) => values.push(value),
            _ => self.set(key, ValueKind::Array(vec![value]), place),
        }
    }

    /// `loopback_users = none`, or `loopback_users.NAME = true|false`.
    fn loopback(&mut self, key: &str, value: &str, place: &str) {
        let mut users: Vec<Value> = Vec::new();
        match key.strip_prefix("loopback_users.") {
            Some(name) if value == "true" => users.push(Value::new(Some(&place.to_owned()), name)),
            _ => {}
        }
        self.set("auth.loopback_users", ValueKind::Array(users), place);
    }

    fn take(&mut self, key: &str, value: &str, place: &str, listeners: &mut Listeners) -> Result<(), String> {
        let fits = |known: &str| key == known || (known.ends_with('.') && key.starts_with(known));
        let Some((_, meaning)) = KEYS.iter().find(|(known, _)| fits(known)) else {
            if IDLE.contains(&key) {
                return Ok(());
            }
            let known = KEYS.iter().map(|(known, _)| *known).chain(IDLE);
            let hint = nearest(key, known).map_or(String::new(), |known| format!("; did you mean {known}?"));
            return Err(format!("unknown setting {key}{hint}"));
        };
        match meaning {
            Is(ours) => self.set(ours, value, place),
            Many(ours) => self.add(ours, value, place),
            Flag(ours) => {
                let flag: bool = value
                    .parse()
                    .map_err(|_no_flag| format!("{key} is true or false"))?;
                self.set(ours, flag, place);
            }
            Share(ours) => {
                let share: f64 = value.parse().map_err(|_no_number| format!("{key} is a number"))?;
                self.set(ours, share, place);
            }
            Port(ours) => listeners.port(ours, value, place),
            Host(ours) => listeners.host(ours, value, place),
            Level => self.set("log.level", level(value), place),
            Format => {
                let format = if value == "json" { "json" } else { "text" };
                self.set("log.format", format, place);
            }
            Idle => {}
            Absent(why) => self.notes.push(format!("{place}: {key} is not used: {why}")),
        }
        Ok(())
    }
}

/// RabbitMQ's levels by our names.
fn level(name: &str) -> &str {
    match name {
        "warning" => "warn",
        "notice" => "info",
        "critical" | "alert" | "emergency" => "error",
        "none" => "off",
        other => other,
    }
}

/// Addresses, whose parts come in lines of their own.
#[derive(Default)]
struct Listeners(BTreeMap<&'static str, Address>);

#[derive(Default)]
struct Address {
    host: Option<String>,
    port: Option<String>,
    place: String,
}

impl Listeners {
    fn entry(&mut self, ours: &'static str, place: &str) -> &mut Address {
        self.0.entry(ours).or_insert_with(|| Address {
            place: place.to_owned(),
            ..Address::default()
        })
    }

    /// `listeners.tcp = none`, `listeners.tcp.NAME = PORT` or `ADDRESS:PORT`.
    fn add(&mut self, name: &str, value: &str, place: &str, notes: &mut Vec<String>) {
        if name.is_empty() && value == "none" {
            self.port("amqp.listen", value, place);
            return;
        }
        if self.0.contains_key("amqp.listen") {
            notes.push(format!(
                "{place}: this broker has one AMQP listener; the first one counts"
            ));
            return;
        }
        self.port("amqp.listen", value, place);
    }

    fn port(&mut self, ours: &'static str, value: &str, place: &str) {
        let entry = self.entry(ours, place);
        match value.rsplit_once(':') {
            Some((host, port)) => {
                entry.host = Some(bracketed(host));
                entry.port = Some(port.to_owned());
            }
            None => entry.port = Some(value.to_owned()),
        }
    }

    fn host(&mut self, ours: &'static str, value: &str, place: &str) {
        self.entry(ours, place).host = Some(bracketed(value));
    }

    fn finish(self, settings: &mut Vec<(String, ValueKind, String)>) {
        for (ours, Address { host, port, place }) in self.0 {
            let default = match ours {
                "amqp.listen" => "5672",
                "http.listen" => "15672",
                _ => "15692",
            };
            let port = port.unwrap_or_else(|| default.to_owned());
            let address = if port == "none" {
                port
            } else {
                format!("{}:{port}", host.unwrap_or_else(|| "[::]".to_owned()))
            };
            settings.push((ours.to_owned(), ValueKind::String(address), place));
        }
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// The variables that people give containers of RabbitMQ.
pub(super) fn variables(get: impl Fn(&str) -> Option<String>) -> Foreign {
    let mut foreign = Foreign::default();
    for (name, ours) in [
        ("RABBITMQ_DEFAULT_USER", "auth.default_user"),
        ("RABBITMQ_DEFAULT_PASS", "auth.default_password"),
        ("RABBITMQ_DEFAULT_VHOST", "auth.default_vhost"),
    ] {
        if let Some(value) = get(name).filter(|value| !value.is_empty()) {
            foreign.set(ours, value, super::settings::ENVIRONMENT);
        }
    }
    foreign
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(foreign: &'a Foreign, key: &str) -> Option<&'a ValueKind> {
        let found = foreign.settings.iter().rev().find(|(known, ..)| known == key);
        found.map(|(_, kind, _)| kind)
    }

    #[test]
    fn the_usual_keys_become_our_settings() {
        let foreign = parse(
            "# a comment\n\
             listeners.tcp.default = 5673\n\
             management.tcp.port = 8080\n\
             management.tcp.ip = 0.0.0.0\n\
             default_user = alice\n\
             default_pass = 'it is secret'\n\
             default_user_tags.administrator = true\n\
             default_user_tags.x = false\n\
             loopback_users.guest = false\n\
             vm_memory_high_watermark.relative = 1\n\
             disk_free_limit.absolute = 2GB\n\
             log.console.level = warning\n\
             log.file = false\n\
             heartbeat = 30\n\
             management.cors.allow_origins.1 = https://a.example\n\
             management.cors.allow_origins.2 = https://b.example\n\
             ssl_options.cacertfile = /x.pem\n",
            "rabbitmq.conf",
        )
        .unwrap();
        let text = |text: &str| Some(ValueKind::String(text.to_owned()));
        assert_eq!(value(&foreign, "amqp.listen").cloned(), text("[::]:5673"));
        assert_eq!(value(&foreign, "http.listen").cloned(), text("0.0.0.0:8080"));
        assert_eq!(
            value(&foreign, "auth.default_password").cloned(),
            text("it is secret")
        );
        assert_eq!(
            value(&foreign, "alarms.vm_memory_high_watermark"),
            Some(&ValueKind::Float(1.0))
        );
        assert_eq!(value(&foreign, "log.level").cloned(), text("warn"));
        assert_eq!(
            value(&foreign, "auth.loopback_users"),
            Some(&ValueKind::Array(Vec::new()))
        );
        assert!(
            matches!(value(&foreign, "auth.default_user_tags"), Some(ValueKind::Array(tags)) if tags.len() == 1)
        );
        assert!(
            matches!(value(&foreign, "http.cors_allow_origins"), Some(ValueKind::Array(origins)) if origins.len() == 2)
        );
        assert_eq!(foreign.notes.len(), 1, "{:?}", foreign.notes);
        assert!(
            foreign.notes[0].starts_with("rabbitmq.conf:17: ssl_options.cacertfile"),
            "{:?}",
            foreign.notes
        );
    }

    #[test]
    fn unknown_keys_name_their_line_and_what_was_meant() {
        for (text, told) in [
            (
                "\nheartbeet = 3",
                "c:2: unknown setting heartbeet; did you mean heartbeat?",
            ),
            ("colour = blue", "c:1: unknown setting colour"),
            ("heartbeat", "c:1: a setting looks like key = value"),
            (
                "deprecated_features.permit.queue_master_locator = 3",
                "is true or false",
            ),
        ] {
            let error = parse(text, "c").unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
