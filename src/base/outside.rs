//! What a shard wants of the world outside the node, by way of the node's desk.
//!
//! Whoever carries one does not read it, and whoever answers knows of the shard nothing but where the answer goes.

use std::fmt::Debug;
use std::os::fd::OwnedFd;

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
    /// The request: a head that was found in order, and all of its body.
    pub bytes: Vec<u8>,
}

/// A socket on its way from a driver to whoever goes on with it. Those who carry it cannot use it.
#[derive(Debug)]
pub struct Handed(OwnedFd);

impl Handed {
    /// What a driver lets go of.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// The socket, for its new owner.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// A connection whose request another server answers, on its way to whoever goes between the two.
#[derive(Debug)]
pub struct Passage {
    /// Which of the places that requests are passed on to, in the order of the configuration.
    pub place: usize,
    /// The client's address, or the network that is counted as one, as far as it is known.
    pub client: Option<String>,
    /// What the client has said so far, from the first byte of its request on.
    pub said: Vec<u8>,
    /// What came behind that and was not opened yet; nothing where `seal` is `None`.
    pub unread: Vec<u8>,
    /// What lies between the socket and what is said; `None` where it is said plainly.
    pub seal: Option<Box<dyn Seal>>,
}

/// What lies between a socket and what is said over it, as TLS does. After an error it is of no use.
pub trait Seal: Debug + Send {
    /// Opens what came and appends what it says to `plain`. True when nothing more will be said: the peer has said
    /// that it is done, or broken the rules.
    ///
    /// # Errors
    /// What is wrong with it.
    fn open(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<bool, String>;

    /// Appends to `out` what is to be sent by itself, and behind it `plain`, sealed; both may be nothing.
    ///
    /// # Errors
    /// When nothing can be said any more.
    fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), String>;

    /// Appends to `out` the word that nothing follows.
    fn finish(&mut self, out: &mut Vec<u8>);
}
