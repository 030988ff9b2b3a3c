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
use socket2::SockRef;
use tokio::{net::tcp::OwnedWriteHalf, sync::Notify, time::MissedTickBehavior};

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
/// What is more than this goes through the writer task.
const DIRECT_MAX: usize = 16 * 1024;

/// Frames in the order they go out: shared pieces, then what is still being appended to.
#[derive(Default)]
pub(super) struct Frames {
    pieces: VecDeque<Bytes>,
    pieces_bytes: usize,
    tail: BytesMut,
    /// What has been counted as unsent.
    counted: usize,
    /// Somebody writes to the socket what was taken before: nobody else may.
    busy: bool,
    /// The writer task came while it was busy, and is to be woken.
    wanted: bool,
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

    /// Counts what was appended since this was called last.
    fn count(&mut self) -> usize {
        let len = self.len();
        len - std::mem::replace(&mut self.counted, len)
    }
}

/// The way around the writer task.
#[derive(Default)]
struct Direct {
    /// The writer task's, while it runs.
    socket: Option<Arc<OwnedWriteHalf>>,
    buffer: BytesMut,
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
    direct: Mutex<Direct>,
    /// Nothing is appended any more; the writer sends what is left and ends.
    closing: AtomicBool,
    /// The socket is gone.
    broken: AtomicBool,
    /// Octets the socket took, and in how many writes; whoever has the socket adds.
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
            direct: Mutex::default(),
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
        let added = frames.count();
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

    /// A channel has confirms to send; [`Self::wake`] has to follow. Behind a connection's last frame nothing is sent, and
    /// nobody would take them out of the list, which the channel holds.
    pub(super) fn list(&self, channel: Arc<ChannelConfirms>) {
        if self.closing.load(Ordering::Acquire) || self.is_broken() {
            return;
        }
        self.confirms.lock().push(channel);
    }

    /// The writer task looks for what there is to send.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn confirm(&self, channel: Arc<ChannelConfirms>) {
        self.list(channel);
        self.wake();
    }

    /// Sends a channel's confirms from the calling thread, without waiting, when the socket is free and takes them; a wake-up of
    /// the writer task would cost a lone publisher more than the write. Otherwise they go the usual way.
    pub(super) fn confirm_at_once(&self, channel: Arc<ChannelConfirms>) {
        let Some(mut direct) = self.direct.try_lock() else {
            return self.confirm(channel);
        };
        let Direct { socket, buffer } = &mut *direct;
        let Some(socket) = socket else {
            return self.confirm(channel);
        };
        channel.flush(|number, confirms| {
            let mut frames = self.frames.lock();
            for confirm in confirms {
                write_confirm(frames.tail(), number, *confirm);
            }
            let added = frames.count();
            self.unsent.fetch_add(added, Ordering::Relaxed);
            if frames.busy || !frames.pieces.is_empty() || frames.len() > DIRECT_MAX || self.is_broken() {
                self.wake.notify_one();
                return;
            }
            frames.busy = true;
            std::mem::swap(&mut frames.tail, buffer);
            frames.counted = 0;
            drop(frames);
            // An error is met again by the writer task, which knows what to do.
            let written = socket.try_write(buffer).unwrap_or(0);
            if written > 0 {
                self.sent(written);
            }
            buffer.advance(written);
            let mut frames = self.frames.lock();
            frames.busy = false;
            if !buffer.is_empty() {
                let rest = buffer.split().freeze();
                frames.counted += rest.len();
                frames.pieces_bytes += rest.len();
                frames.pieces.push_front(rest);
            }
            buffer.clear();
            if std::mem::take(&mut frames.wanted) || frames.len() > 0 {
                self.wake.notify_one();
            }
        });
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

    /// Takes the socket for the writer task, which has to give it back. False when another has it, who wakes the task
    /// when done.
    fn seize(&self) -> bool {
        let mut frames = self.frames.lock();
        frames.wanted = frames.busy;
        !std::mem::replace(&mut frames.busy, true)
    }

    fn give_back(&self) {
        self.frames.lock().busy = false;
    }

    /// Everything was sent, and nobody is at it.
    fn is_empty(&self) -> bool {
        let frames = self.frames.lock();
        !frames.busy && frames.len() == 0
    }

    /// Takes what waits, for whoever has the socket.
    fn take(&self, spare: &mut Frames) -> bool {
        let channels = std::mem::take(&mut *self.confirms.lock());
        // Confirms leave in order: nobody else collects them meanwhile.
        let direct = (!channels.is_empty()).then(|| self.direct.lock());
        for channel in channels {
            channel.flush(|channel, confirms| {
                self.append(|frames| {
                    for confirm in confirms {
                        write_confirm(frames.tail(), channel, *confirm);
                    }
                });
            });
        }
        drop(direct);
        let mut frames = self.frames.lock();
        spare.busy = frames.busy;
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
pub(super) async fn write_loop(outbox: Arc<Outbox>, socket: OwnedWriteHalf, heartbeat: Duration) {
    let socket = Arc::new(socket);
    outbox.direct.lock().socket = Some(Arc::clone(&socket));
    if let Err(error) = write_until_closed(&outbox, &socket, heartbeat).await {
        tracing::debug!(%error, "the client's socket failed");
        outbox.abandon();
    }
    outbox.direct.lock().socket = None;
    outbox.confirms.lock().clear();
}

async fn write_until_closed(
    outbox: &Outbox,
    socket: &OwnedWriteHalf,
    heartbeat: Duration,
) -> std::io::Result<()> {
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
        let mut beats = false;
        tokio::select! {
            biased;
            () = outbox.wake.notified() => idle = false,
            _ = ticks.tick() => beats = std::mem::replace(&mut idle, true) && !heartbeat.is_zero(),
        }
        // Whoever has the socket writes, and wakes us for the rest.
        if outbox.seize() {
            if beats {
                spare.tail().extend_from_slice(&HEARTBEAT_FRAME);
                outbox.unsent.fetch_add(HEARTBEAT_FRAME.len(), Ordering::Relaxed);
                send(socket, &mut spare, outbox).await?;
            }
            while outbox.take(&mut spare) {
                send(socket, &mut spare, outbox).await?;
                // Writes that never have to wait would keep the thread from all other tasks.
                tokio::task::coop::consume_budget().await;
            }
            outbox.give_back();
        }
        if outbox.is_broken() {
            return Ok(());
        }
        if outbox.closing.load(Ordering::Acquire) && outbox.is_empty() {
            // Ending our half tells the peer that no more comes; it may have gone already.
            drop(SockRef::from(socket.as_ref()).shutdown(std::net::Shutdown::Write));
            return Ok(());
        }
    }
}

async fn send(socket: &OwnedWriteHalf, frames: &mut Frames, outbox: &Outbox) -> std::io::Result<()> {
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
        let slices = slices.get(..count).unwrap_or(&[]);
        let mut written = written(socket, || socket.try_write_vectored(slices)).await?;
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
        let written = written(socket, || socket.try_write(&frames.tail)).await?;
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

/// Octets the socket took, at least one.
async fn written(
    socket: &OwnedWriteHalf,
    write: impl Fn() -> std::io::Result<usize>,
) -> std::io::Result<usize> {
    loop {
        match write() {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => socket.writable().await?,
            other => return other,
        }
    }
}
