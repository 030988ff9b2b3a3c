//! Publishes and acks of one socket read, gathered so that each queue is locked once for all of them
//! (house: "handle all that one socket read brought before waking anyone").

use std::sync::Arc;

use ahash::AHashMap;
use smallvec::SmallVec;

use crate::broker::{
    confirm::{ConfirmSink, ConfirmToken},
    definition::Name,
    error::BrokerError,
    exchange::Routable,
    message::Message,
    queue::{ConsumerId, Entry, Removed},
    topology::Route,
    unacked::UnackedDelivery,
};
use crate::protocol::properties::RawProperties;
use crate::server::{
    channel::{Settled, Settlement},
    clock,
    confirms::ChannelConfirms,
    queue_cell::{QueueGuard, QueueHandle},
    registry::{Durable, Vhost, durable_done},
};
use crate::storage::{Op, Store, Target};

/// Routes remembered per connection. A client that uses more keys than this pays the trie again.
const ROUTES_MAX: usize = 1024;

/// The queues of a remembered route.
pub(super) type SharedRoute = Arc<[QueueHandle]>;

/// Routes by exchange and key, valid for one generation of the topology.
#[derive(Default)]
pub(super) struct Routes {
    generation: u64,
    by_key: AHashMap<Box<[u8]>, SharedRoute>,
    /// Key of the route used last: most publishers repeat themselves.
    last_key: Vec<u8>,
    last: Option<SharedRoute>,
    /// The permissions by which a message with the last key passed all checks; `None` when it did not or has some of its
    /// own.
    vouched: Option<u64>,
    scratch: Vec<u8>,
    /// Exchanges on the way of the last message that want it for their history; whoever builds it takes them.
    pub(super) keepers: SmallVec<[Name; 1]>,
    /// Exchanges on the way of the last message that hold it back.
    pub(super) delaying: SmallVec<[Name; 1]>,
}

impl Routes {
    /// The route used last, if it is for this exchange and key and was vouched for. `generations` are those of the topology
    /// and of the permissions now.
    #[inline]
    pub(super) fn again(
        &self,
        exchange: &[u8],
        routing_key: &[u8],
        generations: (u64, u64),
    ) -> Option<&SharedRoute> {
        let (&len, names) = self.last_key.split_first()?;
        let (known, key) = names.split_at_checked(len.into())?;
        if (self.generation, self.vouched) != (generations.0, Some(generations.1))
            || known != exchange
            || key != routing_key
        {
            return None;
        }
        self.last.as_ref()
    }

    /// A message with these names passed every check by these permissions, and so will others without special properties.
    pub(super) fn vouch(&mut self, exchange: &[u8], routing_key: &[u8], permissions: u64) {
        self.vouched = Some(permissions);
        if self
            .again(exchange, routing_key, (self.generation, permissions))
            .is_none()
        {
            self.vouched = None;
        }
    }

    /// Where a message with a single key goes.
    ///
    /// # Errors
    /// As [`crate::broker::topology::Topology::route`].
    pub(super) fn route(
        &mut self,
        vhost: &Vhost,
        exchange: &[u8],
        routing_key: &[u8],
        properties: RawProperties<'_>,
    ) -> Result<SharedRoute, BrokerError> {
        let generation = vhost.generation();
        if generation != self.generation {
            self.by_key.clear();
            (self.last, self.vouched) = (None, None);
            self.generation = generation;
        }
        self.scratch.clear();
        self.scratch.push(u8::try_from(exchange.len()).unwrap_or(u8::MAX));
        self.scratch.extend_from_slice(exchange);
        self.scratch.extend_from_slice(routing_key);
        if let Some(last) = &self.last
            && self.last_key == self.scratch
        {
            return Ok(Arc::clone(last));
        }
        if let Some(known) = self.by_key.get(&self.scratch[..]) {
            let known = Arc::clone(known);
            self.remember_last(&known);
            return Ok(known);
        }
        let (route, by_key) = self.find(vhost, exchange, &[routing_key], properties)?;
        if by_key {
            if self.by_key.len() >= ROUTES_MAX {
                self.by_key.clear();
            }
            self.by_key
                .insert(self.scratch.as_slice().into(), Arc::clone(&route));
            self.remember_last(&route);
        }
        Ok(route)
    }

    /// Where a message with the keys of CC and BCC goes; nothing is remembered.
    ///
    /// # Errors
    /// As [`crate::broker::topology::Topology::route`].
    pub(super) fn route_all(
        &mut self,
        vhost: &Vhost,
        exchange: &[u8],
        keys: &[&[u8]],
        properties: RawProperties<'_>,
    ) -> Result<SharedRoute, BrokerError> {
        Ok(self.find(vhost, exchange, keys, properties)?.0)
    }

    fn find(
        &mut self,
        vhost: &Vhost,
        exchange: &[u8],
        keys: &[&[u8]],
        properties: RawProperties<'_>,
    ) -> Result<(SharedRoute, bool), BrokerError> {
        let mut found = Route::new();
        let message = Routable {
            keys,
            properties,
            now: clock::now(),
        };
        let routing = vhost.read(|topology| topology.route(exchange, &message, &mut found))?;
        (self.keepers, self.delaying) = (routing.keepers, routing.delaying);
        Ok((Arc::from(found.as_slice()), routing.by_key))
    }

    fn remember_last(&mut self, route: &SharedRoute) {
        self.last_key.clone_from(&self.scratch);
        (self.last, self.vouched) = (Some(Arc::clone(route)), None);
    }
}

/// A message on its way into queues.
pub(super) struct Publish {
    pub(super) message: Message,
    pub(super) confirm: Option<(Arc<ChannelConfirms>, u64)>,
}

/// What a commit came to.
pub(super) struct Committed {
    /// Resolves when all of it is durable that must be.
    pub(super) durable: Option<Durable>,
    /// A full queue refused a message.
    pub(super) refused: bool,
}

/// Deliveries settled for good, with the consumer that gets its credit back.
type Acked = Vec<(Option<ConsumerId>, Entry)>;

/// Publishes waiting for [`Batch::flush`], grouped by queue, and acks.
pub(super) struct Batch {
    store: Store,
    /// Messages for a single queue each. Their order matters only within a queue.
    single: Vec<(QueueHandle, Vec<Publish>)>,
    /// A run of messages with one route to several queues.
    fan_out: Option<(SharedRoute, Vec<Publish>)>,
    acks: Vec<(QueueHandle, Acked)>,
    /// Confirms due without the store.
    due: Vec<(Arc<ChannelConfirms>, Vec<u64>)>,
    /// Publishes that a full queue refused.
    refused: Vec<(Arc<ChannelConfirms>, Vec<u64>)>,
    ops: Vec<Op>,
    spare: Vec<Vec<Publish>>,
}

impl Batch {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            single: Vec::new(),
            fan_out: None,
            acks: Vec::new(),
            due: Vec::new(),
            refused: Vec::new(),
            ops: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Adds a message that goes to one or more queues.
    pub(super) fn publish(&mut self, route: SharedRoute, publish: Publish) {
        if publish.confirm.is_some() && !self.acks.is_empty() {
            // Its confirm tells the client that the acks sent before it are durable as well.
            self.flush();
        }
        if let [queue] = &*route {
            if self.fan_out.is_some() {
                self.flush_publishes();
            }
            if let Some((_, messages)) = self
                .single
                .iter_mut()
                .rev()
                .take(8)
                .find(|(known, _)| known == queue)
            {
                messages.push(publish);
                return;
            }
            // Beyond the eight latest queues a second group for a queue is no harm: groups are flushed in order.
            let mut messages = self.spare.pop().unwrap_or_default();
            messages.push(publish);
            self.single.push((queue.clone(), messages));
            return;
        }
        let same = self
            .fan_out
            .as_ref()
            .is_some_and(|(known, _)| Arc::ptr_eq(known, &route));
        if !same {
            self.flush_publishes();
        }
        self.fan_out
            .get_or_insert_with(|| (route, Vec::new()))
            .1
            .push(publish);
    }

    /// A publish that no queue takes is confirmed without any.
    pub(super) fn confirm_now(&mut self, confirms: &Arc<ChannelConfirms>, tag: u64) {
        note(&mut self.due, confirms, tag);
    }

    /// A delivery that was acked or rejected for good.
    pub(super) fn ack(&mut self, queue: QueueHandle, consumer: Option<ConsumerId>, entry: Entry) {
        match self
            .acks
            .iter_mut()
            .rev()
            .take(8)
            .find(|(known, _)| *known == queue)
        {
            Some((_, settled)) => settled.push((consumer, entry)),
            None => self.acks.push((queue, vec![(consumer, entry)])),
        }
    }

    /// Carries everything out: publishes before acks, so that a message which replaces an acked one is in the store's
    /// log before the ack.
    pub(super) fn flush(&mut self) {
        self.flush_publishes();
        for (queue, mut settled) in self.acks.drain(..) {
            let mut queue = queue.lock();
            queue.ack(&mut settled);
            queue.dispatch();
        }
        for (channel, tags) in self.due.drain(..) {
            channel.resolve(&tags, true);
        }
        for (channel, tags) in self.refused.drain(..) {
            channel.resolve(&tags, false);
        }
    }

    fn flush_publishes(&mut self) {
        let mut single = std::mem::take(&mut self.single);
        for (queue, mut messages) in single.drain(..) {
            let mut guard: SmallVec<[QueueGuard<'_>; 4]> = SmallVec::new();
            guard.push(queue.lock());
            self.enqueue(&mut guard, &mut messages);
            drop(guard);
            if self.spare.len() < 64 && messages.capacity() <= 4096 {
                self.spare.push(messages);
            }
        }
        self.single = single;
        if let Some((route, mut messages)) = self.fan_out.take() {
            // Ascending by id, as `Topology::route` gives them: the order of locking.
            let mut guards: SmallVec<[QueueGuard<'_>; 4]> = route.iter().map(|queue| queue.lock()).collect();
            self.enqueue(&mut guards, &mut messages);
        }
    }

    /// Carries out a transaction: all its queues are locked, all its operations are one in the store's log. Gives what
    /// to wait for when something of it must be durable.
    pub(super) fn commit(
        &mut self,
        publishes: Vec<(SharedRoute, Message)>,
        settled: Vec<Settled>,
    ) -> Committed {
        self.flush();
        let routed = publishes.iter().flat_map(|(route, _)| route.iter());
        let mut handles: Vec<QueueHandle> = routed
            .chain(settled.iter().map(|settled| &settled.delivery.queue))
            .cloned()
            .collect();
        handles.sort_unstable();
        handles.dedup();
        let mut guards: Vec<QueueGuard<'_>> = handles.iter().map(|queue| queue.lock()).collect();
        let mut ops = Vec::new();
        let mut refused = false;
        for (route, message) in publishes {
            let mut targets: SmallVec<[Target; 1]> = SmallVec::new();
            for queue in &*route {
                let Some(guard) = find(&mut guards, &handles, queue) else {
                    continue;
                };
                if guard.state.refuses_meanwhile(&message) {
                    guard.state.refused(&message);
                    refused = true;
                    continue;
                }
                targets.extend(guard.enqueue(message.clone()));
            }
            if !targets.is_empty() {
                ops.push(Op::Publish {
                    message,
                    targets,
                    confirm: None,
                });
            }
        }
        for settled in settled {
            if let Some(guard) = find(&mut guards, &handles, &settled.delivery.queue) {
                settle(guard, settled, &mut ops);
            }
        }
        let durable = (!ops.is_empty()).then(|| {
            let (done, durable) = durable_done();
            self.store.log(&mut vec![Op::Tx {
                ops,
                done: Some(done),
            }]);
            durable
        });
        guards.iter_mut().for_each(QueueGuard::dispatch);
        Committed { durable, refused }
    }

    /// Puts messages into locked queues, logs what must be stored, then lets deliveries go: a consumer's ack can never
    /// stand in the log before its message.
    fn enqueue(&mut self, queues: &mut SmallVec<[QueueGuard<'_>; 4]>, messages: &mut Vec<Publish>) {
        match queues.as_mut_slice() {
            [queue] if !queue.state.is_choosy() => self.enqueue_in_one(queue, messages),
            _ => self.enqueue_in_all(queues, messages),
        }
        if !self.ops.is_empty() {
            self.store.log(&mut self.ops);
        }
        for queue in queues {
            queue.dispatch();
        }
    }

    /// As [`Self::enqueue_in_all`], for the one queue that takes whatever comes.
    fn enqueue_in_one(&mut self, queue: &mut QueueGuard<'_>, messages: &mut Vec<Publish>) {
        for Publish { message, confirm } in messages.drain(..) {
            let stored = queue.state.stores(&message).then(|| message.clone());
            let target = queue.enqueue(message);
            self.settle(stored, target.into_iter().collect(), confirm);
        }
    }

    fn enqueue_in_all(&mut self, queues: &mut SmallVec<[QueueGuard<'_>; 4]>, messages: &mut Vec<Publish>) {
        for Publish { message, mut confirm } in messages.drain(..) {
            let full = self.full_queues(queues, &message);
            if !full.is_empty()
                && let Some((channel, tag)) = confirm.take()
            {
                note(&mut self.refused, &channel, tag);
            }
            let mut targets: SmallVec<[Target; 1]> = SmallVec::new();
            let last = queues.len().saturating_sub(1);
            let mut stored = None;
            let mut message = Some(message);
            for (at, queue) in queues.iter_mut().enumerate() {
                if full.contains(&at) {
                    continue;
                }
                let stores = message
                    .as_ref()
                    .is_some_and(|message| queue.state.stores(message));
                if stores && stored.is_none() {
                    stored.clone_from(&message);
                }
                let mine = if at == last {
                    message.take()
                } else {
                    message.clone()
                };
                targets.extend(mine.and_then(|message| queue.enqueue(message)));
            }
            self.settle(stored, targets, confirm);
        }
    }

    /// A message was put where it goes: the store has it confirmed, or nothing is waited for.
    #[inline]
    fn settle(
        &mut self,
        stored: Option<Message>,
        targets: SmallVec<[Target; 1]>,
        confirm: Option<(Arc<ChannelConfirms>, u64)>,
    ) {
        match (stored, confirm) {
            (Some(message), confirm) if !targets.is_empty() => {
                let confirm = confirm.map(|(channel, tag)| {
                    let sink: Arc<dyn ConfirmSink> = channel;
                    ConfirmToken { sink, tag }
                });
                self.ops.push(Op::Publish {
                    message,
                    targets,
                    confirm,
                });
            }
            (_, Some((channel, tag))) => self.confirm_now(&channel, tag),
            (_, None) => {}
        }
    }
}

impl Batch {
    /// The places of queues that refuse the message. A queue may only look full because what this batch brought was not
    /// offered to its consumers yet: it is, before it may refuse.
    fn full_queues(&mut self, queues: &mut [QueueGuard<'_>], message: &Message) -> SmallVec<[usize; 2]> {
        let mut full = SmallVec::new();
        for (at, queue) in queues.iter_mut().enumerate() {
            if !queue.state.refuses(message) {
                continue;
            }
            if queue.state.consumer_count() > 0 {
                self.store.log(&mut self.ops);
                queue.dispatch();
            }
            if queue.state.refuses(message) {
                queue.state.refused(message);
                full.push(at);
            }
        }
        full
    }
}

fn note(list: &mut Vec<(Arc<ChannelConfirms>, Vec<u64>)>, confirms: &Arc<ChannelConfirms>, tag: u64) {
    match list.last_mut() {
        Some((channel, tags)) if Arc::ptr_eq(channel, confirms) => tags.push(tag),
        _ => list.push((Arc::clone(confirms), vec![tag])),
    }
}

/// Settles one delivery of a transaction.
fn settle(guard: &mut QueueGuard<'_>, settled: Settled, ops: &mut Vec<Op>) {
    let UnackedDelivery {
        consumer, mut entry, ..
    } = settled.delivery;
    let mut removed = Removed::new();
    match settled.how {
        Settlement::Requeue(why) => ops.extend(guard.take_back(consumer, entry, why)),
        Settlement::Reject => guard.state.reject(consumer, entry, &mut removed),
        Settlement::RejectAs(message) => {
            entry.message = message;
            guard.state.reject(consumer, entry, &mut removed);
        }
        Settlement::Ack => {
            guard.state.forget(entry.seq);
            if guard.state.ack(consumer, entry.stored, entry.message.body_len()) {
                removed.push(entry.place());
            }
        }
    }
    ops.extend(guard.acks(removed));
}

/// The guard of a queue that is among the locked ones.
fn find<'guards, 'queue>(
    guards: &'guards mut [QueueGuard<'queue>],
    handles: &[QueueHandle],
    queue: &QueueHandle,
) -> Option<&'guards mut QueueGuard<'queue>> {
    handles
        .binary_search(queue)
        .ok()
        .and_then(|at| guards.get_mut(at))
}
