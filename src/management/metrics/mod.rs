//! Metrics for Prometheus, with the names and labels that RabbitMQ's dashboards and alert rules query
//! (cli-and-metrics 11 to 15).

mod aside;
mod objects;
mod page;
mod spans;
mod store;
mod stream;

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, Method, Response, StatusCode, header},
};
use regex::Regex;

use self::{
    objects::Choice,
    page::{Kind, Page, Taker},
};
use crate::management::{
    Settings,
    answer::Answer,
    call::Query,
    listener::{self, Received, accepts_gzip},
    overview::{ERLANG_VERSION, RABBITMQ_VERSION, totals},
    process::Process,
};
use crate::server::{Count, Handle, Protocol, SIZE_BOUNDS, Tally, now_ms};

pub(super) use aside::Aside;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Bytes of the pattern that chooses queues.
const PATTERN_MAX: usize = 2000;

/// Answers a request to the metrics listener.
pub(super) fn respond(handle: &Handle, settings: &Arc<Settings>, received: Received) -> Response<Body> {
    let gzip = accepts_gzip(&received.headers);
    let text = |status, text: &str| Answer::text("text/plain; charset=utf-8", text.to_owned()).status(status);
    if !matches!(received.method, Method::GET | Method::HEAD) {
        let refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n").header(header::ALLOW, "GET, HEAD");
        return listener::write(refused, false);
    }
    let path = received.path.strip_suffix('/').unwrap_or(&received.path);
    let page = match path {
        "/metrics" => Ok(Wanted::Whole { labelled: false }),
        "/metrics/per-object" => Ok(Wanted::Whole { labelled: true }),
        "/metrics/memory-breakdown" => Ok(Wanted::Memory),
        "/metrics/detailed" => Detailed::parse(handle, &Query::parse(&received.query))
            .map(Wanted::Detailed)
            .map_err(|problem| text(StatusCode::BAD_REQUEST, problem)),
        "" => Err(text(
            StatusCode::OK,
            "/metrics\n/metrics/per-object\n/metrics/detailed\n/metrics/memory-breakdown\n",
        )),
        _ => Err(text(StatusCode::NOT_FOUND, "Unknown Registry")),
    };
    let head = received.method == Method::HEAD;
    let mut response = match page {
        Ok(page) => send(handle.clone(), Arc::clone(settings), page, gzip, head),
        Err(answer) => listener::write(answer, gzip),
    };
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

/// A page, sent while it is written: the one per object may have hundreds of megabytes.
fn send(handle: Handle, settings: Arc<Settings>, wanted: Wanted, gzip: bool, head: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if !head {
        *response.body_mut() = stream::body(gzip, move |taker| wanted.write(&handle, &settings, taker));
    }
    response
}

/// Which page.
enum Wanted {
    /// Aggregated, or with a series per object.
    Whole {
        labelled: bool,
    },
    Detailed(Detailed),
    Memory,
}

impl Wanted {
    fn write(&self, handle: &Handle, settings: &Settings, taker: &mut dyn Taker) {
        let mut page = Page::to(taker);
        match self {
            Self::Whole { labelled } => whole(&mut page, handle, settings, *labelled),
            Self::Detailed(detailed) => detailed.write(&mut page, handle),
            Self::Memory => memory(&mut page, handle, settings),
        }
        page.finish();
    }
}

fn vhosts(handle: &Handle) -> Vec<String> {
    handle.vhost_names().iter().map(ToString::to_string).collect()
}

fn identity(page: &mut Page<'_>, handle: &Handle, endpoint: &str) {
    let name = "rabbitmq_build_info";
    page.family(name, Kind::Untyped, "RabbitMQ & Erlang/OTP version info");
    let labels = [
        ("rabbitmq_version", RABBITMQ_VERSION),
        ("prometheus_plugin_version", RABBITMQ_VERSION),
        ("prometheus_client_version", env!("CARGO_PKG_VERSION")),
        ("erlang_version", ERLANG_VERSION),
        ("product_version", env!("CARGO_PKG_VERSION")),
        ("product_name", "Leveret"),
    ];
    page.series(name, &labels, 1);
    let name = "rabbitmq_identity_info";
    page.family(name, Kind::Untyped, "RabbitMQ node & cluster identity info");
    let (node, cluster) = (handle.node_name(), handle.cluster_name());
    let labels = [
        ("rabbitmq_node", node.as_str()),
        ("rabbitmq_cluster", &cluster),
        ("rabbitmq_cluster_permanent_id", &cluster),
        ("rabbitmq_endpoint", endpoint),
    ];
    page.series(name, &labels, 1);
}

/// The aggregated page, or the one with a series per object.
fn whole(page: &mut Page<'_>, handle: &Handle, settings: &Settings, labelled: bool) {
    identity(page, handle, if labelled { "per-object" } else { "aggregated" });
    let vhosts = vhosts(handle);
    let (counts, _, _) = totals(handle, &vhosts);
    node(page, handle, settings);
    churn(page, handle);
    attempts(page, handle);
    global(page, handle, &counts);
    if !labelled {
        channels_summed(page, &counts);
    }
    let wants = |_: &str| true;
    let choice = Choice {
        prefix: "rabbitmq_",
        labelled,
        wants: &wants,
        vhosts: &vhosts,
        queue: None,
    };
    objects::write(page, handle, &choice);
    store::write(page, &handle.store_stats());
    spans::write(page, handle);
}

/// Chosen families of chosen vhosts and queues.
struct Detailed {
    families: Vec<String>,
    vhosts: Vec<String>,
    queue: Option<Regex>,
}

impl Detailed {
    fn parse(handle: &Handle, query: &Query) -> Result<Self, &'static str> {
        let pattern = query.get("queue").filter(|pattern| !pattern.is_empty());
        if pattern.is_some_and(|pattern| pattern.len() > PATTERN_MAX) {
            return Err("the queue pattern is too long\n");
        }
        let queue = pattern
            .map(Regex::new)
            .transpose()
            .map_err(|_syntax| "the queue pattern is no regular expression\n")?;
        let mut vhosts = vhosts(handle);
        if query.get("vhost").is_some() {
            vhosts.retain(|vhost| query.all("vhost").any(|wanted| wanted == vhost));
        }
        Ok(Self {
            families: query.all("family").map(ToString::to_string).collect(),
            vhosts,
            queue,
        })
    }

    fn write(&self, page: &mut Page<'_>, handle: &Handle) {
        identity(page, handle, "detailed");
        let wants = |family: &str| self.families.iter().any(|wanted| wanted == family);
        let choice = Choice {
            prefix: "rabbitmq_detailed_",
            labelled: true,
            wants: &wants,
            vhosts: &self.vhosts,
            queue: self.queue.as_ref(),
        };
        objects::write(page, handle, &choice);
        if wants("vhost_status") {
            let name = "rabbitmq_cluster_vhost_status";
            page.family(name, Kind::Gauge, "Whether a vhost runs");
            for vhost in &self.vhosts {
                page.series(name, &[("vhost", vhost)], 1);
            }
        }
        if wants("exchange_names") {
            let name = "rabbitmq_cluster_exchange_name";
            page.family(name, Kind::Gauge, "Enumerates exchanges");
            for exchange in self.vhosts.iter().flat_map(|vhost| handle.exchanges(Some(vhost))) {
                let labels = [
                    ("vhost", &*exchange.vhost),
                    ("exchange", &*exchange.name),
                    ("type", &*exchange.kind),
                ];
                page.series(name, &labels, 1);
            }
        }
    }
}

#[expect(clippy::too_many_lines, reason = "a table: a family a line")]
fn node(page: &mut Page<'_>, handle: &Handle, settings: &Settings) {
    let process = Process::now(&settings.data_dir);
    let alarms = handle.alarms();
    let vhosts = vhosts(handle);
    let sum = |count: &dyn Fn(&str) -> usize| vhosts.iter().map(|vhost| count(vhost)).sum::<usize>() as u64;
    let uptime = now_ms().saturating_sub(handle.started_at()) / 1000;
    let gauges: [(&str, &str, u64); 19] = [
        (
            "rabbitmq_connections",
            "Connections currently open",
            handle.connection_count() as u64,
        ),
        (
            "rabbitmq_channels",
            "Channels currently open",
            handle.channel_count() as u64,
        ),
        (
            "rabbitmq_consumers",
            "Consumers currently connected",
            sum(&|vhost| handle.consumer_count(vhost)),
        ),
        (
            "rabbitmq_queues",
            "Queues available",
            sum(&|vhost| handle.queue_count(vhost)),
        ),
        (
            "rabbitmq_process_open_fds",
            "Open file descriptors",
            process.open_files,
        ),
        (
            "rabbitmq_process_max_fds",
            "Open file descriptors limit",
            process.open_files_max,
        ),
        (
            "rabbitmq_process_open_tcp_sockets",
            "Open TCP sockets",
            handle.connection_count() as u64,
        ),
        (
            "rabbitmq_process_max_tcp_sockets",
            "Open TCP sockets limit",
            process.open_files_max,
        ),
        (
            "rabbitmq_process_resident_memory_bytes",
            "Memory used in bytes",
            process.resident_bytes,
        ),
        (
            "rabbitmq_resident_memory_limit_bytes",
            "Memory high watermark in bytes",
            alarms.memory_limit,
        ),
        (
            "rabbitmq_disk_space_available_bytes",
            "Disk space available in bytes",
            process.disk_free_bytes,
        ),
        (
            "rabbitmq_disk_space_available_limit_bytes",
            "Free disk space low watermark in bytes",
            alarms.disk_free_limit,
        ),
        ("rabbitmq_erlang_processes_used", "Threads", process.threads),
        ("rabbitmq_erlang_processes_limit", "Threads limit", 1_048_576),
        ("rabbitmq_erlang_scheduler_run_queue", "Always 0", 0),
        ("rabbitmq_erlang_net_ticktime_seconds", "Always 60", 60),
        ("rabbitmq_erlang_uptime_seconds", "Node uptime", uptime),
        (
            "rabbitmq_unreachable_cluster_peers_count",
            "Always 0: there is one node",
            0,
        ),
        (
            "process_resident_memory_bytes",
            "Resident memory size in bytes",
            process.resident_bytes,
        ),
    ];
    for (name, help, value) in gauges {
        page.single(name, Kind::Gauge, help, value);
    }
    for (name, help, raised) in [
        (
            "rabbitmq_alarms_memory_used_watermark",
            "is 1 if the memory high watermark alarm is in effect",
            alarms.raised.memory,
        ),
        (
            "rabbitmq_alarms_free_disk_space_watermark",
            "is 1 if the free disk space alarm is in effect",
            alarms.raised.disk,
        ),
        ("rabbitmq_alarms_file_descriptor_limit", "Always 0", false),
    ] {
        page.single(name, Kind::Untyped, help, u8::from(raised));
    }
    page.single(
        "rabbitmq_erlang_scheduler_context_switches_total",
        Kind::Counter,
        "Context switches of the first thread",
        process.context_switches,
    );
    #[expect(
        clippy::cast_precision_loss,
        reason = "a hundredth of a second is exact enough"
    )]
    let seconds = process.cpu_ticks as f64 / 100.0;
    page.single(
        "process_cpu_seconds_total",
        Kind::Counter,
        "CPU time in seconds",
        seconds,
    );
}

fn churn(page: &mut Page<'_>, handle: &Handle) {
    let names = [
        ("rabbitmq_connections_opened_total", "Connections opened"),
        (
            "rabbitmq_connections_closed_total",
            "Connections closed or terminated",
        ),
        ("rabbitmq_channels_opened_total", "Channels opened"),
        ("rabbitmq_channels_closed_total", "Channels closed"),
        ("rabbitmq_queues_declared_total", "Queues declared"),
        ("rabbitmq_queues_created_total", "Queues created"),
        ("rabbitmq_queues_deleted_total", "Queues deleted"),
    ];
    for ((name, help), value) in names.into_iter().zip(handle.churn()) {
        page.single(name, Kind::Counter, help, value);
    }
}

fn attempts(page: &mut Page<'_>, handle: &Handle) {
    type Read = fn((u64, u64)) -> u64;
    let logins = [
        ("amqp091", handle.auth_attempts(Protocol::Amqp)),
        ("http", handle.auth_attempts(Protocol::Http)),
    ];
    let families: [(&str, Read); 3] = [
        ("rabbitmq_auth_attempts_total", |(good, bad)| good + bad),
        ("rabbitmq_auth_attempts_succeeded_total", |(good, _)| good),
        ("rabbitmq_auth_attempts_failed_total", |(_, bad)| bad),
    ];
    for (name, read) in families {
        page.family(name, Kind::Counter, "Authentication attempts");
        for (protocol, counts) in logins {
            page.series(name, &[("protocol", protocol)], read(counts));
        }
    }
}

fn of(counts: &Tally, count: Count) -> u64 {
    counts.get(count as usize).copied().unwrap_or(0)
}

/// Counters of the whole broker (cli-and-metrics 13.2).
#[expect(clippy::too_many_lines, reason = "a table: a family a line")]
fn global(page: &mut Page<'_>, handle: &Handle, counts: &Tally) {
    let channels = handle.channels(|_| true);
    let unconfirmed: usize = channels.iter().map(|channel| channel.unconfirmed).sum();
    let publishers = channels
        .iter()
        .filter(|channel| of(&channel.counts, Count::Publish) > 0)
        .count() as u64;
    let consumers: usize = channels.iter().map(|channel| channel.consumers).sum();
    let protocol = [("protocol", "amqp091")];
    let name = |name: &str| format!("rabbitmq_global_{name}");
    for (what, kind, help, value) in [
        (
            "messages_received_total",
            Kind::Counter,
            "Messages received from publishers",
            of(counts, Count::Publish),
        ),
        (
            "messages_received_confirm_total",
            Kind::Counter,
            "Messages received from publishers expecting confirmations",
            of(counts, Count::Confirm) + unconfirmed as u64,
        ),
        (
            "messages_routed_total",
            Kind::Counter,
            "Messages routed to queues",
            handle.routed(),
        ),
        (
            "messages_unroutable_dropped_total",
            Kind::Counter,
            "Unroutable messages dropped",
            of(counts, Count::DropUnroutable),
        ),
        (
            "messages_unroutable_returned_total",
            Kind::Counter,
            "Unroutable messages returned",
            of(counts, Count::ReturnUnroutable),
        ),
        (
            "messages_confirmed_total",
            Kind::Counter,
            "Messages confirmed to publishers",
            of(counts, Count::Confirm),
        ),
        (
            "publishers",
            Kind::Gauge,
            "Channels that have published",
            publishers,
        ),
        ("consumers", Kind::Gauge, "Consumers", consumers as u64),
    ] {
        page.family(&name(what), kind, help);
        page.series(&name(what), &protocol, value);
    }
    let (manual, automatic) = (of(counts, Count::Deliver), of(counts, Count::DeliverNoAck));
    let (get, get_no_ack) = (of(counts, Count::Get), of(counts, Count::GetNoAck));
    for (what, value) in [
        ("messages_delivered_total", manual + automatic + get + get_no_ack),
        ("messages_delivered_consume_manual_ack_total", manual),
        ("messages_delivered_consume_auto_ack_total", automatic),
        ("messages_delivered_get_manual_ack_total", get),
        ("messages_delivered_get_auto_ack_total", get_no_ack),
        ("messages_get_empty_total", of(counts, Count::GetEmpty)),
        ("messages_redelivered_total", of(counts, Count::Redeliver)),
        ("messages_acknowledged_total", of(counts, Count::Ack)),
    ] {
        page.family(&name(what), Kind::Counter, "Messages, by what became of them");
        // All types together under the first: the dashboards sum over them.
        page.series(
            &name(what),
            &[("protocol", "amqp091"), ("queue_type", "rabbit_classic_queue")],
            value,
        );
    }
    sizes(page, handle);
}

fn sizes(page: &mut Page<'_>, handle: &Handle) {
    let name = "rabbitmq_message_size_bytes";
    page.family(name, Kind::Histogram, "Size of messages received from publishers");
    let (buckets, sum) = handle.message_sizes();
    let mut below = 0;
    let bucket = format!("{name}_bucket");
    for (bound, count) in SIZE_BOUNDS
        .iter()
        .map(|(_, label)| *label)
        .chain(["+Inf"])
        .zip(buckets)
    {
        below += count;
        page.series(&bucket, &[("protocol", "amqp091"), ("le", bound)], below);
    }
    page.series(&format!("{name}_count"), &[("protocol", "amqp091")], below);
    page.series(&format!("{name}_sum"), &[("protocol", "amqp091")], sum);
}

/// Sums over channels, of those that are closed too: a counter never falls.
fn channels_summed(page: &mut Page<'_>, counts: &Tally) {
    for (name, count) in [
        ("rabbitmq_channel_messages_published_total", Count::Publish),
        ("rabbitmq_channel_messages_confirmed_total", Count::Confirm),
        (
            "rabbitmq_channel_messages_unroutable_returned_total",
            Count::ReturnUnroutable,
        ),
        (
            "rabbitmq_channel_messages_unroutable_dropped_total",
            Count::DropUnroutable,
        ),
        ("rabbitmq_channel_get_ack_total", Count::Get),
        ("rabbitmq_channel_get_total", Count::GetNoAck),
        ("rabbitmq_channel_messages_delivered_ack_total", Count::Deliver),
        ("rabbitmq_channel_messages_delivered_total", Count::DeliverNoAck),
        ("rabbitmq_channel_messages_redelivered_total", Count::Redeliver),
        ("rabbitmq_channel_messages_acked_total", Count::Ack),
        ("rabbitmq_channel_get_empty_total", Count::GetEmpty),
        ("rabbitmq_queue_messages_published_total", Count::Publish),
    ] {
        page.single(name, Kind::Counter, "Messages of all channels", of(counts, count));
    }
}

fn memory(page: &mut Page<'_>, handle: &Handle, settings: &Settings) {
    identity(page, handle, "memory-breakdown");
    let stats = handle.store_stats();
    let resident = Process::now(&settings.data_dir).resident_bytes;
    let known = stats.pending_bytes + stats.memtable_bytes;
    for (name, value) in [
        ("binary_heap", stats.pending_bytes),
        ("message_index", stats.memtable_bytes),
        ("other_system", resident.saturating_sub(known)),
    ] {
        let name = format!("rabbitmq_memory_{name}_bytes");
        page.single(&name, Kind::Gauge, "Memory by use", value);
    }
}
