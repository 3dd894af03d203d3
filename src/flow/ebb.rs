//! When to give memory back after a crowd has gone.
//!
//! Giving back costs a little, and taking again what was given back costs as much once more. So it is
//! done when the need has fallen far below what is held, and has stayed there for some time: a storm
//! that comes straight back, a room that fills and empties every second, find their memory where they
//! left it. Afterwards as much is held as was needed at that moment, so the next time comes only when
//! three quarters of that have gone as well, and a need that goes up and down within a factor of four
//! gives nothing back at all.
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

    proptest! {
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
