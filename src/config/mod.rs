//! Configuration: built-in defaults, then a TOML file, then `LEVERET_*` variables, then flags; later ones win. The
//! only reader of the environment. What the user wrote becomes checked values here, and a bad one names itself.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use serde::Deserialize;

mod nearest;
mod rabbit_conf;
mod settings;
mod telemetry;

pub use self::settings::Setting;

use crate::broker::{limits::Limit, user::HashingAlgorithm};
use crate::management::{Collector, Cors};
use crate::server::{AccessOptions, AlarmOptions, Limits, LogExchange, Options, Permits, Watermark};
use crate::storage::StoreOptions;
use crate::supervisor::Supervisor;
use crate::tools::Command;

/// Where an installed broker keeps its data.
const DATA_DIR: &str = "/var/lib/leveret";
/// Read when it exists and no other file is named.
const CONFIG_FILE: &str = "/etc/leveret/leveret.toml";

/// Belongs to the Makefile, which exports it to everything it starts; no setting.
const BUILD_CACHE: &str = "LEVERET_CACHE";

/// The command line of `leveret`.
#[derive(Parser, Debug, Default)]
#[command(
    name = "leveret",
    version,
    about = "An AMQP 0-9-1 message broker: a drop-in for RabbitMQ whose confirms mean fsynced",
    after_help = "Settings come from built-in defaults, then the configuration file, then LEVERET_* environment \
                  variables (LEVERET_AMQP__LISTEN=127.0.0.1:5673), then these flags; later ones win. \
                  etc/leveret.toml explains every setting.\n\n\
                  Exit codes: 0 stopped on request, 1 other failure, 65 damaged data, 66 a file of the store is missing, \
                  69 address or data directory in use, 74 disk failure, 75 disk full, 76 store of a version not known, 77 no \
                  permission, 78 bad configuration."
)]
pub struct Flags {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Check the settings and say what a start would do with the data directory; nothing is changed
    #[arg(long)]
    pub dry_run: bool,
    /// Configuration file (TOML) [default: /etc/leveret/leveret.toml, if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Directory for everything that must survive a restart [default: /var/lib/leveret]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Where AMQP clients connect; port 0 picks one, `none` opens no listener [default: [::]:5672]
    #[arg(long, value_name = "ADDR:PORT")]
    pub amqp_listen: Option<String>,
    /// Where the HTTP API is served; port 0 picks one, `none` switches it off [default: [::]:15672]
    #[arg(long, value_name = "ADDR:PORT")]
    pub http_listen: Option<String>,
    /// Where Prometheus metrics are served; port 0 picks one, `none` switches them off [default: [::]:15692]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<String>,
    /// error, warn, info, debug or trace; or a filter such as `info,leveret::server=debug` [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// What the sources say, before it is checked.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Raw {
    data_dir: PathBuf,
    amqp: RawAmqp,
    http: RawHttp,
    metrics: RawListen,
    log: RawLog,
    storage: RawStorage,
    alarms: RawAlarms,
    auth: RawAuth,
    limits: RawLimits,
    definitions: RawDefinitions,
    deprecated_features: RawDeprecated,
    otel: telemetry::RawOtel,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RawAmqp {
    listen: String,
    channel_max: u16,
    frame_max: u32,
    heartbeat: u16,
    handshake_timeout_ms: u64,
    dead_peer_timeout_ms: u64,
    max_message_size: u64,
    global_qos: bool,
    consumer_timeout_ms: u64,
    event_exchange: bool,
    log_exchange: bool,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RawHttp {
    listen: String,
    max_body_size: u64,
    cors_allow_origins: Vec<String>,
    cors_max_age: u64,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RawListen {
    listen: String,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RawLog {
    level: String,
    format: String,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RawStorage {
    commit_interval_us: u64,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RawAlarms {
    vm_memory_high_watermark: RawWatermark,
    disk_free_limit: RawWatermark,
}

/// A number or text: what a file or a variable makes of 0.6, 1000000 and "2GiB".
#[derive(Deserialize, Debug)]
#[serde(untagged)]
enum RawWatermark {
    Bytes(u64),
    Share(f64),
    Text(String),
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RawAuth {
    default_vhost: String,
    default_user: String,
    default_password: String,
    default_user_tags: Vec<String>,
    loopback_users: Vec<String>,
    failure_delay_ms: u64,
    login_failures_per_minute: u32,
    anonymous_user: String,
    anonymous_password: String,
    challenge: bool,
    password_hashing: String,
    default_queue_type: String,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    connection_max: i64,
    channel_max_per_node: i64,
    consumer_max_per_channel: i64,
    vhost_max: i64,
    queue_max: i64,
    exchange_max: i64,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RawDefinitions {
    file: String,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RawDeprecated {
    permit: RawPermits,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the switches of the file")]
struct RawPermits {
    transient_nonexcl_queues: bool,
    queue_master_locator: bool,
    classic_queue_mirroring: bool,
    classic_queue_version_1: bool,
}

impl Raw {
    /// What stands by itself.
    fn check(&self) -> Result<(), ConfigError> {
        for (key, text) in [
            ("auth.default_vhost", &self.auth.default_vhost),
            ("auth.default_user", &self.auth.default_user),
        ] {
            if text.is_empty() || text.len() > 255 {
                return Err(bad(key, "must have 1 to 255 bytes"));
            }
        }
        if !["classic", "quorum", "stream"].contains(&&*self.auth.default_queue_type) {
            let given = &self.auth.default_queue_type;
            return Err(bad(
                "auth.default_queue_type",
                format!("'{given}' is not one of classic, quorum, stream"),
            ));
        }
        Ok(())
    }
}

/// Values that were checked, for the programs.
pub struct Config {
    pub server: Options,
    pub data_dir: PathBuf,
    pub http_listen: Option<SocketAddr>,
    /// Octets of an HTTP request's body.
    pub http_body_bytes_max: usize,
    pub metrics_listen: Option<SocketAddr>,
    /// A filter as `tracing_subscriber` reads it.
    pub log_filter: String,
    pub log_json: bool,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Every setting as it was given, by name.
    pub settings: Vec<Setting>,
    /// What an operator should know about the configuration, a sentence each.
    pub notes: Vec<String>,
    /// Who started us, and wants to be told.
    pub supervisor: Supervisor,
    /// Definitions to take in at every start.
    pub definitions: Option<PathBuf>,
    /// Which pages of other origins may use the HTTP API.
    pub cors: Cors,
    /// Who is sent spans.
    pub collector: Option<Collector>,
}

/// What is wrong with the configuration. The text names the setting.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration: {0}")]
    Source(#[from] config::ConfigError),
    #[error("configuration file {} does not exist", .0.display())]
    NoFile(PathBuf),
    #[error("{place}: {problem}")]
    Foreign { place: String, problem: String },
    #[error("bad value for {key}: {problem}")]
    Value { key: &'static str, problem: String },
}

fn bad(key: &'static str, problem: impl std::fmt::Display) -> ConfigError {
    ConfigError::Value {
        key,
        problem: problem.to_string(),
    }
}

/// Every setting has its default here; `etc/leveret.toml` explains them.
const DEFAULTS: &str = include_str!("../../etc/leveret.toml");

impl Config {
    /// Reads all sources.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file or setting.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let installed = Path::new(CONFIG_FILE);
        let foreign = match &flags.config {
            Some(_) => None,
            None => variable("RABBITMQ_CONFIG_FILE").and_then(|path| existing_conf(&path)),
        };
        let file = match &flags.config {
            Some(file) if !file.exists() => return Err(ConfigError::NoFile(file.clone())),
            Some(file) => Some(file.clone()),
            None => foreign
                .clone()
                .or_else(|| installed.exists().then(|| installed.to_path_buf())),
        };
        let mut builder = config::Config::builder()
            .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml))
            .set_default("data_dir", DATA_DIR)?;
        let mut notes = Vec::new();
        match &file {
            // RabbitMQ's own format, by its name or because RabbitMQ's variable names it.
            Some(file) if file.extension().is_some_and(|ending| ending == "conf") || foreign.is_some() => {
                let read = rabbit_conf::read(file)?;
                notes.clone_from(&read.notes);
                builder = builder.add_source(read);
            }
            Some(file) => {
                let file = config::File::from(file.as_path());
                builder = builder.add_source(file.format(config::FileFormat::Toml));
            }
            None => {}
        }
        builder = builder.add_source(rabbit_conf::variables(variable));
        let environment = config::Environment::with_prefix("LEVERET")
            .prefix_separator("_")
            .separator("__")
            .list_separator(",")
            .with_list_parse_key("auth.loopback_users")
            .with_list_parse_key("auth.default_user_tags")
            .with_list_parse_key("otel.headers")
            .with_list_parse_key("http.cors_allow_origins")
            .try_parsing(true)
            .ignore_empty(true)
            .source(Some(variables()));
        builder = builder.add_source(environment);
        let overrides = [
            (
                "data_dir",
                flags
                    .data_dir
                    .as_ref()
                    .map(|dir| dir.to_string_lossy().into_owned()),
            ),
            ("amqp.listen", flags.amqp_listen.clone()),
            ("http.listen", flags.http_listen.clone()),
            ("metrics.listen", flags.metrics_listen.clone()),
            ("log.level", flags.log_level.clone()),
            ("log.format", flags.log_format.clone()),
        ];
        let given = overrides.iter().filter(|(_, value)| value.is_some());
        let by_flag: Vec<&str> = given.map(|(key, _)| *key).collect();
        for (key, value) in overrides {
            builder = builder.set_override_option(key, value)?;
        }
        let built = builder.build()?;
        let settings = settings::list(&built.cache, &by_flag, file.as_deref());
        let raw: Raw = built.try_deserialize()?;
        let mut config = Self::check(raw, file, settings)?;
        config.notes = notes;
        Ok(config)
    }

    fn check(raw: Raw, file: Option<PathBuf>, settings: Vec<Setting>) -> Result<Self, ConfigError> {
        raw.check()?;
        let limits = limits(&raw.amqp, &raw.auth, &raw.limits)?;
        let log_json = match &*raw.log.format {
            "text" => false,
            "json" => true,
            other => return Err(bad("log.format", format!("'{other}' is neither text nor json"))),
        };
        if let Err(error) = raw.log.level.parse::<tracing_subscriber::EnvFilter>() {
            return Err(bad("log.level", error));
        }
        let Some(password_hashing) = HashingAlgorithm::parse(&raw.auth.password_hashing) else {
            let given = raw.auth.password_hashing;
            return Err(bad(
                "auth.password_hashing",
                format!("'{given}' is not one of argon2id, sha256, sha512, md5"),
            ));
        };
        let alarms = alarms(&raw.alarms)?;
        let (spans, collector) = raw.otel.check()?.unzip();
        let mut store = StoreOptions::new(&raw.data_dir);
        store.commit_interval = Duration::from_micros(raw.storage.commit_interval_us);
        let server = Options {
            store,
            amqp_listen: listen("amqp.listen", &raw.amqp.listen)?,
            limits,
            alarms,
            event_exchange: raw.amqp.event_exchange,
            log_exchange: raw.amqp.log_exchange.then(LogExchange::default),
            default_vhost: raw.auth.default_vhost,
            default_queue_type: raw.auth.default_queue_type,
            access: AccessOptions {
                default_user: raw.auth.default_user,
                default_password: raw.auth.default_password,
                default_tags: raw.auth.default_user_tags,
                loopback_users: raw.auth.loopback_users,
                password_hashing,
            },
            permits: permits(&raw.deprecated_features.permit),
            spans,
            anonymous: (!raw.auth.anonymous_user.is_empty())
                .then(|| (raw.auth.anonymous_user, raw.auth.anonymous_password.into_bytes())),
            challenge: raw.auth.challenge,
        };
        Ok(Self {
            server,
            data_dir: raw.data_dir,
            http_listen: listen("http.listen", &raw.http.listen)?,
            http_body_bytes_max: usize::try_from(raw.http.max_body_size).unwrap_or(usize::MAX),
            metrics_listen: listen("metrics.listen", &raw.metrics.listen)?,
            log_filter: raw.log.level,
            log_json,
            file,
            settings,
            notes: Vec::new(),
            supervisor: supervisor(),
            definitions: (!raw.definitions.file.is_empty()).then(|| raw.definitions.file.into()),
            cors: Cors {
                allow_origins: raw.http.cors_allow_origins,
                max_age_s: (raw.http.cors_max_age > 0).then_some(raw.http.cors_max_age),
            },
            collector,
        })
    }
}

/// A negative number is no limit.
fn limit(number: i64) -> Limit {
    (number >= 0).then_some(number)
}

fn permits(raw: &RawPermits) -> Permits {
    Permits {
        transient_nonexcl_queues: raw.transient_nonexcl_queues,
        queue_master_locator: raw.queue_master_locator,
        classic_queue_mirroring: raw.classic_queue_mirroring,
        classic_queue_version_1: raw.classic_queue_version_1,
    }
}

/// What clients may negotiate and how long they may take.
fn limits(amqp: &RawAmqp, auth: &RawAuth, raw: &RawLimits) -> Result<Limits, ConfigError> {
    const FRAME_MAX_LOWEST: u32 = 4096;
    const MESSAGE_MAX: u64 = 536_870_912;
    if amqp.frame_max != 0 && amqp.frame_max < FRAME_MAX_LOWEST {
        return Err(bad(
            "amqp.frame_max",
            format!("{} is below {FRAME_MAX_LOWEST}", amqp.frame_max),
        ));
    }
    if amqp.max_message_size == 0 || amqp.max_message_size > MESSAGE_MAX {
        let given = amqp.max_message_size;
        return Err(bad(
            "amqp.max_message_size",
            format!("{given} is not between 1 and {MESSAGE_MAX}"),
        ));
    }
    if amqp.handshake_timeout_ms == 0 {
        return Err(bad("amqp.handshake_timeout_ms", "0 would refuse every client"));
    }
    Ok(Limits {
        connection_max: limit(raw.connection_max),
        channel_max_per_node: limit(raw.channel_max_per_node),
        consumer_max_per_channel: limit(raw.consumer_max_per_channel),
        vhost_max: limit(raw.vhost_max),
        queue_max: limit(raw.queue_max),
        exchange_max: limit(raw.exchange_max),
        channel_max: amqp.channel_max,
        frame_max: amqp.frame_max,
        heartbeat_s: amqp.heartbeat,
        max_message_bytes: amqp.max_message_size,
        transaction_max_bytes: Limits::default().transaction_max_bytes,
        handshake_timeout: Duration::from_millis(amqp.handshake_timeout_ms),
        failure_delay: Duration::from_millis(auth.failure_delay_ms),
        login_failures_per_minute: auth.login_failures_per_minute,
        dead_peer_timeout: Duration::from_millis(amqp.dead_peer_timeout_ms),
        global_qos: amqp.global_qos,
        consumer_timeout: (amqp.consumer_timeout_ms > 0)
            .then(|| Duration::from_millis(amqp.consumer_timeout_ms)),
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The variables of systemd's protocol. Its watchdog may be meant for another process of the service.
fn supervisor() -> Supervisor {
    let meant = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
    let watchdog = variable("WATCHDOG_USEC").filter(|_| meant);
    Supervisor {
        socket: std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
        watchdog: watchdog.and_then(|text| text.parse().ok().map(Duration::from_micros)),
    }
}

/// RabbitMQ names its file with or without its ending.
fn existing_conf(path: &str) -> Option<PathBuf> {
    [PathBuf::from(path), PathBuf::from(format!("{path}.conf"))]
        .into_iter()
        .find(|path| path.is_file())
}

/// The environment without what is no setting, and without what is no text.
fn variables<Map: FromIterator<(String, String)>>() -> Map {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name != BUILD_CACHE)
        .collect()
}

/// An address and port, or `none`.
fn listen(key: &'static str, text: &str) -> Result<Option<SocketAddr>, ConfigError> {
    if text == "none" {
        return Ok(None);
    }
    let address = text.parse().map_err(|_unparsed| {
        bad(
            key,
            format!("'{text}' is neither ADDRESS:PORT (such as 127.0.0.1:5672 or [::]:5672) nor none"),
        )
    })?;
    Ok(Some(address))
}

fn alarms(raw: &RawAlarms) -> Result<AlarmOptions, ConfigError> {
    Ok(AlarmOptions {
        memory_high_watermark: watermark("alarms.vm_memory_high_watermark", &raw.vm_memory_high_watermark)?,
        disk_free_limit: watermark("alarms.disk_free_limit", &raw.disk_free_limit)?,
    })
}

fn watermark(key: &'static str, raw: &RawWatermark) -> Result<Watermark, ConfigError> {
    match raw {
        RawWatermark::Bytes(bytes) => Ok(Watermark::Bytes(*bytes)),
        RawWatermark::Share(share) if share.is_finite() && *share >= 0.0 => Ok(Watermark::Relative(*share)),
        RawWatermark::Share(share) => Err(bad(key, format!("{share} is no share of memory"))),
        RawWatermark::Text(text) => text.parse().map_err(|problem: String| bad(key, problem)),
    }
}

#[cfg(test)]
mod tests;
