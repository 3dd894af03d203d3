//! What a store is asked, what it answers, and why not.

use std::fmt;
use std::sync::Arc;

use crate::base::inbox::{Marked, Page, Span};
use crate::base::saved::{Save, SavedRoom};

/// A notification that is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Whom it is for: the name of the user's own room.
    pub owner: Arc<str>,
    /// A JSON string, or empty.
    pub kind: Box<str>,
    /// JSON.
    pub payload: Box<str>,
    /// The sender's name for it: one that was kept before under the same name is not kept again. Empty for
    /// none.
    pub name: Box<str>,
}

/// A user who has come, or who has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who: the name of the user's own room.
    pub owner: Arc<str>,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// True for one who has come and stays, false for one who has gone.
    pub here: bool,
}

/// What was taken back, and until when that is to be remembered. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// True for the id of a token, false for the name of a user's own room.
    pub is_token: bool,
    /// The id or the name.
    pub name: Box<str>,
    /// Tokens of the user that were issued until then are void; zero for a token.
    pub issued: u64,
    /// Then it can be forgotten.
    pub until: u64,
}

/// One request. The time it is done at is an argument of the store's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Keep a notification; answered with [`Answer::Appended`].
    Append(Draft),
    /// List what is unread; answered with [`Answer::Page`].
    List {
        /// Whose.
        owner: Arc<str>,
        /// Which part.
        span: Span,
    },
    /// Note what was read; answered with [`Answer::Unread`].
    Read {
        /// Whose.
        owner: Arc<str>,
        /// Which.
        marked: Marked,
    },
    /// Note who has come and who has gone, in this order; answered with [`Answer::Done`].
    Seen(Vec<Seen>),
    /// Note that the process lives; answered with [`Answer::Done`].
    Alive,
    /// The process that wrote this before has ended: a slice of those who were here then, and of whom nobody said
    /// that they went, were last here when it last lived. Answered with [`Answer::Settled`]. To be asked, until
    /// nothing is left, before anybody comes.
    Settle,
    /// When was the user last here? Answered with [`Answer::LastSeen`].
    LastSeen {
        /// Whose.
        owner: Arc<str>,
    },
    /// Who was here last, so many users at most; answered with [`Answer::Recent`]. Looks at every user there
    /// is.
    Recent {
        /// How many.
        limit: usize,
    },
    /// Remember a revocation; answered with [`Answer::Done`].
    Revoke(Revoked),
    /// List the revocations that still hold; answered with [`Answer::Revoked`].
    Revocations,
    /// Keep publications of a room, all or none; answered with [`Answer::Done`].
    Save(Save),
    /// Nothing of this life of the room is to be found any more; answered with [`Answer::Done`].
    Forget {
        /// The room, by its name within the node.
        room: Arc<str>,
        /// The life. Of another one nothing is forgotten.
        epoch: u64,
    },
    /// List what is kept of rooms; answered with [`Answer::Rooms`].
    Rooms {
        /// The room that the last answer ended with; empty at first.
        after: Arc<str>,
        /// Bytes of rows after which no further room is listed.
        bytes: u64,
    },
    /// Drop a slice of what has grown old; answered with [`Answer::Pruned`].
    Prune {
        /// Where the last slice ended; empty at first.
        from: Vec<u8>,
    },
}

/// A notification that is kept now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its id.
    pub id: u64,
    /// When it was stored, in milliseconds since 1970.
    pub at: u64,
    /// How many are unread, this one included.
    pub unread: u64,
    /// True when it had been kept before under the same name; then nothing changed.
    pub repeated: bool,
    /// How many older ones had to leave unread to make space.
    pub dropped: u64,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Append`].
    Appended(Appended),
    /// To [`Ask::List`].
    Page(Page),
    /// To [`Ask::Read`]: how many are unread still, and whether that changed.
    Unread {
        /// How many.
        unread: u64,
        /// True when fewer than before.
        changed: bool,
    },
    /// To [`Ask::LastSeen`], in milliseconds since 1970; `None` for who was never noted, or long ago.
    LastSeen(Option<u64>),
    /// To [`Ask::Recent`]: users with the time in milliseconds since 1970, in no particular order.
    Recent(Vec<(Arc<str>, u64)>),
    /// To [`Ask::Settle`].
    Settled {
        /// True when there may be more.
        more: bool,
    },
    /// To [`Ask::Revocations`].
    Revoked(Vec<Revoked>),
    /// To [`Ask::Rooms`].
    Rooms {
        /// Rooms of which something is kept, by name.
        rooms: Vec<SavedRoom>,
        /// The last room looked at, when there may be more.
        next: Option<Arc<str>>,
    },
    /// To [`Ask::Prune`].
    Pruned {
        /// Where the next slice begins; `None` at the end.
        next: Option<Vec<u8>>,
        /// Unread notifications that left.
        dropped: u64,
    },
    /// To what has nothing to tell.
    Done,
}

/// Why a request was not done. It changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too many requests wait; later there is space.
    Busy,
    /// The store is as full as it may be.
    Full,
    /// It could never be kept: it is larger than an inbox may be, in bytes.
    TooLarge(u64),
    /// The disk does not do; the text is for the operator and in the log.
    Broken(Arc<str>),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("too much waits for the store"),
            Self::Full => f.write_str("the store is full"),
            Self::TooLarge(most) => write!(f, "an inbox holds {most} bytes"),
            Self::Broken(_) => f.write_str("the store cannot be written or read"),
        }
    }
}

/// What became of one request.
pub type Outcome = Result<Answer, Refused>;

/// The world's fault: names the file, the call and why. Nothing of the transaction was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub(super) String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unread notifications of one user; one more pushes the oldest out. As many names of read ones are
    /// remembered.
    pub count: u64,
    /// Bytes of the unread notifications of one user, payload and all.
    pub bytes: u64,
    /// Age at which a notification is dropped, in milliseconds.
    pub age_ms: u64,
    /// Age at which a last-seen time is dropped, in milliseconds.
    pub seen_age_ms: u64,
    /// Revocations.
    pub revocations: u64,
}
