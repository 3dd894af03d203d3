//! What is remembered of clients of Socket.IO, so that one that was lost comes back to its rooms.
//!
//! A client of the library is given a secret with its connect, the *pid*, and remembers the last string at the end of an
//! event, which here is the place of a publication: its room and its number there. One that is lost shows both when it
//! connects again. The place says up to where it has heard; but that is of one room, and it may be in many. So
//! each connection has a *memo*: its rooms, and in which order it was given what. All that stands before the shown
//! place in that line the client has had, and what stands behind it, in whatever room, it has not.
//!
//! The line is bounded. What falls out of it is taken for heard, which is right for whoever has heard something
//! later; who shows an earlier place, or one that is in no line, is not recalled. A memo outlives its connection for a
//! limited time, and all memos of the lost together have a limited number of bytes: the oldest goes first.
//!
//! Nothing here asks, sends or decides who may join; `comeback` does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;

use crate::auth::plain;
use crate::base::cursor::Cursor;
use crate::base::id::ConnId;
use crate::base::map::{Map, Seed};
use crate::base::time::{Tick, Time};

/// What a connection was given that it may not have heard; more of it is taken for heard.
const MOST_GIVEN: usize = 1024;
/// Bytes of one of those.
const GIVEN_BYTES: u64 = size_of::<(Arc<str>, u64)>() as u64;
/// Bytes of a memo without rooms, and of a room in it without its name, about.
const MEMO_BYTES: u64 = 256;
const ROOM_BYTES: u64 = 64;
/// Bytes of a place that a client shows.
const MOST_SHOWN: usize = 1024;
/// Digits of a pid.
const DIGITS: usize = 32;

/// A pid as clients write it.
pub(super) fn written(pid: u128) -> String {
    format!("{pid:032x}")
}

fn read(pid: &str) -> Option<u128> {
    let is_whole = pid.len() == DIGITS && !pid.starts_with('+');
    u128::from_str_radix(pid, 16).ok().filter(|_| is_whole)
}

/// A place as it stands at the end of an event.
fn place(shown: &str) -> Option<(Cursor, &str)> {
    let mut parts = shown.splitn(3, '.');
    let epoch = u64::from_str_radix(parts.next()?, 16).ok()?;
    let offset = parts.next()?.parse().ok()?;
    Some((Cursor { epoch, offset }, parts.next()?))
}

/// What one connection was given.
#[derive(Debug)]
pub(super) struct Memo {
    pid: u128,
    /// Since when its connection has it.
    began: Time,
    /// Its rooms by their names within the node, each with the place up to where it surely had everything.
    rooms: Map<Arc<str>, Cursor>,
    /// Those that it comes back to and whose homes have not let it in yet.
    awaited: Vec<(Arc<str>, Cursor)>,
    /// What came then, in order: a room, and the number of the last of one or several publications.
    given: VecDeque<(Arc<str>, u64)>,
    /// What fell out of that last.
    gone: Option<(Arc<str>, u64)>,
}

impl Memo {
    fn new(pid: u128, began: Time, seed: &Seed) -> Self {
        let (awaited, given) = (Vec::new(), VecDeque::new());
        Self { pid, began, rooms: seed.map(), awaited, given, gone: None }
    }

    /// The connection is a member from there on.
    fn join(&mut self, room: &Arc<str>, at: Cursor) {
        self.awaited.retain(|(name, _)| name != room);
        self.rooms.insert(Arc::clone(room), at);
    }

    /// The connection is no member any more, and will not be.
    fn part(&mut self, room: &str) {
        self.awaited.retain(|(name, _)| &**name != room);
        self.rooms.remove(room);
    }

    fn give(&mut self, room: &Arc<str>, offset: u64) {
        if !self.rooms.contains_key(room) {
            return;
        }
        if self.given.len() == MOST_GIVEN {
            self.forget_first();
        }
        self.given.push_back((Arc::clone(room), offset));
    }

    fn forget_first(&mut self) {
        let Some((room, offset)) = self.given.pop_front() else { return };
        if let Some(at) = self.rooms.get_mut(&room) {
            at.offset = at.offset.max(offset);
        }
        self.gone = Some((room, offset));
    }

    /// How much of what was given had come when the shown place was the last: so many whole, and the place itself.
    fn heard(&self, shown: &str) -> Option<Heard> {
        let (at, name) = place(shown)?;
        let known = self.rooms.iter().find(|(room, _)| plain(room) == name);
        if known.is_some_and(|(_, floor)| floor.epoch != at.epoch) {
            return None;
        }
        let is_it = |(room, offset): &(Arc<str>, u64)| plain(room) == name && *offset == at.offset;
        if self.gone.as_ref().is_some_and(is_it) {
            return Some((0, None));
        }
        if known.is_some_and(|(_, floor)| floor.offset >= at.offset) {
            return None;
        }
        let mut given = self.given.iter();
        let found = given.position(|(room, last)| plain(room) == name && *last >= at.offset)?;
        Some((found, Some((Arc::clone(&self.given[found].0), at))))
    }

    /// The rooms, each with the place from which it goes on for one who shows this; `None` when that cannot be
    /// said.
    pub(super) fn places(&self, shown: Option<&str>) -> Option<Vec<(Arc<str>, Cursor)>> {
        let (whole, last) = match shown {
            Some(shown) => self.heard(shown)?,
            None if self.gone.is_some() => return None,
            None => (0, None),
        };
        let mut rooms = self.rooms.clone();
        let last = last.as_ref().map(|(room, at)| (room, at.offset));
        let given = self.given.iter().take(whole).map(|(room, offset)| (room, *offset));
        for (room, offset) in given.chain(last) {
            if let Some(at) = rooms.get_mut(room) {
                at.offset = at.offset.max(offset);
            }
        }
        let mut places: Vec<(Arc<str>, Cursor)> = rooms.into_iter().collect();
        places.sort();
        Some(places)
    }

    fn bytes(&self) -> u64 {
        let rooms: u64 = self.rooms.keys().map(|room| room.len() as u64 + ROOM_BYTES).sum();
        MEMO_BYTES + rooms + self.given.len() as u64 * GIVEN_BYTES
    }
}

/// So many of what was given, and the place behind them that was heard last, unless it is gone.
type Heard = (usize, Option<(Arc<str>, Cursor)>);

/// A memo whose connection has ended.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) memo: Memo,
    /// The own room of the user whose it was; nobody else is recalled by it.
    who: Option<Arc<str>>,
    until: Tick,
}

impl Left {
    /// What it costs, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.memo.bytes()
    }
}

/// What a client has shown with its connect.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) pid: u128,
    /// The place that it heard last.
    pub(super) shown: Option<Box<str>>,
}

impl Wish {
    /// What it showed, if that can be any of ours.
    pub(super) fn of(pid: &str, shown: Option<&str>) -> Option<Self> {
        let fits = shown.is_none_or(|shown| shown.len() <= MOST_SHOWN);
        let pid = read(pid).filter(|_| fits)?;
        Some(Self { pid, shown: shown.map(Box::from) })
    }
}

/// One who has shown a pid and hears nothing before it is decided what comes of it.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) conn: ConnId,
    pub(super) wish: Wish,
    pub(super) asked: Time,
    /// Shards that have yet to say whether they have the memo.
    pub(super) shards: u16,
    /// The memo, once it is found.
    pub(super) left: Option<Left>,
    /// The rooms of it, and how many of their homes have yet to say whether they reach back so far.
    pub(super) rooms: Vec<(Arc<str>, Cursor)>,
    pub(super) homes: usize,
}

/// The memos of a shard.
#[derive(Debug)]
pub(super) struct Recalls {
    seed: Seed,
    key: hmac::Key,
    made: u64,
    /// By the connections' places.
    here: Map<u32, Box<Memo>>,
    /// Those by their pids.
    pids: Map<u128, u32>,
    left: Map<u128, Left>,
    /// When which of those is too old, in order; some may be gone since.
    ends: VecDeque<(Tick, u128)>,
    /// Bytes of those.
    bytes: u64,
    pub(super) wishes: Map<u32, Wish>,
    pub(super) claims: Map<u32, Claim>,
    /// Who claimed a pid last.
    claimed: Map<u128, u32>,
}

impl Recalls {
    /// No memos; `number` is known to nobody else.
    pub(super) fn new(seed: &Seed, number: u64) -> Self {
        let parts = [0, 1, 2].map(|part: u64| seed.hash_one(("recall", number, part)));
        let bytes: Vec<u8> =
            parts.iter().chain([&number]).flat_map(|part| part.to_le_bytes()).collect();
        Self {
            seed: seed.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            made: 0,
            here: seed.map(),
            pids: seed.map(),
            left: seed.map(),
            ends: VecDeque::new(),
            bytes: 0,
            wishes: seed.map(),
            claims: seed.map(),
            claimed: seed.map(),
        }
    }

    /// True while nobody here has a memo.
    pub(super) fn is_empty(&self) -> bool {
        self.here.is_empty()
    }

    /// Memos whose connections have ended.
    pub(super) fn lost(&self) -> usize {
        self.left.len()
    }

    /// Bytes of all memos, about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + self.here.len() as u64 * MEMO_BYTES
    }

    /// The pid of a connection that has a memo.
    pub(super) fn pid(&self, index: u32) -> Option<u128> {
        self.here.get(&index).map(|memo| memo.pid)
    }

    /// A connection has a memo from now on, under a new pid.
    pub(super) fn begin(&mut self, index: u32, now: Time) {
        self.made += 1;
        let mut secret = [0; 16];
        let tag = hmac::sign(&self.key, &self.made.to_le_bytes());
        secret.copy_from_slice(&tag.as_ref()[..16]);
        let memo = Memo::new(u128::from_be_bytes(secret), now, &self.seed);
        self.put(index, memo);
    }

    /// The same under the pid of a memo that the client was recalled by, with what it heard last, and the rooms that it
    /// comes back to: one that is lost again before it is in all of them comes back to all the same.
    pub(super) fn go_on(
        &mut self,
        index: u32,
        Wish { pid, shown }: &Wish,
        rooms: &[(Arc<str>, Cursor)],
        now: Time,
    ) {
        let mut memo = Memo::new(*pid, now, &self.seed);
        memo.awaited = rooms.to_vec();
        memo.gone = shown.as_deref().and_then(place).map(|(at, room)| (room.into(), at.offset));
        self.put(index, memo);
    }

    fn put(&mut self, index: u32, memo: Memo) {
        self.pids.insert(memo.pid, index);
        self.here.insert(index, Box::new(memo));
    }

    /// The connection is a member of the room, and goes on behind that place.
    pub(super) fn join(&mut self, index: u32, room: &Arc<str>, at: Cursor) {
        if let Some(memo) = self.here.get_mut(&index) {
            memo.join(room, at);
        }
    }

    /// The connection is no member of the room any more.
    pub(super) fn part(&mut self, index: u32, room: &str) {
        if let Some(memo) = self.here.get_mut(&index) {
            memo.part(room);
        }
    }

    /// The connection is in those rooms that it came back to, as far as it was let in.
    pub(super) fn arrive(&mut self, index: u32) {
        if let Some(memo) = self.here.get_mut(&index) {
            memo.awaited = Vec::new();
        }
    }

    /// The connection was given what the room numbered so.
    pub(super) fn give(&mut self, index: u32, room: &Arc<str>, offset: u64) {
        if self.here.is_empty() {
            return;
        }
        if let Some(memo) = self.here.get_mut(&index) {
            memo.give(room, offset);
        }
    }

    /// The connection's place in the table is another's from now on.
    pub(super) fn forget(&mut self, index: u32) -> Option<Memo> {
        let memo = self.here.remove(&index)?;
        self.pids.remove(&memo.pid);
        Some(*memo)
    }

    /// The connection was lost; what it was given is kept as long as that, for its user, if it was in rooms still.
    pub(super) fn lose(
        &mut self,
        mut memo: Memo,
        who: Option<Arc<str>>,
        is_in: impl Fn(&str) -> bool,
        until: Tick,
    ) {
        memo.rooms.retain(|room, _| is_in(room));
        let awaited = std::mem::take(&mut memo.awaited);
        memo.rooms.extend(awaited);
        self.keep(Left { memo, who, until });
    }

    /// Keeps a memo that its connection does not need.
    pub(super) fn keep(&mut self, left: Left) {
        let pid = left.memo.pid;
        self.bytes += left.bytes();
        self.ends.push_back((left.until, pid));
        if let Some(before) = self.left.insert(pid, left) {
            self.bytes -= before.bytes();
        }
        if self.ends.len() > 1024 + 2 * self.left.len() {
            let left = &self.left;
            self.ends.retain(|(until, pid)| left.get(pid).is_some_and(|one| one.until == *until));
        }
    }

    /// The connection here that has had that pid since then or longer.
    pub(super) fn holder(&self, pid: u128, then: Time) -> Option<u32> {
        let index = self.pids.get(&pid).copied()?;
        self.here.get(&index).filter(|memo| memo.began <= then).map(|_| index)
    }

    /// Notes that a connection wants the memo of a pid.
    pub(super) fn claim(&mut self, claim: Claim) {
        self.claimed.insert(claim.wish.pid, claim.conn.index);
        self.claims.insert(claim.conn.index, claim);
    }

    /// It is decided what comes of it, or the connection has ended.
    pub(super) fn settle(&mut self, index: u32) -> Option<Claim> {
        let claim = self.claims.remove(&index)?;
        if self.claimed.get(&claim.wish.pid) == Some(&index) {
            self.claimed.remove(&claim.wish.pid);
        }
        Some(claim)
    }

    /// The connection here that claimed that pid last, and no later than then, if nothing has come of it yet.
    pub(super) fn claimant(&self, pid: u128, then: Time) -> Option<ConnId> {
        let claim = self.claimed.get(&pid).and_then(|index| self.claims.get(index));
        claim.filter(|claim| claim.asked <= then).map(|claim| claim.conn)
    }

    /// The memo of that pid and that user.
    pub(super) fn take(&mut self, pid: u128, who: Option<&Arc<str>>, now: Tick) -> Option<Left> {
        let fits = |left: &&Left| left.who.as_ref() == who && left.until > now;
        self.left.get(&pid).filter(fits)?;
        let left = self.left.remove(&pid)?;
        self.bytes -= left.bytes();
        Some(left)
    }

    /// Lets go of what is too old, and of the oldest while all are more than so many bytes.
    pub(super) fn expire(&mut self, now: Tick, most: u64) {
        while let Some((until, pid)) = self.ends.front().copied() {
            if until > now && self.bytes <= most {
                return;
            }
            self.ends.pop_front();
            if self.left.get(&pid).is_some_and(|left| left.until == until)
                && let Some(left) = self.left.remove(&pid)
            {
                self.bytes -= left.bytes();
            }
        }
    }

    /// When [`Recalls::expire`] has something to do.
    pub(super) fn due(&self) -> Option<Tick> {
        self.ends.front().map(|(until, _)| *until)
    }

    /// Asserts that the memos are those of connections, and are counted.
    pub(super) fn check(&self, is_packets: impl Fn(u32) -> bool) {
        assert_eq!(self.here.len(), self.pids.len(), "memos and pids");
        for (index, memo) in &self.here {
            assert_eq!(self.pids.get(&memo.pid), Some(index), "whose pid it is");
            assert!(is_packets(*index), "connection {index} has a memo");
            assert!(memo.given.len() <= MOST_GIVEN, "what connection {index} was given");
        }
        assert_eq!(self.bytes, self.left.values().map(Left::bytes).sum::<u64>(), "bytes of memos");
        assert!(self.left.len() <= self.ends.len(), "memos without an end");
        assert!(self.claimed.len() <= self.claims.len(), "pids that are claimed");
        for claim in self.claims.keys().chain(self.wishes.keys()) {
            assert!(is_packets(*claim), "connection {claim} wants to be recalled");
        }
    }
}

/// How long, where that is not for ever, and zero is never.
pub(super) fn until(now: Tick, time: Duration) -> Option<Tick> {
    (!time.is_zero()).then(|| now.plus(time))
}

#[cfg(test)]
#[path = "recall_tests.rs"]
mod tests;
