//! Floor 2: who is where, and what is published to them.
//!
//! A room has two sides. Its members live in the shards of their connections; [`rooms`] keeps them,
//! one [`Hub`] per shard, and tells which rooms changed. Its home is one shard, found by the hash of
//! its name; [`directory`] keeps there what only one may decide: the number of the next publication,
//! and which shards have members at all.
//!
//! - [`rooms`]: members of rooms and rooms of members, within a shard.
//! - [`directory`]: the home side of rooms.
//! - [`roster`]: the home side of users: who is there and who was.
//! - [`lookout`]: the observers of a shard, and what they have yet to be told.
//! - [`showcase`]: the home side of rooms that are observed.
//! - [`tally`]: the home side of parties, whose connections are counted over all shards.
//! - [`publication`]: what is published; encoded once per class, shared by all receivers.
//! - [`history`]: what was published lately, kept at the home.
//! - [`keep`]: what goes along with a publication that is numbered elsewhere.
//! - [`lines`]: what waits in front of a room for the store, at the home.
//! - [`saved`]: a publication as it is stored.
//! - [`repeats`]: identifiers seen lately, at the home.
//! - [`dedup`]: one copy for a member of several target rooms, whatever homes the copies come from.
//!
//! Nothing here sends: a hub answers who the receivers are. Nothing here knows a protocol; the
//! encoding of a publication is an argument.

pub mod dedup;
pub mod directory;
pub mod history;
pub mod keep;
pub mod lines;
mod lists;
pub mod lookout;
mod places;
pub mod publication;
mod remembered;
pub mod repeats;
mod room;
pub mod rooms;
pub mod roster;
pub mod saved;
pub mod showcase;
pub mod tally;

pub use dedup::{Groups, Served};
pub use directory::{Directory, home, home_of};
pub use history::{Evicted, History, HistoryLimits, Past, Portion, Slice};
pub use keep::{Keep, Receipt};
pub use lines::{Asks, Lines, Names, Turn};
pub use lookout::{Heard, Known, Lookout};
pub use publication::{
    Audience, By, Class, Durable, Encoded, Except, Group, Once, Origin, Publication, Slip, Target,
    Terms,
};
pub use repeats::Repeats;
pub use room::Member;
pub use rooms::{Change, Hub, Joined, MemberRef, RoomKey, Standing, TooManyRooms};
pub use roster::{Afar, Here, Passage, Roster, RosterCounts, Sight, Stand};
pub use showcase::{Display, Next, Outcome, Showcase, Times};
pub use tally::{Excess, Tally};

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod roster_tests;
#[cfg(test)]
mod tests;
