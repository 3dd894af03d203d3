//! What the node asks of shared histories, and what it is told.

use std::time::Duration;

use crate::base::cursor::{Cursor, Stale};
use crate::bridge::side::{Channel, Refused};

/// A publication that is to be numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The room's channel.
    pub channel: Channel,
    /// The publication: a JSON object, which the node at the other end understands.
    pub order: Vec<u8>,
    /// The publishing connection, as clients know it.
    pub from: Option<String>,
    /// The author and its identifier, where the same is to be taken once only, and for how long.
    pub once: Option<(String, Duration)>,
    /// What the room keeps.
    pub bound: Bound,
    /// By which the node knows what is told of it.
    pub ticket: u64,
}

/// What a room's stream keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Publications.
    pub count: u32,
    /// Bytes of them.
    pub bytes: u64,
    /// How long each.
    pub age: Duration,
}

/// What came of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has this number. An offset of zero: it has one, and nobody knows any more which.
    Taken(Cursor),
    /// It was taken before, under this number, and was not taken again.
    Repeat(Cursor),
    /// It was not taken, and nobody receives it.
    Refused(Refusal),
}

/// Why a publication was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many wait for Redis already.
    Queue,
    /// Redis has no memory left.
    Memory,
    /// Redis does not do what it is asked; the log says why.
    Failed,
}

/// A question for what came after a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The room's channel.
    pub channel: Channel,
    /// After which.
    pub after: Cursor,
    /// Publications at most.
    pub count: usize,
    /// Bytes of them after which no further one is added.
    pub bytes: usize,
    /// By which the node knows the answer.
    pub ticket: u64,
}

/// A publication that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub offset: u64,
    /// How long ago it was taken; zero for what has just been.
    pub age: Duration,
    /// The publication.
    pub order: String,
    /// The publishing connection.
    pub from: Option<String>,
}

/// What came after a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The first of them, without a hole; none where there is nothing newer.
    pub entries: Vec<Entry>,
}

/// Why there is no answer to a question for what came after a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nobody can go on from there.
    Stale(Stale),
    /// Redis cannot be asked now.
    Away,
}

/// The node, as shared histories see it. Nothing in it blocks.
pub trait Shares {
    /// Delivers a publication of a room that is followed. Each comes once, in the order of the numbers.
    ///
    /// # Errors
    /// When the node does not take it: [`Refused::Full`] for now, and it is offered again; else for good.
    fn arrived(&mut self, channel: &str, epoch: u64, entry: &Entry) -> Result<(), Refused>;

    /// The room's place in what follows; `None`: Redis cannot be asked now.
    fn followed(&mut self, channel: &str, at: Option<Cursor>);

    /// The room goes on from another place, and why.
    fn reset(&mut self, channel: &str, at: Cursor, why: Stale);

    /// What came of an [`Append`].
    fn decided(&mut self, ticket: u64, verdict: Verdict);

    /// The answer to a [`Fetch`].
    fn fetched(&mut self, ticket: u64, found: Result<Found, Lost>);
}
