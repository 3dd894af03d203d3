//! Budgets of those who are active, and of nobody else.
//!
//! A [`Budget`] that is full says nothing, so none is kept: an entry appears when its owner first
//! spends something and goes when everything has been earned back, which is looked for a few entries a
//! turn. Most of a million connections are silent and cost nothing here. Whoever the owner is (a
//! connection, an address, a user), a meter knows it as a key and has `N` budgets for it, one for each
//! thing that is limited; a rate that is absent limits nothing.

use std::hash::Hash;
use std::time::Duration;

use crate::base::map::Seed;
use crate::base::time::Time;
use crate::flow::book::Book;
use crate::flow::budget::{Budget, Rate};

/// The rates of `N` things; `None` where there is no limit.
pub type Rates<const N: usize> = [Option<Rate>; N];

/// Budgets by key, `N` for each.
#[derive(Debug)]
pub struct Meters<K, const N: usize> {
    book: Book<K, [Budget; N]>,
}

impl<K: Copy + Eq + Hash, const N: usize> Meters<K, N> {
    /// Meters of nobody yet.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { book: Book::new(seed) }
    }

    /// How long until the key can afford `cost`: zero when it can now. A cost above a burst can be
    /// afforded with a full budget.
    #[must_use]
    pub fn until(&self, key: K, rates: &Rates<N>, cost: [u32; N], now: Time) -> Duration {
        let budgets = self.book.get(key).copied().unwrap_or([Budget::default(); N]);
        let waits = rates.iter().zip(&budgets).zip(cost);
        let waits = waits.filter_map(|((rate, budget), cost)| {
            rate.filter(|_| cost > 0).map(|rate| budget.until(rate, cost.min(rate.burst), now))
        });
        waits.max().unwrap_or_default()
    }

    /// Takes `cost`, whether it can be afforded or not: what is missing is a debt to be earned back.
    pub fn spend(&mut self, key: K, rates: &Rates<N>, cost: [u32; N], now: Time) {
        if !is_limited(rates, cost) {
            return;
        }
        let budgets = self.book.entry(key, || [Budget::default(); N]);
        for ((rate, budget), cost) in rates.iter().zip(budgets).zip(cost) {
            if let Some(rate) = rate {
                budget.spend(*rate, cost, now);
            }
        }
    }

    /// Forgets what the key has spent.
    pub fn forget(&mut self, key: K) {
        self.book.forget(key);
    }

    /// Looks at `most` entries and removes those whose budgets are full again.
    /// The rates are asked for by key: some may have lower ones than others.
    pub fn sweep(&mut self, rates: impl Fn(K) -> Rates<N>, now: Time, most: usize) {
        self.book.sweep(most, |key, budgets| are_full(budgets, &rates(key), now));
    }

    /// How many are active.
    #[must_use]
    pub fn len(&self) -> usize {
        self.book.len()
    }

    /// True when nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Verifies that both sides agree.
    ///
    /// # Panics
    /// When they do not.
    pub fn check(&self) {
        self.book.check();
    }
}

/// The things that have a rate, by their place.
pub(super) fn limited<const N: usize>(rates: &Rates<N>) -> impl Iterator<Item = (usize, Rate)> {
    rates.iter().enumerate().filter_map(|(at, rate)| rate.map(|rate| (at, rate)))
}

/// True when one of these things has a rate and costs something.
pub(super) fn is_limited<const N: usize>(rates: &Rates<N>, cost: [u32; N]) -> bool {
    rates.iter().zip(cost).any(|(rate, cost)| rate.is_some() && cost > 0)
}

/// True when everything has been earned back.
pub(super) fn are_full<const N: usize>(budgets: &[Budget; N], rates: &Rates<N>, now: Time) -> bool {
    let mut pairs = rates.iter().zip(budgets);
    pairs.all(|(rate, budget)| rate.is_none_or(|rate| budget.is_full(rate, now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        /// The twin keeps every budget for ever.
        #[test]
        fn meters_equal_budgets_that_are_never_given_back(
            steps in prop::collection::vec((0..6u8, 0..4u32, 0..9u32, 0..SECOND), 1..120),
        ) {
            let rates = [Some(Rate { per_second: 5, burst: 7 }), None];
            let mut meters: Meters<u32, 2> = Meters::new(&Seed::new(3));
            let mut twin: BTreeMap<u32, Budget> = BTreeMap::new();
            let mut now = Time::from_nanos(1);
            for (what, key, cost, wait) in steps {
                now = now.plus(Duration::from_nanos(wait));
                match what {
                    0 => {
                        meters.forget(key);
                        twin.remove(&key);
                    }
                    1 | 2 => meters.sweep(|_| rates, now, 3),
                    _ => {
                        let rate = rates[0].expect("a rate");
                        let budget = twin.entry(key).or_default();
                        let expected = budget.until(rate, cost.min(rate.burst), now);
                        let expected = if cost == 0 { Duration::ZERO } else { expected };
                        prop_assert_eq!(meters.until(key, &rates, [cost, 1], now), expected);
                        if expected.is_zero() || what == 5 {
                            meters.spend(key, &rates, [cost, 1], now);
                            budget.spend(rate, cost, now);
                        }
                    }
                }
                meters.check();
                prop_assert!(meters.len() <= twin.len());
            }
            now = now.plus(Duration::from_secs(3600));
            for _ in 0..8 {
                meters.sweep(|_| rates, now, 8);
            }
            prop_assert!(meters.is_empty(), "everything is earned back");
        }
    }

    #[test]
    fn what_is_not_limited_costs_nothing() {
        let mut meters: Meters<u32, 1> = Meters::new(&Seed::new(1));
        meters.spend(1, &[None], [9], Time::ZERO);
        meters.spend(1, &[Some(Rate { per_second: 1, burst: 1 })], [0], Time::ZERO);
        assert!(meters.is_empty());
    }
}
