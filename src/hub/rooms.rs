//! The members of rooms and the rooms of members, within one shard.
//!
//! A fan-out walks a room's members, so they stand in one dense array. A membership knows its place
//! in that array and a member knows its list of memberships, so leaving is a swap with the last and
//! one correction. The connection itself keeps four bytes, a [`MemberRef`]; who is in no room costs
//! nothing here. [`room`](super::room) has the arrays, [`lists`](super::lists) the memberships.
//!
//! Each change marks its room once, and [`Hub::poll_changed`] tells the present count, so that a room
//! which gains a thousand members in a turn is one mail to its home. A room that became empty lives
//! until that has been told, and is gone then. Memory follows the number of rooms and members down
//! again.
//!
//! The hub does not know a connection beyond its slab index, nor where a room has members elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::lists::{Lists, Membership};
use super::room::{Member, Rooms};
use super::roster::Stand;
use crate::base::map::Seed;
use crate::base::pool::{index, is_sparse};

/// A room's place in its shard's hub. Valid while the room has a member here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(pub u32);

/// A connection's memberships, kept in its record. The owner gives it to [`Hub::leave_all`] before
/// dropping it.
#[derive(Debug, PartialEq, Eq)]
pub struct MemberRef(u32);

impl MemberRef {
    /// A member of no room.
    pub const NONE: Self = Self(u32::MAX);

    /// True when the connection is in no room.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl Default for MemberRef {
    fn default() -> Self {
        Self::NONE
    }
}

/// Whether joining changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The connection is a member now.
    New,
    /// It was one before.
    Already,
}

/// What a connection is to a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No member.
    Outside,
    /// A member that the home has not confirmed.
    Pending,
    /// A member that receives what is published.
    Confirmed,
}

/// The connection is in as many rooms as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRooms {
    /// The limit.
    pub limit: usize,
}

impl fmt::Display for TooManyRooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a connection may be in {} rooms", self.limit)
    }
}

impl std::error::Error for TooManyRooms {}

/// A room that changed since it was last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub room: Arc<str>,
    /// Its members in this shard now; zero is its end here.
    pub members: u32,
    /// How its members stand, taken together.
    pub stand: Stand,
    /// How they stood when that was last told.
    pub before: Stand,
}

/// The rooms that have members in this shard.
#[derive(Debug)]
pub struct Hub {
    /// Rooms with members, and empty ones whose emptiness has not been told yet.
    rooms: Rooms,
    /// One entry per connection that is in a room.
    memberships: Lists,
    /// Rooms whose count has to be told, in the order of their first change.
    changed: VecDeque<u32>,
    /// Rooms with members.
    occupied: usize,
    /// Pairs of room and member.
    pairs: usize,
}

impl Hub {
    /// A hub without rooms.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self {
            rooms: Rooms::new(seed),
            memberships: Lists::default(),
            changed: VecDeque::new(),
            occupied: 0,
            pairs: 0,
        }
    }

    /// The hub's own copy of a room's name, to be held by others too; `None` when nobody is in it here.
    #[must_use]
    pub fn name(&self, room: &str) -> Option<&Arc<str>> {
        self.rooms.find(room).map(|key| self.rooms.name(key))
    }

    /// Makes connection `conn` a member of `room`, to be confirmed by the room's home. Joining twice
    /// changes nothing.
    ///
    /// # Errors
    /// When the connection is in `limit` rooms already, and not in this one.
    pub fn join(
        &mut self,
        member: &mut MemberRef,
        conn: u32,
        room: &str,
        limit: usize,
    ) -> Result<Joined, TooManyRooms> {
        let known = self.rooms.find(room);
        let memberships = self.memberships_of(member);
        if known.is_some_and(|key| memberships.iter().any(|m| m.room == key)) {
            return Ok(Joined::Already);
        }
        if memberships.len() >= limit {
            return Err(TooManyRooms { limit });
        }
        let key = known.unwrap_or_else(|| self.rooms.create(room));
        let position = index(self.rooms.members(key).len());
        let membership = Membership { room: key, position };
        if member.is_none() {
            member.0 = self.memberships.begin(membership);
        } else {
            self.memberships.push(member.0, membership);
        }
        self.rooms.push(key, Member::pending(conn, member.0));
        self.occupied += usize::from(position == 0);
        self.pairs += 1;
        self.mark(key);
        Ok(Joined::New)
    }

    /// Notes that the room's home knows of the membership; false when there is none any more.
    pub fn confirm(&mut self, member: &MemberRef, room: &str) -> bool {
        let Some((key, position)) = self.place(member, room) else { return false };
        self.rooms.confirm(key, position);
        true
    }

    /// Whether the connection is in the room, and if so whether the home has confirmed it.
    #[must_use]
    pub fn standing(&self, member: &MemberRef, room: &str) -> Standing {
        let Some((key, position)) = self.place(member, room) else { return Standing::Outside };
        let member = self.rooms.members(key)[position as usize];
        if member.is_confirmed() { Standing::Confirmed } else { Standing::Pending }
    }

    /// Notes whether someone sits in front of a member; the members' common stand follows. Nothing happens
    /// when there is no such membership.
    pub fn set_idle(&mut self, member: &MemberRef, room: &str, idle: bool) {
        let Some((key, position)) = self.place(member, room) else { return };
        if self.rooms.set_idle(key, position, idle) {
            self.mark(key);
        }
    }

    /// Ends a membership; returns whether there was one.
    pub fn leave(&mut self, member: &mut MemberRef, room: &str) -> bool {
        let Some(key) = self.rooms.find(room) else { return false };
        let memberships = self.memberships_of(member);
        let Some(at) = memberships.iter().position(|m| m.room == key) else { return false };
        let (membership, is_in_others) = self.memberships.take(member.0, at);
        if !is_in_others {
            *member = MemberRef::NONE;
        }
        self.remove(membership);
        true
    }

    /// Ends all memberships of a connection; returns how many there were.
    pub fn leave_all(&mut self, member: &mut MemberRef) -> usize {
        if member.is_none() {
            return 0;
        }
        let memberships = self.memberships.end(member.0);
        *member = MemberRef::NONE;
        for membership in &memberships {
            self.remove(*membership);
        }
        memberships.len()
    }

    /// The next room whose count changed since it was last told, with its present count; rooms come
    /// in the order of their first change, each once. Zero is the end of the room in this shard.
    pub fn poll_changed(&mut self) -> Option<(Arc<str>, u32)> {
        self.poll_change().map(|change| (change.room, change.members))
    }

    /// The same, with how the members stand.
    pub fn poll_change(&mut self) -> Option<Change> {
        let key = self.changed.pop_front()?;
        let (stand, before) = self.rooms.tell(key);
        let members = index(self.rooms.members(key).len());
        let name = Arc::clone(self.rooms.name(key));
        if members == 0 {
            self.rooms.remove(key);
        }
        if self.changed.is_empty() && is_sparse(0, self.changed.capacity()) {
            self.changed = VecDeque::new();
        }
        Some(Change { room: name, members, stand, before })
    }

    /// The members of a room in this shard.
    #[must_use]
    pub fn members(&self, room: &str) -> &[Member] {
        self.key(room).map_or(&[], |key| self.members_at(key))
    }

    /// The room's key, while it has members here.
    #[must_use]
    pub fn key(&self, room: &str) -> Option<RoomKey> {
        let key = self.rooms.find(room)?;
        (!self.rooms.members(key).is_empty()).then_some(RoomKey(key))
    }

    /// The members of a room in this shard; none for a key that is no longer valid.
    #[must_use]
    pub fn members_at(&self, room: RoomKey) -> &[Member] {
        self.rooms.members(room.0)
    }

    /// The rooms a connection is in, in no particular order.
    pub fn rooms_of(&self, member: &MemberRef) -> impl Iterator<Item = &Arc<str>> {
        self.memberships_of(member).iter().map(|m| self.rooms.name(m.room))
    }

    /// How many rooms a connection is in.
    #[must_use]
    pub fn count_of(&self, member: &MemberRef) -> usize {
        self.memberships_of(member).len()
    }

    /// True when the connection is in the room.
    #[must_use]
    pub fn is_member(&self, member: &MemberRef, room: &str) -> bool {
        let key = self.rooms.find(room);
        key.is_some_and(|key| self.memberships_of(member).iter().any(|m| m.room == key))
    }

    /// True when the connection is in one of these rooms, confirmed or not.
    #[must_use]
    pub fn is_in_any(&self, member: &MemberRef, rooms: &[RoomKey]) -> bool {
        let memberships = self.memberships_of(member);
        memberships.iter().any(|membership| rooms.contains(&RoomKey(membership.room)))
    }

    /// One more than the highest place that a room of this shard stands at now.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.rooms.end()
    }

    /// The room at a place, with its members in this shard; `None` where none has any. A room keeps its place
    /// while it has members.
    #[must_use]
    pub fn room_at(&self, place: u32) -> Option<(&Arc<str>, u32)> {
        let members = self.rooms.members(place).len();
        (members > 0).then(|| (self.rooms.name(place), index(members)))
    }

    /// Rooms with members in this shard.
    #[must_use]
    pub fn len(&self) -> usize {
        self.occupied
    }

    /// True when no room has a member in this shard.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Memberships in this shard: pairs of room and member.
    #[must_use]
    pub fn memberships(&self) -> usize {
        self.pairs
    }

    /// Entries for which memory is held, all tables together.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.rooms.capacity() + self.memberships.capacity() + self.changed.capacity()
    }

    /// Verifies both directions of every membership, and the counts.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        self.rooms.check();
        let (mut occupied, mut pairs, mut marked) = (0, 0, 0);
        for (key, changed) in self.rooms.iter() {
            let members = self.rooms.members(key);
            occupied += usize::from(!members.is_empty());
            pairs += members.len();
            marked += usize::from(changed);
            for (position, member) in members.iter().enumerate() {
                let there = self.memberships.of(member.slot());
                let mut here = there.iter().filter(|m| m.room == key);
                assert_eq!(here.next().map(|m| m.position), Some(index(position)), "a way back");
                assert!(here.next().is_none(), "a member once per room");
            }
        }
        assert_eq!((occupied, pairs), (self.occupied, self.pairs), "rooms and memberships");
        assert_eq!(self.memberships.check(), pairs, "memberships and members");
        assert_eq!(marked, self.changed.len(), "changed rooms are in line");
        let mut line: Vec<u32> = self.changed.iter().copied().collect();
        line.sort_unstable();
        let is_changed = |(key, changed): (u32, bool)| changed.then_some(key);
        assert!(self.rooms.iter().filter_map(is_changed).eq(line), "each of them once");
    }

    fn memberships_of(&self, member: &MemberRef) -> &[Membership] {
        if member.is_none() { &[] } else { self.memberships.of(member.0) }
    }

    /// The room's key and the member's place in it.
    fn place(&self, member: &MemberRef, room: &str) -> Option<(u32, u32)> {
        let key = self.rooms.find(room)?;
        let membership = self.memberships_of(member).iter().find(|m| m.room == key)?;
        Some((key, membership.position))
    }

    /// Takes a member out of its room and corrects the one that moves into its place.
    fn remove(&mut self, Membership { room: key, position }: Membership) {
        let (_, moved) = self.rooms.take(key, position);
        let left = index(self.rooms.members(key).len());
        if let Some(moved) = moved {
            let mut list = self.memberships.of_mut(moved.slot()).iter_mut();
            if let Some(m) = list.find(|m| m.room == key && m.position == left) {
                m.position = position;
            }
        }
        self.occupied -= usize::from(left == 0);
        self.pairs -= 1;
        self.mark(key);
    }

    fn mark(&mut self, key: u32) {
        if self.rooms.mark(key) {
            self.changed.push_back(key);
        }
    }
}

const _: () = assert!(size_of::<MemberRef>() == 4);
