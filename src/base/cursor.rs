//! A place in a room's history, and why a client cannot go on from one.
//!
//! An offset numbers the publications of one life of a room, and the epoch says which life. Whoever shows
//! a cursor has seen everything up to it. Clients compare epochs and nothing else, so an epoch that was
//! never given out is as good as one that has ended: both are another one.

/// Everything up to here has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor {
    /// Which life of the room.
    pub epoch: u64,
    /// The number of the latest publication seen; zero before the first.
    pub offset: u64,
}

/// Why what came after a cursor cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stale {
    /// The room's history no longer reaches back so far.
    TooOld,
    /// The room has ended since and begun anew.
    Epoch,
    /// The room has not come so far yet.
    Ahead,
    /// The server has started anew, and what it had not stored is gone; what it had stored follows.
    Lost,
}

impl Stale {
    /// The reason as clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooOld => "too_old",
            Self::Epoch => "epoch",
            Self::Ahead => "ahead",
            Self::Lost => "lost",
        }
    }
}
