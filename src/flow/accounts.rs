//! A rate that several shards have in common, as its home keeps it.
//!
//! The home has the one true budget of each key. Shards tell it what they have let through (`shares`); it
//! charges that, notes how much each of them wants, and answers with the budget and with a price: what a token
//! costs a shard is how much more all of them want than it does. So a shard that wants next to nothing leaves next
//! to everything to the others, and one that is alone pays one token for one. Where a shard joins those who
//! share, the others hear of it at once; otherwise each hears when it tells. Nobody is told of who shares with
//! nobody, and an account goes when its budget is full and no shard has told for a while.
//!
//! What is told was spent over a while, and a full budget would have earned nothing meanwhile. So the budget of an
//! account may be fuller than full by what is earned between two tellings; and what the others will have let
//! through since they told is guessed from what they want. Where one shard alone has told twice, its own view is
//! exact and becomes the account.

use std::hash::Hash;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::id::ShardId;
use crate::base::map::Seed;
use crate::base::time::Time;
use crate::flow::book::Book;
use crate::flow::budget::{Budget, Rate, UNIT};
use crate::flow::meter::{Rates, are_full, limited};
use crate::flow::shares::{INTERVAL, LAPSE, ONE, Share, Spent};

/// The accounts of those whose home this is.
#[derive(Debug)]
pub struct Accounts<K, const N: usize> {
    book: Book<K, Account<N>>,
}

#[derive(Debug)]
struct Account<const N: usize> {
    /// With a [`reserve`] beyond what is full.
    budgets: [Budget; N],
    /// The shards that have told lately.
    members: SmallVec<[Member<N>; 2]>,
    /// True while all that is charged is known to the only member, or to nobody.
    is_even: bool,
}

#[derive(Clone, Copy, Debug)]
struct Member<const N: usize> {
    shard: ShardId,
    heard: Time,
    /// What it wants, in thousandths of a token a second; no more than the rate.
    demands: [u64; N],
}

/// Whoever wants less than this part of a rate pays as if it wanted that much, so that no price is absurd.
const LEAST: u64 = 16;

impl<K: Copy + Eq + Hash, const N: usize> Accounts<K, N> {
    /// Accounts of nobody yet.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { book: Book::new(seed) }
    }

    /// Charges what a shard has told, and gives `tell` what shards are to be answered: that one, and all who share
    /// if it has not shared before.
    pub fn charge(
        &mut self,
        key: K,
        rates: &Rates<N>,
        (from, spent): (ShardId, &Spent<N>),
        now: Time,
        mut tell: impl FnMut(ShardId, Share<N>),
    ) {
        let account = self.book.entry(key, || Account::new(rates, now));
        let is_alone = account.members.iter().all(|member| member.shard == from);
        for (at, rate) in limited(rates) {
            let budget = &mut account.budgets[at];
            if is_alone && account.is_even {
                *budget = spent.budgets[at];
                budget.spend_parts(rate, reserve(rate), now);
            } else {
                budget.spend(rate, spent.spent[at], now);
            }
        }
        let is_new = account.note(rates, (from, spent), now);
        account.is_even = account.members.len() == 1;
        for member in &account.members {
            if is_new || member.shard == from {
                tell(member.shard, account.share(member, rates, now));
            }
        }
    }

    /// Looks at `most` accounts and removes those that say nothing any more.
    pub fn sweep(&mut self, rates: impl Fn(K) -> Rates<N>, now: Time, most: usize) {
        self.book.sweep(most, |key, account| {
            account.retain(now);
            account.members.is_empty() && are_full(&account.budgets, &rates(key), now)
        });
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.book.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Verifies that both sides of the book agree.
    ///
    /// # Panics
    /// When they do not.
    pub fn check(&self) {
        self.book.check();
    }
}

impl<const N: usize> Account<N> {
    fn new(rates: &Rates<N>, now: Time) -> Self {
        let budgets = rates.map(|rate| {
            let mut budget = Budget::default();
            if let Some(rate) = rate {
                budget.spend_parts(rate, reserve(rate), now);
            }
            budget
        });
        Self { budgets, members: SmallVec::new(), is_even: true }
    }

    /// Forgets those who have told nothing for a while.
    fn retain(&mut self, now: Time) {
        let count = self.members.len();
        self.members.retain(|member| now.since(member.heard) < LAPSE);
        // Who is left does not know what the others have spent since it told.
        self.is_even &= self.members.len() == count;
    }

    /// Notes what a shard wants; true when it was not among those who share.
    fn note(&mut self, rates: &Rates<N>, (from, spent): (ShardId, &Spent<N>), now: Time) -> bool {
        self.retain(now);
        let known = self.members.iter_mut().find(|member| member.shard == from);
        let over = known.as_ref().map_or(INTERVAL, |member| now.since(member.heard));
        let over = over.max(INTERVAL);
        let mut demands = [0; N];
        for (at, rate) in limited(rates) {
            let tokens = u64::from(spent.spent[at]) + u64::from(spent.wanted[at]);
            demands[at] = per_second(tokens, over).min(whole(rate));
        }
        match known {
            Some(member) => {
                for (demand, newer) in member.demands.iter_mut().zip(demands) {
                    *demand = (*demand + newer) / 2;
                }
                member.heard = now;
                false
            }
            None => {
                self.members.push(Member { shard: from, heard: now, demands });
                true
            }
        }
    }

    /// What a shard is to know.
    fn share(&self, of: &Member<N>, rates: &Rates<N>, now: Time) -> Share<N> {
        let mut share = Share { budgets: self.budgets, prices: [ONE; N] };
        for (at, rate) in limited(rates) {
            let others = || self.members.iter().filter(|member| member.shard != of.shard);
            let wanted: u64 = others().map(|member| member.demands[at]).sum();
            let own = of.demands[at].max(whole(rate) / LEAST).max(1);
            let price = u64::from(ONE) * (wanted + own) / own;
            share.prices[at] = u32::try_from(price).unwrap_or(u32::MAX);
            let all = (wanted + own).max(whole(rate));
            let unsaid = |member: &Member<N>| {
                let millis = u64::try_from(now.since(member.heard).as_millis()).unwrap_or(0);
                // A thousandth of a token a second is a millionth in a millisecond.
                member.demands[at] * whole(rate) / all * millis * (UNIT / 1_000_000)
            };
            let budget = &mut share.budgets[at];
            budget.spend_parts(rate, others().map(unsaid).sum(), now);
            *budget = budget.eased(rate, reserve(rate), now);
        }
        share
    }
}

/// What a full budget may earn beyond, in parts of a token.
fn reserve(rate: Rate) -> u64 {
    let millis = u64::try_from(INTERVAL.as_millis()).unwrap_or(0);
    u64::from(rate.per_second) * millis * (UNIT / 1000)
}

/// A rate in thousandths of a token a second.
fn whole(rate: Rate) -> u64 {
    u64::from(rate.per_second) * 1000
}

/// So many tokens in that time, in thousandths of a token a second.
fn per_second(tokens: u64, over: Duration) -> u64 {
    let millis = u64::try_from(over.as_millis()).unwrap_or(u64::MAX).max(1);
    tokens.saturating_mul(1_000_000) / millis
}
