//! How long writes wait for company when a core is saturated.
//!
//! A send costs the same whether it carries one frame or eight, so a core that cannot keep up gains by
//! holding its writes for a moment: more frames gather per connection and fewer sends remain. A core
//! with time to spare gains nothing by it and would only add latency. What tells the two apart is
//! whether the loop slept before the turn: a turn that follows a sleep and has little to write
//! flushes at once and closes the window. In a busy turn whose backlog has not shrunk since the last
//! flush the window doubles, up to its maximum; otherwise it falls to a quarter. So it takes a few
//! turns of saturation to open and one quiet turn to close.
//!
//! The window is the shard's, not a connection's: everything held is flushed together. It does not
//! know what is written.

use std::time::Duration;

use crate::base::time::Time;

/// The flush window of one shard.
#[derive(Debug)]
pub struct FlushWindow {
    /// Nanoseconds; zero switches holding off.
    max: u64,
    /// Nanoseconds that the next hold will last.
    window: u64,
    /// Until when writes are held, while they are. Fixed by the first held frame.
    held_until: Option<Time>,
    /// Frames that waited at the last flush.
    backlog: usize,
}

impl FlushWindow {
    /// A closed window that may open to `max`.
    #[must_use]
    pub fn new(max: Duration) -> Self {
        let max = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        Self { max, window: 0, held_until: None, backlog: 0 }
    }

    /// To be asked once at the end of each turn: `None` to write now, or until when to hold what is
    /// queued, never more than the maximum after the first turn of the hold. `pending_sends` counts
    /// connections with something to write, `queued_frames` what they have, and `turn_was_busy` is
    /// true when the loop did not sleep before the turn.
    pub fn plan(
        &mut self,
        pending_sends: usize,
        queued_frames: usize,
        turn_was_busy: bool,
        now: Time,
    ) -> Option<Time> {
        let few = pending_sends <= FEW_SENDS;
        if pending_sends == 0 || (few && !turn_was_busy) {
            self.window = 0;
            return self.flush(queued_frames);
        }
        if let Some(until) = self.held_until {
            return if now < until { Some(until) } else { self.flush(queued_frames) };
        }
        // A little less than last time is still the same load.
        let has_grown = queued_frames >= self.backlog / 4 * 3 && !few;
        if turn_was_busy && has_grown {
            self.window = (self.window * 2).max(self.max / STEPS).min(self.max);
        } else {
            self.window /= 4;
            if self.window < self.max / STEPS {
                self.window = 0;
            }
        }
        if self.window == 0 {
            return self.flush(queued_frames);
        }
        self.held_until = Some(now.plus(Duration::from_nanos(self.window)));
        self.held_until
    }

    /// How long the next hold would last.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    fn flush(&mut self, queued_frames: usize) -> Option<Time> {
        self.held_until = None;
        self.backlog = queued_frames;
        None
    }
}

/// Connections that can be written to in less time than a hold is worth.
const FEW_SENDS: usize = 16;

/// The smallest window is this part of the largest.
const STEPS: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: Duration = Duration::from_micros(500);

    fn at(micros: u64) -> Time {
        Time::from_nanos(micros * 1000)
    }

    /// A loop that flushes and is at once busy again; returns the length of each hold.
    fn saturate(window: &mut FlushWindow, turns: u64, frames: usize) -> Vec<Duration> {
        let mut holds = Vec::new();
        for turn in 0..turns {
            let now = at(turn * 10_000);
            let until = window.plan(1000, frames, true, now);
            holds.push(until.map_or(Duration::ZERO, |until| until.since(now)));
            if let Some(until) = until {
                assert_eq!(window.plan(1000, frames, false, until), None, "a hold ends");
            }
        }
        holds
    }

    #[test]
    fn saturation_opens_the_window_to_its_maximum() {
        let holds = saturate(&mut FlushWindow::new(MAX), 8, 1000);
        assert!(holds.is_sorted());
        assert_eq!(holds.last(), Some(&MAX));
    }

    #[test]
    fn one_quiet_turn_closes_the_window() {
        let mut window = FlushWindow::new(MAX);
        saturate(&mut window, 8, 1000);
        assert_eq!(window.plan(3, 3, false, at(1_000_000)), None);
        assert_eq!(window.window(), Duration::ZERO);
    }

    #[test]
    fn a_quiet_turn_ends_a_hold_that_has_begun() {
        let mut window = FlushWindow::new(MAX);
        assert!(window.plan(1000, 1000, true, at(0)).is_some());
        assert_eq!(window.plan(2, 2, false, at(1)), None);
    }

    #[test]
    fn a_large_fan_out_out_of_quiet_is_flushed_at_once() {
        let mut window = FlushWindow::new(MAX);
        for turn in 0..20 {
            assert_eq!(window.plan(10_000, 10_000, false, at(turn * 100_000)), None);
        }
    }

    #[test]
    fn a_backlog_that_goes_shrinks_the_window_to_nothing() {
        let mut window = FlushWindow::new(MAX);
        saturate(&mut window, 8, 100_000);
        let mut frames = 40_000;
        let mut turn = 0;
        while window.window() > Duration::ZERO {
            let now = at(1_000_000 + turn * 1000);
            if let Some(until) = window.plan(1000, frames, true, now) {
                window.plan(1000, frames, true, until);
            }
            frames /= 2;
            turn += 1;
            assert!(turn < 4, "a quarter each time");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_held_longer_than_the_maximum(
            max in 0..2000u64,
            turns in prop::collection::vec((0..3000usize, 1..5usize, any::<bool>(), 0..400u64), 1..200),
        ) {
            let mut window = FlushWindow::new(Duration::from_micros(max));
            let (mut now, mut first): (Time, Option<Time>) = (Time::ZERO, None);
            for (sends, frames, busy, wait) in turns {
                now = now.plus(Duration::from_micros(wait));
                let plan = window.plan(sends, sends * frames, busy, now);
                prop_assert!(max > 0 || plan.is_none(), "zero switches it off");
                prop_assert!(sends > 0 || plan.is_none(), "nothing is held for nobody");
                match plan {
                    None => first = None,
                    Some(until) => {
                        let first = *first.get_or_insert(now);
                        prop_assert!(until > now, "a hold is a wait");
                        prop_assert!(until.since(first) <= Duration::from_micros(max));
                    }
                }
            }
        }
    }
}
