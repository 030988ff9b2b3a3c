//! The server's clock: the only place under `server` that asks what time it is. Everything below takes `now` as a value.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::broker::ids::Timestamp;

/// Wall-clock time when the program first asked, and the monotonic time of that moment.
struct Origin {
    wall_ms: u64,
    wall_ns: u64,
    at: Instant,
}

static ORIGIN: LazyLock<Origin> = LazyLock::new(|| {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Origin {
        wall_ms: millis(wall),
        wall_ns: nanos(wall),
        at: Instant::now(),
    }
});

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Beyond this the clock may have been set, rather than the broker been stopped.
const JUMP: Duration = Duration::from_secs(24 * 3600);
/// A clock that was set back by less than this only drifted.
const DRIFT: Duration = Duration::from_secs(5);

/// Says so when the clock stands far from where the last run left it: all that is due in between is due now, or all that
/// waits waits longer (hostile-input-and-faults F15).
pub(super) fn compare_with(last_written: Option<SystemTime>) {
    let Some(last) = last_written else { return };
    let now = UNIX_EPOCH + Duration::from_millis(now().0);
    match now.duration_since(last) {
        Ok(ahead) if ahead > JUMP => tracing::warn!(
            hours = ahead.as_secs() / 3600,
            "the clock is far ahead of the last write to the data directory: if it was set, and not the broker stopped \
             for so long, messages expire and fall due that should not yet"
        ),
        Err(back) if back.duration() > DRIFT => tracing::warn!(
            seconds = back.duration().as_secs(),
            "the clock is behind the last write to the data directory: messages wait and live longer by this much"
        ),
        _ => {}
    }
}

/// Now. Wall-clock time as the program found it at its start, carried on by the monotonic clock: a clock that is set while
/// the broker runs neither expires messages nor keeps them (hostile-input-and-faults F15), and a deadline that is stored
/// still means something after a restart.
pub(super) fn now() -> Timestamp {
    Timestamp(ORIGIN.wall_ms.saturating_add(millis(ORIGIN.at.elapsed())))
}

/// As [`now`], in nanoseconds: for spans.
pub(super) fn now_ns() -> u64 {
    ORIGIN.wall_ns.saturating_add(nanos(ORIGIN.at.elapsed()))
}
