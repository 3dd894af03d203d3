//! Time as an argument.
//!
//! The core never reads a clock: the rim reads it once a turn and passes a [`Time`] in. Connections
//! keep their deadlines as [`Tick`]s, a quarter the size and fine enough for timeouts of seconds.

use std::time::Duration;

/// Nanoseconds since the node started. Monotonic; wraps after 584 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The node's start.
    pub const ZERO: Self = Self(0);

    /// A time from nanoseconds since the node's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the node's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This time plus `wait`, saturating.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// This time less `wait`; the node's start where that would be before it.
    #[must_use]
    pub fn before(self, wait: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The tick that holds this time (rounded down).
    #[must_use]
    pub fn tick(self) -> Tick {
        Tick(u32::try_from(self.0 >> Tick::SHIFT).unwrap_or(u32::MAX))
    }
}

/// A count of 2^26 ns steps (67.1 ms) since the node's start; saturates after nine years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub u32);

impl Tick {
    const SHIFT: u32 = 26;

    /// The length of one tick.
    pub const LENGTH: Duration = Duration::from_nanos(1 << Self::SHIFT);

    /// The moment this tick begins.
    #[must_use]
    pub fn start(self) -> Time {
        Time(u64::from(self.0) << Self::SHIFT)
    }

    /// The number of whole ticks that cover `wait` (rounded up).
    #[must_use]
    pub fn count(wait: Duration) -> u32 {
        u32::try_from(wait.as_nanos().div_ceil(Self::LENGTH.as_nanos())).unwrap_or(u32::MAX)
    }

    /// The first tick that begins at least `wait` after the begin of this one, saturating.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(Self::count(wait)))
    }

    /// How long after `earlier` this begins; zero when it does not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Self::LENGTH * self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_in_ticks_is_never_early() {
        for millis in [0, 1, 67, 68, 1000, 25_000, 45_000] {
            let wait = Duration::from_millis(millis);
            let tick = Tick(1000);
            assert!(tick.plus(wait).since(tick) >= wait);
            assert!(tick.plus(wait).since(tick) < wait + Tick::LENGTH);
        }
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Time::ZERO.since(Time::from_nanos(5)), Duration::ZERO);
        assert_eq!(Time::from_nanos(u64::MAX).plus(Duration::MAX).as_nanos(), u64::MAX);
        assert_eq!(Tick(u32::MAX).plus(Duration::from_secs(1)), Tick(u32::MAX));
        assert_eq!(Time::from_nanos(u64::MAX).tick(), Tick(u32::MAX));
    }
}
