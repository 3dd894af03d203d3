//! What a shard wants of the world outside the node, by way of the node's desk.
//!
//! Whoever carries one does not read it, and whoever answers knows of the shard nothing but where the answer goes.

use crate::base::id::ShardId;

/// A question to the application's back end.
#[derive(Debug)]
pub struct Inquiry {
    /// The shard that the answer goes to.
    pub from: ShardId,
    /// By which the shard knows it.
    pub number: u64,
    /// The question: JSON.
    pub document: Vec<u8>,
}

/// A whole plain request, for somebody else to answer.
#[derive(Debug)]
pub struct Petition {
    /// The shard that the answer goes to.
    pub from: ShardId,
    /// By which the shard knows it.
    pub number: u64,
    /// The client's address, or the network that is counted as one, as far as it is known.
    pub client: Option<String>,
    /// True when it came by TLS.
    pub is_secure: bool,
    /// The request: a head that was found in order, and all of its body.
    pub bytes: Vec<u8>,
}
