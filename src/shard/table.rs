//! The connections of a shard and their places in the wheel.
//!
//! A slab index may be used again only after the driver has said `Closed`, and every lookup from
//! outside goes through the generation, so a late event or a late answer never reaches the next user
//! of the index.

use slab::Slab;

use crate::base::id::ConnId;
use crate::base::time::Tick;
use crate::connection::Connection;
use crate::flow::wheel::Wheel;

/// The connections of a shard.
#[derive(Debug)]
pub(super) struct Table {
    slab: Slab<Connection>,
    next_generation: u32,
    /// One more than the highest index ever in use.
    bound: u32,
    pub(super) wheel: Wheel,
}

impl Table {
    /// A table with memory reserved (not touched) for `capacity` connections.
    pub(super) fn new(capacity: usize) -> Self {
        let (slab, wheel) = (Slab::with_capacity(capacity), Wheel::new(capacity));
        Self { slab, next_generation: 0, bound: 0, wheel }
    }

    /// Takes in a connection whose socket was just accepted.
    pub(super) fn insert(&mut self, now: Tick) -> ConnId {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let key = self.slab.insert(Connection::accepted(generation, now));
        let index = index(key);
        self.bound = self.bound.max(index.saturating_add(1));
        ConnId { index, generation }
    }

    /// The connection, if it is still that one.
    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.slab.get_mut(id.key()).filter(|c| c.generation() == id.generation)
    }

    /// The connection at an index that came from this shard's own structures, which never outlive it.
    pub(super) fn at(&mut self, index: u32) -> Option<(ConnId, &mut Connection)> {
        let connection = self.slab.get_mut(index as usize)?;
        Some((ConnId { index, generation: connection.generation() }, connection))
    }

    /// The connection at an index, to look at.
    pub(super) fn peek(&self, index: u32) -> Option<&Connection> {
        self.slab.get(index as usize)
    }

    /// Gives up the connection and its place in the wheel.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.get(id)?;
        self.wheel.cancel(id.index);
        Some(self.slab.remove(id.key()))
    }

    /// Number of connections.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// One more than the highest index ever in use: a walk up to here meets everyone.
    pub(super) fn bound(&self) -> u32 {
        self.bound
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.slab.iter().map(|(key, connection)| (index(key), connection))
    }
}

/// A slab key as an index. A shard's descriptors end long before 2^32.
fn index(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(u32::MAX)
}
