//! Looking into a queue from outside and moving chosen messages: what the door offers operators beside the operations of
//! AMQP. Calls may wait for the disk, so none of these may run in a task.

use smallvec::{SmallVec, smallvec};

use crate::broker::{
    ids::{Seq, Timestamp},
    message::Message,
    queue::{Entry, Glimpse, Place, Returned, Withdrawn},
};
use crate::server::{
    Handle, OperateError, QueueLook, clock,
    operate::stored,
    queue_cell::{QueueGuard, QueueHandle},
    registry::durable_done,
};
use crate::storage::{Loaded, Op, ReadRequest, Target};

/// What one look reads from the store, bytes; at least one page.
const LOOK_BYTES: usize = 512 * 1024;
/// Two messages that stand no further apart are read together.
const NEAR: u64 = 256;
/// Where a look begins.
pub const FIRST: Place = Place {
    lane: u8::MAX,
    seq: Seq(0),
};

/// A message that is ready or waits for another attempt, seen where it stands.
#[derive(Clone)]
pub struct Sight {
    pub place: Place,
    pub message: Message,
    pub redelivered: bool,
    pub expires_at: Timestamp,
    /// How often it was handed out and came back, where that is counted.
    pub acquired: u16,
    /// And how many of those attempts failed.
    pub failed: u16,
    /// Until when it waits for another attempt; [`Timestamp::NONE`] when it does not.
    pub due: Timestamp,
    /// Only the store has it.
    pub on_disk: bool,
}

/// A delivery that waits for its ack.
#[derive(Clone)]
pub struct Held {
    pub place: Place,
    pub message: Message,
    pub redelivered: bool,
    pub connection_name: String,
    pub user: String,
    pub channel: u16,
    pub delivery_tag: u64,
    /// `None` for basic.get.
    pub consumer_tag: Option<String>,
    /// Milliseconds since 1970 between which it was handed out, as far as that is known; 0 where it is not. Deliveries
    /// carry no time of their own: marks are set every few seconds.
    pub not_before: u64,
    pub not_after: u64,
}

/// What is done with a message.
pub struct Selected {
    pub sight: Sight,
    /// Where it goes, and as what; `None` deletes it.
    pub to: Option<(QueueLook, Message)>,
    /// It stays here as well.
    pub keep: bool,
}

/// What became of selected messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub done: u64,
    /// They did not wait there any more.
    pub gone: u64,
    /// A full queue did not take them; they stay.
    pub refused: u64,
}

impl Outcome {
    pub fn add(&mut self, other: Self) {
        self.done += other.done;
        self.gone += other.gone;
        self.refused += other.refused;
    }
}

impl QueueLook {
    /// The place that the next message will take: what stands before it is what waits now.
    pub fn end(&self) -> Seq {
        self.0.lock().state.end()
    }
}

impl Sight {
    /// `waiting` for another attempt, or `ready`.
    pub fn state(&self) -> &'static str {
        if self.due.is_some() && self.due > clock::now() {
            "waiting"
        } else {
            "ready"
        }
    }

    fn in_memory((entry, due): (Entry, Timestamp)) -> Self {
        Self {
            place: entry.place(),
            redelivered: entry.redelivered,
            expires_at: entry.expires_at,
            acquired: entry.acquired,
            failed: entry.failed,
            due,
            on_disk: false,
            message: entry.message,
        }
    }
}

impl Handle {
    /// Messages from a place on that are ready or wait for another attempt, about `limit` or more if they are small and in
    /// the store, and where to go on; there may be fewer before the end.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn look(
        &self,
        queue: &QueueLook,
        from: Place,
        limit: usize,
    ) -> Result<(Vec<Sight>, Option<Place>), OperateError> {
        let glimpse = queue.0.lock().state.look(from, limit.max(1));
        let (mut sights, mut bytes, mut end) = (Vec::new(), 0, glimpse.until);
        'parts: for (mut first, until) in parts(&glimpse) {
            while first < until {
                if bytes >= LOOK_BYTES {
                    end = first;
                    break 'parts;
                }
                let loaded = self.look_on_disk(queue, glimpse.lane, first, until)?;
                first = loaded.next.filter(|next| *next < until).unwrap_or(until);
                bytes += stored_sights(loaded, &glimpse, &mut sights) + 1;
            }
        }
        let next = if end < glimpse.until {
            let lane = glimpse.lane;
            Some(Place { seq: end, lane })
        } else {
            glimpse.next
        };
        let here = glimpse.here.into_iter().map(Sight::in_memory);
        sights.extend(here.filter(|sight| sight.place.seq < end));
        sights.sort_by_key(|sight| sight.place.seq);
        Ok((sights, next))
    }

    fn look_on_disk(
        &self,
        queue: &QueueLook,
        lane: u8,
        from: Seq,
        until: Seq,
    ) -> Result<Loaded, OperateError> {
        let request = ReadRequest {
            queue: queue.0.id(),
            lane,
            from,
            until,
            max_bytes: LOOK_BYTES,
            settled: false,
        };
        self.broker.store().look(&request).map_err(|error| {
            tracing::error!(%error, queue = queue.0.id().0, "a queue could not be looked into; leveret check tells what is damaged");
            OperateError::Broker(crate::broker::error::BrokerError::StoreFailed)
        })
    }

    /// Deliveries of a queue that wait for their ack, by connection, channel and tag; at most so many.
    pub fn unacked(&self, queue: &QueueLook, limit: usize) -> Vec<Held> {
        let tags = queue_tags(queue);
        let mut found = Vec::new();
        let mut clients = self.broker.connections.all();
        clients.sort_by_key(|client| client.id);
        for client in clients {
            for (number, channel) in client.channels() {
                let mut ledger = channel.unacked.lock();
                ledger.note_age(clock::now());
                for (tag, delivery) in ledger.iter() {
                    if delivery.queue != queue.0 {
                        continue;
                    }
                    if found.len() >= limit {
                        return found;
                    }
                    let (not_before, not_after) = ledger.handed_out(tag);
                    let consumer = delivery.consumer;
                    found.push(Held {
                        place: delivery.entry.place(),
                        message: delivery.entry.message.clone(),
                        redelivered: delivery.entry.redelivered,
                        connection_name: client.name.clone(),
                        user: client.user.clone(),
                        channel: number,
                        delivery_tag: tag,
                        consumer_tag: consumer
                            .and_then(|id| tags.iter().find(|(known, _)| *known == id))
                            .map(|(_, tag)| tag.clone()),
                        not_before: not_before.0,
                        not_after: not_after.0,
                    });
                }
            }
        }
        found
    }

    /// Moves, copies or deletes messages that were seen. What goes elsewhere is published there and removed here in one
    /// operation of the store's log, so that a crash neither loses nor doubles it. Waits until all of it is durable.
    ///
    /// # Errors
    /// When the store fails.
    pub fn settle_selected(
        &self,
        source: &QueueLook,
        selected: Vec<Selected>,
    ) -> Result<Outcome, OperateError> {
        let mut outcome = Outcome::default();
        let targets = selected
            .iter()
            .filter_map(|selected| selected.to.as_ref().map(|(queue, _)| &queue.0));
        let mut handles: Vec<QueueHandle> = targets.chain(std::iter::once(&source.0)).cloned().collect();
        // The order of locking.
        handles.sort_unstable();
        handles.dedup();
        let mut guards: Vec<QueueGuard<'_>> = handles.iter().map(|queue| queue.lock()).collect();
        let mut ops = Vec::new();
        for Selected { sight, to, keep } in selected {
            let target =
                to.and_then(|(queue, message)| Some((handles.binary_search(&queue.0).ok()?, message)));
            if let Some((at, message)) = &target
                && guards
                    .get(*at)
                    .is_none_or(|guard| guard.state.refuses_meanwhile(message) || guard.state.is_deleted())
            {
                outcome.refused += 1;
                continue;
            }
            let mut parts: Vec<Op> = Vec::new();
            if !keep {
                let Some(guard) = handles
                    .binary_search(&source.0)
                    .ok()
                    .and_then(|at| guards.get_mut(at))
                else {
                    continue;
                };
                match withdraw(guard, &sight) {
                    Withdrawn::Gone => {
                        outcome.gone += 1;
                        continue;
                    }
                    Withdrawn::Entry(entry) if !entry.stored => {}
                    Withdrawn::Entry(_) | Withdrawn::OnDisk => parts.push(Op::Ack {
                        queue: source.0.id(),
                        lane: sight.place.lane,
                        seqs: smallvec![sight.place.seq],
                    }),
                }
            }
            if let Some((at, message)) = target
                && let Some(guard) = guards.get_mut(at)
            {
                let targets: SmallVec<[Target; 1]> = guard.enqueue(message.clone()).into_iter().collect();
                if !targets.is_empty() {
                    let confirm = None;
                    // Before the ack: what replaces a message stands in the log before its removal.
                    let publish = Op::Publish {
                        message,
                        targets,
                        confirm,
                    };
                    parts.insert(0, publish);
                }
            }
            outcome.done += 1;
            ops.append(&mut parts);
        }
        let durable = (!ops.is_empty()).then(|| {
            let (done, durable) = durable_done();
            let done = Some(done);
            self.broker.store().log(&mut vec![Op::Tx { ops, done }]);
            durable
        });
        guards.iter_mut().for_each(QueueGuard::dispatch);
        drop(guards);
        stored(durable)?;
        Ok(outcome)
    }
}

fn withdraw(guard: &mut QueueGuard<'_>, sight: &Sight) -> Withdrawn {
    let bytes = sight.message.body_len();
    guard.state.withdraw(sight.place, sight.due, bytes)
}

/// What of a glimpse is to be read: all of it, or what lies around those that are known to be there.
fn parts(glimpse: &Glimpse) -> Vec<(Seq, Seq)> {
    if glimpse.on_disk {
        return vec![(glimpse.from, glimpse.until)];
    }
    let close = |one: &Returned, other: &Returned| other.seq.0 - one.seq.0 <= NEAR;
    let groups = glimpse.known.chunk_by(close);
    let ends = |group: &[Returned]| Some((group.first()?.seq, group.last()?.seq.next()));
    groups.filter_map(ends).collect()
}

/// What the store has of a glimpse, but for what is in memory or has just expired; gives the bytes of what was read.
fn stored_sights(loaded: Loaded, glimpse: &Glimpse, sights: &mut Vec<Sight>) -> usize {
    let now = clock::now();
    let mut bytes = 0;
    let mut deadlines = loaded.deadlines.into_iter().peekable();
    for (seq, message) in loaded.entries {
        bytes += message.memory_bytes();
        while deadlines.next_if(|(other, _)| *other < seq).is_some() {}
        let deadline = deadlines.next_if(|(other, _)| *other == seq);
        let expires_at = deadline.map_or(Timestamp::NONE, |(_, at)| at);
        let known = glimpse.known.binary_search_by_key(&seq, |known| known.seq);
        let known = known.ok().and_then(|at| glimpse.known.get(at));
        let is_here = glimpse
            .here
            .binary_search_by_key(&seq, |(entry, _)| entry.seq)
            .is_ok();
        let expired = expires_at.is_some() && expires_at <= now;
        if is_here || expired || (known.is_none() && !glimpse.on_disk) {
            continue;
        }
        let due = known.map_or(Timestamp::NONE, |known| known.due);
        sights.push(Sight {
            place: Place {
                seq,
                lane: glimpse.lane,
            },
            redelivered: known.is_some() || seq <= glimpse.delivered || message.was_delivered_before(),
            message,
            expires_at,
            acquired: known.map_or(0, |known| known.acquired),
            failed: known.map_or(0, |known| known.failed),
            // As the queue notes it.
            due: if due.is_some() {
                due.earlier(expires_at)
            } else {
                due
            },
            on_disk: true,
        });
    }
    bytes
}

/// The tags of a queue's consumers.
fn queue_tags(queue: &QueueLook) -> Vec<(crate::broker::queue::ConsumerId, String)> {
    let guard = queue.0.lock();
    let consumers = guard.state.consumers();
    consumers
        .map(|(id, _, port, _)| (id, String::from_utf8_lossy(&port.tag).into_owned()))
        .collect()
}
