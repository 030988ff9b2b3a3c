//! The specification in memory: what exists, what is where, and what an operation must bring about.

use std::collections::{BTreeMap, BTreeSet};

use super::operation::{CHANNELS, EXCHANGES, KEYS, QUEUES, Settle, Target};

/// A queue's number; the same name declared again is another queue.
pub(crate) type Instance = u64;

#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The body: no two publishes have the same.
    pub(crate) id: u64,
    pub(crate) exchange: &'static str,
    pub(crate) key: &'static str,
    persistent: bool,
    /// `None` after a restart: the broker may have forgotten, and says true to be safe.
    pub(crate) redelivered: Option<bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    /// A tag used again is another consumer.
    id: u64,
    pub(crate) channel: usize,
    pub(crate) tag: &'static str,
    pub(crate) no_ack: bool,
    exclusive: bool,
    prefetch: usize,
    priority: i32,
    unacked: usize,
}

impl Consumer {
    fn can_take(&self) -> bool {
        self.no_ack || self.prefetch == 0 || self.unacked < self.prefetch
    }
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) instance: Instance,
    flags: &'static str,
    /// By place.
    pub(crate) ready: BTreeMap<u64, Message>,
    next_place: u64,
    pub(crate) consumers: Vec<Consumer>,
}

/// A delivery that its channel has to settle.
#[derive(Clone, Debug)]
struct Unacked {
    instance: Instance,
    place: u64,
    message: Message,
    /// `None` for basic.get.
    consumer: Option<u64>,
}

#[derive(Default, Debug)]
pub(crate) struct Channel {
    unacked: BTreeMap<u64, Unacked>,
    pub(crate) last_tag: u64,
    pub(crate) published: u64,
}

impl Channel {
    pub(crate) fn outstanding(&self) -> Vec<u64> {
        self.unacked.keys().copied().collect()
    }
}

/// A refusal: the channel is closed with this code.
pub(crate) type Refused = u16;

#[derive(Default, Debug)]
pub(crate) struct Spec {
    /// By place in [`QUEUES`].
    pub(crate) queues: BTreeMap<usize, Queue>,
    exchanges: BTreeSet<usize>,
    /// Exchange, queue, key.
    bindings: BTreeSet<(usize, usize, usize)>,
    pub(crate) channels: [Channel; CHANNELS],
    /// Server cancels that are due: channel and tag.
    pub(crate) cancels: Vec<(usize, &'static str)>,
    instances: u64,
    messages: u64,
    consumers: u64,
}

impl Spec {
    fn queue(&mut self, queue: usize) -> Result<&mut Queue, Refused> {
        self.queues.get_mut(&queue).ok_or(404)
    }

    fn by_instance(&mut self, instance: Instance) -> Option<&mut Queue> {
        self.queues.values_mut().find(|queue| queue.instance == instance)
    }

    /// Declares a queue; gives its ready messages and consumers.
    pub(crate) fn declare(&mut self, queue: usize, flags: &'static str) -> Result<(usize, usize), Refused> {
        if let Some(there) = self.queues.get(&queue) {
            let differs = |flag| there.flags.contains(flag) != flags.contains(flag);
            if differs("exclusive") {
                return Err(405);
            }
            if differs("durable") || differs("auto-delete") {
                return Err(406);
            }
            return Ok((there.ready.len(), there.consumers.len()));
        }
        self.instances += 1;
        let new = Queue {
            instance: self.instances,
            flags,
            ready: BTreeMap::new(),
            next_place: 0,
            consumers: Vec::new(),
        };
        self.queues.insert(queue, new);
        Ok((0, 0))
    }

    pub(crate) fn delete_queue(
        &mut self,
        queue: usize,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<usize, Refused> {
        let Some(there) = self.queues.get(&queue) else {
            return Ok(0);
        };
        if (if_empty && !there.ready.is_empty()) || (if_unused && !there.consumers.is_empty()) {
            return Err(406);
        }
        let there = self.queues.remove(&queue).unwrap();
        self.cancels.extend(
            there
                .consumers
                .iter()
                .map(|consumer| (consumer.channel, consumer.tag)),
        );
        let bound: Vec<_> = self
            .bindings
            .iter()
            .filter(|binding| binding.1 == queue)
            .copied()
            .collect();
        for binding in bound {
            self.remove_binding(binding);
        }
        Ok(there.ready.len())
    }

    fn remove_binding(&mut self, binding: (usize, usize, usize)) {
        let was_there = self.bindings.remove(&binding);
        let exchange = binding.0;
        if was_there && EXCHANGES[exchange].2.contains("auto-delete") && !self.is_source(exchange) {
            self.exchanges.remove(&exchange);
        }
    }

    fn is_source(&self, exchange: usize) -> bool {
        self.bindings.iter().any(|binding| binding.0 == exchange)
    }

    pub(crate) fn purge(&mut self, queue: usize) -> Result<usize, Refused> {
        Ok(std::mem::take(&mut self.queue(queue)?.ready).len())
    }

    pub(crate) fn declare_exchange(&mut self, exchange: usize) {
        self.exchanges.insert(exchange);
    }

    pub(crate) fn delete_exchange(&mut self, exchange: usize, if_unused: bool) -> Result<(), Refused> {
        if self.exchanges.contains(&exchange) {
            if if_unused && self.is_source(exchange) {
                return Err(406);
            }
            self.exchanges.remove(&exchange);
            self.bindings.retain(|binding| binding.0 != exchange);
        }
        Ok(())
    }

    pub(crate) fn bind(&mut self, queue: usize, exchange: usize, key: usize) -> Result<(), Refused> {
        if !self.exchanges.contains(&exchange) || !self.queues.contains_key(&queue) {
            return Err(404);
        }
        self.bindings.insert((exchange, queue, key));
        Ok(())
    }

    pub(crate) fn unbind(&mut self, queue: usize, exchange: usize, key: usize) {
        self.remove_binding((exchange, queue, key));
    }

    /// Publishes; gives the body, and whether a queue has it.
    pub(crate) fn publish(
        &mut self,
        channel: usize,
        to: Target,
        persistent: bool,
    ) -> Result<(u64, bool), Refused> {
        let (exchange, key, route) = match to {
            Target::Queue(queue) => {
                let route = self.queues.contains_key(&queue).then_some(queue);
                ("", QUEUES[queue].0, route.into_iter().collect())
            }
            Target::Exchange { exchange, .. } if !self.exchanges.contains(&exchange) => return Err(404),
            Target::Exchange { exchange, key } => {
                (EXCHANGES[exchange].0, KEYS[key], self.route(exchange, KEYS[key]))
            }
        };
        self.messages += 1;
        self.channels[channel].published += 1;
        let message = Message {
            id: self.messages,
            exchange,
            key,
            persistent,
            redelivered: Some(false),
        };
        for queue in &route {
            let queue = self.queues.get_mut(queue).unwrap();
            queue.ready.insert(queue.next_place, message.clone());
            queue.next_place += 1;
        }
        Ok((message.id, !route.is_empty()))
    }

    fn route(&self, exchange: usize, key: &str) -> BTreeSet<usize> {
        let bound = self.bindings.iter().filter(|binding| binding.0 == exchange);
        let matching = bound.filter(|binding| matches(EXCHANGES[exchange].1, KEYS[binding.2], key));
        matching.map(|binding| binding.1).collect()
    }

    pub(crate) fn consume(&mut self, queue: usize, mut consumer: Consumer) -> Result<(), Refused> {
        self.consumers += 1;
        consumer.id = self.consumers;
        let queue = self.queue(queue)?;
        let alone = queue.consumers.iter().any(|other| other.exclusive);
        if alone || (consumer.exclusive && !queue.consumers.is_empty()) {
            return Err(403);
        }
        queue.consumers.push(consumer);
        Ok(())
    }

    pub(crate) fn has_tag(&self, channel: usize, tag: &str) -> bool {
        let mut consumers = self.queues.values().flat_map(|queue| &queue.consumers);
        consumers.any(|consumer| consumer.channel == channel && consumer.tag == tag)
    }

    pub(crate) fn cancel(&mut self, channel: usize, tag: &str) {
        self.remove_consumers(|consumer| consumer.channel == channel && consumer.tag == tag);
    }

    /// Removes consumers, and auto-delete queues that lost their last one.
    fn remove_consumers(&mut self, which: impl Fn(&Consumer) -> bool) {
        let mut unused = Vec::new();
        for (name, queue) in &mut self.queues {
            let before = queue.consumers.len();
            queue.consumers.retain(|consumer| !which(consumer));
            if before > 0 && queue.consumers.is_empty() && queue.flags.contains("auto-delete") {
                unused.push(*name);
            }
        }
        for queue in unused {
            self.delete_queue(queue, false, false).unwrap();
        }
    }

    /// basic.get; gives the message and what remains ready.
    pub(crate) fn get(
        &mut self,
        channel: usize,
        queue: usize,
        no_ack: bool,
    ) -> Result<Option<(Message, usize)>, Refused> {
        let queue = self.queue(queue)?;
        let Some((place, message)) = queue.ready.pop_first() else {
            return Ok(None);
        };
        let (instance, remaining) = (queue.instance, queue.ready.len());
        let tag = self.channels[channel].last_tag + 1;
        let unacked = Unacked {
            instance,
            place,
            message: message.clone(),
            consumer: None,
        };
        self.hand_out(channel, tag, no_ack, unacked);
        Ok(Some((message, remaining)))
    }

    fn hand_out(&mut self, channel: usize, tag: u64, no_ack: bool, unacked: Unacked) {
        let channel = &mut self.channels[channel];
        channel.last_tag = channel.last_tag.max(tag);
        if !no_ack {
            channel.unacked.insert(tag, unacked);
        }
    }

    pub(crate) fn settle(
        &mut self,
        channel: usize,
        tag: u64,
        multiple: bool,
        how: Settle,
    ) -> Result<(), Refused> {
        let all = multiple && tag == 0;
        if !all && !self.channels[channel].unacked.contains_key(&tag) {
            return Err(406);
        }
        let tags: Vec<u64> = self.channels[channel]
            .outstanding()
            .into_iter()
            .filter(|other| all || *other == tag || (multiple && *other < tag))
            .collect();
        let requeue = match how {
            Settle::Ack => false,
            Settle::Nack { requeue } | Settle::Reject { requeue } => requeue,
        };
        for tag in tags {
            self.settle_one(channel, tag, requeue);
        }
        Ok(())
    }

    fn settle_one(&mut self, channel: usize, tag: u64, requeue: bool) {
        let unacked = self.channels[channel].unacked.remove(&tag).unwrap();
        let Some(queue) = self.by_instance(unacked.instance) else {
            return;
        };
        let mut consumers = queue.consumers.iter_mut();
        if let Some(consumer) = consumers.find(|consumer| Some(consumer.id) == unacked.consumer) {
            consumer.unacked -= 1;
        }
        if requeue {
            let mut message = unacked.message;
            message.redelivered = Some(true);
            queue.ready.insert(unacked.place, message);
        }
    }

    pub(crate) fn recover(&mut self, channel: usize) {
        for tag in self.channels[channel].outstanding() {
            self.settle_one(channel, tag, true);
        }
    }

    /// A channel closes: consumers first, then what it has returns, then unused queues go.
    pub(crate) fn close_channel(&mut self, channel: usize) {
        self.recover(channel);
        self.remove_consumers(|consumer| consumer.channel == channel);
        self.channels[channel] = Channel::default();
        self.cancels.retain(|(other, _)| *other != channel);
    }

    /// Stop and start: what is durable stays, and of its messages those that are persistent.
    pub(crate) fn restart(&mut self) {
        for channel in 0..CHANNELS {
            self.close_channel(channel);
        }
        self.cancels.clear();
        self.queues.retain(|_, queue| queue.flags.contains("durable"));
        self.exchanges
            .retain(|exchange| EXCHANGES[*exchange].2.contains("durable"));
        let (queues, exchanges) = (&self.queues, &self.exchanges);
        self.bindings
            .retain(|binding| exchanges.contains(&binding.0) && queues.contains_key(&binding.1));
        for queue in self.queues.values_mut() {
            queue.ready.retain(|_, message| message.persistent);
            // What was handed out stays marked. What was not may be marked as well, where it stands before something that was.
            for message in queue.ready.values_mut() {
                message.redelivered = message.redelivered.filter(|redelivered| *redelivered);
            }
        }
    }

    /// Takes a delivery as the broker made it: the head of a queue, to a consumer who may have it.
    pub(crate) fn deliver(
        &mut self,
        channel: usize,
        tag: &str,
        delivery: u64,
        id: u64,
    ) -> Result<Message, String> {
        let Some(queue) = self.queues.values_mut().find(|queue| {
            queue
                .consumers
                .iter()
                .any(|consumer| consumer.channel == channel && consumer.tag == tag)
        }) else {
            return Err(format!("message {id} for a consumer {tag} that is not there"));
        };
        let best = queue
            .consumers
            .iter()
            .filter(|other| other.can_take())
            .map(|other| other.priority)
            .max();
        let consumer = queue
            .consumers
            .iter_mut()
            .find(|consumer| consumer.channel == channel && consumer.tag == tag)
            .unwrap();
        if !consumer.can_take() || Some(consumer.priority) != best {
            return Err(format!("message {id} went to {consumer:?}"));
        }
        let Some((place, message)) = queue.ready.pop_first() else {
            return Err(format!("message {id} was not ready"));
        };
        if message.id != id {
            return Err(format!("message {id} came before {}", message.id));
        }
        let (consumer_id, no_ack, instance) = (consumer.id, consumer.no_ack, queue.instance);
        if !no_ack {
            consumer.unacked += 1;
        }
        let unacked = Unacked {
            instance,
            place,
            message: message.clone(),
            consumer: Some(consumer_id),
        };
        self.hand_out(channel, delivery, no_ack, unacked);
        Ok(message)
    }

    /// The place of a message among those ready for a consumer's queue, to put deliveries of several channels in order.
    pub(crate) fn place(&self, channel: usize, tag: &str, id: u64) -> Option<(Instance, u64)> {
        let mine = |consumer: &Consumer| consumer.channel == channel && consumer.tag == tag;
        let queue = self
            .queues
            .values()
            .find(|queue| queue.consumers.iter().any(mine))?;
        let place = queue.ready.iter().find(|(_, message)| message.id == id)?.0;
        Some((queue.instance, *place))
    }

    /// A message that waits although somebody could have it.
    pub(crate) fn idle(&self) -> Option<String> {
        let waiting = self
            .queues
            .iter()
            .find(|(_, queue)| !queue.ready.is_empty() && queue.consumers.iter().any(Consumer::can_take));
        waiting.map(|(name, queue)| {
            format!(
                "{} waits in '{}' with {:?}",
                queue.ready.len(),
                QUEUES[*name].0,
                queue.consumers
            )
        })
    }
}

impl Consumer {
    pub(crate) fn new(
        channel: usize,
        tag: &'static str,
        no_ack: bool,
        exclusive: bool,
        prefetch: u16,
        priority: i32,
    ) -> Self {
        Self {
            id: 0,
            channel,
            tag,
            no_ack,
            exclusive,
            prefetch: prefetch.into(),
            priority,
            unacked: 0,
        }
    }
}

fn matches(kind: &str, pattern: &str, key: &str) -> bool {
    match kind {
        "direct" => pattern == key,
        "fanout" => true,
        _ => match pattern {
            "#" => true,
            "*" => !key.contains('.'),
            literal => literal == key,
        },
    }
}
