//! Which shard is whose home.

use crate::base::id::ShardId;
use crate::base::map::Seed;
use crate::hub;

/// The node's seed: two rigs of one node agree on the homes of rooms.
const SEED: u64 = 11;

/// What all shards of a node derive homes from.
pub(super) fn seed() -> Seed {
    Seed::new(SEED)
}

/// A room whose home is that shard.
pub(super) fn room_of(home: u16, shards: u16) -> String {
    room_other_than("", home, shards)
}

/// Another one.
pub(super) fn room_other_than(not: &str, home: u16, shards: u16) -> String {
    let seed = seed();
    (0..)
        .map(|number| format!("room-{number}"))
        .find(|room| room != not && hub::home(&seed, room, shards) == ShardId(home))
        .expect("a room")
}
