//! The specification in memory: what exists, what is where, and what an operation must bring about.

mod queue;
mod transfer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) use self::queue::{Consumer, Death, Instance, Message};
use self::queue::{Place, Queue};
use self::transfer::{Letter, Transaction};
use crate::operation::{CHANNELS, EXCHANGES, KEYS, QUEUES, Settle, TX, Target};

/// A delivery that its channel has to settle.
#[derive(Clone, Debug)]
struct Unacked {
    instance: Instance,
    place: Place,
    message: Message,
    /// `None` for basic.get.
    consumer: Option<u64>,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Channel {
    unacked: BTreeMap<u64, Unacked>,
    pub(crate) last_tag: u64,
    pub(crate) published: u64,
    transaction: Transaction,
}

impl Channel {
    pub(crate) fn outstanding(&self) -> Vec<u64> {
        self.unacked.keys().copied().collect()
    }
}

/// A refusal: the channel is closed with this code.
pub(crate) type Refused = u16;

/// What a publish came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    /// The body.
    pub(crate) id: u64,
    /// A queue has it, or refused it.
    pub(crate) routed: bool,
    /// No queue refused it.
    pub(crate) accepted: bool,
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Spec {
    /// By place in [`QUEUES`].
    pub(crate) queues: BTreeMap<usize, Queue>,
    exchanges: BTreeSet<usize>,
    /// Exchange, queue, key.
    bindings: BTreeSet<(usize, usize, usize)>,
    pub(crate) channels: [Channel; CHANNELS],
    /// Server cancels that are due: channel and tag.
    pub(crate) cancels: Vec<(usize, &'static str)>,
    /// What died and has not been moved yet.
    dead: Vec<Letter>,
    /// It died while other queues were still being settled.
    racy: bool,
    /// Dead letters were moved by the last operation: the broker does that in its own time.
    pub(crate) moved: bool,
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
        if QUEUES[queue].quorum.is_some() && flags != "durable" {
            return Err(406);
        }
        self.instances += 1;
        self.queues
            .insert(queue, Queue::new(self.instances, queue, flags));
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
        let queue = self.queue(queue)?;
        queue.any_order = false;
        Ok(std::mem::take(&mut queue.ready).len())
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

    /// Publishes; on the channel with transactions that waits for the commit.
    pub(crate) fn publish(
        &mut self,
        channel: usize,
        to: Target,
        (persistent, mandatory, priority): (bool, bool, Option<u8>),
    ) -> Result<Published, Refused> {
        let (exchange, key) = match to {
            Target::Queue(queue) => ("", QUEUES[queue].name),
            Target::Exchange { exchange, .. } if !self.exchanges.contains(&exchange) => return Err(404),
            Target::Exchange { exchange, key } => (EXCHANGES[exchange].0, KEYS[key]),
        };
        let route = self.route(exchange, key);
        self.messages += 1;
        let message = Message {
            id: self.messages,
            exchange,
            key,
            persistent,
            priority,
            redelivered: Some(false),
            deaths: VecDeque::new(),
            failed: 0,
        };
        let mut published = Published {
            id: message.id,
            routed: !route.is_empty(),
            accepted: true,
        };
        if channel == TX {
            let transaction = &mut self.channels[channel].transaction;
            transaction.publishes.push((route, message, mandatory));
            return Ok(published);
        }
        self.channels[channel].published += 1;
        published.accepted = self.put(&route, &message);
        self.drop_excess(&route);
        Ok(published)
    }

    /// The queues a message goes to, ascending.
    fn route(&self, exchange: &str, key: &str) -> BTreeSet<Instance> {
        let index = EXCHANGES.iter().position(|known| known.0 == exchange);
        let queues: BTreeSet<usize> = match index {
            None => (0..QUEUES.len())
                .filter(|queue| QUEUES[*queue].name == key)
                .collect(),
            Some(index) => {
                let bound = self.bindings.iter().filter(|binding| binding.0 == index);
                let matching = bound.filter(|binding| matches(EXCHANGES[index].1, KEYS[binding.2], key));
                matching.map(|binding| binding.1).collect()
            }
        };
        let there = queues.iter().filter_map(|queue| self.queues.get(queue));
        there.map(|queue| queue.instance).collect()
    }

    pub(crate) fn consume(&mut self, queue: usize, mut consumer: Consumer) -> Result<(), Refused> {
        self.consumers += 1;
        consumer.id = self.consumers;
        if self.queue(queue)?.add_consumer(consumer) {
            Ok(())
        } else {
            Err(403)
        }
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
            if queue.remove_consumers(&which) && queue.flags.contains("auto-delete") {
                unused.push(*name);
            }
        }
        for queue in unused {
            self.delete_queue(queue, false, false).unwrap();
        }
    }

    /// Whether basic.get is refused.
    pub(crate) fn check_get(&mut self, queue: usize) -> Result<(), Refused> {
        let kind = self.queue(queue)?.kind();
        if kind.single && kind.quorum.is_some() {
            return Err(405);
        }
        Ok(())
    }

    /// basic.get gave this message, or none; tells what it must have been, and what remains ready.
    pub(crate) fn get(
        &mut self,
        channel: usize,
        queue: usize,
        no_ack: bool,
        id: Option<u64>,
    ) -> Result<Option<(Message, usize)>, String> {
        let queue = self.queues.get_mut(&queue).unwrap();
        let Some(id) = id else {
            let waits = queue.ready.len();
            return if waits == 0 {
                Ok(None)
            } else {
                Err(format!("nothing, but {waits} are ready"))
            };
        };
        let (place, message) = queue.take(id)?;
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
        let mut settled = Vec::new();
        for tag in tags {
            settled.extend(
                self.channels[channel]
                    .unacked
                    .remove(&tag)
                    .map(|unacked| (tag, unacked)),
            );
        }
        if channel == TX {
            let transaction = &mut self.channels[channel].transaction;
            transaction
                .settled
                .extend(settled.into_iter().map(|(tag, unacked)| (tag, unacked, how)));
        } else {
            self.settle_all(settled.into_iter().map(|(_, unacked)| (unacked, how)).collect());
        }
        Ok(())
    }

    /// Several queues dead-letter at once: in which order, and before or after what the others do next, is the broker's.
    pub(crate) fn is_racy(&self, channel: usize, how: Settle) -> bool {
        let rejects = matches!(
            how,
            Settle::Nack { requeue: false } | Settle::Reject { requeue: false }
        );
        let unacked = self.channels[channel].unacked.values();
        let sources: BTreeSet<Instance> = unacked.map(|unacked| unacked.instance).collect();
        rejects && sources.len() > 1
    }

    pub(crate) fn recover(&mut self, channel: usize) {
        let unacked = std::mem::take(&mut self.channels[channel].unacked);
        let how = Settle::Nack { requeue: true };
        self.settle_all(unacked.into_values().map(|unacked| (unacked, how)).collect());
    }

    /// A channel closes: consumers first, then what it has returns, then unused queues go.
    pub(crate) fn close_channel(&mut self, channel: usize) {
        self.rollback(channel);
        let unacked = std::mem::take(&mut self.channels[channel].unacked);
        let mut unused = Vec::new();
        for (name, queue) in &mut self.queues {
            if queue.remove_consumers(|consumer| consumer.channel == channel)
                && queue.flags.contains("auto-delete")
            {
                unused.push(*name);
            }
        }
        let how = Settle::Reject { requeue: true };
        self.settle_all(unacked.into_values().map(|unacked| (unacked, how)).collect());
        for queue in unused {
            self.delete_queue(queue, false, false).unwrap();
        }
        self.channels[channel] = Channel::default();
        self.cancels.retain(|(other, _)| *other != channel);
    }

    /// Stop and start: what is durable stays, and of its messages those that are persistent.
    pub(crate) fn restart(&mut self) {
        for channel in 0..CHANNELS {
            self.close_channel(channel);
        }
        // The broker moves what died before it stops; which channel it closes first is its own affair.
        self.racy = true;
        self.move_dead();
        self.cancels.clear();
        self.queues.retain(|_, queue| queue.flags.contains("durable"));
        self.exchanges
            .retain(|exchange| EXCHANGES[*exchange].2.contains("durable"));
        let (queues, exchanges) = (&self.queues, &self.exchanges);
        self.bindings
            .retain(|binding| exchanges.contains(&binding.0) && queues.contains_key(&binding.1));
        self.queues.values_mut().for_each(Queue::restart);
    }

    /// Takes a delivery as the broker made it: the head of a queue, to a consumer who may have it.
    pub(crate) fn deliver(
        &mut self,
        channel: usize,
        tag: &str,
        delivery: u64,
        id: u64,
    ) -> Result<Message, String> {
        let mine = |consumer: &Consumer| consumer.channel == channel && consumer.tag == tag;
        let mut queues = self.queues.values_mut();
        let Some(queue) = queues.find(|queue| queue.consumers.iter().any(mine)) else {
            return Err(format!("message {id} for a consumer {tag} that is not there"));
        };
        let takers = queue.consumers.iter().filter(|other| queue.can_take(other));
        let best = takers.map(|other| other.priority).max();
        let consumer = queue.consumers.iter().find(|consumer| mine(consumer)).unwrap();
        // Where the order is open, so is who was first.
        let outranked = !queue.any_order && Some(consumer.priority) != best;
        if !queue.can_take(consumer) || outranked {
            return Err(format!("message {id} went to {consumer:?}"));
        }
        let (consumer_id, no_ack) = (consumer.id, consumer.no_ack);
        let (place, message) = queue.take(id)?;
        let instance = queue.instance;
        let mut consumers = queue.consumers.iter_mut();
        if let Some(consumer) = consumers.find(|consumer| consumer.id == consumer_id && !no_ack) {
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

    /// The place of a message among those ready for a consumer's queue, to put deliveries of several channels in order;
    /// none where the order is open.
    pub(crate) fn place(&self, channel: usize, tag: &str, id: u64) -> Option<(Instance, Option<Place>)> {
        let mine = |consumer: &Consumer| consumer.channel == channel && consumer.tag == tag;
        let queue = self
            .queues
            .values()
            .find(|queue| queue.consumers.iter().any(mine))?;
        let place = queue.place(id)?;
        Some((queue.instance, (!queue.any_order).then_some(place)))
    }

    /// A message that waits although somebody could have it.
    pub(crate) fn idle(&self) -> Option<String> {
        let could = |queue: &Queue| queue.consumers.iter().any(|consumer| queue.can_take(consumer));
        let mut queues = self.queues.values();
        let waiting = queues.find(|queue| !queue.ready.is_empty() && could(queue))?;
        Some(format!(
            "{} waits in '{}' with {:?}",
            waiting.ready.len(),
            waiting.kind().name,
            waiting.consumers
        ))
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
