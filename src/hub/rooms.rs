//! The members of rooms and the rooms of members, within one shard.
//!
//! A fan-out walks a room's members, so they stand in one dense array. A membership knows its place
//! in that array and a member knows its list of memberships, so leaving is a swap with the last and
//! one correction. The connection itself keeps four bytes, a [`MemberRef`]; who is in no room costs
//! nothing here. Rooms of one or two members, such as every user's own, fit into the room's entry.
//!
//! Each change marks its room once, and [`Hub::poll_changed`] tells the present count, so that a room
//! which gains a thousand members in a turn is one mail to its home. A room that became empty lives
//! until that has been told, and is gone then. Memory follows the number of rooms and members down
//! again, in steps of a factor, so that it costs a bounded share of the leaving that caused it.
//!
//! The hub does not know a connection beyond its slab index, nor where a room has members elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::roster::Stand;
use super::table::{Table, index, is_sparse};
use crate::base::map::Seed;

/// A room's place in its shard's hub. Valid while the room has a member here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey(pub u32);

/// One member of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The connection's slab index.
    pub conn: u32,
    /// Where the connection's memberships are; [`PENDING`] is set until the home has confirmed.
    slot: u32,
}

/// Set in a member's slot until [`Hub::confirm`].
const PENDING: u32 = 1 << 31;
/// Set in a member's slot while [`Hub::set_idle`] says so.
const IDLE: u32 = 1 << 30;

impl Member {
    /// True once the room's home has confirmed the membership: what the home numbered before that is
    /// not for this member, everything after is.
    #[must_use]
    pub fn is_confirmed(self) -> bool {
        self.slot & PENDING == 0
    }

    fn slot(self) -> u32 {
        self.slot & !(PENDING | IDLE)
    }

    fn is_idle(self) -> bool {
        self.slot & IDLE != 0
    }
}

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

#[derive(Debug)]
struct Room {
    name: Arc<str>,
    members: SmallVec<[Member; 2]>,
    /// Members that are idle.
    idle: u32,
    /// True exactly while the room's key stands in [`Hub::changed`].
    changed: bool,
    /// What was told last.
    told: Stand,
}

impl Room {
    fn stand(&self) -> Stand {
        match self.members.len() {
            0 => Stand::Gone,
            all if all == self.idle as usize => Stand::Idle,
            _ => Stand::Active,
        }
    }
}

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

#[derive(Clone, Copy, Debug)]
struct Membership {
    room: u32,
    /// Where the member stands in the room.
    position: u32,
}

type Memberships = SmallVec<[Membership; 2]>;

/// The rooms that have members in this shard.
#[derive(Debug)]
pub struct Hub {
    seed: Seed,
    /// The keys of `rooms`, found by the name that stands there: five bytes a room, and every user has one.
    names: HashTable<u32>,
    /// Rooms with members, and empty ones whose emptiness has not been told yet.
    rooms: Table<Room>,
    /// One entry per connection that is in a room; never an empty list.
    memberships: Table<Memberships>,
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
            seed: seed.clone(),
            names: HashTable::new(),
            rooms: Table::default(),
            memberships: Table::default(),
            changed: VecDeque::new(),
            occupied: 0,
            pairs: 0,
        }
    }

    /// The hub's own copy of a room's name, to be held by others too; `None` when nobody is in it here.
    #[must_use]
    pub fn name(&self, room: &str) -> Option<&Arc<str>> {
        self.find(room).map(|key| &self.rooms[key].name)
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
        let known = self.find(room);
        let memberships = self.memberships_of(member);
        if known.is_some_and(|key| memberships.iter().any(|m| m.room == key)) {
            return Ok(Joined::Already);
        }
        if memberships.len() >= limit {
            return Err(TooManyRooms { limit });
        }
        let key = known.unwrap_or_else(|| self.create(room));
        if member.is_none() {
            member.0 = self.memberships.insert(Memberships::new());
        }
        let slot = member.0;
        let target = &mut self.rooms[key];
        let position = index(target.members.len());
        target.members.push(Member { conn, slot: slot | PENDING });
        self.memberships[slot].push(Membership { room: key, position });
        self.occupied += usize::from(position == 0);
        self.pairs += 1;
        self.mark(key);
        Ok(Joined::New)
    }

    /// Notes that the room's home knows of the membership; false when there is none any more.
    pub fn confirm(&mut self, member: &MemberRef, room: &str) -> bool {
        let Some((key, position)) = self.place(member, room) else { return false };
        self.rooms[key].members[position as usize].slot &= !PENDING;
        true
    }

    /// Whether the connection is in the room, and if so whether the home has confirmed it.
    #[must_use]
    pub fn standing(&self, member: &MemberRef, room: &str) -> Standing {
        let Some((key, position)) = self.place(member, room) else { return Standing::Outside };
        let member = self.rooms[key].members[position as usize];
        if member.is_confirmed() { Standing::Confirmed } else { Standing::Pending }
    }

    /// Notes whether someone sits in front of a member; the members' common stand follows. Nothing happens
    /// when there is no such membership.
    pub fn set_idle(&mut self, member: &MemberRef, room: &str, idle: bool) {
        let Some((key, position)) = self.place(member, room) else { return };
        let target = &mut self.rooms[key];
        let member = &mut target.members[position as usize];
        if member.is_idle() == idle {
            return;
        }
        member.slot ^= IDLE;
        target.idle = if idle { target.idle + 1 } else { target.idle - 1 };
        self.mark(key);
    }

    /// Ends a membership; returns whether there was one.
    pub fn leave(&mut self, member: &mut MemberRef, room: &str) -> bool {
        let Some(key) = self.find(room) else { return false };
        let memberships = self.memberships_of(member);
        let Some(at) = memberships.iter().position(|m| m.room == key) else { return false };
        let membership = self.memberships[member.0].swap_remove(at);
        self.remove(membership);
        if self.memberships[member.0].is_empty() {
            self.memberships.remove(member.0);
            *member = MemberRef::NONE;
        }
        self.give_back();
        true
    }

    /// Ends all memberships of a connection; returns how many there were.
    pub fn leave_all(&mut self, member: &mut MemberRef) -> usize {
        if member.is_none() {
            return 0;
        }
        let memberships = self.memberships.remove(member.0);
        *member = MemberRef::NONE;
        for membership in &memberships {
            self.remove(*membership);
        }
        self.give_back();
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
        let room = &mut self.rooms[key];
        room.changed = false;
        let stand = room.stand();
        let before = std::mem::replace(&mut room.told, stand);
        let members = index(room.members.len());
        let name = Arc::clone(&room.name);
        if members == 0 {
            if let Ok(entry) = self.names.find_entry(self.seed.hash_one(&*name), |at| *at == key) {
                entry.remove();
            }
            self.rooms.remove(key);
        }
        if self.changed.is_empty() {
            self.give_back();
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
        let key = self.find(room)?;
        (!self.rooms[key].members.is_empty()).then_some(RoomKey(key))
    }

    /// The members of a room in this shard; none for a key that is no longer valid.
    #[must_use]
    pub fn members_at(&self, room: RoomKey) -> &[Member] {
        self.rooms.get(room.0).map_or(&[], |room| &room.members)
    }

    /// The rooms a connection is in, in no particular order.
    pub fn rooms_of(&self, member: &MemberRef) -> impl Iterator<Item = &Arc<str>> {
        self.memberships_of(member).iter().map(|m| &self.rooms[m.room].name)
    }

    /// How many rooms a connection is in.
    #[must_use]
    pub fn count_of(&self, member: &MemberRef) -> usize {
        self.memberships_of(member).len()
    }

    /// True when the connection is in the room.
    #[must_use]
    pub fn is_member(&self, member: &MemberRef, room: &str) -> bool {
        let key = self.find(room);
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
        index(self.rooms.end())
    }

    /// The room at a place, with its members in this shard; `None` where none has any. A room keeps its place
    /// while it has members.
    #[must_use]
    pub fn room_at(&self, place: u32) -> Option<(&Arc<str>, u32)> {
        let room = self.rooms.get(place).filter(|room| !room.members.is_empty())?;
        Some((&room.name, index(room.members.len())))
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
        let tables = self.rooms.capacity() + self.memberships.capacity();
        tables + self.names.capacity() + self.changed.capacity()
    }

    /// Verifies both directions of every membership, and the counts.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub fn check(&self) {
        assert_eq!(self.names.len(), self.rooms.len(), "each room has one name");
        let (mut occupied, mut pairs) = (0, 0);
        for (key, room) in self.rooms.iter() {
            assert_eq!(self.find(&room.name), Some(key), "a name leads to its room");
            assert!(room.changed || !room.members.is_empty(), "an empty room has to be told");
            occupied += usize::from(!room.members.is_empty());
            pairs += room.members.len();
            let idle = room.members.iter().filter(|member| member.is_idle()).count();
            assert_eq!(idle, room.idle as usize, "idle members");
            for (position, member) in room.members.iter().enumerate() {
                let there = &self.memberships[member.slot()];
                let mut here = there.iter().filter(|m| m.room == key);
                assert_eq!(here.next().map(|m| m.position), Some(index(position)), "a way back");
                assert!(here.next().is_none(), "a member once per room");
            }
        }
        assert_eq!((occupied, pairs), (self.occupied, self.pairs), "rooms and memberships");
        let listed: usize = self.memberships.iter().map(|(_, list)| list.len()).sum();
        assert_eq!(listed, pairs, "memberships and members");
        assert!(self.memberships.iter().all(|(_, list)| !list.is_empty()), "no empty list");
        let marked = self.rooms.iter().filter(|(_, room)| room.changed).count();
        assert_eq!(marked, self.changed.len(), "changed rooms are in line");
        assert!(self.changed.iter().all(|key| self.rooms[*key].changed));
    }

    /// The key of the room of that name.
    fn find(&self, room: &str) -> Option<u32> {
        self.names.find(self.seed.hash_one(room), |at| *self.rooms[*at].name == *room).copied()
    }

    fn memberships_of(&self, member: &MemberRef) -> &[Membership] {
        if member.is_none() { &[] } else { &self.memberships[member.0] }
    }

    /// The room's key and the member's place in it.
    fn place(&self, member: &MemberRef, room: &str) -> Option<(u32, u32)> {
        let key = self.find(room)?;
        let membership = self.memberships_of(member).iter().find(|m| m.room == key)?;
        Some((key, membership.position))
    }

    fn create(&mut self, name: &str) -> u32 {
        let hash = self.seed.hash_one(name);
        let room = Room {
            name: Arc::from(name),
            members: SmallVec::new(),
            idle: 0,
            changed: false,
            told: Stand::Gone,
        };
        let key = self.rooms.insert(room);
        let (seed, rooms) = (&self.seed, &self.rooms);
        self.names.insert_unique(hash, key, |at| seed.hash_one(&*rooms[*at].name));
        key
    }

    /// Takes a member out of its room and corrects the one that moves into its place.
    fn remove(&mut self, Membership { room: key, position }: Membership) {
        let room = &mut self.rooms[key];
        let gone = room.members.swap_remove(position as usize);
        room.idle -= u32::from(gone.is_idle());
        if let Some(moved) = room.members.get(position as usize) {
            let before = index(room.members.len());
            let mut list = self.memberships[moved.slot()].iter_mut();
            if let Some(m) = list.find(|m| m.room == key && m.position == before) {
                m.position = position;
            }
        }
        if room.members.spilled() && room.members.len() < room.members.capacity() / 8 {
            room.members.shrink_to_fit();
        }
        self.occupied -= usize::from(room.members.is_empty());
        self.pairs -= 1;
        self.mark(key);
    }

    fn mark(&mut self, key: u32) {
        let room = &mut self.rooms[key];
        if !room.changed {
            room.changed = true;
            self.changed.push_back(key);
        }
    }

    /// Gives back the memory of maps and lines once they are far below what they hold.
    fn give_back(&mut self) {
        if is_sparse(self.names.len(), self.names.capacity()) {
            let (seed, rooms) = (&self.seed, &self.rooms);
            self.names.shrink_to(self.names.len() * 2, |at| seed.hash_one(&*rooms[*at].name));
        }
        if is_sparse(self.changed.len(), self.changed.capacity()) {
            self.changed.shrink_to(self.changed.len() * 2);
        }
    }
}

const _: () = assert!(size_of::<MemberRef>() == 4);
const _: () = assert!(size_of::<Room>() == 48);
