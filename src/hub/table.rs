//! A slab that gives its memory back.
//!
//! Keys are held elsewhere, so entries cannot move; what can go is the free space behind the last
//! entry. The table knows where that entry is: a removal at the end looks down for the next one, past
//! places that other removals have freed and paid for. When the last entry has sunk below an eighth of
//! the memory held, the rest goes back at once; the next time that happens is as many removals away.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// Entries by key.
#[derive(Debug)]
pub(super) struct Table<T> {
    slab: Slab<T>,
    /// One more than the highest key in use; zero when none is.
    end: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slab: Slab::new(), end: 0 }
    }
}

impl<T> Table<T> {
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        let key = self.slab.insert(entry);
        self.end = self.end.max(key + 1);
        index(key)
    }

    pub(super) fn remove(&mut self, key: u32) -> T {
        let entry = self.slab.remove(key as usize);
        while self.end > 0 && !self.slab.contains(self.end - 1) {
            self.end -= 1;
        }
        if is_sparse(self.end, self.slab.capacity()) {
            self.slab.shrink_to_fit();
        }
        entry
    }

    pub(super) fn get(&self, key: u32) -> Option<&T> {
        self.slab.get(key as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slab.iter().map(|(key, entry)| (index(key), entry))
    }

    /// One more than the highest key in use.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.slab.capacity()
    }
}

impl<T> Index<u32> for Table<T> {
    type Output = T;

    fn index(&self, key: u32) -> &T {
        &self.slab[key as usize]
    }
}

impl<T> IndexMut<u32> for Table<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        &mut self.slab[key as usize]
    }
}

/// True when a table's memory is worth giving back.
pub(super) fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > KEPT && len < capacity / 8
}

/// A place as a key.
pub(super) fn index(at: usize) -> u32 {
    let index = u32::try_from(at).unwrap_or(u32::MAX);
    assert!(index < u32::MAX, "a shard holds fewer than 2^32 of anything");
    index
}

/// Capacity up to which nothing is given back: it would be asked for again at once.
const KEPT: usize = 256;
