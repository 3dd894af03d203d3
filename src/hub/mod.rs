//! Floor 2: who is where, and what is published to them.
//!
//! A room has two sides. Its members live in the shards of their connections; [`rooms`] keeps them,
//! one [`Hub`] per shard, and tells which rooms changed. Its home is one shard, found by the hash of
//! its name; [`directory`] keeps there what only one may decide: the number of the next publication,
//! and which shards have members at all.
//!
//! - [`rooms`]: members of rooms and rooms of members, within a shard.
//! - [`directory`]: the home side of rooms.
//! - [`tally`]: the home side of parties, whose connections are counted over all shards.
//! - [`publication`]: what is published; encoded once per class, shared by all receivers.
//! - [`dedup`]: one copy for a member of several target rooms, whatever homes the copies come from.
//!
//! Nothing here sends: a hub answers who the receivers are. Nothing here knows a protocol; the
//! encoding of a publication is an argument.

pub mod dedup;
pub mod directory;
pub mod publication;
pub mod rooms;
mod table;
pub mod tally;

pub use dedup::{Groups, Served};
pub use directory::{Directory, home, home_of};
pub use publication::{Class, Encoded, Group, Publication};
pub use rooms::{Hub, Joined, Member, MemberRef, RoomKey, TooManyRooms};
pub use tally::{Excess, Tally};

#[cfg(test)]
mod tests;
