//! The home side of rooms.
//!
//! Each room has one home shard, derived from its name, so every shard knows it without asking. The
//! home numbers the room's publications, which gives all receivers one order, and knows which shards
//! have members, so that a publication is mailed to those only. It does not know the members.
//!
//! A number means something only together with an epoch. A room ends when its last member leaves, and
//! its numbers with it; if it comes again it begins at 1 under a new epoch, so that a cursor from its
//! earlier life is recognised as such. Epochs count up from the one given at start; give each start of
//! the node a higher one (the wall clock in nanoseconds does), and no two lives of a room share one.

use std::hash::Hash;
use std::sync::Arc;

use smallvec::SmallVec;

use super::table::is_sparse;
use crate::base::id::ShardId;
use crate::base::map::{Map, Seed};

/// The rooms whose home this shard is.
#[derive(Debug)]
pub struct Directory {
    rooms: Map<Arc<str>, HomeRoom>,
    /// The epoch of the next room that begins.
    next_epoch: u64,
}

#[derive(Debug)]
struct HomeRoom {
    /// The number of the latest publication; zero before the first.
    offset: u64,
    epoch: u64,
    /// Shards with members and how many each has; none is zero, and there is at least one.
    counts: SmallVec<[(ShardId, u32); 2]>,
}

/// The shard that is the home of `room`, of `shards` in the node. All shards use one seed.
///
/// # Panics
/// When `shards` is zero.
#[must_use]
pub fn home(seed: &Seed, room: &str, shards: u16) -> ShardId {
    home_of(seed, room, shards)
}

/// The shard that is the home of whatever else is counted in one place.
///
/// # Panics
/// When `shards` is zero.
#[must_use]
pub fn home_of(seed: &Seed, what: impl Hash, shards: u16) -> ShardId {
    assert!(shards > 0, "a node has a shard");
    // The lowest and highest bits of the same hash place the room in the home's map; taking others
    // here keeps that map's keys evenly spread.
    let middle = (seed.hash_one(what) >> 20) & u64::from(u32::MAX);
    let shard = (middle * u64::from(shards)) >> 32;
    ShardId(u16::try_from(shard).unwrap_or(0))
}

impl Directory {
    /// A directory without rooms. `epoch` is higher than any that an earlier run may have used.
    #[must_use]
    pub fn new(seed: &Seed, epoch: u64) -> Self {
        Self { rooms: seed.map(), next_epoch: epoch }
    }

    /// Notes how many members `shard` has in `room` now. A room without members anywhere ends.
    pub fn set_count(&mut self, room: &Arc<str>, shard: ShardId, count: u32) {
        if let Some(home) = self.rooms.get_mut(&**room) {
            let at = home.counts.iter().position(|(known, _)| *known == shard);
            match at {
                Some(at) if count > 0 => home.counts[at].1 = count,
                Some(at) => _ = home.counts.swap_remove(at),
                None if count > 0 => home.counts.push((shard, count)),
                None => {}
            }
            if home.counts.is_empty() {
                self.end(room);
            }
        } else if count > 0 {
            let counts = SmallVec::from_iter([(shard, count)]);
            let home = HomeRoom { offset: 0, epoch: self.next_epoch, counts };
            self.next_epoch += 1;
            self.rooms.insert(Arc::clone(room), home);
        }
    }

    /// The number of a new publication, from 1; `None` when the room has no members.
    pub fn number(&mut self, room: &str) -> Option<u64> {
        let home = self.rooms.get_mut(room)?;
        home.offset += 1;
        Some(home.offset)
    }

    /// The room's epoch and the number of its latest publication, zero before the first.
    #[must_use]
    pub fn position(&self, room: &str) -> Option<(u64, u64)> {
        self.rooms.get(room).map(|home| (home.epoch, home.offset))
    }

    /// The shards with members, each once, in no particular order.
    pub fn shards(&self, room: &str) -> impl Iterator<Item = ShardId> {
        let counts = self.rooms.get(room).map_or(&[][..], |home| &home.counts);
        counts.iter().map(|(shard, _)| *shard)
    }

    /// Members of the room in the whole node.
    #[must_use]
    pub fn members(&self, room: &str) -> u64 {
        let counts = self.rooms.get(room).map_or(&[][..], |home| &home.counts);
        counts.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Rooms that have members and their home here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// True when no such room exists.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Rooms for which memory is held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.rooms.capacity()
    }

    /// Verifies that no room lives without members, and none names a shard twice.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        for (name, home) in &self.rooms {
            assert!(!home.counts.is_empty(), "{name} has members");
            assert!(home.epoch < self.next_epoch, "{name} has an epoch of its own");
            for (at, (shard, count)) in home.counts.iter().enumerate() {
                assert!(*count > 0, "{name} has members in {shard:?}");
                let again = home.counts[at + 1..].iter().any(|(other, _)| other == shard);
                assert!(!again, "{name} names {shard:?} once");
            }
        }
    }

    fn end(&mut self, room: &str) {
        self.rooms.remove(room);
        if is_sparse(self.rooms.len(), self.rooms.capacity()) {
            self.rooms.shrink_to(self.rooms.len() * 2);
        }
    }
}
