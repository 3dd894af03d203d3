//! What is kept of those who are active, by key: found by hash, and looked through a few a turn.
//!
//! Whoever is silent has no entry. An entry appears when its owner first does something, and goes when a
//! look at it finds that it says nothing any more. Nobody walks over all of them at once: a sweep goes on
//! where the last one ended. Once the last entry has gone the memory of the crowd goes too.

use std::hash::Hash;

use slab::Slab;

use crate::base::map::{Map, Seed};

/// Entries by key.
#[derive(Debug)]
pub(super) struct Book<K, E> {
    places: Map<K, u32>,
    entries: Slab<(K, E)>,
    /// Where the next look begins.
    cursor: usize,
}

impl<K: Copy + Eq + Hash, E> Book<K, E> {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { places: seed.map(), entries: Slab::new(), cursor: 0 }
    }

    pub(super) fn get(&self, key: K) -> Option<&E> {
        self.entries.get(*self.places.get(&key)? as usize).map(|(_, entry)| entry)
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut E> {
        self.entries.get_mut(*self.places.get(&key)? as usize).map(|(_, entry)| entry)
    }

    /// The key's entry, which begins as `fresh` says.
    pub(super) fn entry(&mut self, key: K, fresh: impl FnOnce() -> E) -> &mut E {
        let place = match self.places.get(&key) {
            Some(place) => *place as usize,
            None => {
                let place = self.entries.insert((key, fresh()));
                self.places.insert(key, u32::try_from(place).unwrap_or(u32::MAX));
                place
            }
        };
        &mut self.entries[place].1
    }

    /// Forgets the key.
    pub(super) fn forget(&mut self, key: K) {
        if let Some(place) = self.places.remove(&key) {
            self.entries.try_remove(place as usize);
            if self.entries.is_empty() && self.places.capacity() > 64 {
                self.entries = Slab::new();
                self.places.shrink_to(0);
            }
        }
    }

    /// Looks at `most` entries and removes those that `is_over` says.
    pub(super) fn sweep(&mut self, most: usize, mut is_over: impl FnMut(K, &mut E) -> bool) {
        for _ in 0..most.min(self.entries.len()) {
            let capacity = self.entries.capacity().max(1);
            self.cursor = (self.cursor + 1) % capacity;
            let Some((key, entry)) = self.entries.get_mut(self.cursor) else { continue };
            let key = *key;
            if is_over(key, entry) {
                self.forget(key);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Verifies that both sides agree.
    ///
    /// # Panics
    /// When they do not.
    pub(super) fn check(&self) {
        assert_eq!(self.places.len(), self.entries.len(), "an entry for each key");
        for (place, (key, _)) in &self.entries {
            assert_eq!(self.places.get(key).copied(), u32::try_from(place).ok(), "its place");
        }
    }
}
