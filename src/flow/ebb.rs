//! When to give memory back after a crowd has gone.
//!
//! Giving back costs a little, and taking again what was given back costs as much once more. So it is
//! done when the need has fallen far below what is held, and has stayed there for some time: a storm
//! that comes straight back, a room that fills and empties every second, find their memory where they
//! left it. Afterwards as much is held as was needed at that moment, so the next time comes only when
//! three quarters of that have gone as well, and a need that goes up and down within a factor of four
//! gives nothing back at all.
//!
//! A crowd that comes leaves something behind as well: the smaller tables that each table was before it
//! doubled, as much together as the tables that are in use. [`Rise`] tells when it has come.
//!
//! What is counted (places, bytes), and how it is given back, is the owner's.

use std::time::Duration;

use crate::base::time::Time;

/// How long the need must have stayed low.
pub const CALM: Duration = Duration::from_secs(10);

/// The part of what is held below which the need counts as low.
const LOW: u64 = 4;

/// The need for one kind of memory.
#[derive(Debug)]
pub struct Ebb {
    /// What is held up to this is never worth giving back.
    floor: u64,
    /// The highest need since memory was last given back.
    held: u64,
    /// Since when the need has been low, while it is.
    since: Option<Time>,
}

impl Ebb {
    /// Nothing is held yet.
    #[must_use]
    pub fn new(floor: u64) -> Self {
        Self { floor, held: 0, since: None }
    }

    /// Notes the need of the moment. True when it is time to give back what is held beyond it.
    pub fn note(&mut self, needed: u64, now: Time) -> bool {
        self.held = self.held.max(needed);
        if self.held <= self.floor || needed > self.held / LOW {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let is_time = now.since(since) >= CALM;
        if is_time {
            self.held = needed;
            self.since = None;
        }
        is_time
    }

    /// Notes that so much could not be given back.
    pub fn keep(&mut self, held: u64) {
        self.held = self.held.max(held);
    }

    /// When to note the need again, even if nothing happens until then.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.since.map(|since| since.plus(CALM))
    }
}

/// How long the need must have risen no more.
pub const SETTLED: Duration = Duration::from_secs(2);

/// A rise by less than this part goes on for as long as it likes and counts as none.
const SLOW: u64 = 32;

/// The need for something that leaves memory behind when it grows.
#[derive(Debug)]
pub struct Rise {
    /// A rise by so much is never worth anything.
    floor: u64,
    /// The need when memory was last given back, or less if it has fallen far since.
    settled: u64,
    /// The need when it last rose by more than a little, and when that was.
    high: u64,
    since: Time,
}

impl Rise {
    /// Nothing has risen yet.
    #[must_use]
    pub fn new(floor: u64) -> Self {
        Self { floor, settled: 0, high: 0, since: Time::ZERO }
    }

    /// Notes the need of the moment. True when it has risen by a quarter, and `floor` at least, since this was
    /// last true, and goes on no more.
    pub fn note(&mut self, needed: u64, now: Time) -> bool {
        if needed < self.high / LOW {
            self.settled = needed;
            self.high = needed;
        } else if needed > self.high + self.high / SLOW {
            self.high = needed;
            self.since = now;
        }
        let is_time = self.is_high() && now.since(self.since) >= SETTLED;
        if is_time {
            self.settled = self.high;
        }
        is_time
    }

    /// When to note the need again, even if nothing happens until then.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.is_high().then(|| self.since.plus(SETTLED))
    }

    fn is_high(&self) -> bool {
        self.high - self.settled >= self.floor.max(self.settled / LOW).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_crowd_that_has_gone_is_told_of_once_and_after_the_calm() {
        let mut ebb = Ebb::new(100);
        assert!(!ebb.note(1000, at(0)));
        assert_eq!(ebb.due(), None, "nothing to wait for");
        assert!(!ebb.note(10, at(1)));
        assert_eq!(ebb.due(), Some(at(11)));
        assert!(!ebb.note(10, at(10)));
        assert!(ebb.note(10, at(11)));
        assert!(!ebb.note(10, at(100)));
        assert_eq!(ebb.due(), None);
    }

    #[test]
    fn a_crowd_that_comes_back_in_time_keeps_its_memory() {
        let mut ebb = Ebb::new(100);
        for second in 0..100 {
            let needed = if second % 9 == 0 { 1000 } else { 0 };
            assert!(!ebb.note(needed, at(second)), "second {second}");
        }
    }

    #[test]
    fn what_is_small_is_never_given_back() {
        let mut ebb = Ebb::new(100);
        ebb.note(100, at(0));
        assert!((0..100).all(|second| !ebb.note(0, at(second))));
        assert_eq!(ebb.due(), None);
    }

    #[test]
    fn a_crowd_that_has_come_is_told_of_once_and_when_it_has_settled() {
        let mut rise = Rise::new(100);
        for second in 0..50 {
            assert!(!rise.note(second * second * 2, at(second)), "it is still coming");
        }
        assert_eq!(rise.due(), Some(at(51)));
        assert!(!rise.note(4850, at(50)), "a few more are no rise");
        assert_eq!(rise.due(), Some(at(51)));
        assert!(rise.note(4850, at(51)));
        assert_eq!(rise.due(), None);
        assert!((52..100).all(|second| !rise.note(4900, at(second))));
        assert!(!rise.note(5900, at(100)), "another fifth is not worth it");
        assert_eq!(rise.due(), None);
        assert!(!rise.note(6200, at(100)));
        assert!(rise.note(6200, at(102)));
    }

    #[test]
    fn a_crowd_that_was_there_before_is_told_of_again() {
        let mut rise = Rise::new(100);
        rise.note(1000, at(0));
        assert!(rise.note(1000, at(2)));
        assert!(!rise.note(300, at(3)) && !rise.note(1000, at(9)), "it had not gone far");
        assert_eq!(rise.due(), None);
        assert!(!rise.note(20, at(10)));
        assert!(!rise.note(1000, at(11)));
        assert!(rise.note(1000, at(13)));
    }

    #[test]
    fn a_crowd_that_goes_again_at_once_is_not_told_of() {
        let mut rise = Rise::new(100);
        assert!(!rise.note(1000, at(0)));
        assert!(!rise.note(10, at(1)));
        assert_eq!(rise.due(), None);
        assert!(!rise.note(99, at(10)));
        assert_eq!(rise.due(), None, "what is small never counts");
    }

    proptest! {
        /// Whatever happens, the work is in proportion to the growth that caused it.
        #[test]
        fn each_time_the_need_has_risen_since_the_last(
            needs in prop::collection::vec((0..10_000u64, 0..5u64), 1..200),
        ) {
            let mut rise = Rise::new(64);
            let (mut now, mut lowest) = (Time::ZERO, 0);
            for (needed, wait) in needs {
                now = now.plus(Duration::from_secs(wait));
                lowest = lowest.min(needed);
                if rise.note(needed, now) {
                    let high = rise.high;
                    prop_assert!(high >= lowest + 64, "{high} after {lowest}");
                    prop_assert!(needed >= high / LOW, "{needed} of {high}");
                    prop_assert_eq!(rise.due(), None);
                    lowest = high;
                }
                prop_assert!(rise.due().is_none_or(|due| due.since(now) > Duration::ZERO));
            }
        }

        #[test]
        fn between_two_givings_the_need_has_grown_again_or_fallen_by_a_factor(
            needs in prop::collection::vec((0..10_000u64, 0..15u64), 1..200),
        ) {
            let mut ebb = Ebb::new(64);
            let (mut now, mut held, mut low_since) = (Time::ZERO, 0, None);
            for (needed, wait) in needs {
                now = now.plus(Duration::from_secs(wait));
                held = held.max(needed);
                if needed > held / LOW {
                    low_since = None;
                } else {
                    low_since.get_or_insert(now);
                }
                let given = ebb.note(needed, now);
                if given {
                    prop_assert!(held > 64 && needed <= held / LOW);
                    prop_assert!(low_since.is_some_and(|since| now.since(since) >= CALM));
                    (held, low_since) = (needed, None);
                }
                prop_assert!(ebb.due().is_none_or(|due| due > now), "no wait is in the past");
            }
        }
    }
}
