//! What the door shows: vhosts, queues, exchanges, bindings, connections, channels, consumers, and numbers.

use std::{net::SocketAddr, sync::atomic::Ordering};

use crate::broker::{
    definition::{BindingDefinition, Destination, ExchangeDefinition, Name},
    queue::ConsumerOptions,
};
use crate::protocol::field::FieldTable;
use crate::server::{
    AlarmStatus, Handle, History, QueueLook, Subject, Tally,
    clients::Client,
    consumer_port::ChannelOut,
    queue_cell::ConnectionId,
    registry::Vhost,
    stats::{BUCKETS, Protocol},
};
use crate::storage::StoreStats;

/// An open connection.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    pub id: ConnectionId,
    pub name: String,
    pub peer: SocketAddr,
    pub here: SocketAddr,
    pub user: String,
    pub vhost: String,
    pub mechanism: String,
    pub properties: FieldTable,
    pub channel_max: u16,
    pub frame_max: u32,
    pub heartbeat_s: u64,
    /// Milliseconds since 1970.
    pub connected_at: u64,
    pub channels: usize,
    pub received_octets: u64,
    pub sent_octets: u64,
    pub received_packets: u64,
    pub sent_packets: u64,
    /// Octets that wait for the client to take them.
    pub pending_octets: usize,
}

/// An open channel.
#[derive(Clone, Debug)]
pub struct ChannelView {
    pub connection: ConnectionId,
    pub number: u16,
    pub connection_name: String,
    pub peer: SocketAddr,
    pub user: String,
    pub vhost: String,
    pub prefetch: u16,
    pub confirm: bool,
    pub transactional: bool,
    pub consumers: usize,
    pub unacked: usize,
    pub unconfirmed: usize,
    pub counts: Tally,
}

impl ChannelView {
    /// As RabbitMQ names channels: the connection's name and the number.
    pub fn name(&self) -> String {
        format!("{} ({})", self.connection_name, self.number)
    }
}

/// A consumer.
#[derive(Clone, Debug)]
pub struct ConsumerView {
    pub vhost: Name,
    pub queue: Name,
    pub tag: String,
    pub options: ConsumerOptions,
    pub arguments: FieldTable,
    pub unacked: u64,
    pub connection: ConnectionId,
    pub channel: u16,
    /// Empty fields when the connection ends just now.
    pub connection_name: String,
    pub peer: Option<SocketAddr>,
    pub user: String,
}

impl Handle {
    pub(super) fn running_vhost(&self, name: &str) -> Option<std::sync::Arc<Vhost>> {
        self.broker.vhost(name)
    }

    /// The vhosts of this name, or all.
    fn vhosts_named(&self, name: Option<&str>) -> Vec<std::sync::Arc<Vhost>> {
        match name {
            Some(name) => self.running_vhost(name).into_iter().collect(),
            None => self.broker.vhosts(),
        }
    }

    /// Names of all vhosts, sorted.
    pub fn vhost_names(&self) -> Vec<Name> {
        self.broker
            .vhosts()
            .iter()
            .map(|vhost| Name::clone(&vhost.name))
            .collect()
    }

    pub fn vhost_exists(&self, name: &str) -> bool {
        self.running_vhost(name).is_some()
    }

    /// What a vhost's queues, exchanges and channels counted, those that are gone included.
    pub fn vhost_counts(&self, name: &str) -> Tally {
        self.running_vhost(name)
            .map(|vhost| vhost.counters.read())
            .unwrap_or_default()
    }

    /// Queues of one vhost or all, by vhost and name.
    pub fn queues(&self, vhost: Option<&str>) -> Vec<QueueLook> {
        let mut found = Vec::new();
        for vhost in self.vhosts_named(vhost) {
            let mut queues = vhost.all_queues();
            queues.sort_by(|left, right| left.name().cmp(right.name()));
            found.extend(queues.into_iter().map(QueueLook));
        }
        found
    }

    /// Octets received from and sent to connections of a vhost, those that are gone included.
    pub fn vhost_octets(&self, name: &str) -> (u64, u64) {
        self.broker.connections.octets(name)
    }

    /// Queues of a vhost in no order: for sums.
    pub fn queues_unsorted(&self, vhost: &str) -> Vec<QueueLook> {
        let vhost = self.running_vhost(vhost);
        let queues = vhost.map(|vhost| vhost.all_queues()).unwrap_or_default();
        queues.into_iter().map(QueueLook).collect()
    }

    pub fn queue(&self, vhost: &str, name: &str) -> Option<QueueLook> {
        let vhost = self.running_vhost(vhost)?;
        vhost.read(|topology| topology.queue(name.as_bytes()).cloned().map(QueueLook))
    }

    pub fn queue_count(&self, vhost: &str) -> usize {
        self.running_vhost(vhost)
            .map_or(0, |vhost| vhost.read(|topology| topology.queues().count()))
    }

    /// The default exchange included.
    pub fn exchange_count(&self, vhost: &str) -> usize {
        self.running_vhost(vhost)
            .map_or(0, |vhost| vhost.read(|topology| topology.exchanges().count() + 1))
    }

    pub fn consumer_count(&self, vhost: &str) -> usize {
        let queues = self.running_vhost(vhost).map(|vhost| vhost.all_queues());
        let queues = queues.unwrap_or_default();
        queues
            .iter()
            .map(|queue| queue.lock().state.consumer_count())
            .sum()
    }

    /// Exchanges of one vhost or all, the default one included, by vhost and name.
    pub fn exchanges(&self, vhost: Option<&str>) -> Vec<ExchangeDefinition> {
        let mut found = Vec::new();
        for vhost in self.vhosts_named(vhost) {
            let mut exchanges = vec![default_exchange(&vhost.name)];
            vhost.read(|topology| {
                exchanges.extend(topology.exchanges().map(|exchange| exchange.definition().clone()));
            });
            exchanges.sort_by(|left, right| left.name.cmp(&right.name));
            found.append(&mut exchanges);
        }
        found
    }

    /// An exchange; the empty name is the default one.
    pub fn exchange(&self, vhost: &str, name: &str) -> Option<ExchangeDefinition> {
        let vhost = self.running_vhost(vhost)?;
        if name.is_empty() {
            return Some(default_exchange(&vhost.name));
        }
        vhost.read(|topology| {
            topology
                .exchange(name)
                .map(|exchange| exchange.definition().clone())
        })
    }

    /// Messages that went into an exchange, and out of it to queues.
    pub fn exchange_counts(&self, vhost: &str, name: &str) -> Option<(u64, u64)> {
        self.running_vhost(vhost)?.exchange_traffic.read(name)
    }

    /// Bindings that a test accepts, those of the default exchange to each queue included. Unsorted within a vhost.
    pub fn bindings(
        &self,
        vhost: Option<&str>,
        mut wanted: impl FnMut(&BindingDefinition) -> bool,
    ) -> Vec<BindingDefinition> {
        let mut found = Vec::new();
        for vhost in self.vhosts_named(vhost) {
            vhost.read(|topology| {
                for queue in topology.queues() {
                    let implicit = BindingDefinition {
                        vhost: Name::clone(&vhost.name),
                        source: "".into(),
                        destination: Destination::Queue(Name::clone(queue.name())),
                        routing_key: Name::clone(queue.name()),
                        arguments: FieldTable::new(),
                    };
                    if wanted(&implicit) {
                        found.push(implicit);
                    }
                }
                for exchange in topology.exchanges() {
                    found.extend(exchange.bindings().filter(|binding| wanted(binding)).cloned());
                }
            });
        }
        found
    }

    /// Open connections, by name.
    pub fn connections(&self) -> Vec<ConnectionView> {
        let mut views: Vec<ConnectionView> = self
            .broker
            .connections
            .all()
            .iter()
            .map(|client| view_connection(client))
            .collect();
        views.sort_by(|left, right| left.name.cmp(&right.name));
        views
    }

    pub fn connection(&self, id: ConnectionId) -> Option<ConnectionView> {
        self.broker
            .connections
            .get(id)
            .map(|client| view_connection(&client))
    }

    pub fn connection_count(&self) -> usize {
        self.broker.connections.len()
    }

    pub fn channel_count(&self) -> usize {
        let connections = self.broker.connections.all();
        connections.iter().map(|client| client.channel_count()).sum()
    }

    /// Open channels of the connections a test accepts, by connection name and number.
    pub fn channels(&self, wanted: impl Fn(&ConnectionView) -> bool) -> Vec<ChannelView> {
        let consumers = self.consumer_counts();
        let mut found = Vec::new();
        for client in self.broker.connections.all() {
            let connection = view_connection(&client);
            if !wanted(&connection) {
                continue;
            }
            for (number, channel) in client.channels() {
                let count = consumers.get(&(client.id, number)).copied().unwrap_or(0);
                found.push(view_channel(&connection, number, &channel, count));
            }
        }
        found.sort_by(|left, right| {
            (&left.connection_name, left.number).cmp(&(&right.connection_name, right.number))
        });
        found
    }

    fn consumer_counts(&self) -> ahash::AHashMap<(ConnectionId, u16), usize> {
        let mut counts = ahash::AHashMap::new();
        for vhost in self.broker.vhosts() {
            for queue in vhost.all_queues() {
                for (_, _, port, _) in queue.lock().state.consumers() {
                    *counts
                        .entry((port.channel.connection, port.channel.id))
                        .or_default() += 1;
                }
            }
        }
        counts
    }

    /// Consumers of one vhost or all, by vhost, queue and tag.
    pub fn consumers(&self, vhost: Option<&str>) -> Vec<ConsumerView> {
        self.queues(vhost)
            .iter()
            .flat_map(|queue| self.queue_consumers(queue))
            .collect()
    }

    /// A queue's consumers, by tag.
    pub fn queue_consumers(&self, queue: &QueueLook) -> Vec<ConsumerView> {
        let definition = queue.definition();
        let mut found: Vec<ConsumerView> = {
            let guard = queue.0.lock();
            let view = |options: &ConsumerOptions, port: &super::consumer_port::ConsumerPort, unacked| {
                ConsumerView {
                    vhost: Name::clone(&definition.vhost),
                    queue: Name::clone(&definition.name),
                    tag: String::from_utf8_lossy(&port.tag).into_owned(),
                    options: *options,
                    arguments: port.arguments.clone(),
                    unacked,
                    connection: port.channel.connection,
                    channel: port.channel.id,
                    connection_name: String::new(),
                    peer: None,
                    user: String::new(),
                }
            };
            let consumers = guard.state.consumers();
            consumers
                .map(|(_, options, port, unacked)| view(options, port, unacked))
                .collect()
        };
        for consumer in &mut found {
            if let Some(client) = self.broker.connections.get(consumer.connection) {
                consumer.connection_name.clone_from(&client.name);
                consumer.user.clone_from(&client.user);
                consumer.peer = Some(client.peer);
            }
        }
        found.sort_by(|left, right| left.tag.cmp(&right.tag));
        found
    }

    /// Closes the connections a test accepts with 320 and this text; gives how many.
    pub fn close_connections(&self, reason: &str, wanted: impl Fn(&ConnectionView) -> bool) -> usize {
        let mut closed = 0;
        for client in self.broker.connections.all() {
            if wanted(&view_connection(&client)) {
                client.close(reason);
                closed += 1;
            }
        }
        closed
    }

    /// Gives an object's history to `read`, if it has one.
    pub fn with_history<T>(&self, subject: &Subject, read: impl FnOnce(&History) -> T) -> Option<T> {
        self.broker.sampler.with(subject, read)
    }

    /// Forgets all histories; counters go on.
    pub fn reset_histories(&self) {
        self.broker.sampler.reset();
    }

    /// Comings and goings, in the order of [`super::Churn::NAMES`].
    pub fn churn(&self) -> [u64; 7] {
        self.broker.queues.churn.read()
    }

    pub fn store_stats(&self) -> StoreStats {
        self.broker.store.stats()
    }

    /// Alarms and the limits that raise them.
    pub fn alarms(&self) -> AlarmStatus {
        self.broker.alarms().status()
    }

    /// Messages put into queues, once per queue.
    pub fn routed(&self) -> u64 {
        let vhosts = self.broker.vhosts();
        vhosts
            .iter()
            .map(|vhost| vhost.routed.load(Ordering::Relaxed))
            .sum()
    }

    /// Published messages by size, in the buckets of [`super::SIZE_BOUNDS`] and one above; and their bytes.
    pub fn message_sizes(&self) -> ([u64; BUCKETS], u64) {
        let mut all = ([0; BUCKETS], 0);
        for vhost in self.broker.vhosts() {
            let (buckets, bytes) = vhost.sizes.read();
            for (sum, count) in all.0.iter_mut().zip(buckets) {
                *sum += count;
            }
            all.1 += bytes;
        }
        all
    }

    /// When the broker started, milliseconds since 1970.
    pub fn started_at(&self) -> u64 {
        self.broker.started_at
    }

    /// Logins that succeeded and failed.
    pub fn auth_attempts(&self, protocol: Protocol) -> (u64, u64) {
        self.broker.attempts(protocol).read()
    }

    pub fn note_auth_attempt(&self, protocol: Protocol, success: bool) {
        self.broker.attempts(protocol).note(success);
    }

    pub fn reset_auth_attempts(&self) {
        self.broker.attempts(Protocol::Amqp).reset();
        self.broker.attempts(Protocol::Http).reset();
    }

    /// `leveret@HOST`.
    pub fn node_name(&self) -> String {
        super::node_name()
    }

    pub fn cluster_name(&self) -> String {
        self.broker.cluster_name()
    }

    /// The broker is stopping.
    pub fn is_stopping(&self) -> bool {
        self.broker.shutdown_signal().borrow().is_some()
    }

    /// Resolves when the broker stops.
    pub async fn stopping(&self) {
        let mut signal = self.broker.shutdown_signal();
        // The sender lives as long as the broker.
        drop(signal.wait_for(Option::is_some).await);
    }
}

fn default_exchange(vhost: &Name) -> ExchangeDefinition {
    ExchangeDefinition {
        vhost: Name::clone(vhost),
        name: "".into(),
        kind: "direct".into(),
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: FieldTable::new(),
    }
}

fn view_connection(client: &Client) -> ConnectionView {
    let (received_octets, sent_octets) = client.octets();
    let (received_packets, sent_packets) = client.packets();
    ConnectionView {
        id: client.id,
        name: client.name.clone(),
        peer: client.peer,
        here: client.here,
        user: client.user.clone(),
        vhost: client.vhost.clone(),
        mechanism: client.mechanism.clone(),
        properties: client.properties.clone(),
        channel_max: client.channel_max,
        frame_max: client.frame_max,
        heartbeat_s: client.heartbeat_s,
        connected_at: client.connected_at,
        channels: client.channel_count(),
        received_octets,
        sent_octets,
        received_packets,
        sent_packets,
        pending_octets: client.outbox.unsent(),
    }
}

fn view_channel(
    connection: &ConnectionView,
    number: u16,
    channel: &ChannelOut,
    consumers: usize,
) -> ChannelView {
    let confirms = channel.facts.confirms.get();
    ChannelView {
        connection: connection.id,
        number,
        connection_name: connection.name.clone(),
        peer: connection.peer,
        user: connection.user.clone(),
        vhost: connection.vhost.clone(),
        prefetch: channel.facts.prefetch.load(Ordering::Relaxed),
        confirm: confirms.is_some(),
        transactional: channel.facts.transactional.load(Ordering::Relaxed),
        consumers,
        unacked: channel.unacked.lock().len(),
        unconfirmed: confirms.map_or(0, |confirms| confirms.waiting()),
        counts: channel.counters.read(),
    }
}
