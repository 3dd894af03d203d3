//! How long a saturated core reads on before it writes.
//!
//! A send costs the same whether it carries one frame or eight, so a core with more to do than it can do
//! gains by reading more before it writes: more frames gather per connection and fewer sends remain.
//! Three things keep that from costing anybody else:
//!
//! - A hold never sleeps. It lasts while each turn finds something to read, and the first turn that does
//!   not writes at once; so a core with time to spare adds no delay.
//! - It must have been of use: writes carried company the last time ([`LOW`]). Where each connection waits
//!   for its answer before it speaks again, no wait brings a second frame, and none is made.
//! - It must still be of use: when writes carry so much that the frames cost more than the sends
//!   ([`HIGH`]), the window closes again by halves.
//!
//! In between the window doubles with every flush, from a sixteenth of the maximum to the maximum. Most of
//! the gathering is not even its work: while a long list of connections is written to, slice by slice,
//! what is read between the slices joins the writes that are still to come.
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
    /// Nanoseconds that the next hold may last.
    window: u64,
    /// Until when writes are held at most, while they are. Fixed by the first held frame.
    held_until: Option<Time>,
}

/// What one flush wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Writes.
    pub sends: u64,
    /// Frames in them, all together.
    pub frames: u64,
}

impl FlushWindow {
    /// A closed window that may open to `max`.
    #[must_use]
    pub fn new(max: Duration) -> Self {
        let max = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        Self { max, window: 0, held_until: None }
    }

    /// To be asked once at the end of each turn in which something is to be written and nothing is left
    /// of the flush before: true to hold it, false to write now. `pending` counts the connections with
    /// something to write, `last` is what the flush before wrote, and `busy` is true when the turn found
    /// something to read and did not sleep for it.
    pub fn hold(&mut self, pending: usize, last: Flushed, busy: bool, now: Time) -> bool {
        if !busy || pending <= FEW_SENDS {
            (self.window, self.held_until) = (0, None);
            return false;
        }
        if let Some(until) = self.held_until {
            if now >= until {
                self.held_until = None;
            }
            return now < until;
        }
        self.window = self.next(last);
        if self.window > 0 {
            self.held_until = Some(now.plus(Duration::from_nanos(self.window)));
        }
        self.window > 0
    }

    /// How long the next hold may last.
    #[must_use]
    pub fn window(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    fn next(&self, Flushed { sends, frames }: Flushed) -> u64 {
        let least = self.max / STEPS;
        let window = if frames < sends.saturating_mul(LOW) {
            self.window / 4
        } else if frames < sends.saturating_mul(HIGH) {
            (self.window * 2).clamp(least, self.max)
        } else {
            self.window / 2
        };
        if window < least { 0 } else { window }
    }
}

/// Connections that can be written to in less time than a hold is worth.
const FEW_SENDS: usize = 16;

/// The smallest window is this part of the largest.
const STEPS: u64 = 16;

/// Frames per send from which on waiting is known to bring company.
const LOW: u64 = 2;

/// Frames per send from which on a wait saves little: a frame costs about a thirtieth of a send, so half
/// of what could be saved is saved at 32 of them, and most of it at fewer.
const HIGH: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: Duration = Duration::from_micros(500);

    fn at(micros: u64) -> Time {
        Time::from_nanos(micros * 1000)
    }

    fn carrying(frames: u64) -> Flushed {
        Flushed { sends: 1000, frames: 1000 * frames }
    }

    /// A loop that finds something to read in every turn, each 10 us long; returns the length of each hold.
    fn saturate(window: &mut FlushWindow, flushes: usize, last: Flushed) -> Vec<Duration> {
        let mut holds = Vec::new();
        let (mut now, mut begun) = (Time::ZERO, None);
        while holds.len() < flushes {
            if window.hold(1000, last, true, now) {
                begun.get_or_insert(now);
            } else {
                holds.push(begun.take().map_or(Duration::ZERO, |begun| now.since(begun)));
            }
            now = now.plus(Duration::from_micros(10));
        }
        holds
    }

    #[test]
    fn saturation_opens_the_window_to_its_maximum_where_writes_carry_company() {
        let holds = saturate(&mut FlushWindow::new(MAX), 8, carrying(4));
        assert!(holds.is_sorted(), "{holds:?}");
        assert_eq!(holds.last(), Some(&MAX));
    }

    #[test]
    fn nothing_waits_where_each_peer_waits_for_its_answer() {
        let holds = saturate(&mut FlushWindow::new(MAX), 1000, carrying(1));
        assert!(holds.iter().all(Duration::is_zero));
    }

    #[test]
    fn the_window_closes_when_company_stays_away_and_when_there_is_plenty() {
        for (frames, flushes) in [(1, 3), (16, 6)] {
            let mut window = FlushWindow::new(MAX);
            saturate(&mut window, 8, carrying(4));
            assert_eq!(window.window(), MAX);
            saturate(&mut window, flushes, carrying(frames));
            assert_eq!(window.window(), Duration::ZERO, "{frames} frames a send");
        }
    }

    #[test]
    fn one_quiet_turn_ends_the_hold_and_closes_the_window() {
        let mut window = FlushWindow::new(MAX);
        saturate(&mut window, 8, carrying(4));
        assert!(window.hold(1000, carrying(4), true, at(1_000_000)));
        assert!(!window.hold(1000, carrying(4), false, at(1_000_001)));
        assert_eq!(window.window(), Duration::ZERO);
    }

    #[test]
    fn a_large_fan_out_out_of_quiet_is_flushed_at_once() {
        let mut window = FlushWindow::new(MAX);
        for turn in 0..20 {
            assert!(!window.hold(10_000, carrying(9), false, at(turn * 100_000)));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_held_longer_than_the_maximum_nor_through_a_quiet_turn(
            max in 0..2000u64,
            turns in prop::collection::vec(
                (0..3000usize, 0..40u64, any::<bool>(), 0..400u64),
                1..200,
            ),
        ) {
            let mut window = FlushWindow::new(Duration::from_micros(max));
            let (mut now, mut first): (Time, Option<Time>) = (Time::ZERO, None);
            for (pending, frames, busy, wait) in turns {
                now = now.plus(Duration::from_micros(wait));
                let held = window.hold(pending, carrying(frames), busy, now);
                prop_assert!(busy || !held, "a hold does not sleep");
                prop_assert!(max > 0 || !held, "zero switches it off");
                prop_assert!(pending > 0 || !held, "nothing is held for nobody");
                if held {
                    let first = *first.get_or_insert(now);
                    prop_assert!(now.since(first) < Duration::from_micros(max));
                } else {
                    first = None;
                }
                prop_assert!(window.window() <= Duration::from_micros(max));
            }
        }
    }
}
