//! What is known of connections, where the configuration has it kept: the program, and since when.
//!
//! Off by default, and then nothing is kept of anybody. An address is not kept again, because the seats have
//! it: an IPv4 address, or the /64 of IPv6 that a client is counted by.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::base::id::{ConnAddress, ConnId};
use crate::base::map::{Map, Seed};
use crate::base::time::Time;
use crate::session::Status;
use crate::shard::presence::Page;
use crate::shard::state::Shard;
use crate::wire::http::Head;

/// A connection that is a member of a room.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The connection.
    pub client: ConnAddress,
    /// The room of its user's own; `None` for nobody in particular.
    pub user: Option<Arc<str>>,
    /// Whether somebody sits in front of it.
    pub status: Status,
    /// What else is known, where that is kept.
    pub about: Option<Record>,
    /// The address, where the rest is kept too, as it is shown.
    pub address: Option<Arc<str>>,
    /// What the token says about the connection, where that is kept: JSON as it was written.
    pub meta: Option<Box<RawValue>>,
}

/// What is kept of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it came, in milliseconds since 1970.
    pub connected: u64,
    /// The program, as it called itself.
    pub agent: Option<Arc<str>>,
}

/// What is kept of the connections of a shard.
#[derive(Debug)]
pub(in crate::shard) struct Guests {
    records: Map<u32, Record>,
}

/// Bytes of a program's name that are kept.
const AGENT_BYTES: usize = 256;

impl Guests {
    pub(super) fn new(seed: &Seed) -> Self {
        Self { records: seed.map() }
    }

    pub(super) fn remove(&mut self, index: u32) {
        if self.records.remove(&index).is_some() && self.records.len() < self.records.capacity() / 8
        {
            self.records.shrink_to(self.records.len() * 2);
        }
    }
}

impl Shard {
    /// Keeps what a request says of its client, where that is asked for.
    pub(in crate::shard) fn note_guest(&mut self, conn: ConnId, head: &Head<'_>, now: Time) {
        if !self.settings.rooms.presence.metadata {
            return;
        }
        let agent = head.values("user-agent").next().and_then(|value| {
            let text = std::str::from_utf8(value).ok()?;
            let end = text.floor_char_boundary(AGENT_BYTES);
            (!text.contains(char::is_control)).then(|| Arc::from(&text[..end]))
        });
        let record = Record { connected: self.unix_ms(now), agent };
        self.rooms.presence.guests.records.insert(conn.index, record);
    }

    /// This shard's part of a page of a room's members, and how many members it has.
    pub(in crate::shard) fn list(&self, page: &Page) -> (u64, Vec<Guest>) {
        let members = self.rooms.hub.members(&page.room);
        let own = (self.identity.node, self.identity.id);
        let from = match page.after.map(|after| (own.cmp(&(after.node, after.shard)), after)) {
            Some((Ordering::Less, _)) => u32::MAX,
            Some((Ordering::Equal, after)) => after.conn.index.saturating_add(1),
            Some((Ordering::Greater, _)) | None => 0,
        };
        // The lowest indexes, the highest of them on top.
        let mut lowest: BinaryHeap<u32> = BinaryHeap::new();
        for index in members.iter().map(|member| member.conn).filter(|index| *index >= from) {
            if lowest.len() < page.limit {
                lowest.push(index);
            } else if let Some(mut highest) = lowest.peek_mut()
                && index < *highest
            {
                *highest = index;
            }
        }
        let guests = lowest.into_sorted_vec().into_iter().filter_map(|index| self.guest(index));
        (members.len() as u64, guests.collect())
    }

    fn guest(&self, index: u32) -> Option<Guest> {
        let connection = self.table.peek(index)?;
        let conn = ConnId { index, generation: connection.generation() };
        let about = self.rooms.presence.guests.records.get(&index).cloned();
        let person = self.gate.people.get(index);
        let party = about.is_some().then(|| self.gate.seats.party(index)).flatten();
        Some(Guest {
            client: self.address(conn),
            user: person.map(|person| Arc::clone(person.own())),
            meta: self.gate.people.meta(index).map(RawValue::to_owned),
            status: connection.open()?.session.status(),
            address: party.map(|party| Arc::from(party.to_string())),
            about,
        })
    }
}
