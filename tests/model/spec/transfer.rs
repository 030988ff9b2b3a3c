//! Messages that go from queue to queue: what died, and what a transaction held back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Instance, Message, Spec, Unacked};
use crate::operation::{EXCHANGES, Overflow, QUEUES, Settle, TX};

/// A message that left its queue without being consumed, and where from.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    source: Instance,
    /// The source's place in [`QUEUES`].
    index: usize,
    message: Message,
    reason: &'static str,
}

/// What waits for a commit.
#[derive(Clone, Default, Debug)]
pub(super) struct Transaction {
    /// Routed when published; the flag is mandatory.
    pub(super) publishes: Vec<(BTreeSet<Instance>, Message, bool)>,
    pub(super) settled: Vec<(u64, Unacked, Settle)>,
}

/// What a commit brings about.
#[derive(Debug)]
pub(crate) struct Committed {
    /// Bodies that come back before the answer.
    pub(crate) returned: Vec<u64>,
    /// A queue refused a message: the channel is closed.
    pub(crate) refused: bool,
}

impl Spec {
    /// Puts a message into queues; false when one of them refuses it.
    pub(super) fn put(&mut self, route: &BTreeSet<Instance>, message: &Message) -> bool {
        let mut accepted = true;
        for instance in route {
            // Deleted before the commit.
            let Some(queue) = self.by_instance(*instance) else {
                continue;
            };
            if !queue.refuses() {
                queue.put(message.clone());
                continue;
            }
            accepted = false;
            let index = queue.index;
            if queue.kind().overflow == Overflow::Divert {
                self.bury(*instance, index, message.clone(), "maxlen");
            }
        }
        accepted
    }

    /// Queues that are too long drop what is too much.
    pub(super) fn drop_excess(&mut self, queues: &BTreeSet<Instance>) {
        for instance in queues {
            if let Some(queue) = self.by_instance(*instance) {
                let index = queue.index;
                for message in queue.drop_excess() {
                    self.bury(*instance, index, message, "maxlen");
                }
            }
        }
    }

    fn bury(&mut self, source: Instance, index: usize, message: Message, reason: &'static str) {
        if QUEUES[index].dead.is_some() {
            self.dead.push(Letter {
                source,
                index,
                message,
                reason,
            });
        }
    }

    /// Settles deliveries, each queue's in their order.
    pub(super) fn settle_all(&mut self, settled: Vec<(Unacked, Settle)>) {
        let mut queues = BTreeSet::new();
        for (unacked, how) in settled {
            queues.insert(unacked.instance);
            self.settle_one(unacked, how);
        }
        self.drop_excess(&queues);
        self.racy |= queues.len() > 1;
    }

    fn settle_one(&mut self, unacked: Unacked, how: Settle) {
        let Unacked {
            instance,
            place,
            mut message,
            consumer,
        } = unacked;
        let Some(queue) = self.by_instance(instance) else {
            return;
        };
        queue.credit(consumer);
        let index = queue.index;
        match how {
            Settle::Ack => {}
            Settle::Nack { requeue: false } | Settle::Reject { requeue: false } => {
                self.bury(instance, index, message, "rejected");
            }
            Settle::Nack { requeue: true } | Settle::Reject { requeue: true } => {
                let limit = queue.kind().quorum;
                message.failed += u16::from(limit.is_some() && matches!(how, Settle::Reject { .. }));
                if limit.is_some_and(|limit| message.failed > limit) {
                    self.bury(instance, index, message, "delivery_limit");
                } else {
                    queue.put_back(place, message);
                }
            }
        }
    }

    /// Moves all that died, and what dies by that.
    pub(crate) fn move_dead(&mut self) {
        self.moved = !self.dead.is_empty();
        // Who sent to a queue, and in which round: the order of several is the broker's.
        let mut senders: BTreeMap<Instance, BTreeSet<(Instance, usize)>> = BTreeMap::new();
        let racy = std::mem::take(&mut self.racy);
        let mut round = 0;
        while !self.dead.is_empty() {
            // Queues hand over one after the other, in the order of their numbers.
            self.dead.sort_by_key(|letter| letter.source);
            let letters: VecDeque<Letter> = std::mem::take(&mut self.dead).into();
            for letter in letters {
                for target in self.move_one(&letter) {
                    let senders = senders.entry(target).or_default();
                    senders.insert((letter.source, round));
                    let several = racy || senders.len() > 1;
                    if let Some(target) = self.by_instance(target) {
                        target.any_order |= several && !target.ready.is_empty();
                    }
                }
            }
            round += 1;
        }
    }

    fn move_one(&mut self, letter: &Letter) -> BTreeSet<Instance> {
        let kind = &QUEUES[letter.index];
        let (exchange, key) = kind.dead.unwrap();
        let known = EXCHANGES.iter().position(|known| known.0 == exchange);
        if known.is_some_and(|known| !self.exchanges.contains(&known)) {
            return BTreeSet::new();
        }
        let mut message = letter.message.clone();
        message.die(kind.name, letter.reason);
        message.exchange = exchange;
        message.key = key.unwrap_or(message.key);
        let mut route = self.route(exchange, message.key);
        if letter.reason != "rejected" {
            let cycles: BTreeSet<Instance> = self
                .queues
                .values()
                .filter(|queue| message.is_cycle(queue.kind().name))
                .map(|queue| queue.instance)
                .collect();
            route.retain(|instance| !cycles.contains(instance));
        }
        self.put(&route, &message);
        self.drop_excess(&route);
        route
    }

    /// Everything at once: publishes in order, then what was settled.
    pub(crate) fn commit(&mut self) -> Committed {
        let Transaction { publishes, settled } = std::mem::take(&mut self.channels[TX].transaction);
        let mut committed = Committed {
            returned: Vec::new(),
            refused: false,
        };
        let mut touched = BTreeSet::new();
        for (route, message, mandatory) in publishes {
            if route.is_empty() && mandatory {
                committed.returned.push(message.id);
            }
            committed.refused |= !self.put(&route, &message);
            touched.extend(route);
        }
        for (_, unacked, how) in settled {
            touched.insert(unacked.instance);
            self.settle_one(unacked, how);
        }
        self.drop_excess(&touched);
        committed
    }

    /// Publishes are forgotten, what was settled is outstanding again.
    pub(crate) fn rollback(&mut self, channel: usize) {
        let channel = &mut self.channels[channel];
        let transaction = std::mem::take(&mut channel.transaction);
        let settled = transaction.settled.into_iter();
        channel
            .unacked
            .extend(settled.map(|(tag, unacked, _)| (tag, unacked)));
    }
}
