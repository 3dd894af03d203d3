//! The rooms that have members in a shard, each with its members, found by name.
//!
//! Every user has a room of its own, so there may be a million of them with one member each or two. An entry is 40
//! bytes and has space for two members; of more the entry names a [`Crowd`]. A fan-out walks a room's members, so
//! they stand in one dense array either way, in which the last takes the place of one who leaves.
//!
//! Nothing here knows what else a member is in, and who has to hear of changes.

use std::sync::Arc;

use super::roster::Stand;
use crate::base::chains::{Chains, Linked};
use crate::base::map::Seed;
use crate::base::pool::{NONE, Pool, index};

/// One member of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The connection's slab index.
    pub conn: u32,
    /// Where the connection's memberships are; [`PENDING`] is set until the home has confirmed.
    slot: u32,
}

/// Set in a member's slot until [`Member::confirm`].
const PENDING: u32 = 1 << 31;
/// Set in a member's slot while nobody sits in front of it.
const IDLE: u32 = 1 << 30;

impl Member {
    /// A member that the room's home has not confirmed, with its memberships in that slot, which is below 2^30.
    pub(super) fn pending(conn: u32, slot: u32) -> Self {
        Self { conn, slot: slot | PENDING }
    }

    /// True once the room's home has confirmed the membership: what the home numbered before that is
    /// not for this member, everything after is.
    #[must_use]
    pub fn is_confirmed(self) -> bool {
        self.slot & PENDING == 0
    }

    pub(super) fn confirm(&mut self) {
        self.slot &= !PENDING;
    }

    pub(super) fn slot(self) -> u32 {
        self.slot & !(PENDING | IDLE)
    }

    pub(super) fn is_idle(self) -> bool {
        self.slot & IDLE != 0
    }
}

/// A room with members, or one whose emptiness has not been told yet.
#[derive(Debug)]
struct Room {
    name: Arc<str>,
    /// The members, while there are at most two. Of more, the first stands for the crowd: [`Member::conn`] is its number.
    few: [Member; FEW],
    /// The room behind this one in its chain.
    next: u32,
    /// Part of the name's hash: most of the other rooms in a chain are told apart without a look at their names.
    tag: u8,
    /// Members, or [`MANY`].
    count: u8,
    /// What was told last.
    told: Stand,
    /// True exactly while the room stands in line to be told of.
    changed: bool,
}

/// The members of a room with more than a few.
#[derive(Debug)]
struct Crowd {
    members: Vec<Member>,
    /// Members that are idle.
    idle: usize,
}

const FEW: usize = 2;
/// A room's count when its members are a crowd.
const MANY: u8 = u8::MAX;
const NOBODY: Member = Member { conn: NONE, slot: 0 };

impl Linked for Room {
    fn next(&self) -> u32 {
        self.next
    }

    fn set_next(&mut self, next: u32) {
        self.next = next;
    }
}

impl Room {
    /// The number of its crowd, if it has one.
    fn crowd(&self) -> Option<u32> {
        (self.count == MANY).then_some(self.few[0].conn)
    }

    fn few(&self) -> &[Member] {
        &self.few[..usize::from(self.count)]
    }
}

/// The rooms by number and by name.
#[derive(Debug)]
pub(super) struct Rooms {
    seed: Seed,
    rooms: Pool<Room>,
    crowds: Pool<Crowd>,
    names: Chains,
}

impl Rooms {
    pub(super) fn new(seed: &Seed) -> Self {
        let (rooms, crowds, names) = Default::default();
        Self { seed: seed.clone(), rooms, crowds, names }
    }

    /// The number of the room of that name.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        let hash = self.seed.hash_one(name);
        let tag = tag(hash);
        self.names.find(&self.rooms, hash, |room| room.tag == tag && *room.name == *name)
    }

    /// A room of that name without members; there is none yet.
    pub(super) fn create(&mut self, name: &str) -> u32 {
        let tag = tag(self.seed.hash_one(name));
        let name = Arc::from(name);
        let few = [NOBODY; FEW];
        let told = Stand::Gone;
        let room = Room { name, few, next: NONE, tag, count: 0, told, changed: false };
        let key = self.rooms.insert(room);
        let seed = &self.seed;
        self.names.insert(&mut self.rooms, key, |room| seed.hash_one(&*room.name));
        key
    }

    /// Forgets a room without members.
    pub(super) fn remove(&mut self, key: u32) {
        assert_eq!(self.rooms[key].count, 0, "a room that is forgotten has no members");
        let seed = &self.seed;
        self.names.remove(&mut self.rooms, key, |room| seed.hash_one(&*room.name));
        self.rooms.remove(key);
    }

    pub(super) fn name(&self, key: u32) -> &Arc<str> {
        &self.rooms[key].name
    }

    /// The members of a room; none where there is no such room.
    pub(super) fn members(&self, key: u32) -> &[Member] {
        let Some(room) = self.rooms.get(key) else { return &[] };
        match room.crowd() {
            Some(crowd) => &self.crowds[crowd].members,
            None => room.few(),
        }
    }

    /// How the members stand, taken together.
    pub(super) fn stand(&self, key: u32) -> Stand {
        let members = self.members(key);
        let idle = match self.rooms[key].crowd() {
            Some(crowd) => self.crowds[crowd].idle,
            None => idle_among(members),
        };
        match members.len() {
            0 => Stand::Gone,
            all if all == idle => Stand::Idle,
            _ => Stand::Active,
        }
    }

    /// Puts a member behind the others; returns its place.
    pub(super) fn push(&mut self, key: u32, member: Member) -> u32 {
        let room = &mut self.rooms[key];
        let count = usize::from(room.count);
        if let Some(crowd) = room.crowd() {
            let crowd = &mut self.crowds[crowd];
            crowd.members.push(member);
            crowd.idle += usize::from(member.is_idle());
            return index(crowd.members.len() - 1);
        }
        if count < FEW {
            room.few[count] = member;
            room.count += 1;
        } else {
            let members = [&room.few[..], &[member]].concat();
            let idle = idle_among(&members);
            room.few[0].conn = self.crowds.insert(Crowd { members, idle });
            room.count = MANY;
        }
        index(count)
    }

    /// Takes a member out. The last one takes its place, and is returned as the second, if that was another.
    pub(super) fn take(&mut self, key: u32, position: u32) -> (Member, Option<Member>) {
        let (room, at) = (&mut self.rooms[key], position as usize);
        let Some(number) = room.crowd() else {
            let last = usize::from(room.count) - 1;
            let (gone, moved) = (room.few[at], room.few[last]);
            room.few[at] = moved;
            room.count -= 1;
            return (gone, (at < last).then_some(moved));
        };
        let crowd = &mut self.crowds[number];
        let gone = crowd.members.swap_remove(at);
        crowd.idle -= usize::from(gone.is_idle());
        let moved = crowd.members.get(at).copied();
        if let [alone] = *crowd.members {
            // Not before, or a third who comes and goes would take memory each time.
            (room.few[0], room.count) = (alone, 1);
            self.crowds.remove(number);
        } else if crowd.members.len() < crowd.members.capacity() / 8 {
            crowd.members.shrink_to_fit();
        }
        (gone, moved)
    }

    /// Notes that the room's home knows of a member.
    pub(super) fn confirm(&mut self, key: u32, position: u32) {
        self.member_mut(key, position).confirm();
    }

    /// Notes whether somebody sits in front of a member; true when it was not so before.
    pub(super) fn set_idle(&mut self, key: u32, position: u32, idle: bool) -> bool {
        let member = self.member_mut(key, position);
        let is_news = member.is_idle() != idle;
        if is_news {
            member.slot ^= IDLE;
        }
        if let Some(crowd) = self.rooms[key].crowd().filter(|_| is_news) {
            let crowd = &mut self.crowds[crowd];
            crowd.idle = if idle { crowd.idle + 1 } else { crowd.idle - 1 };
        }
        is_news
    }

    /// Notes that the room has changed; true when it was not known to have.
    pub(super) fn mark(&mut self, key: u32) -> bool {
        !std::mem::replace(&mut self.rooms[key].changed, true)
    }

    /// Notes that somebody hears how the members stand, and tells how they stood when somebody last did.
    pub(super) fn tell(&mut self, key: u32) -> (Stand, Stand) {
        let stand = self.stand(key);
        let room = &mut self.rooms[key];
        room.changed = false;
        (stand, std::mem::replace(&mut room.told, stand))
    }

    /// One more than the highest number in use.
    pub(super) fn end(&self) -> u32 {
        self.rooms.end()
    }

    /// Entries for which memory is held.
    pub(super) fn capacity(&self) -> usize {
        self.rooms.capacity() + self.crowds.capacity() + self.names.bytes() / size_of::<u32>()
    }

    /// The numbers of all rooms; with each whether it is known to have changed.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, bool)> {
        self.rooms.iter().map(|(key, room)| (key, room.changed))
    }

    /// Verifies names and counts.
    ///
    /// # Panics
    /// When an invariant does not hold.
    pub(super) fn check(&self) {
        self.rooms.check();
        self.crowds.check();
        self.names.check(&self.rooms, |room| self.seed.hash_one(&*room.name));
        let mut crowds = 0;
        for (key, room) in self.rooms.iter() {
            assert_eq!(self.find(&room.name), Some(key), "a name leads to its room");
            assert!(room.changed || room.count > 0, "an empty room has to be told");
            if let Some(crowd) = room.crowd() {
                let Crowd { members, idle } = &self.crowds[crowd];
                assert!(members.len() > 1, "one is no crowd");
                assert_eq!(idle_among(members), *idle, "idle members");
                crowds += 1;
            }
        }
        assert_eq!(crowds, self.crowds.len(), "a crowd is of one room");
    }

    fn member_mut(&mut self, key: u32, position: u32) -> &mut Member {
        let room = &mut self.rooms[key];
        match room.crowd() {
            Some(crowd) => &mut self.crowds[crowd].members[position as usize],
            None => &mut room.few[position as usize],
        }
    }
}

fn idle_among(members: &[Member]) -> usize {
    members.iter().filter(|member| member.is_idle()).count()
}

/// A part of a hash that chains do not go by.
fn tag(hash: u64) -> u8 {
    hash.to_be_bytes()[3]
}

const _: () = assert!(Pool::<Room>::PLACE == 40);
