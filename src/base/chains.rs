//! Values of a [`Pool`] found by a hash, in two bytes each.
//!
//! A hash table that doubles is half empty just after it has grown, and moves everything in the turn in which it
//! does. This one grows by a chain at a time (linear hashing, Litwin 1980): a chain for every two values, a head of
//! four bytes for each chain, and the way from value to value in the values themselves. When there are more than
//! that, the next chain in turn is split in two; when there is not even one value for each, the last is joined to the one
//! it came from. So no turn pays for more than one chain, and what is held follows what is needed, down as well as up.
//!
//! What a value is found by stands in the value or beside it: whoever looks says how to tell, and what to hash.

use crate::base::pool::{NONE, Pool};

/// A value that stands in a chain.
pub trait Linked {
    /// The number of the value behind it; [`NONE`] at the end.
    fn next(&self) -> u32;
    /// Sets that.
    fn set_next(&mut self, next: u32);
}

/// The heads of the chains.
#[derive(Debug, Default)]
pub struct Chains {
    /// The first value of each chain, or [`NONE`], in chunks of [`HEADS`].
    heads: Vec<Vec<u32>>,
    /// Chains; as many as there are heads.
    count: usize,
    /// Values in all chains.
    len: usize,
}

/// Heads that come at a time: a kilobyte of them.
const HEADS: usize = 256;

/// Values for each chain from which on there is one chain more.
const LONG: usize = 2;

impl Chains {
    /// The number of the first value of that hash for which `is` holds.
    pub fn find<T: Linked>(
        &self,
        pool: &Pool<T>,
        hash: u64,
        is: impl Fn(&T) -> bool,
    ) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let mut key = self.head(self.chain_of(hash));
        while key != NONE {
            let value = &pool[key];
            if is(value) {
                return Some(key);
            }
            key = value.next();
        }
        None
    }

    /// Has a value of the pool found from now on. `hash` tells the hash of any.
    pub fn insert<T: Linked>(&mut self, pool: &mut Pool<T>, key: u32, hash: impl Fn(&T) -> u64) {
        if self.len >= self.count * LONG {
            self.split(pool, &hash);
        }
        self.len += 1;
        self.link(pool, key, &hash);
    }

    /// Has a value of the pool found no more. `hash` tells the hash of any.
    ///
    /// # Panics
    /// When it stands in no chain.
    pub fn remove<T: Linked>(&mut self, pool: &mut Pool<T>, key: u32, hash: impl Fn(&T) -> u64) {
        let at = self.chain_of(hash(&pool[key]));
        let next = pool[key].next();
        if self.head(at) == key {
            *self.head_mut(at) = next;
        } else {
            let mut before = self.head(at);
            while pool[before].next() != key {
                before = pool[before].next();
            }
            pool[before].set_next(next);
        }
        self.len -= 1;
        if self.count > 1 && self.len < self.count {
            self.join(pool);
        }
    }

    /// Bytes held for heads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.heads.len() * HEADS * size_of::<u32>()
    }

    /// Verifies that every value of the pool stands in the chain of its hash.
    ///
    /// # Panics
    /// When one does not.
    pub fn check<T: Linked>(&self, pool: &Pool<T>, hash: impl Fn(&T) -> u64) {
        assert_eq!(self.len, pool.len(), "each value once");
        let heads: usize = self.heads.iter().map(Vec::len).sum();
        assert_eq!(heads, self.count, "a head for each chain");
        assert!(
            self.count <= self.len.max(1) && self.len <= self.count * LONG,
            "as many as needed"
        );
        let mut found = 0;
        for at in 0..self.count {
            let mut key = self.head(at);
            while key != NONE {
                assert_eq!(self.chain_of(hash(&pool[key])), at, "{key} is where it is looked for");
                (key, found) = (pool[key].next(), found + 1);
            }
        }
        assert_eq!(found, self.len, "values in chains");
    }

    /// Where a value of that hash is; there is a chain.
    fn chain_of(&self, hash: u64) -> usize {
        // The bits in the middle choose a room's home: where all rooms have one home, those say little.
        let bits = (hash.rotate_left(44) >> 32) as usize;
        let size = self.count.next_power_of_two();
        let at = bits & (size - 1);
        // The upper half is not there yet but for its first chains.
        if at < self.count { at } else { at - size / 2 }
    }

    fn head(&self, at: usize) -> u32 {
        self.heads[at / HEADS][at % HEADS]
    }

    fn head_mut(&mut self, at: usize) -> &mut u32 {
        &mut self.heads[at / HEADS][at % HEADS]
    }

    fn link<T: Linked>(&mut self, pool: &mut Pool<T>, key: u32, hash: &impl Fn(&T) -> u64) {
        let at = self.chain_of(hash(&pool[key]));
        pool[key].set_next(self.head(at));
        *self.head_mut(at) = key;
    }

    /// One more chain, with what belongs there of the one it is split from.
    fn split<T: Linked>(&mut self, pool: &mut Pool<T>, hash: &impl Fn(&T) -> u64) {
        if self.count.is_multiple_of(HEADS) {
            self.heads.push(Vec::with_capacity(HEADS));
        }
        self.heads[self.count / HEADS].push(NONE);
        self.count += 1;
        if self.count == 1 {
            return;
        }
        let origin = origin(self.count - 1);
        let mut key = std::mem::replace(self.head_mut(origin), NONE);
        while key != NONE {
            let next = pool[key].next();
            self.link(pool, key, hash);
            key = next;
        }
    }

    /// One chain fewer: what is in the last one goes to the one it came from.
    fn join<T: Linked>(&mut self, pool: &mut Pool<T>) {
        self.count -= 1;
        let first = self.heads[self.count / HEADS].pop().unwrap_or(NONE);
        if self.count.is_multiple_of(HEADS) {
            self.heads.pop();
        }
        if first == NONE {
            return;
        }
        let mut last = first;
        while pool[last].next() != NONE {
            last = pool[last].next();
        }
        let origin = origin(self.count);
        pool[last].set_next(self.head(origin));
        *self.head_mut(origin) = first;
    }
}

/// The chain that the chain at `at`, which is not the first, is split from.
fn origin(at: usize) -> usize {
    at - (at + 1).next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::map::Seed;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    struct Named {
        name: u32,
        next: u32,
    }

    impl Linked for Named {
        fn next(&self) -> u32 {
            self.next
        }

        fn set_next(&mut self, next: u32) {
            self.next = next;
        }
    }

    /// Values by their names.
    struct Names {
        pool: Pool<Named>,
        chains: Chains,
        seed: Seed,
        /// Hashes are cut to so many bits, so that many share one.
        mask: u64,
    }

    impl Names {
        fn new(mask: u64) -> Self {
            let (pool, chains) = (Pool::default(), Chains::default());
            Self { pool, chains, seed: Seed::new(3), mask }
        }

        fn find(&self, name: u32) -> Option<u32> {
            let hash = self.seed.hash_one(name) & self.mask;
            self.chains.find(&self.pool, hash, |named| named.name == name)
        }

        fn insert(&mut self, name: u32) -> u32 {
            let key = self.pool.insert(Named { name, next: NONE });
            let (seed, mask) = (&self.seed, self.mask);
            self.chains.insert(&mut self.pool, key, |named| seed.hash_one(named.name) & mask);
            key
        }

        fn remove(&mut self, key: u32) {
            let (seed, mask) = (&self.seed, self.mask);
            self.chains.remove(&mut self.pool, key, |named| seed.hash_one(named.name) & mask);
            self.pool.remove(key);
        }

        fn check(&self) {
            self.pool.check();
            let hash = |named: &Named| self.seed.hash_one(named.name) & self.mask;
            self.chains.check(&self.pool, hash);
        }
    }

    proptest! {
        /// The twin is a map from name to number.
        #[test]
        fn chains_equal_a_map(
            mask in prop_oneof![Just(u64::MAX), Just(0), Just(0xf000_0000_0000_0003)],
            steps in prop::collection::vec((0..100u32, any::<bool>()), 1..300),
        ) {
            let mut names = Names::new(mask);
            let mut twin = BTreeMap::new();
            for (name, comes) in steps {
                prop_assert_eq!(names.find(name), twin.get(&name).copied());
                match (twin.get(&name).copied(), comes) {
                    (None, true) => _ = twin.insert(name, names.insert(name)),
                    (Some(key), false) => {
                        names.remove(key);
                        twin.remove(&name);
                    }
                    _ => {}
                }
                names.check();
            }
            prop_assert!(twin.iter().all(|(name, key)| names.find(*name) == Some(*key)));
        }
    }

    #[test]
    fn chains_stay_short_and_their_heads_follow_what_is_needed() {
        let mut names = Names::new(u64::MAX);
        let keys: Vec<u32> = (0..20_000).map(|name| names.insert(name)).collect();
        assert_eq!(names.chains.count, 10_000);
        assert_eq!(names.chains.bytes(), 40 * 1024);
        names.check();
        let length = |at| {
            let mut keys = std::iter::successors(Some(names.chains.head(at)), |key| {
                names.pool.get(*key).map(Named::next)
            });
            keys.position(|key| key == NONE).unwrap_or(0)
        };
        let longest = (0..names.chains.count).map(length).max();
        assert!(longest < Some(20), "{longest:?}");
        for key in keys.iter().skip(100) {
            names.remove(*key);
        }
        names.check();
        assert_eq!(names.chains.bytes(), 1024);
        assert!((0..100).all(|name| names.find(name).is_some()));
    }
}
