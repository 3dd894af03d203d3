//! How long turns of the loop keep a core, for whoever looks for stalls.
//!
//! What is measured is the thread's processor time from the end of one turn to the end of the next:
//! the wait with the events it feeds, time passing, mail, writes. Sleeping costs none, and neither does
//! the time for which the scheduler gave the core to somebody else, so a long turn is long for a
//! reason within it.
//!
//! Off by default: reading this clock is a system call, one a turn. The worker adds, the node takes what
//! has gathered and sets it back to zero, so that the phases of a load can be told apart.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::sys::clock::thread_time;

/// The bounds by which turns are counted, in microseconds.
const BOUNDS_US: [u64; 6] = [250, 500, 1000, 2000, 4000, 8000];
const BOUNDS: [&str; 6] = ["250us", "500us", "1ms", "2ms", "4ms", "8ms"];

/// What has gathered since it was last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnTimes {
    /// Turns measured.
    pub turns: u64,
    /// The longest of them, in microseconds, rounded up.
    pub longest_us: u64,
    /// How many were longer than 250 and 500 microseconds, 1, 2, 4 and 8 milliseconds.
    pub over: [u64; BOUNDS_US.len()],
}

impl TurnTimes {
    /// Joins what another shard measured: the longest of both, and the sums.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.turns += other.turns;
        self.longest_us = self.longest_us.max(other.longest_us);
        for (mine, others) in self.over.iter_mut().zip(other.over) {
            *mine += others;
        }
        self
    }
}

impl fmt::Display for TurnTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "longest_turn_us={} turns_timed={}", self.longest_us, self.turns)?;
        let mut over = BOUNDS.iter().zip(self.over);
        over.try_for_each(|(bound, count)| write!(f, " turns_over_{bound}={count}"))
    }
}

/// One shard's place for its turns.
#[derive(Debug, Default)]
pub(super) struct TurnCells {
    turns: AtomicU64,
    longest_us: AtomicU64,
    over: [AtomicU64; BOUNDS_US.len()],
}

impl TurnCells {
    /// Notes a turn.
    pub(super) fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.longest_us.fetch_max(micros, Ordering::Relaxed);
        for (bound, cell) in BOUNDS_US.iter().zip(&self.over) {
            if micros <= *bound {
                break;
            }
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes what has gathered. A turn that is noted meanwhile may be counted in parts before and after.
    pub(super) fn take(&self) -> TurnTimes {
        let take = |cell: &AtomicU64| cell.swap(0, Ordering::Relaxed);
        TurnTimes {
            turns: take(&self.turns),
            longest_us: take(&self.longest_us),
            over: self.over.each_ref().map(take),
        }
    }
}

/// Measures the turns of the thread that made it.
#[derive(Debug)]
pub(super) struct TurnClock {
    /// The thread's processor time at the end of the last turn.
    last: Duration,
}

impl TurnClock {
    pub(super) fn start() -> Self {
        Self { last: thread_time() }
    }

    /// The length of the turn that ends here.
    pub(super) fn lap(&mut self) -> Duration {
        let now = thread_time();
        let turn = now.saturating_sub(self.last);
        self.last = now;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_counted_by_every_bound_they_exceed_and_taken_once() {
        let cells = TurnCells::default();
        for micros in [1, 250, 251, 1000, 1001, 9000] {
            cells.add(Duration::from_micros(micros));
        }
        cells.add(Duration::from_nanos(9_000_001));
        let taken = cells.take();
        assert_eq!((taken.turns, taken.longest_us), (7, 9001));
        assert_eq!(taken.over, [5, 4, 3, 2, 2, 2]);
        assert_eq!(cells.take(), TurnTimes::default());
    }

    #[test]
    fn the_longest_of_two_shards_is_the_longer_one_and_the_rest_is_added() {
        let one = TurnTimes { turns: 3, longest_us: 900, over: [3, 1, 0, 0, 0, 0] };
        let two = TurnTimes { turns: 5, longest_us: 1200, over: [1, 1, 1, 0, 0, 0] };
        let both = one.and(two);
        assert_eq!(both, TurnTimes { turns: 8, longest_us: 1200, over: [4, 2, 1, 0, 0, 0] });
        assert_eq!(
            both.to_string(),
            "longest_turn_us=1200 turns_timed=8 turns_over_250us=4 turns_over_500us=2 \
             turns_over_1ms=1 turns_over_2ms=0 turns_over_4ms=0 turns_over_8ms=0"
        );
    }

    #[test]
    fn a_lap_holds_the_work_since_the_last_one() {
        let mut clock = TurnClock::start();
        let began = thread_time();
        while thread_time() == began {}
        assert!(clock.lap() > Duration::ZERO);
    }
}
