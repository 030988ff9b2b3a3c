//! Holding queues: where messages wait that are not due yet. Each belongs to an exchange that delays or to a queue whose
//! messages were asked to wait, is stored like any other queue, and stands in no vhost's topology.

use std::sync::Arc;

use crate::broker::{
    definition::{Definition, Name, QueueDefinition},
    delay::{self, HOLDING_PREFIX},
    ids::QueueId,
    queue::{Recovered as RecoveredRow, settings::Holds},
    topology::Topology,
};
use crate::protocol::{
    field::{FieldTable, FieldValue},
    properties::RawProperties,
};
use crate::server::{
    clock,
    publisher::SharedRoute,
    queue_cell::{QueueCell, QueueHandle},
    registry::Vhost,
};
use crate::storage::{DefinitionKey, Op};

const EXCHANGE: &str = "x-holds-for-exchange";
const QUEUE: &str = "x-holds-for-queue";

/// For whom messages wait.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum HeldFor {
    Exchange(Name),
    /// By number: a queue of the same name declared later is another one.
    Queue(QueueId),
}

/// Who gets messages that are due.
pub(super) enum Holder {
    Exchange(Name),
    Queue(QueueHandle),
}

impl HeldFor {
    fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::new();
        match self {
            Self::Exchange(name) => {
                let name = bytes::Bytes::copy_from_slice(name.as_bytes());
                arguments.insert(EXCHANGE, FieldValue::LongString(name));
            }
            Self::Queue(id) => arguments.insert(QUEUE, FieldValue::Timestamp(id.0)),
        }
        arguments
    }

    fn of(arguments: &FieldTable) -> Option<Self> {
        match (arguments.get(EXCHANGE), arguments.get(QUEUE)) {
            (Some(FieldValue::LongString(name)), _) => {
                Some(Self::Exchange(String::from_utf8_lossy(name).as_ref().into()))
            }
            (_, Some(FieldValue::Timestamp(id))) => Some(Self::Queue(QueueId(*id))),
            _ => None,
        }
    }
}

/// What a queue holds for, when it is a holding queue.
pub(super) fn holds(definition: &QueueDefinition) -> Option<Holds> {
    if !definition.name.starts_with(HOLDING_PREFIX) {
        return None;
    }
    match HeldFor::of(&definition.arguments)? {
        HeldFor::Exchange(_) => Some(Holds::ForExchange),
        HeldFor::Queue(_) => Some(Holds::ForQueue),
    }
}

impl Vhost {
    /// Where a message waits for exchanges that hold it back.
    pub(super) fn exchange_holdings(&self, exchanges: &[Name]) -> Vec<QueueHandle> {
        let durable = |name: &Name| {
            let exchange = |topology: &Topology<QueueHandle>| {
                topology
                    .exchange(name)
                    .map(|exchange| exchange.definition().durable)
            };
            Some((Name::clone(name), self.read(exchange)?))
        };
        exchanges
            .iter()
            .filter_map(durable)
            .map(|(name, durable)| self.holding(HeldFor::Exchange(name), durable))
            .collect()
    }

    /// Where a message waits that may ask for it: `route` when it does not. `delaying` are the exchanges on its way that
    /// hold it back. True when it counts as unroutable, as one does that its own exchange holds back (amqp-behaviour 3.3).
    pub(super) fn hold(
        &self,
        exchange: &[u8],
        properties: RawProperties<'_>,
        route: SharedRoute,
        delaying: &[Name],
    ) -> (SharedRoute, bool) {
        if delay::exchange_delay_ms(properties).is_some() {
            let delays = self.read(|topology| {
                let name = std::str::from_utf8(exchange).ok()?;
                let definition = topology.exchange(name)?.definition();
                (&*definition.kind == delay::EXCHANGE_TYPE)
                    .then(|| (definition.name.clone(), definition.durable))
            });
            if let Some((name, durable)) = delays {
                let holding = self.holding(HeldFor::Exchange(name), durable);
                return (Arc::from([holding]), true);
            }
        }
        let later = delay::queue_due(properties, clock::now()).is_some();
        if !later && delaying.is_empty() {
            return (route, false);
        }
        let waiting =
            |queue: &QueueHandle| self.holding(HeldFor::Queue(queue.id()), queue.definition.durable);
        let mut holdings: Vec<QueueHandle> = if later {
            route.iter().map(waiting).collect()
        } else {
            route.to_vec()
        };
        // Exchanges further on that hold it back let it go on from there.
        holdings.extend(self.exchange_holdings(delaying));
        // The order of locking.
        holdings.sort_unstable();
        (holdings.into(), false)
    }

    /// The holding queue of an exchange or a queue, made when it has none.
    pub(super) fn holding(&self, held_for: HeldFor, durable: bool) -> QueueHandle {
        let mut holdings = self.holdings.lock();
        if let Some(holding) = holdings.get(&held_for) {
            return holding.clone();
        }
        let id = self.store().next_queue_id();
        let definition = QueueDefinition {
            vhost: Name::clone(&self.name),
            name: format!("{HOLDING_PREFIX}{}", id.0).into(),
            id,
            durable,
            auto_delete: false,
            arguments: held_for.arguments(),
        };
        if durable {
            self.store().log(&mut vec![Op::Define {
                definition: Definition::Queue(definition.clone()),
                done: None,
            }]);
        }
        let holding = QueueCell::declared(definition, None, self.surroundings());
        self.queues().insert(&holding);
        holdings.insert(held_for, holding.clone());
        holding
    }

    /// Who gets what leaves this holding queue; `None` when it is gone.
    pub(super) fn holder(&self, holding: &QueueHandle) -> Option<Holder> {
        match HeldFor::of(&holding.definition.arguments)? {
            HeldFor::Exchange(name) => Some(Holder::Exchange(name)),
            HeldFor::Queue(id) => self.queues().get(id).map(Holder::Queue),
        }
    }

    /// Puts back a holding queue that the store kept. False when the queue is an ordinary one.
    pub(super) fn restore_holding(&self, definition: &QueueDefinition, row: &RecoveredRow) -> bool {
        if !definition.name.starts_with(HOLDING_PREFIX) {
            return false;
        }
        if let Some(held_for) = HeldFor::of(&definition.arguments) {
            let holding = QueueCell::recovered(definition.clone(), self.surroundings(), row);
            self.queues().insert(&holding);
            self.holdings.lock().insert(held_for, holding);
        }
        true
    }

    /// An exchange or queue is gone, and with it what waited for it. Gives what the store must forget, in the same
    /// operation as the exchange or queue itself: a crash must not leave messages that wait for nothing.
    #[must_use]
    pub(super) fn drop_holding(&self, held_for: &HeldFor) -> Option<DefinitionKey> {
        let holding = self.holdings.lock().remove(held_for)?;
        self.forget_holding(&holding)
    }

    /// The vhost is gone, and all that waits in it.
    pub(super) fn drop_all_holdings(&self) -> Vec<DefinitionKey> {
        let holdings = std::mem::take(&mut *self.holdings.lock());
        holdings
            .values()
            .filter_map(|holding| self.forget_holding(holding))
            .collect()
    }

    fn forget_holding(&self, holding: &QueueHandle) -> Option<DefinitionKey> {
        holding.lock().state.delete();
        self.queues().remove(holding.id());
        holding.definition.durable.then(|| DefinitionKey::Queue {
            vhost: Name::clone(&self.name),
            name: Name::clone(holding.name()),
            id: holding.id(),
        })
    }

    /// Forgets holding queues that an older version left behind when it crashed in the middle of a deletion.
    pub(super) fn drop_orphaned_holdings(&self) {
        let orphans: Vec<HeldFor> = {
            let holdings = self.holdings.lock();
            let is_orphan = |held_for: &&HeldFor| match held_for {
                HeldFor::Exchange(name) => self.read(|topology| topology.exchange(name).is_none()),
                HeldFor::Queue(id) => self.queues().get(*id).is_none(),
            };
            holdings.keys().filter(is_orphan).cloned().collect()
        };
        let undefine = |key| Op::Undefine { key, done: None };
        let gone = orphans.iter().filter_map(|held_for| self.drop_holding(held_for));
        self.store().log(&mut gone.map(undefine).collect());
    }
}
