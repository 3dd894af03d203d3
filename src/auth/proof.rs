//! Tokens that are checked beside the shard, because a signature by a public key takes longer than a turn has to
//! spare when a crowd comes.
//!
//! A shared secret costs a microsecond and is checked at the door. A public key costs ten to two hundred, which
//! is nothing for one client and a stall for the hundred that one turn may let in. What is checked is a value:
//! the token, the rules and keys of the moment at which it came, and that moment. So the answer is the same
//! whoever finds it and whenever, and a key that is changed meanwhile counts for the next.

use std::sync::Arc;

use super::access::Access;
use super::identity::{Identity, TokenError};
use crate::base::id::ShardId;

/// Which tokens are checked beside the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProofRules {
    /// Those whose signature costs more than so many microseconds; `None`: none.
    pub above_us: Option<u32>,
    /// So many of a shard wait at one time.
    pub most_waiting: usize,
}

/// A token to be checked.
#[derive(Debug)]
pub struct Proof {
    /// The shard that the answer goes to.
    pub from: ShardId,
    /// By which the shard knows it.
    pub number: u64,
    /// The token.
    pub token: Box<str>,
    /// The rules and the keys.
    pub access: Arc<Access>,
    /// When it came, in seconds since 1970.
    pub unix: u64,
}

/// What a token was found to be.
#[derive(Debug)]
pub struct Proven {
    /// By which the shard knows it.
    pub number: u64,
    /// Whose it is, or what is wrong with it.
    pub verdict: Result<Identity, TokenError>,
}

impl Proof {
    /// Checks the token.
    #[must_use]
    pub fn check(&self) -> Proven {
        let verdict = self.access.verifier.verify(&self.token, self.unix);
        Proven { number: self.number, verdict }
    }
}
