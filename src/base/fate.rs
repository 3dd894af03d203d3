//! What became of a publication, in the words in which shards tell it.
//!
//! A shard remembers it, and whoever is asked puts the shards' accounts together; these are the words between them.

use crate::base::cursor::Cursor;
use crate::base::id::ConnAddress;
use crate::base::shared::Overflow;

/// What became of a publication for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waits in the queue. Never remembered: looked up when asked.
    Queued,
    /// It is in a write that the kernel has not taken whole.
    Writing,
    /// The kernel has taken it.
    Written,
    /// It was in a write that the kernel had not taken whole when the connection ended.
    CutOff,
    /// It was dropped by this policy, above the high water mark.
    Dropped(Overflow),
    /// A newer one of its key took its place.
    Replaced,
    /// Its author excepted the connection.
    Excepted,
    /// The connection got the same by another target of its command.
    Twice,
    /// The connection was closed as too slow a reader for it.
    TooSlow,
    /// The connection had begun to close.
    TooLate,
    /// It was lost with the queue as the connection ended.
    Lost,
}

/// What a shard knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// False where nothing is remembered.
    pub is_on: bool,
    /// Everything since then is remembered, in milliseconds since 1970.
    pub since: u64,
    /// When the room's home, if that is this shard, numbered it.
    pub numbered: Option<Sighting>,
    /// When it came for the members here.
    pub arrived: Option<Sighting>,
    /// It came too late to be handed out.
    pub outdated: bool,
    /// The room's newest publication, where the shard is its home.
    pub position: Option<Cursor>,
    /// The connections that are asked about, a thousand at most.
    pub connections: Vec<Destiny>,
}

/// When a publication was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// In milliseconds since 1970.
    pub at: u64,
    /// Of its room: another one stands for another publication.
    pub epoch: u64,
}

/// A connection, and what became of the publication for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destiny {
    /// Which.
    pub conn: ConnAddress,
    /// Since when it is connected, in milliseconds since 1970.
    pub begun: u64,
    /// When it ended, if it has.
    pub ended: Option<u64>,
    /// What became of the publication, and when; nothing that is known of.
    pub fate: Option<(Fate, u64)>,
}
