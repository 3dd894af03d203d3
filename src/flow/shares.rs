//! A rate that several shards have in common, as one of them uses it.
//!
//! Asking the home of a rate about every message would cost more than the message. So each shard has a *view*
//! of the budget that the home keeps (`accounts`), and tells the home afterwards what was spent. The home
//! answers with its budget and with a *price*: a shard that makes half of the demand pays two tokens of its
//! view for each that it spends, so that the views of all shards together let through what the one budget
//! would. Prices follow demand, from one telling to the next.
//!
//! Whoever is not known here yet has the whole budget and the price of one: a party with all its connections in
//! one shard, which most are, gets all of its burst at once. What many shards give too much away like that,
//! before they have heard of each other, is charged at the home as any other: it is a debt, and nothing
//! is let through until it is earned back. So over time the rate is kept exactly.
//!
//! A shard says nothing while what it lets through is far below its part (an eighth of it), and tells at most
//! once in [`INTERVAL`] afterwards. What it never tells is thus an eighth of the rate at most over all shards
//! together.

use std::hash::Hash;
use std::time::Duration;

use crate::base::map::Seed;
use crate::base::time::Time;
use crate::flow::book::Book;
use crate::flow::budget::{Budget, Rate, UNIT};
use crate::flow::meter::{Rates, are_full, is_limited, limited};

/// What the home is told of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent<const N: usize> {
    /// Tokens that were spent since the last telling.
    pub spent: [u32; N],
    /// Tokens that were asked for and not to be had.
    pub wanted: [u32; N],
    /// The budgets as they are seen there.
    pub budgets: [Budget; N],
}

/// What the home answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<const N: usize> {
    /// The budgets as the home keeps them.
    pub budgets: [Budget; N],
    /// What a token costs here, in parts of [`ONE`].
    pub prices: [u32; N],
}

/// The price of a token where nobody else spends any.
pub const ONE: u32 = 256;

/// The least time between two tellings about one key.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// Whoever has told nothing for so long is no longer counted among those who share.
pub const LAPSE: Duration = Duration::from_secs(1);

/// A shard says nothing below this part of its part of a rate.
const QUIET: u64 = 8;

/// What one shard knows of those with whom others share.
#[derive(Debug)]
pub struct Shares<K, const N: usize> {
    book: Book<K, View<N>>,
}

#[derive(Debug)]
struct View<const N: usize> {
    budgets: [Budget; N],
    prices: [u32; N],
    /// What the home has yet to be told: spent, and wanted in vain.
    unsaid: [u32; N],
    wanted: [u32; N],
    /// When the home was told last; where it was not, since when `unsaid` counts.
    since: Time,
    told: bool,
}

impl<K: Copy + Eq + Hash, const N: usize> Shares<K, N> {
    /// Shares of nobody yet.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { book: Book::new(seed) }
    }

    /// How long until the key can afford `cost`, as far as is known here: zero when it can now. A cost above a
    /// burst can be afforded with a full budget.
    #[must_use]
    pub fn until(&self, key: K, rates: &Rates<N>, cost: [u32; N], now: Time) -> Duration {
        let view = self.book.get(key);
        let costly = limited(rates).filter(|(at, _)| cost[*at] > 0);
        let waits = costly.map(|(at, rate)| {
            let (budget, price) = view.map_or((Budget::default(), ONE), |view| view.at(at));
            let most = u64::from(rate.burst) * UNIT;
            budget.until_parts(rate, parts(cost[at], price).min(most), now)
        });
        waits.max().unwrap_or_default()
    }

    /// Takes `cost`, whether it can be afforded or not: what is missing is a debt to be earned back.
    pub fn spend(&mut self, key: K, rates: &Rates<N>, cost: [u32; N], now: Time) {
        if !is_limited(rates, cost) {
            return;
        }
        let view = self.book.entry(key, || View::new(now));
        for (at, rate) in limited(rates) {
            view.budgets[at].spend_parts(rate, parts(cost[at], view.prices[at]), now);
            view.unsaid[at] = view.unsaid[at].saturating_add(cost[at]);
        }
    }

    /// Notes that `cost` was asked for and not to be had.
    pub fn want(&mut self, key: K, cost: [u32; N]) {
        if let Some(view) = self.book.get_mut(key) {
            for (wanted, cost) in view.wanted.iter_mut().zip(cost) {
                *wanted = wanted.saturating_add(cost);
            }
        }
    }

    /// What the home is to be told now of the key, of whom it is taken to be told; `shards` share.
    pub fn tell(&mut self, key: K, rates: &Rates<N>, shards: u16, now: Time) -> Option<Spent<N>> {
        self.book.get_mut(key)?.tell(rates, shards, now)
    }

    /// The home's answer.
    pub fn correct(&mut self, key: K, share: &Share<N>, rates: &Rates<N>, now: Time) {
        let Some(view) = self.book.get_mut(key) else { return };
        view.budgets = share.budgets;
        view.prices = share.prices;
        for (at, rate) in limited(rates) {
            // What was spent while the answer was on its way is not in it.
            let since = parts(view.unsaid[at], view.prices[at]);
            view.budgets[at].spend_parts(rate, since, now);
        }
    }

    /// Looks at `most` entries and removes those that say nothing: whose budget is full, of whom the home has
    /// nothing to be told, and who have not shared for a while. Of others the home is told by `tell`.
    pub fn sweep(
        &mut self,
        rates: impl Fn(K) -> Rates<N>,
        shards: u16,
        (now, most): (Time, usize),
        mut tell: impl FnMut(K, Spent<N>),
    ) {
        self.book.sweep(most, |key, view| {
            let rates = rates(key);
            if let Some(spent) = view.tell(&rates, shards, now) {
                tell(key, spent);
                return false;
            }
            are_full(&view.budgets, &rates, now)
                && (shards == 1 || !view.told && view.is_earned_back(&rates, shards, now))
        });
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

    /// Verifies that both sides of the book agree, and that nobody pays less than a token for one.
    ///
    /// # Panics
    /// When it is not so.
    pub fn check(&self) {
        self.book.check();
    }
}

impl<const N: usize> View<N> {
    fn new(now: Time) -> Self {
        Self {
            budgets: [Budget::default(); N],
            prices: [ONE; N],
            unsaid: [0; N],
            wanted: [0; N],
            since: now,
            told: false,
        }
    }

    fn at(&self, at: usize) -> (Budget, u32) {
        (self.budgets[at], self.prices[at])
    }

    fn tell(&mut self, rates: &Rates<N>, shards: u16, now: Time) -> Option<Spent<N>> {
        if shards == 1 {
            return None;
        }
        let passed = now.since(self.since);
        if self.told && passed >= LAPSE {
            self.told = false;
            self.prices = [ONE; N];
        }
        let is_due = if self.told {
            let mut tokens = self.unsaid.iter().chain(&self.wanted);
            passed >= INTERVAL && tokens.any(|tokens| *tokens > 0)
        } else {
            self.is_loud(rates, shards, now)
        };
        if !is_due {
            if !self.told && self.is_earned_back(rates, shards, now) {
                self.unsaid = [0; N];
                self.since = now;
            }
            return None;
        }
        self.told = true;
        self.since = now;
        let (spent, wanted) = (self.unsaid, self.wanted);
        (self.unsaid, self.wanted) = ([0; N], [0; N]);
        Some(Spent { spent, wanted, budgets: self.budgets })
    }

    /// True when more was spent, since the home was told last, than a small part of what may be.
    fn is_loud(&self, rates: &Rates<N>, shards: u16, now: Time) -> bool {
        self.exceeds(rates, shards, now, |rate| u64::from(rate.burst))
    }

    /// True when what was spent is less than a small part of what is earned in that time.
    fn is_earned_back(&self, rates: &Rates<N>, shards: u16, now: Time) -> bool {
        !self.exceeds(rates, shards, now, |_| 0)
    }

    fn exceeds(
        &self,
        rates: &Rates<N>,
        shards: u16,
        now: Time,
        allowance: impl Fn(Rate) -> u64,
    ) -> bool {
        let millis = u64::try_from(now.since(self.since).as_millis()).unwrap_or(u64::MAX);
        let mut pairs = rates.iter().zip(self.unsaid);
        pairs.any(|(rate, spent)| {
            rate.is_some_and(|rate| {
                let earned = u64::from(rate.per_second).saturating_mul(millis) / 1000;
                u64::from(spent) * QUIET * u64::from(shards)
                    > allowance(rate).saturating_add(earned)
            })
        })
    }
}

/// What so many tokens cost at a price, in parts of a token.
fn parts(tokens: u32, price: u32) -> u64 {
    (u64::from(tokens) * (UNIT / u64::from(ONE))).saturating_mul(u64::from(price))
}

#[cfg(test)]
#[path = "shares_tests.rs"]
mod tests;
