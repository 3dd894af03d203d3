//! How many rooms a user is in, over all of its connections in the node.
//!
//! A membership counts where its connection lives. Each shard tells the user's home how many the user has there,
//! at most once a turn, and hears how many there are elsewhere; so a join is decided at once, by what is known. Two
//! shards that let joins through at the same moment may have gone over the limit together: the home sees that with
//! the later one's word, and that one takes its user out of as many rooms again as are too many. What one
//! connection has is found by comparing with what was counted for it last, so whatever changes memberships needs to
//! say only that it did. Users' own rooms do not count, and where there is no limit nothing is kept.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::auth::{is_user_room, plain};
use crate::base::id::{ConnId, ShardId};
use crate::base::map::{Map, Seed};
use crate::base::party::Party;
use crate::base::time::Time;
use crate::session::{Code, encode};
use crate::shard::mail::Mail;
use crate::shard::state::Shard;

/// What shards tell each other of a user's rooms.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    /// The user.
    pub party: Party,
    /// To the home: whose count it is.
    pub from: ShardId,
    /// To the home: the user's rooms in that shard. From it: those in all others.
    pub rooms: u32,
    /// From the home: how many of the receiver's are too many.
    pub excess: u32,
}

#[derive(Debug, Default)]
struct Held {
    /// The name of the user's own room.
    name: Option<Arc<str>>,
    own: u32,
    /// What the home was told last.
    told: u32,
    others: u32,
    /// True while it stands on the list of those that have changed.
    is_listed: bool,
}

/// The rooms of users, from both sides.
#[derive(Debug)]
pub(super) struct Holdings {
    /// What is counted for each connection, and for whom; never zero.
    conns: Map<u32, (Party, u32)>,
    /// Users with rooms here, or of whom the home believes it.
    users: Map<Party, Held>,
    changed: Vec<Party>,
    /// Of the users whose home this shard is: their rooms in each shard that has had any, never all zero.
    homes: Map<Party, SmallVec<[(ShardId, u32); 2]>>,
}

impl Holdings {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { conns: seed.map(), users: seed.map(), changed: Vec::new(), homes: seed.map() }
    }

    /// The connection is in so many rooms now, for this user.
    fn set(&mut self, index: u32, user: Option<(Party, &Arc<str>)>, rooms: u32) {
        let known = self.conns.get(&index).copied();
        let party = known.map(|(party, _)| party).or(user.map(|(party, _)| party));
        let Some(party) = party else { return };
        let before = known.map_or(0, |(_, rooms)| rooms);
        if before == rooms {
            return;
        }
        if rooms == 0 {
            self.conns.remove(&index);
        } else {
            self.conns.insert(index, (party, rooms));
        }
        let held = self.users.entry(party).or_default();
        if held.name.is_none() {
            held.name = user.map(|(_, name)| Arc::clone(name));
        }
        held.own = held.own + rooms - before;
        if !held.is_listed {
            held.is_listed = true;
            self.changed.push(party);
        }
    }

    /// The user's rooms in the node, as far as is known here.
    fn of(&self, party: Party) -> u32 {
        self.users.get(&party).map_or(0, |held| held.own.saturating_add(held.others))
    }

    /// The next user whose home is to be told of a new count.
    fn poll_changed(&mut self) -> Option<(Party, u32)> {
        while let Some(party) = self.changed.pop() {
            let Some(held) = self.users.get_mut(&party) else { continue };
            held.is_listed = false;
            let (own, is_new) = (held.own, held.own != held.told);
            held.told = own;
            if own == 0 && held.others == 0 {
                self.users.remove(&party);
            }
            if is_new {
                return Some((party, own));
            }
        }
        None
    }

    /// As the home: the user has so many rooms in that shard. Whom to tell of it: each shard that has had rooms of
    /// the user's since it was in none at all, and what it is to hear.
    fn note(&mut self, told: &Holding, most: u32) -> SmallVec<[(ShardId, Holding); 2]> {
        let shards = self.homes.entry(told.party).or_default();
        match shards.iter_mut().find(|(shard, _)| *shard == told.from) {
            Some((_, rooms)) => *rooms = told.rooms,
            None if told.rooms > 0 => shards.push((told.from, told.rooms)),
            None => {}
        }
        let all = shards.iter().fold(0_u32, |sum, (_, rooms)| sum.saturating_add(*rooms));
        let word = |(shard, rooms): &(ShardId, u32)| {
            let excess = if *shard == told.from { all.saturating_sub(most).min(*rooms) } else { 0 };
            (*shard, Holding { rooms: all - rooms, excess, ..*told })
        };
        let words = shards.iter().map(word).collect();
        if all == 0 {
            self.homes.remove(&told.party);
        }
        words
    }

    /// The user has so many rooms elsewhere. False where nothing of it is kept here.
    fn hear(&mut self, party: Party, others: u32) -> bool {
        let Some(held) = self.users.get_mut(&party) else { return false };
        held.others = others;
        let is_over = held.own == 0 && others == 0 && !held.is_listed;
        if is_over {
            self.users.remove(&party);
        }
        !is_over
    }

    /// Users and connections of which something is kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.conns.len() + self.users.len() + self.homes.len()
    }

    /// Verifies that users have what their connections have.
    ///
    /// # Panics
    /// When they do not.
    pub(super) fn check(&self) {
        assert!(self.conns.values().all(|(_, rooms)| *rooms > 0), "a connection without rooms");
        let counted: u64 = self.conns.values().map(|(_, rooms)| u64::from(*rooms)).sum();
        let held: u64 = self.users.values().map(|held| u64::from(held.own)).sum();
        assert_eq!(held, counted, "rooms of users");
        let kept = |held: &Held| held.own > 0 || held.others > 0 || held.is_listed;
        assert!(self.users.values().all(kept), "a user without rooms");
        let listed = self.users.values().filter(|held| held.is_listed).count();
        assert_eq!(listed, self.changed.len(), "users to be told of");
    }
}

impl Shard {
    /// True when the user of a connection is in as many rooms as it may be.
    pub(super) fn is_in_enough(&self, id: ConnId) -> bool {
        let most = self.settings.limits.user.rooms;
        let person = self.gate.people.get(id.index).filter(|_| most > 0);
        let party = person.map(|person| person.user(&self.identity.seed));
        party.is_some_and(|party| self.rooms.quotas.holdings.of(party) >= most)
    }

    /// The memberships of a connection may have changed.
    pub(super) fn note_rooms(&mut self, index: u32) {
        let most = self.settings.limits.user.rooms;
        let holdings = &mut self.rooms.quotas.holdings;
        if most == 0 && holdings.conns.is_empty() {
            return;
        }
        let person = self.gate.people.get(index).filter(|_| most > 0);
        let user = person.map(|person| (person.user(&self.identity.seed), person.own()));
        let member = self.table.peek(index).map(|connection| &connection.member);
        let rooms = member.map_or(0, |member| self.rooms.hub.count_of(member));
        // Its own does not count.
        let rooms = if user.is_some() { rooms.saturating_sub(1) } else { 0 };
        holdings.set(index, user, u32::try_from(rooms).unwrap_or(u32::MAX));
    }

    /// Tells homes what has changed.
    pub(super) fn post_holdings(&mut self, now: Time) {
        while let Some((party, rooms)) = self.rooms.quotas.holdings.poll_changed() {
            if self.identity.shards == 1 {
                continue;
            }
            let holding = Holding { party, from: self.identity.id, rooms, excess: 0 };
            let home = self.home_of(party);
            if home == self.identity.id {
                self.handle_hold(&holding, now);
            } else {
                self.outbox.push(home, Mail::Hold(Box::new(holding)));
            }
        }
    }

    /// As the user's home: the user has so many rooms in that shard.
    pub(super) fn handle_hold(&mut self, told: &Holding, now: Time) {
        let most = match self.settings.limits.user.rooms {
            0 => u32::MAX,
            most => most,
        };
        for (shard, word) in self.rooms.quotas.holdings.note(told, most) {
            if shard == self.identity.id {
                self.handle_held(&word, now);
            } else {
                self.outbox.push(shard, Mail::Held(Box::new(word)));
            }
        }
    }

    /// What the user has elsewhere, as its home says.
    pub(super) fn handle_held(&mut self, word: &Holding, now: Time) {
        let holdings = &mut self.rooms.quotas.holdings;
        if !holdings.hear(word.party, word.rooms) || word.excess == 0 {
            return;
        }
        let name = holdings.users.get(&word.party).and_then(|held| held.name.clone());
        let Some(name) = name else { return };
        let mut left = word.excess;
        let members: Vec<u32> = self.rooms.hub.members(&name).iter().map(|one| one.conn).collect();
        for index in members {
            while left > 0 {
                let Some(gone) = self.leave_one(index, now) else { break };
                left = left.saturating_sub(gone);
            }
        }
    }

    /// Takes a connection out of a room that is one too many of its user's, or closes it where that is the rule. How
    /// many rooms that frees; `None` when it is in none.
    fn leave_one(&mut self, index: u32, now: Time) -> Option<u32> {
        let (id, connection) = self.table.at(index)?;
        let rooms = self.rooms.hub.rooms_of(&connection.member);
        let rooms: SmallVec<[_; 8]> = rooms.filter(|room| !is_user_room(room)).cloned().collect();
        let room = rooms.last()?;
        let gone = if self.settings.limits.closes_excess { rooms.len() } else { 1 };
        // What was delivered before is still for this member.
        self.settle(now);
        self.leave_room(id, room, Code::RoomLimit, now);
        self.counters.rooms_undone_total += 1;
        self.close_excess(id, now);
        Some(u32::try_from(gone).unwrap_or(u32::MAX))
    }

    /// Takes a connection out of a room, and tells it why.
    pub(super) fn leave_room(&mut self, id: ConnId, room: &Arc<str>, why: Code, now: Time) {
        self.report_left(id, room, now);
        let Some(connection) = self.table.get(id) else { return };
        self.rooms.hub.leave(&mut connection.member, room);
        self.rooms.replays.leave(id.index, room);
        self.rooms.replays.recalls.part(id.index, room);
        self.note_rooms(id.index);
        let mut text = Vec::new();
        encode::left(&mut text, plain(room), why.as_str());
        self.push_text(id, &text, now);
    }
}
