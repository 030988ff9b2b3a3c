//! What the door shows of messages that wait for their time, and how one of them is cancelled or given another time. A
//! call waits for the disk on its own thread, so none of these may run in a task.

use std::sync::Arc;

use smallvec::smallvec;

use crate::broker::{
    error::BrokerError,
    ids::{QueueId, Seq, Timestamp},
    message::Message,
    queue::Turn,
};
use crate::server::{
    Handle, OperateError, QueueLook,
    holding::HeldFor,
    queue_cell::{QueueGuard, QueueHandle},
    registry::{Vhost, durable_done},
};
use crate::storage::{Op, Target};

/// Messages of one page.
const PAGE_MAX: usize = 1000;

/// For whom messages wait.
#[derive(Clone, Copy, Debug)]
pub enum Waiting<'a> {
    Exchange(&'a str),
    Queue(&'a str),
}

/// A message that waits: when it is due, its number, and what it is.
#[derive(Clone)]
pub struct Scheduled {
    pub due: Timestamp,
    pub number: u64,
    pub message: Message,
}

/// Some of them, in the order of their times.
#[derive(Clone, Default)]
pub struct ScheduledPage {
    /// Of all, not only of this page.
    pub count: u64,
    /// Their bodies.
    pub bytes: u64,
    pub messages: Vec<Scheduled>,
    /// Where the next page begins.
    pub next: Option<(Timestamp, u64)>,
}

impl QueueLook {
    /// Messages that wait for their time before they are put into this queue.
    pub fn scheduled(&self) -> u64 {
        let holding = self.0.vhost().and_then(|vhost| {
            let holdings = vhost.holdings.lock();
            holdings.get(&HeldFor::Queue(self.0.id())).cloned()
        });
        holding.map_or(0, |holding| holding.lock().state.scheduled().0)
    }
}

impl Handle {
    /// Messages that wait in an exchange; 0 for one that is not there.
    pub fn exchange_scheduled(&self, vhost: &str, exchange: &str) -> u64 {
        let holding = self.running_vhost(vhost).and_then(|vhost| {
            let holdings = vhost.holdings.lock();
            holdings.get(&HeldFor::Exchange(exchange.into())).cloned()
        });
        holding.map_or(0, |holding| holding.lock().state.scheduled().0)
    }

    /// A page of at most so many waiting messages, from a time and number on.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn scheduled(
        &self,
        vhost: &str,
        waiting: Waiting<'_>,
        from: (Timestamp, u64),
        at_most: usize,
    ) -> Result<ScheduledPage, OperateError> {
        let Some((_, _, holding)) = self.holding_of(vhost, waiting)? else {
            return Ok(ScheduledPage::default());
        };
        let at_most = at_most.clamp(1, PAGE_MAX);
        let from = (from.0, Seq(from.1));
        let mut found: Vec<(Turn, Message)> = {
            let queue = holding.lock();
            let unstored = queue.state.unstored_from(from).take(at_most + 1);
            unstored.map(|(turn, message)| (turn, message.clone())).collect()
        };
        if holding.definition.durable {
            self.settle()?;
            found.extend(self.on_disk(holding.id(), from, at_most + 1)?);
            found.sort_by_key(|(turn, _)| *turn);
        }
        let next = found.get(at_most).map(|((due, seq), _)| (*due, seq.0));
        found.truncate(at_most);
        let (count, bytes) = holding.lock().state.scheduled();
        let messages = found.into_iter().map(|((due, seq), message)| Scheduled {
            due,
            number: seq.0,
            message,
        });
        Ok(ScheduledPage {
            count,
            bytes,
            messages: messages.collect(),
            next,
        })
    }

    /// Cancels a waiting message; false when it does not wait any more.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn cancel_scheduled(
        &self,
        vhost: &str,
        waiting: Waiting<'_>,
        due: Timestamp,
        number: u64,
    ) -> Result<bool, OperateError> {
        let changed = self.change_scheduled(vhost, waiting, (due, Seq(number)), None)?;
        Ok(changed.is_some())
    }

    /// Cancels all waiting messages; gives how many they were. One that is published meanwhile may be among them.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn cancel_all_scheduled(&self, vhost: &str, waiting: Waiting<'_>) -> Result<u64, OperateError> {
        let Some((vhost, held_for, holding)) = self.holding_of(vhost, waiting)? else {
            return Ok(0);
        };
        let _administration = self.broker.administration.lock();
        let count = holding.lock().state.scheduled().0;
        // The place goes with all that is in it, in one step; the next message that has to wait makes a new one.
        let Some(key) = vhost.drop_holding(&held_for) else {
            return Ok(count);
        };
        let (done, durable) = durable_done();
        let done = Some(done);
        self.broker.store.log(&mut vec![Op::Undefine { key, done }]);
        super::operate::stored(Some(durable))?;
        Ok(count)
    }

    /// Cancels those of a page of waiting messages that are `chosen`; gives how many they were and where the next page
    /// begins.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn cancel_some_scheduled(
        &self,
        vhost: &str,
        waiting: Waiting<'_>,
        from: (Timestamp, u64),
        chosen: impl Fn(&Scheduled) -> bool,
    ) -> Result<(u64, Option<(Timestamp, u64)>), OperateError> {
        // What the page says stays true but for what falls due meanwhile.
        let _administration = self.broker.administration.lock();
        let page = self.scheduled(vhost, waiting, from, PAGE_MAX)?;
        let Some((_, _, holding)) = self.holding_of(vhost, waiting)? else {
            return Ok((0, None));
        };
        let mut ops = Vec::new();
        let mut count = 0;
        let mut queue = holding.lock();
        for scheduled in page.messages.into_iter().filter(|scheduled| chosen(scheduled)) {
            let turn = (scheduled.due, Seq(scheduled.number));
            let on_disk = holding.definition.durable.then_some(scheduled.message);
            let Some((message, stored)) = queue.state.unschedule(turn, on_disk) else {
                continue;
            };
            count += 1;
            if stored {
                ops.push(Op::Unschedule {
                    queue: holding.id(),
                    turn,
                    bytes: message.body_len(),
                });
            }
        }
        self.log_together(queue, ops)?;
        Ok((count, page.next))
    }

    /// Gives a waiting message another time; gives its new number, or `None` when it does not wait any more.
    ///
    /// # Errors
    /// [`OperateError`].
    pub fn retime_scheduled(
        &self,
        vhost: &str,
        waiting: Waiting<'_>,
        due: Timestamp,
        number: u64,
        new_due: Timestamp,
    ) -> Result<Option<u64>, OperateError> {
        self.change_scheduled(vhost, waiting, (due, Seq(number)), Some(new_due))
    }

    /// Takes a message out, and puts it back with another time if there is one; as one operation of the store.
    fn change_scheduled(
        &self,
        vhost: &str,
        waiting: Waiting<'_>,
        turn: Turn,
        due: Option<Timestamp>,
    ) -> Result<Option<u64>, OperateError> {
        let Some((_, _, holding)) = self.holding_of(vhost, waiting)? else {
            return Ok(None);
        };
        // One after the other: the second of two finds what the first has left.
        let _administration = self.broker.administration.lock();
        let mut on_disk = None;
        if holding.definition.durable {
            self.settle()?;
            let found = self.on_disk(holding.id(), turn, 1)?;
            let mut found = found.into_iter().filter(|(other, _)| *other == turn);
            on_disk = found.next().map(|(_, message)| message);
        }
        let mut queue = holding.lock();
        let Some((message, stored)) = queue.state.unschedule(turn, on_disk) else {
            return Ok(None);
        };
        let mut ops = Vec::new();
        let mut number = 0;
        if let Some(due) = due {
            let Some(place) = queue.state.schedule(message.clone(), due) else {
                return Ok(None);
            };
            number = place.seq.0;
            if stored {
                ops.push(Op::Publish {
                    message: message.clone(),
                    targets: smallvec![Target {
                        queue: holding.id(),
                        lane: place.lane,
                        seq: place.seq,
                        expires_at: due,
                    }],
                    confirm: None,
                });
            }
        }
        if stored {
            ops.push(Op::Unschedule {
                queue: holding.id(),
                turn,
                bytes: message.body_len(),
            });
        }
        self.log_together(queue, ops)?;
        Ok(Some(number))
    }

    /// Logs changes of a locked queue as one operation, lets the queue go on, and waits until they are durable.
    fn log_together(&self, mut queue: QueueGuard<'_>, ops: Vec<Op>) -> Result<(), OperateError> {
        let (done, durable) = durable_done();
        let done = Some(done);
        self.broker.store.log(&mut vec![Op::Tx { ops, done }]);
        queue.dispatch();
        drop(queue);
        super::operate::stored(Some(durable))
    }

    /// Where messages wait for this exchange or queue; `None` when none ever did.
    fn holding_of(
        &self,
        vhost: &str,
        waiting: Waiting<'_>,
    ) -> Result<Option<(Arc<Vhost>, HeldFor, QueueHandle)>, OperateError> {
        let vhost = self.running_vhost(vhost).ok_or(OperateError::NoVhost)?;
        let held_for = match waiting {
            Waiting::Exchange(name) => Some(HeldFor::Exchange(name.into())),
            Waiting::Queue(name) => vhost
                .read(|topology| topology.queue(name.as_bytes()).map(|queue| queue.id()))
                .map(HeldFor::Queue),
        };
        let Some(held_for) = held_for else { return Ok(None) };
        let holding = vhost.holdings.lock().get(&held_for).cloned();
        Ok(holding.map(|holding| (vhost, held_for, holding)))
    }

    /// Waits until all that was logged before is on disk.
    fn settle(&self) -> Result<(), OperateError> {
        let (done, durable) = durable_done();
        self.broker.store.log(&mut vec![Op::Barrier { done }]);
        super::operate::stored(Some(durable))
    }

    fn on_disk(
        &self,
        queue: QueueId,
        from: Turn,
        at_most: usize,
    ) -> Result<Vec<(Turn, Message)>, OperateError> {
        let page = self.broker.store.scheduled_page(queue, from, at_most);
        page.map_err(|error| {
            tracing::error!(%error, queue = queue.0, "waiting messages could not be read; leveret check tells what is damaged");
            BrokerError::StoreFailed.into()
        })
    }
}
