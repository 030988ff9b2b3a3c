//! The running program as its operator steers it: its end, its settings and its log. The broker itself is steered through
//! the server's handle.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

use crate::config::{Config, Flags, Setting};
use crate::log::{Kept, SetFilter};
use crate::management::{LogFrom, Management, Operator};
use crate::server::Handle;

/// Settings that a reload takes over; the others need a restart.
const LIVE: [&str; 4] = [
    "definitions.file",
    "log.level",
    "alarms.vm_memory_high_watermark",
    "alarms.disk_free_limit",
];
/// Those of them that are limits. What was agreed with a client at its login holds until it comes again.
const LIVE_LIMITS: [&str; 16] = [
    "amqp.channel_max",
    "amqp.frame_max",
    "amqp.heartbeat",
    "amqp.handshake_timeout_ms",
    "amqp.dead_peer_timeout_ms",
    "amqp.max_message_size",
    "amqp.global_qos",
    "amqp.consumer_timeout_ms",
    "auth.failure_delay_ms",
    "auth.login_failures_per_minute",
    "limits.connection_max",
    "limits.channel_max_per_node",
    "limits.consumer_max_per_channel",
    "limits.vhost_max",
    "limits.queue_max",
    "limits.exchange_max",
];

fn is_live(key: &str) -> bool {
    LIVE.contains(&key) || LIVE_LIMITS.contains(&key)
}

/// What steers this program. Routes of the HTTP API and signals hold it.
pub struct Program {
    flags: Flags,
    handle: Handle,
    set_filter: SetFilter,
    log: Kept,
    state: Mutex<State>,
    end: Notify,
}

struct State {
    settings: Vec<Setting>,
    /// The filter as it is now, whatever the settings say.
    filter: String,
}

impl Program {
    pub fn new(
        flags: Flags,
        settings: Vec<Setting>,
        filter: String,
        handle: Handle,
        set_filter: SetFilter,
        log: Kept,
    ) -> Arc<Self> {
        Arc::new(Self {
            flags,
            handle,
            set_filter,
            log,
            state: Mutex::new(State { settings, filter }),
            end: Notify::new(),
        })
    }

    /// Resolves when an operator asked for the end.
    pub async fn asked_to_stop(&self) {
        self.end.notified().await;
    }
}

impl Operator for Program {
    fn stop(&self) {
        self.end.notify_one();
    }

    fn settings(&self) -> Value {
        let state = self.state.lock();
        let rows = state.settings.iter().map(|setting| {
            json!({
                "key": setting.key,
                "value": setting.value,
                "origin": setting.origin,
                "reloadable": is_live(&setting.key),
            })
        });
        rows.collect()
    }

    fn log_level(&self) -> String {
        self.state.lock().filter.clone()
    }

    fn set_log_level(&self, filter: &str) -> Result<(), String> {
        let mut state = self.state.lock();
        (self.set_filter)(filter)?;
        filter.clone_into(&mut state.filter);
        drop(state);
        tracing::info!(filter, "log level set");
        Ok(())
    }

    fn log_lines(&self, from: LogFrom) -> (Vec<String>, u64) {
        match from {
            LogFrom::Last(count) => self.log.last(count),
            LogFrom::Number(number) => self.log.since(number),
        }
    }

    fn reload(&self) -> Result<Value, String> {
        // Everything is checked before anything is changed.
        let config = Config::load(&self.flags).map_err(|error| error.to_string())?;
        let mut state = self.state.lock();
        if let Some(file) = &config.definitions {
            take_in_definitions(&self.handle, file)?;
        }
        let changed: Vec<&Setting> = config
            .settings
            .iter()
            .filter(|setting| {
                let before = state.settings.iter().find(|known| known.key == setting.key);
                before.is_none_or(|before| before.value != setting.value)
            })
            .collect();
        let (live, later): (Vec<&str>, Vec<&str>) = changed
            .iter()
            .map(|setting| setting.key.as_str())
            .partition(|key| is_live(key));
        if live.contains(&"log.level") {
            (self.set_filter)(&config.log_filter)?;
            state.filter.clone_from(&config.log_filter);
        }
        if live.iter().any(|key| LIVE_LIMITS.contains(key)) {
            self.handle.set_limits(config.server.limits.clone());
        }
        let alarms = config.server.alarms;
        if live.contains(&"alarms.vm_memory_high_watermark") {
            self.handle
                .set_memory_high_watermark(alarms.memory_high_watermark);
        }
        if live.contains(&"alarms.disk_free_limit") {
            self.handle.set_disk_free_limit(alarms.disk_free_limit);
        }
        let told = json!({
            "changed": live,
            "needs_restart": later,
            "values": values(&changed, &state.settings),
        });
        tracing::info!(changed = ?live, needs_restart = ?later, "configuration reloaded");
        // Settings that wait for a restart keep showing what is in force.
        let taken: Vec<Setting> = config
            .settings
            .iter()
            .filter(|setting| is_live(&setting.key))
            .cloned()
            .collect();
        for setting in taken {
            if let Some(known) = state.settings.iter_mut().find(|known| known.key == setting.key) {
                *known = setting;
            }
        }
        Ok(told)
    }
}

/// What each setting was and will be, by its key.
fn values(changed: &[&Setting], before: &[Setting]) -> Value {
    let row = |setting: &&Setting| {
        let was = before.iter().find(|known| known.key == setting.key);
        let was = was.map_or(Value::Null, |was| was.value.clone());
        (setting.key.clone(), json!({"from": was, "to": setting.value}))
    };
    Value::Object(changed.iter().map(row).collect())
}

/// Takes in the definitions that the configuration names. For a thread that may wait.
///
/// # Errors
/// What is wrong with the file.
pub fn take_in_definitions(handle: &Handle, file: &Path) -> Result<(), String> {
    let name = file.display();
    let document = std::fs::read(file).map_err(|error| format!("definitions.file: {name}: {error}"))?;
    Management::import(handle, document).map_err(|problem| format!("definitions.file: {name}: {problem}"))?;
    tracing::info!("definitions taken in from {name}");
    Ok(())
}

/// What the system tells a program.
pub struct Signals {
    pub stop: StopSignals,
    pub hangup: Hangup,
}

/// SIGTERM and SIGINT.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// SIGHUP.
pub struct Hangup(Signal);

impl Signals {
    /// Takes them over from the system, whose answer would be death.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            stop: StopSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
            hangup: Hangup(signal(SignalKind::hangup())?),
        })
    }
}

impl StopSignals {
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Hangup {
    /// Reloads the configuration at every signal, for as long as the program runs.
    pub async fn reload(mut self, program: Arc<Program>) {
        while self.0.recv().await.is_some() {
            let program = Arc::clone(&program);
            let reload = tokio::task::spawn_blocking(move || program.reload());
            if let Ok(Err(problem)) = reload.await {
                tracing::error!(problem, "configuration not reloaded; everything is as before");
            }
        }
    }
}
