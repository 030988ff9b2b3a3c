//! A consumer's end of a queue: takes deliveries under the queue's lock, gives them tags, enters them in the
//! channel's ledger and encodes them into the connection's outbox.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, AtomicU16, Ordering},
};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use crate::broker::{
    message::Message,
    queue::{ConsumerId, Delivery, Entry, Port, arguments::QueueKind, timeout::AckTimeout, with_counts},
    unacked::{Unacked, UnackedDelivery},
};
use crate::protocol::{
    field::FieldTable,
    frame,
    method::{Method, encode_deliver},
};
use crate::server::{
    ack_timers::AckTimer,
    confirms::ChannelConfirms,
    firehose::Tap,
    outbox::{Frames, Outbox},
    queue_cell::{ConnectionId, QueueCell, QueueHandle},
    repeated_head::RepeatedHead,
    spans::Handed,
    stats::{Count, Counters},
};

/// Octets of a method's class and number.
const METHOD_IDS: usize = 4;
/// Octets of a content header before the property flags.
const HEADER_FIXED: usize = 12;

/// What of a channel its consumers share with it.
pub(super) struct ChannelOut {
    pub(super) id: u16,
    pub(super) connection: ConnectionId,
    pub(super) outbox: Arc<Outbox>,
    /// Octets of a body frame's payload.
    pub(super) body_max: usize,
    /// The client understands basic.cancel from the server.
    pub(super) cancel_notify: bool,
    pub(super) unacked: Mutex<Unacked<QueueHandle>>,
    /// What the channel's consumers hold together is limited; the ledger knows how far.
    pub(super) metered: AtomicBool,
    /// Consumers whose queue went away.
    pub(super) cancelled: Mutex<Cancelled>,
    pub(super) counters: Arc<Counters>,
    pub(super) facts: ChannelFacts,
    pub(super) tap: Arc<Tap>,
    /// Rings when a delivery should have been settled.
    pub(super) ack_timer: AckTimer,
}

/// Consumers that lost their queue.
#[derive(Default)]
pub(super) struct Cancelled {
    /// The channel forgets these tags at its next request.
    pub(super) tags: Vec<Bytes>,
    /// While the channel itself deletes a queue: who is told after the answer and not before it, as RabbitMQ does it.
    held: Option<Vec<Bytes>>,
}

impl ChannelOut {
    /// Holds back basic.cancel until [`Self::tell_cancelled`].
    pub(super) fn hold_cancels(&self) {
        self.cancelled.lock().held = Some(Vec::new());
    }

    /// Tells what was held back.
    pub(super) fn tell_cancelled(&self) {
        let held = self.cancelled.lock().held.take();
        for tag in held.into_iter().flatten() {
            self.tell_cancel(&tag);
        }
    }

    /// basic.cancel from the server, to a client that understands it.
    pub(super) fn tell_cancel(&self, tag: &[u8]) {
        if self.cancel_notify {
            let consumer_tag = String::from_utf8_lossy(tag).into_owned();
            let nowait = true;
            self.outbox
                .method(self.id, &Method::BasicCancel { consumer_tag, nowait });
        }
    }
}

/// What management shows of a channel beside its counts.
#[derive(Default)]
pub(super) struct ChannelFacts {
    pub(super) prefetch: AtomicU16,
    pub(super) transactional: AtomicBool,
    /// Set with confirm.select.
    pub(super) confirms: OnceLock<Arc<ChannelConfirms>>,
}

/// The port of one consumer.
pub(super) struct ConsumerPort {
    pub(super) channel: Arc<ChannelOut>,
    pub(super) queue: Weak<QueueCell>,
    pub(super) tag: Bytes,
    pub(super) no_ack: bool,
    pub(super) arguments: FieldTable,
    /// What the consumer itself says about it.
    pub(super) timeout: AckTimeout,
}

impl Port for ConsumerPort {
    fn room(&self) -> usize {
        self.channel.outbox.room()
    }

    fn stall(&self, consumer: ConsumerId) -> bool {
        self.channel.outbox.stall(Weak::clone(&self.queue), consumer)
    }

    fn metered(&self) -> bool {
        !self.no_ack && self.channel.metered.load(Ordering::Relaxed)
    }

    fn reserve(&self, consumer: ConsumerId) -> bool {
        let waiter = || Some((QueueHandle(self.queue.upgrade()?), consumer));
        self.channel.unacked.lock().reserve(waiter)
    }

    fn deliver(&self, consumer: ConsumerId, deliveries: &mut Vec<Delivery>) {
        let Some(queue) = self.queue.upgrade().map(QueueHandle) else {
            return;
        };
        let (mut given, mut redeliveries) = (0, 0);
        let traced = self.channel.traced();
        let timeout = self.timeout.or(queue.ack_timeout()).timeout_ms;
        let mut ledger = self.channel.unacked.lock();
        let first = ledger.next_tag();
        let mut repeated = RepeatedHead::default();
        self.channel.outbox.append(|frames| {
            let mut deliveries = deliveries.drain(..);
            while let Some(delivery) = deliveries.next() {
                let redelivered = delivery.entry.redelivered;
                given += 1;
                redeliveries += u64::from(redelivered);
                let counted = (delivery.entry.acquired > 0).then(|| told(&delivery.entry, &queue));
                let message = counted.as_ref().unwrap_or(&delivery.entry.message);
                let delivery_tag = ledger.next_tag();
                if traced {
                    self.channel.tap.delivered(&Handed {
                        connection: self.channel.connection,
                        channel: self.channel.id,
                        delivery_tag,
                        queue: &queue,
                        seq: delivery.entry.seq,
                        message,
                        redelivered,
                    });
                }
                if !repeated.write(frames, message, delivery_tag, redelivered) {
                    let start = frames.tail().len();
                    self.write(frames, message, delivery_tag, redelivered);
                    if deliveries.len() > 0 && message.inline_body().len() <= self.channel.body_max {
                        let tag_at = frame::HEAD + METHOD_IDS + 1 + self.tag.len();
                        repeated.remember(frames.tail().get(start..), message, tag_at);
                    }
                }
                if self.no_ack {
                    ledger.skip();
                } else {
                    let (queue, entry) = (queue.clone(), delivery.entry);
                    let unacked = UnackedDelivery {
                        queue,
                        consumer: Some(consumer),
                        entry,
                    };
                    ledger.add(unacked, delivery.reserved);
                }
            }
        });
        if let Some(timeout_ms) = timeout.filter(|_| !self.no_ack) {
            let holder = (queue.id(), Some(consumer));
            self.channel.note_timeout(&mut ledger, holder, first, timeout_ms);
        }
        let kind = if self.no_ack {
            Count::DeliverNoAck
        } else {
            Count::Deliver
        };
        // The queue's lock and the ledger's are held: nobody else counts here.
        for counters in [&queue.counters, &*self.channel.counters] {
            counters.bump(kind, given);
            counters.bump(Count::Redeliver, redeliveries);
        }
        queue.totals().add(kind, given);
        if redeliveries > 0 {
            queue.totals().add(Count::Redeliver, redeliveries);
        }
    }

    fn cancelled(&self) {
        let mut cancelled = self.channel.cancelled.lock();
        cancelled.tags.push(self.tag.clone());
        if let Some(held) = &mut cancelled.held {
            held.push(self.tag.clone());
        } else {
            drop(cancelled);
            self.channel.tell_cancel(&self.tag);
        }
    }
}

impl ConsumerPort {
    #[inline]
    fn write(&self, frames: &mut Frames, message: &Message, delivery_tag: u64, redelivered: bool) {
        self.channel.write_content(frames, message, |out| {
            encode_deliver(
                out,
                &self.tag,
                delivery_tag,
                redelivered,
                message.exchange(),
                message.routing_key(),
            );
        });
    }
}

fn resume(waiting: &[(QueueHandle, ConsumerId)]) {
    for (queue, consumer) in waiting {
        queue.resume(&[*consumer]);
    }
}

/// The message as its consumer is told of it: where deliveries are counted, a redelivered one carries the counts.
#[inline]
pub(super) fn told(entry: &Entry, queue: &QueueCell) -> Message {
    if entry.acquired == 0
        || QueueKind::of(&queue.definition.arguments) == QueueKind::Classic && entry.failed == 0
    {
        return entry.message.clone();
    }
    with_counts(&entry.message, entry.acquired, entry.failed).unwrap_or_else(|_| entry.message.clone())
}

impl ChannelOut {
    /// Whether deliveries go to the firehose; asked once for all that are handed out together.
    pub(super) fn traced(&self) -> bool {
        self.tap.is_on()
    }

    /// Limits what all consumers of the channel hold together; 0 ends the limit.
    pub(super) fn limit(&self, max: u16) {
        let mut ledger = self.unacked.lock();
        let waiting = ledger.set_limit(max);
        self.metered.store(max > 0, Ordering::Relaxed);
        drop(ledger);
        resume(&waiting);
    }

    /// After deliveries were settled: consumers that waited for their channel's leave go on.
    pub(super) fn settled(&self) {
        if self.metered.load(Ordering::Relaxed) {
            let waiting = self.unacked.lock().take_resumable();
            resume(&waiting);
        }
    }

    /// Writes a method with the message as its content.
    #[inline]
    pub(super) fn write_content(
        &self,
        frames: &mut Frames,
        message: &Message,
        method: impl FnOnce(&mut BytesMut),
    ) {
        let (channel, out) = (self.id, frames.tail());
        frame::write(out, frame::METHOD, channel, method);
        let properties = message.properties();
        frame::write_head(out, frame::HEADER, channel, HEADER_FIXED + properties.len());
        out.put_u32(60 << 16);
        out.put_u64(message.body_len());
        out.extend_from_slice(properties);
        out.put_u8(frame::FRAME_END);
        match message.large_body() {
            None => {
                for part in message.inline_body().chunks(self.body_max) {
                    frame::write_head(out, frame::BODY, channel, part.len());
                    out.extend_from_slice(part);
                    out.put_u8(frame::FRAME_END);
                }
            }
            Some(body) => self.write_large(frames, &body.chunks, body.len),
        }
    }

    /// Cuts a body held in pieces into frames; the pieces are shared, not copied.
    fn write_large(&self, frames: &mut Frames, pieces: &[Bytes], len: u64) {
        let mut pieces = pieces.iter().cloned();
        let mut piece = Bytes::new();
        let mut remaining = usize::try_from(len).unwrap_or(usize::MAX);
        while remaining > 0 {
            let mut wanted = remaining.min(self.body_max);
            remaining -= wanted;
            frame::write_head(frames.tail(), frame::BODY, self.id, wanted);
            while wanted > 0 {
                if piece.is_empty() {
                    let Some(next) = pieces.next() else { return };
                    piece = next;
                    continue;
                }
                let part = piece.split_to(piece.len().min(wanted));
                wanted -= part.len();
                frames.push_shared(part);
            }
            frames.tail().put_u8(frame::FRAME_END);
        }
    }
}
