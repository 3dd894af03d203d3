//! What the thread is told, as values.

use std::time::Duration;

/// Everything it needs to know.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where requests go, in the order by which shards name them.
    pub places: Vec<Place>,
    /// Bytes of a request's head; a shard has found it no longer.
    pub head_bytes: usize,
    /// Header lines of a request; a shard has found no more.
    pub headers: usize,
}

/// Paths whose requests a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How the paths begin.
    pub path: String,
    /// The server's URL, without a path.
    pub url: String,
    /// How long the head of an answer may take, from the last of the request that came.
    pub timeout: Duration,
    /// How long nothing may pass in either direction.
    pub idle: Duration,
    /// Bytes of a request's body.
    pub body_bytes: u64,
    /// Bytes of an answer's body.
    pub answer_bytes: u64,
    /// Connections at one time.
    pub connections: usize,
    /// Those of one address among them; 0: as many as there are.
    pub per_address: usize,
}
