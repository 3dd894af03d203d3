//! What back ends ask about rooms and connections, and whom they send away.
//!
//! Nothing is kept for this while nobody asks, and no order exists that a question could follow: rooms and
//! connections stand where there was a place for them. So a question walks over the places, a bounded number
//! a turn, and keeps the best it has met. What it finds is of different moments of its walk; a room or
//! connection that is there all the time is met, and met once, as neither changes its place.
//!
//! Few members of a room are found through the room itself, without a walk. Members that are sent away are closed
//! so many a turn, because each close is a frame to write; whoever was accepted after the order stays.
//!
//! Questions are served one after another and wait in a short line; one that finds no place is counted and lost, and
//! the node says of this shard that it has not answered.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{is_user_room, plain, tenant_of};
use crate::base::cursor::Cursor;
use crate::base::fate::Account;
use crate::base::id::{ConnAddress, ConnId};
use crate::base::time::Time;
use crate::connection::Disconnect;
use crate::shard::explain::{Explain, Search};
use crate::shard::presence::Attendance;
use crate::shard::state::Shard;
use crate::wire::websocket::CloseCode;

/// A question of the node, or an order.
#[derive(Clone, Debug)]
pub enum Inspect {
    /// Rooms of a tenant whose names begin so: the first by name, or those with most members here.
    Rooms {
        /// Whose.
        tenant: Option<Arc<str>>,
        /// How their names begin, as their members call them; empty for all.
        prefix: Arc<str>,
        /// Only behind this name within the node.
        after: Option<Arc<str>>,
        /// True for those with most members.
        largest: bool,
        /// Rooms at most.
        limit: usize,
    },
    /// How many members these rooms have here, and what their home knows of them.
    Counts(Vec<Arc<str>>),
    /// Members of a room in the order of their ids.
    Connections {
        /// Its name within the node; a user's own room has the user's connections.
        room: Arc<str>,
        /// Only behind this connection.
        after: Option<ConnAddress>,
        /// Connections at most.
        limit: usize,
    },
    /// One connection, of this tenant if one is named.
    Connection(ConnAddress, Option<Arc<str>>),
    /// What became of a publication.
    Explain(Explain),
    /// Closes connections.
    Dismiss {
        /// Which.
        whom: Whom,
        /// By which close code.
        code: CloseCode,
        /// The reason in the close frame, 123 bytes at most.
        words: Option<Arc<str>>,
    },
}

/// Who is to go.
#[derive(Clone, Debug)]
pub enum Whom {
    /// One connection, of this tenant if one is named.
    Connection(ConnAddress, Option<Arc<str>>),
    /// The members of a room, by its name within the node.
    Members(Arc<str>),
}

/// A room, as one shard sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomSeen {
    /// Its name within the node.
    pub room: Arc<str>,
    /// Members in the shard.
    pub members: u64,
    /// The newest publication, where the room's home says so.
    pub position: Option<Cursor>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSeen {
    /// Which.
    pub conn: ConnAddress,
    /// Whose: the tenant, if there are tenants, and the user.
    pub who: Option<(Option<Box<str>>, Box<str>)>,
    /// Bytes that wait for it, in flight included.
    pub waiting: u64,
    /// Rooms it is in, the user's own included.
    pub rooms: usize,
    /// Names within the node of some of them, where one connection was asked for.
    pub names: Vec<Arc<str>>,
    /// How long ago its socket was accepted.
    pub life: Duration,
    /// What it speaks.
    pub transport: &'static str,
    /// True where TLS ends here.
    pub is_secure: bool,
}

/// What one shard has found or done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Rooms, in the order that was asked for.
    pub rooms: Vec<RoomSeen>,
    /// Connections by their ids.
    pub connections: Vec<ConnectionSeen>,
    /// Members of the room in this shard.
    pub members: u64,
    /// Connections closed.
    pub dismissed: u64,
    /// What became of a publication.
    pub account: Option<Box<Account>>,
    /// Members that a room may have here of which nothing was told.
    pub untold: u64,
}

/// What other nodes have found or done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// The name of this node, as others know it.
    pub own: Arc<str>,
    /// Each node that has answered, by its name.
    pub nodes: Vec<(Arc<str>, Inspected)>,
    /// Those that have not, in order. `None`: all have. Empty: nobody knows who they are.
    pub missing: Option<Vec<Arc<str>>>,
    /// Of this room on, or of the connections behind this one, not all nodes have told: their answers were too long.
    pub until: Option<Until>,
}

/// Where the first of the answers ends that were cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// With the room of this name within the node.
    Room(Arc<str>),
    /// With this connection.
    Connection(ConnAddress),
}

/// Places looked at in one turn.
const SLICE: u32 = 4096;
/// Connections closed in one turn.
const CLOSES: usize = 512;
/// Questions in line.
const MOST: usize = 64;
/// Rooms of one connection that are named.
const NAMED: usize = 100;

/// The line of questions.
#[derive(Debug)]
pub(super) struct Inspections {
    line: VecDeque<Inspection>,
    /// Places looked at in one turn.
    pub(super) slice: u32,
    /// Connections closed in one turn.
    pub(super) closes: usize,
}

impl Default for Inspections {
    fn default() -> Self {
        Self { line: VecDeque::new(), slice: SLICE, closes: CLOSES }
    }
}

/// A question under way.
#[derive(Debug)]
struct Inspection {
    number: u64,
    what: Arc<Inspect>,
    /// The place to look at next.
    cursor: u32,
    /// The generation of the first connection that came too late to be sent away.
    newcomer: u32,
    /// By rank and name, the best first, with members: as many as were asked for.
    rooms: BTreeSet<(u32, Arc<str>, u32)>,
    found: Inspected,
    /// Present while it is looked for in the ring of outcomes.
    search: Option<Box<Search>>,
}

impl Inspection {
    /// Keeps a room if it is among the best.
    fn keep(&mut self, rank: u32, name: &Arc<str>, members: u32, limit: usize) {
        if self.rooms.len() >= limit {
            let is_better = |last: &(u32, Arc<str>, u32)| (rank, name) < (last.0, &last.1);
            if !self.rooms.last().is_some_and(is_better) {
                return;
            }
            self.rooms.pop_last();
        }
        self.rooms.insert((rank, Arc::clone(name), members));
    }

    /// Moves the rooms that were kept into the answer.
    fn tell_rooms(&mut self, limit: usize) {
        let last = self.rooms.last().filter(|_| self.rooms.len() >= limit);
        self.found.untold = last.map_or(0, |(_, _, members)| u64::from(*members));
        let seen =
            |(_, room, members)| RoomSeen { room, members: u64::from(members), position: None };
        self.found.rooms = std::mem::take(&mut self.rooms).into_iter().map(seen).collect();
    }

    /// The next places, `slice` of them at most; true when they are the last.
    fn advance(&mut self, slice: u32, bound: u32) -> (std::ops::Range<u32>, bool) {
        let from = self.cursor.min(bound);
        let to = bound.min(from.saturating_add(slice));
        self.cursor = to;
        (from..to, to == bound)
    }
}

impl Shard {
    /// Puts a question of the node in line.
    pub(super) fn begin_inspection(&mut self, number: u64, what: &Arc<Inspect>) {
        let line = &mut self.measures.inspections.line;
        if line.len() >= MOST {
            self.counters.replies_lost_total += 1;
            return;
        }
        line.push_back(Inspection {
            number,
            what: Arc::clone(what),
            cursor: 0,
            newcomer: self.table.next_generation(),
            rooms: BTreeSet::new(),
            found: Inspected::default(),
            search: None,
        });
    }

    /// True while a question has places to look at.
    pub(super) fn is_inspecting(&self) -> bool {
        !self.measures.inspections.line.is_empty()
    }

    /// Looks on for the first question in line. To be called once a turn.
    pub(super) fn inspect_some(&mut self, now: Time) {
        let Some(mut inspection) = self.measures.inspections.line.pop_front() else { return };
        let what = Arc::clone(&inspection.what);
        let is_done = match &*what {
            Inspect::Rooms { .. } => self.inspect_rooms(&mut inspection, &what),
            Inspect::Counts(rooms) => self.inspect_counts(&mut inspection, rooms),
            Inspect::Connections { room, after, limit } => {
                self.inspect_members(&mut inspection, room, *after, *limit, now)
            }
            Inspect::Connection(address, tenant) => {
                let id = self.named(address, tenant.as_deref());
                let seen = id.and_then(|id| self.connection_seen(id, true, now));
                inspection.found.connections.extend(seen);
                true
            }
            Inspect::Explain(ask) => {
                let (search, account) = self.explain(inspection.search.take(), ask, now);
                inspection.search = search;
                inspection.found.account = account;
                inspection.found.account.is_some()
            }
            Inspect::Dismiss { whom, code, words } => {
                self.dismiss(&mut inspection, whom, (*code, words.as_deref()), now)
            }
        };
        let line = &mut self.measures.inspections.line;
        if !is_done {
            return line.push_front(inspection);
        }
        if line.is_empty() {
            *line = VecDeque::new();
        }
        self.reply_to_node(inspection.number, Attendance::Inspected(inspection.found));
    }

    fn inspect_rooms(&self, inspection: &mut Inspection, what: &Inspect) -> bool {
        let Inspect::Rooms { tenant, prefix, after, largest, limit } = what else { return true };
        let hub = &self.rooms.hub;
        let (places, is_last) = inspection.advance(self.measures.inspections.slice, hub.places());
        for place in places {
            let Some((name, members)) = hub.room_at(place) else { continue };
            let is_meant = tenant_of(name) == tenant.as_deref()
                && plain(name).starts_with(&**prefix)
                && after.as_ref().is_none_or(|after| name > after)
                && !is_user_room(name);
            if is_meant {
                let rank = if *largest { u32::MAX - members } else { 0 };
                inspection.keep(rank, name, members, *limit);
            }
        }
        if is_last {
            inspection.tell_rooms(*limit);
        }
        is_last
    }

    fn inspect_counts(&self, inspection: &mut Inspection, rooms: &[Arc<str>]) -> bool {
        let bound = u32::try_from(rooms.len()).unwrap_or(u32::MAX);
        let (places, is_last) = inspection.advance(self.measures.inspections.slice, bound);
        let (hub, directory) = (&self.rooms.hub, &self.rooms.directory);
        let seen = |room: &Arc<str>| RoomSeen {
            room: Arc::clone(room),
            members: hub.members(room).len() as u64,
            position: directory.position(room).map(|(epoch, offset)| Cursor { epoch, offset }),
        };
        let rooms = &rooms[places.start as usize..places.end as usize];
        inspection.found.rooms.extend(rooms.iter().map(seen));
        is_last
    }

    fn inspect_members(
        &mut self,
        inspection: &mut Inspection,
        room: &str,
        after: Option<ConnAddress>,
        limit: usize,
        now: Time,
    ) -> bool {
        let slice = self.measures.inspections.slice;
        let own = (self.identity.node, self.identity.id);
        inspection.found.members = self.rooms.hub.members(room).len() as u64;
        let from = match after.map(|after| (own.cmp(&(after.node, after.shard)), after)) {
            Some((Ordering::Less, _)) => return true,
            Some((Ordering::Equal, after)) => after.conn.index.saturating_add(1),
            Some((Ordering::Greater, _)) | None => 0,
        };
        // A walk that has begun goes on, however few members are left: nobody is told of twice.
        let few = if inspection.cursor == 0 { self.few_members(room) } else { None };
        let (indexes, is_last) = match few {
            Some(mut few) => {
                few.retain(|index| *index >= from);
                few.sort_unstable();
                (few, true)
            }
            None => {
                inspection.cursor = inspection.cursor.max(from);
                let (places, is_last) = inspection.advance(slice, self.table.touched());
                (places.filter(|index| self.is_member_at(*index, room)).collect(), is_last)
            }
        };
        let left = limit.saturating_sub(inspection.found.connections.len());
        for index in indexes.into_iter().take(left) {
            let id = self.table.at(index).map(|(id, _)| id);
            let seen = id.and_then(|id| self.connection_seen(id, false, now));
            inspection.found.connections.extend(seen);
        }
        is_last || inspection.found.connections.len() >= limit
    }

    /// The members of a room here, unless they are more than a slice.
    fn few_members(&self, room: &str) -> Option<Vec<u32>> {
        let members = self.rooms.hub.members(room);
        let is_few = members.len() <= self.measures.inspections.slice as usize;
        is_few.then(|| members.iter().map(|member| member.conn).collect())
    }

    fn is_member_at(&self, index: u32, room: &str) -> bool {
        let connection = self.table.peek(index);
        connection.is_some_and(|found| self.rooms.hub.is_member(&found.member, room))
    }

    /// The connection at that address, if it is this shard's, open, and of that tenant if one is named.
    pub(super) fn named(&mut self, address: &ConnAddress, tenant: Option<&str>) -> Option<ConnId> {
        let id = address.conn;
        if !self.is_own(address) || self.table.get(id)?.open().is_none() {
            return None;
        }
        let own = self.gate.people.get(id.index).and_then(|person| person.names().0);
        (tenant.is_none() || own == tenant).then_some(id)
    }

    fn connection_seen(&mut self, id: ConnId, named: bool, now: Time) -> Option<ConnectionSeen> {
        let conn = self.address(id);
        let life = self.table.age(id, now.tick());
        let connection = self.table.get(id)?;
        let hub = &self.rooms.hub;
        let most = if named { NAMED } else { 0 };
        let names = hub.rooms_of(&connection.member).filter(|room| !is_user_room(room));
        let person = self.gate.people.get(id.index).map(|person| person.names());
        Some(ConnectionSeen {
            conn,
            who: person.map(|(tenant, user)| (tenant.map(Box::from), Box::from(user))),
            waiting: connection.outbound.bytes() as u64,
            rooms: hub.count_of(&connection.member),
            names: names.take(most).cloned().collect(),
            life,
            transport: connection.form().transport(),
            is_secure: connection.is_secure(),
        })
    }

    /// Closes the next of those who are to go; true when they were the last.
    fn dismiss(
        &mut self,
        inspection: &mut Inspection,
        whom: &Whom,
        (code, words): (CloseCode, Option<&str>),
        now: Time,
    ) -> bool {
        let closes = self.measures.inspections.closes;
        let (going, is_last) = match whom {
            Whom::Connection(address, tenant) => {
                (Vec::from_iter(self.named(address, tenant.as_deref())), true)
            }
            Whom::Members(room) => self.next_to_go(inspection, room, closes),
        };
        inspection.found.dismissed += going.len() as u64;
        for id in going {
            self.close_saying(id, Disconnect::Dismissed(code), words, now);
        }
        is_last
    }

    /// Members of a room that were accepted before the order came, `most` of them.
    fn next_to_go(
        &mut self,
        inspection: &mut Inspection,
        room: &str,
        most: usize,
    ) -> (Vec<ConnId>, bool) {
        let newcomer = inspection.newcomer;
        // Generations wrap, so one from more than half of them ago counts as new.
        let was_there = |id: &ConnId| id.generation.wrapping_sub(newcomer) >= 1 << 31;
        if let Some(few) = self.few_members(room) {
            let ids = few.into_iter().filter_map(|index| self.table.at(index).map(|(id, _)| id));
            // One more tells whether there are others: those that are closed are no members any more.
            let mut going: Vec<ConnId> = ids.filter(was_there).take(most + 1).collect();
            let is_last = going.len() <= most;
            going.truncate(most);
            return (going, is_last);
        }
        let slice = self.measures.inspections.slice;
        let (places, is_last) = inspection.advance(slice, self.table.touched());
        let mut going = Vec::new();
        for index in places.clone() {
            if going.len() == most {
                inspection.cursor = index;
                return (going, false);
            }
            if self.is_member_at(index, room)
                && let Some((id, _)) = self.table.at(index)
                && was_there(&id)
            {
                going.push(id);
            }
        }
        (going, is_last)
    }
}
