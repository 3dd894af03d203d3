//! The other nodes: which there are, and what has changed about their users.
//!
//! A node is there while its lease is. Its notes say that it is; when none has come for the length of a
//! lease, Redis is asked. Only while the link is up does silence mean anything, and after Redis has lost all
//! leases every node has the length of one to come back, so a Redis that starts empty makes nobody offline.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::note::Note;
use super::peer::{Desk, Peer, Stage};
use super::{Afar, Ask, Counts, MOST_NODES, Mark, Name, Page, Pose, Seen, Terms};
use crate::base::map::Seed;
use crate::base::time::Time;
use crate::bridge::survey::There;

/// The other nodes.
#[derive(Debug)]
pub(super) struct Peers {
    terms: Terms,
    seed: Seed,
    peers: BTreeMap<u32, Peer>,
    /// Users whose standing has changed, by the tags of their nodes.
    dirty: VecDeque<(u32, Name)>,
    /// Since when the link is up.
    up: Option<Time>,
    /// When Redis is to be asked who is there, besides what silent peers ask for.
    look: Option<Time>,
    /// When it was last asked.
    looked: Time,
    /// It was asked since the link came up.
    surveyed: bool,
    reads: usize,
    refused: usize,
}

impl Peers {
    pub(super) fn new(terms: &Terms, seed: &Seed) -> Self {
        Self {
            terms: terms.clone(),
            seed: seed.clone(),
            peers: BTreeMap::new(),
            dirty: VecDeque::new(),
            up: None,
            look: None,
            looked: Time::ZERO,
            surveyed: false,
            reads: 0,
            refused: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.is_some()
    }

    pub(super) fn waiting(&self) -> usize {
        self.dirty.len()
    }

    pub(super) fn link_up(&mut self, now: Time) {
        (self.up, self.look, self.surveyed) = (Some(now), Some(now), false);
        self.peers.values_mut().for_each(Peer::lose);
    }

    pub(super) fn link_down(&mut self) {
        self.up = None;
        self.peers.values_mut().for_each(Peer::lose);
    }

    /// Something was dropped before it got here.
    pub(super) fn missed(&mut self) {
        for peer in self.peers.values_mut().filter(|peer| !peer.has_left()) {
            peer.stage = Stage::Unread { even: false };
        }
        self.look_again();
    }

    pub(super) fn look_again(&mut self) {
        self.look = Some(Time::ZERO);
    }

    /// Asks who is there, if it is time.
    pub(super) fn look(&mut self, now: Time) -> Option<Ask> {
        let silent = |peer: &Peer| !peer.has_left() && peer.check <= now;
        let is_time = self.look.is_some_and(|at| at <= now) || self.peers.values().any(silent);
        if !is_time {
            return None;
        }
        (self.look, self.looked) = (None, now);
        Some(Ask::Look)
    }

    /// The next page to be read.
    pub(super) fn next_page(&mut self) -> Option<Ask> {
        let is_begun = |peer: &Peer| matches!(peer.stage, Stage::Reading(_));
        let tag = match self.peers.iter().find(|(_, peer)| is_begun(peer)) {
            Some((tag, _)) => *tag,
            None => {
                let (tag, _) = self.peers.iter().find(|(_, peer)| peer.is_to_be_read())?;
                self.reads += 1;
                *tag
            }
        };
        let peer = self.peers.get_mut(&tag)?;
        let cursor = peer.next_page()?;
        Some(Ask::Page { tag, life: peer.life, cursor })
    }

    pub(super) fn due(&self) -> Time {
        if self.peers.values().any(Peer::is_to_be_read) {
            return Time::ZERO;
        }
        let checks = self.peers.values().filter(|peer| !peer.has_left()).map(|peer| peer.check);
        checks.chain(self.look).min().unwrap_or(Time::from_nanos(u64::MAX))
    }

    pub(super) fn hear(&mut self, note: Note, now: Time) {
        let Note { tag, node, batch } = note;
        let lease = self.terms.lease;
        if !self.peers.contains_key(&tag) {
            match batch.mark {
                Some(Mark::Bye) => return,
                Some(Mark::Begin) => {}
                _ => return self.look_soon(now),
            }
            if !self.insert(tag, &node, batch.life) {
                return;
            }
            if let Some(peer) = self.peers.get_mut(&tag) {
                (peer.heard, peer.check) = (now, now.plus(lease));
                peer.begin(batch.life, batch.seq);
            }
            return;
        }
        let Some(peer) = self.peers.get_mut(&tag) else { return };
        if batch.life < peer.life || (batch.life == peer.life && peer.has_left()) {
            return;
        }
        if batch.life > peer.life && batch.mark != Some(Mark::Begin) {
            return self.look_soon(now);
        }
        (peer.heard, peer.check) = (now, now.plus(lease));
        if batch.life > peer.life {
            return peer.begin(batch.life, batch.seq);
        }
        if batch.mark == Some(Mark::Bye) {
            return self.leave(tag, false, now);
        }
        self.with(tag, |peer, desk| peer.hear(&batch, desk));
        if self.peers.get(&tag).is_some_and(|peer| peer.void) {
            // There was nothing to be read of it, and then nothing of it in Redis at all; now there may be.
            self.look_soon(now);
        }
    }

    /// These lives have a lease.
    pub(super) fn looked(&mut self, seen: Vec<Seen>, now: Time) {
        self.surveyed = true;
        let own = self.terms.tag;
        let mut there = Vec::new();
        for seen in seen.into_iter().filter(|seen| seen.tag != own) {
            let is_new = !self.peers.contains_key(&seen.tag);
            if is_new && !self.insert(seen.tag, &seen.node, seen.life) {
                continue;
            }
            let soon = now.plus(self.terms.lease / 10);
            let Some(peer) = self.peers.get_mut(&seen.tag) else { continue };
            if is_new {
                peer.heard = now;
            }
            if seen.life > peer.life {
                peer.find(seen.life);
                peer.node = seen.node;
            }
            if seen.life == peer.life && !peer.has_left() {
                peer.confirm(seen.seq, seen.whole);
                there.push(seen.tag);
                peer.check = peer.heard.plus(self.terms.lease).max(soon);
            }
        }
        let since = self.up.unwrap_or(now);
        let mut over = Vec::new();
        for (tag, peer) in &mut self.peers {
            if there.contains(tag) || peer.has_left() {
                continue;
            }
            peer.check = peer.heard.max(since).plus(self.terms.lease);
            if peer.check <= now {
                over.push(*tag);
            }
        }
        over.into_iter().for_each(|tag| self.leave(tag, true, now));
    }

    /// A page has come, or there is nothing of that life any more.
    pub(super) fn page(&mut self, tag: u32, life: u64, page: Option<Page>, now: Time) {
        let Some(peer) = self.peers.get_mut(&tag).filter(|peer| peer.life == life) else { return };
        match page {
            Some(page) => self.with(tag, |peer, desk| peer.page(&page, desk)),
            None => {
                if !peer.has_left() {
                    (peer.stage, peer.void) = (Stage::Unread { even: false }, true);
                }
                self.look_soon(now);
            }
        }
    }

    pub(super) fn poll(&mut self, most: usize, now: Time) -> Vec<Afar> {
        let own = self.terms.tag;
        let is_lowest = self.peers.iter().all(|(tag, peer)| *tag > own || peer.has_left());
        let unix_ms = self.unix_ms(now);
        let mut news = Vec::new();
        while news.len() < most
            && let Some((tag, user)) = self.dirty.pop_front()
        {
            let Some(peer) = self.peers.get_mut(&tag) else { continue };
            let (place, ended) = (peer.place, peer.stage == Stage::Left { ended: true });
            let Some((pose, at, last)) = peer.take(&user) else { continue };
            let at = if at == 0 { unix_ms } else { at };
            let speaks = pose == Pose::Gone && !last && is_lowest;
            news.push(Afar { user, place, pose, at, speaks, ended });
            self.reap(tag);
        }
        if self.dirty.capacity() > 1024 && self.dirty.len() < self.dirty.capacity() / 8 {
            self.dirty.shrink_to(self.dirty.len() * 2);
        }
        news
    }

    /// The nodes whose users are not all known; `None` when there are none.
    pub(super) fn absent(&self) -> Option<Vec<Name>> {
        let is_blind = self.up.is_none() || !self.surveyed;
        let is_absent = |peer: &&Peer| {
            !peer.has_left() && (is_blind || peer.short || peer.stage != Stage::Whole)
        };
        let mut names: Vec<Name> =
            self.peers.values().filter(is_absent).map(|peer| Name::clone(&peer.node)).collect();
        names.sort_unstable();
        (is_blind || !names.is_empty()).then_some(names)
    }

    /// The nodes that are there.
    pub(super) fn there(&self) -> There {
        let there = self.peers.iter().filter(|(_, peer)| !peer.has_left());
        There {
            nodes: there.map(|(tag, peer)| (*tag, Name::clone(&peer.node))).collect(),
            is_blind: self.up.is_none() || !self.surveyed,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            nodes: self.peers.values().filter(|peer| !peer.has_left()).count(),
            users_elsewhere: self.users(),
            reads: self.reads,
            refused: self.refused,
            ..Counts::default()
        }
    }

    fn users(&self) -> usize {
        self.peers.values().map(Peer::len).sum()
    }

    fn unix_ms(&self, now: Time) -> u64 {
        let since = u64::try_from(now.since(Time::ZERO).as_millis()).unwrap_or(u64::MAX);
        self.terms.unix_ms.saturating_add(since)
    }

    /// Asks who is there, but not without a pause: who has no lease any more may go on talking.
    fn look_soon(&mut self, now: Time) {
        let pause: Duration = self.terms.lease / 30;
        let at = now.max(self.looked.plus(pause));
        self.look = Some(self.look.map_or(at, |look| look.min(at)));
    }

    fn leave(&mut self, tag: u32, ended: bool, now: Time) {
        let heard = self.peers.get(&tag).map_or(now, |peer| peer.heard);
        let at = self.unix_ms(if ended { heard } else { now });
        self.with(tag, |peer, desk| peer.leave(ended, at, desk));
        self.reap(tag);
    }

    /// Forgets a node that has left, once nothing of it waits to be handed on.
    fn reap(&mut self, tag: u32) {
        if self.peers.get(&tag).is_some_and(|peer| peer.has_left() && peer.len() == 0) {
            self.peers.remove(&tag);
        }
    }

    fn insert(&mut self, tag: u32, node: &Name, life: u64) -> bool {
        let taken = |place| self.peers.values().any(|peer| peer.place == place);
        let Some(place) = (0..MOST_NODES).find(|place| !taken(*place)) else {
            self.refused += 1;
            return false;
        };
        self.peers.insert(tag, Peer::new(Name::clone(node), place, life, &self.seed));
        true
    }

    fn with(&mut self, tag: u32, work: impl FnOnce(&mut Peer, &mut Desk<'_>)) {
        let mut space = self.terms.most_users.saturating_sub(self.users());
        let Some(peer) = self.peers.get_mut(&tag) else { return };
        let (dirty, refused) = (&mut self.dirty, &mut self.refused);
        let mut note = |user: &Name| dirty.push_back((tag, Name::clone(user)));
        work(peer, &mut Desk { dirty: &mut note, space: &mut space, refused });
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let dirty: usize = self.peers.values().map(Peer::dirty).sum();
        assert_eq!(dirty, self.dirty.len(), "users in line");
        let mut places: Vec<u16> = self.peers.values().map(|peer| peer.place).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), self.peers.len(), "a place is one node's");
        for peer in self.peers.values() {
            peer.check_settled();
            assert!(!peer.has_left() || peer.len() > 0, "{} stays", peer.node);
        }
    }
}
