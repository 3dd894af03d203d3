//! The clock, in one place.
//!
//! Moments are nanoseconds of CLOCK_MONOTONIC, which all processes of a host share: a payload that says when
//! it was to leave can be judged by whoever receives it. Nothing else here reads a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// The present moment in nanoseconds of the monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanos
}

/// The present moment as the runtime's timers want it.
#[expect(
    clippy::disallowed_methods,
    reason = "a load generator waits for moments; it asks here only"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, for the record of a run only.
#[expect(clippy::disallowed_methods, reason = "the calendar is read once a run, and here only")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a run's seconds are shown to three digits")]
pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
