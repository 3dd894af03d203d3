//! The shards in which a user is, and how they stand with the user, in 16 bytes.
//!
//! Most users are in one shard or two. There may be a million users, so the first few shards stand in the
//! entry itself and only more than those take memory of their own.

use smallvec::SmallVec;

use super::roster::Stand;
use crate::base::id::ShardId;

/// The shards in which a user has connections, each with its stand.
#[derive(Debug)]
pub(super) enum Places {
    Few(u8, [Place; FEW]),
    Many(Box<SmallVec<[Place; MANY]>>),
}

/// One shard: its number, and a bit that says whether somebody is active there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(u16);

const FEW: usize = 6;
const MANY: usize = 16;
const ACTIVE: u16 = 1 << 15;

impl Place {
    fn new(shard: ShardId, stand: Stand) -> Self {
        assert!(shard.0 < ACTIVE, "a node has fewer than 32768 shards");
        Self(shard.0 | if stand == Stand::Active { ACTIVE } else { 0 })
    }

    fn shard(self) -> ShardId {
        ShardId(self.0 & !ACTIVE)
    }

    fn stand(self) -> Stand {
        if self.0 & ACTIVE == 0 { Stand::Idle } else { Stand::Active }
    }
}

impl Places {
    /// One shard, in which there is somebody.
    pub(super) fn one(shard: ShardId, stand: Stand) -> Self {
        let mut places = [Place::default(); FEW];
        places[0] = Place::new(shard, stand);
        Self::Few(1, places)
    }

    /// Sets how one shard stands with the user.
    pub(super) fn set(&mut self, shard: ShardId, stand: Stand) {
        let at = self.all().iter().position(|place| place.shard() == shard);
        match (at, stand) {
            (Some(at), Stand::Gone) => self.remove(at),
            (Some(at), _) => self.all_mut()[at] = Place::new(shard, stand),
            (None, Stand::Gone) => {}
            (None, _) => self.push(Place::new(shard, stand)),
        }
    }

    /// How all shards together stand with the user.
    pub(super) fn stand(&self) -> Stand {
        self.iter().map(|(_, stand)| stand).max().unwrap_or_default()
    }

    /// The shards with their stands.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ShardId, Stand)> {
        self.all().iter().map(|place| (place.shard(), place.stand()))
    }

    fn all(&self) -> &[Place] {
        match self {
            Self::Few(count, places) => &places[..usize::from(*count)],
            Self::Many(places) => places,
        }
    }

    fn all_mut(&mut self) -> &mut [Place] {
        match self {
            Self::Few(count, places) => &mut places[..usize::from(*count)],
            Self::Many(places) => places,
        }
    }

    fn push(&mut self, place: Place) {
        match self {
            Self::Few(count, places) if usize::from(*count) < FEW => {
                places[usize::from(*count)] = place;
                *count += 1;
            }
            Self::Few(_, places) => {
                let mut many = SmallVec::from_slice(places);
                many.push(place);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(places) => places.push(place),
        }
    }

    fn remove(&mut self, at: usize) {
        match self {
            Self::Few(count, places) => {
                *count -= 1;
                places[at] = places[usize::from(*count)];
            }
            Self::Many(places) => _ = places.swap_remove(at),
        }
    }
}

const _: () = assert!(size_of::<Places>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// The twin is a map from shard to stand.
        #[test]
        fn places_equal_a_map_of_stands(
            steps in prop::collection::vec((0..10u16, 0..3u8), 1..60),
        ) {
            let mut places = Places::one(ShardId(0), Stand::Idle);
            let mut twin = BTreeMap::from([(ShardId(0), Stand::Idle)]);
            for (shard, stand) in steps {
                let shard = ShardId(shard);
                let stand = [Stand::Gone, Stand::Idle, Stand::Active][usize::from(stand)];
                places.set(shard, stand);
                twin.remove(&shard);
                if stand > Stand::Gone {
                    twin.insert(shard, stand);
                }
                let all: BTreeMap<ShardId, Stand> = places.iter().collect();
                prop_assert_eq!(places.iter().count(), all.len(), "a shard once");
                prop_assert_eq!(&all, &twin);
                prop_assert_eq!(places.stand(), twin.values().copied().max().unwrap_or_default());
            }
        }
    }
}
