//! Publications on their way to the store and back, as far as both ends have to agree.
//!
//! A room's home decides what is kept and how it is numbered; the store keeps it and knows nothing of rooms but
//! their names. What a row holds is the home's business.

use std::sync::Arc;

/// A publication as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedRow {
    /// Its number in the room.
    pub offset: u64,
    /// When it was handed in, in milliseconds since 1970.
    pub at: u64,
    /// Everything else, in a form that only the home understands.
    pub bytes: Box<[u8]>,
}

/// How much of a room is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Publications.
    pub count: u64,
    /// Bytes of their rows.
    pub bytes: u64,
    /// The age at which one is dropped, in milliseconds.
    pub age_ms: u64,
}

/// A request to keep publications of one room: all of them or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// The room, by its name within the node.
    pub room: Arc<str>,
    /// The life of the room that the numbers are of.
    pub epoch: u64,
    /// Up to here numbers may have been given out when the process ends, kept or not. Not below the last row's.
    pub reserved: u64,
    /// In the order of their numbers; may be empty, when only numbers are reserved.
    pub rows: Vec<SavedRow>,
    /// What holds for the room.
    pub bounds: Bounds,
}

/// What is kept of a room, as a process that starts finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedRoom {
    /// The room, by its name within the node.
    pub room: Arc<str>,
    /// The life of the room that the numbers are of.
    pub epoch: u64,
    /// No number up to here may be given out again.
    pub reserved: u64,
    /// The highest number that was kept and had to go.
    pub dropped: u64,
    /// In the order of their numbers; not every number there was.
    pub rows: Vec<SavedRow>,
}
