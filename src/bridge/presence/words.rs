//! What presence asks of Redis, what it is answered, and what nodes tell each other: values without behaviour.

use std::time::Duration;

use super::{Change, Name, Pose};

/// What presence among nodes is told.
#[derive(Clone, Debug)]
pub(in crate::bridge) struct Terms {
    /// The node's tag.
    pub(in crate::bridge) tag: u32,
    /// How long a node that has fallen silent counts as there.
    pub(in crate::bridge) lease: Duration,
    /// The number of this node's first life; each further one is higher.
    pub(in crate::bridge) life: u64,
    /// Milliseconds since 1970 at [`Time::ZERO`].
    pub(in crate::bridge) unix_ms: u64,
    /// Users of other nodes that are known at most.
    pub(in crate::bridge) most_users: usize,
}

/// What marks a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::bridge) enum Mark {
    /// A life begins; its users follow.
    Begin,
    /// All of them have been told.
    Whole,
    /// The node ends.
    Bye,
}

/// What a node tells the others in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bridge) struct Batch {
    pub(in crate::bridge) life: u64,
    pub(in crate::bridge) seq: u64,
    pub(in crate::bridge) mark: Option<Mark>,
    pub(in crate::bridge) changes: Vec<Change>,
}

/// What to ask of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bridge) enum Ask {
    /// Renew the lease, or take it where the batch begins a life; note the changes and tell them.
    Tell(Batch),
    /// Which lives have a lease?
    Look,
    /// A page of the users of a life.
    Page { tag: u32, life: u64, cursor: u64 },
}

/// A life that has a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bridge) struct Seen {
    pub(in crate::bridge) tag: u32,
    pub(in crate::bridge) life: u64,
    pub(in crate::bridge) node: Name,
    /// The number of what was last told.
    pub(in crate::bridge) seq: u64,
    /// True once all of its users had been told.
    pub(in crate::bridge) whole: bool,
}

/// What Redis has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bridge) enum Answer {
    /// Whether the lease was there.
    Told(bool),
    Looked(Vec<Seen>),
    /// A page, from a moment at or after that of `seq`; `None` when there is nothing of that life.
    Page(Option<Page>),
    /// Redis refuses the command, for now at least.
    Refused,
}

/// Users of a life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bridge) struct Page {
    pub(in crate::bridge) seq: u64,
    pub(in crate::bridge) whole: bool,
    /// Where to go on; zero at the end.
    pub(in crate::bridge) cursor: u64,
    pub(in crate::bridge) users: Vec<(Name, Pose)>,
}
