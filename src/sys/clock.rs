//! The only place that reads a clock.
//!
//! A node makes one [`Clock`] when it starts and copies it to every worker, so that all shards count
//! from the same moment. Workers read it once a turn and pass the [`Time`] on as an argument. The
//! monotonic clock is read through the vDSO: about 25 ns, no system call. It does not run while the
//! machine is suspended, which is what heartbeats want: a suspended server has not lost its peers'
//! pongs, it has not asked for them. Beside it stands the thread's own clock, which counts work instead of
//! time.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::base::time::Time;

/// A monotonic clock that counts from the moment it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
}

impl Clock {
    /// A clock whose [`Time::ZERO`] is now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: nanos(clock_gettime(ClockId::Monotonic)) }
    }

    /// The time since this clock was made.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::from_nanos(nanos(clock_gettime(ClockId::Monotonic)).saturating_sub(self.start))
    }
}

/// Milliseconds since 1970 by the wall clock. It may jump; never compute a deadline from it.
#[must_use]
pub fn unix_millis() -> u64 {
    nanos(clock_gettime(ClockId::Realtime)) / 1_000_000
}

/// The processor time that the calling thread has used so far. Costs a system call.
#[must_use]
pub fn thread_time() -> Duration {
    Duration::from_nanos(nanos(clock_gettime(ClockId::ThreadCPUTime)))
}

/// Nanoseconds of a time that is not before its epoch; a clock set before 1970 reads as 0.
fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_starts_near_zero_and_never_goes_back() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(first.as_nanos() < 3_600_000_000_000, "an hour cannot have passed: {first:?}");
        assert!(clock.now() >= first);
    }

    #[test]
    fn the_wall_clock_is_past_the_year_2020() {
        assert!(unix_millis() > 1_577_836_800_000);
    }
}
