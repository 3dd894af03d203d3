//! What the listener asks of the node.
//!
//! None of these calls waits. What shards must do travels as mail, and a [`Receipt`] tells whether all of
//! them have taken it; who asked decides how long to look.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::store::{self, Ask, Outcome};

use super::exposition::Exposition;
use super::overview::Registry;
use super::presence::Census;
use super::publish::Publisher;
use crate::base::id::ShardId;
use crate::base::outside::{Inquiry, Petition};
use crate::base::tidings::Tiding;

/// A ticket that someone asks for on behalf of a user.
#[derive(Clone, Debug)]
pub struct TicketAsk {
    /// Whose user.
    pub tenant: Option<String>,
    /// The user.
    pub user: String,
    /// The rooms and rights, as a token's claim gives them; `None` for those without a grant.
    pub rooms: Option<Box<RawValue>>,
    /// For how long it can be redeemed; `None` for as long as usual.
    pub ttl: Option<Duration>,
    /// A name by which it can be revoked, with the connection it led to.
    pub token_id: Option<String>,
}

/// A ticket: may be redeemed once, at the upgrade of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// What the client presents.
    pub text: String,
    /// When it is worth nothing any more, in milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// Whether all nodes take it, or this one alone; `None` where tickets are never for several.
    pub everywhere: Option<bool>,
}

/// Whose connections are to end, and who is to be refused from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Whose.
    pub whose: Revoked,
    /// For how long tokens that it takes are refused: as long as they may live.
    pub remember: Duration,
}

/// What is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// All tokens of a user that were issued until now.
    User {
        /// Whose user.
        tenant: Option<String>,
        /// The user.
        user: String,
    },
    /// One token.
    Token {
        /// Its id.
        id: String,
    },
}

/// Stands for mail to all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt(pub u64);

/// A connection that has something to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    /// Its id.
    pub conn: String,
    /// Whose user.
    pub tenant: Option<String>,
    /// The user, if it is known.
    pub user: Option<String>,
    /// Bytes that wait for it.
    pub waiting: u64,
    /// Rooms it is in.
    pub rooms: usize,
    /// How long ago its socket was accepted.
    pub life: Duration,
}

/// Why the node does not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Inboxes are full; later it may do it.
    Busy,
    /// The store will not take it now.
    Store(store::Refused),
    /// The configuration does not provide for it; the text says what is missing.
    NotConfigured(&'static str),
    /// A value it cannot take.
    Field {
        /// Which.
        name: &'static str,
        /// Why.
        why: String,
    },
}

/// What the store will have answered.
pub type Later = oneshot::Receiver<Outcome>;

/// Whether the node is fit to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Why it should be given no new clients; empty when it should.
    pub reasons: Vec<&'static str>,
    /// What does not work meanwhile, though the node serves: no reason to send clients elsewhere.
    pub degraded: Vec<&'static str>,
}

/// The node, as the listener sees it.
pub trait Desk: Publisher + Census + Registry + Send + Sync + 'static {
    /// Whether the node is fit to serve.
    fn standing(&self) -> Standing;

    /// Asks all shards for a sign of life.
    ///
    /// # Errors
    /// When too much mail waits for them already.
    fn probe(&self) -> Result<Receipt, Refused>;

    /// The counters over all shards, by name.
    fn counters(&self) -> Vec<(&'static str, u64)>;

    /// Asks all shards for the connections with most to read.
    ///
    /// # Errors
    /// When too much mail waits for them already.
    fn survey(&self) -> Result<Receipt, Refused>;

    /// What they have found, in no order; `None` while one has not answered. The receipt is that of
    /// [`Desk::survey`].
    fn surveyed(&self, receipt: Receipt) -> Option<Vec<Laggard>>;

    /// Writes everything that is measured.
    fn expose(&self, out: &mut Exposition);

    /// Makes a ticket.
    ///
    /// # Errors
    /// When the node does not make such a ticket.
    fn mint(&self, ask: &TicketAsk) -> Result<Ticket, Refused>;

    /// Whether the link to other nodes is up; `None` where there is none.
    fn is_linked(&self) -> Option<bool> {
        None
    }

    /// Tells all shards of a revocation, and has it stored.
    ///
    /// # Errors
    /// When too much mail waits for them already; then none is told.
    fn revoke(&self, revocation: &Revocation) -> Result<(Receipt, Later), Refused>;

    /// The name under which the store knows a user.
    fn owner(&self, tenant: Option<&str>, user: &str) -> Arc<str>;

    /// Asks the store something. What is appended is shown to the user's connections once it is stored, and
    /// `reached` is told how many those are.
    ///
    /// # Errors
    /// When the store is not asked: too many requests wait, or this one can come to nothing.
    fn keep(&self, ask: Ask, reached: Option<oneshot::Sender<u64>>) -> Result<Later, Refused>;

    /// Checks tokens with the keys of this JWK set from now on, and no more with those given before. Gives
    /// the number of keys.
    ///
    /// # Errors
    /// What is wrong with the document.
    fn take_keys(&self, document: &[u8]) -> Result<usize, String>;

    /// How many tokens came so far that named a key nobody knows.
    fn unknown_keys(&self) -> u64;

    /// True once every shard has taken what the receipt stands for.
    fn is_taken(&self, receipt: Receipt) -> bool;

    /// The number of shards.
    fn shards(&self) -> usize;

    /// What the shards want done outside the node; `None` where they want nothing.
    fn inquiries(&self) -> Option<&dyn Inquiries> {
        None
    }
}

/// What shards leave at the desk.
#[derive(Debug)]
pub enum Outgoing {
    /// A question to the application's back end.
    Question(Inquiry),
    /// What has happened, for those who want to hear of it.
    Events(Vec<Tiding>),
    /// A request to be answered.
    Petition(Petition),
}

/// Where the shards leave what they want done, with a bell.
pub trait Inquiries: Send + Sync {
    /// Becomes readable, anew each time, when there is something to do after a [`Inquiries::rest`].
    ///
    /// # Errors
    /// When there are no descriptors left.
    fn bell(&self) -> io::Result<OwnedFd>;

    /// The next thing; never waits.
    fn next(&self) -> Option<Outgoing>;

    /// Announces that nobody looks until the bell rings; false: there is something to do already.
    fn rest(&self) -> bool;

    /// Takes the announcement back, and goes on with what was held up.
    fn rise(&self);

    /// Hands in the answer to a question; `None`: there is none.
    ///
    /// # Errors
    /// What is wrong with the answer, which then counts as none.
    fn finish(&self, inquiry: &Inquiry, answer: Option<&[u8]>) -> Result<(), String>;

    /// Hands in the response to the request of that number, for this shard to write as it is.
    fn answer(&self, shard: ShardId, number: u64, response: Vec<u8>);
}
