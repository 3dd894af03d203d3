//! A line of clients that were asked to come back.
//!
//! When more clients arrive than may be let in, those turned away come back after the delay they are
//! given. One delay for all would make the crowd return as a crowd. So each refusal is given the next
//! place of a line that moves at the rate at which clients are let in, and a random part of one
//! place's length. The line holds nobody: a place is a moment, and the whole line is one number.
//!
//! Some never come back, and some ask again and again without waiting; both lengthen the line for the
//! others. So it has an end: beyond it delays are spread over its later half at random.

use std::time::Duration;

use crate::base::time::Time;

/// The line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// When the next place is due.
    next: Time,
}

impl Line {
    /// A place in the line, as the time to wait for it: at least [`FIRST`], at most [`LAST`] and one
    /// place's length. `jitter` is any random number.
    pub fn place(&mut self, per_second: u32, jitter: u32, now: Time) -> Duration {
        let step = Duration::from_secs(1) / per_second.max(1);
        let part = f64::from(jitter) / f64::from(u32::MAX);
        let at = self.next.max(now.plus(FIRST));
        if at.since(now) > LAST {
            return LAST / 2 + (LAST / 2).mul_f64(part);
        }
        self.next = at.plus(step);
        at.since(now) + step.mul_f64(part)
    }
}

/// Nobody is asked back sooner: a client that tries again at once costs as much as one let in.
pub const FIRST: Duration = Duration::from_secs(1);

/// The end of the line.
pub const LAST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn those_asked_back_return_at_the_rate_and_not_as_a_crowd(
            per_second in 1..200u32,
            arrivals in prop::collection::vec((0..50_000_000u64, any::<u32>()), 1..200),
            window in 1..10u32,
        ) {
            let (mut line, mut now) = (Line::default(), Time::ZERO);
            let mut returns: Vec<Time> = Vec::new();
            for (wait, jitter) in arrivals {
                now = now.plus(Duration::from_nanos(wait));
                let delay = line.place(per_second, jitter, now);
                let step = Duration::from_secs(1) / per_second;
                prop_assert!(delay >= FIRST && delay <= LAST + step);
                if delay < LAST / 2 {
                    returns.push(now.plus(delay));
                }
            }
            returns.sort_unstable();
            let length = Duration::from_secs(u64::from(window));
            for (at, first) in returns.iter().enumerate() {
                let within = returns[at..].iter().take_while(|t| t.since(*first) < length).count();
                // Places are a step apart and each is moved by a step at most.
                prop_assert!(within as u64 <= u64::from(per_second) * u64::from(window) + 2);
            }
        }
    }

    #[test]
    fn the_line_ends_and_moves_on() {
        let mut line = Line::default();
        let delays: Vec<Duration> =
            (0..1000).map(|n| line.place(10, n << 22, Time::ZERO)).collect();
        assert_eq!(delays[0], FIRST);
        assert!(delays.iter().all(|delay| *delay <= LAST + Duration::from_millis(100)));
        let far = delays.iter().filter(|delay| **delay >= LAST / 2).count();
        assert!(far > 500, "{far}");
        let later = Time::ZERO.plus(LAST * 2);
        assert_eq!(line.place(10, 0, later), FIRST);
    }
}
