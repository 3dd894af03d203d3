//! Hash maps whose seed is an argument.
//!
//! Room names are chosen by strangers, so the hash must be keyed with something they do not know; a
//! simulation must repeat itself, so the key must come from outside. aHash gives both.

use std::hash::Hash;

/// The hasher's key. Made once per node; every shard of a node uses the same one, because a room's
/// home shard is derived from it.
#[derive(Clone, Debug)]
pub struct Seed(ahash::RandomState);

impl Seed {
    /// The key derived from one number.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ahash::RandomState::with_seeds(seed, !seed, seed.rotate_left(17), seed ^ 0x5bd1_e995))
    }

    /// The hash of one value under this key.
    pub fn hash_one<T: Hash>(&self, value: T) -> u64 {
        self.0.hash_one(value)
    }

    /// An empty map under this key.
    #[must_use]
    pub fn map<K, V>(&self) -> Map<K, V> {
        Map::with_hasher(self.0.clone())
    }

    /// An empty set under this key.
    #[must_use]
    pub fn set<K>(&self) -> Set<K> {
        Set::with_hasher(self.0.clone())
    }
}

/// A hash map keyed by a [`Seed`].
#[expect(clippy::disallowed_types, reason = "this alias is what the rule points to")]
pub type Map<K, V> = std::collections::HashMap<K, V, ahash::RandomState>;

/// A hash set keyed by a [`Seed`].
#[expect(clippy::disallowed_types, reason = "this alias is what the rule points to")]
pub type Set<K> = std::collections::HashSet<K, ahash::RandomState>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_hash_and_another_seed_another() {
        assert_eq!(Seed::new(1).hash_one("lobby"), Seed::new(1).hash_one("lobby"));
        assert_ne!(Seed::new(1).hash_one("lobby"), Seed::new(2).hash_one("lobby"));
    }
}
