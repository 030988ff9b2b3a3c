//! Tasks and sockets: the running broker. Rules live in `broker`, bytes in `protocol`, the disk in `storage`.

mod ack_timers;
mod admin;
mod admission;
mod alarms;
mod announcer;
mod binding;
mod browse;
mod budget;
mod channel;
mod clients;
mod clock;
mod close;
mod confirms;
mod connection;
mod consumer_port;
mod declare;
mod doors;
mod events;
mod farewell;
mod firehose;
mod handle;
mod handshake;
mod holding;
mod inspect;
mod intake;
mod listener;
mod live_limits;
mod log_exchange;
mod login;
mod login_budget;
mod memory;
mod operate;
mod options;
mod outbox;
mod paging;
mod publisher;
mod queue_cell;
mod queue_look;
mod queues;
mod registry;
mod relay;
mod repeated_head;
mod replies;
mod rights;
mod sampler;
mod scheduled;
mod spans;
mod stats;
mod take_in;
mod timers;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use ahash::AHashMap;
use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch, task::JoinHandle};

pub use self::{
    admin::{AccessOptions, AdminError, Change, Missing, NewPassword, UserSpec, VhostSpec},
    alarms::{AlarmOptions, AlarmStatus, Alarms, Raised, Watermark},
    browse::{FIRST, Held, Outcome, Selected, Sight},
    events::StoreFailed,
    handle::Handle,
    inspect::{ChannelView, ConnectionView, ConsumerView},
    listener::listen,
    log_exchange::LogExchange,
    login::LoginRefusal,
    operate::{Fetch, Fetched, OperateError, QueueSpec},
    options::{Limits, Options, Permits},
    queue_cell::Lengths,
    queue_look::{QueueLook, QueueNow},
    sampler::{History, Subject, now_ms},
    scheduled::{Scheduled, ScheduledPage, Waiting},
    spans::{Attribute, SPAN_NAMES, Span, SpanCounts, SpanOptions, Spans, in_hex},
    stats::{Churn, Count, Protocol, SIZE_BOUNDS, Tally},
    take_in::TakenIn,
};

use self::{
    admin::Parameters, admission::Admissions, clients::Connections, doors::Doors, events::Events,
    live_limits::LiveLimits, login_budget::LoginBudget, queues::Queues, registry::Vhost, relay::Relay,
    sampler::Sampler, stats::Attempts, timers::Timers,
};
use crate::auth::{Access, Logins};
use crate::broker::{
    definition::{Definition, VhostDefinition},
    error::BrokerError,
    user::HashingAlgorithm,
};
use crate::storage::{Recovered, Store, StoreError, StoreEvents};

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("a stored definition cannot be used: {0}")]
    Definition(BrokerError),
}

/// What a start found, for the log.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub queues: usize,
    pub messages: u64,
    pub took: Duration,
    /// The data directory was new.
    pub fresh: bool,
}

impl Found {
    fn of(recovered: &Recovered, took: Duration) -> Self {
        Self {
            queues: recovered.queues.len(),
            messages: recovered.queues.iter().map(|queue| queue.messages).sum(),
            took,
            fresh: recovered.fresh,
        }
    }
}

/// Numbers an operator asks for first.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub connections: usize,
    pub queues: usize,
    pub messages_ready: u64,
    pub messages_unacked: u64,
}

/// What every connection shares.
pub(crate) struct Broker {
    store: Store,
    vhosts: RwLock<AHashMap<String, Arc<Vhost>>>,
    queues: Arc<Queues>,
    connections: Connections,
    admissions: Arc<Admissions>,
    access: Arc<Access>,
    logins: Logins,
    parameters: RwLock<Parameters>,
    /// Held by every change of users, vhosts, permissions, policies and parameters while it is checked and made.
    administration: Mutex<()>,
    password_hashing: HashingAlgorithm,
    default_queue_type: String,
    permits: Permits,
    anonymous: Option<(String, Vec<u8>)>,
    challenge: bool,
    login_budget: LoginBudget,
    limits: LiveLimits,
    alarms: Arc<Alarms>,
    events: Arc<Events>,
    sampler: Sampler,
    /// Logins over AMQP, and over HTTP.
    attempts: [Attempts; 2],
    /// Milliseconds since 1970.
    started_at: u64,
    relay: Arc<Relay>,
    /// Records what happens to messages, if that is switched on.
    spans: Option<Arc<Spans>>,
    timers: Arc<Timers>,
    doors: Doors,
    birth: admin::Birth,
    /// Becomes the reason when the broker stops.
    shutdown: watch::Sender<Option<String>>,
}

impl Broker {
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    pub(crate) fn logins(&self) -> &Logins {
        &self.logins
    }

    pub(crate) fn password_hashing(&self) -> HashingAlgorithm {
        self.password_hashing
    }

    pub(crate) fn default_queue_type(&self) -> &str {
        &self.default_queue_type
    }

    pub(crate) fn permits(&self) -> Permits {
        self.permits
    }

    pub(in crate::server) fn admissions(&self) -> &Arc<Admissions> {
        &self.admissions
    }

    /// A vhost that holds nothing yet.
    pub(in crate::server) fn new_vhost(&self, definition: VhostDefinition) -> Arc<Vhost> {
        Vhost::new(
            definition,
            self.store.clone(),
            Arc::clone(&self.queues),
            Arc::clone(&self.relay),
            Arc::clone(&self.timers),
        )
    }

    pub(in crate::server) fn parameters(&self) -> &RwLock<Parameters> {
        &self.parameters
    }

    pub(in crate::server) fn anonymous(&self) -> Option<&(String, Vec<u8>)> {
        self.anonymous.as_ref()
    }

    /// Whether RABBIT-CR-DEMO is offered.
    pub(in crate::server) fn challenges(&self) -> bool {
        self.challenge
    }

    pub(in crate::server) fn login_budget(&self) -> &LoginBudget {
        &self.login_budget
    }

    pub(in crate::server) fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    pub(in crate::server) fn vhost(&self, name: &str) -> Option<Arc<Vhost>> {
        self.vhosts.read().get(name).cloned()
    }

    pub(in crate::server) fn add_vhost(&self, vhost: Arc<Vhost>) {
        self.vhosts.write().insert(vhost.name.to_string(), vhost);
    }

    pub(in crate::server) fn remove_vhost(&self, name: &str) {
        self.vhosts.write().remove(name);
    }

    pub(in crate::server) fn attempts(&self, protocol: Protocol) -> &Attempts {
        let [amqp, http] = &self.attempts;
        match protocol {
            Protocol::Amqp => amqp,
            Protocol::Http => http,
        }
    }

    /// All vhosts, by name.
    pub(in crate::server) fn vhosts(&self) -> Vec<Arc<Vhost>> {
        let mut vhosts: Vec<Arc<Vhost>> = self.vhosts.read().values().cloned().collect();
        vhosts.sort_by(|left, right| left.name.cmp(&right.name));
        vhosts
    }

    pub(crate) fn shutdown_signal(&self) -> watch::Receiver<Option<String>> {
        self.shutdown.subscribe()
    }

    pub(crate) fn cluster_name(&self) -> String {
        if let Some(name) = self.parameters.read().global("cluster_name") {
            return name.as_str().unwrap_or_default().to_owned();
        }
        node_name()
    }

    /// Holds a publisher while the store, or the relay of dead letters, lags behind.
    pub(crate) async fn wait_for_store(&self) {
        self.events.wait_for_store(&self.store).await;
        self.relay.wait_for_room().await;
    }
}

/// `leveret@HOST`: stays as it is, whatever the cluster is called and whoever renames the host.
fn node_name() -> String {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        format!("leveret@{}", if host.is_empty() { "localhost" } else { host })
    });
    NAME.clone()
}

/// A running broker.
pub struct Server {
    broker: Arc<Broker>,
    found: Found,
    /// Samples, dead letters, timers, alarms, announcements.
    tasks: [JoinHandle<()>; 6],
    store_failed: watch::Receiver<Option<StoreFailed>>,
}

/// Starts what runs beside the connections for as long as the broker does.
fn background(
    broker: &Arc<Broker>,
    relay: Arc<Relay>,
    timers: Arc<Timers>,
    event_vhost: String,
) -> [JoinHandle<()>; 6] {
    let announcer = Arc::clone(&broker.queues.announcer);
    let ack_timers = Arc::clone(&broker.admissions.ack_timers);
    [
        tokio::spawn(sampler::sample(Arc::clone(broker))),
        tokio::spawn(relay.run()),
        tokio::spawn(timers.run(Arc::clone(&broker.queues))),
        tokio::spawn(Arc::clone(&broker.alarms).watch()),
        tokio::spawn(ack_timers.run(Arc::downgrade(broker))),
        tokio::spawn(announcer.run(Arc::clone(broker), event_vhost)),
    ]
}

/// The exchanges on which the broker itself publishes, where the settings ask for them.
fn enable_exchanges(broker: &Arc<Broker>, vhost: &str, events: bool, log: Option<&LogExchange>) {
    if events {
        broker.enable_events(vhost);
    }
    if let Some(log) = log {
        broker.enable_log_exchange(vhost, log);
    }
}

impl Server {
    /// Opens the store, recovers what it held and starts to listen.
    ///
    /// # Errors
    /// [`StartError`], saying which file, directory or address is the matter.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let began = Instant::now();
        let data_dir = options.store.data_dir.clone();
        let (store, mut recovered) = Store::open(options.store)?;
        let first = admin::first_boot(&options.access, &options.default_vhost, &recovered.definitions);
        recovered.definitions.extend(first.iter().cloned());
        let queues = Queues::new();
        let spans = options.spans.map(Spans::new);
        let relay = Relay::new(store.clone(), spans.clone());
        let timers = Arc::new(Timers::default());
        let vhosts = restore_vhosts(&store, &recovered, &queues, &relay, &timers)?;
        let parameters = Parameters::restored(&recovered.definitions);
        let alarms = Alarms::new(options.alarms, &data_dir, store.clone(), Arc::clone(&queues));
        let (events, store_failed) = Events::new(Arc::clone(&queues), Arc::clone(&alarms));
        store.start(Arc::clone(&events) as Arc<dyn StoreEvents>)?;
        queues.wake_timed();
        store.log(&mut first.into_iter().map(admin::define).collect());
        let found = Found::of(&recovered, began.elapsed());
        let (shutdown, _) = watch::channel(None);
        let AccessOptions {
            loopback_users,
            password_hashing,
            ..
        } = options.access.clone();
        let broker = Arc::new(Broker {
            store,
            vhosts: RwLock::new(vhosts),
            queues,
            connections: Connections::default(),
            admissions: Arc::default(),
            access: Arc::new(Access::restored(&recovered.definitions)),
            logins: Logins::new(loopback_users, password_hashing),
            parameters: RwLock::new(parameters),
            administration: Mutex::new(()),
            password_hashing,
            default_queue_type: options.default_queue_type,
            permits: options.permits,
            anonymous: options.anonymous,
            challenge: options.challenge,
            login_budget: LoginBudget::new(options.limits.login_failures_per_minute),
            limits: LiveLimits::new(options.limits),
            alarms,
            timers: Arc::clone(&timers),
            events,
            sampler: Sampler::default(),
            attempts: <[Attempts; 2]>::default(),
            started_at: now_ms(),
            relay: Arc::clone(&relay),
            spans,
            doors: Doors::new(options.amqp_listen),
            birth: admin::Birth::new(options.access, &options.default_vhost),
            shutdown,
        });
        let log = options.log_exchange.as_ref();
        enable_exchanges(&broker, &options.default_vhost, options.event_exchange, log);
        if let Err((address, source)) = broker.doors.open(&broker) {
            broker.store.close();
            return Err(StartError::Listen { address, source });
        }
        let tasks = background(&broker, relay, timers, options.default_vhost);
        Ok(Self {
            broker,
            found,
            tasks,
            store_failed,
        })
    }

    /// Where AMQP clients connect; with port 0 asked for, the one that was chosen.
    pub fn amqp_address(&self) -> Option<SocketAddr> {
        self.broker.doors.address()
    }

    /// The door for management and tests.
    pub fn handle(&self) -> Handle {
        Handle {
            broker: Arc::clone(&self.broker),
            by: announcer::INTERNAL_USER.into(),
        }
    }

    pub fn found(&self) -> Found {
        self.found
    }

    pub fn counts(&self) -> Counts {
        let (messages_ready, messages_unacked) = self.broker.queues.message_counts();
        Counts {
            connections: self.broker.connections.len(),
            queues: self.broker.queues.len(),
            messages_ready,
            messages_unacked,
        }
    }

    /// Memory and disk alarms: what they measure, and their limits to be changed.
    pub fn alarms(&self) -> Arc<Alarms> {
        Arc::clone(&self.broker.alarms)
    }

    /// Resolves, with the reason, when the store failed and the broker must stop.
    pub async fn store_failed(&self) -> StoreFailed {
        let mut failed = self.store_failed.clone();
        let reason = failed
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| StoreFailed {
            reason: "the store's thread ended".to_owned(),
            full: false,
        })
    }

    /// Stops accepting, closes clients with 320, commits what waits and closes the store. Gives what went wrong with that.
    pub async fn stop(self, reason: &str) -> Option<StoreFailed> {
        /// Clients that do not answer are cut off after this.
        const PATIENCE: Duration = Duration::from_secs(5);
        self.broker.doors.shut().await;
        self.broker.shutdown.send_replace(Some(reason.to_owned()));
        let gone = async {
            while self.broker.connections.len() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, gone).await.is_err() {
            tracing::warn!(
                connections = self.broker.connections.len(),
                "clients did not answer the close in time and are cut off"
            );
        }
        self.tasks.iter().for_each(JoinHandle::abort);
        let (store, relay) = (self.broker.store.clone(), Arc::clone(&self.broker.relay));
        let close = move || {
            relay.drain();
            store.close()
        };
        if let Err(error) = tokio::task::spawn_blocking(close).await {
            tracing::error!(%error, "the store did not close; the next start recovers what was confirmed");
        }
        self.store_failed.borrow().clone()
    }
}

/// The vhosts the store kept, with what they held.
fn restore_vhosts(
    store: &Store,
    recovered: &Recovered,
    queues: &Arc<Queues>,
    relay: &Arc<Relay>,
    timers: &Arc<Timers>,
) -> Result<AHashMap<String, Arc<Vhost>>, StartError> {
    clock::compare_with(recovered.last_written);
    let mut vhosts: AHashMap<String, Arc<Vhost>> = AHashMap::new();
    for definition in &recovered.definitions {
        let Definition::Vhost(definition) = definition else {
            continue;
        };
        if vhosts.contains_key(&*definition.name) {
            continue;
        }
        let vhost = Vhost::new(
            VhostDefinition::clone(definition),
            store.clone(),
            Arc::clone(queues),
            Arc::clone(relay),
            Arc::clone(timers),
        );
        vhost.restore(recovered).map_err(StartError::Definition)?;
        vhost.drop_orphaned_holdings();
        vhosts.insert(definition.name.to_string(), vhost);
    }
    Ok(vhosts)
}
