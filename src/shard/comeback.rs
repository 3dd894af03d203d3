//! How a client of Socket.IO that was lost comes back to its rooms.
//!
//! It shows its pid and the place that it heard last with its connect, and is answered when it is certain what
//! comes of that: whether some shard of the node has its memo (see [`super::recall`]), whether it is the same user,
//! may still join all the rooms, and whether the home of each can say all that came since. Then the pid stays,
//! by which the library knows that nothing was missed (`socket.recovered`), and the rooms are joined behind their
//! cursors like those of every client that comes back. Else it is a new client in no room, with a new pid, as
//! if it had shown nothing: half of its rooms would be neither.
//!
//! Its old connection may live still as far as the node can tell; whoever knows its pid is its client, so that
//! ends first. The memo is asked for in all shards, because a pid says nothing of where it is.

use std::borrow::Cow;
use std::sync::Arc;

use crate::auth::{Place, Right, place, plain};
use crate::base::cursor::Cursor;
use crate::base::id::{ConnAddress, ConnId, ShardId};
use crate::base::time::Time;
use crate::connection::Disconnect;
use crate::session::{Protocol, Return};
use crate::shard::mail::{Answer, Asked, Found, Mail};
use crate::shard::recall::{Claim, Left, Wish, until};
use crate::shard::state::Shard;

/// The part of the memory budget that the memos of those who were lost may have.
const SHARE: u64 = 64;

/// A question for a memo.
#[derive(Debug)]
pub struct Recall {
    to: ConnAddress,
    pid: u128,
    /// The own room of the user who asks.
    who: Option<Arc<str>>,
    /// When the client showed it; who has it only since then came later.
    asked: Time,
}

/// The answer.
#[derive(Debug)]
pub struct Recalled {
    to: ConnId,
    pid: u128,
    left: Option<Left>,
}

impl Recalled {
    /// What it costs while it waits, in bytes.
    pub(super) fn cost(&self) -> usize {
        let left = self.left.as_ref().map_or(0, Left::bytes);
        size_of::<Self>() + usize::try_from(left).unwrap_or(usize::MAX)
    }
}

impl Shard {
    /// True when clients of Socket.IO may come back, and so hear places.
    pub(super) fn recalls(&self) -> bool {
        !self.settings.timeouts.recall.is_zero()
    }

    /// Remembers what a client shows with its connect.
    pub(super) fn note_wish(&mut self, id: ConnId, pid: Option<&str>, shown: Option<&str>) {
        if let Some(wish) = pid.and_then(|pid| Wish::of(pid, shown))
            && self.recalls()
        {
            self.rooms.replays.recalls.wishes.insert(id.index, wish);
        }
    }

    /// Gives a client that enters a memo, unless it wants an older one back: then it is true, and the client is greeted
    /// when that is decided.
    pub(super) fn begin_memo(&mut self, id: ConnId, now: Time) -> bool {
        if !self.recalls() {
            return false;
        }
        let Some(wish) = self.rooms.replays.recalls.wishes.remove(&id.index) else {
            let recalls = &mut self.rooms.replays.recalls;
            if recalls.pid(id.index).is_none() {
                recalls.begin(id.index, now);
            }
            return false;
        };
        let (pid, who) = (wish.pid, self.own_room(id));
        let shards = self.identity.shards - 1;
        let found = self.find_memo(pid, who.as_ref(), now, now);
        let rooms = Vec::new();
        let claim = Claim { conn: id, wish, asked: now, shards, left: None, rooms, homes: 0 };
        self.rooms.replays.recalls.claim(claim);
        if let Some(left) = found {
            self.examine(id, left, now);
        } else if shards == 0 || self.is_overloaded() {
            self.begin_anew(id, now);
        } else {
            let to = self.address(id);
            for shard in (0..self.identity.shards).map(ShardId) {
                if shard != self.identity.id {
                    let recall = Recall { to, pid, who: who.clone(), asked: now };
                    self.outbox.push(shard, Mail::Recall(Box::new(recall)));
                }
            }
        }
        true
    }

    fn own_room(&self, id: ConnId) -> Option<Arc<str>> {
        self.gate.people.get(id.index).map(|person| Arc::clone(person.own()))
    }

    /// The memo of that pid and that user, if this shard has it. Who has it, or is about to, is the same client; it was
    /// lost, and the node has not heard of that yet.
    fn find_memo(
        &mut self,
        pid: u128,
        who: Option<&Arc<str>>,
        asked: Time,
        now: Time,
    ) -> Option<Left> {
        let recalls = &self.rooms.replays.recalls;
        let holder = recalls.holder(pid, asked).and_then(|index| self.table.at(index));
        let before = [holder.map(|(id, _)| id), recalls.claimant(pid, asked)];
        for id in before.into_iter().flatten() {
            if self.own_room(id).as_ref() == who {
                self.close(id, Disconnect::Lost, now);
            }
        }
        self.rooms.replays.recalls.take(pid, who, now.tick())
    }

    /// Another shard asks for a memo.
    pub(super) fn handle_recall(&mut self, recall: &Recall, now: Time) {
        let left = self.find_memo(recall.pid, recall.who.as_ref(), recall.asked, now);
        let recalled = Recalled { to: recall.to.conn, pid: recall.pid, left };
        self.outbox.push(recall.to.shard, Mail::Recalled(Box::new(recalled)));
    }

    /// Another shard says whether it has a memo.
    pub(super) fn handle_recalled(&mut self, recalled: Recalled, now: Time) {
        let Recalled { to, pid, left } = recalled;
        let recalls = &mut self.rooms.replays.recalls;
        let claim = recalls.claims.get_mut(&to.index);
        let claim = claim.filter(|claim| claim.conn == to && claim.wish.pid == pid);
        let Some(claim) = claim else {
            // Its client is gone again, and may come back.
            left.into_iter().for_each(|left| recalls.keep(left));
            return;
        };
        claim.shards = claim.shards.saturating_sub(1);
        let is_last = claim.shards == 0 && claim.left.is_none();
        let mut left = left;
        if is_last && left.is_none() {
            // It may have been on its way here, to one who has gone meanwhile.
            let who = self.own_room(to);
            left = self.rooms.replays.recalls.take(pid, who.as_ref(), now.tick());
        }
        match left {
            Some(left) => self.examine(to, left, now),
            None if is_last => self.begin_anew(to, now),
            None => {}
        }
    }

    /// Asks the homes of a memo's rooms whether they reach back so far.
    fn examine(&mut self, id: ConnId, left: Left, now: Time) {
        let recalls = &mut self.rooms.replays.recalls;
        let Some(claim) = recalls.claims.get_mut(&id.index) else { return };
        let rooms = left.memo.places(claim.wish.shown.as_deref());
        claim.left = Some(left);
        let Some(rooms) = rooms.filter(|rooms| self.may_return(id, rooms)) else {
            return self.begin_anew(id, now);
        };
        if rooms.is_empty() {
            return self.come_back(id, now);
        }
        let Some(claim) = self.rooms.replays.recalls.claims.get_mut(&id.index) else { return };
        (claim.homes, claim.rooms) = (rooms.len(), rooms.clone());
        for (room, since) in rooms {
            if !self.rooms.replays.recalls.claims.contains_key(&id.index) {
                return;
            }
            self.ask(id, &room, Asked::Reach { since }, None, now);
        }
    }

    /// True when the client may join all of them without anybody being asked.
    fn may_return(&self, id: ConnId, rooms: &[(Arc<str>, Cursor)]) -> bool {
        rooms.len() <= self.room_limit(id).0
            && rooms.iter().all(|(room, _)| {
                let name = plain(room);
                self.may_from_there(id.index, name) && self.has_right(id.index, name, Right::Join)
            })
    }

    /// A room's home has said whether it reaches back so far.
    pub(super) fn handle_reach(&mut self, answer: &Answer, now: Time) {
        let id = answer.question.to.conn;
        let claim = self.rooms.replays.recalls.claims.get_mut(&id.index);
        let Some(claim) = claim.filter(|claim| claim.conn == id && claim.homes > 0) else { return };
        if !matches!(&answer.found, Found::Slice(slice) if !slice.lost) {
            return self.begin_anew(id, now);
        }
        claim.homes -= 1;
        if claim.homes == 0 {
            self.come_back(id, now);
        }
    }

    /// The client is who it was, and joins its rooms behind what it heard.
    fn come_back(&mut self, id: ConnId, now: Time) {
        let recalls = &mut self.rooms.replays.recalls;
        let Some(claim) = recalls.settle(id.index) else { return };
        recalls.go_on(id.index, &claim.wish, &claim.rooms, now);
        self.counters.recalled_total += 1;
        self.greet(id, Protocol::Packets, now);
        let back = |(room, since): &(Arc<str>, Cursor)| Return {
            room: Cow::Owned(plain(room).to_owned()),
            since: Some(*since),
        };
        let rooms: Vec<Return<'_>> = claim.rooms.iter().map(back).collect();
        if !rooms.is_empty() {
            self.restore_recalled(id, rooms, now);
        }
    }

    /// The client is a new one.
    fn begin_anew(&mut self, id: ConnId, now: Time) {
        if self.rooms.replays.recalls.settle(id.index).is_some() {
            self.counters.unrecalled_total += 1;
            self.greet(id, Protocol::Packets, now);
        }
    }

    /// The connection has ended: its memo stays if it may come back.
    pub(super) fn leave_memo(&mut self, id: ConnId, why: Disconnect, now: Time) {
        if !self.recalls() {
            return;
        }
        let (who, time) = (self.own_room(id), self.settings.timeouts.recall);
        let recalls = &mut self.rooms.replays.recalls;
        recalls.wishes.remove(&id.index);
        if let Some(Claim { left: Some(left), .. }) = recalls.settle(id.index) {
            recalls.keep(left);
        }
        let Some(memo) = recalls.forget(id.index) else { return };
        let comes_back = matches!(
            why,
            Disconnect::ClosedByClient
                | Disconnect::Vanished
                | Disconnect::Lost
                | Disconnect::HeartbeatLost
                | Disconnect::SlowConsumer
                | Disconnect::MemoryShort
        );
        let Some(until) = until(now.tick(), time).filter(|_| comes_back) else { return };
        let Some(connection) = self.table.peek(id.index) else { return };
        let (hub, member) = (&self.rooms.hub, &connection.member);
        recalls.lose(memo, who, |room| hub.is_member(member, room), until);
        self.expire_memos(now);
    }

    /// Lets go of memos that are too old or too many.
    pub(super) fn expire_memos(&mut self, now: Time) {
        let shards = u64::from(self.identity.shards.max(1));
        let most = self.settings.capacity.memory / SHARE / shards;
        self.rooms.replays.recalls.expire(now.tick(), most);
    }

    /// Where a publication stands in its room, while anybody here has a memo.
    pub(super) fn place_of(&self, room: &Arc<str>, at: Cursor) -> Option<(Arc<str>, Cursor)> {
        let is_noted = !self.rooms.replays.recalls.is_empty();
        let is_noted = is_noted && matches!(place(room), Place::Room(_));
        is_noted.then(|| (Arc::clone(room), at))
    }

    /// Asserts that memos are those of clients of Socket.IO.
    pub(super) fn check_memos(&self) {
        self.rooms.replays.recalls.check(|index| {
            let connection = self.table.peek(index);
            connection.is_some_and(|one| one.open().is_some() && one.speaks_packets())
        });
    }
}
