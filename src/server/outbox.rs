//! What a connection will send: frames wait here for its writer task. Anyone may append, under a short lock; what
//! has been appended leaves in one write.

use std::{
    collections::VecDeque,
    io::IoSlice,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt, net::tcp::OwnedWriteHalf, sync::Notify, time::MissedTickBehavior};

use crate::broker::{confirms::Confirm, queue::ConsumerId};
use crate::protocol::{
    frame::{self, HEARTBEAT_FRAME},
    method::{Method, encode_ack, encode_nack},
};
use crate::server::{confirms::ChannelConfirms, queue_cell::QueueCell};

/// Above this many unsent bytes queues stop delivering to the connection and its own requests wait.
pub(super) const FULL_BYTES: usize = 1024 * 1024;
/// Below this many they go on.
const ROOM_BYTES: usize = 512 * 1024;
/// Parts of bodies from this size on are sent from where they lie.
const SHARED_MIN: usize = 8 * 1024;
/// The writer keeps its buffer up to this capacity; a burst's larger one is given back.
const KEEP_CAPACITY: usize = 256 * 1024;

/// Frames in the order they go out: shared pieces, then what is still being appended to.
#[derive(Default)]
pub(super) struct Frames {
    pieces: VecDeque<Bytes>,
    pieces_bytes: usize,
    tail: BytesMut,
    /// What has been counted as unsent.
    counted: usize,
}

impl Frames {
    /// The buffer to append encoded frames to.
    pub(super) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends a piece of a body without copying it, when that is worth a place of its own.
    pub(super) fn push_shared(&mut self, piece: Bytes) {
        if piece.len() < SHARED_MIN {
            self.tail.extend_from_slice(&piece);
            return;
        }
        if !self.tail.is_empty() {
            let head = self.tail.split().freeze();
            self.pieces_bytes += head.len();
            self.pieces.push_back(head);
        }
        self.pieces_bytes += piece.len();
        self.pieces.push_back(piece);
    }

    pub(super) fn method(&mut self, channel: u16, method: &Method) {
        frame::write(&mut self.tail, frame::METHOD, channel, |out| method.encode(out));
    }

    fn len(&self) -> usize {
        self.pieces_bytes + self.tail.len()
    }
}

/// One connection's way out.
pub(super) struct Outbox {
    frames: Mutex<Frames>,
    /// Bytes appended and not yet taken by the socket.
    unsent: AtomicUsize,
    /// Wakes the writer task.
    wake: Notify,
    /// Wakes the connection's reader when there is room again.
    drained: Notify,
    /// Consumers here that had no room. Each is here once: it stays out of its queue's line until it is resumed.
    stalled: Mutex<Vec<(Weak<QueueCell>, ConsumerId)>>,
    /// Channels with confirms to send.
    confirms: Mutex<Vec<Arc<ChannelConfirms>>>,
    /// Nothing is appended any more; the writer sends what is left and ends.
    closing: AtomicBool,
    /// The socket is gone.
    broken: AtomicBool,
    /// Octets the socket took, and in how many writes; only the writer task adds.
    sent: AtomicU64,
    writes: AtomicU64,
}

impl Outbox {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            frames: Mutex::default(),
            unsent: AtomicUsize::new(0),
            wake: Notify::new(),
            drained: Notify::new(),
            stalled: Mutex::default(),
            confirms: Mutex::default(),
            closing: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        })
    }

    /// Appends frames and wakes the writer.
    pub(super) fn append(&self, write: impl FnOnce(&mut Frames)) {
        if self.broken.load(Ordering::Relaxed) {
            return;
        }
        let mut frames = self.frames.lock();
        write(&mut frames);
        let len = frames.len();
        let added = len - frames.counted;
        frames.counted = len;
        self.unsent.fetch_add(added, Ordering::Relaxed);
        drop(frames);
        self.wake.notify_one();
    }

    /// Appends one method.
    pub(super) fn method(&self, channel: u16, method: &Method) {
        self.append(|frames| frames.method(channel, method));
    }

    /// Bytes that deliveries may still add.
    pub(super) fn room(&self) -> usize {
        if self.broken.load(Ordering::Relaxed) {
            return 0;
        }
        FULL_BYTES.saturating_sub(self.unsent.load(Ordering::Relaxed))
    }

    /// Remembers a consumer to be served again when there is room. False when there is room already.
    pub(super) fn stall(&self, queue: Weak<QueueCell>, consumer: ConsumerId) -> bool {
        let mut stalled = self.stalled.lock();
        if self.room() > FULL_BYTES - ROOM_BYTES {
            return false;
        }
        stalled.push((queue, consumer));
        true
    }

    /// A channel has confirms to send.
    pub(super) fn confirm(&self, channel: Arc<ChannelConfirms>) {
        self.confirms.lock().push(channel);
        self.wake.notify_one();
    }

    /// Waits until the connection's own traffic may go on.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.room() > 0 || self.broken.load(Ordering::Relaxed) {
                return;
            }
            drained.await;
        }
    }

    /// Resolves when the socket has failed.
    pub(super) async fn gone(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.is_broken() {
                return;
            }
            drained.await;
        }
    }

    /// The writer sends what is left, ends its half of the socket and stops.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// The socket failed: nothing more is kept for it.
    pub(super) fn abandon(&self) {
        self.broken.store(true, Ordering::Release);
        *self.frames.lock() = Frames::default();
        self.drained.notify_waiters();
        self.wake.notify_one();
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn take(&self, spare: &mut Frames) -> bool {
        for channel in std::mem::take(&mut *self.confirms.lock()) {
            channel.flush(|channel, confirms| {
                self.append(|frames| {
                    for confirm in confirms {
                        write_confirm(frames.tail(), channel, *confirm);
                    }
                });
            });
        }
        let mut frames = self.frames.lock();
        std::mem::swap(&mut *frames, spare);
        !spare.pieces.is_empty() || !spare.tail.is_empty()
    }

    /// Octets the socket took so far, and in how many writes.
    pub(super) fn sent_octets(&self) -> (u64, u64) {
        (
            self.sent.load(Ordering::Relaxed),
            self.writes.load(Ordering::Relaxed),
        )
    }

    /// Octets that wait for the socket.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.load(Ordering::Relaxed)
    }

    fn sent(&self, bytes: usize) {
        let add = |counter: &AtomicU64, amount: u64| {
            counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
        };
        add(&self.sent, bytes as u64);
        add(&self.writes, 1);
        let before = self.unsent.fetch_sub(bytes, Ordering::Relaxed);
        if before - bytes < ROOM_BYTES {
            let stalled = std::mem::take(&mut *self.stalled.lock());
            for same_queue in stalled.chunk_by(|(left, _), (right, _)| left.ptr_eq(right)) {
                if let Some(queue) = same_queue.first().and_then(|(queue, _)| queue.upgrade()) {
                    let consumers: Vec<ConsumerId> =
                        same_queue.iter().map(|(_, consumer)| *consumer).collect();
                    queue.resume(&consumers);
                }
            }
            self.drained.notify_waiters();
        }
    }
}

fn write_confirm(out: &mut BytesMut, channel: u16, confirm: Confirm) {
    frame::write(out, frame::METHOD, channel, |out| {
        if confirm.ack {
            encode_ack(out, confirm.tag, confirm.multiple);
        } else {
            encode_nack(out, confirm.tag, confirm.multiple, true);
        }
    });
}

/// The connection's writer task: sends what waits, and a heartbeat when half an interval passed without a write
/// (amqp-behaviour 1.7). Ends when the outbox is closed or the socket fails.
pub(super) async fn write_loop(outbox: Arc<Outbox>, mut socket: OwnedWriteHalf, heartbeat: Duration) {
    let mut spare = Frames::default();
    let beat = if heartbeat.is_zero() {
        Duration::from_secs(86_400)
    } else {
        heartbeat / 2
    };
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + beat, beat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A heartbeat does not count as traffic: an idle peer hears one every half interval.
    let mut idle = true;
    loop {
        tokio::select! {
            biased;
            () = outbox.wake.notified() => idle = false,
            _ = ticks.tick() => {
                if std::mem::replace(&mut idle, true) && !heartbeat.is_zero() {
                    spare.tail().extend_from_slice(&HEARTBEAT_FRAME);
                    outbox.unsent.fetch_add(HEARTBEAT_FRAME.len(), Ordering::Relaxed);
                    if send(&mut socket, &mut spare, &outbox).await.is_err() {
                        outbox.abandon();
                        return;
                    }
                }
            }
        }
        while outbox.take(&mut spare) {
            if send(&mut socket, &mut spare, &outbox).await.is_err() {
                outbox.abandon();
                return;
            }
        }
        if outbox.is_broken() {
            return;
        }
        if outbox.closing.load(Ordering::Acquire) && !outbox.take(&mut spare) {
            // Ending our half tells the peer that no more comes; it may have gone already.
            drop(socket.shutdown().await);
            return;
        }
    }
}

async fn send(socket: &mut OwnedWriteHalf, frames: &mut Frames, outbox: &Outbox) -> std::io::Result<()> {
    const SLICES: usize = 64;
    while !frames.pieces.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let tail = std::iter::once(&frames.tail[..]);
        for (slice, piece) in slices
            .iter_mut()
            .zip(frames.pieces.iter().map(|piece| &piece[..]).chain(tail))
        {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let mut written = socket.write_vectored(slices.get(..count).unwrap_or(&[])).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        outbox.sent(written);
        while let Some(front) = frames.pieces.front_mut() {
            if written < front.len() {
                front.advance(written);
                written = 0;
                break;
            }
            written -= front.len();
            frames.pieces.pop_front();
        }
        if written > 0 {
            frames.tail.advance(written);
        }
    }
    while !frames.tail.is_empty() {
        let written = socket.write(&frames.tail).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        outbox.sent(written);
        frames.tail.advance(written);
    }
    // The emptied buffer goes back to be appended to, with its capacity; a burst's is too large to keep.
    if frames.tail.capacity() > KEEP_CAPACITY {
        frames.tail = BytesMut::new();
    } else {
        frames.tail.clear();
    }
    (frames.pieces_bytes, frames.counted) = (0, 0);
    Ok(())
}
