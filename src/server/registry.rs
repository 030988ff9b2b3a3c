//! What exists: vhosts with their topology, queues by number, connections. Definitions are logged to the store while
//! the topology's lock is held, so that the log has them in the order in which they became true.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use ahash::AHashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use crate::broker::{
    definition::{BindingDefinition, Definition, ExchangeDefinition, Name, QueueDefinition, VhostDefinition},
    error::{BrokerError, Resource},
    ids::QueueId,
    limits::{Limit, is_reached},
    policy::{EffectivePolicy, Policies, PolicyKind, QueueType, Subject},
    queue::Recovered as RecoveredRow,
    topology::{Removals, Topology},
};
use crate::protocol::field::FieldTable;
use crate::server::{
    binding::{check_bind, check_unbind, is_durable},
    clock,
    holding::HeldFor,
    publisher::{Batch, Publish},
    queue_cell::{ConnectionId, QueueCell, QueueHandle, Surroundings},
    queues::Queues,
    relay::Relay,
    replies::Replies,
    stats::{Counters, ExchangeTraffic, Sizes, add_one},
    timers::Timers,
};
use crate::storage::{DefinitionKey, Done, Op, Recovered, Store, StoreFailure};

/// Resolves when what was logged is durable.
pub(super) type Durable = oneshot::Receiver<Result<(), StoreFailure>>;

/// One vhost in the running broker.
pub(super) struct Vhost {
    pub(super) name: Name,
    definition: RwLock<VhostDefinition>,
    topology: RwLock<Topology<QueueHandle>>,
    /// Set under the topology's lock: what is declared afterwards would belong to nothing.
    deleted: AtomicBool,
    /// Locked within the topology's lock, or alone.
    policies: RwLock<Policies>,
    /// Counts changes, so that remembered routes know when they are stale.
    generation: AtomicU64,
    store: Store,
    queues: Arc<Queues>,
    /// Consumers of direct replies.
    pub(super) replies: Replies,
    /// A copy of every publish and delivery goes to the firehose.
    pub(super) tracing: Arc<AtomicBool>,
    /// Of all its queues, channels and exchanges, those that are gone included.
    pub(super) counters: Arc<Counters>,
    pub(super) exchange_traffic: ExchangeTraffic,
    /// Messages put into queues, once per queue.
    pub(super) routed: AtomicU64,
    pub(super) sizes: Sizes,
    relay: Arc<Relay>,
    timers: Arc<Timers>,
    /// Queues of messages that are not due yet.
    pub(super) holdings: Mutex<AHashMap<HeldFor, QueueHandle>>,
    /// Itself, for its queues.
    this: Weak<Self>,
}

/// Conditions of queue.delete.
#[derive(Clone, Copy, Default)]
pub(super) struct DeleteIf {
    pub(super) unused: bool,
    pub(super) empty: bool,
    /// An auto-delete queue: only if no consumer came back meanwhile.
    pub(super) without_consumers: bool,
    /// Only if nobody used the queue for as long as it may be unused.
    pub(super) expired: bool,
}

/// A call for the committer to make, and what to await for it.
pub(super) fn durable_done() -> (Done, Durable) {
    let (done, durable) = oneshot::channel();
    // The receiver is gone when the connection ended meanwhile: nobody waits then.
    (Box::new(move |result| done.send(result).unwrap_or(())), durable)
}

impl Vhost {
    pub(super) fn new(
        definition: VhostDefinition,
        store: Store,
        queues: Arc<Queues>,
        relay: Arc<Relay>,
        timers: Arc<Timers>,
    ) -> Arc<Self> {
        let name = Name::clone(&definition.name);
        let topology = RwLock::new(Topology::new(Name::clone(&name)));
        Arc::new_cyclic(|this| Self {
            name,
            definition: RwLock::new(definition),
            topology,
            deleted: AtomicBool::new(false),
            policies: RwLock::default(),
            generation: AtomicU64::new(0),
            store,
            queues,
            replies: Replies::default(),
            tracing: Arc::default(),
            counters: Arc::default(),
            exchange_traffic: ExchangeTraffic::default(),
            routed: AtomicU64::new(0),
            sizes: Sizes::default(),
            relay,
            timers,
            holdings: Mutex::default(),
            this: Weak::clone(this),
        })
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn queues(&self) -> &Queues {
        &self.queues
    }

    /// What a queue of this vhost reaches beyond itself.
    pub(super) fn surroundings(&self) -> Surroundings {
        Surroundings {
            store: self.store.clone(),
            relay: Arc::clone(&self.relay),
            timers: Arc::clone(&self.timers),
            vhost: Weak::clone(&self.this),
            totals: Arc::clone(&self.counters),
            spans: self.relay.spans.clone(),
        }
    }

    /// Puts back what the store kept.
    pub(super) fn restore(&self, recovered: &Recovered) -> Result<(), BrokerError> {
        let mut topology = self.topology.write();
        for definition in &recovered.definitions {
            if let Definition::Policy(policy) = definition
                && policy.vhost == self.name
                && let Err(problem) = self.policies.write().set(policy.clone())
            {
                tracing::warn!(policy = %policy.name, problem, "a stored policy was dropped; set it again with rabbitmqctl set_policy");
            }
        }
        let rows: AHashMap<QueueId, _> = recovered.queues.iter().map(|row| (row.id, row)).collect();
        let mine = recovered.definitions.iter();
        for definition in mine.clone() {
            match definition {
                Definition::Exchange(exchange) if exchange.vhost == self.name => {
                    topology.restore_exchange(exchange.clone())?;
                    let alternate = self.policy_alternate(&exchange.name);
                    topology.set_policy_alternate(&exchange.name, alternate);
                }
                Definition::Queue(queue) if queue.vhost == self.name => {
                    let row = rows
                        .get(&queue.id)
                        .map_or(RecoveredRow::EMPTY, |row| RecoveredRow {
                            lanes: row.lanes.clone(),
                            next_seq: row.next_seq,
                            messages: row.messages,
                            bytes: row.bytes,
                            delivered_through: row.delivered_through,
                            deadlines: row.deadlines,
                            returned: row.returned.clone(),
                            scheduled: row.scheduled,
                        });
                    if self.restore_holding(queue, &row) {
                        continue;
                    }
                    let cell = QueueCell::recovered(queue.clone(), self.surroundings(), &row);
                    cell.apply_policy(self.policy_of(&cell).as_ref());
                    self.queues.insert(&cell);
                    topology.add_queue(&queue.name, cell);
                }
                _ => {}
            }
        }
        for definition in mine {
            if let Definition::Binding(binding) = definition
                && binding.vhost == self.name
                && let Err(error) = topology.bind(binding.clone())
            {
                tracing::warn!(source = %binding.source, key = %binding.routing_key, %error, "a stored binding was dropped; declare it again");
            }
        }
        Ok(())
    }

    /// Its queues, in no order.
    pub(super) fn all_queues(&self) -> Vec<QueueHandle> {
        self.read(|topology| topology.queues().cloned().collect())
    }

    /// Forgets what was counted of exchanges that are gone.
    pub(super) fn forget_exchange_traffic(&self) {
        self.read(|topology| {
            self.exchange_traffic
                .retain(|name| name.is_empty() || topology.exchange(name).is_some());
        });
    }

    /// Changes with every change of exchanges, queues and bindings.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads the topology under its lock.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Topology<QueueHandle>) -> T) -> T {
        read(&self.topology.read())
    }

    /// What is said about the vhost.
    pub(super) fn definition(&self) -> VhostDefinition {
        self.definition.read().clone()
    }

    pub(super) fn redefine(&self, definition: VhostDefinition) {
        *self.definition.write() = definition;
    }

    fn check_alive(&self) -> Result<(), BrokerError> {
        if self.deleted.load(Ordering::Acquire) {
            return Err(BrokerError::VhostGone(Name::clone(&self.name)));
        }
        Ok(())
    }

    /// Whether one more queue may be declared here.
    ///
    /// # Errors
    /// 406 when the limit of the vhost or of the broker is reached; 530 when the vhost was deleted.
    pub(super) fn check_room(&self, queue: &str, in_broker: Limit) -> Result<(), BrokerError> {
        self.check_alive()?;
        let (count, limit) = (
            self.read(Topology::queue_count),
            self.definition.read().limits.max_queues,
        );
        if let Some(limit) = is_reached(limit, count) {
            return Err(BrokerError::VhostQueueLimit {
                queue: queue.to_owned(),
                vhost: Name::clone(&self.name),
                limit,
            });
        }
        if let Some(limit) = is_reached(in_broker, self.queues.len()) {
            let queue = queue.to_owned();
            return Err(BrokerError::ClusterQueueLimit { queue, limit });
        }
        Ok(())
    }

    /// Reads the policies under their lock.
    pub(super) fn policies<T>(&self, read: impl FnOnce(&Policies) -> T) -> T {
        read(&self.policies.read())
    }

    fn policy_of(&self, queue: &QueueCell) -> Option<Arc<EffectivePolicy>> {
        let kind = QueueType::of(&queue.definition.arguments);
        self.policies.read().effective(Subject::Queue(kind), queue.name())
    }

    fn policy_alternate(&self, exchange: &str) -> Option<Name> {
        let policy = self.policies.read().effective(Subject::Exchange, exchange)?;
        policy.alternate_exchange.clone()
    }

    /// Changes the policies and lays the result over everything there is. Changes do not overlap: administration has a
    /// lock of its own. A queue declared meanwhile takes what it finds, or is found here.
    pub(super) fn change_policies<T>(&self, change: impl FnOnce(&mut Policies) -> T) -> T {
        let result = change(&mut self.policies.write());
        let queues: Vec<QueueHandle> = {
            let mut topology = self.topology.write();
            topology.set_policy_alternates(|exchange| self.policy_alternate(exchange));
            topology.queues().cloned().collect()
        };
        self.changed();
        for queue in queues {
            queue.apply_policy(self.policy_of(&queue).as_ref());
        }
        result
    }

    /// Takes everything away, in memory and with `ops` in the store, all or nothing.
    pub(super) fn destroy(&self, mut ops: Vec<Op>) -> Durable {
        let mut topology = self.topology.write();
        self.deleted.store(true, Ordering::Release);
        let gone = std::mem::replace(&mut *topology, Topology::new(Name::clone(&self.name)));
        self.changed();
        let queues: Vec<QueueHandle> = gone.queues().cloned().collect();
        for queue in &queues {
            queue.lock().state.delete();
            queue.forget_spilled();
            self.queues.remove(queue.id());
        }
        let undefine = |key| Op::Undefine { key, done: None };
        for exchange in gone.exchanges() {
            ops.extend(
                exchange
                    .bindings()
                    .cloned()
                    .map(DefinitionKey::Binding)
                    .map(undefine),
            );
            let (vhost, name) = (Name::clone(&self.name), Name::clone(&exchange.definition().name));
            ops.push(undefine(DefinitionKey::Exchange { vhost, name }));
        }
        ops.extend(self.drop_all_holdings().into_iter().map(undefine));
        let durable = queues.iter().filter(|queue| queue.definition.durable);
        ops.extend(durable.map(|queue| {
            undefine(DefinitionKey::Queue {
                vhost: Name::clone(&self.name),
                name: Name::clone(queue.name()),
                id: queue.id(),
            })
        }));
        for kind in [PolicyKind::User, PolicyKind::Operator] {
            let policies = self.policies.read().list(kind);
            ops.extend(policies.into_iter().map(|policy| {
                undefine(DefinitionKey::Policy {
                    vhost: policy.vhost,
                    kind,
                    name: policy.name,
                })
            }));
        }
        let (done, durable) = durable_done();
        self.store.log(&mut vec![Op::Tx {
            ops,
            done: Some(done),
        }]);
        drop(topology);
        for queue in queues {
            queue.loaded.notify_waiters();
        }
        durable
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Finds a queue that this connection may use.
    ///
    /// # Errors
    /// 404, or 405 for another connection's exclusive queue.
    pub(super) fn queue(&self, name: &str, connection: ConnectionId) -> Result<QueueHandle, BrokerError> {
        let queue = self.read(|topology| topology.queue(name.as_bytes()).cloned());
        let queue = queue.ok_or_else(|| BrokerError::NotFound(Resource::queue(name, &self.name)))?;
        if queue.owner.is_some_and(|owner| owner != connection) {
            return Err(BrokerError::Locked(Resource::queue(name, &self.name)));
        }
        Ok(queue)
    }

    /// Declares an exchange; durable ones are waited for.
    pub(super) fn declare_exchange(
        &self,
        definition: ExchangeDefinition,
        by: &str,
    ) -> Result<Option<Durable>, BrokerError> {
        let mut topology = self.topology.write();
        self.check_alive()?;
        let stored = definition.clone();
        if !topology.declare_exchange(definition)? {
            return Ok(None);
        }
        topology.set_policy_alternate(&stored.name, self.policy_alternate(&stored.name));
        self.changed();
        self.queues
            .announcer
            .event("exchange.created", |headers| headers.exchange(&stored).by(by));
        Ok(stored.durable.then(|| self.define(Definition::Exchange(stored))))
    }

    /// Creates one of the broker's own internal topic exchanges unless it exists.
    pub(super) fn ensure_system_exchange(&self, name: &str) {
        let mut topology = self.topology.write();
        if topology.exchange(name).is_some() {
            return;
        }
        let definition = ExchangeDefinition {
            vhost: Name::clone(&self.name),
            name: name.into(),
            kind: "topic".into(),
            durable: true,
            auto_delete: false,
            internal: true,
            arguments: FieldTable::default(),
        };
        if topology.restore_exchange(definition.clone()).is_ok() {
            self.changed();
            // Nobody waits for it: it is created again at the next start if it is lost.
            drop(self.define(Definition::Exchange(definition)));
        }
    }

    pub(super) fn delete_exchange(
        &self,
        name: &str,
        if_unused: bool,
        by: &str,
    ) -> Result<Option<Durable>, BrokerError> {
        let mut topology = self.topology.write();
        let removals = topology.delete_exchange(name, if_unused)?;
        self.changed();
        Ok(self.undefine(removals, [], by))
    }

    /// Adds a queue unless one of that name exists; then that one is given back.
    pub(super) fn add_queue(
        &self,
        definition: QueueDefinition,
        owner: Option<ConnectionId>,
        by: &str,
    ) -> Result<(QueueHandle, Option<Durable>), QueueHandle> {
        let mut topology = self.topology.write();
        if let Some(existing) = topology.queue(definition.name.as_bytes()) {
            return Err(existing.clone());
        }
        self.queues.announcer.event("queue.created", |headers| {
            headers.queue(&definition, owner.is_some()).by(by)
        });
        let stored = definition.durable.then(|| Definition::Queue(definition.clone()));
        let name = Name::clone(&definition.name);
        let cell = QueueCell::declared(definition, owner, self.surroundings());
        cell.apply_policy(self.policy_of(&cell).as_ref());
        add_one(&self.queues.churn.queues_created);
        self.queues.insert(&cell);
        topology.add_queue(&name, cell.clone());
        self.changed();
        Ok((cell, stored.map(|definition| self.define(definition))))
    }

    /// Deletes a queue with its messages and bindings; gives the ready messages dropped. `None` when it is gone
    /// already or, for an auto-delete queue, used again.
    ///
    /// # Errors
    /// 406 when a condition does not hold.
    pub(super) fn delete_queue(
        &self,
        queue: &QueueHandle,
        only: DeleteIf,
        by: &str,
    ) -> Result<Option<(u64, Option<Durable>)>, BrokerError> {
        let mut topology = self.topology.write();
        if topology.queue(queue.name().as_bytes()) != Some(queue) {
            return Ok(None);
        }
        let messages = {
            let mut guard = queue.lock();
            let resource = || Resource::queue(queue.name(), &self.name);
            if only.empty && guard.state.ready_count() > 0 {
                return Err(BrokerError::NotEmpty(resource()));
            }
            if only.unused && guard.state.consumer_count() > 0 {
                return Err(BrokerError::InUse(resource()));
            }
            if only.without_consumers && guard.state.consumer_count() > 0 {
                return Ok(None);
            }
            if only.expired && !guard.state.is_unused(clock::now()) {
                return Ok(None);
            }
            guard.state.delete()
        };
        queue.forget_spilled();
        add_one(&self.queues.churn.queues_deleted);
        self.queues.announcer.event("queue.deleted", |headers| {
            headers
                .text("name", queue.name())
                .text("vhost", &self.name)
                .by(by)
        });
        self.queues.remove(queue.id());
        let holding = self.drop_holding(&HeldFor::Queue(queue.id()));
        let removals = topology
            .remove_queue(queue.name())
            .map(|(_, removals)| removals)
            .unwrap_or_default();
        self.changed();
        let key = queue.definition.durable.then(|| DefinitionKey::Queue {
            vhost: Name::clone(&self.name),
            name: Name::clone(queue.name()),
            id: queue.id(),
        });
        let durable = self.undefine(removals, key.into_iter().chain(holding), by);
        drop(topology);
        queue.loaded.notify_waiters();
        Ok(Some((messages, durable)))
    }

    /// Binds. A source that keeps a history has it published to the new destination before anything else can come.
    pub(super) fn bind(
        &self,
        binding: BindingDefinition,
        (connection, by): (ConnectionId, &str),
    ) -> Result<Option<Durable>, BrokerError> {
        let mut topology = self.topology.write();
        check_bind(&topology, &binding, connection)?;
        let stored = binding.clone();
        if !topology.bind(binding)? {
            return Ok(None);
        }
        self.changed();
        self.queues
            .announcer
            .event("binding.created", |headers| headers.binding(&stored).by(by));
        let durable = is_durable(&topology, &stored);
        let mut batch = None;
        for (route, message) in topology.replay(&stored) {
            if !route.is_empty() {
                let publish = Publish {
                    message,
                    confirm: None,
                };
                batch
                    .get_or_insert_with(|| Batch::new(self.store.clone()))
                    .publish(route.as_slice().into(), publish);
            }
        }
        if let Some(mut batch) = batch {
            batch.flush();
        }
        Ok(durable.then(|| self.define(Definition::Binding(stored))))
    }

    pub(super) fn unbind(
        &self,
        binding: &BindingDefinition,
        (connection, by): (ConnectionId, &str),
    ) -> Result<Option<Durable>, BrokerError> {
        let mut topology = self.topology.write();
        check_unbind(&topology, binding, connection)?;
        let removals = topology.unbind(binding)?;
        self.changed();
        Ok(self.undefine(removals, [], by))
    }

    fn define(&self, definition: Definition) -> Durable {
        let (done, durable) = durable_done();
        self.store.log(&mut vec![Op::Define {
            definition,
            done: Some(done),
        }]);
        durable
    }

    /// Removes definitions from the store, all or nothing, those that are not there included: it ignores them.
    fn undefine(
        &self,
        removals: Removals,
        queues: impl IntoIterator<Item = DefinitionKey>,
        by: &str,
    ) -> Option<Durable> {
        let mut holdings = Vec::new();
        let announcer = &self.queues.announcer;
        for binding in &removals.bindings {
            announcer.event("binding.deleted", |headers| headers.binding(binding).by(by));
        }
        for exchange in &removals.exchanges {
            announcer.event("exchange.deleted", |headers| {
                headers
                    .text("name", &exchange.name)
                    .text("vhost", &self.name)
                    .by(by)
            });
            holdings.extend(self.drop_holding(&HeldFor::Exchange(Name::clone(&exchange.name))));
        }
        let exchanges = removals.exchanges.into_iter().filter(|exchange| exchange.durable);
        let exchanges = exchanges.map(|exchange| DefinitionKey::Exchange {
            vhost: exchange.vhost,
            name: exchange.name,
        });
        let bindings = removals.bindings.into_iter().map(DefinitionKey::Binding);
        let ops: Vec<Op> = bindings
            .chain(exchanges)
            .chain(queues)
            .chain(holdings)
            .map(|key| Op::Undefine { key, done: None })
            .collect();
        if ops.is_empty() {
            return None;
        }
        let (done, durable) = durable_done();
        let done = Some(done);
        self.store.log(&mut vec![Op::Tx { ops, done }]);
        Some(durable)
    }
}
