//! The shards in which each user is, and how they stand with the user, in 18 bytes.
//!
//! There may be a million users, so an entry is 16 bytes: a hash instead of the name, which whoever asks brings
//! along, two shards, and the way to the next entry of its chain. Most users are in one shard or two; only those who
//! are in more at a time have a list of them beside that.

use std::num::NonZeroU16;

use smallvec::SmallVec;

use super::roster::{Stand, relax};
use crate::base::chains::{Chains, Linked};
use crate::base::id::ShardId;
use crate::base::map::{Map, Seed};
use crate::base::pool::{NONE, Pool};

/// One shard and its stand, which is not [`Stand::Gone`]: twice the shard's number and one, one more where somebody
/// is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(NonZeroU16);

/// Stands for a list of places.
const MANY: Place = Place(NonZeroU16::MAX);

impl Place {
    fn new(shard: ShardId, stand: Stand) -> Self {
        assert!(shard.0 < MOST_SHARDS, "a node has fewer than {MOST_SHARDS} shards");
        let active = u16::from(stand == Stand::Active);
        Self(NonZeroU16::MIN.saturating_add(shard.0 * 2 + active))
    }

    fn shard(self) -> ShardId {
        ShardId((self.0.get() - 1) / 2)
    }

    fn stand(self) -> Stand {
        if self.0.get() % 2 == 1 { Stand::Idle } else { Stand::Active }
    }
}

const MOST_SHARDS: u16 = 0x7fff;

/// A user who is somewhere.
#[derive(Debug)]
struct User {
    hash: u64,
    next: u32,
    /// [`MANY`] for one who is in more than two shards, or was since it was last in one only.
    first: Place,
    second: Option<Place>,
}

impl Linked for User {
    fn next(&self) -> u32 {
        self.next
    }

    fn set_next(&mut self, next: u32) {
        self.next = next;
    }
}

/// Where users are, by the hashes of their names.
#[derive(Debug)]
pub(super) struct Places {
    users: Pool<User>,
    chains: Chains,
    /// The shards of users who are in many.
    many: Map<u64, SmallVec<[Place; 8]>>,
}

impl Places {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { users: Pool::default(), chains: Chains::default(), many: seed.map() }
    }

    /// Sets how one shard stands with the user. True when the user was nowhere before.
    pub(super) fn set(&mut self, hash: u64, shard: ShardId, stand: Stand) -> bool {
        let place = (stand > Stand::Gone).then(|| Place::new(shard, stand));
        let Some(key) = self.find(hash) else {
            let Some(first) = place else { return false };
            let key = self.users.insert(User { hash, next: NONE, first, second: None });
            self.chains.insert(&mut self.users, key, |user| user.hash);
            return true;
        };
        let user = &mut self.users[key];
        if user.first == MANY {
            self.set_many(key, shard, place);
            return false;
        }
        match (place, user.second) {
            (Some(place), _) if user.first.shard() == shard => user.first = place,
            (Some(place), Some(second)) if second.shard() != shard => {
                let all = SmallVec::from_slice(&[user.first, second, place]);
                (user.first, user.second) = (MANY, None);
                self.many.insert(hash, all);
            }
            (Some(place), _) => user.second = Some(place),
            (None, Some(second)) if second.shard() == shard => user.second = None,
            (None, Some(second)) if user.first.shard() == shard => {
                (user.first, user.second) = (second, None);
            }
            (None, None) if user.first.shard() == shard => {
                self.chains.remove(&mut self.users, key, |user| user.hash);
                self.users.remove(key);
            }
            (None, _) => {}
        }
        false
    }

    fn set_many(&mut self, key: u32, shard: ShardId, place: Option<Place>) {
        let user = &mut self.users[key];
        let Some(all) = self.many.get_mut(&user.hash) else { return };
        match (all.iter().position(|place| place.shard() == shard), place) {
            (Some(at), Some(place)) => all[at] = place,
            (Some(at), None) => _ = all.swap_remove(at),
            (None, Some(place)) => all.push(place),
            (None, None) => {}
        }
        if let [only] = **all {
            user.first = only;
            self.many.remove(&user.hash);
            relax(&mut self.many);
        }
    }

    /// The shards with their stands; none for a user who is nowhere.
    pub(super) fn of(&self, hash: u64) -> impl Iterator<Item = (ShardId, Stand)> {
        let user = self.find(hash).map(|key| &self.users[key]);
        let many =
            user.filter(|user| user.first == MANY).and_then(|user| self.many.get(&user.hash));
        let few = user.filter(|user| user.first != MANY);
        let few = few.into_iter().flat_map(|user| [Some(user.first), user.second]).flatten();
        let all = few.chain(many.into_iter().flatten().copied());
        all.map(|place| (place.shard(), place.stand()))
    }

    /// How all shards together stand with the user.
    pub(super) fn stand(&self, hash: u64) -> Stand {
        self.of(hash).map(|(_, stand)| stand).max().unwrap_or_default()
    }

    /// True when the user is somewhere.
    pub(super) fn has(&self, hash: u64) -> bool {
        self.find(hash).is_some()
    }

    /// All who are somewhere.
    pub(super) fn users(&self) -> impl Iterator<Item = u64> {
        self.users.iter().map(|(_, user)| user.hash)
    }

    /// Verifies entries and lists.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub(super) fn check(&self) {
        self.users.check();
        self.chains.check(&self.users, |user| user.hash);
        let mut many = 0;
        for (key, user) in self.users.iter() {
            assert_eq!(self.find(user.hash), Some(key), "a user has one entry");
            assert!(user.second != Some(MANY), "a list is named by the first place");
            many += usize::from(user.first == MANY);
            assert!(self.of(user.hash).count() > usize::from(user.first == MANY), "is somewhere");
        }
        assert_eq!(many, self.many.len(), "a list is of one user");
    }

    fn find(&self, hash: u64) -> Option<u32> {
        self.chains.find(&self.users, hash, |user| user.hash == hash)
    }
}

const _: () = assert!(Pool::<User>::PLACE == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// The twin is a map from user and shard to stand.
        #[test]
        fn places_equal_a_map_of_stands(
            steps in prop::collection::vec((0..4u64, 0..10u16, 0..3u8), 1..200),
        ) {
            let mut places = Places::new(&Seed::new(1));
            let mut twin: BTreeMap<u64, BTreeMap<ShardId, Stand>> = BTreeMap::new();
            for (user, shard, stand) in steps {
                let shard = ShardId(shard * (MOST_SHARDS / 10));
                let stand = [Stand::Gone, Stand::Idle, Stand::Active][usize::from(stand)];
                let known = twin.entry(user).or_default();
                let comes = known.is_empty() && stand > Stand::Gone;
                prop_assert_eq!(places.set(user, shard, stand), comes);
                known.remove(&shard);
                if stand > Stand::Gone {
                    known.insert(shard, stand);
                }
                for (user, known) in &twin {
                    let all: BTreeMap<ShardId, Stand> = places.of(*user).collect();
                    prop_assert_eq!(places.of(*user).count(), all.len(), "a shard once");
                    prop_assert_eq!(&all, known);
                    let together = known.values().copied().max().unwrap_or_default();
                    prop_assert_eq!(places.stand(*user), together);
                    prop_assert_eq!(places.has(*user), !known.is_empty());
                }
                places.check();
            }
        }
    }

    #[test]
    fn the_highest_shard_has_a_place_that_is_no_list() {
        let highest = Place::new(ShardId(MOST_SHARDS - 1), Stand::Active);
        assert!(highest != MANY && highest.shard() == ShardId(MOST_SHARDS - 1));
    }
}
