//! When users were last seen.
//!
//! Of so many users, each by the hash of its name; the one seen the longest time ago is forgotten first, and
//! whoever comes back is forgotten at once.

use std::collections::BTreeSet;

use super::roster::relax;
use crate::base::map::{Map, Seed};

/// When users were last seen, in milliseconds since 1970.
#[derive(Debug)]
pub(super) struct Remembered {
    pub(super) seen: Map<u64, u64>,
    /// The same the other way round, the longest ago first.
    pub(super) order: BTreeSet<(u64, u64)>,
}

impl Remembered {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { seen: seed.map(), order: BTreeSet::new() }
    }

    /// Forgets when the user was last seen, and says when that was.
    pub(super) fn forget(&mut self, key: u64) -> Option<u64> {
        let unix_ms = self.seen.remove(&key)?;
        self.order.remove(&(unix_ms, key));
        relax(&mut self.seen);
        Some(unix_ms)
    }

    /// Remembers one more; how many were forgotten for it.
    pub(super) fn insert(&mut self, key: u64, unix_ms: u64, most: usize) -> u64 {
        self.forget(key);
        self.seen.insert(key, unix_ms);
        self.order.insert((unix_ms, key));
        let mut forgotten = 0;
        // Two at a time, so that a limit that was lowered is reached without a stall.
        while forgotten < 2 && self.order.len() > most {
            let Some((_, key)) = self.order.pop_first() else { break };
            self.seen.remove(&key);
            forgotten += 1;
        }
        forgotten
    }
}
