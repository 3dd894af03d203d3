//! The connections of a shard and their places in the wheel.
//!
//! A slab index may be used again only after the driver has said `Closed`, and every lookup from
//! outside goes through the generation, so a late event or a late answer never reaches the next user
//! of the index. A new connection gets the lowest free index, so that what lies behind the last one can
//! be given back after a crowd; one that stays at a high index keeps the places below it.

use crate::base::id::ConnId;
use crate::base::places::Places;
use crate::base::spare::{Release, cut};
use crate::base::time::Tick;
use crate::connection::Connection;
use crate::flow::wheel::Wheel;

/// The connections of a shard.
#[derive(Debug)]
pub(super) struct Table {
    /// By index; `None` exactly where no place is taken.
    slots: Vec<Option<Connection>>,
    places: Places,
    next_generation: u32,
    pub(super) wheel: Wheel,
}

impl Table {
    /// A table with memory reserved (not touched) for `capacity` connections.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slots: Vec::with_capacity(capacity),
            places: Places::default(),
            next_generation: 0,
            wheel: Wheel::new(capacity),
        }
    }

    /// Takes in a connection whose socket was just accepted.
    pub(super) fn insert(&mut self, now: Tick) -> ConnId {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let index = self.places.take();
        let connection = Some(Connection::accepted(generation, now));
        match self.slots.get_mut(index as usize) {
            Some(slot) => *slot = connection,
            None => self.slots.push(connection),
        }
        ConnId { index, generation }
    }

    /// The connection, if it is still that one.
    pub(super) fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.slots.get_mut(id.key())?.as_mut().filter(|c| c.generation() == id.generation)
    }

    /// The connection at an index that came from this shard's own structures, which never outlive it.
    pub(super) fn at(&mut self, index: u32) -> Option<(ConnId, &mut Connection)> {
        let connection = self.slots.get_mut(index as usize)?.as_mut()?;
        Some((ConnId { index, generation: connection.generation() }, connection))
    }

    /// The connection at an index, to look at.
    pub(super) fn peek(&self, index: u32) -> Option<&Connection> {
        self.slots.get(index as usize)?.as_ref()
    }

    /// Gives up the connection and its place in the wheel.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.get(id)?;
        self.wheel.cancel(id.index);
        self.places.give(id.index);
        self.slots[id.key()].take()
    }

    /// Number of connections.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// One more than the highest index in use.
    pub(super) fn bound(&self) -> u32 {
        self.places.end()
    }

    /// Places whose memory was touched since it was last given back.
    pub(super) fn touched(&self) -> u32 {
        // As many as there were places taken at some time.
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Gives back what the places from `from` on cost; none of them is taken.
    pub(super) fn trim(&mut self, from: u32, to: &mut impl Release) {
        assert!(from >= self.bound(), "a place from {from} on is taken");
        cut(&mut self.slots, from as usize, to);
        self.wheel.trim(from, to);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
    }

    /// Verifies slots and places against each other.
    ///
    /// # Panics
    /// When they differ.
    pub(super) fn check(&self) {
        assert!(self.bound() <= self.touched(), "a place that is taken has a slot");
        for (index, slot) in (0..).zip(&self.slots) {
            assert_eq!(slot.is_some(), self.places.is_taken(index), "place {index}");
        }
        self.wheel.check();
    }
}

/// The record has room for the difference between a connection and none.
const _: () = assert!(size_of::<Option<Connection>>() == size_of::<Connection>());
