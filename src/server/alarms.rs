//! Memory and disk alarms. While one is on, a connection that publishes is no longer read (amqp-behaviour 8.1, 8.2);
//! everything else goes on, so that consumers can drain what fills the memory or the disk.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::server::{Handle, announcer::Announcer, budget, intake::Intake, memory, queues::Queues};
use crate::storage::Store;

/// Memory is looked at this often when the limit is near, and more seldom when it is far.
const CHECK_MIN: Duration = Duration::from_millis(10);
const CHECK_MAX: Duration = Duration::from_secs(1);
/// Nothing fills memory or a disk faster than this, bytes per second.
const FILLS_AT: u64 = 2 << 30;
/// An alarm goes off when this part of its limit, in percent, is free again beyond it.
const HYSTERESIS_PERCENT: u64 = 5;

/// A limit as an operator writes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Watermark {
    /// Of the memory this process may have.
    Relative(f64),
    Bytes(u64),
}

impl Watermark {
    fn bytes(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of memory, checked to be positive; the cast saturates"
            )]
            Self::Relative(share) => (total as f64 * share) as u64,
        }
    }
}

/// `0.6` is a share of memory, `2GiB` or `2147483648` are bytes; units as RabbitMQ reads them (k, M, G and KiB, MiB, GiB
/// are powers of 1024; kB, MB, GB of 1000).
impl FromStr for Watermark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!(
                "'{text}' is neither a share of memory such as 0.6 nor an amount such as 2GiB or 2147483648"
            )
        };
        let text = text.trim();
        let digits = text
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits).ok_or_else(refuse)?;
        if unit.is_empty() && number.contains('.') {
            let share: f64 = number.parse().map_err(|_not_a_number| refuse())?;
            return Ok(Self::Relative(share));
        }
        let scale: u64 = match unit.trim() {
            "" | "B" => 1,
            "k" | "ki" | "K" | "kib" | "KiB" => 1 << 10,
            "M" | "Mi" | "MiB" | "mib" => 1 << 20,
            "G" | "Gi" | "GiB" | "gib" => 1 << 30,
            "T" | "Ti" | "TiB" | "tib" => 1 << 40,
            "kB" | "KB" | "kb" => 1_000,
            "MB" | "mb" => 1_000_000,
            "GB" | "gb" => 1_000_000_000,
            "TB" | "tb" => 1_000_000_000_000,
            _ => return Err(refuse()),
        };
        let amount: u64 = number.parse().map_err(|_not_a_number| refuse())?;
        amount.checked_mul(scale).map(Self::Bytes).ok_or_else(refuse)
    }
}

/// When the alarms are raised.
#[derive(Clone, Copy, Debug)]
pub struct AlarmOptions {
    /// More memory than this raises the memory alarm.
    pub memory_high_watermark: Watermark,
    /// Less free disk than this raises the disk alarm.
    pub disk_free_limit: Watermark,
}

impl Default for AlarmOptions {
    fn default() -> Self {
        Self {
            memory_high_watermark: Watermark::Relative(0.6),
            disk_free_limit: Watermark::Bytes(1 << 30),
        }
    }
}

/// The alarms that are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    pub memory: bool,
    pub disk: bool,
}

impl Raised {
    pub fn any(self) -> bool {
        self.memory || self.disk
    }

    /// What a blocked client is told, in RabbitMQ's words.
    pub(super) fn reason(self) -> &'static str {
        match (self.memory, self.disk) {
            (true, true) => "low on memory & disk",
            (false, true) => "low on disk",
            _ => "low on memory",
        }
    }
}

/// The alarms and what they are decided by, for operators.
#[derive(Clone, Copy, Debug)]
pub struct AlarmStatus {
    pub raised: Raised,
    /// Bytes, as compared with the limit.
    pub memory_used: u64,
    pub memory_limit: u64,
    /// Memory this process may have.
    pub memory_total: u64,
    pub disk_free: u64,
    pub disk_free_limit: u64,
}

/// The broker's alarms. Connections hold it and look at it when they are about to publish.
pub struct Alarms {
    /// Copy of `state`'s answer, so that a publish pays one plain load.
    any: AtomicBool,
    raised: watch::Sender<Raised>,
    state: Mutex<State>,
    data_dir: PathBuf,
    memory_total: u64,
    announcer: Arc<Announcer>,
    /// Theirs and the store's books: read only when memory is short.
    queues: Arc<Queues>,
    store: Store,
    /// Told what there is for bodies under assembly.
    intake: Arc<Intake>,
}

struct State {
    options: AlarmOptions,
    memory_used: u64,
    disk_free: u64,
    /// The store met a full disk.
    disk_full: bool,
    /// The most our books held since memory became short; see [`Alarms::memory_used`].
    books_peak: u64,
    resident_before: u64,
}

impl Alarms {
    pub(super) fn new(
        options: AlarmOptions,
        data_dir: &Path,
        store: Store,
        queues: Arc<Queues>,
    ) -> Arc<Self> {
        let memory_total = memory::total_bytes().unwrap_or_else(|| {
            tracing::warn!("the kernel does not tell how much memory there is: shares are taken of 4 GiB; set alarms.vm_memory_high_watermark to a size");
            4 << 30
        });
        let announcer = Arc::clone(&queues.announcer);
        let alarms = Arc::new(Self {
            any: AtomicBool::new(false),
            raised: watch::Sender::new(Raised::default()),
            state: Mutex::new(State {
                options,
                memory_used: 0,
                disk_free: u64::MAX,
                disk_full: false,
                books_peak: 0,
                resident_before: 0,
            }),
            data_dir: data_dir.to_path_buf(),
            memory_total,
            announcer,
            queues,
            intake: Intake::new(Some(store.clone())),
            store,
        });
        alarms.check();
        alarms
    }

    /// Whether publishers must not be read now.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// What is on now.
    pub(super) fn raised(&self) -> Raised {
        *self.raised.borrow()
    }

    pub(super) fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// What is on now, and the place to wait for a change.
    pub fn subscribe(&self) -> watch::Receiver<Raised> {
        self.raised.subscribe()
    }

    pub fn status(&self) -> AlarmStatus {
        let state = self.state.lock();
        AlarmStatus {
            raised: *self.raised.borrow(),
            memory_used: state.memory_used,
            memory_limit: state.options.memory_high_watermark.bytes(self.memory_total),
            memory_total: self.memory_total,
            disk_free: state.disk_free,
            disk_free_limit: state.options.disk_free_limit.bytes(self.memory_total),
        }
    }

    /// Changes the limit of a running broker; holds until it stops.
    pub fn set_memory_high_watermark(&self, watermark: Watermark) {
        self.state.lock().options.memory_high_watermark = watermark;
        self.check();
    }

    /// Changes the limit of a running broker; holds until it stops.
    pub fn set_disk_free_limit(&self, limit: Watermark) {
        self.state.lock().options.disk_free_limit = limit;
        self.check();
    }

    /// The store cannot write for want of space, or can again.
    pub(super) fn set_disk_full(&self, full: bool) {
        self.state.lock().disk_full = full;
        self.check();
    }

    /// Looks again and again; ends with the broker's runtime. Each look is a few microseconds in the kernel, but asking a
    /// disk that hangs may take long, hence the thread pool.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.pause()).await;
            let alarms = Arc::clone(&self);
            let look = move || {
                alarms.check();
                let status = alarms.status();
                alarms
                    .queues
                    .share_memory(status.memory_used, status.memory_limit);
                alarms
                    .queues
                    .bound_unacked(status.raised.memory, status.memory_limit);
            };
            if tokio::task::spawn_blocking(look).await.is_err() {
                return;
            }
        }
    }

    /// Long when all limits are far.
    fn pause(&self) -> Duration {
        if self.intake.is_crowded() {
            return CHECK_MIN;
        }
        let status = self.status();
        let memory = status.memory_limit.abs_diff(status.memory_used);
        let disk = status.disk_free.abs_diff(status.disk_free_limit);
        let messages = budget::of_messages(status.memory_limit).saturating_sub(status.memory_used);
        let nearest = memory.min(disk).min(messages);
        Duration::from_millis(nearest / (FILLS_AT / 1000)).clamp(CHECK_MIN, CHECK_MAX)
    }

    /// Measures, decides, and tells everybody when something changed.
    fn check(&self) {
        let disk_free = rustix::fs::statvfs(&self.data_dir)
            .map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let mut state = self.state.lock();
        state.disk_free = disk_free;
        state.memory_used = self.memory_used(&mut state);
        let before = *self.raised.borrow();
        let memory_limit = state.options.memory_high_watermark.bytes(self.memory_total);
        self.intake.measure(state.memory_used, memory_limit);
        let disk_limit = state.options.disk_free_limit.bytes(self.memory_total);
        let low_memory = if before.memory {
            state.memory_used >= memory_limit - memory_limit / 100 * HYSTERESIS_PERCENT
        } else {
            state.memory_used >= memory_limit
        };
        let free_enough = if before.disk {
            disk_limit.saturating_add(disk_limit / 100 * HYSTERESIS_PERCENT)
        } else {
            disk_limit
        };
        let now = Raised {
            memory: low_memory,
            disk: disk_free < free_enough || state.disk_full,
        };
        if now == before {
            return;
        }
        log_change(
            before.memory,
            now.memory,
            "memory",
            state.memory_used,
            memory_limit,
        );
        log_change(before.disk, now.disk, "disk", disk_free, disk_limit);
        self.announce(before.memory, now.memory, "memory");
        self.announce(before.disk, now.disk, "disk");
        self.any.store(now.any(), Ordering::Relaxed);
        // Under the lock, so that two checks tell in the order in which they decided.
        self.raised.send_replace(now);
    }

    fn announce(&self, before: bool, now: bool, source: &str) {
        if before == now {
            return;
        }
        let key = if now { "alarm.set" } else { "alarm.cleared" };
        self.announcer.event(key, |headers| {
            headers.text("name", "resource_limit").text("source", source);
        });
    }

    /// Resident memory, without what the allocator keeps for reuse. It gives little back to the kernel when messages
    /// leave, and an alarm by resident memory alone might never end. So what left our books since their peak counts as
    /// free until the kernel has it.
    fn memory_used(&self, state: &mut State) -> u64 {
        let resident = memory::resident_bytes();
        let limit = state.options.memory_high_watermark.bytes(self.memory_total);
        if resident < limit / 10 * 8 {
            state.books_peak = 0;
            state.resident_before = resident;
            return resident;
        }
        let books = self
            .queues
            .memory_bytes()
            .saturating_add(self.store.pending_bytes() as u64)
            .saturating_add(self.intake.held());
        let given_back = state.resident_before.saturating_sub(resident);
        state.books_peak = state.books_peak.saturating_sub(given_back).max(books);
        state.resident_before = resident;
        resident.saturating_sub(state.books_peak - books)
    }
}

impl Handle {
    /// What the alarms are raised at, as it was given.
    pub fn alarm_options(&self) -> AlarmOptions {
        self.broker.alarms.state.lock().options
    }

    /// As [`Alarms::set_memory_high_watermark`].
    pub fn set_memory_high_watermark(&self, watermark: Watermark) {
        self.broker.alarms.set_memory_high_watermark(watermark);
        tracing::info!(?watermark, "memory high watermark set");
    }

    /// As [`Alarms::set_disk_free_limit`].
    pub fn set_disk_free_limit(&self, limit: Watermark) {
        self.broker.alarms.set_disk_free_limit(limit);
        tracing::info!(?limit, "disk free limit set");
    }
}

fn log_change(before: bool, now: bool, name: &'static str, found: u64, limit: u64) {
    if now && !before {
        let advice = match name {
            "memory" => "let consumers drain what is queued, or raise alarms.vm_memory_high_watermark",
            _ => "free some space, or lower alarms.disk_free_limit",
        };
        tracing::warn!(
            found,
            limit,
            "{name} alarm: publishers are blocked until it clears; {advice}"
        );
    } else if before && !now {
        tracing::info!(found, limit, "{name} alarm cleared");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_is_a_share_or_an_amount() {
        for (text, expected) in [
            ("0.6", Watermark::Relative(0.6)),
            ("1.0", Watermark::Relative(1.0)),
            ("0", Watermark::Bytes(0)),
            ("2147483648", Watermark::Bytes(2 << 30)),
            ("2GiB", Watermark::Bytes(2 << 30)),
            ("2 G", Watermark::Bytes(2 << 30)),
            ("50MB", Watermark::Bytes(50_000_000)),
            ("512k", Watermark::Bytes(512 << 10)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "-1", "much", "1.5GiB", "0.1.2", "99999999TiB", "4 apples"] {
            assert!(text.parse::<Watermark>().is_err(), "{text}");
        }
    }
}
