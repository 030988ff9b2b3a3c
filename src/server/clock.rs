//! The server's clock: the only place under `server` that asks what time it is. Everything below takes `now` as a value.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::broker::ids::Timestamp;

/// Wall-clock time when the program first asked, and the monotonic time of that moment.
struct Origin {
    wall_ms: u64,
    at: Instant,
}

static ORIGIN: LazyLock<Origin> = LazyLock::new(|| Origin {
    wall_ms: millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
    at: Instant::now(),
});

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Now. Wall-clock time as the program found it at its start, carried on by the monotonic clock: a clock that is set while
/// the broker runs neither expires messages nor keeps them (hostile-input-and-faults F15), and a deadline that is stored
/// still means something after a restart.
pub(super) fn now() -> Timestamp {
    Timestamp(ORIGIN.wall_ms.saturating_add(millis(ORIGIN.at.elapsed())))
}
