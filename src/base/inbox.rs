//! What is kept for a user until it is read: the words that shards, store and admin listener share.
//!
//! A note has an id that only grows within its user's inbox, so that two of them can be put in order and a
//! client can say what it has. Ids begin with the time, and so they go on growing also where nothing is
//! left of the earlier ones. They stay below 2^53, which a JavaScript number still tells apart. Kind and
//! payload are JSON as it was written; nothing here reads them.

/// The largest id there can be, and the largest number a client may name as one.
pub const LAST_ID: u64 = (1 << 53) - 1;

/// A notification as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its place in the order of the user's inbox.
    pub id: u64,
    /// When it was stored, in milliseconds since 1970.
    pub at: u64,
    /// The application's type of it, a JSON string with its quotes; empty for none.
    pub kind: Box<str>,
    /// JSON as it came.
    pub payload: Box<str>,
}

/// A part of an inbox, in the order of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What is unread, oldest first.
    pub notes: Vec<Note>,
    /// The id of the newest notification there has been, read ones included; zero where none is remembered.
    pub newest: u64,
    /// How many are unread in the whole inbox.
    pub unread: u64,
    /// True when there are more within the bounds that were asked for.
    pub more: bool,
}

/// Which part of an inbox is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Only ids above this.
    pub after: u64,
    /// Only ids up to this.
    pub until: u64,
    /// So many at most.
    pub limit: usize,
    /// So many bytes of them at most, but one in any case.
    pub bytes: u64,
}

/// What has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Everything there is at this time.
    All,
    /// These; one that is not there is no error.
    Ids(Vec<u64>),
}
