//! Families of queues, exchanges, connections and channels (cli-and-metrics 13.3).

use super::page::{Column, Kind, LabelList, Labels, Page};
use crate::management::queues::queue_type;
use crate::server::{ChannelView, ConnectionView, Count, Handle, QueueLook, QueueNow, Tally};

/// A queue at one moment.
struct QueueRow {
    now: QueueNow,
    counts: Tally,
    /// Messages and bytes.
    persistent: (u64, u64),
}

/// Vhost, name, and messages published into it.
struct ExchangeRow(String, String, u64);

fn count(counts: &Tally, count: Count) -> u64 {
    counts.get(count as usize).copied().unwrap_or(0)
}

fn queue_labels<'a>(queue: &'a &QueueLook) -> LabelList<'a> {
    let definition = queue.definition();
    LabelList::from_iter([("vhost", &*definition.vhost), ("queue", &*definition.name)])
}

/// The label is called so in RabbitMQ too.
fn channel_labels(name: &String) -> LabelList<'_> {
    LabelList::from_iter([("channel", &**name)])
}

fn total(row: &QueueRow) -> u64 {
    row.now.lengths.ready + row.now.lengths.unacked
}

fn nothing<T>(_: &T) -> u64 {
    0
}

const COARSE: [Column<QueueRow>; 4] = [
    (
        "queue_messages_ready",
        Kind::Gauge,
        "Messages ready to be delivered to consumers",
        |row| row.now.lengths.ready,
    ),
    (
        "queue_messages_unacked",
        Kind::Gauge,
        "Messages delivered to consumers but not yet acknowledged",
        |row| row.now.lengths.unacked,
    ),
    (
        "queue_messages",
        Kind::Gauge,
        "Sum of ready and unacknowledged messages",
        total,
    ),
    (
        "queue_process_reductions_total",
        Kind::Counter,
        "Always 0: there are no Erlang processes",
        nothing,
    ),
];

const CONSUMERS: [Column<QueueRow>; 1] = [("queue_consumers", Kind::Gauge, "Consumers on a queue", |row| {
    row.now.consumers as u64
})];

const QUEUE: [Column<QueueRow>; 13] = [
    (
        "queue_consumer_capacity",
        Kind::Gauge,
        "Whether there are consumers",
        |row| u64::from(row.now.consumers > 0),
    ),
    (
        "queue_consumer_utilisation",
        Kind::Gauge,
        "Whether there are consumers",
        |row| u64::from(row.now.consumers > 0),
    ),
    (
        "queue_messages_ram",
        Kind::Gauge,
        "Messages of a queue in memory",
        |row| row.now.resident + row.now.lengths.unacked,
    ),
    (
        "queue_messages_ram_bytes",
        Kind::Gauge,
        "Bytes of bodies in memory",
        |row| row.now.resident_bytes + row.now.unacked_bytes,
    ),
    (
        "queue_messages_ready_ram",
        Kind::Gauge,
        "Ready messages of a queue in memory",
        |row| row.now.resident,
    ),
    (
        "queue_messages_unacked_ram",
        Kind::Gauge,
        "Unacknowledged messages of a queue",
        |row| row.now.lengths.unacked,
    ),
    (
        "queue_messages_persistent",
        Kind::Gauge,
        "Persistent messages of a durable queue",
        |row| row.persistent.0,
    ),
    (
        "queue_messages_persistent_bytes",
        Kind::Gauge,
        "Bytes of persistent bodies of a durable queue",
        |row| row.persistent.1,
    ),
    (
        "queue_messages_bytes",
        Kind::Gauge,
        "Bytes of ready and unacknowledged bodies",
        body_bytes,
    ),
    (
        "queue_messages_ready_bytes",
        Kind::Gauge,
        "Bytes of ready bodies",
        |row| row.now.ready_bytes,
    ),
    (
        "queue_messages_unacked_bytes",
        Kind::Gauge,
        "Bytes of unacknowledged bodies",
        |row| row.now.unacked_bytes,
    ),
    (
        "queue_process_memory_bytes",
        Kind::Gauge,
        "Memory that the messages of a queue take",
        |row| row.now.memory_bytes,
    ),
    (
        "queue_head_message_timestamp",
        Kind::Gauge,
        "Timestamp of the oldest message, 0 when it has none",
        |row| row.now.head_timestamp.unwrap_or(0),
    ),
];

fn body_bytes(row: &QueueRow) -> u64 {
    row.now.ready_bytes + row.now.unacked_bytes
}

const DELIVERY: [Column<QueueRow>; 7] = [
    (
        "queue_get_ack_total",
        Kind::Counter,
        "Messages fetched with basic.get in manual acknowledgement mode",
        |row| count(&row.counts, Count::Get),
    ),
    (
        "queue_get_total",
        Kind::Counter,
        "Messages fetched with basic.get in automatic acknowledgement mode",
        |row| count(&row.counts, Count::GetNoAck),
    ),
    (
        "queue_messages_delivered_ack_total",
        Kind::Counter,
        "Messages delivered in manual acknowledgement mode",
        |row| count(&row.counts, Count::Deliver),
    ),
    (
        "queue_messages_delivered_total",
        Kind::Counter,
        "Messages delivered in automatic acknowledgement mode",
        |row| count(&row.counts, Count::DeliverNoAck),
    ),
    (
        "queue_messages_redelivered_total",
        Kind::Counter,
        "Messages redelivered to consumers",
        |row| count(&row.counts, Count::Redeliver),
    ),
    (
        "queue_messages_acked_total",
        Kind::Counter,
        "Messages acknowledged by consumers",
        |row| count(&row.counts, Count::Ack),
    ),
    (
        "queue_get_empty_total",
        Kind::Counter,
        "Times basic.get found no message",
        |row| count(&row.counts, Count::GetEmpty),
    ),
];

const EXCHANGE: [Column<ExchangeRow>; 1] = [(
    "exchange_messages_published_total",
    Kind::Counter,
    "Messages published into an exchange",
    |row| row.2,
)];

const CONNECTION_COARSE: [Column<ConnectionView>; 3] = [
    (
        "connection_incoming_bytes_total",
        Kind::Counter,
        "Bytes received on a connection",
        |row| row.received_octets,
    ),
    (
        "connection_outgoing_bytes_total",
        Kind::Counter,
        "Bytes sent on a connection",
        |row| row.sent_octets,
    ),
    (
        "connection_process_reductions_total",
        Kind::Counter,
        "Always 0: there are no Erlang processes",
        nothing,
    ),
];

const CONNECTION: [Column<ConnectionView>; 4] = [
    (
        "connection_incoming_packets_total",
        Kind::Counter,
        "Reads on a connection",
        |row| row.received_packets,
    ),
    (
        "connection_outgoing_packets_total",
        Kind::Counter,
        "Writes on a connection",
        |row| row.sent_packets,
    ),
    (
        "connection_pending_packets",
        Kind::Gauge,
        "Bytes waiting to be sent on a connection",
        |row| row.pending_octets as u64,
    ),
    (
        "connection_channels",
        Kind::Gauge,
        "Channels on a connection",
        |row| row.channels as u64,
    ),
];

const CHANNEL: [Column<ChannelView>; 7] = [
    (
        "channel_consumers",
        Kind::Gauge,
        "Consumers on a channel",
        |row| row.consumers as u64,
    ),
    (
        "channel_messages_unacked",
        Kind::Gauge,
        "Delivered but not yet acknowledged messages",
        |row| row.unacked as u64,
    ),
    (
        "channel_messages_unconfirmed",
        Kind::Gauge,
        "Published but not yet confirmed messages",
        |row| row.unconfirmed as u64,
    ),
    (
        "channel_messages_uncommitted",
        Kind::Gauge,
        "Messages received in a transaction but not yet committed",
        nothing,
    ),
    (
        "channel_acks_uncommitted",
        Kind::Gauge,
        "Acknowledgements in a transaction not yet committed",
        nothing,
    ),
    (
        "consumer_prefetch",
        Kind::Gauge,
        "Limit of unacknowledged messages for each new consumer",
        |row| row.prefetch.into(),
    ),
    (
        "channel_prefetch",
        Kind::Gauge,
        "Total limit of unacknowledged messages on a channel",
        nothing,
    ),
];

/// Which objects a page shows, and how.
pub(super) struct Choice<'a> {
    pub(super) prefix: &'static str,
    /// One series per object.
    pub(super) labelled: bool,
    pub(super) wants: &'a dyn Fn(&str) -> bool,
    pub(super) vhosts: &'a [String],
    pub(super) queue: Option<&'a regex::Regex>,
}

/// Writes every family that is wanted.
pub(super) fn write(page: &mut Page<'_>, handle: &Handle, choice: &Choice<'_>) {
    queues(page, handle, choice);
    let wants = choice.wants;
    if wants("exchange_metrics") {
        // Only those that have seen a message.
        let rows = choice.vhosts.iter().flat_map(|vhost| {
            handle.exchanges(Some(vhost)).into_iter().filter_map(|exchange| {
                let (published, _) = handle.exchange_counts(vhost, &exchange.name)?;
                let name = exchange.name.to_string();
                Some(ExchangeRow(vhost.clone(), name, published))
            })
        });
        families(
            page,
            choice,
            &EXCHANGE,
            rows,
            |row| (row.0.clone(), row.1.clone()),
            |(vhost, name)| LabelList::from_iter([("vhost", &**vhost), ("exchange", &**name)]),
        );
    }
    let mut of_connections: Vec<Column<ConnectionView>> = Vec::new();
    if wants("connection_coarse_metrics") {
        of_connections.extend(CONNECTION_COARSE);
    }
    if wants("connection_metrics") {
        of_connections.extend(CONNECTION);
    }
    if !of_connections.is_empty() {
        let rows = handle.connections().into_iter();
        families(
            page,
            choice,
            &of_connections,
            rows,
            |row| row.name.clone(),
            channel_labels,
        );
    }
    if wants("channel_metrics") {
        let rows = handle.channels(|_| true).into_iter();
        families(page, choice, &CHANNEL, rows, ChannelView::name, channel_labels);
    }
}

/// Families of one kind of object, as the choice has them.
fn families<K, T>(
    page: &mut Page<'_>,
    choice: &Choice<'_>,
    columns: &[Column<T>],
    rows: impl Iterator<Item = T>,
    name: impl Fn(&T) -> K,
    labels: Labels<K>,
) {
    if choice.labelled {
        page.objects(choice.prefix, columns, rows.map(|row| (name(&row), row)), labels);
    } else {
        page.sums(choice.prefix, columns, rows);
    }
}

fn queues(page: &mut Page<'_>, handle: &Handle, choice: &Choice<'_>) {
    let wants = choice.wants;
    let (coarse, consumers) = (wants("queue_coarse_metrics"), wants("queue_consumer_count"));
    let (all, delivery) = (wants("queue_metrics"), wants("queue_delivery_metrics"));
    let mut columns: Vec<Column<QueueRow>> = Vec::new();
    if coarse {
        columns.extend(COARSE);
    }
    if consumers || all {
        columns.extend(CONSUMERS);
    }
    if all {
        columns.extend(QUEUE);
    }
    if delivery {
        columns.extend(DELIVERY);
    }
    if columns.is_empty() {
        return;
    }
    let look = |queue: &QueueLook| {
        let now = queue.state();
        QueueRow {
            counts: queue.counts(),
            persistent: if all { queue.persistent(&now) } else { (0, 0) },
            now,
        }
    };
    let queues = choice
        .vhosts
        .iter()
        .flat_map(|vhost| handle.queues_unsorted(vhost));
    if !choice.labelled {
        page.sums(choice.prefix, &columns, queues.map(|queue| look(&queue)));
        return;
    }
    let chosen = queues.filter(|queue| {
        let name = &queue.definition().name;
        choice.queue.is_none_or(|pattern| pattern.is_match(name))
    });
    let chosen: Vec<QueueLook> = chosen.collect();
    let rows = chosen.iter().map(|queue| (queue, look(queue)));
    page.objects(choice.prefix, &columns, rows, queue_labels);
    if coarse || consumers || all {
        let name = format!("{}queue_info", choice.prefix);
        page.family(&name, Kind::Gauge, "Metadata about queues");
        for queue in &chosen {
            let kind = match queue_type(queue) {
                "quorum" => "rabbit_quorum_queue",
                "stream" => "rabbit_stream_queue",
                _ => "rabbit_classic_queue",
            };
            let mut labels = queue_labels(&queue);
            labels.extend([("queue_type", kind), ("membership", "leader")]);
            page.series(&name, &labels, 1);
        }
    }
}
