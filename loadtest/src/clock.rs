//! The clock, in one place: everything else takes durations from here.

use std::time::Instant;

/// The present moment of the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "a load generator measures time; it does so here only"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
