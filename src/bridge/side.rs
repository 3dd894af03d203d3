//! The node, as the bridge sees it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::bans::Ban;
use super::claims::{Claim, Claimed};
use super::ids::{Named, Naming};
use super::presence::{Afar, Change};
use super::records::{Receipt, Record};
use super::streams::{Append, Fetch, Shares};
use super::survey::{Poll, Polled, Survey};
use crate::base::id::ConnAddress;

/// A channel's name without the prefix. [`Side`] makes them, and each means one room or all nodes.
pub type Channel = Arc<str>;

/// What the node publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Where to; the same on each, to be taken once by whoever hears several.
    pub channels: Vec<Channel>,
    /// The publication: a JSON object, which the node at the other end understands.
    pub order: Vec<u8>,
    /// The publishing connection, as clients know it.
    pub from: Option<String>,
    /// False when it goes before something that one of its homes had numbered before it, by another author.
    pub in_turn: bool,
    /// What to ask all other nodes once this is on its way: how many it has reached. The answer is told as that of
    /// any question.
    pub count: Option<Survey>,
}

/// By which a publication is known whose reach somebody will ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The tag of the node that asks.
    pub to: u32,
    /// The number of its question.
    pub number: u64,
}

/// What the node tells its bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Publish this.
    Publish(Parcel),
    /// Whether what is published there matters to the node.
    Interest(Channel, bool),
    /// Number this and publish it.
    Append(Append),
    /// Tell the node's place in a room that it is interested in, and keep it from holes.
    Follow(Channel),
    /// Look up what came after a place.
    Fetch(Fetch),
    /// How users stand in this node now.
    Here(Vec<Change>),
    /// Ask all other nodes.
    Ask(Survey),
    /// Answer one that has asked.
    Answer(Poll),
    /// Have all nodes remember this.
    Ban(Ban),
    /// Let nobody use this again; was it used?
    Claim(Claim),
    /// Let no node take these again; were they taken?
    Name(Naming),
    /// Write this to the stream of what clients say to back ends.
    Record(Record),
}

/// Why the node does not take what was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not what may be published there: why.
    Malformed(String),
    /// Too much waits for the shards already.
    Full,
}

/// The node, as the bridge sees it. Owned by the bridge's thread; nothing in it blocks.
pub trait Side: Shares + Polled + Send + 'static {
    /// The next word from the shards.
    fn next(&mut self) -> Option<Word>;

    /// Delivers what was published on a channel: by another node, or (`from` is `None` then) perhaps by any
    /// program. `count`: another node will ask how many it has reached.
    ///
    /// # Errors
    /// When the node does not take it.
    fn deliver(
        &mut self,
        channel: &str,
        order: &str,
        from: Option<&str>,
        foreign: bool,
        count: Option<Mark>,
    ) -> Result<(), Refused>;

    /// Delivers what an emitter of Socket.IO has said.
    ///
    /// # Errors
    /// When the node does not take it.
    fn emitted(&mut self, bytes: &[u8]) -> Result<(), Refused>;

    /// Tells the members behind these channels that they may have missed something.
    fn astray(&mut self, channels: &[Channel]);

    /// Takes in what a node, perhaps this one, has told all to remember; until when, in seconds since 1970.
    ///
    /// # Errors
    /// When the node does not take it.
    fn banned(&mut self, text: &str) -> Result<u64, Refused>;

    /// Tells who wanted to use something what came of it.
    fn claimed(&mut self, by: ConnAddress, claimed: Claimed);

    /// Tells a room's home which publications were taken before.
    fn named(&mut self, named: Named);

    /// Tells whether what a client has said to back ends was written.
    fn recorded(&mut self, receipt: Receipt, is_written: bool);

    /// True while more may wait for the shards.
    fn has_space(&self) -> bool;

    /// Tells the shards how users of other nodes stand now.
    fn afar(&mut self, news: Vec<Afar>);

    /// Hands on what waits for shards; true when nothing waits any more.
    fn flush(&mut self) -> bool;

    /// Becomes readable when there is a word, once [`Side::before_sleep`] has said true.
    fn wake_fd(&self) -> BorrowedFd<'_>;

    /// Announces sleep; false when there is a word already.
    fn before_sleep(&self) -> bool;

    /// Ends the announcement.
    fn awake(&self);
}
