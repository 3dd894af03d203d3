//! The connections of a shard and their places in the wheel.
//!
//! A slab index may be used again only after the driver has said `Closed`, and every lookup from
//! outside goes through the generation, so a late event or a late answer never reaches the next user
//! of the index. What lies behind the last connection can be given back after a crowd; one that stays at
//! a high index keeps the places below it.

use std::hint::black_box;
use std::time::Duration;

use slab::Slab;

use crate::base::ages::Ages;
use crate::base::id::ConnId;
use crate::base::spare::Release;
use crate::base::time::Tick;
use crate::connection::Connection;
use crate::flow::wheel::Wheel;
use crate::shard::deflate::Codec;

/// The connections of a shard.
#[derive(Debug)]
pub(super) struct Table {
    slab: Slab<Connection>,
    /// What the slab is to hold without moving.
    capacity: usize,
    /// One more than the highest index used since places were last given back.
    touched: u32,
    next_generation: u32,
    pub(super) wheel: Wheel,
    /// Scratch for the keys that the wheel fires; always empty between turns.
    pub(super) fired: Vec<u32>,
    /// When each generation was accepted.
    ages: Ages,
    /// What compresses for them all.
    pub(super) codec: Codec,
}

impl Table {
    /// A table with memory reserved (not touched) for `capacity` connections.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slab: Slab::with_capacity(capacity),
            capacity,
            touched: 0,
            next_generation: 0,
            wheel: Wheel::new(capacity),
            fired: Vec::new(),
            ages: Ages::default(),
            codec: Codec::default(),
        }
    }

    /// Takes in a connection whose socket was just accepted.
    pub(super) fn insert(&mut self, now: Tick) -> ConnId {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        self.ages.note(generation, now);
        let index = index(self.slab.insert(Connection::accepted(generation, now)));
        self.touched = self.touched.max(index.saturating_add(1));
        ConnId { index, generation }
    }

    /// How long ago the connection was accepted; a 32nd too long at most.
    pub(super) fn age(&self, id: ConnId, now: Tick) -> Duration {
        self.ages.came(id.generation).map_or(Duration::ZERO, |came| now.since(came))
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

    /// Reads something of each of these records and nothing else, so that the memory in which those lie
    /// that no cache holds is fetched at the same time, and not for one after the other.
    pub(super) fn fetch(&self, indexes: &[u32]) {
        let seen = indexes.iter().filter_map(|index| self.peek(*index));
        black_box(seen.fold(0, |all, connection| all ^ connection.last_seen.0));
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

    /// One more than the highest index in use. Looks at every free place behind it.
    pub(super) fn bound(&self) -> u32 {
        self.slab.iter().next_back().map_or(0, |(key, _)| index(key) + 1)
    }

    /// One more than the highest index used since places were last given back.
    pub(super) fn touched(&self) -> u32 {
        self.touched
    }

    /// Moves the connections to a slab without free places behind the last one, and gives the old one back
    /// whole: some two milliseconds for a million places. From then on the lowest free index is taken first.
    pub(super) fn shrink(&mut self) {
        if self.bound() < self.touched {
            self.slab.shrink_to_fit();
            self.slab.reserve_exact(self.capacity.saturating_sub(self.slab.len()));
        }
    }

    /// Gives back what else the places from `from` on cost; none of them is taken.
    pub(super) fn trim(&mut self, from: u32, to: &mut impl Release) {
        assert!(from >= self.bound(), "a place from {from} on is taken");
        self.touched = from;
        self.wheel.trim(from, to);
    }

    /// The generation of the next connection.
    pub(super) fn next_generation(&self) -> u32 {
        self.next_generation
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Connection)> {
        self.slab.iter().map(|(key, connection)| (index(key), connection))
    }

    /// Verifies the bounds.
    ///
    /// # Panics
    /// When a connection is where none may be.
    pub(super) fn check(&self) {
        assert!(self.bound() <= self.touched, "a place that is taken was never touched");
        self.wheel.check();
    }
}

/// A slab key as an index. A shard's descriptors end long before 2^32.
fn index(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(u32::MAX)
}
