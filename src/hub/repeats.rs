//! Identifiers of publications, remembered for a while so that a repeat is found out.
//!
//! A client that heard no reply sends the same again, perhaps over another connection and to another
//! shard; the room's home is where both arrive. What is remembered is a hash of publisher, room and
//! identifier, of 128 bits under the node's key, so that nobody can make two that meet. The number is
//! bounded: when it is reached, what would be forgotten first is forgotten now, and counted.

use std::collections::BTreeSet;

use crate::base::map::{Map, Seed};
use crate::base::pool::is_sparse;
use crate::base::time::Tick;

/// The identifiers seen lately.
#[derive(Debug)]
pub struct Repeats {
    /// Each with the tick up to which it is remembered.
    seen: Map<u128, Tick>,
    /// The same, by when they are forgotten.
    line: BTreeSet<(Tick, u128)>,
    most: usize,
    forgotten: u64,
}

impl Repeats {
    /// Nothing was seen; at most so many are remembered at a time.
    #[must_use]
    pub fn new(seed: &Seed, most: usize) -> Self {
        Self { seen: seed.map(), line: BTreeSet::new(), most: most.max(1), forgotten: 0 }
    }

    /// The name under which something is remembered.
    #[must_use]
    pub fn key(seed: &Seed, what: impl std::hash::Hash) -> u128 {
        let half = |salt: u8| u128::from(seed.hash_one((salt, &what)));
        half(0) << 64 | half(1)
    }

    /// Remembers a name until `until`; false when it is remembered already, and then for no longer than
    /// before.
    pub fn first(&mut self, name: u128, until: Tick, now: Tick) -> bool {
        self.purge(now, 2);
        match self.seen.get(&name).copied() {
            Some(end) if end > now => return false,
            Some(end) => _ = self.line.remove(&(end, name)),
            None => {}
        }
        while self.seen.len() >= self.most {
            let Some((_, name)) = self.line.pop_first() else { break };
            self.seen.remove(&name);
            self.forgotten += 1;
        }
        self.seen.insert(name, until);
        self.line.insert((until, name));
        true
    }

    /// True when a name is remembered.
    #[must_use]
    pub fn has(&self, name: u128, now: Tick) -> bool {
        self.seen.get(&name).is_some_and(|end| *end > now)
    }

    /// Forgets what is over, at most `most` names.
    pub fn purge(&mut self, now: Tick, most: usize) {
        for _ in 0..most {
            let Some((_, name)) = self.line.first().copied().filter(|(end, _)| *end <= now) else {
                break;
            };
            self.line.pop_first();
            self.seen.remove(&name);
        }
        if is_sparse(self.seen.len(), self.seen.capacity()) {
            self.seen.shrink_to(self.seen.len() * 2);
        }
    }

    /// When [`Repeats::purge`] is to be called.
    #[must_use]
    pub fn due(&self) -> Option<Tick> {
        self.line.first().map(|(end, _)| *end)
    }

    /// Names remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// What they cost, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.seen.len() as u64 * BYTES
    }

    /// Names that were forgotten early because there were too many.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Verifies both orders against each other.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        assert_eq!(self.seen.len(), self.line.len(), "each name stands in line once");
        assert!(self.seen.len() <= self.most, "no more than may be");
        let stands = |(name, end): (&u128, &Tick)| self.line.contains(&(*end, *name));
        assert!(self.seen.iter().all(stands), "each name stands in line");
    }
}

/// Bytes of a name: its places in map and line, with the free ones they keep.
const BYTES: u64 = 112;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn when_there_are_too_many_the_one_that_ends_first_is_forgotten_and_counted() {
        let mut repeats = Repeats::new(&Seed::new(1), 2);
        assert!(repeats.first(1, Tick(30), Tick(0)));
        assert!(repeats.first(2, Tick(20), Tick(0)));
        assert!(repeats.first(3, Tick(25), Tick(0)));
        assert_eq!((repeats.forgotten(), repeats.len()), (1, 2));
        assert!(!repeats.first(1, Tick(99), Tick(0)), "it is remembered");
        assert!(repeats.first(2, Tick(99), Tick(0)), "it was forgotten");
    }

    #[test]
    fn what_is_over_costs_nothing() {
        let mut repeats = Repeats::new(&Seed::new(1), 100_000);
        for name in 0..50_000 {
            repeats.first(name, Tick(10), Tick(0));
        }
        assert!(repeats.bytes() > 5_000_000);
        repeats.purge(Tick(10), usize::MAX);
        assert_eq!((repeats.bytes(), repeats.due()), (0, None));
        assert!(repeats.seen.capacity() < 1000);
    }

    proptest! {
        #[test]
        fn repeats_equal_a_list_of_all_that_was_seen(
            steps in prop::collection::vec((0..6u128, 1..8u32, 0..3u32), 1..200),
        ) {
            let mut repeats = Repeats::new(&Seed::new(2), 64);
            let mut seen: Vec<(u128, Tick)> = Vec::new();
            let mut now = Tick(0);
            for (name, window, wait) in steps {
                now = Tick(now.0 + wait);
                let until = Tick(now.0 + window);
                let is_first = !seen.iter().any(|(other, end)| *other == name && *end > now);
                prop_assert_eq!(repeats.first(name, until, now), is_first);
                if is_first {
                    seen.push((name, until));
                }
                repeats.check();
            }
        }
    }
}
