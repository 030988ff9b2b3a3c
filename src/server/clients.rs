//! Who is connected: what the door shows of connections and channels, and how one of them is told to go.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::protocol::field::FieldTable;
use crate::server::{consumer_port::ChannelOut, outbox::Outbox, queue_cell::ConnectionId};

/// An open connection, shared by its task and whoever looks.
pub(super) struct Client {
    pub(super) id: ConnectionId,
    /// `PEER -> HERE`, as RabbitMQ names connections.
    pub(super) name: String,
    pub(super) peer: SocketAddr,
    pub(super) here: SocketAddr,
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) mechanism: String,
    pub(super) properties: FieldTable,
    pub(super) channel_max: u16,
    pub(super) frame_max: u32,
    pub(super) heartbeat_s: u64,
    /// Milliseconds since 1970.
    pub(super) connected_at: u64,
    pub(super) outbox: Arc<Outbox>,
    received: AtomicU64,
    reads: AtomicU64,
    channels: Mutex<BTreeMap<u16, Arc<ChannelOut>>>,
    /// Becomes the reason when an operator closes the connection.
    close: watch::Sender<Option<String>>,
}

/// What is known of a connection when it is opened.
pub(super) struct Introduction {
    pub(super) peer: SocketAddr,
    pub(super) here: SocketAddr,
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) mechanism: String,
    pub(super) properties: FieldTable,
    pub(super) channel_max: u16,
    pub(super) frame_max: u32,
    pub(super) heartbeat_s: u64,
    pub(super) connected_at: u64,
}

impl Client {
    /// A read brought so many octets. Only the connection's task calls it.
    pub(super) fn received(&self, octets: usize) {
        let add = |counter: &AtomicU64, amount: u64| {
            counter.store(counter.load(Ordering::Relaxed) + amount, Ordering::Relaxed);
        };
        add(&self.received, octets as u64);
        add(&self.reads, 1);
    }

    /// Octets received and sent.
    pub(super) fn octets(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.outbox.sent_octets().0)
    }

    /// Reads and writes on the socket.
    pub(super) fn packets(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.outbox.sent_octets().1)
    }

    pub(super) fn add_channel(&self, channel: &Arc<ChannelOut>) {
        self.channels.lock().insert(channel.id, Arc::clone(channel));
    }

    /// True when it was there.
    pub(super) fn remove_channel(&self, number: u16) -> bool {
        self.channels.lock().remove(&number).is_some()
    }

    pub(super) fn has_channel(&self, number: u16) -> bool {
        self.channels.lock().contains_key(&number)
    }

    pub(super) fn channel_count(&self) -> usize {
        self.channels.lock().len()
    }

    /// Its channels, ascending.
    pub(super) fn channels(&self) -> Vec<(u16, Arc<ChannelOut>)> {
        let channels = self.channels.lock();
        channels
            .iter()
            .map(|(number, channel)| (*number, Arc::clone(channel)))
            .collect()
    }

    /// Closes the connection with 320 and this text.
    pub(super) fn close(&self, reason: &str) {
        self.close.send_replace(Some(reason.to_owned()));
    }

    /// For the connection's task: becomes the reason when it shall close.
    pub(super) fn close_signal(&self) -> watch::Receiver<Option<String>> {
        self.close.subscribe()
    }
}

/// Connections that are open, so that management and a shutdown can reach them.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<AHashMap<ConnectionId, Arc<Client>>>,
    /// Octets received and sent by connections that are gone, by vhost.
    gone: Mutex<AHashMap<String, (u64, u64)>>,
    next: AtomicU64,
}

impl Connections {
    pub(super) fn add(&self, introduction: Introduction, outbox: Arc<Outbox>) -> Arc<Client> {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            name: format!("{} -> {}", introduction.peer, introduction.here),
            peer: introduction.peer,
            here: introduction.here,
            user: introduction.user,
            vhost: introduction.vhost,
            mechanism: introduction.mechanism,
            properties: introduction.properties,
            channel_max: introduction.channel_max,
            frame_max: introduction.frame_max,
            heartbeat_s: introduction.heartbeat_s,
            connected_at: introduction.connected_at,
            outbox,
            received: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            channels: Mutex::default(),
            close: watch::Sender::new(None),
        });
        self.open.lock().insert(id, Arc::clone(&client));
        client
    }

    pub(super) fn remove(&self, id: ConnectionId) {
        // Both under one lock, so that no sum misses or doubles it.
        let mut open = self.open.lock();
        if let Some(client) = open.remove(&id) {
            let (received, sent) = client.octets();
            let mut gone = self.gone.lock();
            let octets = gone.entry(client.vhost.clone()).or_default();
            *octets = (octets.0 + received, octets.1 + sent);
        }
    }

    /// Octets received from and sent to connections of a vhost, those that are gone included.
    pub(super) fn octets(&self, vhost: &str) -> (u64, u64) {
        let open = self.open.lock();
        let before = self.gone.lock().get(vhost).copied().unwrap_or_default();
        open.values()
            .filter(|client| client.vhost == vhost)
            .map(|client| client.octets())
            .fold(before, |sum, octets| (sum.0 + octets.0, sum.1 + octets.1))
    }

    /// Forgets vhosts that are no more.
    pub(super) fn forget_vhosts(&self, exists: impl Fn(&str) -> bool) {
        self.gone.lock().retain(|vhost, _| exists(vhost));
    }

    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<Arc<Client>> {
        self.open.lock().get(&id).cloned()
    }

    /// In no order.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.open.lock().values().cloned().collect()
    }
}
