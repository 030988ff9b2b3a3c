//! The store's own families, and those of RabbitMQ's that they answer.

use std::time::Duration;

use crate::management::metrics::page::{Kind, Page};
use crate::storage::{Buckets, GROUP_SIZE_BOUNDS, GROUP_TIME_BOUNDS, StoreStats};

/// Name, help, and how to read it.
type Row<T> = (&'static str, &'static str, fn(&StoreStats) -> T);

const COUNTERS: [Row<u64>; 20] = [
    ("rabbitmq_io_sync_ops_total", "Syncs", |stats| stats.syncs),
    ("rabbitmq_io_write_ops_total", "Writes", |stats| stats.groups),
    ("rabbitmq_io_write_bytes_total", "Bytes written", |stats| {
        stats.bytes
    }),
    ("rabbitmq_io_read_ops_total", "Pages read", |stats| {
        stats.pages_read
    }),
    ("rabbitmq_msg_store_write_total", "Messages stored", |stats| {
        stats.messages
    }),
    (
        "leveret_store_groups_total",
        "Groups of operations committed",
        |stats| stats.groups,
    ),
    (
        "leveret_store_operations_total",
        "Operations committed",
        |stats| stats.ops,
    ),
    (
        "leveret_store_messages_total",
        "Messages put into pages",
        |stats| stats.messages,
    ),
    ("leveret_store_syncs_total", "Groups that were synced", |stats| {
        stats.syncs
    }),
    (
        "leveret_store_holes_total",
        "Messages acknowledged before they were written",
        |stats| stats.holes,
    ),
    ("leveret_store_confirms_total", "Confirms released", |stats| {
        stats.confirms
    }),
    (
        "leveret_store_pages_read_total",
        "Pages read for queues",
        |stats| stats.pages_read,
    ),
    (
        "leveret_store_reclaims_total",
        "Times disk space was reclaimed",
        |stats| stats.reclaims,
    ),
    (
        "leveret_store_slow_writes_total",
        "Writes that took longer than a second",
        |stats| stats.slow_writes,
    ),
    (
        "leveret_store_cache_hits_total",
        "Blocks found in the cache",
        |stats| stats.cache_hits,
    ),
    (
        "leveret_store_cache_misses_total",
        "Blocks not found in the cache",
        |stats| stats.cache_misses,
    ),
    (
        "leveret_store_log_bytes_total",
        "Bytes written to the log",
        |stats| stats.log_bytes,
    ),
    (
        "leveret_store_flush_bytes_total",
        "Bytes written by flushes",
        |stats| stats.flush_bytes,
    ),
    (
        "leveret_store_compaction_bytes_total",
        "Bytes written by compactions",
        |stats| stats.compaction_bytes,
    ),
    (
        "leveret_store_blob_bytes_total",
        "Bytes written to blob files",
        |stats| stats.blob_bytes,
    ),
];

const TIMES: [Row<Duration>; 5] = [
    (
        "leveret_store_build_seconds_total",
        "Time spent encoding groups",
        |stats| stats.build_time,
    ),
    (
        "leveret_store_write_seconds_total",
        "Time spent writing and syncing",
        |stats| stats.write_time,
    ),
    (
        "leveret_store_release_seconds_total",
        "Time spent telling who waited",
        |stats| stats.release_time,
    ),
    (
        "leveret_store_stall_seconds_total",
        "Time that writes were held back for flushes and compactions",
        |stats| stats.stall_time,
    ),
    (
        "rabbitmq_io_sync_time_seconds_total",
        "Time spent writing and syncing",
        |stats| stats.write_time,
    ),
];

const GAUGES: [Row<u64>; 7] = [
    (
        "leveret_store_pending_bytes",
        "Bytes waiting to be written",
        |stats| stats.pending_bytes,
    ),
    ("leveret_store_disk_bytes", "Bytes of live files", |stats| {
        stats.disk_bytes
    }),
    ("leveret_store_memtable_bytes", "Bytes of memtables", |stats| {
        stats.memtable_bytes
    }),
    (
        "leveret_store_write_stopped",
        "1 while no write is taken",
        |stats| stats.is_stopped.into(),
    ),
    (
        "leveret_store_compaction_debt_bytes",
        "Bytes that compactions have yet to rewrite",
        |stats| stats.compaction_debt_bytes,
    ),
    ("leveret_store_cache_bytes", "Bytes in the block cache", |stats| {
        stats.cache_bytes
    }),
    (
        "leveret_store_cache_limit_bytes",
        "Bytes the block cache may hold",
        |stats| stats.cache_limit_bytes,
    ),
];

pub(super) fn write(page: &mut Page<'_>, stats: &StoreStats) {
    for (name, help, read) in COUNTERS {
        page.single(name, Kind::Counter, help, read(stats));
    }
    for (name, help, read) in TIMES {
        page.single(name, Kind::Counter, help, read(stats).as_secs_f64());
    }
    for (name, help, read) in GAUGES {
        page.single(name, Kind::Gauge, help, read(stats));
    }
    let count = |value: u64| value.to_string();
    let seconds = |value: u64| Duration::from_nanos(value).as_secs_f64().to_string();
    let (name, help) = ("leveret_store_group_size", "Operations per group");
    histogram(page, name, help, &GROUP_SIZE_BOUNDS, &stats.group_sizes, count);
    let (name, help) = (
        "leveret_store_group_seconds",
        "Time from taking a group to its last confirm",
    );
    histogram(page, name, help, &GROUP_TIME_BOUNDS, &stats.group_times, seconds);
    syncs(page, stats);
}

fn histogram(
    page: &mut Page<'_>,
    name: &str,
    help: &str,
    bounds: &[u64],
    buckets: &Buckets,
    show: fn(u64) -> String,
) {
    page.family(name, Kind::Histogram, help);
    let bucket = format!("{name}_bucket");
    let mut total = 0;
    for (bound, count) in bounds.iter().zip(buckets.counts) {
        total += count;
        page.series(&bucket, &[("le", &show(*bound))], total);
    }
    total += buckets.above;
    page.series(&bucket, &[("le", "+Inf")], total);
    page.series(&format!("{name}_count"), &[], total);
    page.series(&format!("{name}_sum"), &[], show(buckets.sum));
}

/// RocksDB keeps quantiles, not buckets of ours.
fn syncs(page: &mut Page<'_>, stats: &StoreStats) {
    let name = "leveret_store_fsync_seconds";
    page.family(name, Kind::Summary, "Time the disk took to sync the log");
    let times = &stats.sync_times;
    for (quantile, time) in [
        ("0.5", times.p50),
        ("0.95", times.p95),
        ("0.99", times.p99),
        ("1", times.max),
    ] {
        page.series(name, &[("quantile", quantile)], time.as_secs_f64());
    }
    page.series(&format!("{name}_count"), &[], times.count);
    page.series(&format!("{name}_sum"), &[], times.total.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_times_are_seconds() {
        let mut stats = StoreStats::default();
        stats.group_times.counts[0] = 3;
        stats.group_times.counts[2] = 4;
        stats.group_times.above = 1;
        stats.group_times.sum = 1_500_000_000;
        let mut text = String::new();
        let mut page = Page::to(&mut text);
        write(&mut page, &stats);
        page.finish();
        for line in [
            "leveret_store_group_seconds_bucket{le=\"0.0001\"} 3\n",
            "leveret_store_group_seconds_bucket{le=\"0.0005\"} 7\n",
            "leveret_store_group_seconds_bucket{le=\"+Inf\"} 8\n",
            "leveret_store_group_seconds_count 8\n",
            "leveret_store_group_seconds_sum 1.5\n",
            "# TYPE leveret_store_fsync_seconds summary\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
