//! Who is online on which node, as one value.
//!
//! One question to Redis is under way at a time: who is there at all goes first, then what this node has to
//! tell, then the users of others that are to be read, and these only while the node takes them. What Redis
//! refuses is asked again after a pause, and the link goes on.

use std::time::Duration;

use super::note::Note;
use super::own::Own;
use super::peers::Peers;
use super::words::{Answer, Ask, Batch, Terms};
use super::{Afar, Change, Name};
use crate::base::map::Seed;
use crate::base::time::Time;
use crate::bridge::survey::There;

/// After a refusal nothing is asked for so long.
pub(super) const AFTER_REFUSAL: Duration = Duration::from_secs(1);
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

    /// The other nodes that are there.
    pub(super) fn there(&self) -> There {
        self.peers.there()
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
    pub(super) fn check(&self) {
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
