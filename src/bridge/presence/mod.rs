//! Who is online on which node: what this node tells the others of its users, and what it knows of theirs.
//!
//! A node's life among the others has a lease, a key in Redis that it renews. Beside the key stands a hash
//! with the users who are here, and every change of it is told on a channel, with a number. So a node that
//! has heard everything needs to read nothing; one that comes late, or has missed a number, reads the hash
//! page by page. A node whose lease has gone is not there any more, whatever it thinks: when it finds that
//! out it begins another life under a new key and tells all of its users afresh.
//!
//! Everything is decided here by values: [`Presence`] says what to ask Redis next, and takes in answers, what
//! is heard, the time, and the link's coming and going. It holds a name of every user of this node and of
//! every one of the others, each once; what waits is bounded by that.
//!
//! | file | subject |
//! |---|---|
//! | `whole` | what is to be asked next, and what becomes of the answer |
//! | `words` | what is asked, answered and told |
//! | `note` | what is told on the channel |
//! | `own` | this node's users, as they were told |
//! | `peers` | the other nodes and their users |
//! | `peer` | one of them |
//! | `ask` | what is asked of Redis, as commands |
//! | `post` | where all this meets the link |
//! | `absent` | the nodes whose users are not known, for everybody to read |

mod absent;
mod ask;
mod note;
mod own;
mod peer;
mod peers;
mod post;
#[cfg(test)]
mod tests;
mod whole;
mod words;

use std::sync::Arc;

pub use absent::Absent;
pub(super) use ask::{CHANNEL, Clerk};
pub(super) use post::Post;
use whole::{Counts, Presence};
pub(super) use words::{Answer, Ask, Batch};
use words::{Mark, Page, Seen, Terms};

/// A user, by the name that the node has for it. Its meaning is the node's.
pub type Name = Arc<str>;

/// How a user stands in one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pose {
    /// There is no connection.
    #[default]
    Gone,
    /// Nobody sits in front of any of them.
    Idle,
    /// Somebody sits in front of one of them.
    Active,
}

/// How a user stands in this node now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The user.
    pub user: Name,
    /// How it stands.
    pub pose: Pose,
    /// Since when, in milliseconds since 1970.
    pub at: u64,
    /// True when, as far as is known here, no other node has the user.
    pub last: bool,
}

/// How a user stands in another node now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Afar {
    /// The user.
    pub user: Name,
    /// The node's place among those known here, from zero; free again once all of its users have gone.
    pub place: u16,
    /// How the user stands there.
    pub pose: Pose,
    /// Since when, in milliseconds since 1970, where it has gone.
    pub at: u64,
    /// True when it is for this node to tell that the user is offline, should nobody else have it.
    pub speaks: bool,
    /// True when the node is not there any more, and so has told nothing.
    pub ended: bool,
}

/// Other nodes that are known at a time.
pub const MOST_NODES: u16 = 1024;
