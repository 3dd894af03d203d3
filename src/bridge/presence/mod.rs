//! Who is online on which node: what this node tells the others of its users, and what it knows of theirs.
//!
//! A node's life among the others has a lease, a key in Redis that it renews. Beside the key stands a hash
//! with the users who are here, and every change of it is told on a channel, with a number. So a node that
//! has heard everything needs to read nothing; one that comes late, or has missed a number, reads the hash
//! page by page. A node whose lease has gone is not there any more, whatever it thinks: when it finds that
//! out it begins another life under a new key and tells all of its users afresh.
//!
//! Everything is decided here by values: [`Presence`] says what to ask Redis next, and takes in answers, what
//! is heard, the time, and the link's coming and going. It holds a name of every user of this node and of
//! every one of the others, each once; what waits is bounded by that.
//!
//! | file | subject |
//! |---|---|
//! | `note` | what is told on the channel |
//! | `own` | this node's users, as they were told |
//! | `peers` | the other nodes and their users |
//! | `peer` | one of them |
//! | `ask` | what is asked of Redis, as commands |
//! | `post` | where all this meets the link |
//! | `absent` | the nodes whose users are not known, for everybody to read |

mod absent;
mod ask;
mod note;
mod own;
mod peer;
mod peers;
mod post;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use absent::Absent;
pub(super) use ask::{CHANNEL, Clerk};
use note::Note;
use own::Own;
use peers::Peers;
pub(super) use post::Post;

use crate::base::map::Seed;
use crate::base::time::Time;

/// A user, by the name that the node has for it. Its meaning is the node's.
pub type Name = Arc<str>;

/// How a user stands in one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pose {
    /// There is no connection.
    #[default]
    Gone,
    /// Nobody sits in front of any of them.
    Idle,
    /// Somebody sits in front of one of them.
    Active,
}

/// How a user stands in this node now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The user.
    pub user: Name,
    /// How it stands.
    pub pose: Pose,
    /// Since when, in milliseconds since 1970.
    pub at: u64,
    /// True when, as far as is known here, no other node has the user.
    pub last: bool,
}

/// How a user stands in another node now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Afar {
    /// The user.
    pub user: Name,
    /// The node's place among those known here, from zero; free again once all of its users have gone.
    pub place: u16,
    /// How the user stands there.
    pub pose: Pose,
    /// Since when, in milliseconds since 1970, where it has gone.
    pub at: u64,
    /// True when it is for this node to tell that the user is offline, should nobody else have it.
    pub speaks: bool,
    /// True when the node is not there any more, and so has told nothing.
    pub ended: bool,
}

/// Other nodes that are known at a time.
pub const MOST_NODES: u16 = 1024;

/// What presence among nodes is told.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The node's tag.
    pub(super) tag: u32,
    /// How long a node that has fallen silent counts as there.
    pub(super) lease: Duration,
    /// The number of this node's first life; each further one is higher.
    pub(super) life: u64,
    /// Milliseconds since 1970 at [`Time::ZERO`].
    pub(super) unix_ms: u64,
    /// Users of other nodes that are known at most.
    pub(super) most_users: usize,
}

/// What marks a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mark {
    /// A life begins; its users follow.
    Begin,
    /// All of them have been told.
    Whole,
    /// The node ends.
    Bye,
}

/// What a node tells the others in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) life: u64,
    pub(super) seq: u64,
    pub(super) mark: Option<Mark>,
    pub(super) changes: Vec<Change>,
}

/// What to ask of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Renew the lease, or take it where the batch begins a life; note the changes and tell them.
    Tell(Batch),
    /// Which lives have a lease?
    Look,
    /// A page of the users of a life.
    Page { tag: u32, life: u64, cursor: u64 },
}

/// A life that has a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) tag: u32,
    pub(super) life: u64,
    pub(super) node: Name,
    /// The number of what was last told.
    pub(super) seq: u64,
    /// True once all of its users had been told.
    pub(super) whole: bool,
}

/// What Redis has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Whether the lease was there.
    Told(bool),
    Looked(Vec<Seen>),
    /// A page, from a moment at or after that of `seq`; `None` when there is nothing of that life.
    Page(Option<Page>),
    /// Redis refuses the command, for now at least.
    Refused,
}

/// Users of a life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) seq: u64,
    pub(super) whole: bool,
    /// Where to go on; zero at the end.
    pub(super) cursor: u64,
    pub(super) users: Vec<(Name, Pose)>,
}

/// After a refusal nothing is asked for so long.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// No page is asked for while so many users wait to be handed to the node.
const MOST_WAITING: usize = 16_384;

/// Who is online on which node, as far as this one knows.
#[derive(Debug)]
pub(super) struct Presence {
    own: Own,
    peers: Peers,
    /// What Redis has yet to answer.
    asked: Option<Ask>,
    /// Nothing is asked before.
    hold: Time,
    tag: u32,
}

impl Presence {
    pub(super) fn new(terms: &Terms, seed: &Seed) -> Self {
        Self {
            own: Own::new(terms, seed),
            peers: Peers::new(terms, seed),
            asked: None,
            hold: Time::ZERO,
            tag: terms.tag,
        }
    }

    /// Notes how a user stands in this node now.
    pub(super) fn note(&mut self, change: Change) {
        self.own.note(change);
    }

    /// The link is up, and what is told on the channel is heard from now on.
    pub(super) fn link_up(&mut self, now: Time) {
        self.hold = Time::ZERO;
        self.peers.link_up(now);
    }

    /// The link is down. Whether Redis did what was asked last, nobody knows.
    pub(super) fn link_down(&mut self) {
        self.asked = None;
        self.peers.link_down();
    }

    /// What to ask of Redis now, if anything; to be answered by [`Presence::answer`].
    pub(super) fn next(&mut self, now: Time) -> Option<Ask> {
        if self.asked.is_some() || !self.peers.is_up() || now < self.hold {
            return None;
        }
        let ask =
            self.peers.look(now).or_else(|| self.own.next(now).map(Ask::Tell)).or_else(|| {
                let has_space = self.peers.waiting() < MOST_WAITING;
                has_space.then(|| self.peers.next_page()).flatten()
            });
        self.asked.clone_from(&ask);
        ask
    }

    /// When there is something to do even if nothing happens until then.
    pub(super) fn due(&self) -> Option<Time> {
        let is_free = self.asked.is_none() && self.peers.is_up();
        is_free.then(|| self.own.due().min(self.peers.due()).max(self.hold))
    }

    /// Takes in what Redis has answered to what was asked last.
    pub(super) fn answer(&mut self, answer: Answer, now: Time) {
        let Some(asked) = self.asked.take() else { return };
        match (asked, answer) {
            (Ask::Tell(_), Answer::Told(held)) => self.own.told(held),
            (Ask::Look, Answer::Looked(seen)) => self.peers.looked(seen, now),
            (Ask::Page { tag, life, .. }, Answer::Page(page)) => {
                self.peers.page(tag, life, page, now);
            }
            (asked, _) => {
                self.hold = now.plus(AFTER_REFUSAL);
                if asked == Ask::Look {
                    self.peers.look_again();
                }
            }
        }
    }

    /// Takes in what was told on the channel. What this node has told itself is passed over.
    ///
    /// # Errors
    /// When it is not what nodes tell there.
    pub(super) fn hear(&mut self, text: &str, now: Time) -> Result<(), String> {
        let note = Note::read(text)?;
        if note.tag != self.tag {
            self.peers.hear(note, now);
        }
        Ok(())
    }

    /// Something that was told on the channel was dropped before it got here.
    pub(super) fn missed(&mut self) {
        self.peers.missed();
    }

    /// How users of other nodes stand now, each at most once: the next of what has changed.
    pub(super) fn poll(&mut self, most: usize, now: Time) -> Vec<Afar> {
        self.peers.poll(most, now)
    }

    /// True while something waits to be polled.
    pub(super) fn has_news(&self) -> bool {
        self.peers.waiting() > 0
    }

    /// What tells the others that this node ends; `None` when they have not been told that it is there.
    pub(super) fn farewell(&mut self) -> Option<Batch> {
        self.own.farewell()
    }

    /// The nodes whose users are not all known; `None` when there are none.
    pub(super) fn absent(&self) -> Option<Vec<Name>> {
        self.peers.absent()
    }

    /// What is counted.
    pub(super) fn counts(&self) -> Counts {
        Counts { users_here: self.own.len(), leases_lost: self.own.lost(), ..self.peers.counts() }
    }

    /// Verifies what must always hold.
    ///
    /// # Panics
    /// When it does not.
    #[cfg(test)]
    fn check(&self) {
        self.own.check();
        self.peers.check();
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Users of this node.
    pub(super) users_here: usize,
    /// Times this node found that its lease had gone.
    pub(super) leases_lost: usize,
    /// Other nodes.
    pub(super) nodes: usize,
    /// Users of other nodes, once for each node.
    pub(super) users_elsewhere: usize,
    /// Times the users of another node were read.
    pub(super) reads: usize,
    /// Users and nodes that found no place.
    pub(super) refused: usize,
}
