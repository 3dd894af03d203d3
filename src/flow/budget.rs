//! How often a peer may do something: a token bucket.
//!
//! The bucket keeps what has been spent and not yet earned back, in thousand-millionths of a token:
//! at a rate of r per second exactly r of them are earned per nanosecond, so nothing is ever rounded
//! and no peer gains or loses by the moments it chooses. Rate and burst are shared by many buckets
//! and come with each call. A bucket is told the time, and one whose clock stands still earns nothing.

use std::time::Duration;

use crate::base::time::Time;

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens earned per second. Zero earns none: the burst is all there ever is.
    pub per_second: u32,
    /// Tokens in a full bucket.
    pub burst: u32,
}

impl Rate {
    /// So many per second, and as many at once as come in `burst`, but one at least; `None` for zero,
    /// which is no limit.
    #[must_use]
    pub fn over(per_second: u32, burst: Duration) -> Option<Self> {
        let tokens = u128::from(per_second) * burst.as_millis() / 1000;
        let burst = u32::try_from(tokens).unwrap_or(u32::MAX).max(1);
        (per_second > 0).then_some(Self { per_second, burst })
    }
}

/// One peer's bucket; full at first. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Spent and not yet earned back, in thousand-millionths of a token.
    spent: u64,
    /// When `spent` was last brought up to date.
    since: Time,
}

impl Budget {
    /// Takes `n` tokens, or none and returns false when there are fewer.
    pub fn take(&mut self, rate: Rate, n: u32, now: Time) -> bool {
        let spent = self.spent_at(rate, now).saturating_add(u64::from(n) * UNIT);
        let allowed = spent <= u64::from(rate.burst) * UNIT;
        if allowed {
            *self = Self { spent, since: now.max(self.since) };
        }
        allowed
    }

    /// Takes `n` tokens whether they are there or not; those that are missing are a debt.
    pub fn spend(&mut self, rate: Rate, n: u32, now: Time) {
        self.spend_parts(rate, u64::from(n) * UNIT, now);
    }

    /// The same in parts of a token, of which there are [`UNIT`] to one.
    pub fn spend_parts(&mut self, rate: Rate, parts: u64, now: Time) {
        let spent = self.spent_at(rate, now).saturating_add(parts);
        *self = Self { spent, since: now.max(self.since) };
    }

    /// The same budget with so many parts of a token less to be earned back, but none below zero.
    #[must_use]
    pub fn eased(&self, rate: Rate, parts: u64, now: Time) -> Self {
        let spent = self.spent_at(rate, now).saturating_sub(parts);
        Self { spent, since: now.max(self.since) }
    }

    /// True when everything has been earned back.
    #[must_use]
    pub fn is_full(&self, rate: Rate, now: Time) -> bool {
        self.spent_at(rate, now) == 0
    }

    /// How long until `n` tokens are there: zero when they are, [`Duration::MAX`] when they never
    /// will be.
    #[must_use]
    pub fn until(&self, rate: Rate, n: u32, now: Time) -> Duration {
        self.until_parts(rate, u64::from(n) * UNIT, now)
    }

    /// The same in parts of a token.
    #[must_use]
    pub fn until_parts(&self, rate: Rate, parts: u64, now: Time) -> Duration {
        let full = u64::from(rate.burst) * UNIT;
        let spent = self.spent_at(rate, now).saturating_add(parts);
        match (spent.saturating_sub(full), rate.per_second) {
            (0, _) => Duration::ZERO,
            (_, 0) => Duration::MAX,
            _ if parts > full => Duration::MAX,
            (missing, per_second) => Duration::from_nanos(missing.div_ceil(u64::from(per_second))),
        }
    }

    fn spent_at(&self, rate: Rate, now: Time) -> u64 {
        let passed = now.as_nanos().saturating_sub(self.since.as_nanos());
        self.spent.saturating_sub(passed.saturating_mul(u64::from(rate.per_second)))
    }
}

/// Parts of a token. A bucket of 2^32 tokens and a take of as many stay below 2^63 of them.
pub const UNIT: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_stretch_of_time_yields_more_than_burst_and_rate(
            per_second in 0..2_000u32,
            burst in 0..50u32,
            takes in prop::collection::vec((0..200_000_000u64, 0..9u32), 1..80),
        ) {
            let rate = Rate { per_second, burst };
            let (mut budget, mut now) = (Budget::default(), Time::ZERO);
            let mut taken: Vec<(Time, u64)> = Vec::new();
            for (wait, n) in takes {
                now = now.plus(Duration::from_nanos(wait));
                let promised = budget.until(rate, n, now) == Duration::ZERO;
                let allowed = budget.take(rate, n, now);
                prop_assert_eq!(promised, allowed);
                if allowed {
                    taken.push((now, n.into()));
                }
                let mut sum = 0u128;
                for (at, n) in taken.iter().rev() {
                    sum += u128::from(*n);
                    let earned = now.since(*at).as_nanos() * u128::from(per_second);
                    let full = u128::from(burst) * u128::from(UNIT);
                    prop_assert!(sum * u128::from(UNIT) <= full + earned);
                }
            }
        }

        #[test]
        fn a_refused_peer_is_served_at_the_announced_moment_and_not_before(
            per_second in 1..5_000u32,
            burst in 1..50u32,
            n in 1..50u32,
        ) {
            let rate = Rate { per_second, burst };
            let mut budget = Budget::default();
            let start = Time::from_nanos(5);
            prop_assert!(budget.take(rate, burst, start), "a full bucket holds its burst");
            let wait = budget.until(rate, n, start);
            if n > burst {
                prop_assert_eq!(wait, Duration::MAX);
            } else {
                let mut early = budget;
                prop_assert!(!early.take(rate, n, start.plus(wait - Duration::from_nanos(1))));
                prop_assert!(budget.take(rate, n, start.plus(wait)));
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let rate = Rate { per_second: u32::MAX, burst: u32::MAX };
        let mut budget = Budget::default();
        assert!(budget.take(rate, u32::MAX, Time::ZERO));
        assert!(!budget.take(rate, u32::MAX, Time::ZERO));
        assert!(budget.take(rate, u32::MAX, Time::from_nanos(u64::MAX)));
    }
}
